"""Facts about films on the command line: identities, their files, styles, and what goes wrong."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from stub_predictor import StubPredictor, demo, film, playable

from solo_d2.cli import films
from solo_d2.inference.drawing import STYLES, draw_instances
from solo_d2.inference.runner import InferenceRun
from solo_d2.io.image import write_image
from solo_d2.tracking import Tracker
from solo_d2.tracking.tracker import BIRTH_SCORE


class TwoObjects(StubPredictor):
    """Finds two rectangles, one above the other."""

    def __call__(self, image):
        found = super().__call__(image)["instances"][[0, 0]]
        found.pred_masks = torch.stack([found.pred_masks[0], found.pred_masks[1].roll(24, 0)])
        found.remove("pred_boxes")
        return {"instances": found}


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "in.mp4", 12)
    return tmp_path


def test_options_of_the_command_are_those_of_the_package():
    assert films.STYLES == STYLES
    assert films.BIRTH_SCORE == BIRTH_SCORE


def test_objects_have_one_number_in_all_files(work, capsys):
    line = ("--video-input", "in.mp4", "--output", "out.mp4", "--track")
    files = ("--save-json", "r.json", "--save-tracks", "t.txt")
    assert demo(TwoObjects(), *line, *files) == 0
    assert playable(work / "out.mp4") == 12
    entries = json.loads((work / "r.json").read_text())
    assert [x["track_id"] for x in entries] == [1, 2] * 12
    lines = [x.split() for x in (work / "t.txt").read_text().splitlines()]
    assert {(int(x[0]) - 1, int(x[1])) for x in lines} == {
        (x["image_id"], x["track_id"]) for x in entries
    }
    assert demo(TwoObjects(), *line, "--no-draw", "--save-tracks", "t.json") == 0
    tracks = json.loads((work / "t.json").read_text())
    assert [x["id"] for x in tracks] == [1, 2]
    assert {len(x["segmentations"]) for x in tracks} == {12}
    out = capsys.readouterr().out
    assert "tracks: t.txt" in out and "12 frames, " in out and " per second" in out


def test_a_folder_of_frames_is_a_film(work):
    for number in range(4):
        write_image(work / "frames" / f"{number}.png", np.full((48, 64, 3), number, np.uint8))
    assert demo(StubPredictor(), "--video-input", "frames", "--output", "o.mp4", "--track") == 0
    assert playable(work / "o.mp4") == 4


def test_an_interrupt_keeps_the_tracks_so_far(work, capsys):
    def stop(number):
        if number == 6:
            raise KeyboardInterrupt

    line = ("--video-input", "in.mp4", "--no-draw", "--track", "--save-tracks", "t.txt")
    demo(StubPredictor(before=stop), *line)
    assert "tracks so far: " in capsys.readouterr().err
    assert {x.split()[0] for x in (work / "t.txt").read_text().splitlines()} == set("12345")


BAD = {
    ("--video-input", "in.mp4", "--track", "1.5"): "--track SCORE must lie in [0, 1], got 1.5",
    ("--input", "in.png", "--track"): "--track goes with films",
    ("--video-input", "in.mp4", "--save-tracks", "t.txt"): "--save-tracks needs --track",
    ("--video-input", "in.mp4", "--track", "--save-tracks", "t.csv"): "are written as .txt",
    ("--video-input", "in.mp4", "--track", "--save-tracks", "in.mp4"): "tracks are written as",
    ("--video-input", "in.mp4", "--track", "--save-tracks", "n.txt", "--class-names", "n.txt"): (
        "n.txt: is an input, the tracks would replace it"
    ),
    ("--video-input", "in.mp4", "--no-draw", "--save-json", "r.json", "--style", "boxes"): (
        "--style is of drawings, and --no-draw makes none"
    ),
}


def test_segments_of_a_panoptic_model_have_one_style(work, capsys):
    stub = StubPredictor(panoptic=True)
    stub.cfg = SimpleNamespace(MODEL=SimpleNamespace(META_ARCHITECTURE="PanopticSOLO"))
    line = ("--video-input", "in.mp4", "--output", "out.mp4")
    assert demo(stub, *line, "--style", "boxes") == 2
    assert "--style is for models of instances" in capsys.readouterr().err
    assert demo(stub, *line) == 0


@pytest.mark.parametrize("line", BAD)
def test_what_cannot_be_is_one_line(work, capsys, line):
    stub = StubPredictor()
    assert demo(stub, *line) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert BAD[line] in said
    assert stub.seen == 0


# ------------------------------------------------------------------ pictures


def test_every_style_shows_what_it_says():
    image = np.full((300, 400, 3), 100, np.uint8)
    masks = torch.zeros(1, 300, 400, dtype=torch.bool)
    masks[:, 50:250, 50:350] = True
    found = Instances((300, 400), pred_masks=masks, pred_classes=torch.tensor([0]))
    inside, outside, edge = (70, 200), (20, 20), (249, 200)
    drawn = {style: draw_instances(image, found, style=style) for style in STYLES}
    assert all((x[outside] == 100).all() for name, x in drawn.items() if name != "cutout")
    assert (drawn["masks"][inside] != 100).any()
    assert (drawn["outlines"][inside] == 100).all() and (drawn["outlines"][edge] != 100).any()
    assert (drawn["boxes"][edge] != 100).any() and (drawn["boxes"][inside] == 100).all()
    assert (drawn["cutout"][outside] == 255).all() and (drawn["cutout"][inside] == 100).all()
    with pytest.raises(ValueError, match="style must be one of masks, outlines, boxes, cutout"):
        draw_instances(image, found, style="neon")


def test_colours_follow_the_numbers():
    image = np.zeros((60, 90, 3), np.uint8)
    found = StubPredictor(count=2)(image)["instances"]
    tracker = Tracker(min_fit=0.9)
    first = tracker(found)
    again = tracker(found[[1, 0]])
    assert first.track_ids.tolist() == again.track_ids.tolist()[::-1]
    assert (draw_instances(image, first) == draw_instances(image, again)).all()


# ------------------------------------------------------------------ memory


def test_a_long_film_holds_a_bounded_number_of_frames(monkeypatch):
    """Four hundred frames; those in front of and behind the model are counted."""
    alive, most, done = 0, 0, []

    class Frame(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is None

    class Source:
        name, live, fps, frame_count, seconds, skipped = "long", False, 25.0, None, 0.0, 0

        def __iter__(self):
            nonlocal alive, most
            for _ in range(400):
                alive += 1
                most = max(most, alive)
                yield np.ndarray.__new__(Frame, (8, 8, 3), np.uint8)

        def stop(self):
            pass

    stub = StubPredictor(count=0)
    run = InferenceRun(stub)
    run.sink = None
    run._frames(Source(), lambda number, seconds, images: done.append(number), None)
    assert done == list(range(400)) == list(range(run.frames))
    assert most <= 16
