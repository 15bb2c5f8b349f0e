"""Every key of the config matters, and wrong values are named."""

from __future__ import annotations

import pytest
import torch
from builders import SOFT, tiny_config, tiny_model
from detectron2.config import CfgNode, get_cfg

from solo_d2 import SOLO_HEAD_REGISTRY, add_solo_config
from solo_d2.config import validate_config
from solo_d2.engine import SOLOTrainer
from solo_d2.modeling import DynamicSOLOHead
from solo_d2.modeling.levels import has_unread_levels


def parameters(model, batch):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def initial(model, batch):
    """Sums of the freshly made weights."""
    return {name: value.double().sum().item() for name, value in model.state_dict().items()}


def head(model, batch):
    return type(model.head).__name__


def losses(model, batch):
    with torch.no_grad():
        return {key: loss.item() for key, loss in model(batch).items()}


def kept(model, batch):
    """How many values wait for the backward pass."""
    counts = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: counts.append(x.numel()), lambda x: x):
        model(batch)
    return sum(counts)


def trainable(model, batch):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def statistics(model, batch):
    """Buffers after a pass in training mode."""
    losses(model, batch)
    return {name: value.double().sum().item() for name, value in model.named_buffers()}


def result(model, batch):
    """Scores and areas of what the model finds."""
    model.eval()
    model.head.category_predictor.bias.data.zero_()  # scores near one half: many candidates
    found = model(batch)[0]["instances"]
    return found.scores.tolist(), found.pred_masks.sum((1, 2)).tolist()


HARD = ("MODEL.SOLO.NMS_TYPE", "hard")
DECOUPLED_DYNAMIC = ("MODEL.SOLO.HEAD", "DecoupledDynamicSOLOHead", "MODEL.SOLO.KERNEL_DIM", 64)

# Key: (another value, what it changes, what else must be set).
SOLO_KEYS = {
    "HEAD": ("OtherHead", head, ()),
    "NUM_CLASSES": (5, parameters, ()),
    "IN_FEATURES": (["p3", "p3", "p4", "p5", "p6"], losses, ()),
    "NUM_GRIDS": ([14, 10, 8, 6, 4], losses, ()),
    "SCALE_RANGES": ([[1, 12], [6, 24], [12, 48], [24, 96], [48, 512]], losses, ()),
    "ASSIGNER": ("dynamic_soft", losses, ()),
    "CENTER_REGION": (0.8, losses, ()),
    "NUM_CONVS": (2, parameters, ()),
    "NUM_COORD_CONVS": (2, parameters, ("MODEL.SOLO.NUM_CONVS", 2)),
    "CONV_DIM": (64, parameters, ()),
    "NORM": ("", parameters, ()),
    "DEFORM": ("last", parameters, ()),
    "DEFORM_MODULATED": (False, parameters, ("MODEL.SOLO.DEFORM", "all")),
    "RECOMPUTE_TOWERS": (True, kept, ()),
    "ALIGN": ("region_grid", losses, ()),
    "PRIOR_PROB": (0.1, initial, ()),
    "KERNEL_DIM": (64, parameters, ()),
    "KERNEL_SIZE": (3, parameters, ()),
    "NUM_KERNEL_GROUPS": (2, parameters, DECOUPLED_DYNAMIC),
    "MASK_FEATURE.TYPE": ("separate", parameters, ()),
    "MASK_FEATURE.IN_FEATURES": (["p2", "p3", "p4"], parameters, ()),
    "MASK_FEATURE.NUM_CONVS": (2, parameters, ("MODEL.SOLO.MASK_FEATURE.TYPE", "separate")),
    "MASK_FEATURE.CONV_DIM": (64, parameters, ()),
    "MASK_FEATURE.COORDS": (False, parameters, ()),
    "DETAILS.CONV_DIM": (64, parameters, SOFT),
    "DETAILS.NUM_CONVS": (1, parameters, SOFT),
    "DETAILS.IMAGE": (False, parameters, SOFT),
    "DETAILS.FUSE": (False, losses, SOFT),
    "MASK_LOSS": ("bce", losses, ()),
    "MASK_LOSS_POINTS": (100, losses, ()),
    "MASK_TARGETS": ("coverage", losses, ()),
    "CATEGORY_LOSS": ("quality_focal", losses, ()),
    "AUX_SEMANTIC_LOSS_WEIGHT": (1.0, losses, ()),
    "FREEZE_CATEGORY_BRANCH": (True, trainable, ()),
    "CATEGORY_LOSS_WEIGHT": (2.0, losses, ()),
    "MASK_LOSS_WEIGHT": (1.0, losses, ()),
    "FOCAL_LOSS_ALPHA": (0.5, losses, ()),
    "FOCAL_LOSS_GAMMA": (1.0, losses, ()),
    "SCORE_THRESH_TEST": (0.5, result, ()),
    "MASK_THRESH_TEST": (0.52, result, ()),
    "PRE_NMS_TOPK_TEST": (5, result, ("TEST.DETECTIONS_PER_IMAGE", 5)),
    "NMS_TYPE": ("hard", result, ()),
    "NMS_KERNEL": ("linear", result, ()),
    "NMS_SIGMA": (2.0, result, ()),
    "NMS_THRESH_TEST": (0.1, result, HARD),
    "FINAL_SCORE_THRESH_TEST": (0.3, result, ()),
    "SCORE_TEMPERATURE": (0.5, result, ()),
    "REFINE_MASKS_TEST": (True, result, ()),
}

