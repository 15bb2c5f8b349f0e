"""Turn a graph into a program of another runtime, and write it to a file with its metadata."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .info import METADATA_KEY
from .packages import need

Save = Callable[[Path, str], None]
"""Writes a program to a path, with a JSON text as its metadata."""

Dims = dict[str, dict[int, Any]]
"""Which sides of the input may change, as `torch.export` takes them."""


class Recording(NamedTuple):
    """What is recorded, and how.

    Attributes:
        graph: In evaluation mode.
        image: An example of its input (N, 3, H, W).
        dims: Sides of the input that may change; {} for none.
        outputs: Names of the outputs.
        precision: In which the program is to be run.
        source: An ONNX file of the graph, to be converted; None to record it.
        quantize: Of precision int8: makes a program of OpenVINO in int8 of one in f32.
    """

    graph: nn.Module
    image: Tensor
    dims: Dims
    outputs: tuple[str, ...]
    precision: str
    source: Path | None = None
    quantize: Callable[[Any], Any] | None = None


def to_onnx(recording: Recording) -> Save:
    """Make an ONNX program: one file that holds its weights."""
    onnx = need("onnx", "format onnx")
    model = _onnx_program(recording)

    def save(path: Path, metadata: str) -> None:
        onnx.helper.set_model_props(model, {METADATA_KEY: metadata})
        onnx.save(model, path)

    return save


def to_openvino(recording: Recording) -> Save:
    """Make an OpenVINO program, by way of ONNX: .xml and .bin."""
    ov = need("openvino", "format openvino")
    source = recording.source
    model = ov.Core().read_model(
        _onnx_program(recording).SerializeToString() if source is None else source
    )
    if recording.quantize is not None:
        model = recording.quantize(model)

    def save(path: Path, metadata: str) -> None:
        model.set_rt_info(metadata, [METADATA_KEY])
        ov.save_model(model, path, compress_to_fp16=recording.precision == "f16")

    return save


def to_pt2(recording: Recording) -> Save:
    """Make a program of `torch.export`."""
    with _quiet():
        program = torch.export.export(
            recording.graph, (recording.image,), dynamic_shapes=recording.dims or None
        )
    return lambda path, metadata: torch.export.save(
        program, path, extra_files={METADATA_KEY: metadata}
    )


def to_torchscript(recording: Recording) -> Save:
    """Make a program of `torch.jit.trace`; all sizes stay free."""
    with _quiet():
        program = torch.jit.trace(recording.graph, (recording.image,), check_trace=False)

    def save(path: Path, metadata: str) -> None:
        with _quiet():
            torch.jit.save(program, str(path), _extra_files={METADATA_KEY: metadata})

    return save


WRITERS = {
    "onnx": to_onnx,
    "openvino": to_openvino,
    "pt2": to_pt2,
    "torchscript": to_torchscript,
}
"""By format."""


def _onnx_program(recording: Recording) -> Any:
    with _quiet():
        program = torch.onnx.export(
            recording.graph,
            (recording.image,),
            dynamo=True,
            input_names=["image"],
            output_names=list(recording.outputs),
            dynamic_shapes=recording.dims or None,
            verbose=False,
        )
    assert program is not None  # it is of dynamo
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what exporters warn of among themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
