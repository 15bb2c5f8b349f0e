"""``solo-d2 check``: tables, a JSON file, a page, and what it says of bad input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from check_builders import rectangle

from solo_d2.cli.check import main
from solo_d2.io.image import write_image

TINY = (
    *("--config-file", "Shapes/solov2_lite0.yaml", "INPUT.MIN_SIZE_TEST", "64"),
    *("INPUT.MIN_SIZE_TRAIN", "(48, 64)"),
)


def write_split(folder, name, images, classes=("cup", "<b>fork")):
    """COCO annotations and images of 64 x 64; equal seeds make equal files."""
    (folder / name).mkdir(parents=True)
    annotations = []
    for number, (seed, boxes) in enumerate(images, 1):
        noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
        write_image(folder / name / f"{number}.png", noise)
        for box in boxes:
            entry = rectangle(box, 2)
            del entry["bbox_mode"]
            annotations.append({"id": len(annotations) + 1, "image_id": number, **entry})
    content = {
        "images": [
            {"id": k, "file_name": f"{k}.png", "width": 64, "height": 64}
            for k in range(1, len(images) + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes, 1)],
    }
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    write_split(
        folder,
        "train",
        [(0, [(4, 4, 40, 40), (4, 4, 40, 40), (50, 50, 53, 53)]), (1, [(0, 0, 60, 60)]), (2, [])],
    )
    write_split(folder, "val", [(1, [(8, 8, 50, 50)])])
    return folder


def test_all_figures_are_printed_written_and_drawn(data, tmp_path, capsys):
    report, page = tmp_path / "report.json", tmp_path / "page"
    assert main([str(data), *TINY, "--json", str(report), "--html", str(page)]) == 0
    out, err = capsys.readouterr()
    found = json.loads(report.read_text())
    train = found["splits"]["train"]
    assert (train["images"], train["objects"], train["images_without_objects"]) == (3, 4, 1)
    assert train["cells"]["without"] == 1 and train["cells"]["outside"] == 0  # of two equal masks
    assert train["cells"]["tiny"] == 1 and train["cells"]["too_small"] == 1
    assert train["suspects"]["identical"]["count"] == 1
    assert train["by_class"]["cup"]["objects"] == 0 and train["by_class"]["<b>fork"]["objects"] == 4
    assert [pair[1].rpartition("/")[2] for pair in found["in_both_splits"]] == ["1.png"]
    assert found["proposal"]["now"]["with_cell"] == 75
    assert found["splits"]["val"]["best_possible"]["AP50"] == pytest.approx(100)
    assert re.search(r"objects without a cell +1 \(25.00 %\) +0 \(0.00 %\)", out)
    assert "train: classes without objects: cup" in out
    assert "images of train that are in val, too: 1" in out and "Proposal:" in out
    assert "best possible AP" in err
    text = (page / "index.html").read_text()
    assert text.count("data:image/jpeg") == 1 and "<svg" in text and "<b>fork" not in text
    assert "1.png: 3 objects, 1 without a cell, 1 suspicious" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no data to check"),
        (["DATA", "--data", "DATA"], "name the data once"),
        (["missing"], "missing"),
        (["DATA", "MODEL.SOLO.NUM_GRIDS", "[4]"], "NUM_GRIDS"),
        (["DATA", "MODEL.SOLO.NUM_CLASSES", "5"], "the dataset has 2 classes"),
        (["DATA", "--config-file", "nothing.yaml"], "nothing.yaml"),
    ],
)
def test_bad_input_is_one_line(data, tmp_path, capsys, words, message):
    words = [str(data) if word == "DATA" else word for word in words]
    words = words if "--config-file" in words else [*words, *TINY[:2]]
    if words == [*TINY[:2]]:
        words += ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("solo-d2 check: ") and message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("key", ["TRAIN", "TEST"])
def test_what_would_not_be_checked_is_refused(data, capsys, key):
    assert main([*TINY, f"DATASETS.{key}", "('a', 'b')"]) == 2
    said = capsys.readouterr().err
    assert f"DATASETS.{key} has a, b; name one: DATASETS.{key} \"('a',)\"" in said
    with pytest.raises(SystemExit):
        main([str(data), *TINY, "--more-json", "more.json"])
    assert "unrecognized arguments: --more-json" in capsys.readouterr().err


def test_a_dataset_without_a_usable_mask_is_refused(tmp_path, capsys):
    write_split(tmp_path / "bare", "train", [(0, []), (1, [])])
    assert main([str(tmp_path / "bare"), *TINY]) == 2
    assert "annotate objects" in capsys.readouterr().err


def test_images_that_are_composed_in_training_are_refused(tmp_path, capsys):
    from solo_d2.data.scenes.__main__ import main as build

    assert build(["shapes", "--output", str(tmp_path), "--train", "1", "--val", "1"]) == 0
    capsys.readouterr()
    assert main(["--composed", str(tmp_path), *TINY]) == 2
    assert "are made while training and cannot be checked" in capsys.readouterr().err
