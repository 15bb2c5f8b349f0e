"""What the network gets of an image file: mmdetection's test pipeline, Detectron2's, and ours."""

from __future__ import annotations

import mmdet_models
import numpy as np
import pytest
import torch
from builders import tiny_model
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import Instances
from PIL import Image

from solo_d2 import SOLOPredictor, model_zoo
from solo_d2.data.dataset_mapper import SOLODatasetMapper
from solo_d2.layers.images import RESIZE_FILTERS

LARGE = ("solov2/solov2_r50_fpn_ms-3x_coco", "mmdet/solov2_r50_fpn_3x_coco")
LIGHT = ("solov2/solov2-light_r50_fpn_ms-3x_coco", "mmdet/solov2_light_r50_fpn_3x_coco")

needs_mmdet = pytest.mark.skipif(
    not mmdet_models.installed(), reason='needs mmdetection: pip install "solo_d2[mmdet]"'
)


class Seen(torch.nn.Module):
    """Finds nothing, and keeps the image that it got."""

    def forward(self, batched_inputs):
        (inputs,) = batched_inputs
        self.image = inputs["image"]
        return [{"instances": Instances((inputs["height"], inputs["width"]))}]


def noise(path, height, width, mode="RGB"):
    """An image file without any smooth place, where filters differ most."""
    shape = (height, width) if mode == "L" else (height, width, 3)
    pixels = np.random.default_rng(height).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return {"file_name": str(path), "height": height, "width": width, "image_id": 1}


def ours(cfg, record):
    """Inputs (3, H, W) that predictor and test mapper make of a file."""
    predictor = SOLOPredictor(cfg, device="cpu", model=Seen())
    predictor(record["file_name"])
    return predictor.model.image, SOLODatasetMapper(cfg, is_train=False)(record)["image"]


FILES = [
    (*LARGE, "png", 480, 640, "RGB"),  # enlarged
    (*LARGE, "jpg", 480, 640, "RGB"),
    (*LARGE, "png", 37, 53, "RGB"),
    (*LARGE, "png", 480, 641, "L"),
    (*LARGE, "png", 1201, 903, "RGB"),
    (*LARGE, "png", 300, 1999, "RGB"),  # the limit of the long side
    (*LARGE, "png", 800, 1000, "RGB"),  # left as it is
    (*LIGHT, "png", 480, 640, "RGB"),  # made smaller
    (*LIGHT, "jpg", 481, 643, "L"),
    (*LIGHT, "png", 1199, 903, "RGB"),
]


@needs_mmdet
@pytest.mark.parametrize(("theirs", "name", "suffix", "height", "width", "mode"), FILES)
def test_mmdetections_weights_get_mmdetections_input(
    tmp_path, theirs, name, suffix, height, width, mode
):
    config = mmdet_models.read_config(theirs)
    from mmcv.transforms import Compose
    from mmdet.registry import MODELS

    record = noise(tmp_path / f"a.{suffix}", height, width, mode)
    steps = [x for x in config.test_pipeline if x.type != "LoadAnnotations"]
    packed = Compose(steps)({"img_path": record["file_name"], "img_id": 1})
    cfg = model_zoo.get_config(name)
    seen = ours(cfg, record)
    assert all(torch.equal(image, packed["inputs"].flip(0)) for image in seen)
    # The rest of the way, where means and padding have their share.
    statistics = ("MODEL.PIXEL_MEAN", cfg.MODEL.PIXEL_MEAN, "MODEL.PIXEL_STD", cfg.MODEL.PIXEL_STD)
    canvas = tiny_model(*statistics).preprocess_image([{"image": seen[0]}]).tensor
    batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
    expected = MODELS.build(config.model.data_preprocessor)(batch)["inputs"]
    assert torch.equal(canvas, expected)


@pytest.mark.parametrize("name", ["adelaidet/SOLOv2_R50_3x", LIGHT[1]])
@pytest.mark.parametrize(("height", "width"), [(480, 640), (37, 53), (1201, 903), (300, 1999)])
def test_pillows_filter_is_detectron2s(tmp_path, name, height, width):
    cfg = model_zoo.get_config(name)
    assert cfg.INPUT.RESIZE_FILTER == ("pillow" if name.startswith("adelaidet") else "opencv")
    cfg.INPUT.RESIZE_FILTER = "pillow"
    record = noise(tmp_path / "a.png", height, width)
    expected = DatasetMapper(cfg, is_train=False)(record)["image"]
    assert all(torch.equal(image, expected) for image in ours(cfg, record))


@pytest.mark.parametrize("shape", [(40, 60, 3), (40, 60)])
@pytest.mark.parametrize("size", [(20, 30), (23, 91), (80, 120)])
def test_pillows_filter_of_an_array_is_detectron2s(shape, size):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = T.ResizeTransform(40, 60, *size).apply_image(image)
    assert np.array_equal(RESIZE_FILTERS["pillow"](image, size), expected)
