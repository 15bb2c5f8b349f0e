"""The files of examples/ do what they say; the contract tests of heads run on the head, too."""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from stub_predictor import StubPredictor

from solo_d2.config import HEAD_KEYS
from solo_d2.layers import MASK_NMS, hard_nms
from solo_d2.modeling import MASK_LOSSES, SOLO_HEAD_REGISTRY
from solo_d2.testing import check_head, check_mask_loss, check_nms

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True, scope="module")
def _tables_as_before():
    yield
    load.cache_clear()
    HEAD_KEYS.pop("CONDINST_CHANNELS", None)
    MASK_NMS.pop("cluster", None)
    MASK_LOSSES.pop("boundary", None)
    SOLO_HEAD_REGISTRY._obj_map.pop("CondInstHead", None)


@functools.cache
def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_cluster_nms_is_hard_nms(seed, threshold):
    cluster_nms = load("cluster_nms").cluster_nms
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(40, 6, 6, generator=generator) > 0.4
    masks[1::2] |= masks[::2]  # chains of overlaps
    labels = torch.randint(0, 3, (40,), generator=generator)
    scores = torch.rand(40, generator=generator)
    expected = hard_nms(masks, labels, scores, threshold=threshold)
    torch.testing.assert_close(
        cluster_nms(masks, labels, scores, threshold=threshold), expected, rtol=0, atol=0
    )


def test_cluster_nms_of_nothing():
    empty = torch.zeros(0)
    masks = torch.zeros(0, 4, 4, dtype=torch.bool)
    assert load("cluster_nms").cluster_nms(masks, empty.long(), empty).shape == (0,)


def test_the_boundary_of_a_square_is_a_frame():
    targets = torch.zeros(1, 20, 20, dtype=torch.bool)
    targets[0, 5:15, 5:15] = True
    near = load("boundary_loss").boundary_region(targets)[0]
    assert near[3:17, 3:17].sum() == near.sum() and not near[7:13, 7:13].any()
    # 14 x 14 without the inner 6 x 6; the 4 outermost corners are as near, by rows and columns.
    assert int(near.sum()) == 14 * 14 - 6 * 6


def test_the_boundary_loss_counts_only_pixels_at_the_boundary():
    module = load("boundary_loss")
    targets = torch.zeros(1, 20, 20)
    targets[0, 5:15, 5:15] = 1
    probs = torch.full_like(targets, 0.5, requires_grad=True)
    entropy = module.boundary_loss(probs, targets) - module.dice_loss(probs, targets)
    assert entropy.item() == pytest.approx(math.log(2), abs=1e-5)
    entropy.sum().backward()
    assert probs.grad[0, 0, 0] == 0 and probs.grad[0, 5, 5] != 0
    assert module.boundary_loss(targets.clone(), targets).item() == pytest.approx(0, abs=1e-4)


def test_the_head_keeps_the_contract_and_reads_its_own_key():
    load("condinst_head")
    check_head("CondInstHead", "MODEL.SOLO.CONDINST_CHANNELS", 6)


def test_the_nms_and_the_loss_keep_their_contracts():
    load("cluster_nms")
    load("boundary_loss")
    check_nms(MASK_NMS["cluster"])
    check_mask_loss(MASK_LOSSES["boundary"])


def test_relative_positions_are_those_of_every_cell_by_itself():
    """The linear shortcut of the first layer equals coordinates relative to each cell's centre."""
    module = load("condinst_head")
    from solo_d2.testing import _make_features, _make_head, tiny_config

    head = _make_head(tiny_config("MODEL.SOLO.HEAD", "CondInstHead")).eval()
    inputs = head(_make_features()).mask_inputs
    cells = torch.tensor([0, 77, 143, 200, 359])
    weights, feature = inputs.weights[1][cells], inputs.features[1]
    positions = module.pixel_positions(feature)
    for cell, row in zip(cells, weights, strict=True):
        w1, b1, w2, b2, w3, b3 = row.split(head.sizes)
        relative = positions - head.centers[cell][:, None, None]
        x = torch.cat([relative, feature]).flatten(1)
        x = (w1.view(8, 10) @ x + b1[:, None]).relu()
        x = (w2.view(8, 8) @ x + b2[:, None]).relu()
        expected = (w3.view(1, 8) @ x + b3).sigmoid().view(feature.shape[1:])
        found = head.level_probs(inputs, 1, 0, cell[None], None)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("check", "broken", "rule"),
    [
        (check_nms, lambda m, c, s: s * torch.linspace(0, 1, len(s)), "order of the input"),
        (check_nms, lambda m, c, s: s * (m.flatten(1).any(1)) * 2, "no score grows"),
        (check_nms, lambda m, c, s: s.sum(), "one new score for each mask"),
        (check_mask_loss, lambda p, t: (p - t.float()).abs().mean(), "one loss for each mask"),
        (
            check_mask_loss,
            lambda p, t: 1 - (p - t.float()).abs().flatten(1).mean(1),
            "less loss than its complement",
        ),
    ],
)
def test_a_broken_contract_is_named(check, broken, rule):
    with pytest.raises(AssertionError, match=rule):
        check(broken)


def bytes_of(value):
    """A grey JPEG."""
    buffer = io.BytesIO()
    Image.new("RGB", (70, 50), (value, value, value)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_the_rows_of_the_spark_example_are_results_or_an_error():
    module = load("spark_udf")
    rows = list(module.predict_contents(StubPredictor(2), [bytes_of(9), b"none", bytes_of(200)]))
    assert [(x is None, y is None) for x, y in rows] == [
        (False, True),
        (True, False),
        (False, True),
    ]
    entries = json.loads(rows[0][0])
    assert [x["category_name"] for x in entries] == ["cup", "cup"]
    assert set(entries[0]) == {"category_id", "category_name", "bbox", "score", "segmentation"}


def test_batches_of_the_spark_example_are_tables(monkeypatch):
    pandas = pytest.importorskip("pandas")
    module = load("spark_udf")
    monkeypatch.setattr(module, "predictor_of", lambda *_: StubPredictor(1))
    batches = [pandas.Series([bytes_of(9), b"none"]), pandas.Series([bytes_of(1)])]
    first, second = module.predict_batches("any", 0.3)(iter(batches))
    assert (list(first.columns), len(first), len(second)) == (["results", "error"], 2, 1)
    assert first["error"].notna().tolist() == [False, True]
