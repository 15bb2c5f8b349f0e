"""Alpha mattes in files: one channel, 8 or 16 bits, or the alpha channel of an image."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np
from PIL import Image

from .decode import WITH_ALPHA, gray_array
from .image import ImageError, open_image
from .segmentation import decode_mask

_GRAY = ("1", "L")
_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L")


def read_alpha(path: str | PathLike[str]) -> np.ndarray:
    """Read a matte: the alpha channel of an image that has one, else a grey image.

    Args:
        path: a file that Pillow can read; 16 bits are scaled to 8.

    Returns:
        (H, W) uint8, 255 for opaque.

    Raises:
        ValueError: the file is missing or damaged, or a colour image without alpha.
    """
    name = fspath(path)
    with open_image(name) as image:
        return _alpha_of(image, name)


def _alpha_of(image: Image.Image, name: str) -> np.ndarray:
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))[..., 3].copy()
    if image.mode in (*_GRAY, *_SIXTEEN_BITS):
        return gray_array(image, name)
    raise ImageError(
        name,
        f"an image of mode {image.mode} without an alpha channel; expected RGBA, or a grey "
        "image as matte",
    )


def read_matte(alpha: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Read the matte of one annotation, at the size of its image.

    Args:
        alpha: the annotation's entry "alpha": "file_name", or "pixels" (h, w) uint8 in memory,
            and "offset" [x, y] in pixels of the image where either is a crop.
        size: (height, width) of the image.

    Returns:
        (height, width) uint8, 0 outside of the crop.

    Raises:
        ValueError: the file cannot be used, or does not fit into the image.
    """
    crop = alpha["pixels"] if "pixels" in alpha else read_alpha(alpha["file_name"])
    if "offset" not in alpha:
        if crop.shape != size:
            raise ValueError(
                f"{alpha['file_name']}: the matte has {crop.shape[1]}x{crop.shape[0]} pixels, its "
                f'image {size[1]}x{size[0]}; give the place of a crop as "offset": [x, y]'
            )
        return crop
    x, y = (int(v) for v in alpha["offset"])
    height, width = crop.shape
    if min(x, y) < 0 or x + width > size[1] or y + height > size[0]:
        raise ValueError(
            f"{alpha['file_name']}: a crop of {width}x{height} pixels at ({x}, {y}) does not lie "
            f"inside of its image of {size[1]}x{size[0]}"
        )
    matte = np.zeros(size, dtype=np.uint8)
    matte[y : y + height, x : x + width] = crop
    return matte


def annotation_matte(
    annotation: Mapping[str, Any], size: tuple[int, int], file_name: str
) -> np.ndarray:
    """Return the matte of an annotation, from its "alpha", or else from its mask.

    Args:
        annotation: Detectron2's, its "segmentation" checked.
        size: (height, width) of the image as stored.
        file_name: of the image, for messages.

    Returns:
        (height, width) uint8, 255 for opaque.

    Raises:
        ValueError: neither alpha nor mask, or one that does not fit the image.
    """
    if "alpha" in annotation:
        return read_matte(annotation["alpha"], size)
    if annotation.get("segmentation") is None:
        raise ValueError(
            f"an annotation of {file_name} has neither 'alpha' nor 'segmentation'; give each "
            "object a matte or a mask"
        )
    mask = decode_mask(annotation["segmentation"], size)
    if mask.shape != size:
        raise ValueError(
            f"a mask of {file_name} has {mask.shape[1]}x{mask.shape[0]} pixels, the image "
            f"{size[1]}x{size[0]}"
        )
    return mask.astype(np.uint8) * np.uint8(255)
