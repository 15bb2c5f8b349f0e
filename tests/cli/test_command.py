"""``solo-d2``: verbs, help without torch, plugins, and what is filled in for own data."""

from __future__ import annotations

import subprocess
import sys

import pytest

from solo_d2._version import __version__
from solo_d2.cli import train
from solo_d2.cli.main import VERBS, main
from solo_d2.engine.arguments import argument_parser, parse_arguments
from solo_d2.io.plugins import import_plugins
from solo_d2.model_zoo.model_zoo import get_config_file

HELP = """
import sys
from solo_d2.cli.main import VERBS, main
for words in [[], *([verb] for verb in VERBS), ["scenes", "stamps"]]:
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert not end.code
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = loaded & {"torch", "detectron2", "numpy", "cv2", "PIL", "tqdm", "yaml", "pycocotools"}
assert not heavy, heavy
"""


def test_help_of_no_verb_waits_for_heavy_packages():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"solo-d2 {verb}" in done.stdout for verb in VERBS)


def test_the_verbs_are_listed(capsys):
    assert main([]) == 0
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS) and f"solo-d2 {__version__}" in out


def test_a_misspelt_verb_is_one_line_with_a_suggestion(capsys):
    assert main(["predcit"]) == 2
    assert capsys.readouterr().err == (
        "solo-d2: unknown verb 'predcit'; did you mean predict? (solo-d2 --help lists all)\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--resume", "SEED", "3", "SOLVER.MAX_ITER", "5", "--num-gpus", "1"],
        ["SEED", "3", "--resume", "--num-gpus", "1", "SOLVER.MAX_ITER", "5"],
        ["SEED", "3", "SOLVER.MAX_ITER", "5", "--num-gpus", "1", "--resume"],
    ],
)
def test_options_and_pairs_stand_in_any_order(words):
    args = parse_arguments(words)
    assert args.resume and args.opts == ["SEED", "3", "SOLVER.MAX_ITER", "5"]


def completed(*words, evaluate=False):
    args = parse_arguments(list(map(str, words)), argument_parser())
    args.eval_only = args.eval_only or evaluate
    train.complete(args)
    return args


def test_own_data_get_epochs_published_weights_and_a_config():
    args = completed("--data", "photos")
    assert args.epochs == train.EPOCHS and args.weights == "published"
    assert args.config_file in train.CONFIGS.values()


def test_what_is_said_is_kept():
    args = completed(
        *("--data", "photos", "--config-file", "Shapes/solov2_lite0.yaml", "--epochs", 3),
        *("MODEL.WEIGHTS", "mine.pth"),
    )
    assert (args.epochs, args.weights) == (3, None)
    assert completed("--data", "photos", "SOLVER.MAX_ITER", 10).epochs is None


def test_an_evaluation_takes_the_config_beside_its_weights(tmp_path):
    (tmp_path / "config.yaml").write_text("VERSION: 2\n")
    args = completed("--weights", tmp_path / "model_best.pth", evaluate=True)
    assert args.config_file == str(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="name a config with --config-file, or weights with"):
        completed("--weights", tmp_path / "other" / "x.pth", evaluate=True)


def test_plugins_are_files_and_modules(tmp_path, monkeypatch):
    (tmp_path / "my_plugin.py").write_text("COUNT = 1\n")
    monkeypatch.chdir(tmp_path)
    by_file, again, by_name = import_plugins(["my_plugin.py", "my_plugin.py", "my_plugin"])
    assert by_file is again and by_file.COUNT == by_name.COUNT == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.py", None, "--import none.py: FileNotFoundError: no such file"),
        ("no.such.module", None, "--import no.such.module: ModuleNotFoundError"),
        ("broken.py", "1 / 0\n", "--import broken.py: ZeroDivisionError: division by zero"),
        ("half.py", "def f(:\n", "--import half.py: SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch, name, text, message):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        import_plugins([name])
    assert "\n" not in str(error.value)


MISSING = """
import sys
sys.modules["detectron2"] = None
from solo_d2.cli.main import main
sys.exit(main(["predict", "--config-file", "x", "--input", "y"]))
"""


def test_a_command_without_detectron2_ends_with_the_command_that_installs_it():
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 2
    assert lines[0] == "solo-d2: solo_d2 needs detectron2, which is not installed here. Run"
    assert lines[1] == f"{sys.executable} -m solo_d2.install_detectron2"


def test_a_config_by_its_path_starts_from_published_weights_as_by_its_name():
    name = train.CONFIGS["cpu"]
    for config in (name, get_config_file(name)):
        assert completed("--data", "photos", "--config-file", config).weights == "published"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "--data", "x", "--epochs", "3"], "--epochs is of a training: leave it out"),
        (["eval", "--batch-size", "3"], "--batch-size is of a training: leave it out"),
        (["eval", "--more-json", "x"], "--more-json is of a training: leave it out"),
        (["eval", "--more-images", "x"], "--more-images is of a training: leave it out"),
        (["eval", "--weights", "published", "MODEL.WEIGHTS", ""], "both name weights"),
        (["train", "--weights", "a.pth", "MODEL.WEIGHTS", "b.pth"], "both name weights"),
        (["eval", "--weights", "a.pth", "--resume"], "both name weights"),
    ],
)
def test_options_that_would_not_be_used_are_refused_in_a_line(words, said, capsys):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
