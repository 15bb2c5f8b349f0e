"""Label assignment (paper §3.3.1): which grid cell is responsible for which object.

Shapes: N images, I objects of the whole batch, L levels, T cells in all, (H, W) the canvas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor

from ..layers import (
    downsample_masks,
    mask_coverage,
    mask_profiles,
    profiles_to_boxes,
    profiles_to_centroids,
)
from .bitmaps import bitmaps_of, lies_on_host
from .grid import GridSpec
from .lost_objects import LostObjects
from .structures import MaskProbs, SOLOPredictions, SOLOTargets

MASK_TARGETS = ("binary", "coverage")
"""The values of `MODEL.SOLO.MASK_TARGETS`."""

# In cells. ε is no binary fraction: without it an edge on a border may fall one cell short.
_BORDER_SLACK = 1e-9


class _Objects(NamedTuple):
    """All objects of a batch.

    Attributes:
        classes: (I,).
        images: index of each object's image (I,).
        rows: foreground pixels of every row of the canvas (I, H).
        columns: likewise of every column (I, W).
        masks: mask targets by stride.
    """

    classes: Tensor
    images: Tensor
    rows: Tensor
    columns: Tensor
    masks: dict[int, Tensor]


class Measures(NamedTuple):
    """What decides which cells objects get; lengths in pixels of the network's input.

    Attributes:
        images: index of each object's image, int64 (I,).
        sizes: (width, height) of each mask's box (I, 2) float64.
        areas: of the masks (I,).
        centers: (x, y) of their centres of mass (I, 2) float64; anything for an empty mask.
        canvases: (W, H) of each object's canvas (I, 2) or of all (2,), float64.
    """

    images: Tensor
    sizes: Tensor
    areas: Tensor
    centers: Tensor
    canvases: Tensor


class SOLOTargetAssigner:
    """Assign objects to grid cells: no parameters, no loops over objects.

    Masks that a loader has left on the host are measured there, while a GPU is busy with the
    network: of their pixels only the targets, a sixteenth at stride 4, are copied, and nothing is
    waited for. Masks on a GPU stay there, and their numbers of positives are waited for.

    An object is assigned on every level whose scale range holds sqrt(w · h) of its mask's box. On
    such a level, the cells that its centre region touches are positive. The centre region is the
    box (c_x, c_y, ε w, ε h) around the mask's centre of mass, clipped to the 3x3 cells around the
    centre cell as in the published models. A cell that several objects claim goes to the smallest
    (by mask area; of equal ones to the last): the published models train SOLOv2 with conflicting
    masks there.

    Args:
        grid: the grid pyramid.
        num_classes: C, which is also the label of the background.
        center_region: ε, relative to the object's size; 0.2 in the paper.
        mask_strides: strides for which mask targets are needed, e.g. (4,).
        mask_targets: one of `MASK_TARGETS`: boolean, or the share of every stride x stride block
            that an object covers, float16, which holds it exactly.

    Attributes:
        lost_objects: counts the objects that get no cell.
    """

    mask_dtypes: Mapping[int, torch.dtype] = {}
    """Types of the mask targets by stride, where they are neither binary nor coverage."""

    on_host: ClassVar[bool] = True
    """Masks on the host are measured there; False where targets are larger than the masks."""

    def __init__(
        self,
        grid: GridSpec,
        num_classes: int,
        center_region: float,
        mask_strides: Sequence[int],
        mask_targets: str = "binary",
    ) -> None:
        if not 0 <= center_region <= 1:
            raise ValueError(
                f"MODEL.SOLO.CENTER_REGION is a fraction of the object's size, got {center_region}"
            )
        if mask_targets not in MASK_TARGETS:
            raise ValueError(
                f"MODEL.SOLO.MASK_TARGETS must be one of {', '.join(MASK_TARGETS)}, "
                f"got {mask_targets!r}"
            )
        self.grid = grid
        self.num_classes = num_classes
        self.center_region = center_region
        self.mask_strides = tuple(sorted(set(mask_strides)))
        self.coverage = mask_targets == "coverage"
        self.lost_objects = LostObjects()

    @torch.no_grad()
    def __call__(
        self, instances: list[Instances], canvas: tuple[int, int], device: torch.device
    ) -> SOLOTargets:
        """Make the targets of a batch.

        Args:
            instances: per image, with ``gt_classes`` and ``gt_masks``; an image without objects
                may lack both fields.
            canvas: (H, W) of the padded batch, both divisible by all mask strides. The grid is
                laid over the canvas, as in the published models.
            device: where the targets are wanted.

        Raises:
            ValueError: a class index outside [0, C) or masks larger than the canvas.
        """
        masks = [x.gt_masks for x in instances if x.has("gt_masks")]
        if self.on_host and all(lies_on_host(x) for x in masks):
            return self._assign(instances, canvas, torch.device("cpu")).to(device)
        return self._assign(instances, canvas, device)

    def _assign(
        self, instances: list[Instances], canvas: tuple[int, int], device: torch.device
    ) -> SOLOTargets:
        """As a call, but on `device`."""
        objects = self._gather(instances, canvas, device)
        classes, num_images = objects.classes, len(instances)
        owner = self.claim(measure(objects, canvas), num_images)  # (N, T)
        self.lost_objects.add(owner, len(classes))
        claimed = owner >= 0
        padded = torch.cat([classes, classes.new_full((1,), self.num_classes)])
        labels = padded[owner]  # -1 picks the background behind the last object
        image_of, cells = claimed.nonzero(as_tuple=True)
        return SOLOTargets(
            labels=labels,
            cells=cells,
            instances=owner[claimed],
            counts=self._count(image_of, cells, num_images),
            classes=classes,
            images=objects.images,
            masks=objects.masks,
        )

    def _count(self, images: Tensor, cells: Tensor, num_images: int) -> list[list[int]]:
        """Count cells by image and level."""
        key = images * self.grid.num_levels + self.grid.levels(cells)
        counts = torch.bincount(key, minlength=num_images * self.grid.num_levels)
        return counts.view(num_images, -1).tolist()

    def match(
        self,
        targets: SOLOTargets,
        predictions: SOLOPredictions,  # noqa: ARG002 - for a subclass that looks at them
        mask_probs: MaskProbs,  # noqa: ARG002
    ) -> SOLOTargets:
        """Choose the positive cells by what is predicted; here they are known without it."""
        return targets

    def _gather(
        self, instances: list[Instances], canvas: tuple[int, int], device: torch.device
    ) -> _Objects:
        """Measure the objects image by image, without a copy of all masks on the canvas."""
        # An `Instances` without any field has no length.
        counts = [len(objects) if objects.get_fields() else 0 for objects in instances]
        total, (height, width) = sum(counts), canvas
        rows = torch.zeros((total, height), dtype=torch.int32, device=device)
        columns = torch.zeros((total, width), dtype=torch.int32, device=device)
        masks = {
            stride: torch.zeros(
                (total, height // stride, width // stride),
                dtype=self.mask_dtypes.get(stride, torch.half if self.coverage else torch.bool),
                device=device,
            )
            for stride in self.mask_strides
        }
        start = 0
        for count, objects in zip(counts, instances, strict=True):
            if count:
                chosen = slice(start, start + count)
                bitmaps = self._pad(bitmaps_of(objects).to(device), canvas)
                height, width = bitmaps.shape[-2:]
                rows[chosen, :height], columns[chosen, :width] = mask_profiles(bitmaps)
                for stride, small in masks.items():
                    small[chosen, : height // stride, : width // stride] = self.mask_targets(
                        objects, bitmaps, stride
                    )
            start += count
        images = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        classes = [objects.gt_classes for n, objects in zip(counts, instances, strict=True) if n]
        return _Objects(self._classes(classes, device), images.to(device), rows, columns, masks)

    def mask_targets(
        self,
        objects: Instances,  # noqa: ARG002 - for a subclass whose targets are no bitmaps
        bitmaps: Tensor,
        stride: int,
    ) -> Tensor:
        """Mask targets of the objects of one image at one stride.

        Args:
            objects: ground truth of the image.
            bitmaps: its masks, boolean (I, h, w), padded so that `stride` divides both sides.
            stride: one of `mask_strides`.

        Returns:
            (I, h / stride, w / stride).
        """
        return (mask_coverage if self.coverage else downsample_masks)(bitmaps, stride)

    def _pad(self, bitmaps: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Pad height and width to a multiple of every mask stride, which the canvas already is."""
        height, width = bitmaps.shape[-2:]
        if height > canvas[0] or width > canvas[1]:
            raise ValueError(
                f"gt_masks of {height}x{width} pixels do not fit the input of "
                f"{canvas[0]}x{canvas[1]}; masks and image must have the same size"
            )
        step = math.lcm(*self.mask_strides)
        if height % step or width % step:
            bitmaps = F.pad(bitmaps, (0, -width % step, 0, -height % step))
        return bitmaps

    def _classes(self, classes: list[Tensor], device: torch.device) -> Tensor:
        labels = torch.cat(classes) if classes else torch.zeros(0, dtype=torch.int64)
        # On the host, where a data loader left it, so that the check costs no synchronisation.
        if labels.device.type == "cpu" and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                raise ValueError(
                    f"gt_classes must lie in [0, {self.num_classes}), got {low} to {high}; set "
                    "MODEL.SOLO.NUM_CLASSES to the number of classes of the dataset"
                )
        return labels.to(device, torch.int64)

    def claim(self, objects: Measures, num_images: int) -> Tensor:
        """Find the object that owns every cell.

        Args:
            objects: of all images, on one device.
            num_images: N.

        Returns:
            Index of the object (N, T), -1 where there is none.
        """
        device = objects.areas.device
        scale = objects.sizes.prod(1).sqrt()
        bounds = torch.tensor(self.grid.scale_ranges, device=device, dtype=torch.float64)
        on_level = (scale[:, None] >= bounds[:, 0]) & (scale[:, None] <= bounds[:, 1])
        on_level &= (objects.areas > 0)[:, None]  # (I, L)

        cells, valid = self._claims(objects, on_level)
        # One pass without order: the greatest rank wins, and ranks grow as areas shrink.
        by_area = objects.areas.argsort(descending=True, stable=True)
        rank = torch.empty_like(by_area)
        rank[by_area] = torch.arange(len(by_area), device=device)
        spare = num_images * self.grid.num_cells  # where claims that are not valid end
        winner = torch.full((spare + 1,), -1, dtype=torch.int64, device=device)
        winner.scatter_reduce_(
            0,
            torch.where(valid, cells, spare).flatten(),
            rank[:, None, None, None].expand_as(cells).flatten(),
            "amax",
        )
        lookup = torch.cat([by_area, by_area.new_full((1,), -1)])  # rank -1 picks the last: -1
        return lookup[winner[:-1]].view(num_images, self.grid.num_cells)

    def _claims(self, objects: Measures, on_level: Tensor) -> tuple[Tensor, Tensor]:
        """Find the 3x3 cells around the centres of objects that their centre regions touch.

        Args:
            objects: of all images.
            on_level: whether objects are assigned on levels (I, L), or (I, 1) for all of them.

        Returns:
            Cells (I, L, 3, 3) in a count over all images, and which of them are claimed.
        """
        touched = (
            self._touched(objects.centers[:, i], objects.sizes[:, i], objects.canvases[..., i])
            for i in range(2)
        )
        (columns, in_columns), (rows, in_rows) = touched
        starts = torch.tensor(self.grid.starts, device=on_level.device)[:, None, None]
        sizes = torch.tensor(self.grid.num_grids, device=on_level.device)[:, None, None]
        cells = starts + rows[..., :, None] * sizes + columns[..., None, :]  # (I, L, 3, 3)
        cells = cells + objects.images[:, None, None, None] * self.grid.num_cells
        valid = on_level[..., None, None] & in_rows[..., :, None] & in_columns[..., None, :]
        return cells, valid

    def _touched(self, center: Tensor, size: Tensor, extent: Tensor) -> tuple[Tensor, Tensor]:
        """Along one axis: the three cells around each centre, and which the centre region touches.

        ``floor(c · S / extent)`` in float64: a centre exactly on a border belongs to the next cell
        (the published models divide by 1 / S and may fall one cell short).

        Returns:
            Cell coordinates (I, L, 3), clamped to the grid, and whether they are touched.
        """
        grids = torch.tensor(self.grid.num_grids, device=center.device, dtype=torch.float64)

        def cell_of(position: Tensor) -> Tensor:
            cells = position[:, None] * grids / extent[..., None]
            return (cells + _BORDER_SLACK).floor()[..., None]

        half = 0.5 * self.center_region * size
        middle, first, last = cell_of(center), cell_of(center - half), cell_of(center + half)
        cells = middle + torch.arange(-1, 2, device=center.device)
        touched = (cells >= first.clamp(min=0)) & (cells <= last)
        touched &= cells < grids[:, None]
        return cells.clamp(min=0).minimum(grids[:, None] - 1).long(), touched


def measure(objects: _Objects, canvas: tuple[int, int]) -> Measures:
    """Measure objects by their profiles."""
    profiles = objects.rows, objects.columns
    boxes = profiles_to_boxes(*profiles).double()
    return Measures(
        images=objects.images,
        sizes=boxes[:, 2:] - boxes[:, :2],
        areas=profiles[0].sum(1),
        # An empty mask has no centre; its zero size keeps it out of every level.
        centers=profiles_to_centroids(*profiles).nan_to_num(),
        canvases=boxes.new_tensor(canvas[::-1]),
    )
