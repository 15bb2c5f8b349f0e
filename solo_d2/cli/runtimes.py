"""A model in every way that runs here: made, timed, and evaluated."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..export import FORMATS, ExportReport, export_model
from ..inference.predictor import SOLOPredictor

if TYPE_CHECKING:
    import numpy as np

PYTORCH, TENSORRT = "pytorch", "tensorrt"
_COMPILED: dict[str, bool | Literal["fuse"]] = {"cuda-graph": True, "cuda-fused": "fuse"}
WAYS = (
    (PYTORCH, "f32"),
    *((name, "f32") for name in _COMPILED),
    *((x.name, p) for x in FORMATS.values() for p in x.precisions if p != "int8"),
    ("openvino", "int8"),
    (TENSORRT, "f16"),
)
"""Runtimes and precisions, in the order of the table."""

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}

_NO_CALIBRATION = "needs images: solo-d2 export --precision int8 --calibrate DIR"
_NO_TENSORRT = "engines are built where TensorRT runs: give it the .onnx file of --size"


@dataclass
class Row:
    """One way to run the model.

    Attributes:
        runtime: "pytorch", "cuda-graph", "cuda-fused", "tensorrt" or a format of `export_model`.
        precision: Of the runtime.
        reason: Why it does not run here; None if it does.
        mib: Size of its files, or of the weights in memory.
        parity: The largest differences that the check at export has found; None without one.
        ms: Median time from an array to masks at the image's size.
        ap: Mask AP on the dataset; None without one.
    """

    runtime: str
    precision: str
    reason: str | None = None
    mib: float | None = None
    parity: dict[str, float] | None = None
    ms: float | None = None
    ap: float | None = None
    predictor: SOLOPredictor | None = field(default=None, repr=False)


def make_rows(
    predictor: SOLOPredictor,
    runtimes: Sequence[str],
    folder: Path,
    tell: Callable[[str], None],
    **options: Any,
) -> list[Row]:
    """Make a model ready to run in every way that was asked for.

    Args:
        predictor: The model in PyTorch on the CPU.
        runtimes: Names of `WAYS`.
        folder: For the files.
        tell: Shows progress.
        options: For `export_model`.
    """
    rows = [Row(*way) for way in WAYS if way[0] in runtimes]
    for number, row in enumerate(rows, start=1):
        tell(f"making {row.runtime} {row.precision} ({number} of {len(rows)})")
        try:
            _make(row, predictor, folder, options)
        except ValueError as error:
            row.reason = str(error)
    return rows


def _make(row: Row, predictor: SOLOPredictor, folder: Path, options: dict[str, Any]) -> None:
    if row.runtime == PYTORCH:
        row.predictor = predictor
        row.mib = sum(x.nbytes for x in predictor.model.state_dict().values()) / 2**20
    elif row.runtime in _COMPILED:
        if not torch.cuda.is_available():
            raise ValueError("there is no CUDA device here")
        row.predictor = SOLOPredictor(
            predictor.cfg,
            weights=predictor.cfg.MODEL.WEIGHTS,
            device="cuda",
            compile=_COMPILED[row.runtime],
        )
    elif row.runtime == TENSORRT:
        raise ValueError(_NO_TENSORRT)
    elif row.precision == "int8":
        raise ValueError(_NO_CALIBRATION)
    else:
        onnx = folder / "model.onnx"
        if row.runtime == "openvino" and onnx.exists():  # recorded already
            options = {**options, "onnx": onnx}
        name = f"{row.precision}/model{FORMATS[row.runtime].suffix}"
        path = onnx if row.runtime == "onnx" else folder / name
        report = export_model(predictor, path, precision=row.precision, **options)
        row.predictor = SOLOPredictor(path)
        row.mib, row.parity = report.size_bytes / 2**20, worst(report)


def worst(report: ExportReport) -> dict[str, float] | None:
    """Return the largest differences over the images of a check; None without a check."""
    if not report.parity:
        return None
    found: Any = report.parity  # of kind "full"
    return {
        "missing": 1 - sum(x.matched for x in found) / max(1, sum(x.instances for x in found)),
        "score": max(x.score for x in found),
        "pixels": max(x.flips for x in found),
    }


def time_rows(rows: Sequence[Row], images: Sequence[np.ndarray], rounds: int, clock: str) -> None:
    """Fill in the median times; all ways take turns, so that other load meets them alike."""
    runs = [(row, row.predictor) for row in rows if row.predictor is not None]
    seconds: dict[int, list[float]] = {id(row): [] for row, _ in runs}
    now = CLOCKS[clock]
    for turn in range(rounds + 1):  # the first one is for warming up
        for image in images:
            for row, predictor in runs:
                start = now()
                predictor(image)
                if predictor.device.type == "cuda":
                    torch.cuda.synchronize()
                if turn:
                    seconds[id(row)].append(now() - start)
    for row, _ in runs:
        row.ms = 1000 * statistics.median(seconds[id(row)])
