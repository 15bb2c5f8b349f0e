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
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from solo_d2.layers import budgets
from solo_d2.modeling import output
from solo_d2.modeling.fixed import postprocess_fixed
from solo_d2.modeling.meta_arch import inference
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

PANOPTIC = (
    *("MODEL.META_ARCHITECTURE", "PanopticSOLO", "MODEL.SEM_SEG_HEAD.NAME", "SOLOSemSegHead"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4),
)


def lively_model(name, *overrides, seed=2):
    """Random weights that leave neither scores nor masks near a constant."""
    keys = PANOPTIC if name == "panoptic" else CASES[name]
    model = tiny_model(*keys, *LIVELY, *overrides).eval()
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


def test_a_temperature_changes_scores_in_both_alike_and_no_order():
    plain, warm = (lively_model("dynamic", "MODEL.SOLO.SCORE_TEMPERATURE", t) for t in (1.0, 0.4))
    predictions = predict(plain)
    with torch.no_grad():
        before, after = (
            postprocess_fixed(model.head, predictions, SIZE, model.settings)
            for model in (plain, warm)
        )
    assert_equal_to_the_visit(warm, predictions, after)
    assert torch.equal(before.cells, after.cells) and torch.equal(before.labels, after.labels)
    assert not torch.equal(before.scores, after.scores)


WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "repeat_interleave")


class NoHost(TorchDispatchMode):
    """Raises where the host would wait for a GPU, or bring a tensor of its own."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = str(function), kwargs or {}
        assert not any(wait in name for wait in WAITS), name
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        assert all(x.device.type == "cuda" for x in tensors), f"{name} with a tensor of the host"
        return function(*args, **kwargs)


@pytest.fixture
def to_fake_gpu(monkeypatch):
    """Moves a model to a GPU that is not there: tensors have a shape, but no values."""
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    with FakeTensorMode():
        yield lambda model: model._apply(
            lambda x: torch.empty(x.shape, dtype=x.dtype, device="cuda")
        )


@pytest.mark.parametrize("name", [*CASES, "panoptic"])
def test_a_gpu_runs_network_and_post_processing_by_itself(name, request):
    model = tiny_model(*({**CASES, "panoptic": PANOPTIC}[name])).eval()
    to_fake_gpu = request.getfixturevalue("to_fake_gpu")
    to_fake_gpu(model)
    pixels = torch.zeros(2, 3, *CANVAS, device="cuda")
    with NoHost():
        found = model.run_fixed(pixels)
    assert found.instances.masks.shape == (2, 100, *SIZE)
    assert found.instances.masks.device.type == "cuda"
    assert (found.semantic is None) == (name != "panoptic")


def test_what_needs_the_host_is_noticed(to_fake_gpu):
    x = torch.zeros(3, device="cuda")
    for call, name in (
        (lambda: x.nonzero(), "nonzero"),
        (lambda: x[0].item(), "local_scalar"),
        (lambda: x + torch.zeros(3), "of the host"),
        (lambda: torch.tensor([1.0, 2.0], device="cuda"), "of the host"),
    ):
        with pytest.raises(AssertionError, match=name), NoHost():
            call()


def pair(name, *overrides):
    """Results of a batch of two sizes, in constant shapes and by the visit, and the model."""
    model = lively_model(name, *overrides)
    inputs = [
        {"image": torch.rand(3, 64, 96) * 255, "height": 100, "width": 130},
        {"image": torch.rand(3, 50, 80) * 255},
    ]
    found = []
    for fixed in (True, False):
        model.fixed = fixed
        with torch.no_grad():
            found.append(model(inputs))
    return *found, model


def assert_same(found, expected):
    """Equal instances, but for pixels on the threshold, which another order of sums may move."""
    for one, other in zip(found, expected, strict=True):
        one, other = one["instances"], other["instances"]
        assert one.image_size == other.image_size
        assert set(one.get_fields()) == set(other.get_fields())
        assert torch.equal(one.pred_classes, other.pred_classes)
        torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=1e-5)
        assert (one.pred_masks != other.pred_masks).float().mean() < 1e-4
        assert (one.pred_boxes.tensor - other.pred_boxes.tensor).abs().max() <= 1


@pytest.mark.parametrize("name", ["vanilla", "dynamic", "decoupled_dynamic", "soft", "panoptic"])
def test_whole_models_find_the_same(name):
    found, expected, _ = pair(name)
    assert len(expected[0]["instances"]) > 10
    assert_same(found, expected)
    if name == "soft":
        mattes = [x[0]["instances"].pred_mattes for x in (found, expected)]
        torch.testing.assert_close(*mattes, atol=1e-4, rtol=1e-4)
    if name == "panoptic":
        torch.testing.assert_close(found[0]["sem_seg"], expected[0]["sem_seg"])
        assert found[0]["panoptic_seg"][1] == expected[0]["panoptic_seg"][1]


class Waits(TorchDispatchMode):
    """Notes what looks at values, beside `tolist` and `cpu`, which are no operators on a CPU."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names += [wait for wait in WAITS if wait in str(function)]
        return function(*args, **(kwargs or {}))

    def noting(self, name):
        method = getattr(torch.Tensor, name)
        return lambda tensor: (self.names.append(name), method(tensor))[1]


