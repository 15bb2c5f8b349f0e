"""Post-processing of fixed size against the exact visit, which it must equal up to K candidates."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from builders import SOFT, tiny_model
from head_builders import HEADS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from solo_d2.layers import budgets
from solo_d2.modeling.fixed import postprocess_fixed
from solo_d2.modeling.postprocessing import Frame, build_nms, category_scores, suppress

CANVAS, SIZE = (64, 96), (16, 24)
# Heads that start with masks of 0.01 get masks above the threshold.
LIVELY = ("MODEL.SOLO.PRIOR_PROB", 0.3, "MODEL.SOLO.MASK_THRESH_TEST", 0.4)
CASES = {
    **HEADS,
    "soft": SOFT,
    "deformable": ("MODEL.SOLO.DEFORM", "all"),
    "region_grid": ("MODEL.SOLO.ALIGN", "region_grid"),
    "max_pool": ("MODEL.SOLO.ALIGN", "adaptive_max_pool"),
}


def lively_model(name, *overrides, seed=2):
    """Random weights that leave neither scores nor masks near a constant."""
    model = tiny_model(*CASES[name], *LIVELY, *overrides).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.head.named_parameters():
            if "conv_offset" in key:  # offsets of many pixels leave nothing but padding
                continue
            spread = 0.1 if parameter.dim() > 1 else 0.3
            parameter += spread * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def predict(model, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = [{"image": torch.rand(3, *CANVAS, generator=generator) * 255} for _ in range(count)]
    images = model.preprocess_image(inputs)
    return model.predict(model.backbone(images.tensor), images)


@torch.no_grad()
def exact(model, predictions, image):
    """Scores, labels, cells and soft masks of one image by the visit in chunks."""
    scores = category_scores(predictions.category_logits)[image]
    view = model.view(predictions, image, scores, Frame(CANVAS, CANVAS))
    kept, labels, cells = suppress(view.candidates, model.settings)
    return kept, labels, cells, view.cell_masks(cells)


@torch.no_grad()
def assert_equal_to_the_visit(model, predictions, found):
    """Up to a pixel on the threshold, which summation order may move."""
    for image in range(len(found.scores)):
        scores, labels, cells, masks = exact(model, predictions, image)
        count = len(scores)
        assert int((found.scores[image] > 0).sum()) == count
        torch.testing.assert_close(found.scores[image, :count], scores, atol=1e-5, rtol=1e-5)
        assert (found.scores[image, count:] == 0).all()
        assert torch.equal(found.labels[image, :count], labels)
        assert torch.equal(found.cells[image, :count], cells)
        torch.testing.assert_close(found.masks[image, :count], masks, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_every_head_finds_what_the_visit_finds(name):
    model = lively_model(name)
    predictions = predict(model)
    count = 3 * model.head.grid.num_cells
    with torch.no_grad():
        found = postprocess_fixed(
            model.head, predictions, SIZE, model.settings, max_candidates=count
        )
    scores = category_scores(predictions.category_logits)
    assert found.num_candidates.tolist() == (scores > 0.1).sum((1, 2)).tolist()
    assert (found.scores > 0).sum() > 20
    assert found.masks.shape == (2, 100, *SIZE)
    assert_equal_to_the_visit(model, predictions, found)


class NoWaiting(TorchDispatchMode):
    """Raises where a GPU would have to be waited for, or where a shape depends on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "repeat_interleave")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        assert not any(wait in name for wait in self.WAITS), name
        return function(*args, **(kwargs or {}))


@torch.no_grad()
@pytest.mark.parametrize("name", HEADS)
def test_nothing_is_waited_for(name):
    model = lively_model(name)
    predictions = predict(model)
    with NoWaiting():
        postprocess_fixed(model.head, predictions, SIZE, model.settings)


def test_what_waits_is_noticed():
    with pytest.raises(AssertionError, match="local_scalar"), NoWaiting():
        torch.zeros(1).item()
    with pytest.raises(AssertionError, match="nonzero"), NoWaiting():
        torch.zeros(1).nonzero()


