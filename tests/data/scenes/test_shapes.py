"""Procedural shapes: facts about the masks, and the command."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from solo_d2.data.scenes import shapes
from solo_d2.data.scenes.__main__ import main
from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.shapes import SHAPES, ShapesSource, make_shapes_scene


def test_scene_depends_on_the_seed_only():
    first, again, other = (make_shapes_scene(s, 64, 80) for s in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_masks_are_visible_parts_that_do_not_overlap():
    for seed in range(20):
        image, masks, classes = make_shapes_scene(seed, 72, 96, objects=(5, 12))
        assert (image.shape, image.dtype) == ((72, 96, 3), np.uint8)
        assert masks.shape == (len(classes), 72, 96)
        assert masks.dtype == bool
        assert masks.sum(axis=0).max() <= 1
        assert (masks.sum(axis=(1, 2)) >= 24).all()
        assert classes.min() >= 0
        assert classes.max() < len(SHAPES)


def test_every_shape_occurs():
    seen = np.concatenate([make_shapes_scene(s, 64, 64)[2] for s in range(40)])
    assert set(seen) == set(range(len(SHAPES)))


def test_no_objects_gives_no_masks():
    _, masks, classes = make_shapes_scene(0, 32, 32, objects=(0, 0))
    assert masks.shape == (0, 32, 32)
    assert len(classes) == 0


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", math.pi),
        ("square", 2.0),
        ("triangle", 3 * math.sqrt(3) / 4),
        ("star", 10 * 0.5 * 0.45 * math.sin(math.pi / 5)),
        ("ring", math.pi * (1 - 0.55**2)),
    ],
)
@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_coverage_is_the_area_of_the_shape(shape, area, angle):
    alpha = shapes._alpha(shape, 40.0, angle)
    assert alpha.sum() == pytest.approx(area * 1600, rel=0.03)


@pytest.mark.parametrize(
    "arguments", [{"height": 15, "width": 64}, {"height": 64, "width": 64, "objects": (3, 2)}]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        make_shapes_scene(0, **arguments)


def test_a_small_size_is_refused_before_anything_is_built():
    ShapesSource((16, 16))
    with pytest.raises(ValueError, match="at least 16x16 pixels, got 16x15"):
        ShapesSource((16, 15))


def test_built_files_do_not_depend_on_the_number_of_workers(tmp_path):
    for workers in (1, 2):
        out = tmp_path / str(workers)
        build(ShapesSource((48, 64)), out, train=6, val=2, workers=workers, progress=False)
    one, two = (
        {p.relative_to(tmp_path / d): p.read_bytes() for p in (tmp_path / d).rglob("*.*")}
        for d in "12"
    )
    assert one == two
    assert len(one) == 6 + 2 + 2 + 1  # images, annotations, manifest


def test_command_builds_once_and_again_for_other_parameters(tmp_path):
    command = ["shapes", "--output", str(tmp_path), "--train", "2", "--val", "1"]
    command += ["--size", "64x80"]
    assert main([*command, "--workers", "1"]) == 0
    manifest = tmp_path / "manifest.json"
    stamp = manifest.stat().st_mtime_ns
    assert main(command) == 0
    assert manifest.stat().st_mtime_ns == stamp
    assert main([*command, "--seed", "1", "--workers", "1"]) == 0
    assert json.loads(manifest.read_text())["request"]["seed"] == 1
    content = json.loads((tmp_path / "annotations" / "train.json").read_text())
    assert [c["name"] for c in content["categories"]] == list(SHAPES)
    assert {i["file_name"] for i in content["images"]} == {"000001.jpg", "000002.jpg"}


def test_bad_command_lines_fail_with_one_line(tmp_path, capsys):
    assert main(["shapes", "--output", str(tmp_path), "--train", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: need train >= 1")
    with pytest.raises(SystemExit):
        main(["shapes", "--output", str(tmp_path), "--size", "64"])
    assert "HEIGHTxWIDTH" in capsys.readouterr().err


def test_scenes_have_as_many_shapes_of_such_sizes_as_asked_for():
    source = ShapesSource((96, 128), objects=(20, 30), radii=(0.06, 0.08))
    draw = source.load(Path(), 0, progress=False)["train"]
    for seed in range(3):
        masks = draw(np.random.default_rng(seed)).masks
        assert 8 <= len(masks) <= 30  # those that others would hide are left out
        assert all(max(mask.any(0).sum(), mask.any(1).sum()) <= 17 for mask in masks)


def test_only_what_differs_from_the_usual_stands_in_the_request():
    usual, other = ShapesSource(), ShapesSource(objects=(2, 3), radii=(0.1, 0.2))
    assert {"objects", "radii"}.isdisjoint(usual.request({}, 0))
    for source in (usual, other):
        assert ShapesSource.restore(source.request({}, 0), {}) == source


@pytest.mark.parametrize("values", [{"objects": (0, 3)}, {"objects": (3, 2)}, {"radii": (0, 0.5)}])
def test_an_empty_range_of_shapes_is_refused(values):
    with pytest.raises(ValueError, match=f"--{next(iter(values))}"):
        ShapesSource(**values)
