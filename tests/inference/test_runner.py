"""Facts about runs over many inputs, with a model whose answers are known."""

from __future__ import annotations

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.config import get_cfg
from threshold_model import ThresholdModel

from solo_d2.config import add_solo_config
from solo_d2.inference.predictor import SOLOPredictor
from solo_d2.inference.runner import InferenceRun, write_image
from solo_d2.io.video import VideoReader, VideoWriter


@pytest.fixture
def predictor():
    cfg = get_cfg()
    add_solo_config(cfg)
    cfg.MODEL.SOLO.NUM_CLASSES = 3
    cfg.DATASETS.TEST = ()
    cfg.INPUT.MIN_SIZE_TEST = 0
    names = ["blue", "green", "red"]
    return SOLOPredictor(cfg, device="cpu", model=ThresholdModel(), class_names=names)


def picture(path, channel, size=(64, 96)):
    """A bright rectangle of one channel at rows 16 to 47, columns 24 to 71, on black."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[16:48, 24:72, channel] = 204
    write_image(path, image)
    return path


def test_pictures_are_drawn_and_collected_and_a_bad_one_is_skipped(tmp_path, predictor, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    files = [picture(tmp_path / "a.png", 1), bad, picture(tmp_path / "c.png", 2)]
    targets = [tmp_path / "out" / file.name for file in files]
    run = InferenceRun(predictor)
    run.images(files, targets)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    assert [(r["image_id"], r["category_name"], r["score"]) for r in run.results] == [
        (1, "green", pytest.approx(0.8)),
        (3, "red", pytest.approx(0.8)),
    ]
    assert run.results[0]["file_name"] == str(files[0])
    assert run.results[0]["bbox"] == [24, 16, 48, 32]
    expected = np.zeros((64, 96), dtype=np.uint8)
    expected[16:48, 24:72] = 1
    assert (mask_util.decode(run.results[0]["segmentation"]) == expected).all()
    assert len(run.failures) == 1
    assert "bad.png" in run.failures[0]
    skipped = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert skipped == [f"skipped: {run.failures[0]}"]


@pytest.mark.parametrize("batch_size", [2, 3, 5])
def test_batches_change_nothing(tmp_path, predictor, batch_size):
    files = [picture(tmp_path / f"{n}.png", n % 3, (64 + n // 2, 96)) for n in range(4)]
    alone, batched = InferenceRun(predictor, draw=False), InferenceRun(predictor, draw=False)
    alone.images(files, files)
    predictor.model.batches.clear()
    batched.images(files, files, batch_size=batch_size)
    assert batched.results == alone.results
    assert max(map(len, predictor.model.batches)) == 2  # pairs of one size


def test_a_batch_size_below_one_is_refused(predictor):
    with pytest.raises(ValueError, match="batch_size must be 1 or more, got 0"):
        InferenceRun(predictor).images([], [], batch_size=0)


def test_without_drawing_nothing_is_written(tmp_path, predictor):
    files = [picture(tmp_path / "a.png", 0)]
    run = InferenceRun(predictor, draw=False)
    run.images(files, [tmp_path / "out" / "a.png"])
    assert len(run.results) == 1
    assert not (tmp_path / "out").exists()


def test_an_unwritable_drawing_is_named_and_the_rest_is_done(tmp_path, predictor):
    files = [picture(tmp_path / "a.png", 0), picture(tmp_path / "b.png", 0)]
    run = InferenceRun(predictor)
    run.images(files, [tmp_path / "a.png" / "x.png", tmp_path / "out.png"])
    assert len(run.failures) == 1
    assert "x.png: cannot be written" in run.failures[0]
    assert (tmp_path / "out.png").exists()
    assert len(run.results) == 2


@pytest.fixture
def clip(tmp_path):
    """Five frames of a green square that moves by 4 pixels."""
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 10) as writer:
        for n in range(5):
            frame = np.zeros((64, 96, 3), dtype=np.uint8)
            frame[16:48, 8 + 4 * n : 40 + 4 * n, 1] = 220
            writer.write(frame)
    return path


def test_a_video_is_drawn_frame_by_frame(tmp_path, predictor, clip):
    run = InferenceRun(predictor)
    run.video(clip, tmp_path / "out.mp4")
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.fps == pytest.approx(10)
        assert len(list(reader)) == 5
    assert [entry["image_id"] for entry in run.results] == [0, 1, 2, 3, 4]
    assert {entry["category_name"] for entry in run.results} == {"green"}
    left = [entry["bbox"][0] for entry in run.results]
    assert np.abs(np.array(left) - [8, 12, 16, 20, 24]).max() <= 1  # the codec blurs edges


def test_an_object_keeps_its_color_through_the_video(predictor, clip):
    colors = []

    def show(frame):
        # Of the outline: opaque, at the left edge of the moving square.
        column = 8 + 4 * len(colors)
        colors.append(frame[20:44, column - 2 : column + 3].reshape(-1, 3))
        return True

    InferenceRun(predictor).video(clip, show=show)
    brightest = [c[c.max(axis=1).argmax()].astype(int) for c in colors]
    assert all(np.abs(color - brightest[0]).max() < 60 for color in brightest)


def test_a_frame_that_cannot_be_read_keeps_its_number(tmp_path, predictor, capsys):
    for number in range(5):
        picture(tmp_path / f"{number}.png", number % 3)
    for number in (1, 4):
        (tmp_path / f"{number}.png").write_bytes(b"damaged")
    run = InferenceRun(predictor)
    run.video(tmp_path, tmp_path / "out.mp4")
    assert [x["image_id"] for x in run.results] == [0, 2, 3]
    assert run.frames == 5
    assert run.failures == [f"{tmp_path}: 2 images cannot be used as frames, see above"]
    assert run.failures[0] in capsys.readouterr().err


class Pieces:
    """Writes the left and the right half of an image as files of their own."""

    separate = True

    def image(self, image, _prediction):
        half = image.shape[1] // 2
        return {"_0": image[:, :half], "_1": image[:, half:]}

    def for_video(self):
        return self


def test_pieces_of_equal_names_do_not_replace_each_other(tmp_path, predictor):
    files = [picture(tmp_path / name, 1) for name in ("a.png", "a.bmp", "b.png")]
    run = InferenceRun(predictor, renderer=Pieces())
    run.images(files, [tmp_path / "out" / name for name in ("a.png", "a.jpg", "b.png")])
    assert sorted(x.name for x in (tmp_path / "out").iterdir()) == [
        *("a_0.png", "a_1.png", "a_2_0.png", "a_2_1.png", "b_0.png", "b_1.png")
    ]


def test_pieces_of_frames_never_go_among_the_frames(tmp_path, predictor):
    folder = tmp_path / "film"
    folder.mkdir()
    picture(folder / "0.png", 1)
    run = InferenceRun(predictor, renderer=Pieces())
    with pytest.raises(ValueError, match="film: has the frames"):
        run.video(folder, tmp_path / "film.mp4")
    run.video(folder, tmp_path / "other.mp4")
    assert run.folder == tmp_path / "other"
    assert [x.name for x in folder.iterdir()] == ["0.png"]


def test_showing_can_end_the_run(predictor, clip):
    run = InferenceRun(predictor)
    run.video(clip, show=lambda frame: False)
    assert len(run.results) == 1


def test_an_interrupt_keeps_what_is_done(tmp_path, predictor, clip, capsys):
    def interrupt(frame):
        raise KeyboardInterrupt

    run = InferenceRun(predictor)
    run.video(clip, tmp_path / "out.mp4", show=interrupt)
    assert len(run.results) == 1
    assert "interrupted" in capsys.readouterr().err
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert len(list(reader)) == 1


def test_written_pictures_come_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_image(tmp_path / "new" / "a.png", image)
    assert (cv2.imread(str(tmp_path / "new" / "a.png")) == image).all()


def test_unwritable_pictures_are_named(tmp_path):
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"a\.nonsense: cannot be written"):
        write_image(tmp_path / "a.nonsense", image)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"folder\.png: cannot be written"):
        write_image(tmp_path / "folder.png", image)
