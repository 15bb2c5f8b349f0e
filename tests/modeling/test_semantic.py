"""The semantic branch and the resizing of what it yields."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec

from solo_d2.modeling import SOLOSemSegHead
from solo_d2.modeling.semantic import ResizedLogits, best_classes, pad_labels

FEATURES = ["p2", "p3", "p4"]
SHAPES = {name: ShapeSpec(channels=8, stride=4 * 2**i) for i, name in enumerate(FEATURES)}


def make_head(**changes):
    torch.manual_seed(0)
    given = {
        "in_features": FEATURES,
        "num_classes": 5,
        "conv_dims": 32,
        "common_stride": 4,
        "loss_weight": 0.5,
        "norm": "GN",
        "ignore_value": 255,
    }
    return SOLOSemSegHead(SHAPES, **{**given, **changes})


def make_features(height=32, width=48, images=2):
    torch.manual_seed(1)
    return {
        name: torch.randn(images, 8, height // shape.stride, width // shape.stride)
        for name, shape in SHAPES.items()
    }


def test_logits_have_the_size_of_the_input_in_eval_mode():
    logits, losses = make_head().eval()(make_features())
    assert logits.shape == (2, 5, 32, 48)
    assert losses == {}


def test_the_loss_is_the_weighted_mean_over_pixels_with_a_class():
    head, features = make_head(), make_features()
    targets = torch.randint(0, 5, (2, 32, 48))
    targets[:, :, 20:] = 255
    none, losses = head(features, targets)
    assert none is None
    logits = F.interpolate(
        head.layers(features), scale_factor=4, mode="bilinear", align_corners=False
    )
    log_probs = logits.log_softmax(1).gather(1, targets.clamp(max=4)[:, None])[:, 0]
    expected = -0.5 * log_probs[:, :, :20].mean()
    torch.testing.assert_close(losses["loss_sem_seg"], expected)


def test_without_any_label_the_loss_is_zero_and_every_parameter_has_a_gradient():
    head = make_head()
    _, losses = head(make_features(), torch.full((2, 32, 48), 255))
    losses["loss_sem_seg"].backward()
    assert losses["loss_sem_seg"].item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_the_branch_knows_no_coordinates():
    """Features that are the same everywhere give the same logits everywhere but at the border."""
    features = {name: torch.ones_like(x) for name, x in make_features(192, 192, 1).items()}
    logits = make_head().eval().layers(features)[0]
    inner = logits[:, 20:28, 20:28]
    assert torch.allclose(inner, inner[:, :1, :1].expand_as(inner), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"common_stride": 8}, "COMMON_STRIDE is 8.*p2.*stride 4"),
        ({"in_features": ["p2", "p9"]}, r"IN_FEATURES is .*p9.*\['p2', 'p3', 'p4'\]"),
        ({"in_features": []}, "IN_FEATURES"),
    ],
)
def test_bad_values_name_the_key(changes, message):
    with pytest.raises(ValueError, match=message):
        make_head(**changes)


def test_training_without_labels_is_an_error():
    with pytest.raises(ValueError, match="sem_seg"):
        make_head()(make_features(), None)


def test_labels_are_padded_to_the_right_and_below():
    labels = [torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6, 7]])]
    assert pad_labels(labels, (2, 3), 255).tolist() == [
        [[1, 2, 255], [3, 4, 255]],
        [[5, 6, 7], [255, 255, 255]],
    ]


@pytest.mark.parametrize("size", [(5, 7), (40, 33), (64, 96)])
def test_best_classes_are_the_argmax_of_the_resized_logits(size):
    logits = torch.randn(9, 16, 24, generator=torch.Generator().manual_seed(3))
    expected = F.interpolate(logits[None], size=size, mode="bilinear")[0].argmax(0)
    assert torch.equal(best_classes(logits, size), expected)
    resized = ResizedLogits(logits, size)
    assert resized.shape == (9, *size)
    assert torch.equal(resized.to("cpu").argmax(dim=0), expected)


def test_resized_logits_compare_classes_only():
    with pytest.raises(ValueError, match="dim=1"):
        ResizedLogits(torch.zeros(2, 3, 3), (6, 6)).argmax(dim=1)
