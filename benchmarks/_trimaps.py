"""Trimap-based matting baselines: rows "T + ..." of Table S2."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from solo_d2.evaluation.matting import target_matte
from solo_d2.evaluation.matting_metrics import matting_errors, unknown_region
from solo_d2.inference.effects import load_pymatting
from solo_d2.io.image import read_image

METHODS = {
    "closed-form": "estimate_alpha_cf",
    "kNN": "estimate_alpha_knn",
    "large kernel": "estimate_alpha_lkm",
    "random walk": "estimate_alpha_rw",
    "learning-based": "estimate_alpha_lbdm",
}
"""Functions of `pymatting` by their names in tables."""

MARGIN = 20  # pixels of sure background around the unknown region that a method sees


def make_trimap(target: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Make a trimap: the matte rounded to 0 and 1 in the known region, 1/2 elsewhere, float64."""
    return np.where(unknown, 0.5, np.rint(target)).astype(np.float64)


def crop_around(unknown: np.ndarray, trimap: np.ndarray, margin: int) -> tuple[slice, slice] | None:
    """Return rows and columns of the unknown region with a margin; None without a known region."""
    x, y, width, height = cv2.boundingRect(unknown.astype(np.uint8))
    rows = slice(max(0, y - margin), y + height + margin)
    columns = slice(max(0, x - margin), x + width + margin)
    part = trimap[rows, columns]
    return (rows, columns) if (part == 0).any() and (part == 1).any() else None


def solve(method: str, image: np.ndarray, trimap: np.ndarray) -> tuple[np.ndarray, bool]:
    """A matte (h, w), and whether the solver converged; if not it is the trimap.

    Args:
        method: of `METHODS`.
        image: RGB (h, w, 3) float64 in [0, 1].
        trimap: of `make_trimap`.
    """
    estimate = getattr(load_pymatting("alpha"), METHODS[method])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ill-conditioned systems: the error will show
            matte = estimate(image, trimap)
    except ValueError:  # pymatting's way to say that a solver did not converge
        return trimap, False
    return np.clip(np.nan_to_num(matte, nan=0.5), 0, 1), True


def trimap_errors(
    records: Sequence[dict[str, Any]], methods: Sequence[str], radius: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """Compute errors over the unknown region of every object of some images.

    Objects without a sure part, so narrow that the trimap is unknown all over, are left out.

    Args:
        records: of a registered dataset.
        methods: of `METHODS`.
        radius: of the trimap, see `unknown_region`.

    Returns:
        By method, rows with "image_id", "object" and the errors; and how often it did not
        converge.
    """
    rows: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
    failed = dict.fromkeys(methods, 0)
    for record in tqdm(records, desc="trimaps", unit="image", disable=None):
        image = read_image(record["file_name"], "RGB") / 255.0
        for index, annotation in enumerate(record["annotations"]):
            if annotation.get("iscrowd", 0):
                continue
            target = target_matte(annotation, image.shape[:2])
            unknown = unknown_region(target, radius)
            trimap = make_trimap(target, unknown)
            place = crop_around(unknown, trimap, MARGIN)
            if place is None:
                continue
            for method in methods:
                matte, converged = solve(method, image[place], trimap[place])
                failed[method] += not converged
                whole = trimap.copy()
                whole[place] = np.where(unknown[place], matte, trimap[place])
                errors = matting_errors(whole, target, unknown)
                rows[method].append({"image_id": record["image_id"], "object": index, **errors})
    return rows, failed
