"""AdelaiDet's own SOLOv2 functions, loaded from the user's checkout; nothing of it is needed here.

Only `adet/modeling/solov2` is imported, behind empty parent packages, because the package itself
needs compiled code. Its functions are called with our tensors, in the layout that they expect.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import MethodType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from solo_d2.modeling.grid import GridSpec
from solo_d2.modeling.structures import SOLOTargets


class AdelaiDet:
    """The peer's functions with the settings of its SOLOv2 configs.

    Args:
        checkout: folder that holds `adet/`.
        grid: our grid pyramid, for which the peer is set up.
        num_classes: C.

    Raises:
        ValueError: not a checkout of AdelaiDet, or it cannot be imported.
    """

    def __init__(self, checkout: Path, grid: GridSpec, num_classes: int) -> None:
        if not (checkout / "adet" / "modeling" / "solov2" / "solov2.py").is_file():
            raise ValueError(
                f"--peer expects a checkout of AdelaiDet, found no adet/modeling/solov2 in {checkout}"
            )
        for name in ("adet", "adet.modeling"):
            package = ModuleType(name)
            package.__path__ = [str(checkout.joinpath(*name.split(".")))]
            sys.modules[name] = package
        try:
            module = importlib.import_module("adet.modeling.solov2.solov2")
        except ImportError as error:
            raise ValueError(f"--peer: cannot import SOLOv2 of {checkout}: {error}") from error
        self.nms = module.matrix_nms
        self.grid = grid
        model = self.model = SimpleNamespace(
            scale_ranges=grid.scale_ranges,
            strides=grid.strides,
            instance_strides=grid.strides,
            num_grids=grid.num_grids,
            sigma=0.2,
            num_classes=num_classes,
            score_threshold=0.1,
            mask_threshold=0.5,
            update_threshold=0.05,
            max_before_nms=500,
            max_per_img=100,
            nms_type="matrix",
            nms_kernel="gaussian",
            nms_sigma=2,
            ins_loss_weight=3.0,
            focal_loss_weight=1.0,
            focal_loss_alpha=0.25,
            focal_loss_gamma=2.0,
        )
        for name in (
            "get_ground_truth",
            "get_ground_truth_single",
            "inference_single_image",
            "loss",
        ):
            setattr(model, name, MethodType(getattr(module.SOLOv2, name), model))

    def level_cells(self, cells: Tensor) -> list[Tensor]:
        """Split (..., T) by level."""
        return list(cells.split(self.grid.level_sizes, dim=-1))

    def loss(self, logits: list[Tensor], kernels: Tensor, feature: Tensor, targets: Any) -> Tensor:
        """The peer's total loss of our (N, T, E) kernels and its own targets."""
        levels = [
            level.transpose(1, 2).unflatten(2, (size, size))
            for level, size in zip(
                kernels.split(self.grid.level_sizes, 1), self.grid.num_grids, strict=True
            )
        ]
        return sum(self.model.loss(logits, levels, feature, targets).values())

    def as_peer_targets(self, targets: SOLOTargets) -> tuple[list, list, list, list]:
        """Our targets in the peer's layout: masks, labels, positive flags and cells."""
        masks, labels, flags, orders = [], [], [], []
        start = 0
        for image, counts in enumerate(targets.counts):
            by_level = self.level_cells(targets.labels[image])
            labels.append(
                [x.view(s, s) for x, s in zip(by_level, self.grid.num_grids, strict=True)]
            )
            flags.append([x != self.model.num_classes for x in by_level])
            masks.append([])
            orders.append([])
            for first, count in zip(self.grid.starts, counts, strict=True):
                chosen = slice(start, start + count)
                rows = targets.instances[chosen]
                masks[-1].append(targets.masks[4][rows].to(torch.uint8))
                orders[-1].append((targets.cells[chosen] - first).tolist())
                start += count
        return masks, labels, flags, orders

    def compare_targets(self, ours: SOLOTargets, peer: tuple[list, list, list, list]) -> str:
        """Equality on all cells that one object claims; the peer keeps several masks elsewhere."""
        differences = conflicts = positives = 0
        own = self.as_peer_targets(ours)
        for image in range(len(ours.counts)):
            for level in range(self.grid.num_levels):
                (m1, l1, f1, o1), (m2, l2, f2, o2) = (
                    [part[image][level] for part in side] for side in (own, peer)
                )
                contested = {cell for cell in o2 if o2.count(cell) > 1}
                conflicts += len(contested)
                positives += len(o1)
                single = torch.ones_like(f1)
                single[list(contested)] = False
                differences += int((f1.flatten() != f2.flatten()).sum())
                differences += int((l1.flatten() != l2.flatten())[single].sum())
                theirs = dict(zip(o2, m2, strict=True))
                differences += sum(
                    not torch.equal(mask, theirs[cell])
                    for cell, mask in zip(o1, m1, strict=True)
                    if cell in theirs and cell not in contested
                )
        if differences:
            return f"NO: {differences} differences"
        return f"equal ({positives} cells, {conflicts} contested)"
