"""The check at export: a draft of the file must find what the PyTorch model finds."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..io.paths import printable
from ..modeling import SOLO
from .graph import FullGraph, RawGraph, example
from .info import ExportInfo
from .model import ExportedModel
from .parity import TOLERANCES, Outputs, Parity, RawParity, compare, compare_raw
from .quantize import DropLimit
from .reading import open_exported

_logger = logging.getLogger(__name__)


def check_file(
    file: Path, model: SOLO, info: ExportInfo, images: Sequence[Tensor] = ()
) -> Iterator[Parity | RawParity]:
    """Compare an exported file with its model.

    Args:
        file: Of either kind.
        model: As it was before anything was done for the export.
        info: Metadata of the file.
        images: To compare on, (3, H, W); by default generated ones of three sizes.

    Yields:
        What was found, for each image, or of kind "raw" for each batch.

    Raises:
        ValueError: The results differ by more than `TOLERANCES` allows.
    """
    backend, _ = open_exported(file)
    backend.load(info.precision)
    exported = ExportedModel(file, info, backend)
    model = copy.deepcopy(model).float().cpu().eval()
    full = info.kind == "full"
    reference = FullGraph(model, info.max_candidates) if full else RawGraph(model)
    tolerance = TOLERANCES[info.precision]
    settings = model.settings
    lowest = float(settings.reported(torch.tensor(settings.final_score_thresh)))
    instances = 0
    for batch in _batches(info, images):
        want = dict(zip(info.outputs, (x.numpy() for x in reference(batch)), strict=True))
        got = exported.run(batch.numpy())
        size = (batch.shape[2], batch.shape[3])
        compared = (
            _compare(want, got, size, info, lowest) if full else [compare_raw(want, got, size)]
        )
        for parity in compared:
            problem = parity.problem(tolerance)
            if problem is not None:
                raise ValueError(
                    f"{printable(file.name)} was not written: at {size[0]}x{size[1]} pixels it "
                    f"does not find what the model finds: {problem}"
                )
            instances += getattr(parity, "instances", 1)
            yield parity
    if not instances:
        _logger.warning("The check has compared no instances: the model finds none in its images")


def check_drop(file: Path, model: SOLO, info: ExportInfo, limit: DropLimit) -> tuple[float, float]:
    """Compare the accuracy of an exported file with its model's.

    Args:
        file: Of kind "full".
        model: As it was before anything was done for the export.
        info: Metadata of the file.
        limit: What is measured, and how much may be lost.

    Returns:
        The accuracy of the model, and of the file.

    Raises:
        ValueError: More is lost.
    """
    backend, _ = open_exported(file)
    backend.load(info.precision)
    own = copy.deepcopy(model).float().cpu().eval()
    models = own, ExportedModel(file, info, backend)
    before, after = (limit.measure(x, range(limit.images)).total for x in models)
    if not before - after <= limit.max_drop:
        raise ValueError(
            f"{printable(file.name)} was not written: in {info.precision} its accuracy is "
            f"{after:.2f}, which is {before - after:.2f} below the model's; allowed are "
            f"{limit.max_drop:g}. Calibrate with more images, allow a larger drop, or choose bf16"
        )
    return before, after


def _compare(
    want: Outputs, got: Outputs, size: tuple[int, int], info: ExportInfo, least: float
) -> Iterator[Parity]:
    """Compare what two models find, image by image."""
    for index in range(len(want["scores"])):
        ours, theirs = (
            {name: values[index : index + 1] for name, values in outputs.items()}
            for outputs in (want, got)
        )
        yield compare(
            ours,
            theirs,
            size=size,
            mask_thresh=info.mask_thresh,
            final_thresh=least,
            tolerance=TOLERANCES[info.precision],
        )


def _batches(info: ExportInfo, images: Sequence[Tensor]) -> Iterator[Tensor]:
    """Images (N, 3, H, W) of as many as the file takes at once, of several sizes and numbers."""
    count = info.batch or 1
    for image in images:
        yield image.float()[None].repeat(count, 1, 1, 1)
    if images:
        return
    d = info.divisor
    sizes = [(4 * d, 6 * d), (6 * d, 4 * d), (8 * d, 10 * d)]
    for seed, size in enumerate(sizes):
        yield example(info.size or size, info.batch or seed + 1, seed)
