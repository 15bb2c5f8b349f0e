"""Soft SOLO as a whole: losses, mattes of instances, bad configs."""

from __future__ import annotations

import pytest
import torch
from builders import SOFT, noise_input, tiny_model

LIVELY = (
    *("MODEL.SOLO.PRIOR_PROB", 0.5, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0),
    *("MODEL.SOLO.MASK_THRESH_TEST", 0.4, "TEST.DETECTIONS_PER_IMAGE", 20),
)
BOXES = [(4, 6, 40, 50), (50, 10, 80, 60)]


def test_training_gives_every_parameter_a_gradient():
    model = tiny_model(*SOFT)
    batch = [noise_input((64, 90), BOXES, [0, 2]), noise_input((48, 64))]
    losses = model(batch)
    assert set(losses) == {"loss_category", "loss_mask"}
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_frozen_branch_keeps_its_weights_while_others_move():
    model = tiny_model(*SOFT, "MODEL.SOLO.FREEZE_CATEGORY_BRANCH", True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, weight_decay=0.1)
    sum(model([noise_input((64, 90), BOXES, [0, 2])]).values()).backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert not any("category" in name for name in moved)
    assert any("head.kernel_predictor" in name for name in moved)
    assert any("head.details.expand" in name for name in moved)


def test_instances_have_mattes_at_the_output_size():
    model = tiny_model(*SOFT, *LIVELY).eval()
    inputs = [
        {**noise_input((64, 90)), "height": 100, "width": 130},
        noise_input((48, 64), seed=1),
    ]
    with torch.no_grad():
        found = [x["instances"] for x in model(inputs)]
    assert [x.image_size for x in found] == [(100, 130), (48, 64)]
    for instances in found:
        assert len(instances) > 1
        mattes = instances.pred_mattes
        assert mattes.dtype == torch.float32
        assert mattes.shape == (len(instances), *instances.image_size)
        assert 0 <= mattes.min() < mattes.max() <= 1
        assert torch.equal(instances.pred_masks, mattes > 0.4)
        assert instances.pred_masks.flatten(1).any(1).all()


def test_the_same_instances_as_solov2_before_training():
    """Details Refinement starts at zero; masks differ where the enlarged logits are resized."""
    soft = tiny_model(*SOFT, *LIVELY).eval()
    plain = tiny_model(*LIVELY).eval()
    soft.load_state_dict(plain.state_dict(), strict=False)
    inputs = [noise_input((64, 96))]
    with torch.no_grad():
        a, b = (model(inputs)[0]["instances"] for model in (soft, plain))
    torch.testing.assert_close(a.scores, b.scores)
    assert torch.equal(a.pred_classes, b.pred_classes)
    assert (a.pred_masks != b.pred_masks).float().mean() < 0.02


def test_an_image_without_instances():
    model = tiny_model(*SOFT, "MODEL.SOLO.SCORE_THRESH_TEST", 0.9).eval()
    with torch.no_grad():
        instances = model([{**noise_input((40, 50)), "height": 80, "width": 100}])[0]["instances"]
    assert len(instances) == 0
    assert instances.pred_mattes.shape == (0, 80, 100)
    assert instances.pred_masks.shape == (0, 80, 100)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.SOLO.HEAD", "DynamicSOLOHead"), 'needs MODEL.SOLO.HEAD "SoftDynamicSOLOHead"'),
        (("MODEL.SOLO.MASK_LOSS", "bce"), "MASK_LOSS among .*matte.* got 'bce'"),
        (("MODEL.META_ARCHITECTURE", "SOLO"), 'needs MODEL.META_ARCHITECTURE "SoftSOLO"'),
    ],
)
def test_what_does_not_go_together(overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(*SOFT, *overrides)
