"""Facts about films with known identities."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest

from solo_d2.cli.scenes import main
from solo_d2.data.scenes.cutouts import Background, Cutout
from solo_d2.data.scenes.film import FilmOptions, sample_film
from solo_d2.data.scenes.shapes import SHAPES, shape_sprites

SMALL = FilmOptions(96, 128, frames=40, objects=(4, 6), min_pixels=20)


@pytest.fixture(scope="module")
def sprites():
    return shape_sprites(np.random.default_rng(0), 160, 2)


def test_a_film_depends_on_its_seed_only(sprites):
    first, again, other = (
        sample_film(np.random.default_rng(seed), *sprites, SMALL) for seed in (3, 3, 4)
    )
    assert (first.frame(7).image == again.frame(7).image).all()
    assert (first.frame(7).masks == again.frame(7).masks).all()
    assert (first.frame(7).image != other.frame(7).image).any()


def test_masks_are_what_is_seen_of_the_objects_and_do_not_overlap(sprites):
    film = sample_film(np.random.default_rng(1), *sprites, SMALL)
    hidden = 0
    for frame in film:
        assert (frame.masks.sum(0) <= 1).all()
        assert (frame.masks.sum((1, 2)) >= SMALL.min_pixels).all()
        assert (np.diff(frame.objects) > 0).all()
        changed = (frame.image != film.background).any(2)
        assert (changed | ~frame.masks.any(0)).mean() > 0.99  # an object may have a like colour
        hidden += len(film.categories) - len(frame.objects)
    assert hidden > 0  # somebody hides or leaves
    assert set(film.categories) <= set(range(len(SHAPES)))


def test_paths_are_smooth_and_below_the_top_speed():
    disc = np.zeros((41, 41, 4), np.uint8)
    cv2.circle(disc, (20, 20), 20, (255, 255, 255, 255), -1)
    background = Background(np.zeros((300, 400, 3), np.uint8), np.zeros((300, 400), np.uint8))
    options = FilmOptions(300, 400, frames=60, objects=(1, 1), speed=(0.02, 0.02), reach=0.2)
    for seed in range(8):
        film = sample_film(np.random.default_rng(seed), [Cutout(disc, 0)], [background], options)
        places = np.array([film.actors[0].path.at(number) for number in range(60)])
        steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
        assert steps.max() <= 0.02 * 300 + 1e-6
        assert steps.max() > 1
        assert np.linalg.norm(np.diff(places, 2, axis=0), axis=1).max() < 1


def test_the_command_writes_frames_youtube_vis_and_mots(tmp_path):
    line = ["film", "--source", "shapes", "--output", str(tmp_path), "--films", "2"]
    assert main([*line, "--frames", "6", "--size", "96", "128", "--objects", "3", "4"]) == 0
    content = json.loads((tmp_path / "instances.json").read_text())
    assert [video["length"] for video in content["videos"]] == [6, 6]
    names = [name for video in content["videos"] for name in video["file_names"]]
    found = sorted(str(x.relative_to(tmp_path / "frames")) for x in tmp_path.rglob("*.jpg"))
    assert found == sorted(names)
    assert [category["name"] for category in content["categories"]] == list(SHAPES)
    by_frame = {}
    for one in content["annotations"]:
        assert len(one["segmentations"]) == len(one["bboxes"]) == len(one["areas"]) == 6
        for number, (rle, area) in enumerate(zip(one["segmentations"], one["areas"], strict=True)):
            assert (rle is None) == (area is None)
            if rle is not None:
                assert mask_util.decode(rle).shape == (96, 128)
                assert mask_util.area(rle) == area
                by_frame.setdefault((one["video_id"], number + 1), []).append(rle["counts"])
    lines = [
        (number, line.split(" "))
        for number in (1, 2)
        for line in (tmp_path / f"mots/film_{number - 1:03d}.txt").read_text().splitlines()
    ]
    assert {key: sorted(counts) for key, counts in by_frame.items()} == {
        key: sorted(x[5] for n, x in lines if (n, int(x[0])) == key) for key in by_frame
    }


def test_annotations_of_others_are_not_replaced(tmp_path, capsys):
    (tmp_path / "instances.json").write_text("mine")
    line = ["film", "--source", "shapes", "--output", str(tmp_path), "--films", "1"]
    line += ["--frames", "2", "--size", "96", "128"]
    assert main(line) == 2
    assert "instances.json: is of no films written here" in capsys.readouterr().err
    assert (tmp_path / "instances.json").read_text() == "mine"
    (tmp_path / "instances.json").unlink()
    assert main(line) == main(line) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--frames", "0"], "a film needs 1 frame or more of 16x16 pixels or more, got 0"),
        (["--objects", "5", "2"], r"--objects must be 1 <= LOW <= HIGH"),
        (["--films", "0"], "need --films >= 1"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, capsys, options, said):
    assert main(["film", "--source", "shapes", "--output", str(tmp_path), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
