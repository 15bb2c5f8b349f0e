"""Weights and inputs for comparisons with other implementations, the same on every machine."""

from __future__ import annotations

import math
import re
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_utils
import torch
from PIL import Image
from torch import Tensor

DATA = Path(__file__).parent / "data"

PADDED = "chelsea"
"""A photograph of 168x250 pixels, padded to 192x256."""
WHOLE = "coffee"
"""One of 160x256, which needs no padding."""

# What makes a random detector find something: (pattern of the key, mean, standard deviation).
# A convolution's deviation is relative to the one that keeps the variance through a ReLU.
_RULES: tuple[tuple[str, float, float], ...] = (
    (r"conv_offset\.weight", 0.0, 0.3),
    (r"conv_offset\.bias", 0.0, 0.3),
    (r"(conv_cls|solo_cate|dsolo_cate|cate_pred)\.bias", -5.2, 0.2),
    (r"(conv_kernel|solo_kernel|kernel_pred)\.weight", 0.0, 0.2),
    (r"(conv_kernel|solo_kernel|kernel_pred)\.bias", 0.0, 0.02),
    (r"(conv_mask_list|solo_ins_list)[_xy]*\.\d\.weight", 0.0, 1.5),
    (r"(conv_mask_list|solo_ins_list)[_xy]*\.\d\.bias", 0.3, 1.0),
    # The last norm of a residual block: many blocks must not add up to large numbers.
    (r"(bn3|conv3\.norm)\.weight", 0.25, 0.05),
    (r"running_mean", 0.0, 0.1),
    (r"running_var", 1.0, 0.3),
)


def uniform(seed: str, count: int) -> np.ndarray:
    """Numbers in [0, 1), float32: NumPy promises that a bit generator's stream never changes."""
    raw = np.random.PCG64(zlib.crc32(seed.encode())).random_raw(count)
    return (raw >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def random_weights(shapes: Mapping[str, Sequence[int]]) -> OrderedDict[str, Tensor]:
    """A state dict of these keys and shapes, every tensor made from its key alone."""
    return OrderedDict((key, _tensor(key, tuple(shape))) for key, shape in shapes.items())


def _tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    default = (0.0, 1.0) if len(shape) == 4 else (1.0, 0.3) if key.endswith("weight") else (0, 0.1)
    mean, deviation = next(((m, d) for rule, m, d in _RULES if re.search(rule, key)), default)
    if len(shape) == 4:
        deviation *= math.sqrt(2 / math.prod(shape[1:]))
    values = torch.from_numpy(uniform(key, math.prod(shape))).view(shape)
    return (values - 0.5) * (deviation * math.sqrt(12)) + mean


def photo(name: str) -> Tensor:
    """A photograph of `data`, RGB (3, H, W), uint8."""
    pixels = np.asarray(Image.open(DATA / f"{name}.png").convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def small_photo() -> Tensor:
    """RGB (3, 40, 60), uint8, padded to 64x64: more than a quarter of the canvas is padding."""
    return photo(WHOLE)[:, 60:100, 60:120].contiguous()


def ellipses(size: tuple[int, int], shapes: Sequence[tuple[int, int, int, int]]) -> Tensor:
    """Boolean masks (I, *size) of ellipses (x, y, half width, half height)."""
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    return torch.stack(
        [((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1 for x, y, a, b in shapes]
    )


def ground_truth() -> list[tuple[Tensor, Tensor]]:
    """Masks and classes for `PADDED` and `WHOLE`, so far apart that no cell is claimed twice."""
    first = ellipses((168, 250), [(40, 40, 22, 17), (130, 60, 40, 50), (215, 125, 30, 36)])
    second = ellipses((160, 256), [(66, 78, 60, 70), (200, 60, 8, 12)])
    return [(first, torch.tensor([0, 17, 79])), (second, torch.tensor([3, 3]))]


def every_nth(values: Tensor, count: int = 300) -> Tensor:
    """Values (count,) evenly spaced over a tensor of any shape."""
    positions = torch.linspace(0, values.numel() - 1, count, dtype=torch.float64)
    return values.flatten()[positions.long()]


def encode_masks(masks: Tensor) -> list[str]:
    """COCO's run lengths, as text, of boolean masks (K, H, W)."""
    columns = np.asfortranarray(masks.numpy().transpose(1, 2, 0).astype(np.uint8))
    return [rle["counts"].decode() for rle in mask_utils.encode(columns)]


def decode_masks(lengths: Sequence[str], size: Sequence[int]) -> Tensor:
    """Inverse of `encode_masks`; `size` is (H, W)."""
    masks = mask_utils.decode([{"size": list(size), "counts": text} for text in lengths])
    return torch.from_numpy(masks.transpose(2, 0, 1).astype(bool))
