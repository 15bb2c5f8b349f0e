"""Predictions saved as datasets: what a person corrects is what a model trains on."""

from __future__ import annotations

import csv
import json
import signal

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks, Instances
from PIL import Image
from scipy import ndimage
from stub_predictor import demo, film, picture

from solo_d2.data.conversion import registered
from solo_d2.data.datasets.formats import WRITERS
from solo_d2.io.segmentation import decode_mask

SIZE = (40, 60)


def disc(y, x, radius):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


MASKS = [
    disc(12, 12, 10) & ~disc(12, 12, 4),  # a hole
    disc(30, 30, 6) | disc(10, 45, 4),  # two parts
    disc(30, 50, 6),
]
NAMES = ["fork", "cup"]
CLASSES = ["cup", "fork", "cup"]


class Predictor:
    """Finds `MASKS` in every image, of the classes `CLASSES`."""

    def __init__(self, names=NAMES, mattes=False, scores=(0.9, 0.8, 0.7)):
        self.metadata, self.mattes = {"thing_classes": names}, mattes
        self.scores = torch.tensor(scores)

    def __call__(self, images):
        if isinstance(images, list):
            return [self(image) for image in images]
        masks = torch.from_numpy(np.stack(MASKS))[: len(self.scores)]
        found = Instances(
            images.shape[:2],
            pred_masks=masks,
            pred_boxes=BitMasks(masks).get_bounding_boxes(),
            scores=self.scores,
            pred_classes=torch.tensor([NAMES.index(x) for x in CLASSES])[: len(masks)],
        )
        if self.mattes:
            found.pred_mattes = masks.float() * 0.6
        return {"instances": found}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with two images of one name and one that is turned, in which commands run."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "in" / "a" / "x.png", SIZE)
    picture(tmp_path / "in" / "b" / "x.png", SIZE, seed=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(tmp_path / "in" / "turned.jpg", exif=exif)
    return tmp_path


def save(*words, predictor=None):
    line = ("--input", "in/**", "--no-draw", "--save", *words)
    return demo(predictor or Predictor(), *line)


def objects(location):
    """Class and mask of every object, by image."""
    with registered(location) as names:
        assert list(names) == ["train"]
        classes = MetadataCatalog.get(names["train"]).thing_classes
        return {
            record["file_name"].rpartition("/")[2]: [
                (classes[x["category_id"]], decode_mask(x["segmentation"], SIZE))
                for x in record["annotations"]
            ]
            for record in DatasetCatalog.get(names["train"])
        }


def assert_found(found):
    """Whether all three images have all objects, in any order, pixel by pixel."""
    assert sorted(found) == ["turned.jpg", "x.png", "x_2.png"]
    expected = sorted((name, mask.tolist()) for name, mask in zip(CLASSES, MASKS, strict=True))
    for some in found.values():
        assert sorted((name, mask.tolist()) for name, mask in some) == expected


READABLE = [kind for kind in WRITERS if kind not in ("rgba", "csv")]


def test_what_is_saved_in_any_format_is_read_as_training_data(capsys, folder):
    assert save(*READABLE, "--output", "out", "--tolerance", "0") == 0
    for kind in READABLE:
        assert_found(objects(f"out/{kind}"))
    told = capsys.readouterr()
    assert f"labelme: {folder / 'out' / 'labelme'}\n" in told.out
    for kind in ("yolo", "voc", "masks"):
        assert f"{kind} cannot hold all that there was; left out: 9 scores\n" in told.err
    assert "labelme cannot" not in told.err and "coco cannot" not in told.err


def test_what_a_person_corrects_is_what_is_trained_on():
    """One shape is moved, one gets another class, one is deleted: as LabelMe saves it."""
    assert save("labelme:mine", "--tolerance", "0") == 0
    content = json.loads(open("mine/x.json").read())
    assert [x["score"] for x in content["shapes"]] == pytest.approx([0.9, 0.8, 0.8, 0.7])
    _, *parts, disc_ = content["shapes"]
    disc_["points"] = [[x - 20, y] for x, y in disc_["points"]]
    for part in parts:
        part["label"] = "spoon"
    content["shapes"] = [*parts, disc_]
    with open("mine/x.json", "w") as file:
        json.dump(content, file)
    (spoon, moved) = objects("labelme:mine")["x.png"]
    assert (spoon[0], moved[0]) == ("spoon", "cup")
    np.testing.assert_array_equal(spoon[1], MASKS[1])
    np.testing.assert_array_equal(moved[1], disc(30, 30, 6))


@pytest.mark.parametrize("kind", ["labelme", "yolo", "polygons"])
def test_outlines_are_simplified_by_about_a_pixel(kind):
    assert save(f"{kind}:mine") == 0
    found = objects("mine")["x.png"]
    assert [name for name, _ in found] == CLASSES
    for (_, mask), expected in zip(found, MASKS, strict=True):
        grown = ndimage.binary_dilation(expected, np.ones((3, 3)), iterations=2)
        shrunk = ndimage.binary_erosion(expected, np.ones((3, 3)), iterations=2)
        assert (mask != expected).any()
        assert not (mask & ~grown).any() and not (shrunk & ~mask).any()


def test_scores_are_kept_where_there_is_a_place_for_them():
    assert save("coco:c", "csv:t") == 0
    with open("c/annotations/train.json") as file:
        content = json.load(file)
    assert [x["score"] for x in content["annotations"]] == pytest.approx([0.9, 0.8, 0.7] * 3)
    with open("t/objects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [x["class"] for x in rows] == CLASSES * 3
    assert {x["file_name"] for x in rows} == {"in/a/x.png", "in/b/x.png", "in/turned.jpg"}
    assert float(rows[0]["score"]) == pytest.approx(0.9)


def test_cut_outs_take_mattes_where_a_model_has_them():
    assert save("rgba:cut", predictor=Predictor(mattes=True)) == 0
    with Image.open("cut/fork/x_01.png") as image:
        assert np.unique(np.asarray(image)[..., 3]).tolist() == [0, 153]


def test_mattes_that_a_format_cannot_hold_are_counted(capsys):
    assert save("rgba:cut", "coco:c", predictor=Predictor(mattes=True)) == 0
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "left out" in x and "coco" in x]
    assert line == "coco cannot hold all that there was; left out: 9 mattes"


def test_better_objects_are_in_front(monkeypatch):
    monkeypatch.setitem(globals(), "MASKS", [disc(20, 20, 9), disc(20, 28, 9), disc(20, 36, 9)])
    assert save("masks:m", predictor=Predictor(scores=(0.7, 0.9, 0.8))) == 0
    areas = [int(mask.sum()) for _, mask in objects("m")["x.png"]]
    first, best, second = MASKS
    expected = [first & ~best & ~second, best, second & ~best]
    assert sorted(areas) == sorted(int(x.sum()) for x in expected)


def test_images_without_objects_are_saved_too():
    assert save("coco:c", "yolo:y", "labelme:l", predictor=Predictor(scores=())) == 0
    with open("c/annotations/train.json") as file:
        assert len(json.load(file)["images"]) == 3
    assert open("y/labels/train/x.txt").read() == ""
    assert json.loads(open("l/x.json").read())["shapes"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--save", "yolo:in"], "in: has files already"),
        (["--save", "yolo:a", "yolo:b"], "--save yolo:b: comes twice"),
        (["--save", "yolo:a", "coco:a"], "--save yolo:a: the folder is for this dataset alone"),
        (["--save", "yolo:a", "coco:a/b"], "--save yolo:a: the folder is for this dataset alone"),
        (["--save", "labelme:a", "--output", "a"], "a would be written into it"),
        (["--save", "coco:a", "--output", "a/drawn"], "a/drawn would be written into it"),
        (["--save", "coco:a", "--output", "a/x.png"], "a/x.png would be written into it"),
        (["--save", "coco:a", "--save-json", "a/r.json"], "a/r.json would be written into it"),
        (["--tolerance", "1"], "--tolerance is of formats with outlines"),
        (["--save", "coco:a", "--tolerance", "1"], "--tolerance is of formats with outlines"),
        (["--save", "yolo", "--output", "x.png"], "--save yolo: the output is one file"),
        (["--save", "yolo:a", "--tolerance", "-1"], "--tolerance must be 0 or more"),
        (["--no-draw"], "--no-draw without --save-json or --save leaves nothing to do"),
    ],
)
def test_bad_options_are_one_line(capsys, words, message):
    assert demo(Predictor(), "--input", "in/a/x.png", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_unknown_formats_videos_and_models_without_names_are_refused(capsys, folder):
    with pytest.raises(SystemExit) as stop:
        save("yolov8:a")
    assert (
        stop.value.code == 2 and "'yolov8:a' is none of coco, polygons" in capsys.readouterr().err
    )
    film(folder / "in.mp4", frames=1)
    assert demo(Predictor(), "--video-input", "in.mp4", "--save", "yolo:a") == 2
    assert "--save goes with --input" in capsys.readouterr().err
    assert save("yolo:a", predictor=Predictor(names=None)) == 2
    assert "the weights bring no class names for --save" in capsys.readouterr().err


def test_nothing_is_made_where_no_image_can_be_predicted(folder, capsys):
    class Failing(Predictor):
        def __call__(self, images):
            raise ValueError("no such luck")

    assert save("coco:c", predictor=Failing()) == 1
    assert not (folder / "c").exists()


def test_what_was_found_before_an_interruption_is_kept(folder):
    class Interrupted(Predictor):
        seen = 0

        def __call__(self, images):
            self.seen += isinstance(images, list)
            if self.seen > 2:
                signal.raise_signal(signal.SIGINT)
            return super().__call__(images)

    assert save("coco:c", "yolo:y", "csv:t", predictor=Interrupted()) == 130
    assert len(objects("c")) == len(objects("y")) == 2
    assert len(open("t/objects.csv").readlines()) == 7
