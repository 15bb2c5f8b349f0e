"""The whole model: ground truth through the test path, gradients, batches, precision, processes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from builders import noise_input, rectangles, tiny_config, tiny_model
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import nn

from solo_d2.modeling import SOLO, GridSpec
from solo_d2.modeling.criterion import SOLOCriterion
from solo_d2.modeling.postprocessing import InferenceSettings, build_nms
from solo_d2.modeling.structures import SOLOPredictions
from solo_d2.modeling.targets import SOLOTargetAssigner

# Random weights leave all scores near the prior: near one half, they make many candidates.
LIVELY = ("MODEL.SOLO.PRIOR_PROB", 0.5, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)


def inputs_of(*sizes):
    return [noise_input(size, seed=i) for i, size in enumerate(sizes)]


class NoBackbone(nn.Module):
    size_divisibility = 32

    def forward(self, x):
        return x


class TargetHead(nn.Module):
    """Predicts the targets: certain categories and the mask targets of their objects."""

    mask_strides = (4,) * 5

    def __init__(self, grid, num_classes, targets):
        super().__init__()
        self.grid, self.num_classes, self.targets = grid, num_classes, targets

    def forward(self, _):
        positive = F.one_hot(self.targets.labels, self.num_classes + 1)[..., :-1]
        logits = (positive.float() * 40 - 20).transpose(1, 2)  # (N, C, T)
        levels = logits.split(self.grid.level_sizes, dim=2)
        return SOLOPredictions(
            [
                x.unflatten(2, (size, size))
                for x, size in zip(levels, self.grid.num_grids, strict=True)
            ],
            None,
        )

    def mask_probs(self, predictions, image, cells, *, levels=None, size=None):
        start = sum(sum(counts) for counts in self.targets.counts[:image])
        stop = start + sum(self.targets.counts[image])
        owner = dict(
            zip(
                self.targets.cells[start:stop].tolist(),
                self.targets.instances[start:stop].tolist(),
                strict=True,
            )
        )
        rows = [owner[cell] for cell in cells.tolist()]
        return self.targets.masks[4][rows].float()


def perfect_model(instances, canvas, nms):
    grid = GridSpec.build(
        [40, 36, 24, 16, 12],
        [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]],
        [4, 8, 16, 32, 64],
    )
    assigner = SOLOTargetAssigner(grid, 5, 0.2, (4,))
    targets = assigner(instances, canvas, torch.device("cpu"))
    return SOLO(
        backbone=NoBackbone(),
        head=TargetHead(grid, 5, targets),
        assigner=assigner,
        criterion=SOLOCriterion(
            num_classes=5,
            category_weight=1.0,
            mask_weight=3.0,
            focal_alpha=0.25,
            focal_gamma=2.0,
            mask_strides=(4,) * 5,
        ),
        settings=InferenceSettings(
            score_thresh=0.1,
            mask_thresh=0.5,
            pre_nms_topk=500,
            nms=build_nms(nms, kernel="gaussian", sigma=0.5, threshold=0.5),
            # The cells of one object yield duplicates, which Matrix NMS leaves exp(-2) = 0.135.
            final_score_thresh=0.2,
            max_instances=100,
        ),
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(1.0, 1.0, 1.0),
    )


# Multiples of the mask stride, so that the targets lose nothing; none touches an image border.
PERFECT = [
    ((180, 250), [(8, 8, 40, 48), (60, 20, 180, 100), (200, 120, 216, 132)], [0, 3, 1]),
    ((256, 200), [(4, 4, 196, 248), (20, 40, 60, 80), (100, 160, 180, 200)], [2, 2, 4]),
]


@pytest.mark.parametrize("nms", ["matrix", "hard", "fast"])
@pytest.mark.parametrize("scale", [1, 2, 0.5])
def test_perfect_predictions_give_the_ground_truth_back(nms, scale):
    instances = [rectangles(*image) for image in PERFECT]
    canvas = (256, 256)
    model = perfect_model(instances, canvas, nms).eval()
    inputs = [
        {
            "image": torch.zeros(3, *size),
            "height": int(size[0] * scale),
            "width": int(size[1] * scale),
        }
        for size, _, _ in PERFECT
    ]
    for (size, boxes, classes), output in zip(PERFECT, model(inputs), strict=True):
        found = output["instances"]
        assert found.image_size == (int(size[0] * scale), int(size[1] * scale))
        assert (found.scores > 0.99).all()  # one class, a small object on a large one: IoU 0.03
        assert len(found) == len(boxes)
        by_box = {tuple(b): k for k, b in enumerate(found.pred_boxes.tensor.tolist())}
        for box, label in zip(boxes, classes, strict=True):
            k = by_box[tuple(scale * side for side in box)]
            assert found.pred_classes[k] == label
            x0, y0, x1, y1 = (int(scale * side) for side in box)
            expected = torch.zeros(found.image_size, dtype=torch.bool)
            expected[y0:y1, x0:x1] = True
            # Bilinear enlargement rounds the four corners off, and nothing else.
            wrong = (expected != found.pred_masks[k]).nonzero().tolist()
            near = {1: 1, 2: 3, 0.5: 1}[scale]
            assert all(
                min(y - y0, y1 - 1 - y) < near and min(x - x0, x1 - 1 - x) < near for y, x in wrong
            )
            assert len(wrong) <= 4 * near * near


def test_perfect_predictions_cost_next_to_nothing():
    instances = [rectangles(*image) for image in PERFECT]
    model = perfect_model(instances, (256, 256), "matrix").train()
    inputs = [
        {"image": torch.zeros(3, *size), "instances": objects}
        for (size, _, _), objects in zip(PERFECT, instances, strict=True)
    ]
    losses = model(inputs)
    assert losses["loss_category"].item() < 1e-6
    assert losses["loss_mask"].item() < 1e-3


def test_result_has_the_documented_types_and_order():
    model = tiny_model(*LIVELY).eval()
    inputs = inputs_of((64, 96), (50, 70))
    inputs[0].update(height=128, width=100)
    sizes = [(128, 100), (50, 70)]  # without height and width, the image's own
    for output, size in zip(model(inputs), sizes, strict=True):
        found = output["instances"]
        assert len(found) > 0
        assert found.image_size == size
        assert found.pred_masks.dtype == torch.bool
        assert found.pred_masks.shape[1:] == size
        assert found.pred_boxes.tensor.shape == (len(found), 4)
        assert found.pred_classes.dtype == torch.int64
        assert found.scores.dtype == torch.float32
        assert (found.scores[:-1] >= found.scores[1:]).all()
        assert len(found) <= 100
        assert not found.scores.requires_grad


def test_nothing_found_gives_empty_instances():
    model = tiny_model().eval()  # all scores near 0.01
    found = model(inputs_of((40, 60)))[0]["instances"]
    assert len(found) == 0
    assert found.pred_masks.shape == (0, 40, 60)
    assert found.pred_classes.dtype == torch.int64


def test_nothing_found_with_a_coarser_mask_feature():
    features = '("p3", "p4")'
    model = tiny_model("MODEL.SOLO.MASK_FEATURE.IN_FEATURES", features).eval()
    assert len(model(inputs_of((40, 60)))[0]["instances"]) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 5)])
def test_tiny_images_run(size):
    # 64 channels: P5 is one pixel, and GroupNorm needs two values in a group.
    model = tiny_model(*LIVELY, "MODEL.SOLO.MASK_FEATURE.CONV_DIM", 64).eval()
    found = model(inputs_of(size))[0]["instances"]
    assert found.pred_masks.shape[1:] == size
    model.train()
    losses = model([noise_input(size, [(0, 0, 1, 1)], [0])])
    assert all(torch.isfinite(loss) for loss in losses.values())


def same_result(first, second):
    assert len(first) == len(second)
    torch.testing.assert_close(first.scores, second.scores, atol=1e-5, rtol=1e-4)
    assert torch.equal(first.pred_classes, second.pred_classes)
    # A pixel on the threshold itself may fall on either side.
    assert (first.pred_masks != second.pred_masks).float().mean() < 1e-3


def test_a_batch_gives_what_its_images_give_one_by_one():
    # In float64, so that no near-tie of scores depends on how a batch is convolved.
    model = tiny_model(*LIVELY).double().eval()
    inputs = inputs_of((64, 96), (64, 96), (50, 70))  # one canvas: 64 x 96
    for together, x in zip(model(inputs), inputs, strict=True):
        same_result(together["instances"], model([x])[0]["instances"])


def gradients(model, batch):
    model.zero_grad(set_to_none=True)
    losses = model(batch)
    sum(losses.values()).backward()
    return losses, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def empty_input(seed=0):
    return noise_input((64, 96), seed=seed)


def bare_input():
    return {**empty_input(), "instances": Instances((64, 96))}


def void_input():
    """Objects of which cropping has left no pixel."""
    return noise_input((64, 96), [(0, 0, 0, 0), (5, 5, 5, 9)], [0, 1])


@pytest.mark.parametrize("make", [empty_input, bare_input, void_input])
def test_every_parameter_gets_a_gradient_without_any_object(make):
    losses, grads = gradients(tiny_model(), [make(), make()])
    assert losses["loss_mask"].item() == 0
    assert torch.isfinite(losses["loss_category"])
    assert [name for name, grad in grads.items() if grad is None] == []
    assert all(torch.isfinite(grad).all() for grad in grads.values())


def test_half_empty_batch_trains(training_batch):
    losses, grads = gradients(tiny_model(), [training_batch[0], empty_input()])
    assert losses["loss_mask"].item() > 0
    assert all(torch.isfinite(loss) for loss in losses.values())
    kernel = grads["head.kernel_predictor.weight"]
    assert torch.isfinite(kernel).all()
    assert kernel.abs().amax() > 0


def test_losses_fall_on_one_batch(training_batch):
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    values = []
    for _ in range(20):
        losses, _ = gradients(model, training_batch)
        optimizer.step()
        values.append(sum(losses.values()).item())
    assert values[-1] < 0.8 * values[0]


def test_training_without_ground_truth_says_what_is_missing():
    with pytest.raises(ValueError, match='expects "instances"'):
        tiny_model()([{"image": torch.zeros(3, 64, 64)}])


def test_bfloat16_autocast_trains_and_infers(training_batch):
    model = tiny_model(*LIVELY)
    plain, _ = gradients(model, training_batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(training_batch)
    for key, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(plain[key].item(), rel=0.05)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(training_batch)[0]["instances"]
    assert len(found) > 0
    assert found.scores.dtype == torch.float32
    assert torch.isfinite(found.scores).all()


def test_compiled_backbone_and_head_give_the_same_result(training_batch):
    model = tiny_model(*LIVELY)
    expected, _ = gradients(model, training_batch)
    compiled = copy.deepcopy(model)
    compiled.backbone = torch.compile(compiled.backbone, backend="eager", fullgraph=True)
    compiled.head.forward = torch.compile(compiled.head.forward, backend="eager", fullgraph=True)
    losses, grads = gradients(compiled, training_batch)
    for key, loss in losses.items():
        torch.testing.assert_close(loss, expected[key])
    assert all(grad is not None for grad in grads.values())
    found = compiled.eval()(training_batch)[0]["instances"]
    same_result(found, model.eval()(training_batch)[0]["instances"])


@pytest.mark.parametrize("key", ["IN_FEATURES", "MASK_FEATURE.IN_FEATURES"])
@pytest.mark.parametrize("names", ['("p1",)', "()"])
def test_features_that_the_backbone_lacks_are_named(key, names):
    cfg = tiny_config(f"MODEL.SOLO.{key}", names)
    with pytest.raises(ValueError, match=rf"SOLO\.{key} is .*the backbone yields \['p2'"):
        build_model(cfg)


def test_model_moves_with_its_statistics():
    model = tiny_model().to(torch.float64)
    assert model.pixel_mean.dtype == torch.float64
    assert "pixel_mean" not in model.state_dict()  # in the config, not in the weights


def distributed_worker(rank, batches, init_file, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(tiny_model())
    for name, batch in batches.items():
        _, grads = gradients(model, [batch[rank]])
        if rank == 0:
            torch.save({k.removeprefix("module."): v for k, v in grads.items()}, results + name)
    dist.destroy_process_group()


def test_two_processes_give_the_gradients_of_one(tmp_path, training_batch):
    # Uneven numbers of objects, in one case none on one side, in another none at all.
    batches = {
        "uneven": training_batch,
        "half": [empty_input(), training_batch[0]],
        "empty": [empty_input(), empty_input(1)],
    }
    torch.multiprocessing.start_processes(
        distributed_worker,
        args=(batches, str(tmp_path / "init"), str(tmp_path / "grads_")),
        nprocs=2,
        start_method="forkserver",
    )
    model = tiny_model()
    for name, batch in batches.items():
        _, expected = gradients(model, batch)
        if name == "empty":
            # No positive in any process: each divides by 1, and their mean is half of the sum.
            expected = {key: grad / 2 for key, grad in expected.items()}
        got = torch.load(tmp_path / f"grads_{name}")
        assert got.keys() == expected.keys()
        for key, grad in expected.items():
            torch.testing.assert_close(got[key], grad, atol=1e-5, rtol=1e-3, msg=f"{name}: {key}")
