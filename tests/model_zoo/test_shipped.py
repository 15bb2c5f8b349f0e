"""The models that come with the package: small files, read without a network, that find objects."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from solo_d2 import SOLOPredictor, model_zoo
from solo_d2.checkpoint import load_checkpoint
from solo_d2.model_zoo.checkpoints import SHIPPED, find_checkpoint

OUTLINES = json.loads(Path(__file__).with_name("photographs.json").read_text())
"""Photograph of scikit-image -> object -> polygon, drawn by hand."""


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row.name)
def test_file_is_small_and_whole(row):
    path = model_zoo.local_weights(row.weights)
    assert path.stat().st_size <= 10e6
    weights = load_checkpoint(path)["model"]
    dtypes = {x.dtype for x in weights.values() if x.is_floating_point()}
    assert dtypes == {torch.float16}
    own = model_zoo.get(row.config, device="cpu").state_dict()
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in own.items()}


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row.name)
def test_config_is_that_of_the_weights(row):
    cfg = model_zoo.get_config(row.name)
    assert (cfg.MODEL.WEIGHTS, cfg.MODEL.TIMM.WEIGHTS) == (f"solo://{row.name}", "")
    assert model_zoo.get_config(row.config, trained=True) == cfg
    for key, value in find_checkpoint(row.name).convention.settings.items():
        found = cfg
        for part in key.split("."):
            found = found[part]
        assert found == value


def photograph(name: str) -> np.ndarray:
    spec = importlib.util.find_spec("skimage")
    if spec is None:
        pytest.skip("scikit-image has the photographs")
    folder = Path(next(iter(spec.submodule_search_locations)), "data")
    return cv2.imread(str(folder / name))


@pytest.fixture(scope="module", params=["solo_d2/objects_lite0", "solo_d2/mattes_lite0"])
def predictor(request):
    return SOLOPredictor(request.param, device="cpu", confidence_threshold=0.5)


@pytest.mark.parametrize("name", OUTLINES)
def test_objects_of_photographs_are_found_whole(predictor, name):
    image = photograph(name)
    found = predictor(image)["instances"]
    assert predictor.metadata.get("thing_classes") == ["object"]
    for thing, polygon in OUTLINES[name].items():
        outline = np.zeros(image.shape[:2], np.uint8)
        cv2.fillPoly(outline, [np.array(polygon, np.int32)], 1)
        truth = torch.from_numpy(outline).bool()
        common = (found.pred_masks & truth).sum((1, 2))
        iou = common / (found.pred_masks | truth).sum((1, 2))
        assert len(iou) and float(iou.max()) >= 0.6, (thing, iou.tolist())
