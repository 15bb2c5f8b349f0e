"""Faults of the network and its arithmetic: what a CPU, a number type or a graph can do wrong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from builders import RESNET18, SOFT, noise_input, rectangles, tiny_config, tiny_model
from detectron2.export import TracingAdapter
from detectron2.utils.analysis import flop_count_operators
from head_builders import HEADS, make_features, make_head, perturb

import solo_d2
from solo_d2 import layers
from solo_d2.layers import capture, dynamic_conv, in_one_type, memory, products
from solo_d2.modeling import GridSpec
from solo_d2.modeling.heads import make_masks
from solo_d2.modeling.lost_objects import LostObjects
from solo_d2.modeling.output import make_instances, resize_masks
from solo_d2.modeling.targets import SOLOTargetAssigner
from solo_d2.modeling.test_time_augmentation import SOLOWithTTA

PACKAGE = Path(solo_d2.__file__).parent
NMS = {
    "matrix": layers.matrix_nms,
    "fast": layers.fast_nms,
    "soft": layers.soft_nms,
    "hard": layers.hard_nms,
}

# ------------------------------------------------------------------ masks of very few pixels

SHAPES = [(k, *size) for k in (1, 2, 5, 129) for size in [(1, 1), (1, 2), (3, 1), (1, 5), (3, 21)]]


def leave_dirt(count):
    """Fill memory that the next result may come to lie in with what no count can be."""
    dirt = [torch.full((n,), 0x7F00AA, dtype=torch.int32) for n in (count, count**2, 64)]
    del dirt


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("full", [False, True], ids=["empty", "random"])
def test_overlaps_of_small_masks_are_exact(shape, full):
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.5
    masks &= full
    flat = masks.flatten(1).double()
    for _ in range(3):
        leave_dirt(len(masks))
        assert torch.equal(layers.pairwise_intersection(masks).double(), flat @ flat.T)
        labels = torch.arange(len(masks)) % 2  # class by class where there are many masks
        same = labels[:, None] == labels
        found = layers.pairwise_intersection(masks, labels)
        assert torch.equal(found.double(), (flat @ flat.T) * same)
        iou = layers.pairwise_mask_iou(masks)
        assert 0 <= iou.min() <= iou.max() <= 1


@pytest.mark.parametrize("name", NMS)
@pytest.mark.parametrize(
    ("pixels", "labels", "expected"),
    [
        ([1, 0], [0, 0], [0.9, 0.8]),  # nothing is shared
        ([0, 0], [0, 0], [0.9, 0.8]),
        ([1, 1], [0, 1], [0.9, 0.8]),
        ([1], [0], [0.9]),
        (
            [1, 1],
            [0, 0],
            {"matrix": 0.8 * 0.1353353, "soft": 0.8 * 0.1353353, "fast": 0, "hard": 0},
        ),
    ],
    ids=["one empty", "both empty", "two classes", "alone", "the same pixel"],
)
def test_nms_of_masks_of_one_pixel(name, pixels, labels, expected):
    masks = torch.tensor(pixels, dtype=torch.bool).view(-1, 1, 1)
    scores = torch.tensor([0.9, 0.8])[: len(pixels)]
    if isinstance(expected, dict):
        expected = [0.9, expected[name]]  # IoU 1: exp(-1 / 0.5), or removed
    leave_dirt(2)
    found = NMS[name](masks, torch.tensor(labels), scores)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_no_masks_on_any_device_overlap_nothing():
    for device in ("cpu", "meta"):
        masks = torch.zeros((0, 4, 4), dtype=torch.bool, device=device)
        assert layers.pairwise_mask_iou(masks).shape == (0, 0)
        assert layers.pairwise_mask_iou(masks).device.type == device


@pytest.mark.parametrize("name", ["matrix", "fast", "soft", "hard"])
def test_a_model_is_built_without_memory(name):
    with torch.device("meta"):
        model = tiny_model("MODEL.SOLO.NMS_TYPE", name, "MODEL.DEVICE", "meta")
    assert model.head.category_predictor.weight.is_meta


# ------------------------------------------------------------------ private functions of torch


def missing(monkeypatch):
    monkeypatch.delattr(torch, "_int_mm")


def unknown_to_this_cpu(monkeypatch):
    def fail(*args):
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(torch, "_int_mm", fail)


def other_arguments(monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", lambda left: left)


def memory_as_it_was(monkeypatch):
    def dirt(left, right):
        return torch.full((left.shape[0], right.shape[1]), -654582912, dtype=torch.int32)

    monkeypatch.setattr(torch, "_int_mm", dirt)


def wrong_for_odd_rows(monkeypatch):
    whole = torch._int_mm

    def product(left, right):
        return whole(left, right) + left.shape[0] % 2

    monkeypatch.setattr(torch, "_int_mm", product)


@pytest.fixture
def fresh_check():
    products.integer_products_are_right.cache_clear()
    yield
    products.integer_products_are_right.cache_clear()


@pytest.mark.parametrize(
    "fault",
    [missing, unknown_to_this_cpu, other_arguments, memory_as_it_was, wrong_for_odd_rows],
)
def test_the_float_product_takes_over_from_a_private_function(monkeypatch, fresh_check, fault):
    masks = torch.rand((9, 5, 13), generator=torch.Generator().manual_seed(0)) > 0.5
    flat = masks.flatten(1).double()
    fault(monkeypatch)
    assert not products.integer_products_are_right()
    assert torch.equal(layers.pairwise_intersection(masks).double(), flat @ flat.T)


def test_private_functions_of_torch_are_called_in_one_checked_place():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else ""
            if name.startswith("_") and not name.startswith("__"):
                text = ast.unparse(node)
                if text.startswith(("torch.", "F.", "torchvision.")):
                    found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(text)
    assert found == {"layers/products.py": {"torch._int_mm"}}


# ------------------------------------------------------------------ number types

TYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@pytest.mark.parametrize(
    ("feature", "kernels", "expected"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("float32", "float16", "float16"),  # what autocast leaves on CUDA: norm, convolution
        ("float32", "bfloat16", "bfloat16"),
        ("float16", "float32", "float16"),  # vanilla SOLO: parameters are the kernels
        ("bfloat16", "float32", "bfloat16"),
        ("float16", "bfloat16", "float32"),  # neither holds the other
        ("float64", "float32", "float64"),
        ("float64", "bfloat16", "bfloat16"),
    ],
)
@pytest.mark.parametrize(("kernel_size", "biased"), [(1, False), (1, True), (3, False)])
def test_kernels_and_features_of_any_two_types_meet(
    feature, kernels, expected, kernel_size, biased
):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 6, 5, generator=generator)
    weight = torch.rand(3, 4 * kernel_size**2, generator=generator)
    bias = torch.rand(3, generator=generator) if biased else None
    found = dynamic_conv(x.to(TYPES[feature]), weight.to(TYPES[kernels]), kernel_size, bias)
    assert found.dtype == TYPES[expected]
    plain = F.conv2d(
        x[None], weight.view(3, 4, kernel_size, kernel_size), bias, padding=kernel_size // 2
    )
    torch.testing.assert_close(found.float(), plain[0], atol=0.1, rtol=0.02)


def test_one_type_of_one_kind_is_left_alone():
    tensors = [torch.rand(2), torch.rand(3)]
    assert all(a is b for a, b in zip(in_one_type(*tensors), tensors, strict=True))


def float_norms(monkeypatch):
    """Group normalisation as autocast runs it on CUDA: float32 comes out, whatever went in."""

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            weight, bias = self.weight.float(), self.bias.float()
            return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps)

    monkeypatch.setattr(torch.nn.GroupNorm, "forward", forward)


def half_norms(monkeypatch):
    """Group normalisation whose result has the type of the convolution before it."""

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            weight, bias = self.weight.float(), self.bias.float()
            return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)

    monkeypatch.setattr(torch.nn.GroupNorm, "forward", forward)


each_norm = pytest.mark.parametrize("norms", [float_norms, half_norms])
each_half = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
each_head = pytest.mark.parametrize("name", HEADS)


@each_half
@each_norm
@each_head
def test_masks_made_after_autocast_are_those_without(monkeypatch, name, norms, dtype):
    head = perturb(make_head(*HEADS[name], "MODEL.SOLO.PRIOR_PROB", 0.5)).eval()
    cells = torch.arange(0, head.grid.num_cells, 7)
    with torch.no_grad():
        expected = head.mask_probs(head(make_features()), 1, cells, size=(16, 24))
        norms(monkeypatch)
        with torch.autocast("cpu", dtype=dtype):
            predictions = head(make_features())
        found = head.mask_probs(predictions, 1, cells, size=(16, 24))
    assert found.dtype == torch.float32
    assert expected.std() > 0.05  # there is something to tell apart
    assert (found - expected).abs().mean() < 0.02


ALL_SCORES = (
    *("MODEL.SOLO.SCORE_THRESH_TEST", 0.0, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0),
    *("MODEL.SOLO.MASK_THRESH_TEST", 1e-5),
)
PANOPTIC = (
    *("MODEL.META_ARCHITECTURE", "PanopticSOLO", "MODEL.SEM_SEG_HEAD.NAME", "SOLOSemSegHead"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4),
)
DEFORM = ("MODEL.SOLO.DEFORM", "all")
DEFORM_BACKBONE = (
    *("MODEL.BACKBONE.NAME", "build_deform_resnet_fpn_backbone", "MODEL.RESNETS.DEPTH", 50),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 256),
    *("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True]),
)
MODELS = {
    **HEADS,
    "soft": SOFT,
    "soft, masks alone": (*SOFT, "MODEL.SOLO.DETAILS.FUSE", False),
    "panoptic": PANOPTIC,
    "deformable": DEFORM,
    "deformable backbone": DEFORM_BACKBONE,
    "region grid": ("MODEL.SOLO.ALIGN", "region_grid"),
    "max pool": ("MODEL.SOLO.ALIGN", "adaptive_max_pool"),
    "no norm": ("MODEL.SOLO.NORM", ""),
}
PICTURE = [{"image": noise_input((60, 90))["image"]}]


def find(model, inputs=PICTURE):
    with torch.no_grad():
        return model(inputs)[0]["instances"]


def assert_about_equal(found, expected):
    assert len(expected) > 50
    assert abs(len(found) - len(expected)) <= 0.3 * len(expected)
    total = expected.scores.sum().item()
    assert found.scores.sum().item() == pytest.approx(total, rel=0.15)
    assert found.pred_masks.dtype == torch.bool
    assert found.scores.dtype == torch.float32


@each_norm
@pytest.mark.parametrize("name", MODELS)
def test_every_model_predicts_under_autocast(monkeypatch, name, norms):
    model = tiny_model(*MODELS[name], *ALL_SCORES).eval()
    expected = find(model)
    norms(monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = find(model)
    assert_about_equal(found, expected)
    if name.startswith("soft"):
        assert found.pred_mattes.dtype == torch.float32


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@each_half
@pytest.mark.parametrize("name", MODELS)
def test_every_model_predicts_under_autocast_on_a_gpu(name, dtype):
    model = tiny_model(*MODELS[name], *ALL_SCORES).eval().cuda()
    expected = find(model)
    with torch.autocast("cuda", dtype=dtype):
        assert_about_equal(find(model), expected)
    assert_about_equal(find(model.to(dtype)), expected)


@each_norm
@pytest.mark.parametrize("name", ["vanilla", "decoupled", "dynamic", "decoupled_dynamic"])
def test_multi_scale_testing_under_autocast(monkeypatch, name, norms):
    keys = (*HEADS[name], *ALL_SCORES)
    model = tiny_model(*keys).eval()
    cfg = tiny_config(*keys, "TEST.AUG.MIN_SIZES", (48, 64), "INPUT.MIN_SIZE_TEST", 48)
    augmented = SOLOWithTTA(cfg, model).eval()
    expected = find(augmented)
    norms(monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_about_equal(find(augmented), expected)


@each_norm
@pytest.mark.parametrize("name", [*HEADS, "soft", "deformable"])
def test_every_model_trains_and_then_predicts_under_autocast(monkeypatch, name, norms):
    norms(monkeypatch)
    model = tiny_model(*MODELS[name], *ALL_SCORES)
    batch = [noise_input((64, 96), [(4, 4, 40, 44)], [0])]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert len(find(model, batch)) > 50


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.bfloat16) for name in MODELS),
        *((name, torch.float16) for name in ("vanilla", "dynamic", "deformable", "region grid")),
        *((name, torch.float64) for name in ("dynamic", "soft")),
    ],
    ids=str,
)
def test_a_whole_model_of_another_type_predicts(name, dtype):
    model = tiny_model(*MODELS[name], *ALL_SCORES).eval()
    expected = find(model)
    model = model.to(dtype)
    assert_about_equal(find(model), expected)
    assert_about_equal(find(model, [{"image": PICTURE[0]["image"].double()}]), expected)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (None, "got NoneType"),
        (torch.zeros(3, 8, 8).numpy(), "got ndarray"),
        ([[1.0]], "got list"),
        (torch.zeros(8, 8), r"got \(8, 8\)"),
        (torch.zeros(8, 8, 3), r"got \(8, 8, 3\)"),
        (torch.zeros(1, 8, 8), r"shape \(3, H, W\)"),
        (torch.zeros(4, 8, 8), r"shape \(3, H, W\)"),
        (torch.zeros(1, 3, 8, 8), r"got \(1, 3, 8, 8\)"),
        (torch.zeros(3, 0, 8), r"got \(3, 0, 8\)"),
    ],
    ids=["none", "numpy", "list", "gray", "channels last", "one", "four", "batch", "no row"],
)
@pytest.mark.parametrize("train", [False, True], ids=["test", "train"])
def test_what_is_no_image_is_told(image, said, train):
    model = tiny_model().train(train)
    inputs = {"image": image, "instances": rectangles((8, 8), [(0, 0, 4, 4)], [0])}
    with pytest.raises(ValueError, match=said):
        model([inputs])


# ------------------------------------------------------------------ recorded graphs

MASKS = torch.zeros(3, 16, 24, dtype=torch.bool)
MASKS[:, 4:9, 3:15] = True
MASKS[1, 0, 0] = MASKS[2, 7, 23] = True
LABELS, SCORES = torch.tensor([0, 1, 0]), torch.tensor([0.5, 0.9, 0.7])
FUNCTIONS = {
    "mask_profiles": layers.mask_profiles,
    "mask_areas": layers.mask_areas,
    "mask_occupancy": layers.mask_occupancy,
    "masks_to_boxes": layers.masks_to_boxes,
    "downsample_masks": lambda m: layers.downsample_masks(m, 4),
    "binarize": lambda m: layers.binarize(m.float() * 0.8, 0.5),
    "pairwise_intersection": layers.pairwise_intersection,
    "pairwise_mask_iou": layers.pairwise_mask_iou,
    "pairwise_mask_iou of classes": lambda m: layers.pairwise_mask_iou(m, LABELS),
    "resize_masks": lambda m: resize_masks(m.float(), (64, 96), (60, 90), (120, 180), 0.5),
    "matrix_nms": lambda m: layers.matrix_nms(m, LABELS, SCORES),
    "fast_nms": lambda m: layers.fast_nms(m, LABELS, SCORES),
    "dice_loss": lambda m: layers.dice_loss(m.float() * 0.8, m),
}


tracing = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace_method:FutureWarning"
)


@tracing
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_masks_can_be_traced(name):
    function = FUNCTIONS[name]
    traced = torch.jit.trace(function, (MASKS,), check_trace=False)
    for masks in (MASKS, MASKS.roll((2, 3), (1, 2)), MASKS & False):  # not the example's values
        torch.testing.assert_close(traced(masks), function(masks))


@tracing
@pytest.mark.parametrize("example", [0, 1, 3])
@pytest.mark.parametrize("nms", [layers.matrix_nms, layers.fast_nms])
def test_a_traced_nms_takes_any_number_of_masks(nms, example):
    inputs = MASKS, LABELS, SCORES
    traced = torch.jit.trace(nms, tuple(x[:example] for x in inputs), check_trace=False)
    for count in range(4):
        some = tuple(x[:count] for x in inputs)
        torch.testing.assert_close(traced(*some), nms(*some))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "resize_masks"])
def test_functions_of_masks_can_be_compiled_in_one_graph(name):
    function = FUNCTIONS[name]
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(MASKS), function(MASKS))


def test_what_is_captured_is_known():
    assert not capture.capturing()
    seen = []

    def look(x):
        seen.append((capture.capturing(), capture.exporting()))
        return x + 1

    x = torch.zeros(2)
    torch.jit.trace(look, (x,), check_trace=False)
    assert seen == [(True, True)]  # the graph stands for the code
    compiled = torch.compile(
        lambda x: x + capture.capturing() + 2 * capture.exporting(), backend="eager"
    )
    assert compiled(x).tolist() == [1, 1]  # the code runs again


# What hard and soft NMS do on the host is a constant of the trace.
TRACED = {
    **{name: HEADS[name] for name in ("vanilla", "dynamic_3x3", "dynamic_separate")},
    "soft": SOFT,
    "fast NMS": ("MODEL.SOLO.NMS_TYPE", "fast"),
    "nothing in the example": (),
    "few": ("MODEL.SOLO.PRE_NMS_TOPK_TEST", 40, "TEST.DETECTIONS_PER_IMAGE", 20),
}


def perturbed(model):
    """Masks with an outline, so that windows of one image are not those of another."""
    perturb(model.head)
    model.head.category_predictor.bias.data.fill_(-1.0)
    return model.eval()


@tracing
@pytest.mark.parametrize("name", TRACED)
def test_a_traced_model_finds_what_the_model_finds(name):
    few = ("MODEL.SOLO.SCORE_THRESH_TEST", 0.4, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)
    model = perturbed(tiny_model(*TRACED[name], *few, "MODEL.SOLO.PRIOR_PROB", 0.5))
    images = [noise_input((60, 90), seed=seed)["image"].float() for seed in (0, 1)]
    adapter = TracingAdapter(model, [{"image": images[0]}])
    bias = model.head.category_predictor.bias.data
    if name == "nothing in the example":
        bias -= 20
    with torch.no_grad():
        traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
        if name == "nothing in the example":
            assert len(find(model)) == 0
            bias += 20
        for image in images:
            found = adapter.outputs_schema(traced(image))[0]["instances"]
            expected = find(model, [{"image": image}])
            assert len(found) == len(expected) > 2
            torch.testing.assert_close(found.scores, expected.scores)
            assert torch.equal(found.pred_classes, expected.pred_classes)
            # Other orders of the same sums: pixels on the threshold itself may differ.
            assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-3


@tracing
@pytest.mark.parametrize("name", ["vanilla", "decoupled", "soft", "panoptic", "deformable", "hard"])
def test_flops_of_a_model_with_detections_are_counted(name):
    hard = {"hard": ("MODEL.SOLO.NMS_TYPE", "hard")}
    model = tiny_model(*RESNET18, *{**MODELS, **hard}[name], *ALL_SCORES).eval()
    inputs = [{"image": PICTURE[0]["image"].float()}]
    before = find(model, inputs)
    counts = flop_count_operators(model, inputs)
    assert counts["conv"] > 0.05  # 10^9
    after = find(model, inputs)
    assert torch.equal(before.pred_masks, after.pred_masks)


# ------------------------------------------------------------------ memory

CPU = torch.device("cpu")
GIB = 2**30


@pytest.fixture
def free(monkeypatch):
    """Set the free memory; None stands for a system that does not tell."""

    def set_free(value):
        monkeypatch.setattr(memory, "free_memory", lambda device: value)

    return set_free


def check_one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("needed", "left", "fits"),
    [
        (900, 1000, True),  # nine tenths
        (901, 1000, False),
        (4 * GIB, None, True),  # not known
        (1, 0, True),  # too small to be looked at
        (2**28 - 1, 0, True),
        (2**28, 0, False),
    ],
)
def test_a_tenth_of_the_free_memory_is_left(free, needed, left, fits):
    scale = GIB if left == 1000 else 1
    free(left if left is None else left * scale)
    if fits:
        memory.check_memory(needed * scale, CPU, "things", "use less")
    else:
        with pytest.raises(MemoryError, match=r"things need .* GiB .*; use less"):
            memory.check_memory(needed * scale, CPU, "things", "use less")


def full_masks(count):
    return torch.ones(count, 16, 24)


def test_masks_that_do_not_fit_are_told_before_any_is_made(free, monkeypatch):
    free(GIB)
    monkeypatch.setattr("solo_d2.modeling.output.np.zeros", lambda *args, **kw: 1 / 0)
    with pytest.raises(MemoryError) as error:
        resize_masks(full_masks(100), (64, 96), (64, 96), (5000, 5000), 0.5)
    check_one_line(
        error, "100 masks of 5000x5000 pixels need 2.3 GiB", "1.0 GiB are free", "height"
    )


def test_only_rows_that_are_written_count_on_a_cpu(free):
    free(GIB)
    soft = torch.zeros(100, 16, 24)
    soft[:, 7, 5] = 1  # a sixteenth of the height, and its neighbours
    masks, _ = resize_masks(soft, (64, 96), (64, 96), (4000, 3000), 0.5)
    assert masks.shape == (100, 4000, 3000)  # 1.1 GiB
    assert masks[0].any()
    with pytest.raises(MemoryError):
        resize_masks(full_masks(100), (64, 96), (64, 96), (4000, 3000), 0.5)


@pytest.mark.parametrize("size", [(2**20, 2**20), (2**40, 2**20)], ids=["1 TiB", "no address"])
def test_what_the_system_refuses_is_a_line(monkeypatch, size):
    import solo_d2.modeling.output as output

    with pytest.raises(MemoryError) as error:
        output._blank_masks((2**10, *size), 0, CPU)
    check_one_line(error, f"1024 masks of {size[0]}x{size[1]} pixels need", "DETECTIONS_PER_IMAGE")


def test_what_torch_cannot_allocate_is_a_line(free):
    free(None)
    with pytest.raises(MemoryError) as error:
        memory.allocate((2**30, 2**30), torch.float32, CPU, "mattes", "use less")
    check_one_line(error, "mattes need", "use less")


@pytest.mark.parametrize("name", ["dynamic", "soft", "panoptic"])
def test_an_image_that_is_too_large_is_told_and_the_next_one_is_found(free, name):
    model = tiny_model(*MODELS[name], *ALL_SCORES).eval()
    free(GIB)
    huge = [{**PICTURE[0], "height": 30000, "width": 40000}]
    with pytest.raises(MemoryError) as error:
        find(model, huge)
    check_one_line(error, "of 30000x40000 pixels need", "1.0 GiB are free")
    assert len(find(model)) > 50


FILES = {
    "/proc/meminfo": "MemTotal: 9999999 kB\nMemAvailable: 4000000 kB\n",
    "/proc/self/statm": "1000 10 1 1 0 1 0",
}
GROUP_1 = "/sys/fs/cgroup/memory"
GROUP_2 = "/sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (FILES, 4000000 * 1024),
        (
            {
                **FILES,
                "/proc/self/cgroup": "4:cpu,memory:/job\n0::/",
                f"{GROUP_1}/job/memory.limit_in_bytes": "3000000",
                f"{GROUP_1}/job/memory.usage_in_bytes": "2000000",
                f"{GROUP_1}/job/memory.stat": "cache 7\ntotal_inactive_file 500000",
            },
            1500000,
        ),
        (
            {
                **FILES,
                "/proc/self/cgroup": "0::/user/job",
                f"{GROUP_2}/user/job/memory.max": "max",
                f"{GROUP_2}/user/job/memory.current": "1000000",
                f"{GROUP_2}/user/memory.max": "3000000",  # of the group above
                f"{GROUP_2}/user/memory.current": "2500000",
            },
            500000,
        ),
        (
            {
                **FILES,
                "/proc/self/cgroup": "0::/",
                f"{GROUP_2}/memory.max": "1000",
                f"{GROUP_2}/memory.current": "2000",
            },
            0,
        ),
        ({**FILES, "/proc/self/cgroup": "3:cpu:/x\n0::/../.."}, 4000000 * 1024),
    ],
    ids=["unknown system", "no group", "version 1", "version 2", "overdrawn", "outside"],
)
def test_free_memory_is_the_least_that_the_system_says(monkeypatch, files, expected):
    monkeypatch.setattr(memory, "_lines", lambda path: files.get(str(path), "").splitlines())
    assert memory.free_memory(CPU) == expected


def test_free_memory_of_this_system_is_a_number_or_unknown():
    found = memory.free_memory(CPU)
    assert found is None or found > 0
    assert memory.free_memory(torch.device("meta")) is None


@pytest.mark.parametrize("empty", [[0], [3], [0, 1, 2, 3], [1, 2], [0, 2], []], ids=str)
def test_dropped_masks_leave_the_others_as_they_were(empty):
    masks = torch.zeros(4, 6, 9, dtype=torch.bool)
    for k in range(4):
        if k not in empty:
            masks[k, k : k + 2, 2 * k : 2 * k + 3] = True
    mattes = torch.rand(4, 6, 9)
    kept = [k for k in range(4) if k not in empty]
    expected, soft = masks[kept].clone(), mattes[kept].clone()
    boxes = layers.masks_to_boxes(masks)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    place = masks.data_ptr()
    found = make_instances(scores, torch.arange(4), masks, boxes, pred_mattes=mattes)
    assert torch.equal(found.pred_masks, expected)
    assert torch.equal(found.pred_mattes, soft)
    assert found.pred_classes.tolist() == kept
    assert torch.equal(found.pred_boxes.tensor, layers.masks_to_boxes(expected))
    assert not kept or found.pred_masks.data_ptr() == place  # no second set of masks


# ------------------------------------------------------------------ objects that nothing learns


def make_assigner(batches=2, share=0.02):
    grid = GridSpec.build((4,), ((4, 32),), [8])
    assigner = SOLOTargetAssigner(grid, 3, 0.2, (4,))
    assigner.lost_objects = LostObjects(batches, share)
    return assigner


@pytest.mark.parametrize(
    ("boxes", "lost"),
    [
        ([(0, 0, 8, 8)], 0),
        ([], 0),
        ([(0, 0, 3, 3)], 1),  # below the range
        ([(0, 0, 60, 60)], 1),  # above it
        ([(0, 0, 8, 8), (1, 1, 7, 7)], 1),  # the larger one has its cell taken
        ([(0, 0, 8, 8), (40, 40, 48, 48)], 0),
        ([(0, 0, 3, 3), (0, 0, 60, 60), (0, 0, 8, 8)], 2),
    ],
)
def test_objects_without_a_cell_are_counted(boxes, lost):
    assigner = make_assigner()
    truth = rectangles((64, 64), boxes, [0] * len(boxes))
    for step in (1, 2):
        assigner([truth], (64, 64), CPU)
        assert assigner.lost_objects.seen == step * len(boxes)
        assert int(assigner.lost_objects.lost) == step * lost


@pytest.mark.parametrize(
    ("lost", "kept", "warned"), [(1, 49, False), (1, 48, True), (0, 5, False), (0, 0, False)]
)
def test_lost_objects_are_warned_of_once(caplog, lost, kept, warned):
    objects = LostObjects(batches=2, share=0.02)
    owner = torch.full((1, 60), -1)
    owner[0, :kept] = torch.arange(kept)
    for batch in range(4):
        assert ("belong to no cell" in caplog.text) == (warned and batch >= 2)
        objects.add(owner, kept + lost)
    assert caplog.text.count("belong to no cell") == warned
    if warned:
        assert "2 of the first 98 objects (2 %)" in caplog.text
        assert "NUM_GRIDS" in caplog.text


@pytest.mark.parametrize("size", [None, (3, 4), (6, 8)])
@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_logits_of_others_are_not_overwritten(size, upsample, dtype):
    feature = torch.rand((3, 4), generator=torch.Generator().manual_seed(0)).to(dtype)
    before = feature.clone()
    for logits in (feature[None], feature.expand(5, -1, -1)):
        masks = make_masks(logits, upsample=upsample, size=size)
        again = make_masks(logits.clone(), upsample=upsample, size=size, overwrite=True)
        assert torch.equal(masks, again)
        assert torch.equal(feature, before)
