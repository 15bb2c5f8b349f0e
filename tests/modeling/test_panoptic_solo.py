"""SOLO with a semantic branch: losses, outputs, merging."""

from __future__ import annotations

import pytest
import torch
from builders import noise_input, tiny_config, tiny_model
from detectron2.structures import Boxes, Instances

from solo_d2.layers import budgets
from solo_d2.modeling.meta_arch import is_panoptic
from solo_d2.modeling.semantic import ResizedLogits

PANOPTIC = (
    "MODEL.META_ARCHITECTURE", "PanopticSOLO",
    "MODEL.SEM_SEG_HEAD.NAME", "SOLOSemSegHead",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 0.5,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 16,
)  # fmt: skip


def with_labels(batch):
    for k, item in enumerate(batch):
        labels = torch.full(item["image"].shape[1:], 1 + k)
        labels[:8] = 255
        item["sem_seg"] = labels
    return batch


@pytest.fixture
def batch(training_batch):
    return with_labels(training_batch)


def perturbed(model):
    """In eval mode, with scores near one half: many candidates."""
    model.eval().head.category_predictor.bias.data.zero_()
    return model


@pytest.mark.parametrize("head", ["SOLOSemSegHead", "SemSegFPNHead"])
def test_a_step_of_training_reaches_every_parameter(batch, head):
    model = tiny_model(*PANOPTIC, "MODEL.SEM_SEG_HEAD.NAME", head)
    losses = model(batch)
    assert set(losses) == {"loss_category", "loss_mask", "loss_sem_seg"}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_instance_losses_and_instances_are_those_of_solo(batch):
    panoptic, plain = perturbed(tiny_model(*PANOPTIC)), perturbed(tiny_model())
    missing = plain.load_state_dict(panoptic.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert {key.split(".")[0] for key in missing.unexpected_keys} == {"sem_seg_head"}
    for expected, found in zip(plain(batch), panoptic(batch), strict=True):
        expected, found = expected["instances"], found["instances"]
        assert len(found) > 0
        assert torch.equal(expected.pred_masks, found.pred_masks)
        assert torch.equal(expected.scores, found.scores)
        assert torch.equal(expected.pred_classes, found.pred_classes)
    expected, found = plain.train()(batch), panoptic.train()(batch)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_padding_is_ignored(batch):
    """Neither the canvas nor the size of the other image changes the loss."""
    model = tiny_model(*PANOPTIC)
    small = with_labels([noise_input((40, 50), [(4, 4, 30, 30)], [0])])
    seen = []
    model.sem_seg_head.losses = lambda logits, targets: seen.append(targets) or {}
    model([*batch, *small])
    canvas = seen[0][2]
    assert canvas.shape[0] >= 64
    assert canvas[8:40, :50].unique().tolist() == [1]
    assert canvas[40:].unique().tolist() == canvas[:, 50:].unique().tolist() == [255]


def test_outputs_are_those_of_detectron2s_panoptic_fpn(batch):
    least = ("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.0)
    model = perturbed(tiny_model(*PANOPTIC, *least))
    for output in model([{**item, "height": 70, "width": 110} for item in batch]):
        assert output["sem_seg"].shape == (4, 70, 110)
        ids, described = output["panoptic_seg"]
        assert ids.shape == (70, 110)
        assert ids.dtype == torch.int32
        assert set(ids.unique().tolist()) - {0} == {s["id"] for s in described}
        assert any(s["isthing"] for s in described)


def test_large_pictures_make_no_large_tensor(batch, monkeypatch):
    model = perturbed(tiny_model(*PANOPTIC))
    wanted = [{**batch[0], "height": 200, "width": 300}]
    (plain,) = model(wanted)
    monkeypatch.setattr(budgets, "SEMANTIC_VALUES", 4 * 200 * 300 - 1)
    (bounded,) = model(wanted)
    assert isinstance(bounded["sem_seg"], ResizedLogits)
    assert torch.equal(bounded["sem_seg"].argmax(dim=0), plain["sem_seg"].argmax(dim=0))
    assert torch.equal(bounded["panoptic_seg"][0], plain["panoptic_seg"][0])
    assert bounded["panoptic_seg"][1] == plain["panoptic_seg"][1]


def merge(model, instances, logits):
    """The panoptic output for given instances and logits of the branch."""

    images = model.preprocess_image([{"image": torch.zeros(3, *instances.image_size)}])
    (result,) = model.complete([{"instances": instances}], logits[None], images)
    return result["panoptic_seg"]


def scene(flipped=False):
    """Two things that overlap on two regions of stuff, 64x64; and logits on a padded canvas."""
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, 10:30, 10:30] = True  # 400 pixels
    masks[1, 10:30, 20:40] = True  # half of it taken by the first
    masks[2, 10:30, 19:30] = True  # all taken
    logits = torch.zeros(4, 64, 64)
    logits[1, :40], logits[2, 40:] = 1, 1
    logits[3, :3, :3] = 2  # 9 pixels: less than the limit
    if flipped:
        masks, logits = masks.flip(-1), logits.flip(-1)
    instances = Instances((64, 64), pred_masks=masks, pred_boxes=Boxes(torch.zeros(3, 4)))
    instances.scores = torch.tensor([0.9, 0.8, 0.7])
    instances.pred_classes = torch.tensor([2, 0, 1])
    return instances, torch.nn.functional.pad(logits, (0, 32, 0, 32), value=-9.0)


def test_merging_a_scene_built_by_hand():
    ids, described = merge(tiny_model(*PANOPTIC).eval(), *scene())
    kinds = [(s["id"], s["isthing"], s["category_id"]) for s in described]
    assert kinds == [(1, True, 2), (2, True, 0), (3, False, 1), (4, False, 2)]
    expected = torch.zeros(64, 64, dtype=torch.int32)
    expected[:40], expected[40:] = 3, 4
    expected[:3, :3] = 0  # too small a region
    expected[10:30, 10:40] = 2
    expected[10:30, 10:30] = 1
    assert torch.equal(ids, expected)
    assert described[2]["area"] == 40 * 64 - 600 - 9


def test_merging_a_flipped_scene_flips_the_result():
    model = tiny_model(*PANOPTIC).eval()
    ids, described = merge(model, *scene())
    instances, logits = scene(flipped=True)
    flipped, flipped_described = merge(model, instances, logits)
    assert torch.equal(flipped, ids.flip(-1))
    assert flipped_described == described


@pytest.mark.parametrize(
    ("key", "value", "things", "stuff"),
    [
        ("INSTANCES_CONFIDENCE_THRESH", 0.85, 1, 2),
        ("OVERLAP_THRESH", 0.4, 1, 2),
        ("STUFF_AREA_LIMIT", 9, 2, 3),
        ("STUFF_AREA_LIMIT", 10, 2, 2),
        ("STUFF_AREA_LIMIT", 64 * 64, 2, 0),
    ],
)
def test_every_key_of_merging_matters(key, value, things, stuff):
    model = tiny_model(*PANOPTIC, f"MODEL.PANOPTIC_FPN.COMBINE.{key}", value).eval()
    _, described = merge(model, *scene())
    assert [s["isthing"] for s in described] == [True] * things + [False] * stuff


def test_training_needs_labels(training_batch):
    with pytest.raises(ValueError, match=r"sem_seg.*panoptic dataset"):
        tiny_model(*PANOPTIC)(training_batch)


def test_configs_say_whether_they_are_panoptic():
    assert is_panoptic(tiny_config(*PANOPTIC))
    assert not is_panoptic(tiny_config())
    assert not is_panoptic(tiny_config("MODEL.META_ARCHITECTURE", "NoSuchModel"))
