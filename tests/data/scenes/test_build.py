"""One builder and one command for all sources of scenes; the old names of both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from solo_d2.data.scenes import rgba, shapes, stamps
from solo_d2.data.scenes.__main__ import main
from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.kinds import KINDS
from solo_d2.data.scenes.shapes import ShapesSource


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_source_has_a_command(capsys):
    assert set(KINDS) == {"shapes", "stamps", "rgba"}
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert all(kind in text and found.summary[:20] in text for kind, found in KINDS.items())


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_of_a_source_are_those_of_its_command(kind, capsys):
    with pytest.raises(SystemExit):
        main([kind, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    train, val, (height, width) = KINDS[kind].defaults
    assert f"training scenes ({train})" in text
    assert f"validation scenes ({val})" in text
    assert f"HxW pixels ({height}x{width})" in text


@pytest.mark.parametrize("numbers", [{"train": 0}, {"val": 0}, {"seed": -1}])
def test_bad_numbers_are_refused(tmp_path, numbers):
    with pytest.raises(ValueError, match="need train >= 1"):
        build(ShapesSource(), tmp_path / "out", **numbers)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_output_is_an_error_of_files(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["shapes", "--output", str(tmp_path / "file"), "--train", "1", "--val", "1"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def build_shapes(output, seed=0):
    size = ShapesSource((48, 64))
    return build(size, output, train=1, val=1, seed=seed, workers=1, progress=False)


@pytest.mark.parametrize(
    "name", ["train/a.jpg", "val/mine.txt", "annotations/mine.json", "alpha/a.png", "manifest.json"]
)
def test_files_that_no_build_wrote_are_never_replaced(tmp_path, capsys, name):
    file = tmp_path / "data" / name
    file.parent.mkdir(parents=True)
    file.write_text('{"version": 1}')
    command = ["shapes", "--output", str(tmp_path / "data"), "--train", "1", "--val", "1"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"data: has {name.partition('/')[0]}, which no finished build" in error
    assert "name a new folder" in error and error.count("\n") == 1
    assert contents(tmp_path) == {file.relative_to(tmp_path): b'{"version": 1}'}


def test_cut_outs_of_a_folder_are_not_replaced_by_their_scenes(tmp_path, capsys):
    for name in ("train/a.png", "train/b.png", "papers/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGBA", (40, 40), (200, 0, 0, 255)).save(tmp_path / name)
    before = contents(tmp_path)
    command = ["rgba", "--cutouts", str(tmp_path / "train"), "--output", str(tmp_path)]
    assert main([*command, "--backgrounds", str(tmp_path / "papers")]) == 2
    assert "has train, which no finished build of scenes wrote" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_other_files_may_lie_beside_a_dataset(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert build_shapes(tmp_path) and build_shapes(tmp_path, seed=1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("finished", [False, True], ids=["the first build", "a later build"])
@pytest.mark.parametrize("moved", range(4))
def test_a_build_that_was_cut_off_can_be_repeated(tmp_path, monkeypatch, finished, moved):
    """Cut off after some of its entries (annotations, train, val, manifest) took their place."""
    out, places = tmp_path / "out", []
    if finished:
        build_shapes(out)

    def replace(source, target):
        if Path(target).parent == out:
            if len(places) == moved:
                raise KeyboardInterrupt
            places.append(target)
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("solo_d2.data.scenes.writer.os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            build_shapes(out, seed=1)
    assert not (out / "manifest.json").exists()
    assert build_shapes(out, seed=1) and not build_shapes(out, seed=1)
    build_shapes(tmp_path / "new", seed=1)
    assert contents(out) == contents(tmp_path / "new")


def test_a_build_that_fails_leaves_the_earlier_one_as_it_was(tmp_path, monkeypatch):
    build_shapes(tmp_path)
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("solo_d2.data.scenes.writer.write_split", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_shapes(tmp_path, seed=1)
    assert contents(tmp_path) == before and not (tmp_path / ".building").exists()
    assert not build_shapes(tmp_path)


def test_old_functions_build_and_register_the_same(tmp_path):
    build(ShapesSource((48, 64)), tmp_path / "new", train=2, val=1, workers=1, progress=False)
    with pytest.warns(DeprecationWarning, match="build_shapes is"):
        assert shapes.build_shapes(
            tmp_path / "old", train=2, val=1, height=48, width=64, workers=1, progress=False
        )
    assert contents(tmp_path / "new") == contents(tmp_path / "old")
    for module, name in ((shapes, "shapes"), (stamps, "stamps"), (rgba, "matting")):
        with (
            pytest.warns(DeprecationWarning, match=f"register_{name} is"),
            pytest.raises(ValueError, match="there is no"),
        ):
            getattr(module, f"register_{name}")(tmp_path / "none")


def test_the_command_of_a_module_still_runs(tmp_path):
    command = [sys.executable, "-m", "solo_d2.data.scenes.shapes", "--output", str(tmp_path)]
    command += ["--train", "1", "--val", "1", "--size", "64x64", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "manifest.json").is_file()


def test_building_needs_no_deep_learning():
    program = """
import sys
from solo_d2.data.scenes.__main__ import main
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torch", "detectron2"}, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
