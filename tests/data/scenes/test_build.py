"""One builder and one command for all sources of scenes; the old names of both."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