# Each has a test of its own: below, tests/engine/test_ema.py, test_freezing.py beside it, and
# tests/faults/test_training.py.
SOLVER_KEYS = (
    *("OPTIMIZER", "BACKBONE_MULTIPLIER", "FREEZE_BACKBONE_ITERS", "FLAT_SHARE"),
    *("EMA.ENABLED", "EMA.DECAY"),
)

TIMM = ("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "test_efficientnet")
TIMM_KEYS = {
    "NAME": ("test_resnet", parameters, TIMM),
    "WEIGHTS": ("weights.pth", initial, TIMM),
    "FREEZE_AT": (2, trainable, TIMM),
    "NORM_EVAL": (False, statistics, TIMM),
}


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_the_tables_hold_every_key():
    cfg = get_cfg()
    before = set(leaves(cfg))
    add_solo_config(cfg)
    assert set(leaves(cfg.MODEL.SOLO)) == set(SOLO_KEYS)
    assert set(leaves(cfg.MODEL.TIMM)) == set(TIMM_KEYS)
    added = {f"MODEL.SOLO.{key}" for key in SOLO_KEYS}
    added |= {f"MODEL.TIMM.{key}" for key in TIMM_KEYS}
    added |= {f"SOLVER.{key}" for key in SOLVER_KEYS}
    added.add("DATASETS.TRAIN_SHARES")  # tests/data/test_build.py
    added.add("TEST.DIAGNOSE")  # tests/evaluation/test_diagnosis.py
    added.add("TEST.AUG.MIN_SHARE")  # tests/modeling/test_test_time_augmentation.py
    added.add("TEST.BOUNDARY_AP")  # tests/evaluation/test_boundary.py
    tiles = ("ENABLED", "SIZE", "OVERLAP", "BATCH_SIZE", "DETECTIONS_PER_IMAGE")
    added |= {f"TEST.TILES.{key}" for key in tiles}  # tests/modeling/test_tiles.py
    added |= {f"INPUT.LSJ.{key}" for key in ("ENABLED", "MIN_SCALE", "MAX_SCALE", "SIZE")}
    paste = ("ENABLED", "PROB", "NUM_OBJECTS", "SCALES", "MIN_VISIBLE")
    added |= {f"INPUT.COPY_PASTE.{key}" for key in paste}  # both: tests/data/test_recipe.py
    added.add("MODEL.RESNETS.NORM_EVAL")  # tests/modeling/test_backbones.py
    added.add("MODEL.FPN.PATH_AGGREGATION")  # tests/modeling/test_pyramid.py
    added.add("INPUT.MAX_VALUE")  # tests/faults/test_images.py
    added.add("INPUT.RESIZE_FILTER")  # tests/agreement/test_inputs.py
    added.add("DATALOADER.SKIP_UNREADABLE")  # tests/faults/test_training.py
    added.add("SOLVER.ACCUMULATE_STEPS")  # tests/engine/test_accumulation.py
    added |= {"SOLVER.TRACKERS", "TEST.DRAWN_IMAGES"}  # tests/engine/test_trackers.py
    added.add("SOLVER.CHECKPOINTS_TO_KEEP")  # tests/engine/test_checkpoints.py
    assert set(leaves(cfg)) - before == added


@pytest.fixture
def other_head():
    """A second registered head, for the time of a test."""

    class OtherHead(DynamicSOLOHead):
        pass

    SOLO_HEAD_REGISTRY.register(OtherHead)
    yield OtherHead
    del SOLO_HEAD_REGISTRY._obj_map["OtherHead"]


def check_key(key, value, observe, given, batch):
    before = observe(tiny_model(*given), batch)
    assert before == observe(tiny_model(*given), batch)  # what changes, changes for the key
    assert before != observe(tiny_model(*given, key, value), batch)


@pytest.mark.parametrize("key", SOLO_KEYS)
def test_every_solo_key_changes_something(key, training_batch, other_head):
    check_key(f"MODEL.SOLO.{key}", *SOLO_KEYS[key], training_batch)


@pytest.mark.parametrize("key", TIMM_KEYS)
def test_every_timm_key_changes_something(key, training_batch, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    torch.manual_seed(7)
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.pth")
    monkeypatch.chdir(tmp_path)
    check_key(f"MODEL.TIMM.{key}", *TIMM_KEYS[key], training_batch)


def test_optimizer_key_names_the_class():
    for name, kind in (("SGD", torch.optim.SGD), ("ADAMW", torch.optim.AdamW)):
        made = SOLOTrainer.build_optimizer(tiny_config("SOLVER.OPTIMIZER", name), tiny_model())
        assert isinstance(made, kind)
    with pytest.raises(ValueError, match=r"SOLVER.OPTIMIZER.*'ADAM'"):
        SOLOTrainer.build_optimizer(tiny_config("SOLVER.OPTIMIZER", "ADAM"), tiny_model())


@pytest.mark.parametrize("name", ["SGD", "ADAMW"])
def test_backbone_multiplier_scales_what_lies_below_the_pyramid(name):
    model = tiny_model()
    cfg = tiny_config(
        "SOLVER.OPTIMIZER", name, "SOLVER.BASE_LR", 0.5, "SOLVER.BACKBONE_MULTIPLIER", 0.25
    )
    made = SOLOTrainer.build_optimizer(cfg, model)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert len(rates) == len(trained)  # each once
    for key, parameter in trained.items():
        below = key.startswith("backbone.bottom_up.")
        assert rates[id(parameter)] == (0.125 if below else 0.5), key


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("HEAD", "SOLOv3Head", "HEAD must be one of .*got 'SOLOv3Head'"),
        ("NMS_TYPE", "mask", "NMS_TYPE must be one of"),
        ("NMS_KERNEL", "gauss", "NMS_KERNEL must be one of .*'gauss'; did you mean gaussian"),
        ("NMS_SIGMA", 0.0, "NMS_SIGMA must be a number > 0, got 0.0"),
        ("NMS_THRESH_TEST", -0.5, "NMS_THRESH_TEST"),
        ("SCORE_THRESH_TEST", 1.5, "SCORE_THRESH_TEST"),
        ("MASK_THRESH_TEST", 1.0, "MASK_THRESH_TEST"),
        ("FINAL_SCORE_THRESH_TEST", -1.0, "FINAL_SCORE_THRESH_TEST"),
        ("SCORE_TEMPERATURE", 0.1, r"SCORE_TEMPERATURE must be a number in \[0.2, 5\]"),
        ("PRE_NMS_TOPK_TEST", 0, "PRE_NMS_TOPK_TEST"),
        ("CENTER_REGION", 2.0, "CENTER_REGION"),
        ("PRIOR_PROB", 0.0, "PRIOR_PROB"),
        ("NUM_GRIDS", [12, 10], "NUM_GRIDS with 2"),
        ("SCALE_RANGES", [[1, 24]], "SCALE_RANGES with 1"),
        ("IN_FEATURES", ["p2", "p3", "p4", "p5", "p9"], "IN_FEATURES is .*'p9'.* yields"),
        ("MASK_FEATURE.IN_FEATURES", ["res2"], "MASK_FEATURE.IN_FEATURES is .* yields"),
        ("MASK_FEATURE.TYPE", "none", "MASK_FEATURE.TYPE must be one of .*'none'"),
        ("MASK_FEATURE.NUM_CONVS", 4, "MASK_FEATURE.NUM_CONVS is 4, but unified has no use"),
        ("NUM_COORD_CONVS", 2, r"NUM_COORD_CONVS must lie .*1 \(NUM_CONVS\), got 2"),
        ("NUM_COORD_CONVS", -1, "NUM_COORD_CONVS must be an integer from 0"),
        ("DEFORM", "first", "DEFORM must be one of .*'first'"),
        ("ALIGN", "nearest", "ALIGN must be one of .*'nearest'"),
        ("KERNEL_SIZE", 2, "KERNEL_SIZE must be one of"),
        ("NUM_KERNEL_GROUPS", 2, "NUM_KERNEL_GROUPS is 2, but DynamicSOLOHead has no use"),
        ("MASK_LOSS", "l2", "MASK_LOSS must be one of .*'l2'"),
        ("AUX_SEMANTIC_LOSS_WEIGHT", -1.0, "AUX_SEMANTIC_LOSS_WEIGHT must be a number >= 0"),
    ],
)
def test_bad_values_name_the_key_when_the_model_is_built(key, value, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(f"MODEL.SOLO.{key}", value)


@pytest.mark.parametrize("name", ["VanillaSOLOHead", "DecoupledSOLOHead", "DecoupledLightSOLOHead"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("KERNEL_SIZE", 3),
        ("NUM_KERNEL_GROUPS", 2),
        ("MASK_FEATURE.TYPE", "separate"),
        ("MASK_FEATURE.COORDS", False),
        ("MASK_FEATURE.NUM_CONVS", 4),
    ],
)
def test_heads_without_kernels_refuse_their_keys(name, key, value):
    with pytest.raises(ValueError, match=rf"MODEL.SOLO.{key} is .*{name} has no use"):
        tiny_model("MODEL.SOLO.HEAD", name, f"MODEL.SOLO.{key}", value)


@pytest.mark.parametrize(
    ("loss", "key", "value"),
    [
        ("quality_focal", "FOCAL_LOSS_ALPHA", 0.5),
        ("rank_sort", "FOCAL_LOSS_ALPHA", 0.5),
        ("rank_sort", "FOCAL_LOSS_GAMMA", 1.0),
    ],
)
def test_category_losses_refuse_what_they_have_no_use_for(loss, key, value):
    with pytest.raises(ValueError, match=rf"{key} is {value}, but {loss} has no use for it"):
        tiny_model("MODEL.SOLO.CATEGORY_LOSS", loss, f"MODEL.SOLO.{key}", value)


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "naiveSyncBN", "naiveSyncBN_N"])
def test_running_statistics_are_not_computed_twice(norm):
    again = ("MODEL.SOLO.RECOMPUTE_TOWERS", True, "MODEL.SOLO.NORM")
    with pytest.raises(ValueError, match=f"RECOMPUTE_TOWERS True runs layers twice.*'{norm}'"):
        tiny_model(*again, norm)
    for fits in ("", "GN", "FrozenBN"):
        assert tiny_model(*again, fits).head.kernel_tower.recompute


