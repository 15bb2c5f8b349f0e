"""What every head of the family must do, and that a new one is one class."""

from __future__ import annotations

import pytest
import torch
from builders import noise_input, tiny_model
from detectron2.config import configurable
from head_builders import HEADS, make_features, make_head, perturb
from torch import nn

from solo_d2.modeling import SOLO_HEAD_REGISTRY, SOLOHead
from solo_d2.modeling.structures import SOLOPredictions

SIZE = (16, 24)
LIVELY = ("MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0, "MODEL.SOLO.MASK_THRESH_TEST", 0.2)
STATIC = ("vanilla", "decoupled", "decoupled_light")
each_head = pytest.mark.parametrize("name", HEADS)


def predict(name):
    head = perturb(make_head(*HEADS[name], "MODEL.SOLO.PRIOR_PROB", 0.5))
    return head, head(make_features())


@each_head
def test_some_cells_get_the_masks_that_they_have_among_all(name):
    head, predictions = predict(name)
    everything = head.mask_probs(predictions, 1, torch.arange(head.grid.num_cells), size=SIZE)
    assert everything.shape == (360, *SIZE)
    assert everything.dtype == torch.float32
    assert 0 <= everything.min() < everything.max() <= 1
    # All levels, out of order, one of them twice.
    cells = torch.tensor([359, 0, 150, 143, 144, 320, 0, 300, 245])
    some = head.mask_probs(predictions, 1, cells, size=SIZE)
    torch.testing.assert_close(some, everything[cells])
    assert not torch.allclose(some[0], some[1], atol=1e-2)


@each_head
def test_naming_the_levels_changes_nothing(name):
    head, predictions = predict(name)
    cells = torch.tensor([150, 3, 243, 100])  # levels 1, 0, 1, 0, which share a stride
    one_by_one = [
        head.mask_probs(predictions, 0, cell[None], levels=[int(head.grid.levels(cell))])
        for cell in cells
    ]
    assert {mask.shape for mask in one_by_one} == {(1, 16, 24)}
    together = head.mask_probs(predictions, 0, cells, levels=[0, 1])
    torch.testing.assert_close(together, torch.cat(one_by_one))
    # At stride 4 the masks of these levels need no resizing.
    torch.testing.assert_close(head.mask_probs(predictions, 0, cells, size=SIZE), together)


@each_head
def test_images_do_not_mix(name):
    head = perturb(make_head(*HEADS[name])).eval()
    features = make_features()
    cells = torch.tensor([0, 200, 359])
    both = head(features)
    for image in range(2):
        alone = head({key: x[image : image + 1] for key, x in features.items()})
        torch.testing.assert_close(
            head.mask_probs(both, image, cells, size=SIZE),
            head.mask_probs(alone, 0, cells, size=SIZE),
        )


@each_head
@pytest.mark.parametrize("size", [None, SIZE])
def test_no_cells_on_any_level_keep_every_parameter_in_the_graph(name, size):
    head, predictions = predict(name)
    nothing = torch.zeros(0, dtype=torch.int64)
    groups = [[0, 1], [2], [3, 4]] if size is None else [None]
    probs = [head.mask_probs(predictions, 0, nothing, levels=g, size=size) for g in groups]
    assert all(p.shape[0] == 0 for p in probs)
    assert size is None or probs[0].shape == (0, *SIZE)
    sum([p.sum() for p in probs] + [x.sum() for x in predictions.category_logits]).backward()
    assert [n for n, p in head.named_parameters() if p.grad is None] == []


@each_head
def test_gradients_do_not_depend_on_the_grouping(name):
    cells = torch.tensor([150, 3, 243, 100])
    found = []
    for groups in ([None], [[1], [0]]):
        head, predictions = predict(name)
        for levels in groups:
            mine = cells if levels is None else cells[head.grid.levels(cells) == levels[0]]
            # The loss of a set of masks; the sum does not know their order.
            head.mask_probs(predictions, 0, mine, levels=levels, size=SIZE).square().sum().backward(
                retain_graph=True
            )
        found.append({n: p.grad for n, p in head.named_parameters() if p.grad is not None})
    for key in found[0].keys() & found[1].keys():
        torch.testing.assert_close(found[0][key], found[1][key], atol=1e-4, rtol=1e-4)


def trained_step(model, batch):
    losses = model(batch)
    model.zero_grad(set_to_none=True)
    sum(losses.values()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    return {key: loss.item() for key, loss in losses.items()}


@each_head
def test_every_head_trains_and_predicts(name, training_batch):
    model = tiny_model(*HEADS[name], *LIVELY, "MODEL.SOLO.PRIOR_PROB", 0.5)
    empty = [noise_input((64, 96), seed=seed) for seed in (2, 3)]
    assert trained_step(model, empty)["loss_mask"] == 0
    before = trained_step(model, training_batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(4):
        trained_step(model, training_batch)
        optimizer.step()
    assert trained_step(model, training_batch)["loss_mask"] < before["loss_mask"]
    model.eval()
    found = model(training_batch)[0]["instances"]
    assert len(found) > 0
    assert found.pred_masks.any(2).any(1).all()
    model.head.category_predictor.bias.data.fill_(-20.0)  # no candidate at all
    assert len(model(training_batch)[0]["instances"]) == 0


@each_head
@pytest.mark.parametrize(
    "options",
    [
        (
            *("MODEL.SOLO.DEFORM", "all", "MODEL.SOLO.ALIGN", "region_grid"),
            *("MODEL.SOLO.MASK_LOSS", "bce", "MODEL.SOLO.AUX_SEMANTIC_LOSS_WEIGHT", 1.0),
        ),
        (
            *("MODEL.SOLO.DEFORM", "last", "MODEL.SOLO.DEFORM_MODULATED", False),
            *("MODEL.SOLO.ALIGN", "adaptive_max_pool", "MODEL.SOLO.MASK_LOSS", "focal"),
            *("MODEL.SOLO.NUM_COORD_CONVS", 0),
        ),
    ],
)
def test_every_knob_turns_with_every_head(name, options, training_batch):
    model = tiny_model(*HEADS[name], *options)
    assert trained_step(model, training_batch)["loss_mask"] > 0
    assert trained_step(model, [noise_input((64, 96))] * 2)["loss_mask"] == 0


@each_head
def test_every_head_runs_under_autocast_and_compiled(name, training_batch):
    model = tiny_model(*HEADS[name])
    expected = {key: loss.item() for key, loss in model(training_batch).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(training_batch)
    for key, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[key], rel=0.1)
    model.head.forward = torch.compile(model.head.forward, backend="eager", fullgraph=True)
    for key, loss in model(training_batch).items():
        assert loss.item() == pytest.approx(expected[key], rel=1e-5)


@each_head
@pytest.mark.parametrize("size", [(1, 1), (40, 70)])
def test_every_head_takes_images_that_no_stride_divides(name, size):
    wide = ("MODEL.SOLO.CONV_DIM", 64)  # GroupNorm wants two values in a group of P5
    if name not in STATIC:
        wide += ("MODEL.SOLO.MASK_FEATURE.CONV_DIM", 64, "MODEL.SOLO.KERNEL_DIM", 128)
    model = tiny_model(*HEADS[name], *wide)
    trained_step(model, [noise_input(size, [(0, 0, 1, 1)], [0])])
    model.eval()
    assert model([noise_input(size)])[0]["instances"].image_size == size


@each_head
def test_one_level_is_a_pyramid_too(name, training_batch):
    merged = ("MODEL.SOLO.MASK_FEATURE.IN_FEATURES", ["p3"])
    model = tiny_model(
        *HEADS[name],
        *LIVELY,
        *("MODEL.BACKBONE.NAME", "build_merged_resnet_backbone"),
        *("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]),
        *("MODEL.SOLO.IN_FEATURES", ["p3"]),
        *(() if name in (*STATIC, "dynamic_separate") else merged),
        *("MODEL.SOLO.NUM_GRIDS", [12], "MODEL.SOLO.SCALE_RANGES", [[1, 512]]),
    )
    assert model.head.mask_strides == ((8,) if model.head.one_mask_source else (4,))
    assert trained_step(model, training_batch)["loss_mask"] > 0
    model.eval()
    model.head.category_predictor.bias.data.zero_()
    assert len(model(training_batch)) == 2


class ToyHead(SOLOHead):
    """The mask of a cell is one learnt number everywhere: all that a new head has to bring."""

    @configurable
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.mask_strides = (8,) * self.grid.num_levels
        self.number = nn.Parameter(torch.zeros(self.grid.num_cells))

    def mask_inputs(self, features, levels):
        return features["p3"]

    def level_probs(self, inputs, image, level, cells, size):
        flat = self.number[cells].sigmoid()[:, None, None]
        return flat.expand(-1, *(size or inputs.shape[-2:]))


@pytest.fixture
def toy_head():
    SOLO_HEAD_REGISTRY.register(ToyHead)
    yield ToyHead
    del SOLO_HEAD_REGISTRY._obj_map["ToyHead"]


def test_a_new_head_is_one_class(toy_head, training_batch):
    toy = ("MODEL.SOLO.HEAD", "ToyHead")
    model = tiny_model(*toy, *LIVELY, "MODEL.SOLO.PRIOR_PROB", 0.5)
    # 3 * (1 - 2 * 0.5 n / (0.25 N + n)), the mean over all positives, is all but 3 and below it.
    assert 1 < trained_step(model, training_batch)["loss_mask"] < 3
    assert trained_step(model, [noise_input((64, 96))])["loss_mask"] == 0
    model.eval()
    found = model(training_batch)[0]["instances"]
    assert len(found) > 0
    assert found.pred_masks.all()
    with pytest.raises(ValueError, match="KERNEL_SIZE is 3, but ToyHead has no use for it"):
        tiny_model(*toy, "MODEL.SOLO.KERNEL_SIZE", 3)


def test_a_group_of_levels_refuses_other_cells():
    head, predictions = predict("vanilla")
    assert len(head.mask_probs(predictions, 0, torch.tensor([0, 144]), levels=[0, 1])) == 2
    with pytest.raises(ValueError, match=r"levels \[0, 1\] only"):
        head.mask_probs(predictions, 0, torch.tensor([0, 300]), levels=[0, 1])


@each_head
def test_every_cell_gets_category_scores(name):
    head, predictions = predict(name)
    assert isinstance(predictions, SOLOPredictions)
    shapes = [tuple(x.shape) for x in predictions.category_logits]
    assert shapes == [(2, 3, s, s) for s in head.grid.num_grids]
