"""Multi-scale testing (paper §4.3, Table 6d), used as Detectron2's `GeneralizedRCNNWithTTA`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..layers.images import resize_image, resized_shape
from .inputs import check_image, wanted_size
from .meta_arch import SOLO
from .postprocessing import Frame, View, category_scores, postprocess
from .refinement import make_guide
from .views import join_views, keep_large, move_view

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestScales:
    """Sizes at which an image is tested.

    Attributes:
        min_sizes: short sides in pixels; their order does not matter.
        max_size: limit of every long side in pixels.
        flip: test every size mirrored as well.
        reference: short side and limit of the long side in plain testing. Results of all sizes are
            compared at this one, and the limits of the long side are in proportion to its limit,
            so that a long image keeps the ratio of its scales. A short side of 0 stands for
            images that are not resized.
        min_share: at sizes below that of plain testing only objects count whose mask has the area
            of a square of at least this share of the image's short side; in [0, 1].
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    min_sizes: tuple[int, ...]
    max_size: int
    flip: bool
    reference: tuple[int, int]
    min_share: float = 0.0

    def __post_init__(self) -> None:
        sizes = self.min_sizes
        if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
            raise ValueError(
                "TEST.AUG.MIN_SIZES expects one or more short sides in pixels, each positive and "
                f"named once, such as (600, 800, 1000); got {sizes}"
            )
        if self.max_size < max(sizes):
            raise ValueError(
                f"TEST.AUG.MAX_SIZE is {self.max_size}, less than the short side {max(sizes)} of "
                "TEST.AUG.MIN_SIZES; it limits the long side"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TestScales:
        """Read `cfg.TEST.AUG`, and the scale of plain testing from `cfg.INPUT`.

        Raises:
            ValueError: a size that makes no sense.
        """
        node, plain = cfg.TEST.AUG, int(cfg.INPUT.MIN_SIZE_TEST)
        scales = cls(
            min_sizes=tuple(int(size) for size in node.MIN_SIZES),
            max_size=int(node.MAX_SIZE),
            flip=bool(node.FLIP),
            reference=(plain, int(cfg.INPUT.MAX_SIZE_TEST)),
            min_share=float(node.MIN_SHARE),
        )
        if plain and not min(scales.min_sizes) <= plain <= max(scales.min_sizes):
            _logger.warning(
                "The sizes %s of TEST.AUG.MIN_SIZES do not lie around %d, INPUT.MIN_SIZE_TEST, for "
                "which the model is meant; for example (%d, %d, %d) do",
                scales.min_sizes,
                plain,
                *(round(plain * factor) for factor in (0.75, 1, 1.25)),
            )
        return scales

    def shapes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Sizes (height, width) at which an image of `size` is tested, smallest first."""
        short, longest = self.reference
        # In this order, so that the order of the config cannot decide between equal scores.
        return [
            resized_shape(
                size, s, min(self.max_size, round(longest * s / short)) if short else self.max_size
            )
            for s in sorted(self.min_sizes)
        ]


class SOLOWithTTA(nn.Module):
    """A `SOLO` that looks at every image at several sizes, mirrored too if wanted.

    Candidates are selected at every size by themselves, on that size's own canvas and grid. All of
    them, brought to the canvas of plain testing, go through one mask NMS. With the size of plain
    testing as the only one the result is exactly that of plain testing.

    One image and one size is in the network at a time. What is kept of a size is the head's output
    and the binary masks of at most `PRE_NMS_TOPK_TEST` candidates.

    Args:
        cfg: has `TEST.AUG` and `INPUT`; `TEST.AUG.ENABLED` is not looked at.
        model: a `SOLO`, or one wrapped for distributed training.

    Raises:
        ValueError: `TEST.AUG` is invalid, or the model makes more than instances (e.g. panoptic).
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        super().__init__()
        if isinstance(model, DistributedDataParallel):
            model = model.module
        if not isinstance(model, SOLO) or not model.supports_tta:
            raise ValueError(
                "TEST.AUG.ENABLED is for instance segmentation with the meta-architecture SOLO; "
                f"got {type(model).__name__}. Set it to False"
            )
        self.scales = TestScales.from_config(cfg)
        self.resize_filter: str = cfg.INPUT.RESIZE_FILTER
        self.model: SOLO = model
        self.train(model.training)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.model.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Run on a batch in Detectron2's format.

        Args:
            batched_inputs: as of `SOLO.forward`, but ``image`` is the image before any resizing
                (a resized one is resized again, which costs detail), of type uint8.

        Returns:
            As of `SOLO.forward` in evaluation mode.

        Raises:
            ValueError: an input without an image, or the model is in training mode.
        """
        if self.training:
            raise ValueError("test-time augmentation needs evaluation mode; call .eval() first")
        return [{"instances": self._detect(inputs)} for inputs in batched_inputs]

    @torch.no_grad()
    def _detect(self, inputs: dict[str, Any]) -> Instances:
        check_image(inputs.get("image"), len(self.model.pixel_mean), stored=True)
        image = inputs["image"].permute(1, 2, 0).cpu().numpy()
        size = (image.shape[0], image.shape[1])
        output = wanted_size(inputs, size)
        target = self._frame(resized_shape(size, *self.scales.reference))
        views = [
            self._look(scaled, frame, target, flipped)
            for scaled, frame, flipped in self._variants(image)
        ]
        joined = join_views(views, self.model.head.grid.num_cells)
        with torch.autocast(self.device.type, enabled=False):  # as in `SOLO.inference`
            guide = self._guide(image, target) if self.model.settings.refine_masks else None
            return postprocess(joined, target, output, self.model.settings, guide)

    def _guide(self, image: np.ndarray, frame: Frame) -> Tensor:
        """The image (height, width, 3) on a canvas, as masks are refined by it."""
        pixels = self._pixels(resize_image(image, frame.image, self.resize_filter))
        return make_guide(pixels.tensor, self.model.pixel_std)[0]

    def _variants(self, image: np.ndarray) -> Iterator[tuple[np.ndarray, Frame, bool]]:
        """Yield the image at all sizes, plain and, if requested, mirrored."""
        for shape in self.scales.shapes(image.shape[:2]):
            scaled = resize_image(image, shape, self.resize_filter)
            frame = self._frame(shape)
            yield scaled, frame, False
            if self.scales.flip:
                yield scaled[:, ::-1], frame, True

    def _look(self, image: np.ndarray, frame: Frame, target: Frame, flipped: bool) -> View:
        """Run the network on one image (height, width, 3), and bring the result to `target`."""
        images = self._pixels(image)
        predictions = self.model.predict(self.model.backbone(images.tensor), images)
        with torch.autocast(self.device.type, enabled=False):  # as in `SOLO.inference`
            scores = category_scores(predictions.category_logits)[0]
            view = self.model.view(predictions, 0, scores, frame)
            if self.scales.min_share and min(frame.image) < min(target.image):
                view = keep_large(view, self.scales.min_share * min(frame.image))
            threshold = self.model.settings.mask_thresh
            return move_view(view, frame, target, flip=flipped, threshold=threshold)

    def _pixels(self, image: np.ndarray) -> ImageList:
        """What the network sees of an image (height, width, 3)."""
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return self.model.preprocess_image([{"image": pixels}])

    def _frame(self, image: tuple[int, int]) -> Frame:
        """Where `SOLO.preprocess_image` puts an image that is alone in its batch."""
        divisor = self.model.size_divisibility
        height, width = (-(-side // divisor) * divisor for side in image)
        return Frame((height, width), image)
