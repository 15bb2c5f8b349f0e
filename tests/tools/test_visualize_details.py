"""The image of Details Refinement's channels."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from builders import SOFT, tiny_config
from detectron2.modeling import build_model

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import visualize_details
from _drawing import CAPTION, GAP

YELLOW = cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0]


@pytest.fixture
def files(tmp_path):
    """(config, weights, image) of 96x64: no padding, and tiles of the image's own size."""
    cfg = tiny_config(*SOFT, "INPUT.MIN_SIZE_TEST", 64)
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
    (tmp_path / "soft.yaml").write_text(cfg.dump())
    cv2.imwrite(
        str(tmp_path / "a.png"),
        np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8),
    )
    return tmp_path


def call(files, *more):
    line = f"--config-file {files}/soft.yaml --weights {files}/model.pth --device cpu"
    line += f" --input {files}/a.png --output {files}/details.png"
    return visualize_details.main([*line.split(), *map(str, more)])


def test_channels_in_and_out_are_side_by_side(files, capsys):
    assert call(files, "--channels", 3, 1, "--columns", 2, "--tile-width", 96) == 0
    told = capsys.readouterr().out
    assert "2 of 32 channels, in: 24x16, out: 96x64" in told
    drawn = cv2.imread(str(files / "details.png"))
    side = 2 * (96 + GAP) + GAP
    assert drawn.shape[1] == 2 * (side + GAP) + GAP
    predictor = visualize_details.load_predictor(
        visualize_details.make_parser().parse_args(
            f"--config-file {files}/soft.yaml --weights {files}/model.pth --device cpu "
            f"--input {files}/a.png --output {files}/x.png".split()
        ),
        [],
    )
    seen = []
    details = predictor.model.head.details
    details.register_forward_hook(lambda _m, _a, output: seen.append(output))
    predictor(cv2.imread(str(files / "a.png")))
    top = GAP + CAPTION + GAP + CAPTION
    for number, channel in enumerate((3, 1)):
        left = GAP + side + GAP + GAP + number * (96 + GAP)
        shown = drawn[top : top + 64, left : left + 96]
        y, x = divmod(int(seen[0][0, channel].argmax()), 96)
        assert (shown[y, x] == YELLOW).all()


def test_all_channels_by_default(files, capsys):
    assert call(files) == 0
    assert "32 of 32 channels" in capsys.readouterr().out


def test_bad_use_ends_with_one_line(files, capsys):
    assert call(files, "--channels", 32) == 2
    assert "--channels must lie in [0, 32)" in capsys.readouterr().err
    plain = ["MODEL.META_ARCHITECTURE", "SOLO", "MODEL.SOLO.HEAD", "DynamicSOLOHead"]
    assert call(files, *plain, "MODEL.SOLO.MASK_LOSS", "dice", "MODEL.WEIGHTS", "") == 2
    assert "Traceback" not in capsys.readouterr().err
    assert call(files, "--columns", 0) == 2


def test_a_head_without_details_is_refused():
    model = build_model(tiny_config())
    with pytest.raises(ValueError, match="DynamicSOLOHead has no Details Refinement"):
        visualize_details.details_of(model)
