"""Images of a report: what is there, what was found, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.structures import Instances
from pycocotools import mask as mask_util

from ..evaluation.truth import as_rle
from ..inference.drawing import draw_instances
from ..io.image import ImageError, read_image
from ..io.page import beside, image, paragraph
from ..io.paths import printable
from .matches import Matches
from .measure import Measures
from .runs import Dataset, Entry

__all__ = ["draw_image"]

WIDTH = 360
"""Pixels of an image; a wider one is made smaller before anything is drawn."""

GOOD, BAD = (70, 170, 40), (40, 40, 220)  # BGR
MARKED = {True: GOOD, False: BAD}


def draw_image(dataset: Dataset, number: int, runs: Sequence[Measures]) -> str:
    """Draw the objects of an image and, beside it, what each run found.

    Found objects and true detections are green, missed objects and false detections red; what is
    neither, such as a detection in a crowd, is left out.

    Args:
        dataset: that was evaluated.
        number: of the image.
        runs: whose detections from their threshold on are drawn.

    Returns:
        HTML; a line of text of an image that cannot be read.
    """
    try:
        pixels = read_image(dataset.files[number], max_value=dataset.max_value)
    except ImageError as error:
        return paragraph(f"{error}")
    height = max(1, round(pixels.shape[0] * WIDTH / pixels.shape[1]))
    if pixels.shape[1] > WIDTH:
        pixels = cv2.resize(pixels, (WIDTH, height), interpolation=cv2.INTER_AREA)
    objects = [x for x in runs[0].matches.objects.values() if x["image_id"] == number]
    found = [runs[0].matches.is_found(x["id"], runs[0].threshold) for x in objects]
    name = f"image {dataset.ids[number]}: {printable(Path(dataset.files[number]).name)}"
    parts = [image(_draw(dataset, pixels, objects, found), name)]
    for run in runs:
        shown, true = _shown(run.matches, number, run.threshold)
        facts = run.images[number]
        text = f"{facts.true} true, {facts.false} false, {facts.missed} missed"
        parts.append(image(_draw(dataset, pixels, shown, true), f"{run.title}: {text}"))
    return beside(*parts)


def _shown(matches: Matches, number: int, threshold: float) -> tuple[list[Entry], list[bool]]:
    shown = matches.counted & (matches.scores >= threshold) & (matches.numbers == number)
    chosen = np.flatnonzero(shown).tolist()
    return [matches.entries[k] for k in chosen], [bool(matches.true[k]) for k in chosen]


def _draw(
    dataset: Dataset, pixels: np.ndarray, entries: Sequence[Entry], good: Sequence[bool]
) -> np.ndarray:
    height, width = pixels.shape[:2]
    instances = Instances((height, width))
    masks = np.zeros((len(entries), height, width), bool)
    for k, x in enumerate(entries):  # one large mask at a time
        whole = mask_util.decode(as_rle(x["segmentation"], dataset.sizes[x["image_id"]]))
        # A pixel of the smaller image is what lies at its middle.
        masks[k] = cv2.resize(whole, (width, height), interpolation=cv2.INTER_NEAREST)
    instances.pred_masks = torch.from_numpy(masks)
    instances.pred_classes = torch.tensor([x["category_id"] - 1 for x in entries]).long()
    if entries and "score" in entries[0]:
        instances.scores = torch.tensor([x["score"] for x in entries])
    colors = np.array([MARKED[x] for x in good], np.float64).reshape(-1, 3)
    return draw_instances(pixels, instances, dataset.classes, colors, alpha=0.35)
