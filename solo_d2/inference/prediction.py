"""The predictor's result for one image: Detectron2's dict, with names, polygons and drawing."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from detectron2.structures import Instances
from PIL import Image

from ..io.image import write_image
from ..io.json_file import save_json
from ..io.polygons import mask_to_polygons
from ..io.results import coco_category_ids, instances_to_coco_results
from ..layers import dense_masks, mask_crops
from .drawing import draw_instances, draw_panoptic

if TYPE_CHECKING:
    import supervision

__all__ = ["Prediction"]

_NAMED = 4
"""Instances that the one-line text names."""


class Prediction(dict[str, Any]):
    """Results of one image.

    A dict as Detectron2's models return it, ``{"instances": Instances, ...}`` at the size of the
    image, with what is usually done with it.

    Args:
        outputs: The model's dict.
        image: The image, uint8 BGR (H, W, 3); kept by reference for drawing.
        metadata: Has `get`, as Detectron2's metadata: class names and category ids.
        file_name: Where the image comes from, if it is known.

    Example:
        >>> prediction = predictor("photo.jpg")                 # doctest: +SKIP
        >>> prediction                                          # doctest: +SKIP
        2 instances in photo.jpg (480 x 640): cup 97 %, spoon 81 %
        >>> prediction.save("photo_masks.png")                  # doctest: +SKIP
    """

    def __init__(
        self,
        outputs: dict[str, Any],
        image: np.ndarray,
        metadata: Any,
        file_name: str | None = None,
    ) -> None:
        super().__init__(outputs)
        self.image = image
        self.metadata = metadata
        self.file_name = file_name

    @property
    def instances(self) -> Instances:
        """Detectron2's `Instances` of the image, K of them, best first."""
        instances: Instances = self["instances"]
        return instances

    @property
    def class_names(self) -> list[str]:
        """Names of all classes, in the order of the labels; empty if they are not known."""
        return list(self.metadata.get("thing_classes") or [])

    @property
    def names(self) -> list[str]:
        """Class name of each of the K instances, "class N" where there is none."""
        known = self.class_names
        labels = self.instances.pred_classes.tolist()
        return [known[label] if label < len(known) else f"class {label}" for label in labels]

    def polygons(self, tolerance: float = 0.0) -> list[list[np.ndarray]]:
        """Trace the masks, see `solo_d2.io.polygons.mask_to_polygons`.

        Args:
            tolerance: Largest difference of a simplified outline in pixels.

        Returns:
            For each of the K instances its polygons (P, 2), x and y in pixels.
        """
        return [
            [polygon + np.array([x, y]) for polygon in mask_to_polygons(crop, tolerance)]
            for x, y, crop in mask_crops(self.instances.pred_masks)
        ]

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """Return the instances as entries of a COCO results file.

        Args:
            image_id: Id of the image in the dataset.

        Returns:
            K entries; category ids are those of the dataset that the weights were trained on, or
            the labels where the weights do not say.
        """
        ids = coco_category_ids(self.metadata.get("thing_dataset_id_to_contiguous_id"))
        return instances_to_coco_results(
            self.instances,
            image_id,
            file_name=self.file_name,
            category_ids=ids,
            class_names=self.class_names or None,
        )

    def to_supervision(self) -> supervision.Detections:
        """Return the instances for the package supervision.

        Returns:
            `supervision.Detections` with masks, boxes, scores, labels and ``data["class_name"]``;
            of instances that a `solo_d2.tracking.Tracker` has seen with ``tracker_id``, too.

        Raises:
            ImportError: supervision is not installed.
            MemoryError: Masks of tiled inference do not fit as an array.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs: pip install supervision") from error
        instances = self.instances.to("cpu")
        return supervision.Detections(
            xyxy=instances.pred_boxes.tensor.numpy().reshape(-1, 4),
            mask=dense_masks(instances.pred_masks).numpy(),
            confidence=instances.scores.numpy(),
            class_id=instances.pred_classes.numpy(),
            tracker_id=instances.track_ids.numpy() if instances.has("track_ids") else None,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def draw(self, alpha: float = 0.45) -> np.ndarray:
        """Draw the results on a copy of the image.

        Args:
            alpha: Opacity of the masks, in [0, 1].

        Returns:
            The drawing, uint8 BGR, shape (H, W, 3).
        """
        names = self.class_names or None
        if "panoptic_seg" in self:
            stuff = self.metadata.get("stuff_classes")
            return draw_panoptic(self.image, self["panoptic_seg"], names, stuff, alpha=alpha)
        return draw_instances(self.image, self.instances, names, alpha=alpha)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the drawing, or the instances as COCO results.

        Args:
            path: Ends in .json for results, else in the extension of an image format.

        Raises:
            ValueError: It cannot be written.
        """
        if Path(path).suffix.lower() == ".json":
            save_json(path, self.to_coco())
        else:
            write_image(path, self.draw())

    def __repr__(self) -> str:
        """Describe the results in one line."""
        height, width = self.image.shape[:2]
        place = (
            f"{self.file_name} ({height} x {width})" if self.file_name else f"{height} x {width}"
        )
        count = len(self.instances)
        text = f"{count} instance{'' if count == 1 else 's'} in {place}"
        scores = self.instances.scores.tolist()
        best = [f"{n} {s:.0%}" for n, s in zip(self.names, scores, strict=True)][:_NAMED]
        if not best:
            return text
        return f"{text}: {', '.join(best)}{', ...' if count > _NAMED else ''}"

    def _repr_png_(self) -> bytes:
        """Show the drawing in a notebook."""
        buffer = io.BytesIO()
        Image.fromarray(self.draw()[:, :, ::-1]).save(buffer, "PNG")
        return buffer.getvalue()
