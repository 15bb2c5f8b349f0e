"""Published key sets become exactly the state dicts of the configs that conversion names."""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict

import pytest
import torch
from detectron2.modeling import build_model
from published_keys import (
    MMDET,
    SOLO,
    adelaidet,
    backbone,
    decoupled_light_head,
    layer,
    mmdet_keys,
    published,
    tensors,
    v2_head,
    vanilla_head,
)

from solo_d2.checkpoint.foreign.architectures import recognise
from solo_d2.checkpoint.foreign.configs import closest_config
from solo_d2.checkpoint.foreign.convert import ConvertedStateDict, convert_state_dict
from solo_d2.checkpoint.info import MSRA, TORCHVISION
from solo_d2.model_zoo.model_zoo import load_config

FOLDER = "COCO-InstanceSegmentation/"
PUBLISHED = list(published())
IDS = [f"{source}-{name}" for source, name, _, _ in PUBLISHED]

# Config -> how many entries the state dict of its model has, and a hash of their names and shapes.
PARAMETERS = {
    "solo_R_50": (335, "d8170206c8894741"),
    "solo_R_101": (590, "5030fd746c2a7215"),
    "decoupled_solo_R_50": (366, "eceb61b47d74b051"),
    "decoupled_solo_R_101": (621, "c55f6132dbe6146f"),
    "decoupled_solo_light_R_50": (327, "ff4d66ca9e175206"),
    "decoupled_solo_light_DCN_R_50": (357, "7e945739c61636f1"),
    "solov2_R_50": (333, "66bc345f655a105e"),
    "solov2_R_101": (588, "fbc1222b8efb2a30"),
    "solov2_R_101_DCN": (680, "a4817cc1142272d3"),
    "solov2_X_101_DCN": (680, "d6e8b1cbcae9358b"),
    "solov2_light_448_R_50": (321, "4985d14d8a85ebc6"),
    "solov2_light_448_R_34": (236, "1c360d14e7b9233b"),
    "solov2_light_448_R_18": (156, "1565b54fb77fea3a"),
    "solov2_light_448_DCN_R_50": (357, "adf854fde87f148c"),
    "solov2_light_512_DCN_R_50": (357, "ec725ac4d8f23eca"),
}


def build_shapes(config, overrides=()):
    """Keys and shapes of the model that a config builds; nothing is allocated."""
    cfg = load_config(config, [str(x) for pair in dict(overrides).items() for x in pair])
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build_model(cfg).state_dict().items()}


@functools.cache
def model_shapes(config):
    return build_shapes(f"{FOLDER}{config}_FPN_3x.yaml")


def fingerprint(shapes):
    text = "".join(f"{key} {list(shape)}\n" for key, shape in sorted(shapes.items()))
    return len(shapes), hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def light_v2():
    """The smallest published model: SOLOv2-light R18."""
    return SOLO["SOLOv2_LIGHT_448_R18_3x"][0]()


