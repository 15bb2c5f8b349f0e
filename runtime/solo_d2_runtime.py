"""Run a model that solo_d2 exported to ONNX, with NumPy and ONNX Runtime alone.

    from solo_d2_runtime import Model

    model = Model("model.onnx")
    found = model(image)                    # NumPy, BGR as of OpenCV, uint8 (H, W, 3)
    found.scores, found.labels, found.masks, found.boxes, model.class_names

Results are those of the PyTorch model: the image is resized as in its training, and masks come at
the image's own size.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

__version__ = "0.1.0"
__all__ = ["Instances", "Model"]

_LAYOUT = 1
_NEEDED = (
    *("kind", "outputs", "class_names", "category_ids", "input_format", "resize_filter"),
    *("min_size", "max_size", "pixel_mean", "divisor", "size", "batch", "mask_thresh"),
    *("max_candidates", "precision", "config"),
)


class Instances(NamedTuple):
    """K instances of one image of (H, W) pixels, best first.

    Attributes:
        scores: float32 (K,) in (0, 1].
        labels: int64 (K,), indices of class names.
        masks: bool (K, H, W).
        boxes: float32 (K, 4): x0, y0, x1, y1 in pixels, right and bottom edge exclusive.
    """

    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray


class Model:
    """A model in an ``.onnx`` file.

    Args:
        path: The file.
        threads: Of the processor; by default as many as ONNX Runtime chooses.
        providers: Of ONNX Runtime, in the order of preference.

    Attributes:
        class_names: By label; [] if the model does not know them.
        category_ids: Of the dataset, by label; [] if unknown.
        metadata: All that the file says of itself.

    Raises:
        ValueError: There is no such file, it is damaged or of another version, or its metadata is
            missing or was changed.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        threads: int | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ) -> None:
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file; expected an exported model, such as m.onnx")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # whatever ONNX Runtime raises
            text = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: cannot be opened; is it cut off? ({text})") from error
        text = self._session.get_modelmeta().custom_metadata_map.get("solo_d2")
        self.metadata = _read_metadata(str(path), text)
        self.class_names: list[str] = self.metadata["class_names"]
        self.category_ids: list[int] = self.metadata["category_ids"]
        self._mean = np.array(self.metadata["pixel_mean"], np.float32)

    def __call__(self, image: np.ndarray, threshold: float = 0.0) -> Instances:
        """Find the instances of an image.

        Args:
            image: uint8 (H, W, 3), BGR.
            threshold: Least score of an instance.

        Raises:
            ValueError: The image has another type or shape.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(
                f"an image must be uint8 (H, W, 3), got {image.dtype} {tuple(image.shape)}"
            )
        info = self.metadata
        height, width = image.shape[:2]
        size = _network_size(height, width, info)
        if info["input_format"] == "RGB":
            image = image[:, :, ::-1]
        pixels = _resize(image, size, info["resize_filter"]).transpose(2, 0, 1)
        canvas = _canvas(size, info)
        batch = np.empty((info["batch"] or 1, 3, *canvas), np.float32)
        batch[:] = self._mean[:, None, None]  # which is 0 for the network
        batch[0, :, : size[0], : size[1]] = pixels
        names: list[str] = info["outputs"]
        outputs = dict(zip(names, self._session.run(None, {"image": batch}), strict=True))
        if outputs["num_candidates"][0] > info["max_candidates"]:
            warnings.warn(
                f"an image has {outputs['num_candidates'][0]} candidates; the best "
                f"{info['max_candidates']} are looked at: export with a larger max_candidates",
                stacklevel=2,
            )
        scores = outputs["scores"][0]
        filled = (scores > 0) & (scores >= threshold)
        probs = outputs["masks"][0][filled]
        if "REFINE_MASKS_TEST: true" in info["config"]:
            guide = (batch[0] - self._mean[:, None, None]) / 255
            probs = _refine(probs, _halve(guide), info["mask_thresh"])
        masks = _resize_masks(probs, canvas, size, (height, width), info["mask_thresh"])
        boxes = _boxes(masks)
        present = boxes[:, 2] > boxes[:, 0]
        labels = outputs["labels"][0][filled]
        return Instances(scores[filled][present], labels[present], masks[present], boxes[present])


def _read_metadata(path: str, text: str | None) -> dict[str, Any]:
    if text is None:
        raise ValueError(f"{path}: has no metadata of solo_d2; export the model with solo_d2")
    try:
        values: dict[str, Any] = json.loads(text)
        checksum = values.pop("sha256", None)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: has damaged metadata; export the model again") from error
    if values.get("layout") != _LAYOUT:
        raise ValueError(
            f"{path}: has metadata of layout {values.get('layout')!r}, this module reads layout "
            f"{_LAYOUT}; take the solo_d2_runtime of the solo_d2 that exported it"
        )
    plain = json.dumps(values, sort_keys=True, separators=(",", ":"))
    missing = [name for name in _NEEDED if name not in values]
    if missing or checksum != hashlib.sha256(plain.encode()).hexdigest():
        raise ValueError(
            f"{path}: has metadata that was changed after export; export the model again"
        )
    if values["kind"] != "full" or "mattes" in values["outputs"]:
        raise ValueError(f"{path}: is no model of instances; export a SOLO with kind full")
    return values


def _network_size(height: int, width: int, info: dict[str, Any]) -> tuple[int, int]:
    """Size at which the network sees an image, by the model's rule."""
    short, longest = info["min_size"], info["max_size"]
    if info["size"] is not None:  # the largest that fits
        scale = min(info["size"][0] / height, info["size"][1] / width)
        return max(1, int(height * scale)), max(1, int(width * scale))
    if short == 0:
        return height, width
    scale = short / min(height, width)
    sides = (short, scale * width) if height < width else (scale * height, short)
    if max(sides) > longest:
        scale = longest / max(sides)
        sides = (sides[0] * scale, sides[1] * scale)
    return max(1, int(sides[0] + 0.5)), max(1, int(sides[1] + 0.5))


