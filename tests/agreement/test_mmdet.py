"""Whole detectors of mmdetection, built live, against ours with the same weights.

Needs the extra "mmdet". Where ours differs on purpose, a test says so and why.
"""

from __future__ import annotations

from dataclasses import replace

import compare
import mmdet_models
import our_models
import pytest
import torch
from peer_weights import PADDED, WHOLE, ellipses, ground_truth, photo, random_weights

from solo_d2.checkpoint.foreign.convert import convert_state_dict
from solo_d2.layers import matrix_nms

pytestmark = [
    pytest.mark.skipif(
        not mmdet_models.installed(), reason='needs mmdetection: pip install "solo_d2[mmdet]"'
    ),
    pytest.mark.filterwarnings("ignore:torch.meshgrid", 'ignore:"deformable_groups"'),
]

SOLO = "solo/solo_r50_fpn_3x_coco"
DECOUPLED = "solo/decoupled-solo_r50_fpn_3x_coco"
DECOUPLED_LIGHT = "solo/decoupled-solo-light_r50_fpn_3x_coco"
SOLOV2 = "solov2/solov2_r50_fpn_ms-3x_coco"
SOLOV2_LIGHT = "solov2/solov2-light_r18_fpn_ms-3x_coco"
SOLOV2_LIGHT_DCN = "solov2/solov2-light_r50-dcn_fpn_ms-3x_coco"
SOLOV2_DCN = "solov2/solov2_r101-dcn_fpn_ms-3x_coco"

MODELS = [SOLO, DECOUPLED, DECOUPLED_LIGHT, SOLOV2, SOLOV2_LIGHT, SOLOV2_LIGHT_DCN, SOLOV2_DCN]


def _build(name, *, deform_v1=False):
    config = mmdet_models.read_config(name)
    config.model.backbone.depth = min(config.model.backbone.depth, 50)  # more of the same blocks
    if deform_v1:
        config.model.backbone.dcn.type = config.model.mask_head.dcn_cfg.type = "DCN"
    theirs = mmdet_models.build(config)
    weights = random_weights({key: value.shape for key, value in theirs.state_dict().items()})
    theirs.load_state_dict(weights)
    return our_models.build(weights), theirs


@pytest.fixture(scope="module")
def pair(request):
    """Our model and theirs; of all tests of one model the same, with heads that remember."""
    ours, theirs = _build(request.param)
    compare.remember(ours.head)
    compare.remember(theirs.mask_head)
    return ours, theirs


@pytest.fixture(scope="module")
def light():
    """A pair that is quick to run."""
    return _build(SOLOV2_LIGHT)


every_model = pytest.mark.parametrize("pair", MODELS, indirect=True)
every_loss = pytest.mark.parametrize(
    "pair", [SOLO, DECOUPLED, DECOUPLED_LIGHT, SOLOV2_LIGHT], indirect=True
)


@every_model
def test_raw_outputs_are_equal(pair):
    ours, theirs = pair
    image = photo(PADDED)
    got, wanted = our_models.raw_outputs(ours, image), mmdet_models.raw_outputs(theirs, image)
    if "kernels" in wanted:
        assert compare.relative_difference(got["logits"], wanted["categories"]) < 1e-5
        assert compare.relative_difference(got["kernels"], wanted["kernels"]) < 1e-5
        assert compare.relative_difference(got["features"], wanted["features"]) < 1e-5
    else:
        assert compare.relative_difference(got["scores"], wanted["categories"]) < 1e-5
        masks = wanted["masks"] if "masks" in wanted else _products(ours.head.grid, wanted)
        assert compare.relative_difference(got["masks"], masks) < 1e-5


def _products(grid, factors):
    """Masks of all cells (T, h, w), of soft masks of all columns and of all rows."""
    level, row, column = grid.locate(torch.arange(grid.num_cells))
    sizes = torch.tensor([0, *grid.num_grids])
    first = sizes.cumsum(0)[level]
    return factors["x"][first + column] * factors["y"][first + row]


def check_detections(pair, name, size):
    ours, theirs = pair
    found = our_models.detect(ours, [photo(name)], [size])[0]
    compare.check_same(found, mmdet_models.detect(theirs, [photo(name)], [size])[0])


