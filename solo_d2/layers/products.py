"""Exact products of binary matrices, by integer arithmetic where a CPU has it.

The integer product is a private function of torch, and has returned uninitialised memory for some
shapes. This is the only module that may call one: it keeps to safe shapes, compares results once
with those of the public function, and uses that one wherever anything is wrong.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .capture import capturing

_logger = logging.getLogger(__name__)

BLOCK_ROWS = 128
"""Rows of the larger matrix that are multiplied at a time on a CPU."""

# 500 masks x 16384 pixels in float32: 32 MiB at a time.
_TILE_COLUMNS = 16384

_HALF_COLUMNS = 2048

SAFE_COLUMNS = 64
"""Rows are padded to a multiple of this on a CPU, a whole number of every instruction's operands.

With one column, torch 2.14 returned uninitialised memory.
"""

# Row counts of the self-check: one row, an odd number, and what is more than one block.
_CHECKED_ROWS = (1, 2, 3, 7, 16, 33, BLOCK_ROWS, BLOCK_ROWS + 1, BLOCK_ROWS + 5)


def common_ones(rows: Tensor) -> Tensor:
    """Count the ones that every pair of rows has in common.

    Args:
        rows: boolean (K, P), or those of N images (N, K, P).

    Returns:
        (K, K) or (N, K, K) float32, exact integers for P up to 2**24.
    """
    if capturing():
        return _float_products(rows)
    if rows.numel() == 0:
        return torch.zeros((*rows.shape[:-1], rows.shape[-2]), device=rows.device)
    if rows.device.type == "cuda":
        return half_products(rows)
    if rows.device.type != "cpu" or not integer_products_are_right():
        return _float_products(rows)
    if rows.dim() == 3:
        return torch.stack([_integer_products(image) for image in rows])
    return _integer_products(rows)


@cache
def integer_products_are_right() -> bool:
    """Compare the integer product with the float product, once in a process."""
    if not torch.backends.mkldnn.is_available():
        return False  # it would be slower than the float product
    generator = torch.Generator().manual_seed(0)
    # Each shape once, so that a result cannot be right because it lies where the last one lay.
    for step, count in enumerate(_CHECKED_ROWS):
        columns = 1 + step * (SAFE_COLUMNS + 1)
        rows = torch.rand((count, columns), generator=generator) > 0.5
        try:
            found = _integer_products(rows)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
            # Private: it may be gone, take other arguments, or not know this CPU.
            _logger.debug("integer matrix products are not available: %s", error)
            return False
        if not torch.equal(found, _float_products(rows)):
            _logger.warning("integer matrix products are wrong on this CPU; float is used instead")
            return False
    return True


def _integer_products(rows: Tensor) -> Tensor:
    """int8 x int8 -> int32: a quarter of the memory traffic of float32, and exact."""
    missing = -rows.shape[1] % SAFE_COLUMNS
    if missing:
        rows = torch.cat([rows, rows.new_zeros((len(rows), missing))], dim=1)
    pixels = rows.contiguous().view(torch.int8)
    counts = torch.zeros((len(rows), len(rows)))
    # The result is symmetric, so that blocks on and below the diagonal are enough.
    for start in range(0, len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        counts[start:, block] = torch._int_mm(pixels[start:], pixels[block].T)
    return counts.tril() + counts.tril(-1).T


def half_products(rows: Tensor) -> Tensor:
    """The same by float16, for which a GPU has units of their own; its integers end at 2048.

    So no product is longer than that; whatever way it is summed up in, it is exact.
    """
    missing = -rows.shape[-1] % _HALF_COLUMNS
    blocks = F.pad(rows, (0, missing)).unflatten(-1, (-1, _HALF_COLUMNS)).movedim(-2, -3)
    values = torch.empty(blocks.shape, dtype=torch.float16, device=rows.device).copy_(blocks)
    with torch.autocast(rows.device.type, enabled=False):
        return (values @ values.mT).sum(-3, dtype=torch.float32)


def _float_products(rows: Tensor) -> Tensor:
    """The same; 0 and 1 are exact in every float format, and sums are kept in float32, or TF32."""
    tiles = (rows,) if capturing() else rows.split(_TILE_COLUMNS, dim=-1)
    with torch.autocast(rows.device.type, enabled=False):
        counts = None
        for tile in tiles:
            values = tile.float()
            products = values @ values.mT
            counts = products if counts is None else counts.add_(products)
    assert counts is not None  # also without a column there is a tile
    return counts
