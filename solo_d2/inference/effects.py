"""What mattes are for: cut-outs, a blurred background, another background.

Shapes: (H, W) image. Images are uint8 BGR as in `solo_d2.SOLOPredictor`, mattes float32 in [0, 1].
An image is I = α F + (1 - α) B in its stored values, in which mattes are defined. The foreground F
is the colour of its pixels if they were opaque.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import ImageColor

from ..layers import budgets

__all__ = [
    "blur_background",
    "cut_out",
    "drop_faint_parts",
    "estimate_foreground",
    "fill_frame",
    "matte_box",
    "parse_color",
    "replace_background",
    "set_levels",
    "union_matte",
]

_logger = logging.getLogger(__name__)

_GAMMA = 2.2


def set_levels(matte: np.ndarray, low: float = 0.1, high: float = 0.95) -> np.ndarray:
    """Stretch a matte so that `low` becomes 0 and `high` 1.

    A sigmoid reaches neither: without this a cut-out is a little transparent all over, and leaves
    a veil far from the object.

    Raises:
        ValueError: not 0 <= low < high <= 1.
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"levels must be 0 <= low < high <= 1, got {low} and {high}")
    return np.clip((matte - np.float32(low)) / np.float32(high - low), 0, 1)


def drop_faint_parts(matte: np.ndarray, firm: float = 0.5) -> np.ndarray:
    """Remove connected components whose alpha never reaches `firm` (leakage from other objects).

    Soft edges and hair that are connected to a firm region are kept, and so are firm regions that
    an object in front separates.

    Args:
        matte: (H, W).
        firm: a part stays if it reaches this somewhere, in (0, 1].

    Returns:
        (H, W), parts being those of pixels above 0, 8-connected.
    """
    count, parts = cv2.connectedComponents((matte > 0).astype(np.uint8), connectivity=8)
    stays = np.zeros(count, dtype=bool)
    stays[parts[matte >= firm]] = True
    return np.where(stays[parts], matte, np.float32(0))


def union_matte(mattes: np.ndarray) -> np.ndarray:
    """Join the mattes of several objects: their sum, at most 1.

    Mattes say how much of a pixel an object covers, without overlap: where two objects touch,
    1/2 and 1/2 leave no seam.

    Args:
        mattes: (K, H, W), K may be 0.
    """
    total = np.zeros(mattes.shape[1:], dtype=np.float32)
    for matte in mattes:
        total += matte
    return np.minimum(total, 1, out=total)


def matte_box(matte: np.ndarray) -> tuple[int, int, int, int]:
    """Box of the pixels that are not transparent in 8 bits: XYXY, right and bottom exclusive.

    Raises:
        ValueError: all are transparent.
    """
    x, y, width, height = cv2.boundingRect(np.rint(matte * 255).astype(np.uint8))
    if not width:
        raise ValueError("the matte is transparent everywhere")
    return x, y, x + width, y + height