@every_model
def test_detections_are_equal(pair):
    check_detections(pair, PADDED, (300, 451))


@pytest.mark.parametrize("pair", [SOLO, DECOUPLED_LIGHT, SOLOV2_LIGHT], indirect=True)
def test_detections_of_an_image_without_padding_are_equal(pair):
    check_detections(pair, WHOLE, (301, 200))


def test_detections_with_deformable_convolutions_v1_are_equal():
    """As in the light models of WXinlong/SOLO; mmdetection has no config of them, but the parts."""
    ours, theirs = _build(SOLOV2_LIGHT_DCN, deform_v1=True)
    assert ours.head.category_tower[-1].conv_offset.out_channels == 18
    found = our_models.detect(ours, [photo(PADDED)], [(300, 451)])[0]
    wanted = mmdet_models.detect(theirs, [photo(PADDED)], [(300, 451)])[0]
    compare.check_same(found, wanted)


def test_batch_of_two_sizes_is_equal(light):
    images, sizes = [photo(PADDED), photo(WHOLE)], [(300, 451), (400, 600)]
    found = our_models.detect(light[0], images, sizes)
    for ours, theirs in zip(found, mmdet_models.detect(light[1], images, sizes), strict=True):
        compare.check_same(ours, theirs)


@every_loss
def test_losses_are_equal_where_no_cell_is_contested(pair):
    """But for the normaliser of the focal loss: theirs is the number of positives plus one."""
    ours, theirs = pair
    images = [photo(PADDED), photo(WHOLE)]
    with torch.no_grad():
        wanted = mmdet_models.losses(theirs, images, ground_truth())
        got, positives = our_models.losses(ours, images, ground_truth())
    ours.eval(), theirs.eval()
    assert positives > 20
    torch.testing.assert_close(got["loss_mask"], wanted["loss_mask"], rtol=1e-5, atol=0)
    category = wanted["loss_cls"] * (positives + 1) / positives
    torch.testing.assert_close(got["loss_category"], category, rtol=1e-5, atol=0)


def test_gradients_are_equal(light):
    ours, theirs = light
    images = [photo(PADDED), photo(WHOLE)]
    wanted = mmdet_models.losses(theirs, images, ground_truth())
    got, positives = our_models.losses(ours, images, ground_truth())
    (wanted["loss_mask"] + wanted["loss_cls"] * (positives + 1) / positives).backward()
    sum(got.values()).backward()
    ours.eval(), theirs.eval()
    gradients = {key: torch.zeros_like(x) for key, x in theirs.state_dict().items()}
    gradients |= {k: x.grad for k, x in theirs.named_parameters() if x.grad is not None}
    renamed = convert_state_dict(gradients)  # a gradient has the name of its parameter
    errors = {
        key: float((x.grad - renamed[key]).norm() / renamed[key].norm())
        for key, x in ours.named_parameters()
        if x.grad is not None
    }
    ours.zero_grad(), theirs.zero_grad()
    assert len(errors) > 50
    assert max(errors.values()) < 1e-3


# Where ours differs on purpose.


def test_a_contested_cell_has_one_target_here_and_two_there(light):
    """Theirs trains SOLOv2 with both masks, and with the class of the object that comes last."""
    ours, theirs = light
    masks = ellipses((192, 256), [(128, 96, 60, 60), (128, 96, 40, 40)])  # around one centre
    small, large = torch.tensor([1]), torch.tensor([0])
    first_small = masks.flip(0), torch.cat([small, large])
    last_small = masks, torch.cat([large, small])
    results = []
    for objects in (first_small, last_small):
        labels, pairs = mmdet_models.dynamic_targets(theirs, *objects)
        assert len(pairs) > len(set(pairs))  # a cell with two masks
        targets = ours.assigner([our_models.instances(*objects)], (192, 256), torch.device("cpu"))
        assert len(targets.cells) == len(set(pairs))
        results.append((targets.labels[0], labels))
    (ours_first, theirs_first), (ours_last, theirs_last) = results
    assert ours_first.equal(ours_last)  # the smaller object's, in any order
    assert not theirs_first.equal(theirs_last)
    assert ours_last.equal(theirs_last)


