"""Every YAML of configs/ builds a model that trains and predicts, and stands in the table."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import torch
import torchvision
from builders import noise_input
from detectron2.modeling import build_backbone, build_model
from torch import nn

from solo_d2.model_zoo.model_zoo import load_config
from solo_d2.modeling import SOLO_HEAD_REGISTRY
from solo_d2.modeling.test_time_augmentation import TestScales

CONFIGS = Path(__file__).parents[1] / "configs"
README = (CONFIGS / "README.md").read_text()


def yaml_files():
    return sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))


def solo_yaml_files():
    """All but the parts that others are made of."""
    parts = ("backbones", "heads", "schedules")
    return [name for name in yaml_files() if Path(name).parts[0] not in parts]


@functools.cache
def _read(name):
    return load_config(CONFIGS / name)


def read(name):
    """A config of its own, of which the file is read once."""
    return _read(name).clone()


SMALL = {
    "resnet50d.ra2_in1k": "test_resnet",
    "convnextv2_tiny.fcmae_ft_in22k_in1k": "test_convnext2",
}
"""Models of timm, and small ones of their kind."""


def shrunken(name):
    """A config with everything that it switches on or off, a fraction of its size."""
    cfg = read(name)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = cfg.MODEL.TIMM.WEIGHTS = ""
    cfg.MODEL.TIMM.NAME = SMALL.get(cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.NAME)
    resnet = cfg.MODEL.RESNETS
    if "resnet" in cfg.MODEL.BACKBONE.NAME and resnet.DEPTH >= 50:
        resnet.DEPTH, resnet.STEM_OUT_CHANNELS, resnet.RES2_OUT_CHANNELS = 50, 16, 32
        resnet.NUM_GROUPS, resnet.WIDTH_PER_GROUP = min(resnet.NUM_GROUPS, 2), 8
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    node = cfg.MODEL.SOLO
    node.NUM_CLASSES = 3
    node.NUM_GRIDS = [size // 4 for size in node.NUM_GRIDS]
    node.NUM_CONVS = max(1, node.NUM_CONVS // 2, node.NUM_COORD_CONVS)
    node.CONV_DIM = 32
    if "KERNEL_DIM" in SOLO_HEAD_REGISTRY.get(node.HEAD).uses:
        node.MASK_FEATURE.CONV_DIM, node.KERNEL_DIM = 32, 32 * node.NUM_KERNEL_GROUPS
    if cfg.MODEL.META_ARCHITECTURE == "PanopticSOLO":
        cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32
    return cfg


SKY = torch.ones(64, 96, dtype=torch.int64)  # labels for models that learn stuff


def train_and_predict(cfg):
    torch.manual_seed(0)
    model = build_model(cfg).train()
    objects = noise_input((64, 96), [(4, 4, 60, 60), (70, 8, 90, 30)], [0, 0])
    batch = [{**x, "sem_seg": SKY} for x in (objects, noise_input((64, 96)))]
    values = model(batch)
    sum(values.values()).backward()
    assert all(torch.isfinite(loss) for loss in values.values())
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    torch.optim.SGD(trained, lr=1e-6).step()
    assert all(torch.isfinite(p).all() for p in trained)
    model.eval()
    model.head.category_predictor.bias.data.zero_()  # scores near one half: many candidates
    (output,) = model([{**noise_input((64, 96)), "height": 40, "width": 60}])
    found = output["instances"]
    assert found.pred_masks.shape == (len(found), 40, 60)
    assert found.scores.isfinite().all()


@pytest.mark.parametrize("name", solo_yaml_files())
def test_multi_scale_testing_lies_around_the_plain_size(name):
    cfg = read(name)
    plain, sizes = cfg.INPUT.MIN_SIZE_TEST, list(cfg.TEST.AUG.MIN_SIZES)
    if name.startswith("Models/"):  # objects larger than those that they were trained on
        assert sizes == [plain * 7 // 12, plain]
    else:
        assert sizes == [plain * 3 // 4, plain, plain * 5 // 4]
    assert not cfg.TEST.AUG.FLIP
    shapes = TestScales.from_config(cfg).shapes((plain, 2 * plain))
    ratio = shapes[1][1] / shapes[1][0]
    assert all(width / height == pytest.approx(ratio, rel=0.01) for height, width in shapes)


def test_there_are_configs():
    assert "Base-SOLOv2.yaml" in solo_yaml_files()


@pytest.fixture(scope="module")
def models_seen():
    """Models that were tried, as text: many rows of the paper's tables share one."""
    return set()


