"""Whether scores are the share of true detections, and the temperature that makes them so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..layers import temperature as temperatures

__all__ = ["Calibration", "apply_temperature", "calibrate", "measure_calibration"]

BINS = 10
TEMPERATURES = (0.2, 5.0)
"""Smallest and largest value of `MODEL.SOLO.SCORE_TEMPERATURE`."""


@dataclass(frozen=True)
class Calibration:
    """How far scores are from the share of true detections, in bins of equal width.

    Attributes:
        points: (mean score, share of true detections, number) of every bin with detections.
        error: expected calibration error (ECE) in [0, 1]: the mean distance of both, by number;
            NaN without detections.
    """

    points: list[tuple[float, float, int]]
    error: float


def measure_calibration(scores: np.ndarray, true: np.ndarray) -> Calibration:
    """Compare scores with the share of true detections.

    Args:
        scores: of N detections, in [0, 1].
        true: which of them are matched (N,).

    Example:
        >>> found = measure_calibration(np.array([0.25, 0.25, 0.95]), np.array([False, True, True]))
        >>> found.points
        [(0.25, 0.5, 2), (0.95, 1.0, 1)]
        >>> round(found.error, 3)  # (2 x 0.25 + 0.05) / 3
        0.183
    """
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    used = counts > 0
    means = (np.bincount(bins, x, minlength=BINS)[used] / counts[used] for x in (scores, true))
    score, share = means
    error = np.abs(score - share) @ counts[used] / len(scores) if len(scores) else float("nan")
    points = zip(score.tolist(), share.tolist(), counts[used].tolist(), strict=True)
    return Calibration(list(points), float(error))


def apply_temperature(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits of scores by a temperature, as `MODEL.SOLO.SCORE_TEMPERATURE` does."""
    found: np.ndarray = temperatures.apply_temperature(
        torch.from_numpy(scores), temperature
    ).numpy()
    return found


def calibrate(scores: np.ndarray, true: np.ndarray) -> float:
    """Find the temperature of the highest likelihood, within `TEMPERATURES`.

    The logarithm of the likelihood is concave in the inverse temperature; so its derivative has
    one root at most, which is found by bisection.

    Args:
        scores: of N detections, in [0, 1].
        true: which of them are matched (N,).

    Returns:
        The temperature; 1.0 without detections.
    """
    logits = temperatures.score_logits(torch.from_numpy(scores)).numpy()
    if not len(logits):
        return 1.0
    low, high = (1 / x for x in reversed(TEMPERATURES))
    for _ in range(40):
        middle = (low + high) / 2
        slope = np.mean(logits * (true - 1 / (1 + np.exp(-middle * logits))))
        low, high = (middle, high) if slope > 0 else (low, middle)
    return 2 / (low + high)
