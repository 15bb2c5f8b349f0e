"""An exported file as a model: Detectron2's inputs go in, and `Instances` come out."""

from __future__ import annotations

import logging
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.structures import Instances
from detectron2.utils.logger import log_first_n
from torch import Tensor, nn

from ..config import add_solo_config, merge_file, validate_config
from ..io.errors import one_line
from ..io.paths import not_a_file, printable
from ..modeling.meta_arch.solo import check_image
from ..modeling.output import make_instances, resize_masks
from .backends import BACKENDS, Backend
from .formats import format_of
from .info import ExportInfo

Outputs = dict[str, np.ndarray]


class ExportedModel(nn.Module):
    """Runs an exported file of kind "full" as `SOLO` runs: a list of inputs, a list of results.

    Args:
        path: The file, for messages.
        info: Its metadata.
        backend: Its runtime, loaded.

    Attributes:
        info: The metadata.
        class_names: And the other attributes of `SOLO` of the same names.

    Example:
        >>> model = load_exported("model.onnx")                          # doctest: +SKIP
        >>> model([{"image": image}])[0]["instances"]                    # doctest: +SKIP
    """

    def __init__(self, path: Path, info: ExportInfo, backend: Backend) -> None:
        super().__init__()
        self.path, self.info, self.backend = path, info, backend
        self.class_names, self.stuff_names = info.class_names, info.stuff_names
        self.category_ids = info.category_ids
        self.stuff_category_ids = info.stuff_category_ids
        self.input_format, self.resize_filter = info.input_format, info.resize_filter

    def run(self, images: np.ndarray) -> Outputs:
        """Run on images (N, 3, H, W), float32 in [0, 255]; returns the outputs by name.

        Raises:
            ValueError: The file does not take images of this number or size.
        """
        count, _, height, width = images.shape
        info = self.info
        if info.size is not None and (height, width) != info.size:
            raise ValueError(
                f"{self.path.name} takes images of {info.size[0]}x{info.size[1]} pixels only, got "
                f"{height}x{width}"
            )
        if height % info.divisor or width % info.divisor:
            raise ValueError(
                f"{self.path.name} takes images whose sides {info.divisor} divides, got "
                f"{height}x{width}; pad them"
            )
        if info.batch is not None and count != info.batch:
            raise ValueError(f"{self.path.name} takes {info.batch} images at once, got {count}")
        return dict(zip(info.outputs, self.backend(images), strict=True))

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """See `SOLO.forward`, of a model in evaluation mode.

        Raises:
            ValueError: An input is no image, or is larger than the file's fixed size.
        """
        for inputs in batched_inputs:
            check_image(inputs.get("image"), len(self.info.pixel_mean))
        length = self.info.batch or max(1, len(batched_inputs))
        chunks = range(0, len(batched_inputs), length)
        return [r for i in chunks for r in self._run_chunk(batched_inputs[i : i + length], length)]

    def _run_chunk(self, inputs: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
        images = [x["image"].cpu().float().numpy() for x in inputs]
        canvas = self._canvas([image.shape[1:] for image in images])
        mean = np.array(self.info.pixel_mean, np.float32).reshape(1, -1, 1, 1)
        batch = np.tile(mean, (count, 1, *canvas))  # the mean colour is 0 for the network
        for row, image in zip(batch, images, strict=False):
            row[:, : image.shape[1], : image.shape[2]] = image
        outputs = self.run(batch)
        return [
            self._result({k: v[i] for k, v in outputs.items()}, x, image.shape[1:], canvas)
            for i, (x, image) in enumerate(zip(inputs, images, strict=True))
        ]

    def _canvas(self, sizes: list[tuple[int, ...]]) -> tuple[int, int]:
        """Sides of the padded input that holds images of these sizes."""
        height, width = (max(side) for side in zip(*sizes, strict=True))
        fixed = self.info.size
        if fixed is None:
            divisor = self.info.divisor
            return -(-height // divisor) * divisor, -(-width // divisor) * divisor
        if height > fixed[0] or width > fixed[1]:
            raise ValueError(
                f"{self.path.name} takes images of at most {fixed[0]}x{fixed[1]} pixels, got "
                f"{height}x{width}; export without a fixed size, or lower INPUT.MIN_SIZE_TEST and "
                "INPUT.MAX_SIZE_TEST"
            )
        return fixed[0], fixed[1]

    def _result(
        self,
        outputs: Outputs,
        inputs: dict[str, Any],
        size: tuple[int, ...],
        canvas: tuple[int, int],
    ) -> dict[str, Any]:
        """Bring the outputs for one image to its size."""
        if outputs["num_candidates"] > self.info.max_candidates:
            log_first_n(
                logging.WARNING,
                f"{self.path.name}: an image has {outputs['num_candidates']} candidates; the best "
                f"{self.info.max_candidates} are looked at. Export with a larger max_candidates, "
                "or a higher MODEL.SOLO.SCORE_THRESH_TEST",
                name=__name__,
            )
        image = (size[0], size[1])
        wanted = (int(inputs.get("height", image[0])), int(inputs.get("width", image[1])))
        return {"instances": self._instances(outputs, canvas, image, wanted)}

    def _instances(
        self,
        outputs: Outputs,
        canvas: tuple[int, int],
        image: tuple[int, int],
        wanted: tuple[int, int],
    ) -> Instances:
        filled = outputs["scores"] > 0
        scores, labels, probs = (_tensor(outputs[k][filled]) for k in ("scores", "labels", "masks"))
        masks, boxes = resize_masks(probs, canvas, image, wanted, self.info.mask_thresh)
        return make_instances(scores, labels, masks, boxes)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def load_exported(path: str | PathLike[str]) -> ExportedModel:
    """Open an exported file of kind "full".

    Args:
        path: .onnx, .xml, .pt2 or .torchscript; the latter two are programs, which must come from
            people you trust.

    Raises:
        ValueError: There is no such file, it is damaged, of another version or of kind "raw", its
            metadata is missing or was changed, or the runtime is not installed.
    """
    path = Path(path)
    backend, info = open_exported(path)
    if info.kind != "full":
        raise ValueError(
            f"{printable(path)}: holds the network alone (kind {info.kind!r}); export with kind "
            '"full" to find instances'
        )
    try:
        backend.load(info.precision)
    except Exception as error:
        raise ValueError(f"{printable(path)}: cannot be run ({one_line(error)})") from error
    return ExportedModel(path, info, backend)


def open_exported(path: Path) -> tuple[Backend, ExportInfo]:
    """Open a file and read its metadata; errors as of `load_exported`."""
    suffix = format_of(path).suffix
    problem = not_a_file(path)
    if problem is not None:
        raise ValueError(f"{printable(path)}: {problem}; expected an exported model")
    try:
        backend = BACKENDS[suffix](path)
    except ValueError as error:
        raise ValueError(f"{printable(path)}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{printable(path)}: cannot be opened; is it cut off? ({one_line(error)})"
        ) from error
    if backend.metadata is None:
        raise ValueError(
            f"{printable(path)}: has no metadata of solo_d2; only files that solo_d2 exported can "
            "be run"
        )
    try:
        return backend, ExportInfo.from_json(backend.metadata)
    except ValueError as error:
        raise ValueError(f"{printable(path)}: {error}") from error


def read_config(info: ExportInfo) -> CfgNode:
    """Return the config that travels with an exported model.

    Raises:
        ValueError: This version of the package has other keys.
    """
    cfg = get_cfg()
    add_solo_config(cfg)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(info.config, encoding="utf-8")
        merge_file(cfg, file)
    validate_config(cfg)
    return cfg