def test_groups_must_divide_the_kernel():
    with pytest.raises(ValueError, match=r"NUM_KERNEL_GROUPS must divide .*64, got 3"):
        tiny_model(*DECOUPLED_DYNAMIC, "MODEL.SOLO.NUM_KERNEL_GROUPS", 3)


def test_a_separate_mask_feature_needs_two_layers():
    separate = ("MODEL.SOLO.MASK_FEATURE.TYPE", "separate")
    with pytest.raises(ValueError, match=r"MASK_FEATURE.NUM_CONVS must be .* 2 to 100, got 1"):
        tiny_model(*separate, "MODEL.SOLO.MASK_FEATURE.NUM_CONVS", 1)


def test_adding_the_config_twice_gives_the_defaults_again():
    cfg = tiny_config()
    add_solo_config(cfg)
    fresh = get_cfg()
    add_solo_config(fresh)
    assert cfg.MODEL.SOLO == fresh.MODEL.SOLO


def test_defaults_are_the_papers():
    cfg = get_cfg()
    add_solo_config(cfg)
    node = cfg.MODEL.SOLO
    assert node.NUM_GRIDS == [40, 36, 24, 16, 12]
    assert node.SCALE_RANGES == [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]]
    assert (node.CENTER_REGION, node.MASK_LOSS_WEIGHT) == (0.2, 3.0)  # §3.3.1, Eq. 4
    assert (node.SCORE_THRESH_TEST, node.MASK_THRESH_TEST) == (0.1, 0.5)  # §3.3.3
    assert (node.PRE_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE) == (500, 100)
    assert (node.NMS_TYPE, node.NMS_KERNEL, node.NMS_SIGMA) == ("matrix", "gaussian", 0.5)