@pytest.mark.parametrize("name", ["vanilla", "dynamic", "decoupled_dynamic", "soft"])
def test_a_whole_batch_waits_twice(name, monkeypatch):
    model = lively_model(name)
    model.fixed = True
    # A CPU resizes window by window, for which it looks at values.
    monkeypatch.setattr(inference, "resize_masks", output.interpolate_masks)
    waits = Waits()
    for method in ("tolist", "cpu", "item", "numpy"):
        monkeypatch.setattr(torch.Tensor, method, waits.noting(method))
    inputs = [{"image": torch.rand(3, 64, 96) * 255, "height": 90, "width": 70} for _ in range(3)]
    images = model.preprocess_image(inputs)  # Detectron2 pads by sizes, which lie on the host
    with torch.no_grad(), waits:
        predictions = model.predict(model.backbone(images.tensor), images)
        found = model.inference(predictions, images, inputs)
    assert min(len(x["instances"]) for x in found) > 5
    # What is behind `cpu` lies on the host: whether all masks of an image have a pixel.
    assert waits.names == ["tolist", "cpu", *["_local_scalar_dense"] * 3]


def test_images_with_too_many_candidates_are_visited():
    few = ("MODEL.SOLO.PRE_NMS_TOPK_TEST", 100, "MODEL.SOLO.SCORE_THRESH_TEST", 0.001)
    found, expected, model = pair("dynamic", *few)
    scores = category_scores(predict(model).category_logits)
    assert ((scores > 0.001).sum((1, 2)) > 100).all()
    assert_same(found, expected)


def test_masks_that_lose_all_pixels_are_dropped(monkeypatch):
    _, _, model = pair("dynamic")
    inputs = [{"image": torch.rand(3, 64, 96) * 255}, {"image": torch.rand(3, 64, 96) * 255}]
    model.fixed = True
    with torch.no_grad():
        before = [len(x["instances"]) for x in model(inputs)]
        cut = inference.resize_masks

        def without_first(*args):
            masks, boxes = cut(*args)
            boxes[0] = 0
            return masks, boxes

        monkeypatch.setattr(inference, "resize_masks", without_first)
        after = model(inputs)
    assert [len(x["instances"]) for x in after] == [count - 1 for count in before]
    assert all(len(x["instances"].pred_masks) == len(x["instances"].scores) for x in after)


def test_without_instances_there_are_empty_results():
    found, expected, _ = pair("dynamic", "MODEL.SOLO.SCORE_THRESH_TEST", 0.999)
    assert [len(x["instances"]) for x in found] == [0, 0]
    assert found[0]["instances"].pred_masks.shape == (0, 100, 130)
    assert_same(found[:0], expected[:0])


@pytest.mark.parametrize(
    ("nms", "device", "fixed"),
    [
        ("matrix", "cuda", True),
        ("fast", "cuda", True),
        ("hard", "cuda", False),
        ("matrix", "cpu", False),
    ],
)
def test_a_gpu_uses_constant_shapes_where_the_nms_can(nms, device, fixed):
    model = tiny_model("MODEL.SOLO.NMS_TYPE", nms)
    assert model.uses_fixed(torch.device(device)) == fixed


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
