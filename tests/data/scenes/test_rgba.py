"""Scenes of anybody's cut-outs: folders, splits, files, and what is refused."""

from __future__ import annotations

import json
import logging

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as mask_util

from solo_d2.data.scenes.__main__ import main
from solo_d2.data.scenes.build import build as build_dataset
from solo_d2.data.scenes.cutouts import Cutout, sofi_options
from solo_d2.data.scenes.register import register_built
from solo_d2.data.scenes.rgba import RGBASource, split_files
from solo_d2.data.scenes.rgba_folders import list_cutouts, read_cutout
from solo_d2.io.alpha import read_matte

OPTIONS = sofi_options(64, 96)


def disc(value=255, side=60):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    alpha = np.clip((side / 2 - 2 - np.hypot(x, y)) * 40, 0, value)
    colour = np.broadcast_to((220, 30, 30), (side, side, 3))
    return np.dstack([colour, alpha]).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path):
    """(cut-outs of two classes, backgrounds)."""
    for name in ("cat/a", "cat/b", "cat/deep/c", "dog/a", "dog/b"):
        save(tmp_path / "cutouts" / f"{name}.png", disc())
    for k in range(3):
        save(tmp_path / "papers" / f"{k}.jpg", np.full((80, 120, 3), 60 * k + 60, np.uint8))
    return tmp_path / "cutouts", tmp_path / "papers"


def build(output, folders, **changes):
    own = {key: changes.pop(key) for key in ("classes", "val_share") if key in changes}
    arguments = {"train": 6, "val": 3, "workers": 1, "progress": False}
    source = RGBASource(*folders, options=OPTIONS, **own)
    return build_dataset(source, output, **{**arguments, **changes})


def contents(folder):
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder): p.read_bytes() for p in files}


def test_same_seed_gives_the_same_files_whatever_the_number_of_workers(folders, tmp_path):
    for name, workers, seed in (("one", 1, 0), ("two", 2, 0), ("other", 1, 1)):
        assert build(tmp_path / name, folders, workers=workers, seed=seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    first = "train/000001.jpg"
    assert (tmp_path / "one" / first).read_bytes() != (tmp_path / "other" / first).read_bytes()


def test_mattes_fit_their_masks_and_sum_to_one_at_most(folders, tmp_path):
    build(tmp_path / "out", folders)
    content = json.loads((tmp_path / "out/annotations/train.json").read_text())
    assert [x["name"] for x in content["categories"]] == ["cat", "dog"]
    sums = {image["id"]: np.zeros((64, 96)) for image in content["images"]}
    counts = dict.fromkeys(sums, 0)
    for annotation in content["annotations"]:
        name = tmp_path / "out" / annotation["alpha"]["file_name"]
        matte = read_matte({**annotation["alpha"], "file_name": name}, (64, 96))
        np.testing.assert_array_equal(matte >= 128, mask_util.decode(annotation["segmentation"]))
        assert (matte >= 128).sum() >= OPTIONS.min_pixels == 30
        sums[annotation["image_id"]] += matte
        counts[annotation["image_id"]] += 1
    for image, total in sums.items():
        assert total.max() <= 255 + counts[image] / 2  # rounding
    assert max(counts.values()) <= 4
    assert sum(counts.values()) >= len(counts)


def test_a_second_run_does_nothing_until_a_picture_changes(folders, tmp_path):
    assert build(tmp_path / "out", folders)
    assert not build(tmp_path / "out", folders)
    save(folders[0] / "dog/b.png", disc(side=50))
    assert build(tmp_path / "out", folders)


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.99])
def test_no_file_is_in_both_splits_and_none_is_lost(count, share):
    parts = split_files(range(count), share, np.random.default_rng(0))
    assert sorted(parts["train"] + parts["val"]) == list(range(count))
    assert min(len(parts["train"]), len(parts["val"])) >= 1


def test_splits_have_the_share_and_depend_on_the_seed():
    parts = [split_files(range(50), 0.2, np.random.default_rng(s)) for s in (0, 0, 1)]
    assert len(parts[0]["val"]) == 10
    assert parts[0] == parts[1] != parts[2]


def test_a_single_file_is_in_both_and_that_is_said(folders, tmp_path, caplog):
    assert split_files(["a"], 0.2, np.random.default_rng(0)) == {"train": ["a"], "val": ["a"]}
    (folders[0] / "dog/b.png").unlink()
    with caplog.at_level(logging.WARNING):
        build(tmp_path / "out", folders, train=1, val=1)
    assert caplog.text.count("there is one file of") == 1
    assert "one file of the class 'dog'" in caplog.text


def test_a_flat_folder_is_one_class(tmp_path):
    save(tmp_path / "a.png", disc())
    save(tmp_path / ".hidden.png", disc())
    assert [x.category for x in list_cutouts(tmp_path)] == ["object"]


def test_subfolders_are_classes_however_deep_the_files(folders):
    files = list_cutouts(folders[0])
    assert [x.category for x in files] == ["cat", "cat", "cat", "dog", "dog"]


