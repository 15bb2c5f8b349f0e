"""Datasets from one format to another: what comes back, and what is said to be lost."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from panoptic_scenes import scenes, write_scenes
from PIL import Image

from solo_d2.cli.convert import main
from solo_d2.data.conversion import convert_dataset, registered
from solo_d2.data.datasets.formats import WRITERS
from solo_d2.data.datasets.lvis import write_lvis
from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.cutouts import sofi_options
from solo_d2.data.scenes.rgba import RGBASource
from solo_d2.data.sources import recognise
from solo_d2.io.segmentation import decode_mask, encode_mask

SIZE = (40, 60)
READABLE = [kind for kind in WRITERS if kind not in ("rgba", "csv")]


def disc(y, x, radius):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


RING = disc(12, 12, 10) & ~disc(12, 12, 4)
PARTS = disc(30, 30, 6) | disc(10, 40, 4)
TRIANGLE = [45.34, 20.12, 58.76, 22.98, 50.25, 38.44]
CROWD = disc(35, 8, 4)


def write_source(root):
    """COCO with a cup with a hole and a spoon of two parts to train on, a triangle to validate."""
    annotations = {
        "train": [
            (1, encode_mask(RING), 0),
            (2, encode_mask(PARTS), 0),
            (1, encode_mask(CROWD), 1),
        ],
        "val": [(2, [TRIANGLE], 0)],
    }
    for split, found in annotations.items():
        (root / split).mkdir(parents=True)
        Image.new("RGB", SIZE[::-1], "gray").save(root / split / "a.jpg")
        content = {
            "images": [{"id": 7, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
            "annotations": [
                {"id": k, "image_id": 7, "category_id": c, "segmentation": s, "iscrowd": crowd}
                for k, (c, s, crowd) in enumerate(found, start=1)
            ],
            "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "spoon"}],
        }
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def contents(location):
    """Class, crowd flag and mask of every object in each split."""
    found = {}
    with registered(str(location)) as names:
        for split, name in names.items():
            classes = MetadataCatalog.get(name).thing_classes
            found[split] = sorted(
                (
                    classes[x["category_id"]],
                    x["iscrowd"],
                    decode_mask(x["segmentation"], SIZE).tolist(),
                )
                for record in DatasetCatalog.get(name)
                for x in record["annotations"]
            )
    return found


def without_crowds(found):
    return {split: [x for x in objects if not x[1]] for split, objects in found.items()}


@pytest.mark.parametrize("kind", READABLE)
def test_what_is_written_is_read_again_pixel_by_pixel(tmp_path, kind):
    source = write_source(tmp_path / "source")
    told = convert_dataset(str(source), tmp_path / "out", kind)
    before, after = contents(source), contents(tmp_path / "out")
    lines = told.splitlines()
    assert lines[0].endswith("out: train 1 images, 3 objects, val 1 images, 1 objects")
    if kind in ("coco", "polygons"):
        assert after == before and len(lines) == 1
    else:
        assert after == without_crowds(before)
        assert lines[1:] == [f"{kind} cannot hold all that there was; left out: 1 crowd region"]


def test_a_chain_of_formats_changes_nothing(tmp_path):
    place = write_source(tmp_path / "source")
    expected = without_crowds(contents(place))
    for kind in READABLE:
        convert_dataset(str(place), tmp_path / kind, kind)
        place = tmp_path / kind
    assert contents(place) == expected


def rename(root, names, image="a"):
    """Rename the classes of `write_source`, and its images."""
    for split in ("train", "val"):
        (root / split / "a.jpg").rename(root / split / f"{image}.jpg")
        content = json.loads((root / f"{split}.json").read_text())
        content["images"][0]["file_name"] = f"{image}.jpg"
        content["categories"] = [{"id": k, "name": x} for k, x in enumerate(names, start=1)]
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


NAMES = [
    ["#1", "animal:cat"],
    ["cup", "#1"],
    ["background", "cup"],
    ["cup", "_background_"],
    ["__ignore__", "object"],
    ["1", "2"],
    ["a, b", "'x' \"y\""],
    ["Tasse für Tee", "杯"],
]


@pytest.mark.parametrize("names", NAMES, ids=str)
@pytest.mark.parametrize("kind", READABLE)
def test_names_of_classes_and_images_come_back(tmp_path, kind, names):
    source = rename(write_source(tmp_path / "source"), names, image="#1 my photo: 0")
    if kind == "labelme" and set(names) & {"_background_", "__ignore__"}:
        with pytest.raises(ValueError, match=r"labelme takes the label .* for no object; rename"):
            convert_dataset(str(source), tmp_path / "out", kind)
        return
    convert_dataset(str(source), tmp_path / "out", kind)
    assert without_crowds(contents(tmp_path / "out")) == without_crowds(contents(source))
    with registered(str(tmp_path / "out")) as found:
        files = [DatasetCatalog.get(name)[0]["file_name"] for name in found.values()]
    assert all(file.rpartition("/")[2].startswith("#1 my photo: 0") for file in files)


@pytest.mark.parametrize("kind", ["voc", "masks"])
@pytest.mark.parametrize("name", [" cup", "cup ", "a\nb", "a\u2028b"])
def test_names_that_a_text_file_cannot_hold_are_refused(tmp_path, kind, name):
    source = rename(write_source(tmp_path / "source"), ["spoon", name])
    with pytest.raises(ValueError, match=r"expected names that fit a line, .*got '.*; rename it"):
        convert_dataset(str(source), tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("image", ["a ", " a", "b\udce9"])
def test_images_whose_names_a_list_cannot_hold_are_refused(tmp_path, image):
    source = rename(write_source(tmp_path / "source"), ["cup", "spoon"], image=image)
    with pytest.raises(ValueError, match=r"train\.txt: expected names that fit a line") as caught:
        convert_dataset(str(source), tmp_path / "out", "voc")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "out").exists()


def test_formats_of_this_page_are_recognised(tmp_path):
    source = write_source(tmp_path / "source")
    kinds = {}
    for kind in READABLE:
        convert_dataset(str(source), tmp_path / kind, kind)
        kinds[kind] = recognise(tmp_path / kind)
    assert kinds == {kind: kind.replace("polygons", "coco") for kind in READABLE}


def test_outlines_are_simplified_within_the_tolerance(tmp_path):
    source = write_source(tmp_path / "source")
    counts = {}
    for tolerance in (0.0, 1.0):
        out = tmp_path / f"out{tolerance:g}"
        convert_dataset(str(source), out, "labelme", tolerance=tolerance)
        shapes = json.loads((out / "train" / "a.json").read_text())["shapes"]
        counts[tolerance] = [len(shape["points"]) for shape in shapes]
        assert [x["group_id"] for x in shapes] == [None, 2, 2]
    assert sum(counts[1.0]) < sum(counts[0.0]) / 2
    ring = next(x for x in contents(tmp_path / "out1")["train"] if x[0] == "cup")
    assert (np.array(ring[2]) ^ RING).mean() < 0.05


def test_hidden_objects_are_counted(tmp_path):
    """A small object is in front of a large one, and one that covers another one hides it."""
    source = write_source(tmp_path / "source")
    content = json.loads((source / "val.json").read_text())
    masks = [disc(20, 20, 9), disc(20, 28, 4), disc(20, 28, 4)]
    content["annotations"] = [
        {"id": k, "image_id": 7, "category_id": 1, "segmentation": encode_mask(mask)}
        for k, mask in enumerate(masks, start=1)
    ]
    (source / "val.json").write_text(json.dumps(content))
    told = convert_dataset(str(source), tmp_path / "out", "voc").splitlines()[1]
    assert "1 hidden object, 1 partly hidden object" in told
    areas = [np.sum(mask) for _, _, mask in contents(tmp_path / "out")["val"]]
    assert sorted(areas) == sorted([masks[1].sum(), (masks[0] & ~masks[1]).sum()])


def test_many_objects_of_an_image_fit_a_mask(tmp_path):
    """From 255 on numbers take 16 bits, and 255 itself is no object's."""
    source = write_source(tmp_path / "source")
    content = json.loads((source / "val.json").read_text())
    pixels = [(y, x) for y in range(0, 40, 2) for x in range(0, 60, 2)][:256]
    masks = np.zeros((256, *SIZE), bool)
    masks[np.arange(256), [y for y, _ in pixels], [x for _, x in pixels]] = True
    content["annotations"] = [
        {"id": k, "image_id": 7, "category_id": 1, "segmentation": encode_mask(mask)}
        for k, mask in enumerate(masks, start=1)
    ]
    for count in (254, 255, 256):
        some = {**content, "annotations": content["annotations"][:count]}
        (source / "val.json").write_text(json.dumps(some))
        convert_dataset(str(source), tmp_path / f"voc{count}", "voc")
        assert len(contents(tmp_path / f"voc{count}")["val"]) == count
        with Image.open(tmp_path / f"voc{count}" / "SegmentationObject" / "a_2.png") as image:
            assert image.mode == ("P" if count < 255 else "I;16")