@pytest.mark.parametrize("name", solo_yaml_files())
def test_every_config_trains_a_step_and_predicts(name, models_seen):
    cfg = shrunken(name)
    model = repr(cfg.MODEL)
    if model not in models_seen:
        train_and_predict(cfg)
    models_seen.add(model)


_META_MODELS = {}


def build_on_meta(name):
    """A model as large as it is, of which nothing is allocated; configs share it."""
    cfg = read(name)
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL.WEIGHTS = cfg.MODEL.TIMM.WEIGHTS = ""
    cfg.MODEL.SOLO.NMS_TYPE = "matrix"  # the others are tried out on the CPU
    if (model := repr(cfg.MODEL)) not in _META_MODELS:
        with torch.device("meta"):
            _META_MODELS[model] = build_model(cfg)
    return cfg, _META_MODELS[model]


@pytest.mark.parametrize("name", solo_yaml_files())
def test_every_config_builds_as_it_is(name):
    cfg, model = build_on_meta(name)
    convs = [m for m in model.head.category_tower if isinstance(m, nn.Conv2d)]
    assert len(convs) == cfg.MODEL.SOLO.NUM_CONVS
    assert all(conv.out_channels == cfg.MODEL.SOLO.CONV_DIM for conv in convs)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("solo_R_50_FPN_3x", 9.449),
        ("decoupled_solo_R_101_FPN_3x", 13.176),
        ("decoupled_solo_light_R_50_FPN_3x", 5.502),
        ("solov2_R_50_FPN_3x", 19.740),
        ("solov2_R_101_DCN_FPN_3x", 20.955),
        ("solov2_X_101_DCN_FPN_3x", 20.955),
        ("solov2_light_448_R_34_FPN_3x", 4.488),
    ],
)
def test_heads_have_as_many_parameters_as_the_published_checkpoints(name, millions):
    _, model = build_on_meta(f"COCO-InstanceSegmentation/{name}.yaml")
    count = sum(p.numel() for p in model.head.parameters())
    assert round(count / 1e6, 3) == millions


def test_deformable_layers_of_the_light_model_are_the_published_ones():
    _, model = build_on_meta("COCO-InstanceSegmentation/solov2_light_512_DCN_R_50_FPN_3x.yaml")
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if "offset.weight" in k}
    head = {k: v for k, v in shapes.items() if k.startswith("head.")}
    assert head == {  # version 1: two values for each of nine taps, in the last of three layers
        "head.category_tower.2.conv_offset.weight": (18, 256, 3, 3),
        "head.kernel_tower.2.conv_offset.weight": (18, 256, 3, 3),
    }
    backbone = {k: v[0] for k, v in shapes.items() if k not in head}
    assert len(backbone) == 4 + 6 + 3  # blocks of res3, res4 and res5
    assert set(backbone.values()) == {18}


@pytest.mark.parametrize("name", yaml_files())
def test_the_table_of_configs_lists_every_file(name):
    assert f"`{name}`" in README or f"]({name})" in README


def test_the_recipe_for_torchvision_weights_fills_the_backbone(tmp_path, monkeypatch):
    source = torchvision.models.resnet18()
    monkeypatch.setattr(torchvision.models, "resnet18", lambda weights: source)
    monkeypatch.chdir(tmp_path)
    (recipe,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(recipe, {})
    cfg = load_config(CONFIGS / "COCO-InstanceSegmentation/solov2_light_448_R_18_FPN_3x.yaml")
    backbone = build_backbone(cfg).bottom_up
    weights = torch.load(cfg.MODEL.WEIGHTS)["model"]
    own = {f"backbone.bottom_up.{key}": value for key, value in backbone.state_dict().items()}
    left = {key.split(".", 2)[2] for key in set(weights) - set(own)}
    assert set(own) <= set(weights)
    assert all(re.search(r"^stem\.fc\.|num_batches_tracked$", key) for key in left)
    backbone.load_state_dict({key.split(".", 2)[2]: weights[key] for key in own})
    source.fc, x = nn.Identity(), torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(backbone(x)["res5"].mean((2, 3)), source.eval()(x))


@pytest.mark.parametrize("name", yaml_files())
def test_children_are_short(name):
    """Design §7: at most 12 lines; comments and a base itself do not count."""
    lines = (CONFIGS / name).read_text().splitlines()
    content = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if any(line.startswith("_BASE_") for line in content):
        assert len(content) <= 12
