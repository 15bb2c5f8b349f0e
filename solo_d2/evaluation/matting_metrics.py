"""Errors of alpha mattes, as the matting literature defines them.

MSE and SAD; gradient and connectivity error of Rhemann et al., "A Perceptually Motivated Online
Benchmark for Image Matting", CVPR 2009; and the SOFI error of the paper (Eq. 10). All take mattes
as float arrays (H, W) in [0, 1]. Sums over pixels are divided by 1000, as they are reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch

GRADIENT_SIGMA = 1.4
"""Of the first-order Gaussian derivative filters of the gradient error, in pixels."""

_FILTER_TAIL = 1e-2  # of a Gaussian's value, where its filter ends
_CONNECTIVITY_STEPS = 10
_CONNECTIVITY_TOLERANCE = 0.15  # θ: smaller differences do not count as disconnected

METRICS: tuple[str, ...] = ("MSE", "SAD", "Grad", "Conn")
"""Keys of `matting_errors`."""


def mean_squared_error(alpha: np.ndarray, target: np.ndarray, region: np.ndarray) -> float:
    """Mean of the squared differences over `region`; 0 if it is empty."""
    count = int(region.sum())
    return float(np.square(alpha - target)[region].sum(dtype=np.float64)) / max(count, 1)


def sum_absolute_difference(alpha: np.ndarray, target: np.ndarray, region: np.ndarray) -> float:
    """Sum of the absolute differences over `region`, in thousands."""
    return float(np.abs(alpha - target)[region].sum(dtype=np.float64)) / 1000


def gradient_error(alpha: np.ndarray, target: np.ndarray, region: np.ndarray) -> float:
    """Sum of the squared differences of gradient magnitudes over `region`, in thousands."""
    difference = _gradient_magnitude(alpha) - _gradient_magnitude(target)
    return float(np.square(difference)[region].sum(dtype=np.float64)) / 1000


def connectivity_error(alpha: np.ndarray, target: np.ndarray, region: np.ndarray) -> float:
    """Sum of the differences in how firmly pixels hang together with the object, in thousands.

    The object is the largest 4-connected part in which both mattes are opaque. A pixel hangs on
    it down to the highest level, in steps of 0.1, at which both mattes connect it; what a matte
    exceeds that level by counts as disconnected, if it is at least 0.15.
    """
    connected = np.ones(alpha.shape, dtype=alpha.dtype)
    still = np.ones(alpha.shape, dtype=bool)
    for step in range(1, _CONNECTIVITY_STEPS + 1):
        level = step / _CONNECTIVITY_STEPS
        source = _largest_part((alpha >= level) & (target >= level))
        connected[still & ~source] = (step - 1) / _CONNECTIVITY_STEPS
        still &= source
    difference = np.abs(_degree(alpha, connected) - _degree(target, connected))
    return float(difference[region].sum(dtype=np.float64)) / 1000


def matting_errors(
    alpha: np.ndarray, target: np.ndarray, region: np.ndarray | None = None
) -> dict[str, float]:
    """Compute all four errors of one matte.

    Args:
        alpha: prediction (H, W) in [0, 1].
        target: ground truth of the same shape.
        region: boolean (H, W), where to measure; everywhere if not given.

    Returns:
        One value for each of `METRICS`; all are 0 for a perfect matte.

    Raises:
        ValueError: shapes that differ, or values outside of [0, 1].
    """
    alpha, target = _checked(alpha, "alpha"), _checked(target, "target")
    if region is None:
        region = np.ones(target.shape, dtype=bool)
    if not alpha.shape == target.shape == region.shape:
        raise ValueError(
            f"alpha, target and region must have one shape, got {alpha.shape}, {target.shape} and "
            f"{region.shape}; resize the prediction to the image first"
        )
    functions = (
        mean_squared_error,
        sum_absolute_difference,
        gradient_error,
        connectivity_error,
    )
    values = (function(alpha, target, region) for function in functions)
    return dict(zip(METRICS, values, strict=True))


def unknown_region(target: np.ndarray, radius: int = 10) -> np.ndarray:
    """Return the unknown part of a matte's trimap: all soft pixels, and those near them.

    A hard edge is unknown, too: the trimap's sure parts are the opaque and the transparent pixels,
    each eroded.

    Args:
        target: matte (H, W) in [0, 1].
        radius: of the erosion by a disc, in pixels; 0 leaves the soft pixels alone.

    Returns:
        Boolean (H, W).
    """
    if radius < 0:
        raise ValueError(f"radius must not be negative, got {radius}")
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    opaque, transparent = (
        cv2.erode(part.astype(np.uint8), disc, borderType=cv2.BORDER_REPLICATE) > 0
        for part in (target >= 1, target <= 0)
    )
    return ~(opaque | transparent)


def sofi_errors(
    predictions: Sequence[np.ndarray], targets: Sequence[np.ndarray], shape: tuple[int, int]
) -> dict[str, float]:
    """SOFI error of one class in one image (paper Eq. 10), with MSE and with SAD.

    The mean over the targets of the error of the best prediction, plus the mean over the
    predictions of the error of the best target. Where there is nothing to choose from, the choice
    is the all-zero matte; where both sides are empty the error is 0.

    Args:
        predictions: mattes (H, W) in [0, 1].
        targets: likewise.
        shape: (H, W), which matters where both are empty.

    Returns:
        "MSE", and "SAD" in thousands.
    """
    found, wanted = (
        torch.from_numpy(np.stack(side)).flatten(1).float()
        if len(side)
        else torch.zeros((0, shape[0] * shape[1]))
        for side in (predictions, targets)
    )
    return {
        "MSE": _best_matches(found, wanted, _pairwise_mse),
        "SAD": _best_matches(found, wanted, _pairwise_sad) / 1000,
    }


def _best_matches(
    found: torch.Tensor,
    wanted: torch.Tensor,
    pairwise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> float:
    nothing = torch.zeros((1, found.shape[1]))
    total = 0.0
    for rows, columns in ((wanted, found), (found, wanted)):
        if len(rows):
            errors = pairwise(rows, columns if len(columns) else nothing)
            total += float(errors.amin(1).mean())
    return total


def _pairwise_sad(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cdist(a.double(), b.double(), p=1.0)


def _pairwise_mse(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # Without the matrix product |a|² + |b|² - 2ab, which loses all digits of small errors.
    distances = torch.cdist(
        a.double(), b.double(), p=2.0, compute_mode="donot_use_mm_for_euclid_dist"
    )
    return distances.square() / a.shape[1]


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or values.dtype.kind != "f":
        raise ValueError(
            f"{name} must be a float array (H, W), got {values.dtype} {values.shape}; divide 8-bit "
            "values by 255"
        )
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"{name} must lie in [0, 1], got [{values.min():g}, {values.max():g}]")
    return values


def _gradient_magnitude(matte: np.ndarray) -> np.ndarray:
    """Magnitude of the response to first-order Gaussian derivative filters of unit norm."""
    sigma = GRADIENT_SIGMA
    half = math.ceil(
        sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * _FILTER_TAIL))
    )
    x = np.arange(-half, half + 1)
    gauss = np.exp(-(x**2) / (2 * sigma**2))
    slope = -x * gauss
    # The filter is the outer product of the two, and so is its norm.
    gauss, slope = gauss / np.linalg.norm(gauss), slope / np.linalg.norm(slope)
    matte = matte.astype(np.float64)
    border = cv2.BORDER_REPLICATE
    along_x = cv2.sepFilter2D(matte, cv2.CV_64F, slope, gauss, borderType=border)
    along_y = cv2.sepFilter2D(matte, cv2.CV_64F, gauss, slope, borderType=border)
    return np.hypot(along_x, along_y)


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest 4-connected part of a boolean mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=4
    )
    if count == 1:
        return np.zeros(mask.shape, dtype=bool)
    return labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())


def _degree(matte: np.ndarray, connected: np.ndarray) -> np.ndarray:
    """φ of Rhemann et al.: 1 for a pixel that is connected at its own level."""
    distance = matte - connected
    return 1 - distance * (distance >= _CONNECTIVITY_TOLERANCE)
