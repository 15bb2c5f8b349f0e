"""Facts about the kernels that instances bring along."""

from __future__ import annotations

import pytest
import torch
from builders import SOFT, noise_input, tiny_model

from solo_d2.modeling import SOLO

SOME = ("MODEL.SOLO.SCORE_THRESH_TEST", 0.001, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)
DYNAMIC = ("MODEL.SOLO.HEAD", "DynamicSOLOHead", *SOME)


def found(model, *, fixed, keep=True):
    model.fixed, model.keep_kernels = fixed, keep
    with torch.no_grad():
        return model([noise_input((64, 96))])[0]["instances"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny_model(*DYNAMIC).eval()


def test_both_ways_keep_the_kernel_of_the_cell_of_every_instance(model):
    eager, fixed = (found(model, fixed=way) for way in (False, True))
    assert len(eager) > 1
    assert torch.equal(eager.pred_kernels, fixed.pred_kernels)
    assert eager.pred_kernels.dtype == torch.float32
    image = model.preprocess_image([noise_input((64, 96))])
    with torch.no_grad():
        inputs = model.head(model.backbone(image.tensor)).mask_inputs
    everything = inputs.kernels.all[0]
    assert (eager.pred_kernels[:, None] == everything).all(2).any(1).all()
    assert len(eager.pred_kernels.unique(dim=0)) > 1


def test_they_cost_nothing_and_are_not_there_by_default(model):
    assert not SOLO.keep_kernels
    assert not found(model, fixed=False, keep=False).has("pred_kernels")


def test_a_head_without_kernels_gives_none():
    vanilla = tiny_model("MODEL.SOLO.HEAD", "VanillaSOLOHead").eval()
    assert not found(vanilla, fixed=False).has("pred_kernels")


def test_soft_solo_keeps_them_beside_its_mattes():
    model = tiny_model(*SOFT, *SOME).eval()
    instances = found(model, fixed=False)
    assert instances.has("pred_mattes")
    assert len(instances.pred_kernels) == len(instances) > 0
