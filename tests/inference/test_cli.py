"""Facts about command lines: which files a pattern means, and where the overrides begin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from solo_d2.inference.cli import find_images, load_class_names, output_paths, split_overrides


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(files):
    return [file.name for file in files]


def test_a_folder_means_its_pictures_sorted(folder):
    files, problems = find_images([str(folder)])
    assert names(files) == ["a.JPG", "b.png"]
    assert problems == []


def test_globs_and_files_mean_what_they_match_once_in_order(folder):
    files, problems = find_images(
        [str(folder / "notes.txt"), str(folder / "**" / "*.png"), str(folder / "b.png")]
    )
    assert names(files) == ["notes.txt", "b.png", "c.png"]
    assert problems == []


def test_a_file_name_with_glob_characters_is_a_file(folder):
    (folder / "[1].png").touch()
    assert names(find_images([str(folder / "[1].png")])[0]) == ["[1].png"]


def test_patterns_without_pictures_are_named(folder):
    (folder / "empty").mkdir()
    files, problems = find_images([str(folder / "empty"), str(folder / "*.gif"), "none.png"])
    assert files == []
    assert [line.split(":")[0] for line in problems] == [
        str(folder / "empty"),
        str(folder / "*.gif"),
        "none.png",
    ]


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        (["--input", "a.jpg", "b.jpg"], 0),
        (["--input", "a.jpg", "MODEL.DEVICE", "cpu"], 2),
        (["--input", "a.jpg", "SEED", "3", "INPUT.FORMAT", "RGB"], 4),
        (["--input", "a.jpg", "MODEL.NO_SUCH.KEY", "3"], 2),  # fails as an override later
        (["--input", "IMG.JPG", "DSC.JPG"], 0),
        (["--input", "MODEL", "a.jpg"], 0),  # a folder of this name; the node is no key
        ([], 0),
    ],
)
def test_overrides_begin_at_the_first_key_of_the_trailing_pairs(argv, count):
    rest, overrides = split_overrides(argv)
    assert len(overrides) == count
    assert rest + overrides == argv


def test_a_key_without_value_is_named():
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT has no value"):
        split_overrides(["--input", "a.jpg", "INPUT.FORMAT"])
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT has no value"):
        split_overrides(["SEED", "3", "INPUT.FORMAT"])


def test_outputs_keep_names_and_never_collide():
    images = [Path(p) for p in ("x/a.jpg", "y/a.jpg", "a.png", "b.TIF", "x/A.JPEG", "a_2.jpg")]
    paths = output_paths(images, Path("out"))
    assert names(paths) == ["a.jpg", "a_2.jpg", "a.png", "b.png", "A_3.jpg", "a_2_2.jpg"]
    assert {path.parent for path in paths} == {Path("out")}


def test_one_picture_may_name_its_output_file(tmp_path):
    assert output_paths([Path("a.jpg")], Path("out/b.png")) == [Path("out/b.png")]
    with pytest.raises(ValueError, match=r"b\.png: is one file, there are 2 images"):
        output_paths([Path("a.jpg"), Path("c.jpg")], Path("b.png"))
    two = output_paths([Path("a.jpg"), Path("c.jpg")], "b.png/")
    assert two == [Path("b.png/a.jpg"), Path("b.png/c.jpg")]


def test_inputs_are_never_overwritten(folder):
    with pytest.raises(ValueError, match=r"b\.png: is an input"):
        output_paths([folder / "b.png"], folder)
    with pytest.raises(ValueError, match=r"b\.png: is an input"):
        output_paths([folder / "b.png"], folder / "deep" / ".." / "b.png")


def test_class_names_come_by_category_id_or_line(tmp_path):
    categories = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}]
    (tmp_path / "a.json").write_text(json.dumps({"categories": categories}))
    assert load_class_names(tmp_path / "a.json") == ["cat", "dog"]
    (tmp_path / "a.txt").write_text("zebra\n\n  teddy bear \n")
    assert load_class_names(tmp_path / "a.txt") == ["zebra", "teddy bear"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "{"), ("a.json", "[]"), ("a.json", '{"categories": []}'), ("a.txt", "\n")],
)
def test_files_without_class_names_are_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: .*class names"):
        load_class_names(tmp_path / name)


def test_a_missing_file_of_class_names_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.txt: no class names can be read"):
        load_class_names(tmp_path / "none.txt")
