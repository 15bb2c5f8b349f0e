"""A training starts from weights of other classes: all but the class predictor is loaded."""

import logging

import pytest
import torch
from builders import tiny_model

from solo_d2.checkpoint import Require, SOLOCheckpointer


@pytest.fixture
def saved(tmp_path):
    SOLOCheckpointer(tiny_model("MODEL.SOLO.NUM_CLASSES", 5), str(tmp_path)).save("five")
    return str(tmp_path / "five.pth")


def test_the_start_of_a_training_leaves_the_class_predictor_out_and_says_so(saved, caplog):
    model = tiny_model("MODEL.SOLO.NUM_CLASSES", 2, seed=1)
    before = model.head.category_predictor.weight.clone()
    with caplog.at_level(logging.INFO, logger="solo_d2"):
        SOLOCheckpointer(model, require=Require.BACKBONE).load(saved, checkpointables=[])
    assert "head.category_predictor starts new: 5 classes in the file, 2 here" in caplog.text
    assert torch.equal(model.head.category_predictor.weight, before)
    trained = tiny_model("MODEL.SOLO.NUM_CLASSES", 5)
    assert torch.equal(model.head.kernel_predictor.weight, trained.head.kernel_predictor.weight)


def test_prediction_still_needs_all_classes(saved):
    model = tiny_model("MODEL.SOLO.NUM_CLASSES", 2)
    with pytest.raises(ValueError, match="category_predictor"):
        SOLOCheckpointer(model).load(saved, checkpointables=[])


def test_any_other_shape_is_still_refused(saved):
    model = tiny_model("MODEL.SOLO.NUM_CLASSES", 2, "MODEL.SOLO.KERNEL_DIM", 64)
    with pytest.raises(ValueError, match=r"another shape, e\.g\. head\.kernel_predictor"):
        SOLOCheckpointer(model, require=Require.BACKBONE).load(saved, checkpointables=[])
