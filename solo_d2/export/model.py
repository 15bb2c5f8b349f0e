"""An exported file as a model: Detectron2's inputs go in, and `Instances` come out."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils.logger import log_first_n
from torch import Tensor, nn

from ..io.errors import one_line
from ..io.paths import printable
from ..layers import masks_to_boxes, resize_bilinear
from ..layers.images import resized_shape
from ..modeling.inputs import check_image
from ..modeling.mattes import resize_mattes
from ..modeling.meta_arch.panoptic_solo import CombineLimits, combine_outputs
from ..modeling.output import make_instances, resize_masks
from ..modeling.refinement import make_guide, refine_masks
from .backends import Backend
from .info import ExportInfo
from .reading import check_fixed, open_exported, read_config

Outputs = dict[str, np.ndarray]

_LIMITS = ("OVERLAP_THRESH", "STUFF_AREA_LIMIT", "INSTANCES_CONFIDENCE_THRESH")


class ExportedModel(nn.Module):
    """Runs an exported file of kind "full" as `SOLO` runs: a list of inputs, a list of results.

    Args:
        path: The file, for messages.
        info: Its metadata.
        backend: Its runtime, loaded.

    Attributes:
        info: The metadata.
        cfg: The config in it.
        class_names: And the other attributes of `SOLO` of the same names.

    Example:
        >>> model = load_exported("model.onnx")                          # doctest: +SKIP
        >>> model([{"image": image}])[0]["instances"]                    # doctest: +SKIP
    """

    def __init__(self, path: Path, info: ExportInfo, backend: Backend) -> None:
        super().__init__()
        self.path, self.info, self.backend = path, info, backend
        self.cfg = read_config(path, info)
        self.class_names, self.stuff_names = info.class_names, info.stuff_names
        self.category_ids = info.category_ids
        self.stuff_category_ids = info.stuff_category_ids
        self.input_format, self.resize_filter = info.input_format, info.resize_filter

    def check_config(self, cfg: CfgNode) -> None:
        """Check that a config changes nothing of what the file cannot change any more.

        Raises:
            ValueError: A key of the model has another value.
        """
        check_fixed(cfg, self.cfg, self.path)

    def network_shape(self, height: int, width: int) -> tuple[int, int]:
        """Size at which the network sees an image of (height, width)."""
        if self.info.size is None:
            return resized_shape((height, width), self.info.min_size, self.info.max_size)
        scale = min(self.info.size[0] / height, self.info.size[1] / width)
        return max(1, int(height * scale)), max(1, int(width * scale))

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
        guides: list[Tensor | None] = [None] * count
        if self.cfg.MODEL.SOLO.REFINE_MASKS_TEST:  # by the image, behind the graph
            guides = [*make_guide(_tensor(batch - mean), torch.ones(()))]
        results = [
            self._result({k: v[i] for k, v in outputs.items()}, x, image.shape[1:], canvas, guide)
            for i, (x, image, guide) in enumerate(zip(inputs, images, guides, strict=False))
        ]
        if "semantic" in outputs:
            logits = resize_bilinear(_tensor(outputs["semantic"][: len(inputs)]), canvas)
            sizes = [(image.shape[1], image.shape[2]) for image in images]
            limits = CombineLimits(*map(self.cfg.MODEL.PANOPTIC_FPN.COMBINE.get, _LIMITS))
            combine_outputs(results, logits, sizes, limits)
        return results

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
        guide: Tensor | None,
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
        return {"instances": self._instances(outputs, canvas, image, wanted, guide)}

    def _instances(
        self,
        outputs: Outputs,
        canvas: tuple[int, int],
        image: tuple[int, int],
        wanted: tuple[int, int],
        guide: Tensor | None,
    ) -> Instances:
        filled = outputs["scores"] > 0
        scores, labels = (_tensor(outputs[name][filled]) for name in ("scores", "labels"))
        threshold = self.info.mask_thresh
        if "mattes" in outputs:
            found = _tensor(outputs["mattes"][filled])
            mattes = resize_mattes(found.__getitem__, torch.arange(len(found)), image, wanted)
            masks = mattes > threshold
            boxes = masks_to_boxes(masks)
            return make_instances(scores, labels, masks, boxes, pred_mattes=mattes)
        probs = _tensor(outputs["masks"][filled])
        if guide is not None:
            probs = refine_masks(probs, guide, threshold)
        masks, boxes = resize_masks(probs, canvas, image, wanted, threshold)
        return make_instances(scores, labels, masks, boxes)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def load_exported(path: str | PathLike[str]) -> ExportedModel:
    """Open an exported file of kind "full".

    Args:
        path: .onnx, .xml, .pt2 or .torchscript. Nothing in it can run code, see `programs`.

    Raises:
        ValueError: There is no such file, it is damaged, of another version or of kind "raw", its
            metadata is missing or was changed, or the runtime is not installed.

    Example:
        >>> load_exported("model.onnx").class_names                      # doctest: +SKIP
        ('cup', 'fork')
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
