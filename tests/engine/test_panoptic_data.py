"""Panoptic data on the command line, and a training from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import tiny_config
from commands import train_net as run
from detectron2.data import DatasetCatalog, MetadataCatalog
from panoptic_scenes import write_scenes

from solo_d2.checkpoint.files import load_checkpoint
from solo_d2.data.arguments import register_named_data
from solo_d2.engine import argument_parser, check_data, use_data
from solo_d2.engine.prepare import use_stuff

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "Stamps" / "panoptic_lite0.yaml"
SMALL = ["MODEL.TIMM.WEIGHTS", "", "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"]
SMALL += [
    "SOLVER.IMS_PER_BATCH",
    "2",
    "DATALOADER.NUM_WORKERS",
    "0",
    "MODEL.FPN.OUT_CHANNELS",
    "32",
]


@pytest.fixture(autouse=True)
def _clean():
    yield
    for name in ("own_train_panoptic", "own_val_panoptic"):
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def own_data(files, split="train"):
    flags = f"--{split}-panoptic-json", f"--{split}-panoptic-root", f"--{split}-images"
    return [str(x) for pair in zip(flags, files, strict=True) for x in pair]


def test_class_counts_come_from_the_data(tmp_path):
    args = argument_parser().parse_args(own_data(write_scenes(tmp_path), "val"))
    names = register_named_data(args, panoptic=True)
    assert names == {"TEST": "own_val_panoptic"}
    cfg = tiny_config("MODEL.META_ARCHITECTURE", "PanopticSOLO")
    use_data(cfg, names)
    use_stuff(cfg, names["TEST"])
    assert (cfg.MODEL.SOLO.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES) == (2, 3)
    check_data(cfg, list(names.values()))
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 54
    with pytest.raises(ValueError, match=r"SEM_SEG_HEAD.NUM_CLASSES 3"):
        check_data(cfg, list(names.values()))
    with pytest.raises(ValueError, match=r"NUM_CLASSES is 54, the dataset has 2 stuff classes"):
        use_stuff(cfg, names["TEST"], fixed=True)


def test_nothing_named_is_nothing_registered():
    assert register_named_data(argument_parser().parse_args([]), panoptic=True) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train-panoptic-json", "a.json"], "--train-panoptic-root, --train-images together"),
        (["--val-json", "a.json", "--val-images", "a"], "needs --val-panoptic-json"),
        (["--shapes", "a"], "shapes data have no panoptic annotations"),
        (["--stamps", "a"], "no stamps dataset in a"),
        (["--stamps", "a", "--train-panoptic-json", "a.json"], "name one dataset"),
    ],
)
def test_bad_command_lines_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        register_named_data(argument_parser().parse_args(arguments), panoptic=True)


def test_panoptic_data_needs_a_panoptic_config(tmp_path):
    done = run(
        *("--config-file", ROOT / "configs" / "Stamps" / "solov2_lite0.yaml"),
        *own_data(write_scenes(tmp_path)),
    )
    assert done.returncode == 2
    assert (
        "need a config with MODEL.META_ARCHITECTURE PanopticSOLO"
        in done.stderr.strip().splitlines()[-1]
    )


@pytest.mark.slow
def test_trains_and_evaluates_own_data(tmp_path):
    files = write_scenes(tmp_path)
    done = run(
        *("--config-file", CONFIG, *own_data(files), *own_data(files, "val")),
        *("OUTPUT_DIR", tmp_path / "out", "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "2", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    assert "Panoptic quality: PQ" in done.stdout + done.stderr
    folder = tmp_path / "out" / "inference" / "own_val_panoptic"
    assert (folder / "predictions.json").is_file()
    assert len(list((folder / "predictions").iterdir())) == 3
    info = load_checkpoint(tmp_path / "out" / "model_final.pth")["solo_d2"]
    assert (len(info["class_names"]), len(info["stuff_names"])) == (2, 3)
    assert info["stuff_names"][0] == "things"