def test_sixteen_bits_and_grey_with_alpha_are_read(tmp_path):
    save(tmp_path / "a.png", disc()[..., [0, 3]])  # mode LA
    (file,) = list_cutouts(tmp_path)
    assert read_cutout(file, ["object"], OPTIONS).rgba[30, 30].tolist() == [220, 220, 220, 255]
    sixteen = disc()[..., [2, 1, 0, 3]].astype(np.uint16) * 257
    assert cv2.imwrite(str(tmp_path / "a.png"), sixteen)
    np.testing.assert_array_equal(
        read_cutout(file, ["object"], OPTIONS).rgba,
        Cutout.from_straight(disc(), 0).rgba,
    )
    # Colours of 8 bits with a matte of 16.
    save(tmp_path / "colours/a.png", disc()[..., :3])
    save(tmp_path / "mattes/a.png", disc()[..., 3].astype(np.uint16) * 257)
    (file,) = list_cutouts(tmp_path / "colours", tmp_path / "mattes")
    rgba = read_cutout(file, ["object"], OPTIONS).rgba
    assert rgba[28, 28].tolist() == [220, 30, 30, 255]
    assert 0 < rgba[..., 3].min(initial=255, where=rgba[..., 3] > 0) < 255


def read_only(folder, *mattes):
    (file,) = list_cutouts(folder, *mattes)
    return read_cutout(file, [file.category], OPTIONS)


def test_bad_cutouts_are_named(tmp_path):
    file = tmp_path / "c/a.png"
    save(file, disc()[..., :3])
    with pytest.raises(ValueError, match=r"a\.png has no alpha channel; .* --mattes"):
        read_only(tmp_path / "c")
    save(tmp_path / "m/a.tif", disc(side=59)[..., 3])
    with pytest.raises(ValueError, match=r"a\.tif has 59x59 pixels, its image .*a\.png 60x60"):
        read_only(tmp_path / "c", tmp_path / "m")
    save(tmp_path / "other/b.png", disc()[..., 3])
    with pytest.raises(ValueError, match=r"a\.png has no matte: .*other/a\.png is missing"):
        read_only(tmp_path / "c", tmp_path / "other")
    save(file, disc(0))
    with pytest.raises(ValueError, match=r"a\.png: .*fully transparent"):
        read_only(tmp_path / "c")
    save(file, disc(100))
    with pytest.raises(ValueError, match=r"a\.png: .*alpha of at least one half"):
        read_only(tmp_path / "c")
    save(file, np.full((3, 4, 4), 255, np.uint8))  # 12 pixels; 30 / 1.5^2 = 13.3 are needed
    with pytest.raises(ValueError, match=r"a\.png shows an object of 12 pixels"):
        read_only(tmp_path / "c")
    save(file, np.full((2, 7, 4), 255, np.uint8))
    read_only(tmp_path / "c")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"a\.png: damaged or truncated"):
        read_only(tmp_path / "c")


def test_bad_folders_are_named(folders, tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        list_cutouts(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no image for the backgrounds"):
        build(tmp_path / "out", (folders[0], tmp_path / "empty"))
    save(folders[0] / "stray.png", disc())
    with pytest.raises(ValueError, match=r"stray\.png lies beside the folders of the classes"):
        list_cutouts(folders[0])


def test_classes_of_the_model_can_be_given(folders, tmp_path):
    build(tmp_path / "out", folders, classes=["ant", "dog", "cat"])
    content = json.loads((tmp_path / "out/annotations/val.json").read_text())
    assert [x["name"] for x in content["categories"]] == ["ant", "dog", "cat"]
    assert {x["category_id"] for x in content["annotations"]} <= {2, 3}
    with pytest.raises(ValueError, match=r"cat/a\.png is of the class 'cat', which is not among"):
        build(tmp_path / "out", folders, classes=["dog"])
    with pytest.raises(ValueError, match="names one twice"):
        build(tmp_path / "out", folders, classes=["dog", "cat", "cat"])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_leaves_a_split_without_files_is_refused(folders, share):
    with pytest.raises(ValueError, match="need 0 < val_share < 1"):
        RGBASource(*folders, val_share=share)


def test_the_command_builds_and_the_set_is_registered(folders, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("cat\n\ndog\nant\n")
    arguments = [
        "rgba", "--cutouts", str(folders[0]), "--backgrounds", str(folders[1]), "--workers", "1",
        "--output", str(tmp_path / "out"), "--train", "3", "--val", "2", "--size", "64x96",
        "--objects", "2-3", "--classes", str(names),
    ]  # fmt: skip
    assert main(arguments) == 0
    registered = register_built(tmp_path / "out", "tiny", kind="rgba", matting=True)
    try:
        assert registered == ("tiny_train", "tiny_val")
        assert len(DatasetCatalog.get("tiny_train")) == 3
        metadata = MetadataCatalog.get("tiny_val")
        assert metadata.thing_classes == ["cat", "dog", "ant"]
        assert metadata.evaluator_type == "coco_matting"
    finally:
        for name in registered:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    capsys.readouterr()
    assert main([*arguments, "--min-visible", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: --min-visible must lie in [0, 1]")
    assert main([*arguments, "--classes", "nowhere"]) == 2
    assert "--classes nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--objects", "4-2"])


def test_coco_as_list_of_classes(folders, tmp_path):
    arguments = ["--backgrounds", str(folders[1]), "--workers", "1", "--train", "1", "--val", "1"]
    out = tmp_path / "out"
    assert main(["rgba", "--cutouts", str(folders[0]), "--output", str(out), "--classes", "coco",
                 *arguments]) == 0  # fmt: skip
    categories = json.loads((out / "annotations/val.json").read_text())["categories"]
    assert len(categories) == 80
    assert categories[15]["name"] == "cat"