def estimate_foreground(image: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Colours of the object without those of its background, with `pymatting`.

    The multi-level method of Germer et al., "Fast Multi-Level Foreground Estimation", ICPR 2020.
    Only the matte's box, and a margin, is computed; outside of it the image is returned.

    Args:
        image: uint8 BGR (H, W, 3).
        matte: (H, W).

    Returns:
        uint8 BGR (H, W, 3).

    Raises:
        ValueError: `pymatting` is not installed, or the shapes differ.
    """
    _check(image, matte)
    estimate = load_pymatting("foreground").estimate_foreground_ml
    result = image.copy()
    if not (np.rint(matte * 255) > 0).any():
        return result
    x0, y0, x1, y1 = matte_box(matte)
    rows, columns = (
        slice(max(0, start - _MARGIN), stop + _MARGIN) for start, stop in ((y0, y1), (x0, x1))
    )
    crop = image[rows, columns].astype(np.float32) / 255
    foreground = estimate(crop, np.ascontiguousarray(matte[rows, columns], dtype=np.float32))
    result[rows, columns] = _to_uint8(foreground * 255)
    return result


_MARGIN = 16  # pixels of background around an object that tell its colours from the object's


def load_pymatting(module: str) -> Any:
    """Import a module of the optional package `pymatting`, which takes seconds.

    Raises:
        ValueError: it is not installed.
    """
    if f"pymatting.{module}" not in sys.modules:
        _logger.warning("loading pymatting, which compiles itself at its first use (minutes)")
    try:
        return importlib.import_module(f"pymatting.{module}")
    except ImportError as error:
        raise ValueError(
            "this needs the package pymatting: pip install pymatting (or leave the colours as "
            "they are, with --no-foreground)"
        ) from error


def cut_out(
    image: np.ndarray, matte: np.ndarray, foreground: np.ndarray | None = None
) -> np.ndarray:
    """Return one object with its alpha channel, cropped to its matte.

    Args:
        image: uint8 BGR (H, W, 3).
        matte: (H, W).
        foreground: of `estimate_foreground`; without it edges keep some of the background.

    Returns:
        uint8 BGRA (h, w, 4), not premultiplied; black where transparent.

    Raises:
        ValueError: shapes that differ, or a matte that is transparent everywhere.
    """
    _check(image, matte)
    x0, y0, x1, y1 = matte_box(matte)
    colors = (image if foreground is None else foreground)[y0:y1, x0:x1]
    alpha = np.rint(matte[y0:y1, x0:x1, None] * 255).astype(np.uint8)
    return np.concatenate([colors * (alpha > 0), alpha], axis=2)


def replace_background(
    image: np.ndarray,
    matte: np.ndarray,
    background: np.ndarray,
    foreground: np.ndarray | None = None,
) -> np.ndarray:
    """Composite the objects over another image.

    Args:
        image: uint8 BGR (H, W, 3).
        matte: (H, W).
        background: uint8 BGR of the same shape, see `fill_frame`, or one colour (3,).
        foreground: of `estimate_foreground`; without it edges keep some of the old background.

    Returns:
        uint8 BGR (H, W, 3).
    """
    _check(image, matte)
    colors = image if foreground is None else foreground
    background = np.broadcast_to(background, image.shape)
    result = np.empty_like(image)
    for rows in _bands(image):
        alpha = matte[rows, :, None]
        result[rows] = _to_uint8(alpha * colors[rows] + (1 - alpha) * background[rows])
    return result


def blur_background(
    image: np.ndarray, matte: np.ndarray, radius: float, foreground: np.ndarray | None = None
) -> np.ndarray:
    """Blur all but the objects, as a lens with a round aperture does (bokeh).

    Only background is blurred: every pixel counts by the share of it that it shows, so that no
    colour of the object spreads into its surroundings. The mean over the disc is one of light, not
    of stored values: small lights become discs.

    Args:
        image: uint8 BGR (H, W, 3).
        matte: (H, W), 1 where the image stays sharp.
        radius: of the disc in pixels, 0 or more.
        foreground: of `estimate_foreground`. Without it soft pixels keep their colours, and do
            not take part in the background if they are opaque to a quarter.

    Returns:
        uint8 BGR (H, W, 3).

    Raises:
        ValueError: shapes that differ, or a negative radius.
    """
    _check(image, matte)
    if radius < 0:
        raise ValueError(f"radius must be 0 or more, got {radius}")
    kernel = _disc(radius)
    reach, height = kernel.shape[0] // 2, image.shape[0]
    colors = image if foreground is None else foreground
    result = np.empty_like(image)
    for rows in _bands(image, halo=reach):
        wide = slice(max(0, rows.start - reach), min(height, rows.stop + reach))
        inner = slice(rows.start - wide.start, rows.stop - wide.start)
        source = None if foreground is None else foreground[wide]
        background, weight = _visible_background(image[wide], matte[wide], source)
        blurred = _normalized_blur(background, weight, kernel)[inner]
        alpha = matte[rows, :, None]
        result[rows] = _to_uint8(alpha * colors[rows] + (1 - alpha) * blurred)
    return result


def _visible_background(
    image: np.ndarray, matte: np.ndarray, foreground: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """B (h, w, 3) in stored values, and its weight (h, w) in the blur."""
    if foreground is None:
        return image.astype(np.float32), np.clip(1 - 4 * matte, 0, 1)
    share = 1 - matte
    alpha = matte[..., None]
    background = (image - alpha * foreground) / np.maximum(share, 1e-3)[..., None]
    return np.clip(background, 0, 255), share


def _normalized_blur(values: np.ndarray, weight: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Weighted mean of the light over the kernel; `values` where nothing has a weight."""
    light = np.power(values / np.float32(255), np.float32(_GAMMA))
    stack = np.dstack([light * weight[..., None], weight]).astype(np.float32)
    means = cv2.filter2D(stack, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    total = means[..., 3:]
    light = np.clip(means[..., :3] / np.maximum(total, _LEAST_WEIGHT), 0, 1)
    blurred = np.power(light, np.float32(1 / _GAMMA)) * 255
    return np.where(total > _LEAST_WEIGHT, blurred, values)


_LEAST_WEIGHT = np.float32(1e-3)  # far above the rounding of a filter that runs through an FFT


def _disc(radius: float) -> np.ndarray:
    """A disc of sum 1, float32 (n, n), n odd, its rim smoothed over one pixel."""
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return (disc / disc.sum()).astype(np.float32)


def fill_frame(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an image to cover (height, width), keeping its proportions, and crop its middle.

    Args:
        image: uint8 BGR.
        size: (height, width) wanted.

    Returns:
        uint8 BGR (height, width, 3).
    """
    scale = max(wanted / side for wanted, side in zip(size, image.shape[:2], strict=True))
    height, width = (
        max(wanted, round(side * scale)) for wanted, side in zip(size, image.shape[:2], strict=True)
    )
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image, (width, height), interpolation=method)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def parse_color(text: str) -> np.ndarray:
    """Colour of a name or notation of CSS, such as "white" or "#20c040", as uint8 BGR (3,).

    Raises:
        ValueError: there is no such colour.
    """
    return np.array(ImageColor.getrgb(text)[2::-1], dtype=np.uint8)


def _bands(image: np.ndarray, halo: int = 0) -> list[slice]:
    """Split the rows of an image into bands, so that memory for floats is bounded."""
    height, width = image.shape[:2]
    step = max(1, halo, budgets.BAND_PIXELS // max(1, width))
    return [slice(start, min(start + step, height)) for start in range(0, height, step)]


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _check(image: np.ndarray, matte: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if matte.shape != image.shape[:2] or matte.dtype.kind != "f":
        raise ValueError(
            f"matte must be float {image.shape[:2]} as the image, got {matte.dtype} {matte.shape}"
        )


Effect = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]
"""Callable: (image, matte, foreground or None) -> image."""
