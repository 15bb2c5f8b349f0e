"""The curated table, fetching packages, and a tiny set built from made-up images."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as mask_util

from solo_d2.data.scenes import debian as pictures
from solo_d2.data.scenes import stamps
from solo_d2.data.scenes.__main__ import main
from solo_d2.data.scenes.build import build as build_dataset
from solo_d2.data.scenes.cutouts import SceneOptions
from solo_d2.data.scenes.register import register_built
from solo_d2.data.scenes.stamps import StampsSource, StampsUnavailableError, load_table

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")


def test_no_cutout_and_no_background_is_on_both_sides():
    table = load_table()
    sides = {
        split: [n for c in table["categories"].values() for n in c[split]]
        for split in ("train", "val")
    }
    assert not set(sides["train"]) & set(sides["val"])
    everything = sides["train"] + sides["val"]
    assert len(everything) == len(set(everything)) >= 230
    papers = [(b["package"], b["path"]) for b in table["backgrounds"]]
    assert len(papers) == len(set(papers))
    assert {b["split"] for b in table["backgrounds"]} == {"train", "val"}


@pytest.mark.parametrize("name", load_table()["categories"])
def test_every_category_has_eight_cutouts_and_about_a_quarter_for_validation(name):
    category = load_table()["categories"][name]
    train, val = len(category["train"]), len(category["val"])
    assert train + val >= 8
    assert val >= 2
    assert 0.2 <= val / (train + val) <= 0.3


def test_table_names_photographs_of_objects_only():
    table = load_table()
    for category in table["categories"].values():
        for name in category["train"] + category["val"]:
            assert not {"symbols", "flags", "cartoon", "roadsigns"} & set(name.split("/"))


def test_stuff_labels_of_the_table_are_declared_and_drawn_inside():
    table = load_table()
    for background in table["backgrounds"]:
        assert background["stuff"] in table["stuff"]
        x0, y0, x1, y1 = background.get("region", (0, 0, 1, 1))
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        for part in background.get("parts", ()):
            assert part["stuff"] in table["stuff"]
            assert all(0 <= v <= 1 for point in part["polygon"] for v in point)


TABLE = {
    "cutout_root": "usr/share/tuxpaint/stamps",
    "categories": {
        "red": {"upright": True, "train": ["a/red1", "a/red2"], "val": ["a/red3"]},
        "blue": {"upright": False, "train": ["a/blue1"], "val": ["a/blue2"]},
    },
    "stuff": ["sky", "ground"],
    "backgrounds": [
        {"package": "papers", "path": f"usr/share/{split}.jpg", "split": split, "stuff": "ground",
         "parts": [{"stuff": "sky", "polygon": [[0, 0], [1, 0], [1, 0.5], [0, 0.5]]}]}
        for split in ("train", "val")
    ],
}  # fmt: skip
OPTIONS = SceneOptions(height=64, width=80, min_pixels=20)


@pytest.fixture
def tree(tmp_path):
    """A folder laid out like the unpacked packages."""
    root = tmp_path / "tree"
    folder = root / TABLE["cutout_root"] / "a"
    folder.mkdir(parents=True)
    y, x = np.mgrid[:60, :60] - 29.5
    alpha = np.clip((29 - np.hypot(x, y)) * 40, 0, 255)
    for name, colour in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        for k in (1, 2, 3):
            rgba = np.dstack([np.broadcast_to(colour, (60, 60, 3)), alpha]).astype(np.uint8)
            Image.fromarray(rgba).save(folder / f"{name}{k}.png")
    for split in ("train", "val"):
        picture = np.full((120, 160, 3), 128, np.uint8)
        Image.fromarray(picture).save(root / "usr/share" / f"{split}.jpg")
    return root


def build(output, tree, one_class=False, **changes):
    source = StampsSource(OPTIONS, one_class, extracted=tree, table=TABLE)
    arguments = {"train": 4, "val": 2, "workers": 1, "progress": False}
    return build_dataset(source, output, **{**arguments, **changes})


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_seed_gives_the_same_files_whatever_the_number_of_workers(tree, tmp_path):
    for name, workers, seed in (("one", 1, 0), ("two", 2, 0), ("other", 1, 1)):
        assert build(tmp_path / name, tree, workers=workers, seed=seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    train = (tmp_path / "one/train/000001.jpg").read_bytes()
    assert train != (tmp_path / "other/train/000001.jpg").read_bytes()


def test_more_scenes_begin_with_the_same_ones(tree, tmp_path):
    build(tmp_path / "few", tree, train=2)
    build(tmp_path / "many", tree, train=4)
    for name in ("000001.jpg", "000002.jpg"):
        few, many = (tmp_path / s / "train" / name for s in ("few", "many"))
        assert few.read_bytes() == many.read_bytes()


def test_second_run_does_nothing_until_a_parameter_changes(tree, tmp_path):
    out = tmp_path / "out"
    assert build(out, tree)
    assert not build(out, tree)
    assert build(out, tree, train=3)
    assert len(list((out / "train").iterdir())) == 3
    (out / "manifest.json").unlink()  # as after a run that was cut off
    (out / ".building").mkdir()
    assert build(out, tree, train=3)
    assert not (out / ".building").exists()


def test_one_class_is_the_same_scenes_under_one_name(tree, tmp_path):
    build(tmp_path / "all", tree)
    assert build(tmp_path / "all", tree, one_class=True)  # other data than before
    build(tmp_path / "one", tree, one_class=True)
    build(tmp_path / "many", tree)
    assert contents(tmp_path / "all") == contents(tmp_path / "one")
    one, many = (
        json.loads((tmp_path / name / "annotations/train.json").read_text())
        for name in ("one", "many")
    )
    assert [x["name"] for x in one["categories"]] == ["object"]
    assert {x["category_id"] for x in many["annotations"]} == {1, 2}
    assert one["annotations"] == [{**x, "category_id": 1} for x in many["annotations"]]
    picture = "train/000001.jpg"
    assert (tmp_path / "one" / picture).read_bytes() == (tmp_path / "many" / picture).read_bytes()


def test_failed_run_keeps_what_was_there(tree, tmp_path, monkeypatch):
    out = tmp_path / "out"
    build(out, tree)
    before = contents(out)
    monkeypatch.setattr(stamps, "_draw", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(out, tree, seed=5)
    assert contents(out) == before


def test_mattes_masks_and_stuff_of_the_files_agree(tree, tmp_path):
    build(tmp_path, tree)
    content = json.loads((tmp_path / "annotations/train.json").read_text())
    assert content["annotations"]
    masks = {i["id"]: np.zeros((64, 80), int) for i in content["images"]}
    for annotation in content["annotations"]:
        mask = mask_util.decode(annotation["segmentation"])
        masks[annotation["image_id"]] += mask
        matte = np.zeros((64, 80))
        crop = np.asarray(Image.open(tmp_path / annotation["alpha"]["file_name"]))
        x, y = annotation["alpha"]["offset"]
        matte[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        np.testing.assert_array_equal(matte >= 127.5, mask.astype(bool))
        assert annotation["area"] == mask.sum()
    for image in content["images"]:
        stuff = np.asarray(Image.open(tmp_path / image["stuff_file_name"]))
        np.testing.assert_array_equal(stuff == 0, masks[image["id"]] > 0)
        assert masks[image["id"]].max() <= 1
        assert set(np.unique(stuff)) <= {0, 1, 2}


def register(root):
    return register_built(root, "tiny", kind="stamps")


def test_registration_of_a_built_set(tree, tmp_path):
    with pytest.raises(ValueError, match=r"-m solo_d2\.data\.scenes stamps --output"):
        register(tmp_path / "none")
    build(tmp_path / "a", tree)
    build(tmp_path / "b", tree)
    names = register(tmp_path / "a")
    try:
        assert names == ("tiny_train", "tiny_val") == register(tmp_path / "a")
        assert len(DatasetCatalog.get("tiny_train")) == 4
        assert MetadataCatalog.get("tiny_val").thing_classes == ["red", "blue"]
        assert MetadataCatalog.get("tiny_val").stuff_classes == ["sky", "ground"]
        with pytest.raises(ValueError, match="'tiny_train' is taken"):
            register(tmp_path / "b")
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_category_or_split_without_pictures_is_an_error(tree, tmp_path):
    (tree / TABLE["cutout_root"] / "a/red2.png").unlink()
    assert build(tmp_path / "one", tree)  # one of two: a warning
    (tree / TABLE["cutout_root"] / "a/red1.png").unlink()
    with pytest.raises(StampsUnavailableError, match=r"none of the 2 cut-outs of 'red' \(train\)"):
        build(tmp_path / "two", tree)
    (tree / "usr/share/val.jpg").unlink()
    with pytest.raises(StampsUnavailableError, match="no val background"):
        stamps._load_library(TABLE, dict.fromkeys(["papers", stamps.STAMPS_PACKAGE], tree), "val")


@pytest.mark.parametrize("numbers", [{"train": 0}, {"val": 0}, {"seed": -1}])
def test_bad_numbers_are_refused(tree, tmp_path, numbers):
    with pytest.raises(ValueError, match="need train >= 1"):
        build(tmp_path, tree, **numbers)


def test_without_apt_the_command_ends_with_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["stamps", "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: apt-get is needed")
    assert "--deb" in error
    assert len(error.splitlines()) == 1


@pytest.fixture
def deb(tree, tmp_path):
    """A real package of the tree."""
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: {stamps.STAMPS_PACKAGE}\nVersion: 1\nArchitecture: all\n"
        "Maintainer: nobody <n@example.org>\nDescription: test\n"
    )
    path = tmp_path / "stamps.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(path)], check=True, capture_output=True)
    return path


@needs_dpkg
def test_package_file_is_unpacked_once_and_only_what_is_wanted(deb, tmp_path):
    name = f"{TABLE['cutout_root']}/a/red1.png"
    arguments = (stamps.STAMPS_PACKAGE, [name, "usr/absent.png"], tmp_path / "cache", deb)
    folder = pictures.fetch_package(*arguments)
    assert [p for p in folder.rglob("*") if p.is_file()] == [folder / name]
    deb.unlink()
    assert pictures.fetch_package(*arguments) == folder


@needs_dpkg
def test_damaged_package_is_detected_and_leaves_nothing(deb, tmp_path):
    deb.write_bytes(deb.read_bytes()[:-200])
    cache = tmp_path / "cache"
    with pytest.raises(StampsUnavailableError, match="damaged or incomplete"):
        pictures.fetch_package(stamps.STAMPS_PACKAGE, ["usr/share/train.jpg"], cache, deb)
    assert list(cache.iterdir()) == []


@needs_dpkg
def test_files_that_are_not_the_package_are_refused(deb, tmp_path, capsys, monkeypatch):
    deb.with_name("text.deb").write_text("not a package")
    for name, message in (("none.deb", "no such file"), ("text.deb", "not a Debian package")):
        command = ["stamps", "--output", str(tmp_path / "o"), "--deb", str(deb.with_name(name))]
        assert main(command) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(stamps, "_wanted_files", lambda table: {"other": []})
    with pytest.raises(ValueError, match=r"expected one of \['other'\]"):
        build_dataset(StampsSource(debs=[deb]), tmp_path / "o")


@needs_dpkg
def test_package_without_lists_is_found_with_lists_of_our_own(deb, tmp_path, monkeypatch):
    """The first download fails as in a fresh container; then lists are made and it works."""
    calls = []

    def fake(command, package, cwd=None):
        calls.append(command[-2:] if command[-2] == "download" else command[-1:])
        if command[1] == "download":
            raise StampsUnavailableError("no lists")
        if command[-2] == "download":
            shutil.copy(deb, cwd / "x.deb")

    monkeypatch.setattr(pictures, "_run", fake)
    folder = pictures.fetch_package("p", ["usr/share/train.jpg"], tmp_path / "cache")
    assert (folder / "usr/share/train.jpg").is_file()
    assert calls == [["download", "p"], ["update"], ["download", "p"]]