def test_cut_outs_have_the_mask_as_alpha(tmp_path):
    source = write_source(tmp_path / "source")
    convert_dataset(str(source), tmp_path / "out", "rgba")
    out = tmp_path / "out"
    files = sorted(file.relative_to(out).as_posix() for file in out.rglob("*.png"))
    assert files == ["train/cup/a_00.png", "train/spoon/a_01.png", "val/spoon/a_2_00.png"]
    with Image.open(out / files[0]) as image:
        alpha = np.asarray(image)[..., 3]
        assert image.mode == "RGBA" and image.getpixel((10, 1))[:3] == (128, 128, 128)
    np.testing.assert_array_equal(alpha == 255, RING[2:23, 2:23])
    np.testing.assert_array_equal(alpha == 0, ~RING[2:23, 2:23])


def test_classes_have_folders_of_their_own(tmp_path):
    source = rename(write_source(tmp_path / "source"), ["cup 1", "cup-1"])
    told = convert_dataset(str(source), tmp_path / "out", "rgba")
    assert told.endswith(
        "folders are not called as their classes: 'cup 1 is cup-1', 'cup-1 is cup-1_2'"
    )
    out = tmp_path / "out"
    files = sorted(file.relative_to(out).as_posix() for file in out.rglob("*.png"))
    assert files == ["train/cup-1/a_00.png", "train/cup-1_2/a_01.png", "val/cup-1_2/a_2_00.png"]


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "rgba"])
def test_mattes_that_a_format_cannot_hold_are_counted(tmp_path, kind):
    source = write_source(tmp_path / "source")
    Image.fromarray(np.full(SIZE, 200, np.uint8)).save(source / "matte.png")
    for split in ("train", "val"):
        content = json.loads((source / f"{split}.json").read_text())
        for annotation in content["annotations"][:2]:
            annotation["alpha"] = {"file_name": "matte.png"}
        (source / f"{split}.json").write_text(json.dumps(content))
    assert "3 mattes" in convert_dataset(str(source), tmp_path / "out", kind)
    assert " mattes" not in convert_dataset(str(source), tmp_path / "rgba", "rgba")