def shapes_of(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def test_every_published_checkpoint_is_here():
    assert len(SOLO) == 17
    without_weights = {n for n in MMDET if "lsj" in n or n.startswith("solov2-light_r50-dcn")}
    assert len(set(MMDET) - without_weights) == 13
    assert set(mmdet_keys()) - set(MMDET) == {"solo_r18_fpn_8xb8-lsj-200e_coco"}


@pytest.mark.parametrize(("source", "name", "make", "config"), PUBLISHED, ids=IDS)
def test_published_keys_fill_the_model_of_the_config(source, name, make, config):
    keys = make()
    converted = convert_state_dict(tensors(keys))
    assert converted.info.source == source
    assert converted.info.config == f"{FOLDER}{config}_FPN_3x.yaml"
    assert converted.overrides == {}
    assert fingerprint(shapes_of(converted)) == PARAMETERS[config]
    counters = sum(key.endswith("num_batches_tracked") for key in keys)
    assert len(converted) == len(keys) - counters  # no two keys became one


@pytest.mark.parametrize(
    ("source", "make"),
    [
        ("adelaidet", lambda: adelaidet(50)),
        ("mmdet", lambda: dict(mmdet_keys()["solov2_r50_fpn_1x_coco"])),
        ("solo", SOLO["SOLOv2_R50_3x"][0]),
    ],
)
def test_parameters_of_solov2_are_as_many_as_published(source, make):
    """46.54 million in AdelaiDet, whose frozen BatchNorm counts as 0.05 million less."""
    converted = convert_state_dict(tensors(make()), source)
    count = sum(
        value.numel()
        for key, value in converted.items()
        if not (key.startswith("backbone") and ".norm." in key)
    )
    assert round(count / 1e6, 2) == 46.54
    assert len(converted) == 333


def pairs_of(make, source, *probes):
    """Our names of some keys, followed by the value that only they have."""
    state = tensors(make())
    marked = {key: torch.full_like(state[key], i + 1.0) for i, key in enumerate(probes)}
    converted = convert_state_dict({**state, **marked}, source)
    found = {}
    for key, value in marked.items():
        (ours,) = [name for name, other in converted.items() if other is value]
        found[key] = ours
    return list(found.values())


def test_names_of_a_backbone():
    stem = "backbone.bottom_up."
    assert pairs_of(
        SOLO["SOLOv2_LIGHT_512_DCN_R50_3x"][0],
        "solo",
        "backbone.conv1.weight",
        "backbone.bn1.running_var",
        "backbone.layer1.0.downsample.0.weight",
        "backbone.layer1.0.downsample.1.bias",
        "backbone.layer4.2.bn3.weight",
        "backbone.layer3.5.conv2.conv_offset.bias",
        "neck.lateral_convs.0.conv.bias",
        "neck.fpn_convs.3.conv.weight",
    ) == [
        f"{stem}stem.conv1.weight",
        f"{stem}stem.conv1.norm.running_var",
        f"{stem}res2.0.shortcut.weight",
        f"{stem}res2.0.shortcut.norm.bias",
        f"{stem}res5.2.conv3.norm.weight",
        f"{stem}res4.5.conv2_offset.bias",
        "backbone.fpn_lateral2.bias",
        "backbone.fpn_output5.weight",
    ]


def test_names_of_solov2_of_mmdet():
    assert pairs_of(
        lambda: dict(mmdet_keys()["solov2_r101-dcn_fpn_ms-3x_coco"]),
        "mmdet",
        "mask_head.cls_convs.3.gn.bias",
        "mask_head.kernel_convs.1.conv.conv_offset.weight",
        "mask_head.conv_kernel.bias",
        "mask_head.mask_feature_head.convs_all_levels.3.conv2.conv.weight",
        "mask_head.mask_feature_head.conv_pred.conv.conv_offset.bias",
    ) == [
        "head.category_tower.3.norm.bias",
        "head.kernel_tower.1.conv_offset.weight",
        "head.kernel_predictor.bias",
        "head.mask_feature.stages.3.2.weight",
        "head.mask_feature.predictor.conv_offset.bias",
    ]


def test_names_of_adelaidet_count_three_modules_a_layer():
    assert pairs_of(
        lambda: adelaidet(50),
        "adelaidet",
        "ins_head.cate_tower.3.weight",
        "ins_head.kernel_tower.10.weight",
        "ins_head.cate_pred.bias",
        "mask_head.convs_all_levels.2.conv1.1.bias",
        "mask_head.conv_pred.0.weight",
    ) == [
        "head.category_tower.1.weight",
        "head.kernel_tower.3.norm.weight",
        "head.category_predictor.bias",
        "head.mask_feature.stages.2.1.norm.bias",
        "head.mask_feature.predictor.weight",
    ]


def test_columns_stay_columns_in_decoupled_heads():
    x, y, tower = pairs_of(
        SOLO["DECOUPLED_SOLO_R50_3x"][0],
        "solo",
        "bbox_head.dsolo_ins_list_x.4.weight",
        "bbox_head.dsolo_ins_list_y.4.weight",
        "bbox_head.ins_convs_y.6.conv.weight",
    )
    assert (x, y) == ("head.x_predictors.4.weight", "head.y_predictors.4.weight")
    assert tower == "head.mask_towers.y.6.weight"


def test_values_are_carried_over_unchanged():
    state = tensors(light_v2())
    converted = convert_state_dict(state)
    kept = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    assert isinstance(converted, ConvertedStateDict)
    assert sorted(map(id, converted.values())) == sorted(map(id, kept))


def test_widths_of_the_backbone_are_read_off_its_shapes():
    half = {}
    for key, shape in SOLO["SOLOv2_R50_3x"][0]().items():
        thin = (0, 1) if key.startswith("backbone.") else (1,) * ("lateral" in key)
        half[key] = tuple(n // 2 if i in thin and n > 3 else n for i, n in enumerate(shape))
    converted = convert_state_dict(tensors(half))
    assert converted.overrides == {
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 32,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 128,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 32,
    }
    assert converted["backbone.bottom_up.stem.conv1.weight"].shape == (32, 3, 7, 7)


def test_the_input_convention_is_that_of_the_source():
    info = convert_state_dict(tensors(SOLO["SOLO_R50_1x"][0]())).info
    assert info.convention == TORCHVISION
    assert convert_state_dict(tensors(adelaidet(50))).info.convention == MSRA
    light = convert_state_dict(tensors(light_v2())).info.convention
    assert light.stride_in_1x1 is None  # ResNet-18 has no bottlenecks
    assert light.pixel_std == TORCHVISION.pixel_std


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ("data_preprocessor.mean", "data_preprocessor.std"),
        ("pixel_mean", "pixel_std"),
    ],
)
def test_statistics_in_the_checkpoint_count(mean, std):
    state = tensors(light_v2())
    state[mean] = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    state[std] = torch.tensor([4.0, 5.0, 57.375])
    convention = convert_state_dict(state).info.convention
    assert convention.pixel_mean == (1.0, 2.0, 3.0)
    assert convention.pixel_std == (4.0, 5.0, 57.375)
    for key, value, said in (
        (mean, torch.zeros(4), "three values"),
        (mean, torch.tensor([1.0, 2.0, float("nan")]), "pixel_mean has a value that is no number"),
        (std, torch.zeros(3), "expected values above 0"),
    ):
        with pytest.raises(ValueError, match=said):
            convert_state_dict({**state, key: value})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "meta": {"CLASSES": ["a"]}, "optimizer": {}},
        lambda state: {"model": state, "iteration": 7},
        lambda state: OrderedDict((f"module.{key}", value) for key, value in state.items()),
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {
            key.replace("conv2.conv_offset", "conv2_offset"): value for key, value in state.items()
        },
    ],
    ids=["mmcv", "detectron2", "module", "both", "old offsets"],
)
def test_wrappings_make_no_difference(wrap):
    state = tensors(SOLO["DECOUPLED_SOLO_LIGHT_DCN_R50_3x"][0]())
    converted, plain = convert_state_dict(wrap(state)), convert_state_dict(state)
    assert converted.info == plain.info
    assert list(converted) == list(plain)
    assert all(converted[key] is plain[key] for key in plain)


