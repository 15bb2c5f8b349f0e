"""Which objects of a dataset own a cell of a grid, as in training: the assigner itself decides."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model

from ..modeling.grid import GridSpec
from ..modeling.meta_arch import SOLO
from ..modeling.targets import Measures, SOLOTargetAssigner
from .measure import Objects

__all__ = ["Claims", "Frames", "claim", "network_frames", "network_of", "with_grid"]

_CELLS = 1 << 22
"""Cells whose owners are in memory at once."""

MASK_STRIDE = 4


def network_of(cfg: CfgNode) -> SOLO:
    """Build the model of a config without its weights: it takes no memory and cannot compute.

    Raises:
        ValueError: it is none of the SOLO family.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.TIMM.WEIGHTS = "meta", "", ""
    with torch.device("meta"):
        network = build_model(cfg).eval()
    if not isinstance(network, SOLO):
        raise ValueError(
            "only models of the SOLO family have a grid to check, got MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE}"
        )
    return network


@dataclass(frozen=True)
class Frames:
    """How N images lie in the network's input.

    Attributes:
        scales: (x, y) of the input per pixel of the image (N, 2).
        canvases: (W, H) of the padded input (N, 2).
    """

    scales: np.ndarray
    canvases: np.ndarray

    @property
    def pixels(self) -> float:
        """Mean number of pixels of the padded input."""
        return float(self.canvases.prod(1).mean())


def network_frames(sizes: np.ndarray, short: int, longest: int, divisor: int) -> Frames:
    """Lay images into the network's input, every one by itself.

    Args:
        sizes: (height, width) of images (N, 2).
        short: shorter side of the input, as `INPUT.MIN_SIZE_TEST`; 0 resizes nothing.
        longest: limit of the longer side, as `INPUT.MAX_SIZE_TEST`.
        divisor: of the sides of the canvas.
    """
    kinds, member = np.unique(sizes, axis=0, return_inverse=True)
    resized = kinds
    if short and len(kinds):
        shape = ResizeShortestEdge.get_output_shape
        resized = np.array([shape(h, w, short, longest) for h, w in kinds.tolist()], np.int64)
    member = member.reshape(-1)
    canvases = -(-resized // divisor) * divisor
    scales = resized / np.maximum(kinds, 1)
    return Frames(scales[member][:, ::-1].copy(), canvases[member][:, ::-1].astype(np.float64))


@dataclass(frozen=True)
class Claims:
    """What the I objects of a dataset get; the sizes are those in the network's input.

    Attributes:
        cells: number of cells that each object owns (I,).
        outside: which objects lie outside of every level's range (I,).
        scales: sqrt(w · h) of the boxes, in pixels of the input (I,).
        tiny: which objects are smaller than a pixel of their mask, at stride 4 (I,).
        dropped: which objects have too few mask pixels for inference, which asks for more than the
            stride of the level (paper's released code), even on the finest level (I,).
    """

    cells: np.ndarray
    outside: np.ndarray
    scales: np.ndarray
    tiny: np.ndarray
    dropped: np.ndarray

    @property
    def lost(self) -> np.ndarray:
        """Which objects own no cell (I,)."""
        return self.cells == 0

    @property
    def beaten(self) -> np.ndarray:
        """Which objects lost all of their cells to smaller ones (I,)."""
        return self.lost & ~self.outside

    @property
    def missed(self) -> np.ndarray:
        """Which objects are not learnt or not found (I,)."""
        return self.lost | self.dropped


def with_grid(assigner: SOLOTargetAssigner, grid: GridSpec) -> SOLOTargetAssigner:
    """Return an assigner that differs in its grid."""
    other = copy.copy(assigner)
    other.grid = grid
    return other


def claim(objects: Objects, frames: Frames, assigner: SOLOTargetAssigner) -> Claims:
    """Let all objects of a dataset claim cells.

    Args:
        objects: measured by `measure_objects`.
        frames: of their images.
        assigner: of the model.
    """
    grid = assigner.grid
    measures = _measures(objects, frames)
    cells = torch.zeros(len(objects), dtype=torch.int64)
    at_once = max(1, _CELLS // grid.num_cells)
    for first in range(0, len(objects.sizes), at_once):
        start, stop = np.searchsorted(objects.images, [first, first + at_once]).tolist()
        if start == stop:
            continue
        some = Measures(*(x[start:stop] for x in measures))
        images = min(at_once, len(objects.sizes) - first)
        owner = assigner.claim(some._replace(images=some.images - first), images)
        cells[start:stop] = torch.bincount(owner[owner >= 0], minlength=stop - start)
    scales = measures.sizes.prod(1).sqrt().numpy()
    inside = [(scales >= low) & (scales <= high) for low, high in grid.scale_ranges]
    pixels = measures.areas.numpy() / MASK_STRIDE**2
    return Claims(
        cells=cells.numpy(),
        outside=~np.logical_or.reduce(inside),
        scales=scales,
        tiny=pixels < 1,
        dropped=pixels <= min(grid.strides),
    )


def _measures(objects: Objects, frames: Frames) -> Measures:
    """Measures of objects in the network's input."""
    scales = frames.scales[objects.images]
    sizes = (objects.boxes[:, 2:] - objects.boxes[:, :2]) * scales
    centers = (np.nan_to_num(objects.centers) + 0.5) * scales - 0.5
    return Measures(
        images=torch.from_numpy(objects.images),
        sizes=torch.from_numpy(sizes),
        areas=torch.from_numpy(objects.areas * scales.prod(1)),
        centers=torch.from_numpy(centers),
        canvases=torch.from_numpy(frames.canvases[objects.images]),
    )
