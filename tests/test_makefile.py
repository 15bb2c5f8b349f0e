"""What `make` would run: the trainings of `make matting`, and set-ups; nothing is run."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from solo_d2.model_zoo.model_zoo import load_config

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location(
    "matting_tables", ROOT / "benchmarks" / "_matting_tables.py"
)
matting_tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(matting_tables)
ROWS = list(matting_tables.ABLATIONS)

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def dry_run(*arguments):
    """Lines that `make` would run."""
    of_parent = ("MAKE", "MFLAGS", "PYTHON", "TORCH", "VENV", "EXTRAS")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(of_parent)}
    done = subprocess.run(
        ["make", "--dry-run", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.replace("\\\n", " ").splitlines()


def commands(*arguments):
    """Lines with a script that `make` would run for a target anew, split into words."""
    lines = dry_run("--always-make", *arguments)
    return [shlex.split(line, comments=True) for line in lines if ".py " in line]


def training(model):
    """The config with which a model is trained."""
    found = [
        words for words in commands(f"output/matting/{model}/model_final.pth")
        if f"output/matting/{model}" in words
    ]  # fmt: skip
    assert len(found) == 1
    (words,) = found
    name = words[words.index("--config-file") + 1]
    cfg = load_config(ROOT / name, words[words.index("OUTPUT_DIR") :])
    cfg.OUTPUT_DIR = ""
    return cfg


def test_every_row_of_the_ablation_is_trained_with_a_config_of_its_own():
    texts = {row: training(row).dump() for row in ["soft", *ROWS]}
    assert len(set(texts.values())) == 1 + len(ROWS)


def test_a_training_that_was_interrupted_goes_on_and_one_that_is_too_old_is_made_anew():
    lines = dry_run("--always-make", "output/matting/soft/model_final.pth")
    started = next(i for i, x in enumerate(lines) if "OUTPUT_DIR output/matting/soft " in f"{x} ")
    assert "--resume" in shlex.split(lines[started])
    file = "output/matting/soft/model_final.pth"
    assert lines[started - 1] == f"if [ -e {file} ]; then rm -r output/matting/soft; fi"


def test_soft_solo_and_the_tuned_baseline_share_schedule_and_start():
    soft, tuned = training("soft"), training("tuned")
    assert (soft.MODEL.META_ARCHITECTURE, tuned.MODEL.META_ARCHITECTURE) == ("SoftSOLO", "SOLO")
    assert soft.SOLVER == tuned.SOLVER
    assert soft.MODEL.WEIGHTS == tuned.MODEL.WEIGHTS == "output/matting/solov2/model_final.pth"
    assert soft.MODEL.SOLO.FREEZE_CATEGORY_BRANCH
    assert tuned.MODEL.SOLO.FREEZE_CATEGORY_BRANCH


def test_tables_and_pictures_come_last_and_of_all_models():
    steps = commands("matting", f"MATTING_ROWS={' '.join(ROWS)}")
    scripts = [next(Path(x).name for x in words if x.endswith(".py")) for words in steps]
    assert scripts.count("train_net.py") == 3 + len(ROWS)
    tables = next(x for x in steps if "benchmarks/matting.py" in x)
    assert [tables[i + 1] for i, x in enumerate(tables) if x == "--ablation"] == ROWS
    assert steps.index(tables) > max(i for i, x in enumerate(scripts) if x == "train_net.py")


def extras(lines):
    """Extras of this package that are installed, in the order of the commands."""
    return [set(found[1].split(",")) for x in lines if (found := re.search(r'-e "\.\[(.*?)\]"', x))]


USERS = {"eval", "matting", "stamps", "timm", "video"}


@pytest.mark.parametrize("target", ["setup", "demo", "matting"])
def test_users_get_no_tools_of_developers(tmp_path, target):
    assert extras(dry_run(target, f"VENV={tmp_path / 'new'}")) == [USERS]


@pytest.mark.parametrize("target", ["dev", "docs", "test", "exports", "coverage", "lint", "format"])
def test_developers_get_them_on_top(tmp_path, target):
    developers = {*USERS, "dev", "docs", "export", "mmdet"}
    assert extras(dry_run(target, f"VENV={tmp_path / 'new'}")) == [USERS, developers]


@pytest.fixture
def environment(tmp_path):
    """One that has been set up for developers, with another torch than the default."""
    (tmp_path / "choice.mk").write_text("PYTHON_WAS := python3\nTORCH_WAS := torch==2.9.* other\n")
    (tmp_path / ".setup-stamp").touch()
    (tmp_path / ".dev-stamp").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "installed"),
    [
        ([], None),
        (["TORCH=torch==2.9.* other", "PYTHON=python3"], None),
        (["TORCH=torch==2.8.* other"], "torch==2.8.* other"),
        (["PYTHON=python3.12"], "torch==2.9.* other"),
    ],
)
def test_an_environment_holds_until_others_are_named(environment, given, installed):
    lines = dry_run("test", f"VENV={environment}", *given)
    assert "pytest" in lines[-1]
    if installed is None:
        assert extras(lines) == []
    else:
        assert f"install {installed};" in lines[0] and len(extras(lines)) == 2
        assert "was set up with python3 and torch==2.9.* other" in lines[0]
