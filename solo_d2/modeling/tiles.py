"""Tiled inference: images that are too large for one run of the network, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..layers import EncodedMasks, encoded_matrix_nms
from ..layers.encoded_masks import Crop
from ..layers.images import resize_image, resized_shape
from ..layers.temperature import apply_temperature
from .inputs import check_image, wanted_size
from .postprocessing import MASK_STRIDE
from .windows import Level, Window, plan_levels

NetworkShape = Callable[[int, int], tuple[int, int]]
"""Size (height, width) at which the network gets an image of (height, width)."""


def uses_tiles(cfg: CfgNode) -> bool:
    """Return whether a config asks for windows; one of Detectron2's keys alone does not."""
    node = cfg.TEST.get("TILES")
    return node is not None and bool(node.ENABLED)


class TiledModel(nn.Module):
    """A model of instances that looks at large images through windows.

    Windows (see `windows`) are images to the model: resized as an image is, with limits and NMS of
    their own. What is kept of them are the instances that belong to them, with run-length encoded
    masks. Once more there is Matrix NMS, between instances of different windows only: those of the
    same one have decayed each other already. So memory grows with the number of objects alone.

    Masks of windows at level l are made at 1 / 2**l of their size, at most `TEST.TILES.SIZE`
    pixels a side, and enlarged.

    Args:
        cfg: has `TEST.TILES` and `INPUT`; `TEST.TILES.ENABLED` is not looked at.
        model: takes and returns what `SOLO` does, also an exported one, or one wrapped for
            distributed training.
        network_shape: the size at which the model gets an image; by default that of `INPUT`.

    Raises:
        ValueError: the model makes more than instances (e.g. panoptic).

    Example:
        >>> import torch
        >>> from solo_d2.modeling import SOLO
        >>> from solo_d2.testing import tiny_config
        >>> cfg = tiny_config("INPUT.MIN_SIZE_TEST", 64)
        >>> model = TiledModel(cfg, SOLO(cfg).eval())
        >>> outputs = model([{"image": torch.zeros(3, 100, 200, dtype=torch.uint8)}])
        >>> outputs[0]["instances"].image_size
        (100, 200)
    """

    def __init__(
        self, cfg: CfgNode, model: nn.Module, network_shape: NetworkShape | None = None
    ) -> None:
        super().__init__()
        if isinstance(model, DistributedDataParallel):
            model = model.module
        if not getattr(model, "supports_tta", True):
            raise ValueError(
                "TEST.TILES.ENABLED is for instance segmentation with the meta-architecture SOLO; "
                f"got {type(model).__name__}. Set it to False"
            )
        node = cfg.TEST.TILES
        self.side: int = node.SIZE or cfg.INPUT.MIN_SIZE_TEST
        self.overlap: float = node.OVERLAP
        self.batch_size: int = node.BATCH_SIZE
        self.max_instances: int = node.DETECTIONS_PER_IMAGE
        self.final_score_thresh: float = cfg.MODEL.SOLO.FINAL_SCORE_THRESH_TEST
        self.channels = len(cfg.MODEL.PIXEL_MEAN)
        self.temperature: float = cfg.MODEL.SOLO.SCORE_TEMPERATURE
        self.kernel = {"kernel": cfg.MODEL.SOLO.NMS_KERNEL, "sigma": cfg.MODEL.SOLO.NMS_SIGMA}
        self.resize_filter: str = cfg.INPUT.RESIZE_FILTER
        self.limits = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        self.network_shape = network_shape or self._resized
        self.model = model
        self.train(model.training)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Run on a batch in Detectron2's format, one image after the other.

        Args:
            batched_inputs: ``image``, uint8 (3, H, W), before any resizing; "height" and "width",
                if given, must be its own.

        Returns:
            Per image a dict with ``instances`` as of `SOLO.forward`, on the CPU, at most
            `TEST.TILES.DETECTIONS_PER_IMAGE`; ``pred_masks`` are `EncodedMasks`.

        Raises:
            ValueError: an input without an image, another output size, or the model is in training
                mode.
        """
        if self.training:
            raise ValueError("tiled inference needs evaluation mode; call .eval() first")
        return [{"instances": self._detect(inputs)} for inputs in batched_inputs]

    @torch.no_grad()
    def _detect(self, inputs: dict[str, Any]) -> Instances:
        check_image(inputs.get("image"), self.channels, stored=True)
        image = inputs["image"].permute(1, 2, 0).cpu().numpy()
        size = (image.shape[0], image.shape[1])
        wanted = wanted_size(inputs, size)
        if wanted != size:
            raise ValueError(
                f"tiled inference returns masks at the image's own size {size}, got {wanted} as "
                '"height" and "width"; resize the image, or set TEST.TILES.ENABLED False'
            )
        found = [
            _encode(instances, window, level, number)
            for number, (window, level, instances) in enumerate(self._look(image))
        ]
        return self._suppress(Instances.cat(found))

    def _look(self, image: np.ndarray) -> Iterator[tuple[Window, Level, Instances]]:
        """Run the model on all windows of an image (H, W, 3), those of one size in batches."""
        for level in plan_levels((image.shape[0], image.shape[1]), self.side, self.overlap):
            shape, windows = self.network_shape(*level.size), level.windows
            for start in range(0, len(windows), self.batch_size):
                batch = windows[start : start + self.batch_size]
                inputs = [self._input(image, window, level, shape) for window in batch]
                for window, output in zip(batch, self.model(inputs), strict=True):
                    yield window, level, _owned(output["instances"], window, level, shape)

    def _input(
        self, image: np.ndarray, window: Window, level: Level, shape: tuple[int, int]
    ) -> dict[str, Any]:
        part = image[window.y0 : window.y1, window.x0 : window.x1]
        pixels = resize_image(np.ascontiguousarray(part), shape, self.resize_filter)
        height, width = (-(-side // level.scale) for side in level.size)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        return resized_shape((height, width), *self.limits)

    def _suppress(self, found: Instances) -> Instances:
        """NMS between windows, final threshold and final limit; the temperature comes after."""
        plain = apply_temperature(found.scores, 1 / self.temperature)
        scores = encoded_matrix_nms(
            found.pred_masks, found.pred_classes, plain, found.windows, **self.kernel
        )
        found.scores = apply_temperature(scores, self.temperature)
        found.remove("windows")
        order = scores.argsort(descending=True, stable=True)[: self.max_instances]
        return found[order[(scores[order] >= self.final_score_thresh) & (scores[order] > 0)]]


def _owned(found: Instances, window: Window, level: Level, shape: tuple[int, int]) -> Instances:
    """Instances that belong to the window, on the CPU, with masks as they came."""
    # One pixel of a mask, by which it may miss the border that cuts the object off.
    rows, columns = (
        MASK_STRIDE * side / seen for side, seen in zip(level.size, shape, strict=True)
    )
    scale = [level.size[i] / found.image_size[i] for i in (1, 0)]
    boxes = found.pred_boxes.tensor
    kept = level.owned(boxes * boxes.new_tensor(scale * 2), window, (columns, rows))
    return found[kept].to("cpu")


def _encode(found: Instances, window: Window, level: Level, number: int) -> Instances:
    """Instances of a window as those of the image."""
    axes = [_Axis(seen, whole) for seen, whole in zip(found.image_size, level.size, strict=True)]
    boxes = found.pred_boxes.tensor.int().tolist()
    crops: list[Crop] = []
    for mask, (x0, y0, x1, y1) in zip(found.pred_masks, boxes, strict=True):
        (y, rows), (x, columns) = axes[0].enlarge(y0, y1), axes[1].enlarge(x0, x1)
        crop = mask[y0:y1, x0:x1].numpy()[rows[:, None], columns]
        crops.append((window.x0 + x, window.y0 + y, crop))
    masks = EncodedMasks.from_crops(crops, level.image)
    return Instances(
        level.image,
        pred_masks=masks,
        pred_boxes=Boxes(torch.from_numpy(masks.boxes).float()),
        scores=found.scores,
        pred_classes=found.pred_classes,
        windows=torch.full((len(found),), number),
    )


class _Axis:
    """Which pixel of a mask's axis every pixel of the enlarged axis shows."""

    def __init__(self, size: int, enlarged: int) -> None:
        self._source = (np.arange(enlarged) * 2 + 1) * size // (2 * enlarged)

    def enlarge(self, low: int, high: int) -> tuple[int, np.ndarray]:
        """First enlarged pixel of [low, high), and what all of them show, counted from `low`."""
        start, end = np.searchsorted(self._source, (low, high))
        return int(start), self._source[start:end] - low