def test_a_centre_on_a_border_belongs_to_the_next_cell(light):
    """Theirs divides by 1 / S in float32, and 80 / 192 / (1 / 24) falls short of 10."""
    ours, theirs = light
    masks = torch.zeros((1, 192, 192), dtype=torch.bool)
    masks[:, 20:141, 20:141] = True  # around the pixel (80, 80): the border of cells 9 and 10
    objects = masks, torch.tensor([0])
    labels, _ = mmdet_models.dynamic_targets(theirs, *objects)
    targets = ours.assigner([our_models.instances(*objects)], (192, 192), torch.device("cpu"))
    grid = ours.head.grid
    level = slice(grid.starts[2], grid.starts[3])
    assert grid.num_grids[2] == 24
    columns = [
        (x[level].view(24, 24) == 0).any(0).nonzero().flatten().tolist()
        for x in (targets.labels[0], labels)
    ]
    # The centre region is [67.9, 92.1], cells 8 to 11, of which the three around the centre count.
    assert columns == [[9, 10, 11], [8, 9, 10]]


def test_boxes_are_tight_here_and_zero_there(light):
    image = photo(PADDED)
    instances = light[0]([{"image": image}])[0]["instances"]
    rows = instances.pred_masks[0].any(1).nonzero()
    columns = instances.pred_masks[0].any(0).nonzero()
    tight = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert instances.pred_boxes.tensor[0].equal(tight.float())
    sample = mmdet_models.detect(light[1], [image], [(168, 250)], keys=("bboxes",))[0]
    assert not sample["bboxes"].any()


def test_nothing_found_has_whole_labels_and_boolean_masks_here(light):
    """Theirs are float32 then, and only then."""
    ours, theirs = light
    image = torch.zeros((3, 64, 64), dtype=torch.uint8)
    limits = ours.settings, theirs.mask_head.test_cfg.score_thr
    ours.settings = replace(ours.settings, score_thresh=0.99)
    theirs.mask_head.test_cfg.score_thr = 0.99
    found = our_models.detect(ours, [image], [(64, 64)])[0]
    other = mmdet_models.detect(theirs, [image], [(64, 64)])[0]
    ours.settings, theirs.mask_head.test_cfg.score_thr = limits
    assert len(found["scores"]) == len(other["scores"]) == 0
    assert found["masks"].shape == other["masks"].shape == (0, 64, 64)
    assert (found["labels"].dtype, found["masks"].dtype) == (torch.int64, torch.bool)
    assert (other["labels"].dtype, other["masks"].dtype) == (torch.float32, torch.float32)


def test_linear_matrix_nms_survives_three_equal_masks():
    """Theirs divides 0 by 0 for the third."""
    mmdet_models.import_mmdet()
    from mmdet.models.layers import mask_matrix_nms

    masks = torch.ones((3, 4, 4), dtype=torch.bool)
    labels, scores = torch.zeros(3, dtype=torch.int64), torch.tensor([0.9, 0.8, 0.7])
    theirs = mask_matrix_nms(masks, labels, scores, kernel="linear")[0]
    assert theirs.isnan().any()
    ours = matrix_nms(masks, labels, scores, kernel="linear")
    assert ours.tolist() == pytest.approx([0.9, 0.0, 0.0])


def test_an_image_without_objects_trains_every_parameter_here(light):
    """Theirs leaves the kernel branch without gradients, for which other processes wait forever."""
    images = [photo(WHOLE)]
    objects = [(torch.zeros((0, 160, 256), dtype=torch.bool), torch.zeros(0, dtype=torch.int64))]
    without = []
    for model, module in zip(light, (our_models, mmdet_models), strict=True):
        result = module.losses(model, images, objects)
        losses = result[0] if isinstance(result, tuple) else result
        sum(losses.values()).backward()
        head = [(k, x) for k, x in model.named_parameters() if "head." in k and x.requires_grad]
        without.append([key for key, x in head if x.grad is None])
        model.eval().zero_grad()
    assert without[0] == []
    assert without[1]
    assert all("kernel" in key for key in without[1])
