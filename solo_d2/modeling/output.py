"""Instances at the output's resolution: masks, boxes, and the memory that they need.

Shapes: K instances, (H, W) the canvas in input pixels, (h, w) the canvas at stride 4.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..layers import (
    budgets,
    exporting,
    mask_occupancy,
    masks_to_boxes,
    profiles_to_boxes,
    resize_bilinear,
)
from ..layers.memory import allocate, check_memory, no_memory

MEMORY_REMEDY = 'ask for a smaller output ("height", "width") or lower TEST.DETECTIONS_PER_IMAGE'


def chunk_length(size: tuple[int, int], device: torch.device) -> int:
    """Return how many soft masks of `size` (height, width) are worked on at a time."""
    pixels = budgets.MASK_PIXELS.get(device.type, budgets.MASK_PIXELS["cuda"])
    return max(1, pixels // max(1, size[0] * size[1]))


def resize_masks(
    probs: Tensor,
    canvas: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """Bring soft masks to the output's resolution and threshold them.

    The published models resize bilinearly to the canvas, crop the padding, and resize bilinearly
    to the output. Both steps and the crop are linear in each axis, so that they are one matrix
    per axis; and a pixel can only exceed the threshold if one of its taps does, so that on a CPU
    only the window that the mask's box reaches is computed. A GPU interpolates whole masks, a
    bounded number at a time, and is not waited for.

    Args:
        probs: soft masks (K, h, w).
        canvas: (H, W) of the padded network input.
        image_size: (height, width) of the image in its top left corner.
        output_size: (height, width) wanted.
        threshold: foreground is what exceeds it.

    Returns:
        Boolean masks (K, *output_size) and their tight boxes (K, 4), XYXY, right and bottom edge
        exclusive.

    Raises:
        MemoryError: the masks do not fit in memory; nothing has been allocated.
    """
    device = probs.device
    if device.type != "cpu" and not exporting():
        return interpolate_masks(probs, canvas, image_size, output_size, threshold)
    y_taps, x_taps = (
        _taps(probs.shape[1 + i], canvas[i], image_size[i], output_size[i], device)
        for i in range(2)
    )
    if exporting():  # windows would be those of the example image
        masks = y_taps @ probs @ x_taps.T > threshold
        return masks, masks_to_boxes(masks)
    y_axis, x_axis = _Axis(y_taps), _Axis(x_taps)
    reach = profiles_to_boxes(*mask_occupancy(probs > threshold)).int().cpu()
    spans = [y_axis.span(y0, y1) for _, y0, _, y1 in reach.tolist()]
    masks = _blank_masks((len(probs), *output_size), sum(b - a for a, b in spans), device)
    rows = torch.zeros(masks.shape[:2], dtype=torch.bool, device=device)
    columns = torch.zeros((len(probs), output_size[1]), dtype=torch.bool, device=device)
    for index, (x0, y0, x1, y1) in enumerate(reach.tolist()):
        y_bands, x_bands = y_axis.bands(y0, y1), x_axis.bands(x0, x1)
        if y_bands and x_bands:
            window = torch.cat([y_taps[o, i] @ probs[index, i] for o, i in y_bands], dim=-2)
            window = torch.cat([window[..., i] @ x_taps[o, i].T for o, i in x_bands], dim=-1)
            window = window > threshold
            y_out = slice(y_bands[0][0].start, y_bands[-1][0].stop)
            x_out = slice(x_bands[0][0].start, x_bands[-1][0].stop)
            masks[index, y_out, x_out] = window
            (rows[index, y_out],), (columns[index, x_out],) = mask_occupancy(window[None])
    return masks, profiles_to_boxes(rows, columns)


def interpolate_masks(
    probs: Tensor,
    canvas: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """`resize_masks` step by step and without a host synchronisation."""
    what = f"{len(probs)} masks of {output_size[0]}x{output_size[1]} pixels"
    shape = (len(probs), *output_size)
    masks = allocate(shape, torch.bool, probs.device, what, MEMORY_REMEDY)
    larger = max(canvas, output_size, key=lambda size: size[0] * size[1])
    length = chunk_length(larger, probs.device)
    for start in range(0, len(probs), length):
        chunk = slice(start, start + length)
        x = resize_bilinear(probs[chunk, None], canvas)[..., : image_size[0], : image_size[1]]
        if image_size != output_size:
            x = resize_bilinear(x, output_size)
        torch.gt(x[:, 0], threshold, out=masks[chunk])
    return masks, profiles_to_boxes(*mask_occupancy(masks))


def _blank_masks(shape: tuple[int, int, int], used_rows: int, device: torch.device) -> Tensor:
    """Boolean zeros on a CPU, if there is memory for the rows that will be written."""
    count, height, width = shape
    what = f"{count} masks of {height}x{width} pixels"
    check_memory(used_rows * width, device, what, MEMORY_REMEDY)
    try:
        # Unlike torch's, NumPy's zeros cost neither time nor memory until they are written, and
        # most of a large output never is.
        return torch.from_numpy(np.zeros(shape, dtype=bool))
    except (MemoryError, ValueError) as error:  # ValueError: more bytes than there are addresses
        raise no_memory(count * height * width, device, what, MEMORY_REMEDY) from error


def _taps(size: int, canvas: int, image: int, output: int, device: torch.device) -> Tensor:
    """Both resizing steps and the crop along one axis, as a matrix (output, size)."""
    taps = torch.eye(size, device=device)[None]
    taps = F.interpolate(taps, size=canvas, mode="linear", align_corners=False)[..., :image]
    taps = F.interpolate(taps, size=output, mode="linear", align_corners=False)[0]
    return taps.T.contiguous()


class _Axis:
    """Which inputs the outputs of `_taps` use; an output has three taps at most."""

    def __init__(self, taps: Tensor) -> None:
        used, size = taps > 0, taps.shape[1]
        self._first = used.int().argmax(1).tolist()
        self._last = (size - 1 - used.flip(1).int().argmax(1)).tolist()

    def span(self, low: int, high: int) -> tuple[int, int]:
        """First and one-past-last output that has a tap in [low, high)."""
        start, end = bisect_left(self._last, low), bisect_left(self._first, high)
        return start, max(start, end)

    def bands(self, low: int, high: int) -> list[tuple[slice, slice]]:
        """Split the outputs of `span` into bands, each with the inputs it uses.

        Narrow bands leave out nearly all of the zeros.
        """
        start, end = self.span(low, high)
        bands = []
        for first in range(start, end, _BAND):
            stop = min(first + _BAND, end)
            bands.append((slice(first, stop), slice(self._first[first], self._last[stop - 1] + 1)))
        return bands


_BAND = 128


def make_instances(
    scores: Tensor, labels: Tensor, masks: Tensor, boxes: Tensor, **fields: Tensor
) -> Instances:
    """Assemble Detectron2's `Instances`; masks without a pixel are dropped.

    Args:
        scores: (K,).
        labels: (K,).
        masks: boolean (K, H, W) at the output's size; what is dropped is overwritten.
        boxes: their tight boxes (K, 4).
        **fields: further fields, each with K rows; overwritten likewise.
    """
    present = boxes[:, 2] > boxes[:, 0]
    if exporting() or not bool(present.all()):
        masks = _keep_masks(masks, boxes, present)
        fields = {name: _keep_rows(value, present) for name, value in fields.items()}
        scores, labels, boxes = scores[present], labels[present], boxes[present]
    return assemble_instances(scores, labels, masks, boxes, **fields)


def assemble_instances(
    scores: Tensor, labels: Tensor, masks: Tensor, boxes: Tensor, **fields: Tensor
) -> Instances:
    """As `make_instances`, of masks that all have a pixel."""
    instances = Instances((masks.shape[1], masks.shape[2]))
    instances.pred_masks = masks
    instances.pred_boxes = Boxes(boxes)
    instances.scores = scores
    instances.pred_classes = labels
    for name, value in fields.items():
        instances.set(name, value)
    return instances


def _keep_rows(values: Tensor, present: Tensor) -> Tensor:
    """``values[present]``, on a CPU without a second tensor of that size."""
    if exporting() or values.device.type != "cpu":
        return values[present]
    kept = present.nonzero().squeeze(1).tolist()
    for row, source in enumerate(kept):
        if row != source:
            values[row] = values[source]
    return values[: len(kept)]


def _keep_masks(masks: Tensor, boxes: Tensor, present: Tensor) -> Tensor:
    """As `_keep_rows`, but only what boxes hold is touched: the rest has cost no memory so far."""
    if exporting() or masks.device.type != "cpu":
        return masks[present]
    windows = [(slice(y0, y1), slice(x0, x1)) for x0, y0, x1, y1 in boxes.int().tolist()]
    kept = present.nonzero().squeeze(1).tolist()
    for row, source in enumerate(kept):
        if row != source:
            masks[row][windows[row]] = False
            masks[row][windows[source]] = masks[source][windows[source]]
    return masks[: len(kept)]