def resized_classes(keys, name, count):
    return {k: (count, *v[1:]) if name in k else v for k, v in keys.items()}


def test_another_number_of_classes_is_an_override():
    converted = convert_state_dict(tensors(resized_classes(light_v2(), "solo_cate", 3)))
    assert converted.info.config.endswith("solov2_light_448_R_18_FPN_3x.yaml")
    assert converted.overrides == {"MODEL.SOLO.NUM_CLASSES": 3}


@pytest.mark.parametrize(
    ("make", "overrides"),
    [
        (
            lambda: dict(mmdet_keys()["solo_r18_fpn_8xb8-lsj-200e_coco"]),
            {"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64},
        ),
        (
            lambda: backbone("resnext101_32x8d") | vanilla_head(),
            {"MODEL.RESNETS.NUM_GROUPS": 32, "MODEL.RESNETS.WIDTH_PER_GROUP": 8},
        ),
        (
            lambda: backbone("resnext50_32x4d") | v2_head(),
            {"MODEL.RESNETS.NUM_GROUPS": 32, "MODEL.RESNETS.WIDTH_PER_GROUP": 4},
        ),
        (lambda: backbone("resnet152") | v2_head(), {"MODEL.RESNETS.DEPTH": 152}),
        (lambda: backbone("resnet50") | v2_head(kernel=64), {"MODEL.SOLO.KERNEL_DIM": 64}),
        (lambda: backbone("resnet50") | v2_head(5), {"MODEL.SOLO.NUM_CONVS": 5}),
        (
            lambda: backbone("resnet101", 1) | v2_head(dcn=1, dcn_all=True),
            {"MODEL.RESNETS.DEFORM_MODULATED": False, "MODEL.SOLO.DEFORM_MODULATED": False},
        ),
        (
            lambda: backbone("resnet50", 2) | v2_head(),
            {"MODEL.RESNETS.DEPTH": 50, "MODEL.SOLO.DEFORM": "none"},
        ),
        (
            lambda: backbone("resnet50", 2) | decoupled_light_head(2),
            {"MODEL.RESNETS.DEFORM_MODULATED": True, "MODEL.SOLO.DEFORM_MODULATED": True},
        ),
    ],
    ids=["R18", "X101-32x8d", "X50", "R152", "kernel", "depth", "v1", "v2 backbone", "light v2"],
)
def test_what_no_config_has_is_a_config_with_overrides(make, overrides):
    converted = convert_state_dict(tensors(make()))
    assert converted.overrides == overrides
    assert shapes_of(converted) == build_shapes(converted.info.config, overrides)


def own_architecture(config):
    """What the parameters show of the model that a config builds."""
    head = load_config(f"{FOLDER}{config}_FPN_3x.yaml").MODEL.SOLO.HEAD
    return recognise(head, model_shapes(config))


@pytest.mark.parametrize("config", PARAMETERS)
def test_a_config_is_the_closest_to_its_own_model(config):
    assert fingerprint(model_shapes(config)) == PARAMETERS[config]
    assert closest_config(own_architecture(config)) == (f"{FOLDER}{config}_FPN_3x.yaml", {})


def test_conversion_draws_no_random_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    convert_state_dict(tensors(backbone("resnet34") | v2_head(kernel=32)))
    assert torch.equal(torch.get_rng_state(), before)


def test_names_for_people():
    texts = {config: str(own_architecture(config)) for config in PARAMETERS}
    assert texts["solo_R_50"] == "SOLO R50"
    assert texts["decoupled_solo_light_DCN_R_50"] == "Decoupled SOLO light R50-DCNv1"
    assert texts["solov2_X_101_DCN"] == "SOLOv2 X101-64x4d-DCNv2"
    assert len(set(texts.values())) == len(texts)


def test_light_and_full_models_are_told_apart():
    light = convert_state_dict(tensors(light_v2())).info
    full = convert_state_dict(tensors(backbone("resnet18") | v2_head())).info
    assert "light" in light.architecture
    assert "light" not in full.architecture


@pytest.mark.parametrize(("source", "name", "make", "config"), PUBLISHED[::7], ids=IDS[::7])
def test_every_single_key_is_needed(source, name, make, config):
    keys = make()
    wanted = [key for key in keys if not key.endswith("num_batches_tracked")]
    for key in wanted[:: max(1, len(wanted) // 8)] + wanted[-6:]:
        with pytest.raises(ValueError, match=r"missing|blocks|without"):
            convert_state_dict(tensors({k: v for k, v in keys.items() if k != key}))


def test_errors_list_what_does_not_fit():
    state = tensors(light_v2())
    state["bbox_head.scale"] = torch.ones(1)
    state["bbox_head.solo_cate.bias"] = torch.ones(81)
    del state["mask_feat_head.conv_pred.0.gn.bias"], state["neck.fpn_convs.1.conv.bias"]
    with pytest.raises(ValueError, match=r"looks like SOLOv2-light R18 of 'solo'") as caught:
        convert_state_dict(state)
    text = str(caught.value)
    assert (
        "2 keys missing (backbone.fpn_output3.bias, head.mask_feature.predictor.norm.bias)" in text
    )
    assert "1 keys left over (bbox_head.scale)" in text
    assert "1 keys of a wrong shape (bbox_head.solo_cate.bias (81,) instead of (80,))" in text


def test_what_no_config_builds_is_refused_with_the_reason():
    """ResNet-18 has no bottlenecks, whose 3x3 convolutions are the deformable ones."""
    with pytest.raises(ValueError, match=r"SOLOv2 R18-DCNv2 .* no config builds it: .*bottleneck"):
        convert_state_dict(tensors(backbone("resnet18", 2) | v2_head()))
    keys = backbone("resnet50") | vanilla_head()
    four = {k: v for k, v in keys.items() if "solo_ins_list.4" not in k}
    with pytest.raises(ValueError, match=r"no config builds it: .*NUM_GRIDS"):
        convert_state_dict(tensors(four))


def test_long_lists_are_cut():
    state = tensors(light_v2() | {f"bbox_head.extra.{i}": (1,) for i in range(9)})
    with pytest.raises(ValueError, match=r"9 keys left over \(.*bbox_head.extra.4, and 4 more\)"):
        convert_state_dict(state)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (lambda: model_shapes("solov2_R_50"), "a model of this package already"),
        (
            lambda: {"roi_heads.mask_head.mask_fcn1.weight": (1,), "backbone.x": (1,)},
            "Detectron2, such as Mask R-CNN",
        ),
        (
            lambda: {"roi_head.mask_head.convs.0.conv.weight": (1,), "rpn_head.a": (1,)},
            "mmdetection, such as Mask R-CNN",
        ),
        (lambda: {"bbox_head.retina_cls.weight": (1,)}, "another one-stage detector of mmdet"),
        (lambda: {"proposal_generator.fcos_head.cls_logits.bias": (1,)}, "another detector of"),
        (lambda: backbone("resnet18"), "a backbone without a head"),
        (lambda: {"stem.conv1.weight": (1,), "res2.0.conv1.weight": (1,)}, "a backbone without"),
        (lambda: {"encoder.a": (1,), "decoder.b": (1,)}, "keys are encoder.a, decoder.b"),
    ],
    ids=["ours", "d2", "mmdet", "retina", "fcos", "backbone", "resnet", "unknown"],
)
def test_models_of_another_kind_are_named(keys, message):
    for source in ("auto", "mmdet"):
        with pytest.raises(ValueError, match=message):
            convert_state_dict(tensors(keys()), source)


def test_a_converted_file_is_not_converted_again():
    converted = convert_state_dict(tensors(light_v2()))
    checkpoint = {"model": dict(converted), "solo_d2": converted.info.to_dict()}
    for again in (checkpoint, converted):
        with pytest.raises(ValueError, match="a model of this package already"):
            convert_state_dict(again)


def test_a_wrong_source_is_an_error():
    with pytest.raises(ValueError, match=r"the source is 'solo', not 'mmdet'"):
        convert_state_dict(tensors(light_v2()), "mmdet")
    with pytest.raises(ValueError, match="source must be one of"):
        convert_state_dict(tensors(light_v2()), "paddle")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "empty"),
        ({"state_dict": {}}, "empty"),
        ([], "got a list"),
        ({0: torch.ones(1)}, "tensors by name"),
        ({"bbox_head.solo_cate.weight": torch.ones(1)}, "without the parameters of its mask"),
        (
            {"bbox_head.solo_cate.weight": [1.0], "bbox_head.solo_kernel.bias": torch.ones(1)},
            "solo_cate.weight is a list",
        ),
    ],
)
def test_what_is_no_state_dict(state, message):
    with pytest.raises(ValueError, match=message):
        convert_state_dict(state)


def test_two_names_of_one_parameter():
    state = tensors(light_v2() | {"bbox_head.dsolo_cate.bias": (80,)})
    with pytest.raises(ValueError, match="are the same parameter"):
        convert_state_dict(state)


def test_odd_backbones_and_layers():
    state = tensors(light_v2() | {"backbone.layer3.2.conv1.weight": (1,)})
    with pytest.raises(ValueError, match=r"none of the ResNets .* \(2, 2, 3, 2\) basic blocks"):
        convert_state_dict(state)
    offsets = layer("bbox_head.cate_convs.1", 256, 256, dcn=2)
    offsets["bbox_head.cate_convs.1.conv.conv_offset.weight"] = (54, 256, 3, 3)
    with pytest.raises(ValueError, match=r"\[54\] offset channels"):
        convert_state_dict(tensors(light_v2() | offsets))
    flat = tensors(light_v2() | {"bbox_head.solo_kernel.weight": (128,)})
    with pytest.raises(ValueError, match="must be the weight of a convolution"):
        convert_state_dict(flat)
