"""AdelaiDet's SOLOv2 functions, loaded from the user's own checkout and called on our tensors.

Only `adet/modeling/solov2` is imported, behind empty parent packages: the package itself needs
compiled code.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import MethodType, ModuleType, SimpleNamespace

import torch

from solo_d2.modeling.grid import GridSpec
from solo_d2.modeling.structures import SOLOTargets

METHODS = ("get_ground_truth", "get_ground_truth_single", "inference_single_image")


def import_adelaidet(checkout: Path) -> ModuleType:
    """Import the module of SOLOv2 alone.

    Raises:
        ValueError: not a checkout of AdelaiDet, or one that cannot be imported.
    """
    if not (checkout / "adet" / "modeling" / "solov2" / "solov2.py").is_file():
        raise ValueError(
            f"--peer expects a checkout of AdelaiDet; {checkout} has no adet/modeling/solov2"
        )
    for name in ("adet", "adet.modeling"):
        package = ModuleType(name)
        package.__path__ = [str(checkout.joinpath(*name.split(".")))]
        sys.modules[name] = package
    try:
        return importlib.import_module("adet.modeling.solov2.solov2")
    except ImportError as error:
        raise ValueError(f"--peer: SOLOv2 of {checkout} cannot be imported: {error}") from error


class AdelaiDet:
    """The peer's functions with the settings of its configs.

    Args:
        checkout: folder that holds `adet/`.
        grid: our grid pyramid, for which the peer is set up.
        num_classes: C.

    Raises:
        ValueError: not a checkout of AdelaiDet, or one that cannot be imported.
    """

    def __init__(self, checkout: Path, grid: GridSpec, num_classes: int) -> None:
        module = import_adelaidet(checkout)
        self.nms = module.matrix_nms
        self.grid = grid
        self.model = SimpleNamespace(
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
        )
        for name in METHODS:
            setattr(self.model, name, MethodType(getattr(module.SOLOv2, name), self.model))

    def compare_targets(self, ours: SOLOTargets, peer: tuple[list, list, list, list]) -> str:
        """Compare targets on the cells that one object claims; elsewhere the peer keeps several."""
        differences = contested = start = 0
        for image, counts in enumerate(ours.counts):
            labels = ours.labels[image].split(self.grid.level_sizes)
            for level, (count, first) in enumerate(zip(counts, self.grid.starts, strict=True)):
                masks, label, _, cells = (part[image][level] for part in peer)
                chosen = slice(start, start + count)
                start += count
                rows = dict(
                    zip(
                        (ours.cells[chosen] - first).tolist(),
                        ours.instances[chosen].tolist(),
                        strict=True,
                    )
                )
                differences += len(rows.keys() ^ set(cells))
                several = {cell for cell in cells if cells.count(cell) > 1}
                contested += len(several)
                for cell, mask in zip(cells, masks, strict=True):
                    if cell in rows and cell not in several:
                        same = torch.equal(mask.bool(), ours.masks[4][rows[cell]])
                        same &= bool(label.flatten()[cell] == labels[level][cell])
                        differences += not same
        if differences:
            return f"NO: {differences} differences"
        return f"equal ({len(ours.cells)} cells, {contested} contested)"
