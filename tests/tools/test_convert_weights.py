"""The conversion tool as a user calls it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from published_keys import SOLO, tensors

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import convert_weights

from solo_d2.checkpoint.files import load_checkpoint
from solo_d2.checkpoint.info import CheckpointInfo


def head_and_backbone(classes=80):
    """SOLOv2-light R18, as mmcv saves it; values take no memory, but the probe's do."""
    shapes = SOLO["SOLOv2_LIGHT_448_R18_3x"][0]()
    shapes = {k: (classes, *v[1:]) if "solo_cate" in k else v for k, v in shapes.items()}
    state = tensors(shapes)
    state["bbox_head.solo_kernel.bias"] = torch.arange(128.0)
    return {"meta": {"CLASSES": ["person"]}, "state_dict": state}


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save(head_and_backbone(), path)
    return path


@pytest.mark.parametrize("name", ["ours.pth", "ours.safetensors"])
def test_a_file_is_converted(published, tmp_path, capsys, name):
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors")
    out = tmp_path / name
    assert convert_weights.main([str(published), str(out)]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    words = {key: value.strip() for key, value in lines.items()}
    assert words["source"] == "solo"
    assert words["architecture"] == "SOLOv2-light R18"
    assert words["config"] == "COCO-InstanceSegmentation/solov2_light_448_R_18_FPN_3x.yaml"
    assert words["parameters"] == "18.27 million"
    assert words["entries"].startswith("156, left over 0, dropped 20")
    said = "INPUT.FORMAT RGB INPUT.RESIZE_FILTER opencv MODEL.PIXEL_MEAN"
    assert words["its input"].startswith(said)
    assert "STRIDE_IN_1X1" not in words["its input"]
    assert "and set" not in words
    checkpoint = load_checkpoint(out)
    assert checkpoint["model"]["head.kernel_predictor.bias"].tolist() == list(range(128))
    info = CheckpointInfo.from_dict(checkpoint["solo_d2"])
    assert (info.source, info.config) == ("solo", words["config"])


def test_a_safetensors_file_comes_in(published, tmp_path, capsys):
    safetensors = pytest.importorskip("safetensors.torch")
    state = {k: v.contiguous() for k, v in head_and_backbone()["state_dict"].items()}
    source = tmp_path / "theirs.safetensors"
    safetensors.save_file(state, str(source))
    assert convert_weights.main([str(source), str(tmp_path / "ours.pth")]) == 0
    assert "SOLOv2-light R18" in capsys.readouterr().out


def test_overrides_are_told(tmp_path, capsys):
    torch.save(head_and_backbone(classes=7), tmp_path / "a.pth")
    assert convert_weights.main([str(tmp_path / "a.pth"), str(tmp_path / "b.pth")]) == 0
    assert "and set:      MODEL.SOLO.NUM_CLASSES 7" in capsys.readouterr().out


def test_nothing_is_replaced_without_force(published, tmp_path, capsys):
    out = tmp_path / "ours.pth"
    out.write_text("precious")
    args = [str(published), str(out)]
    assert convert_weights.main(args) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert convert_weights.main([*args, "--force"]) == 0
    assert "head.kernel_predictor.bias" in load_checkpoint(out)["model"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing.pth", "out.pth"], "no such file"),
        (["theirs.pth", "out.pkl"], "must end in .pth or .safetensors"),
        (["theirs.pth", "no/folder/out.pth"], "folder does not exist"),
        (["empty.pth", "out.pth"], "empty"),
        (["other.pth", "out.pth"], "other.pth: not a SOLO of .*such as Mask R-CNN"),
        (["theirs.pth", "out.pth", "--source", "adelaidet"], "the source is 'solo'"),
        (["theirs.pth", "out.pth", "--tolerance", "5"], "--tolerance is of datasets, with --to"),
    ],
)
def test_bad_input_is_one_line(published, tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    Path("empty.pth").touch()
    torch.save({"model": {"roi_heads.box_head.fc1.weight": torch.ones(1)}}, "other.pth")
    assert convert_weights.main(args) == 2
    streams = capsys.readouterr()
    assert len(streams.err.splitlines()) == 1
    assert streams.out == ""
    assert re.search(message, streams.err)
    assert not Path(args[1]).exists()


def test_weights_of_this_package_have_no_other_source(published, tmp_path, capsys):
    own, out = tmp_path / "own.pth", tmp_path / "out.pth"
    assert convert_weights.main([str(published), str(own)]) == 0
    capsys.readouterr()
    for source in ("adelaidet", "solo", "mmdet"):
        assert convert_weights.main([str(own), str(out), "--source", source]) == 2
        error = capsys.readouterr().err
        assert f"{own}: its weights are named as this package names them, not {source}" in error
        assert error.count("\n") == 1 and not out.exists()
    assert convert_weights.main([str(own), str(out), "--source", "auto"]) == 0


def test_unknown_sources_are_refused(published, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        convert_weights.main([str(published), str(tmp_path / "o.pth"), "--source", "paddle"])
    assert caught.value.code == 2
    assert "mmdet" in capsys.readouterr().err