def _canvas(size: tuple[int, int], info: dict[str, Any]) -> tuple[int, int]:
    if info["size"] is not None:
        return info["size"][0], info["size"][1]
    divisor = info["divisor"]
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def _resize(image: np.ndarray, size: tuple[int, int], resize_filter: str) -> np.ndarray:
    """Resize uint8 (h, w, 3) to (*size, 3), bit by bit as Pillow or OpenCV do bilinearly."""
    if image.shape[:2] == size:
        return image
    return (_pillow if resize_filter == "pillow" else _opencv)(image, size)


def _pillow(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Columns, then rows, each rounded to 8 bits; sums of whole numbers are exact in float64.

    Newer versions of Pillow begin with the rows of images more than twice as tall as wide, which
    moves some values by 1.
    """
    values = image.astype(np.float64)
    for axis, path in ((1, "hwc,ow->hoc"), (0, "hwc,oh->owc")):
        if image.shape[axis] != size[axis]:
            taps = _pillow_taps(image.shape[axis], size[axis])
            values = np.einsum(path, values, taps, optimize=True)
            values = np.clip(np.floor(values / 2**22 + 0.5), 0, 255)
    return values.astype(np.uint8)


def _pillow_taps(size: int, output: int) -> np.ndarray:
    """Weights (output, size) of a triangle as wide as the pixels that one covers, times 2**22."""
    scale = size / output
    support = max(scale, 1.0)
    centers = (np.arange(output) + 0.5) * scale
    low = np.maximum((centers - support + 0.5).astype(int), 0)
    high = np.minimum((centers + support + 0.5).astype(int), size)
    inputs = np.arange(size)
    taps = np.maximum(1 - np.abs((inputs[None] - centers[:, None] + 0.5) / support), 0)
    taps[(inputs[None] < low[:, None]) | (inputs[None] >= high[:, None])] = 0
    return np.floor(taps / taps.sum(1, keepdims=True) * 2**22 + 0.5)


def _opencv(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Two pixels along each axis with weights of 11 bits, and the bits that OpenCV drops."""
    (y, below), (x, right) = (_pairs(image.shape[axis], size[axis]) for axis in (0, 1))
    right[x[0] == x[1]] = 0
    values = image.astype(np.int32)
    wide = values[:, x[0]] * (2048 - right)[:, None] + values[:, x[1]] * right[:, None]
    wide >>= 4
    top, bottom = wide[y[0]] * (2048 - below)[:, None, None], wide[y[1]] * below[:, None, None]
    return (((top >> 16) + (bottom >> 16) + 2) >> 2).astype(np.uint8)


def _pairs(size: int, output: int) -> tuple[np.ndarray, np.ndarray]:
    """The two pixels (2, output) of each output, and the weight of the second times 2**11."""
    centers = ((np.arange(output) + 0.5) * (size / output) - 0.5).astype(np.float32)
    low = np.floor(centers).astype(int)
    weight = centers - low.astype(np.float32)
    pairs = np.clip(np.stack([low, low + 1]), 0, size - 1)
    return pairs, np.rint(weight * np.float32(2048)).astype(np.int32)


def _linear_taps(size: int, output: int) -> np.ndarray:
    """Weights (output, size) of linear interpolation with half-pixel centres, float32."""
    scale = np.float32(size / output)
    centers = np.maximum((np.arange(output, dtype=np.float32) + 0.5) * scale - np.float32(0.5), 0)
    low = np.minimum(centers.astype(int), size - 1)
    weight = centers - low.astype(np.float32)
    taps = np.zeros((output, size), np.float32)
    each = np.arange(output)
    taps[each, low] = 1 - weight
    taps[each, np.minimum(low + 1, size - 1)] += weight
    return taps


def _resize_masks(
    probs: np.ndarray,
    canvas: tuple[int, int],
    image: tuple[int, int],
    output: tuple[int, int],
    threshold: float,
) -> np.ndarray:
    """Soft masks (K, h, w) to the canvas, cut to the image, to the output; then the threshold.

    A pixel can only exceed the threshold where one of the pixels that it is made of does.
    """
    taps = [
        _linear_taps(image[axis], output[axis])
        @ _linear_taps(probs.shape[1 + axis], canvas[axis])[: image[axis]]
        for axis in (0, 1)
    ]
    masks = np.zeros((len(probs), *output), bool)
    for mask, prob in zip(masks, probs, strict=True):
        above = prob > threshold
        rows, columns = (
            np.flatnonzero((taps[axis][:, above.any(1 - axis)] > 0).any(1)) for axis in (0, 1)
        )
        if len(rows) and len(columns):
            y, x = (slice(used[0], used[-1] + 1) for used in (rows, columns))
            mask[y, x] = taps[0][y] @ prob @ taps[1][x].T > threshold
    return masks


def _halve(image: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels of (C, H, W)."""
    rows = image[:, 0::2] + image[:, 1::2]
    return (rows[:, :, 0::2] + rows[:, :, 1::2]) / 4


def _refine(probs: np.ndarray, guide: np.ndarray, threshold: float) -> np.ndarray:
    """Soft masks (K, h, w) at twice the resolution, along the edges of (3, 2h, 2w).

    A guided filter (He et al., 2013) as of `solo_d2.layers.guided_filter`: in every neighbourhood
    of 5x5 pixels a mask is a linear function of (1, r, g, b). Only a window round each mask is
    computed, and 0 is elsewhere.
    """
    count, height, width = probs.shape
    fine = np.concatenate([np.ones_like(guide[:1]), guide]).reshape(4, height, 2, width, 2)
    coarse = fine.mean((2, 4))
    ridge = np.diag(np.array([0, 1e-4, 1e-4, 1e-4], np.float32))
    moments = _local_mean(coarse[:, None] * coarse).transpose(2, 3, 0, 1) + ridge
    solve = np.linalg.inv(moments).transpose(2, 3, 0, 1)
    refined = np.zeros((count, height, 2, width, 2), np.float32)
    for result, prob in zip(refined, probs, strict=True):
        above = prob > threshold
        if above.any():
            (y, y_seen), (x, x_seen) = (
                _reach(np.flatnonzero(above.any(1 - axis)), above.shape[axis]) for axis in (0, 1)
            )
            seen = _local_mean(prob[y_seen, x_seen] * coarse[:, y_seen, x_seen])
            functions = _local_mean((solve[:, :, y_seen, x_seen] * seen).sum(1))
            functions = functions[:, y.start - y_seen.start :, x.start - x_seen.start :]
            functions = functions[:, : y.stop - y.start, : x.stop - x.start]
            result[y, :, x] = (functions[:, :, None, :, None] * fine[:, y, :, x]).sum(0)
    return refined.reshape(count, 2 * height, 2 * width)


def _reach(used: np.ndarray, size: int) -> tuple[slice, slice]:
    """Pixels that a mask may grow to along an axis, and those that they depend on."""
    start, stop = max(0, used[0] - 2), min(size, used[-1] + 3)
    return slice(start, stop), slice(max(0, start - 4), stop + 4)


def _local_mean(maps: np.ndarray) -> np.ndarray:
    """Means of 5x5 pixels (..., h, w); the border is repeated outside."""
    for axis in (-2, -1):
        size = maps.shape[axis]
        near = np.clip(np.arange(-2, size + 2), 0, size - 1)
        padded = maps.take(near, axis)
        padded = padded.swapaxes(axis, -1)
        total: np.ndarray = padded[..., :size] + padded[..., 1 : size + 1]
        for i in range(2, 5):
            total += padded[..., i : size + i]
        maps = total.swapaxes(axis, -1) / 5
    return maps


def _boxes(masks: np.ndarray) -> np.ndarray:
    """Tight boxes (K, 4); zeros for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for axis in (0, 1):
        used: np.ndarray = np.any(masks, axis=1 + axis)  # the columns, then the rows
        some, size = np.any(used, axis=1), used.shape[1]
        boxes[:, axis] = np.where(some, used.argmax(1), 0)
        boxes[:, axis + 2] = np.where(some, size - used[:, ::-1].argmax(1), 0)
    return boxes
