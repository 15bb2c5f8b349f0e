"""One class for each runtime: it opens an exported file and runs it on arrays.

A class reads the metadata when it is made; `load` makes ready to run. Every runtime works on the
CPU, with as many threads as torch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from .info import LONGEST, METADATA_KEY
from .packages import need
from .programs import Program, load_pt2, load_torchscript


class Backend(Protocol):
    """Runs one exported file.

    Attributes:
        metadata: The JSON text in the file; None if it has none.
    """

    metadata: str | None

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            Exception: It is damaged; whatever the runtime raises.
        """

    def load(self, precision: str) -> None:
        """Make ready to run in a precision."""

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Run on images (N, 3, H, W), float32; returns all outputs in the file's order."""


class OnnxRuntime:
    """Runs ``.onnx`` files in ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        self._ort = need("onnxruntime", f"running {path.name}")
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # warnings of the optimiser are for its developers
        self._session = self._ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.metadata = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)

    def load(self, precision: str) -> None:
        """Nothing is left to do."""

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """See `Backend`."""
        return self._session.run(None, {"image": images})


class OpenVino:
    """Runs ``.xml`` files with the ``.bin`` file beside them in OpenVINO."""

    def __init__(self, path: Path) -> None:
        self._ov = need("openvino", f"running {path.name}")
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise ValueError(f"its weights, {weights.name}, are not beside it")
        self._core = self._ov.Core()
        self._model = self._core.read_model(path)
        has = self._model.has_rt_info([METADATA_KEY])
        self.metadata = self._model.get_rt_info([METADATA_KEY]).astype(str) if has else None

    def load(self, precision: str) -> None:
        """Compile; without a hint OpenVINO chooses bf16 where the processor has it."""
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",  # f16 is stored
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._request = self._core.compile_model(self._model, "CPU", hints).create_infer_request()

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """See `Backend`."""
        outputs = self._request.infer({"image": images})
        return [np.array(value) for value in outputs.values()]


class _Torch:
    """Runs a program that torch saved; see `programs` for what it may do."""

    metadata: str | None
    _read: Callable[[Path], Program]

    def __init__(self, path: Path) -> None:
        self._path = path
        self.metadata = _extra_file(path)

    def load(self, precision: str) -> None:  # noqa: ARG002 - it is the file's
        """Read the program."""
        self._run = self._read(self._path)

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """See `Backend`."""
        with torch.inference_mode():
            return [output.numpy() for output in self._run(torch.from_numpy(images))]


class ExportedProgram(_Torch):
    """Runs ``.pt2`` files of `torch.export`."""

    _read = staticmethod(load_pt2)


class TorchScript(_Torch):
    """Runs ``.torchscript`` files."""

    _read = staticmethod(load_torchscript)


BACKENDS: dict[str, type[Backend]] = {
    ".onnx": OnnxRuntime,
    ".xml": OpenVino,
    ".pt2": ExportedProgram,
    ".torchscript": TorchScript,
}
"""Runtimes by the suffix of their files."""


def _extra_file(path: Path) -> str | None:
    """The metadata among the files that torch was given along; nothing else is read."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if Path(entry.filename).name == METADATA_KEY and entry.file_size <= LONGEST:
                return archive.read(entry).decode()
    return None
