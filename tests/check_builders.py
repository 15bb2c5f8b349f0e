"""Records of images with rectangles, and what is measured of them."""

from __future__ import annotations

from solo_d2.check.claims import network_of
from solo_d2.check.measure import measure_objects
from solo_d2.testing import tiny_config


def rectangle(box, label=0, **more):
    """An annotation: a rectangle XYXY as polygon."""
    x0, y0, x1, y1 = box
    return {
        "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "bbox_mode": 1,
        "category_id": label,
        **more,
    }


def records_of(*images, size=(64, 64)):
    """Records of images, each a list of boxes or of annotations."""
    return [
        {
            "file_name": f"{number}.png",
            "image_id": number,
            "height": size[0],
            "width": size[1],
            "annotations": [x if isinstance(x, dict) else rectangle(x) for x in image],
        }
        for number, image in enumerate(images, 1)
    ]


def objects_of(*images, size=(64, 64)):
    return measure_objects(records_of(*images, size=size))


def network(*overrides):
    """A config that resizes nothing and its network."""
    cfg = tiny_config("INPUT.MIN_SIZE_TEST", 0, *overrides)
    return cfg, network_of(cfg)


ONE_LEVEL = (
    *("MODEL.SOLO.IN_FEATURES", ["p3"], "MODEL.SOLO.NUM_GRIDS", [4]),
    *("MODEL.SOLO.SCALE_RANGES", [[4, 32]]),
)
"""A single level of 4 x 4 cells for objects of 4 to 32 pixels."""