some_predictions = cache(
    lambda name, count: (lively_model(name), predict(lively_model(name), count))
)


@given(
    name=st.sampled_from(["vanilla", "dynamic", "decoupled_dynamic"]),
    seed=st.integers(0, 10**6),
    count=st.integers(1, 3),
    candidates=st.integers(0, 40),
    nms=st.sampled_from(["matrix", "fast"]),
)
@settings(max_examples=25, deadline=None)
def test_random_scores_and_batches_agree_up_to_k_candidates(name, seed, count, candidates, nms):
    model, predictions = some_predictions(name, count)
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(x.shape, generator=generator) for x in predictions.category_logits]
    predictions = predictions._replace(category_logits=logits)
    scores = category_scores(logits)
    best = scores[0].flatten().sort(descending=True).values
    # So many of the first image pass; of the others, whatever happens to.
    model.settings = replace(
        model.settings,
        score_thresh=float(best[candidates]),
        nms=build_nms(nms, kernel="gaussian", sigma=0.5, threshold=0.5),
    )
    passing = (scores > model.settings.score_thresh).sum((1, 2))
    assert passing[0] == candidates
    limit = max(1, int(passing.max()))
    with torch.no_grad():
        found = postprocess_fixed(
            model.head, predictions, SIZE, model.settings, max_candidates=limit
        )
    assert torch.equal(found.num_candidates, passing)
    assert found.scores.shape == (count, min(limit, 100))
    assert_equal_to_the_visit(model, predictions, found)


@torch.no_grad()
def test_more_candidates_than_slots_are_told():
    model = lively_model("dynamic")
    predictions = predict(model)
    total = (category_scores(predictions.category_logits) > 0.1).sum((1, 2)).tolist()
    for limit in (total[0], total[0] - 1):
        found = postprocess_fixed(
            model.head, predictions, SIZE, model.settings, max_candidates=limit
        )
        assert found.num_candidates.tolist() == total


@torch.no_grad()
def test_without_candidates_all_slots_are_empty():
    model = lively_model("dynamic", "MODEL.SOLO.SCORE_THRESH_TEST", 0.999)
    found = postprocess_fixed(model.head, predict(model), SIZE, model.settings)
    assert found.num_candidates.tolist() == [0, 0]
    assert (found.scores == 0).all()


@torch.no_grad()
def test_fewer_masks_than_slots_may_enter_nms():
    few = ("MODEL.SOLO.PRE_NMS_TOPK_TEST", 30, "TEST.DETECTIONS_PER_IMAGE", 20)
    model = lively_model("dynamic", *few)
    predictions = predict(model)
    found = postprocess_fixed(model.head, predictions, SIZE, model.settings, max_candidates=900)
    assert_equal_to_the_visit(model, predictions, found)


@torch.no_grad()
def test_groups_of_images_change_nothing(monkeypatch):
    model = lively_model("dynamic_separate")
    predictions = predict(model, count=3)
    whole = postprocess_fixed(model.head, predictions, SIZE, model.settings)
    monkeypatch.setattr(budgets, "FIXED_PIXELS", 2 * 500 * SIZE[0] * SIZE[1])
    for found, expected in zip(
        postprocess_fixed(model.head, predictions, SIZE, model.settings), whole, strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("nms", ["soft", "hard"])
def test_an_nms_that_takes_one_mask_at_a_time_is_refused(nms):
    model = tiny_model("MODEL.SOLO.NMS_TYPE", nms).eval()
    with pytest.raises(ValueError, match='NMS_TYPE "matrix" or "fast"'):
        postprocess_fixed(model.head, predict(model), SIZE, model.settings)


def test_no_slot_is_refused():
    model = tiny_model().eval()
    with pytest.raises(ValueError, match="max_candidates must be at least 1, got 0"):
        postprocess_fixed(model.head, predict(model), SIZE, model.settings, max_candidates=0)
