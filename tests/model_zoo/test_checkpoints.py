"""Facts about the table of published checkpoints, and about configs by their names."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from solo_d2 import model_zoo
from solo_d2.checkpoint.foreign.configs import coco_configs
from solo_d2.model_zoo.checkpoints import (
    CHECKPOINTS,
    SHIPPED,
    default_checkpoint,
    find_checkpoint,
    is_checkpoint_name,
    markdown_table,
)
from solo_d2.model_zoo.model_zoo import load_config

ROOT = Path(__file__).resolve().parents[2]
R50 = "COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml"
SINGLE_LEVEL = "Ablations/table4a_grid_12.yaml"
MSRA = ("BGR", "pillow", [103.53, 116.28, 123.675], [1.0, 1.0, 1.0], True)
TORCHVISION = ("RGB", "opencv", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], False)


def convention(cfg):
    model = cfg.MODEL
    statistics = model.PIXEL_MEAN, model.PIXEL_STD
    return cfg.INPUT.FORMAT, cfg.INPUT.RESIZE_FILTER, *statistics, model.RESNETS.STRIDE_IN_1X1


def test_every_published_checkpoint_is_listed_once():
    assert Counter(row.project for row in CHECKPOINTS) == {
        "adelaidet": 2,
        "wxinlong": 17,
        "mmdet": 13,
    }
    for key in ("name", "url"):
        assert len({getattr(row, key) for row in CHECKPOINTS}) == 32
    assert model_zoo.list_models() == CHECKPOINTS + SHIPPED


@pytest.mark.parametrize(
    ("name", "url", "ap", "milliseconds", "sha"),
    [
        (
            "mmdet/decoupled_solo_light_r50_fpn_3x_coco",
            "https://download.openmmlab.com/mmdetection/v2.0/solo/"
            "decoupled_solo_light_r50_fpn_3x_coco/"
            "decoupled_solo_light_r50_fpn_3x_coco_20210906_142703-e70e226f.pth",
            32.9,
            35.0,
            "e70e226f",
        ),
        (
            "mmdet/solov2_r101_dcn_fpn_3x_coco",
            "https://download.openmmlab.com/mmdetection/v2.0/solov2/solov2_r101_dcn_fpn_3x_coco/"
            "solov2_r101_dcn_fpn_3x_coco_20220513_214734-16c966cb.pth",
            41.2,
            None,
            "16c966cb",
        ),
        (
            "adelaidet/SOLOv2_R101_3x",
            "https://huggingface.co/ZjuCv/AdelaiDet/resolve/main/SOLOv2_R101_3x.pth",
            39.0,
            61,
            "",
        ),
        (
            "wxinlong/SOLOv2_LIGHT_512_DCN_R50_3x",
            "https://huggingface.co/xinlongwang/SOLO/resolve/main/SOLOv2_LIGHT_512_DCN_R50_3x.pth",
            36.4,
            34,
            "",
        ),
    ],
)
def test_rows_as_their_authors_publish_them(name, url, ap, milliseconds, sha):
    row = find_checkpoint(name)
    assert (row.url, row.ap, row.milliseconds, row.sha256_prefix) == (url, ap, milliseconds, sha)


@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: row.name)
def test_rows_are_consistent(row):
    parts = urlsplit(row.url)
    assert parts.scheme == "https" and not parts.query and row.file.endswith(".pth")
    assert "/blob/" not in row.url  # a page about the file
    assert bool(row.sha256_prefix) == (row.project == "mmdet")
    words = re.findall(r"solov2|decoupled|light|dcn|[rx]_?\d+|[13]x", row.config.lower())
    own = row.name.lower().replace("coco", "")
    assert Counter(word.replace("_", "") for word in words) == Counter(
        re.findall(r"solov2|decoupled|light|dcn|[rx]\d+|[13]x", own)
    )
    # The converter gives the same architecture the same config, whatever the schedule.
    resnets = coco_configs()[row.config.replace("_1x", "_3x")].MODEL.RESNETS
    depth = re.search(r"\d+", row.backbone)[0]
    assert int(depth) == resnets.DEPTH
    assert row.backbone.endswith("DCN") == any(resnets.DEFORM_ON_PER_STAGE)
    assert row.backbone.startswith("X") == (resnets.NUM_GROUPS == 64)


@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: row.name)
def test_config_of_a_checkpoint_has_its_weights_and_its_input(row):
    cfg = model_zoo.get_config(row.name)
    assert cfg.MODEL.WEIGHTS == f"solo://{row.name}"
    assert convention(cfg) == (MSRA if row.project == "adelaidet" else TORCHVISION)
    plain = model_zoo.get_config(row.config)
    for key in ("SOLO", "FPN", "BACKBONE"):
        assert cfg.MODEL[key] == plain.MODEL[key]
    assert cfg.MODEL.RESNETS.DEPTH == plain.MODEL.RESNETS.DEPTH
    assert cfg.INPUT.MIN_SIZE_TEST == plain.INPUT.MIN_SIZE_TEST


def test_trained_config_takes_the_first_project_that_has_weights():
    assert model_zoo.get_config(R50, trained=True).MODEL.WEIGHTS == (
        "solo://mmdet/solov2_r50_fpn_3x_coco"
    )
    config = "COCO-InstanceSegmentation/solov2_light_512_DCN_R_50_FPN_3x.yaml"
    cfg = model_zoo.get_config(config, trained=True)
    assert cfg.MODEL.WEIGHTS == "solo://wxinlong/SOLOv2_LIGHT_512_DCN_R50_3x"
    assert convention(cfg) == TORCHVISION


def test_untrained_config_is_the_file():
    cfg = model_zoo.get_config(R50)
    assert cfg.MODEL.WEIGHTS == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    assert convention(cfg) == MSRA


def test_name_of_a_checkpoint_works_with_and_without_prefix():
    name = "adelaidet/SOLOv2_R50_3x"
    assert find_checkpoint(f"solo://{name}") is find_checkpoint(name)
    assert model_zoo.get_config(f"solo://{name}") == model_zoo.get_config(name, trained=True)
    assert load_config(name) == load_config(f"solo://{name}", trained=True)
    assert load_config(name, ["MODEL.WEIGHTS", "my.pth"]).MODEL.WEIGHTS == "my.pth"


def test_config_without_weights_lists_those_with():
    with pytest.raises(ValueError, match="no weights are published") as error:
        model_zoo.get_config(SINGLE_LEVEL, trained=True)
    listed = set(re.findall(r"COCO-InstanceSegmentation/\w+\.yaml", str(error.value)))
    assert listed == {row.config for row in CHECKPOINTS}
    assert "\n" not in str(error.value)
    assert default_checkpoint(R50).config == R50


def test_unknown_config_is_not_called_untrained():
    with pytest.raises(ValueError, match="not a config"):
        model_zoo.get_config("COCO-InstanceSegmentation/none.yaml", trained=True)


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("solo://wxinlong/solov2_r50_3x", "wxinlong/SOLOv2_R50_3x"),
        ("mmdet/solov2_r50_fpn_3x", "mmdet/solov2_r50_fpn_3x_coco"),
        ("solo://SOLOv2_R50_3x", "adelaidet/SOLOv2_R50_3x"),
        ("solo://", "wxinlong/SOLO_R50_1x"),
        ("solo://../../etc/passwd", "mmdet/"),
        ("solo://mmdet/../../solov2_r50_fpn_3x_coco", "mmdet/solov2_r50_fpn_3x_coco"),
        ("mmdet//solov2_r50_fpn_3x_coco", "mmdet/solov2_r50_fpn_3x_coco"),
    ],
)
def test_unknown_checkpoint_lists_similar_ones(name, similar):
    assert is_checkpoint_name(name)
    with pytest.raises(ValueError, match="not a published checkpoint") as error:
        model_zoo.get_config(name)
    assert similar in str(error.value)


def test_configs_are_not_taken_for_checkpoints():
    folder = Path(model_zoo.get_config_file(R50)).parents[1]
    names = [str(path.relative_to(folder)) for path in folder.rglob("*.yaml")]
    assert names and not any(map(is_checkpoint_name, names))


def test_table_in_the_document_is_the_data():
    text = (ROOT / "MODEL_ZOO.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert "\n".join(table).count(markdown_table()) == 1
    for link in re.findall(r"\]\(((?:configs|tools)/[^)]+)\)", text):
        assert (ROOT / link).is_file(), link


def test_table_marks_one_default_for_every_config():
    lines = markdown_table().splitlines()[2:]
    configs = {row.config for row in CHECKPOINTS}
    assert sum("(default)" in line for line in lines) == len(configs)
