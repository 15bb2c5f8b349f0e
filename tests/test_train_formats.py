"""`train_net.py` on data in LVIS format and in Cityscapes' folders."""

from __future__ import annotations

import json

import pytest
from cityscapes_folder import write_folder
from commands import train_net as run
from test_train_net import CONFIG, SMALL

from solo_d2.data.arguments import register_named_data
from solo_d2.data.datasets.lvis import write_lvis
from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.shapes import ShapesSource
from solo_d2.engine import argument_parser


@pytest.fixture(scope="module")
def lvis(tmp_path_factory):
    root = tmp_path_factory.mktemp("lvis")
    build(ShapesSource((64, 96)), root, train=6, val=3, workers=1, progress=False)
    for split in ("train", "val"):
        coco = root / "annotations" / f"{split}.json"
        write_lvis(coco, root / f"{split}.json", counts_from=root / "annotations" / "train.json")
    return root


def metrics(folder):
    """All that a run wrote, under one roof."""
    lines = (folder / "metrics.json").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


@pytest.mark.slow
def test_lvis_trains_with_repeated_classes_and_reports_ap_by_frequency(lvis, tmp_path):
    done = run(
        *("--config-file", CONFIG, "--data-format", "lvis"),
        *("--train-json", lvis / "train.json", "--train-images", lvis / "train"),
        *("--val-json", lvis / "val.json", "--val-images", lvis / "val"),
        *("OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", "1", "TEST.EVAL_PERIOD", "1", *SMALL),
        *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
    )
    assert done.returncode == 0, done.stderr
    assert {"segm/AP", "segm/APr", "bbox/APf"} <= metrics(tmp_path).keys()
    assert (tmp_path / "inference" / "own_val" / "lvis_instances_results.json").is_file()


@pytest.mark.slow
def test_cityscapes_trains_and_evaluates(tmp_path):
    pytest.importorskip("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    write_folder(tmp_path)
    out = tmp_path / "out"
    done = run(
        *("--config-file", CONFIG, "--cityscapes", tmp_path, "OUTPUT_DIR", out),
        *("SOLVER.MAX_ITER", "1", "TEST.EVAL_PERIOD", "1", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    assert {"segm/AP", "segm/AP50", "segm/AP-car"} <= metrics(out).keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--val-json", "{}/val.json"], r"val\.json is in LVIS format.*--data-format lvis"),
        (
            ["--val-json", "{}/annotations/val.json", "--data-format", "lvis"],
            r"val\.json is not in LVIS format",
        ),
        (["--cityscapes", "{}"], "leftImg8bit/train: no such folder; unpack"),
        (["--cityscapes", "{}", "--stamps", "{}"], "name one dataset"),
    ],
)
def test_wrong_formats_and_incomplete_folders_are_refused(arguments, said, lvis):
    images = ["--val-images", str(lvis / "val")] if "--val-json" in arguments else []
    args = argument_parser().parse_args([*(x.format(lvis) for x in arguments), *images])
    with pytest.raises(ValueError, match=said):
        register_named_data(args, panoptic=False)
