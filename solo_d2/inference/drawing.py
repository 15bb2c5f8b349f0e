"""Drawing instances over an image, fast enough for video.

Shapes: K instances, (H, W) image. Images are uint8 BGR as in `solo_d2.SOLOPredictor`, and so
are the colours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from ..io.paths import printable
from ..io.results import panoptic_things
from ..layers import mask_crops
from ..layers.encoded_masks import Crop
from .colors import instance_colors, stuff_colors

__all__ = ["STYLES", "draw_instances", "draw_panoptic", "drawable"]

STYLES = ("masks", "outlines", "boxes", "cutout")
"""How instances are drawn."""

_LONGEST_NAME = 40  # characters of a class name


def _labels(instances: Instances, class_names: Sequence[str] | None) -> list[str]:
    """Number of the track, class name (or number), and score in percent, of what there is."""
    names = list(class_names or [])
    labels = instances.pred_classes.tolist()
    texts = [drawable(names[label]) if label < len(names) else f"class {label}" for label in labels]
    if instances.has("track_ids"):
        ids = instances.track_ids.tolist()
        texts = [f"#{number} {text}" for number, text in zip(ids, texts, strict=True)]
    if not instances.has("scores"):
        return texts
    scores = instances.scores.tolist()
    return [f"{text} {score:.0%}" for text, score in zip(texts, scores, strict=True)]


def drawable(name: str) -> str:
    """Return a name of any characters as one that OpenCV can draw: short, in one line, encodable.

    Surrogates and control characters would end the process, or the text.
    """
    name = printable(str(name))
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."


def draw_instances(
    image: np.ndarray,
    instances: Instances,
    class_names: Sequence[str] | None = None,
    colors: np.ndarray | None = None,
    alpha: float = 0.45,
    style: str = "masks",
) -> np.ndarray:
    """Draw instances and labels.

    With OpenCV, ten to twenty times as fast as Detectron2's `Visualizer` (which draws the
    same instances, if its style is wanted). Before OpenCV 5 labels other than ASCII show as "?".
    Larger instances are drawn first, so that none hides a smaller one.

    Args:
        image: uint8 BGR, shape (H, W, 3); not changed.
        instances: At the size (H, W), on any device; ground truth has no scores.
        class_names: Names in the order of the labels; numbers are written where there is none.
        colors: BGR in [0, 255], shape (K, 3); by default `instance_colors` of the `track_ids`, or
            of 0 to K - 1.
        alpha: Opacity of the masks, in [0, 1].
        style: One of `STYLES`: masks with outlines, "outlines" alone, "boxes" of the masks, or
            "cutout", the objects alone on white.

    Returns:
        The drawing, uint8 BGR, shape (H, W, 3).

    Raises:
        ValueError: There is no such style.
    """
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {style!r}.")
    if colors is None:
        tracked = instances.has("track_ids")
        colors = instance_colors(instances.track_ids.tolist() if tracked else range(len(instances)))
    crops = mask_crops(instances.pred_masks)
    return _draw(image, crops, _labels(instances, class_names), colors, alpha, style)


def draw_panoptic(
    image: np.ndarray,
    panoptic_seg: tuple[Tensor, list[dict[str, Any]]],
    class_names: Sequence[str] | None = None,
    stuff_names: Sequence[str] | None = None,
    colors: np.ndarray | None = None,
    alpha: float = 0.45,
) -> np.ndarray:
    """Draw the regions of stuff, paler and always in the class's colour, and the things.

    Args:
        image: uint8 BGR, shape (H, W, 3); not changed.
        panoptic_seg: a model's output: ids (H, W) on any device, and what they stand for.
        class_names: of things; numbers are written where there is none.
        stuff_names: of stuff, from "things" on as in Detectron2's metadata.
        colors: BGR in [0, 255], shape (K, 3), of the K things in the order of
            `utils.results.panoptic_things`; by default `instance_colors`.
        alpha: opacity of the masks, in [0, 1].

    Returns:
        The drawing, uint8 BGR, shape (H, W, 3).
    """
    ids, segments = panoptic_seg[0].cpu().numpy(), panoptic_seg[1]
    stuff = [segment for segment in segments if not segment["isthing"]]
    masks = torch.from_numpy(ids == np.array([x["id"] for x in stuff])[:, None, None])
    kinds = [segment["category_id"] for segment in stuff]
    names = list(stuff_names or [])
    texts = [drawable(names[kind]) if kind < len(names) else f"stuff {kind}" for kind in kinds]
    things = panoptic_things(*panoptic_seg)
    colors = instance_colors(range(len(things))) if colors is None else colors
    # In one go: segments do not overlap, and no mask may be painted over a label.
    crops = itertools.chain(mask_crops(masks), mask_crops(things.pred_masks))
    texts += _labels(things, class_names)
    return _draw(image, crops, texts, np.concatenate([stuff_colors(kinds), colors]), alpha)


def _draw(
    image: np.ndarray,
    masks: Iterable[Crop],
    labels: Sequence[str],
    colors: np.ndarray,
    alpha: float,
    style: str = "masks",
) -> np.ndarray:
    """Crops of masks on a copy of the image, the largest below, and labels above all of them."""
    canvas = np.full_like(image, 255) if style == "cutout" else image.copy()
    crops = [(x, y, np.ascontiguousarray(mask)) for x, y, mask in masks]
    areas = np.array([int(np.count_nonzero(mask)) for _, _, mask in crops])
    order = [int(k) for k in np.argsort(-areas, kind="stable") if areas[k]]
    for k in order:
        if style == "cutout":
            _copy(image, canvas, *crops[k])
        else:
            _draw_object(canvas, *crops[k], colors[k], alpha, style)
    for k in order if style != "cutout" else ():  # after all masks: none is painted over
        _draw_label(canvas, *crops[k], labels[k], colors[k])
    return canvas


def _copy(image: np.ndarray, canvas: np.ndarray, x: int, y: int, mask: np.ndarray) -> None:
    window = slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])
    cv2.copyTo(image[window], mask.view(np.uint8), canvas[window])


def _draw_object(
    canvas: np.ndarray,
    x: int,
    y: int,
    mask: np.ndarray,
    color: np.ndarray,
    alpha: float,
    style: str,
) -> None:
    if style == "masks":
        region = canvas[y : y + mask.shape[0], x : x + mask.shape[1]]
        tint = np.empty_like(region)
        tint[:] = color
        cv2.addWeighted(region, 1 - alpha, tint, alpha, 0, dst=tint)
        cv2.copyTo(tint, mask.view(np.uint8), region)
    line = max(1, round(_side(canvas, mask) / 400))
    if style == "boxes":
        corner = (x + mask.shape[1] - 1, y + mask.shape[0] - 1)
        cv2.rectangle(canvas, (x, y), corner, color.tolist(), 2 * line)
        return
    outlines, _ = cv2.findContours(
        mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
    )
    cv2.drawContours(canvas, outlines, -1, color.tolist(), line, cv2.LINE_AA)


def _side(canvas: np.ndarray, mask: np.ndarray) -> float:
    """Side in pixels that lines and letters are in proportion to.

    It is the image's, or five times the object's: of a small object in an image of thousands of
    pixels they would hide more than they say.
    """
    return min(*canvas.shape[:2], 5 * math.sqrt(mask.size))


def _draw_label(
    canvas: np.ndarray, x: int, y: int, mask: np.ndarray, text: str, color: np.ndarray
) -> None:
    """A filled tag in the middle of the mask, above one that it would cover, inside the image."""
    scale = max(0.4, _side(canvas, mask) / 1000)
    line = max(1, round(scale * 1.5))
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
    rows, columns = np.nonzero(mask)
    left = x + int(np.median(columns)) - width // 2
    bottom = y + int(np.median(rows)) + height // 2
    if mask.shape[0] < 3 * height or mask.shape[1] < width:
        bottom = y - base - 1
    left = max(0, min(left, canvas.shape[1] - width))
    bottom = max(height + 2, min(bottom, canvas.shape[0] - base - 1))
    corners = (left - 2, bottom - height - 2), (left + width + 2, bottom + base)
    cv2.rectangle(canvas, *corners, color.tolist(), -1)
    bright = float(color @ np.array([0.114, 0.587, 0.299])) > 128  # BGR luma of the tag
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(
        canvas, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, line, cv2.LINE_AA
    )