def test_scenes_that_are_composed_in_training_are_refused_in_one_line(tmp_path, capsys):
    for name in ("cutouts/a.png", "papers/a.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGBA", (40, 40), (200, 0, 0, 255)).save(tmp_path / name)
    scenes_of = RGBASource(tmp_path / "cutouts", tmp_path / "papers", options=sofi_options(64, 96))
    build(scenes_of, tmp_path / "built", train=1, val=1, workers=1, progress=False)
    command = [f"composed:{tmp_path / 'built'}", str(tmp_path / "out"), "--to", "coco"]
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "composed while training are no files; name their folder alone" in error
    assert not (tmp_path / "out").exists()
    command[0] = str(tmp_path / "built")
    assert main(command) == 0 and " mattes\n" in capsys.readouterr().out


def test_a_table_has_boxes_and_areas(tmp_path):
    source = write_source(tmp_path / "source")
    told = convert_dataset(str(source), tmp_path / "out", "csv")
    assert told.endswith("csv cannot hold all that there was; left out: 1 crowd region, 3 masks")
    with open(tmp_path / "out" / "objects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [x["class"] for x in rows] == ["cup", "spoon", "spoon"]
    assert rows[0]["split"] == "train" and rows[0]["file_name"] == str(source / "train" / "a.jpg")
    box = [float(rows[0][key]) for key in ("x", "y", "width", "height", "area")]
    assert box == [2, 2, 21, 21, RING.sum()] and rows[0]["score"] == ""


def test_the_command_says_what_it_did(tmp_path, capsys):
    source, out = write_source(tmp_path / "source"), tmp_path / "out"
    assert main([f"coco:{source}", str(out), "--to", "yolo"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: train 1 images, 3 objects")
    assert (out / "data.yaml").read_text() == (
        "train: images/train\nval: images/val\nnames:\n  0: cup\n  1: spoon\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{source}", "{source}", "--to", "yolo"], "source: has files already"),
        (["{source}", "{out}"], "is a folder; say the format of a dataset: --to FORMAT"),
        (["{source}", "{out}", "--to", "yolo", "--half"], "--half, --force and --source are of"),
        (["{source}", "{out}", "--to", "yolo", "--tolerance", "-1"], "--tolerance must be 0 or"),
        *(
            (["{source}", "{out}", "--to", kind, "--tolerance", "5"], f"{kind} has no outlines th")
            for kind in ("coco", "voc", "masks", "rgba", "csv")
        ),
        (["{out}", "{out}", "--to", "yolo"], "no such file or folder"),
        (["yolo:{source}", "{out}", "--to", "coco"], "expected one YAML file"),
    ],
)
def test_bad_commands_are_one_line_and_write_nothing(tmp_path, capsys, words, message):
    source, out = write_source(tmp_path / "source"), tmp_path / "out"
    assert main([word.format(source=source, out=out) for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(x.name for x in tmp_path.iterdir()) == ["source"]


def test_what_a_format_cannot_hold_at_all_is_refused(tmp_path):
    source = write_source(tmp_path / "source")
    for split in ("train", "val"):
        content = json.loads((source / f"{split}.json").read_text())
        content["categories"] += [{"id": k, "name": f"c{k}"} for k in range(3, 256)]
        (source / f"{split}.json").write_text(json.dumps(content))
    for kind, most in (("voc", 254), ("masks", 64)):
        with pytest.raises(ValueError, match=f"hold.* {most} classes, here are 255"):
            convert_dataset(str(source), tmp_path / "out", kind)
        assert sorted(x.name for x in tmp_path.iterdir()) == ["source"]


def test_lvis_is_read_where_its_kind_is_said(tmp_path, capsys):
    source = write_source(tmp_path / "coco")
    expected = without_crowds(contents(source))  # LVIS has none
    for split in ("train", "val"):
        write_lvis(source / f"{split}.json", source / f"lvis_v1_{split}.json")
        content = json.loads((source / f"lvis_v1_{split}.json").read_text())
        content["images"][0]["file_name"] = f"{split}/a.jpg"
        (source / f"lvis_v1_{split}.json").write_text(json.dumps(content))
    assert main([f"lvis:{source}", str(tmp_path / "out"), "--to", "coco"]) == 0
    said = capsys.readouterr().out
    assert "train 1 images, 2 objects" in said and "val 1 images, 1 objects" in said
    assert "left out: for which classes LVIS's images are annotated" in said
    assert contents(tmp_path / "out") == expected


def panoptic_folder(root):
    """Annotations in COCO's layout; the images of validation are those of training."""
    files = write_scenes(root)
    (root / "annotations").mkdir()
    files[0].rename(root / "annotations/panoptic_train2017.json")
    files[1].rename(root / "annotations/panoptic_train2017")
    files[2].rename(root / "train2017")
    return root


def test_things_of_panoptic_annotations_are_objects(tmp_path, capsys):
    source = panoptic_folder(tmp_path / "coco")
    assert main([f"panoptic:{source}", str(tmp_path / "out"), "--to", "coco"]) == 0
    said = capsys.readouterr().out
    assert "train 3 images, 3 objects" in said and "left out: stuff of panoptic" in said
    with registered(str(tmp_path / "out")) as names:
        found = [
            (x["category_id"], decode_mask(x["segmentation"], (64, 96)))
            for record in DatasetCatalog.get(names["train"])
            for x in record["annotations"]
        ]
    (both, _), _, (last, _) = scenes()
    assert [k for k, _ in found] == [0, 1, 1]  # cat, dog, dog
    for (_, mask), expected in zip(found, (both == 5, both == 6, last == 1), strict=True):
        assert (mask == expected).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "train2017").rename(root / "x"), "train2017: no such folder; it sh"),
        (lambda root: shutil.rmtree(root / "annotations"), r"expected panoptic\*_train\*.json or"),
        (
            lambda root: shutil.copy(
                root / "annotations/panoptic_train2017.json", root / "panoptic_train.json"
            ),
            "panoptic_train2017.json or panoptic_train.json. Leave one",
        ),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_what_is_missing_of_a_panoptic_folder_is_named(tmp_path, change, said):
    source = panoptic_folder(tmp_path / "coco")
    change(source)
    with pytest.raises(ValueError, match=said):
        convert_dataset(f"panoptic:{source}", tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists()
