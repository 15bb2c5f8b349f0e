"""Facts about results by object: MOTS and YouTube-VIS."""

from __future__ import annotations

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch

from solo_d2.io.track_files import MOTSFile, VISFile, track_file
from solo_d2.layers import encode_masks

SIZE = (10, 20)


def entry(frame, track, left, right, score=0.9, category=4):
    mask = np.zeros((1, *SIZE), bool)
    mask[:, 2:8, left:right] = True
    (rle,) = encode_masks(torch.from_numpy(mask))
    return {
        "image_id": frame,
        "track_id": track,
        "category_id": category,
        "score": score,
        "segmentation": rle,
    }


FRAMES = [
    [entry(0, 1, 0, 8, 0.8), entry(0, 2, 6, 14, 0.9)],
    [],
    [entry(2, 1, 2, 10, 0.6, category=5)],
]


def write(kind, path, **options):
    file = kind(path)
    for results in FRAMES:
        file.add(results, None)
    return file.finish(**{"whole": True, "frames": 4, **options})


def test_mots_lines_have_masks_that_do_not_overlap(tmp_path):
    path = write(MOTSFile, tmp_path / "t.txt")
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    assert [line[:5] for line in lines] == [
        ["1", "1", "4", "10", "20"],
        ["1", "2", "4", "10", "20"],
        ["3", "1", "5", "10", "20"],
    ]
    masks = [mask_util.decode({"size": SIZE, "counts": line[5]}) for line in lines]
    assert [np.flatnonzero(mask.any(0)).tolist() for mask in masks] == [
        list(range(6)),  # the better score has what both cover
        list(range(6, 14)),
        list(range(2, 10)),
    ]


def test_vis_entries_have_a_mask_or_null_for_every_frame(tmp_path):
    one, two = json.loads(write(VISFile, tmp_path / "t.json").read_text())
    assert (one["id"], one["video_id"], one["category_id"]) == (1, 1, 5)
    assert one["score"] == pytest.approx(0.7)
    assert one["segmentations"] == [
        FRAMES[0][0]["segmentation"], None, FRAMES[2][0]["segmentation"], None,
    ]  # fmt: skip
    assert two["segmentations"] == [FRAMES[0][1]["segmentation"], None, None, None]


@pytest.mark.parametrize("kind", [MOTSFile, VISFile])
def test_a_part_does_not_replace_an_older_file(tmp_path, kind):
    older = tmp_path / "t.x"
    older.write_text("older")
    path = write(kind, older, whole=False)
    assert older.read_text() == "older"
    assert path.name.startswith("t.partial-")
    assert path.stat().st_size > 50
    file = kind(older)
    file.discard()
    assert sorted(tmp_path.iterdir()) == sorted([older, path])


def test_other_extensions_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"t\.csv: tracks are written as \.txt \(MOTS\)"):
        track_file(tmp_path / "t.csv")