@pytest.mark.parametrize(
    ("name", "most"),
    [("WarmupFlatCosineLR", 800), ("WarmupCosineLR", 500), ("WarmupMultiStepLR", 1000)],
)
def test_a_warm_up_that_ends_when_the_rate_has_fallen_is_warned_of(name, most, caplog):
    """It leads to the rate at its own end, which of a cosine is next to nothing."""
    words = ["SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.MAX_ITER", 1000, "SOLVER.STEPS", ()]
    words += ["SOLVER.BASE_LR", 0.1]
    words += ["SOLVER.FLAT_SHARE", 0.8] if name == "WarmupFlatCosineLR" else []
    for iterations in (most, 1000):
        caplog.clear()
        cfg = tiny_config(*words, "SOLVER.WARMUP_ITERS", iterations)
        validate_config(cfg, processes=1)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        schedule = SOLOTrainer.build_lr_scheduler(cfg, optimizer)
        rates = []
        for _ in range(1000):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step(), schedule.step()
        said = "The learning rate never comes near SOLVER.BASE_LR 0.1" in caplog.text
        assert said == (max(rates) < 0.0499)
        assert said == (iterations > most)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("MODEL.SOLO.DEFORM", "last", "MODEL.SOLO.NUM_CONVS", 0), 'DEFORM must be "none"'),
        (
            ("MODEL.RESNETS.RES5_DILATION", 2, "MODEL.RESNETS.DEPTH", 50,
             "MODEL.FPN.IN_FEATURES", ["res5"]),
            "RES5_DILATION must be 1 under a feature pyramid",
        ),
    ],
)  # fmt: skip
def test_settings_without_effect_or_sense_are_refused(words, said):
    with pytest.raises(ValueError, match=said):
        validate_config(tiny_config("MODEL.SOLO.NUM_COORD_CONVS", 0, *words))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), False),
        (("MODEL.SOLO.HEAD", "VanillaSOLOHead", "MODEL.SOLO.IN_FEATURES", ["p3"]), True),
        (("MODEL.SOLO.IN_FEATURES", ["p4", "p5", "p6"]), False),  # the mask feature has the others
        (("MODEL.SOLO.IN_FEATURES", ["p4", "p5", "p6"],
          "MODEL.SOLO.MASK_FEATURE.IN_FEATURES", ["p2"]), True),
    ],
)  # fmt: skip
def test_levels_that_nothing_reads_are_known(words, expected):
    """Several processes would wait for their gradients."""
    assert has_unread_levels(tiny_config(*words)) is expected
