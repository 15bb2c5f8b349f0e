"""Model folders: written, read from a folder and from a stand-in for the Hub, and refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from builders import tiny_config, tiny_model
from commands import call
from hub_host import running_hub
from huggingface_hub import constants

from solo_d2 import SOLOPredictor, load_config
from solo_d2.checkpoint import load_weights, read_info, save_checkpoint
from solo_d2.cli import main as cli
from solo_d2.inference import ModelCard
from solo_d2.model_zoo import push_folder

NAMES = ("cup", "fork", "spoon")
LOW = ("MODEL.SOLO.SCORE_THRESH_TEST", 0.0, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)
IMAGE = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def predictor():
    model = tiny_model(*LOW)
    model.class_names, model.category_ids = NAMES, (3, 5, 9)
    cfg = tiny_config(
        *LOW, "INPUT.MIN_SIZE_TEST", 64, "OUTPUT_DIR", "/home/me/secret", "MODEL.WEIGHTS", "/me.pth"
    )
    return SOLOPredictor(cfg, model=model, device="cpu")


@pytest.fixture(scope="module")
def folder(predictor, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "cups"
    predictor.save_pretrained(path, ModelCard(license="mit", metrics={"segm/AP": 37.5}))
    return path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub(monkeypatch, tmp_path / "cache") as running:
        yield running


def same_results(one, other):
    found, expected = one(IMAGE).instances, other(IMAGE).instances
    assert len(found) and torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_masks, expected.pred_masks)


def test_a_folder_holds_all_of_a_model(predictor, folder):
    assert {x.name for x in folder.iterdir()} == {"README.md", "config.yaml", "model.safetensors"}
    again = SOLOPredictor.from_pretrained(folder, device="cpu")
    same_results(again, predictor)
    assert again(IMAGE).class_names == list(NAMES)
    assert read_info(str(folder / "model.safetensors")).category_ids == (3, 5, 9)
    same_results(SOLOPredictor(str(folder), device="cpu"), predictor)
    assert "/home/me" not in (folder / "config.yaml").read_text()
    assert "/me.pth" not in (folder / "config.yaml").read_text()


def test_a_card_has_the_metadata_of_the_hub(folder):
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    data = yaml.safe_load(head)
    assert (data["license"], data["library_name"]) == ("mit", "solo_d2")
    (result,) = data["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 37.5
    assert "Classes: cup, fork, spoon" in text


def test_a_folder_is_written_again_with_its_card_kept(predictor, tmp_path):
    predictor.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    predictor.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_card_that_would_get_lost_is_refused_before_anything_is_written(predictor, tmp_path):
    card = ModelCard(license="mit", metrics={"segm/AP": 37.5})
    predictor.save_pretrained(tmp_path, card)
    predictor.save_pretrained(tmp_path, card)  # it says the same
    before = {x.name: (x.read_bytes(), x.stat().st_mtime_ns) for x in tmp_path.iterdir()}
    for other in (ModelCard(name="other"), ModelCard(license="mit"), ModelCard(metrics={"a": 1})):
        with pytest.raises(ValueError, match=r"README.md: is there and stays, .*; edit it") as said:
            predictor.save_pretrained(tmp_path, other)
        assert "\n" not in str(said.value)
    assert before == {x.name: (x.read_bytes(), x.stat().st_mtime_ns) for x in tmp_path.iterdir()}


def test_an_old_card_that_is_of_another_model_is_told(predictor, tmp_path, caplog):
    caplog.set_level("INFO")
    predictor.save_pretrained(tmp_path, ModelCard(license="mit"))
    predictor.save_pretrained(tmp_path)
    assert f"{tmp_path / 'README.md'} stays as it is" in caplog.text
    model = tiny_model(*LOW)
    model.class_names = ("spoon", "fork", "cup")
    SOLOPredictor(predictor.cfg, model=model, device="cpu").save_pretrained(tmp_path)
    (said,) = (x.getMessage() for x in caplog.records if x.levelname == "WARNING")
    assert "README.md stays, and does not say of the model that is saved" in said
    assert "Classes: spoon, fork, cup" in said and "parameters" not in said
    assert "Classes: cup, fork, spoon" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metrics_of_a_card_are_finite(value):
    with pytest.raises(ValueError, match=r"metric segm/AP: expected a finite number, got "):
        ModelCard(metrics={"segm/AP": value})


@pytest.mark.parametrize("word", ["AP", "AP=", "AP=x", "AP=nan", "AP=-inf", "=1"])
def test_the_command_takes_finite_metrics_with_names(word, tmp_path):
    done = call(cli.main, "zoo", "save", "none", tmp_path / "x", "--metric", word)
    assert done.returncode == 2
    assert f"expected NAME=VALUE with a finite number, got '{word}'" in done.stderr


def test_the_command_keeps_every_metric_and_tells_of_cards(folder, tmp_path, caplog):
    words = (cli.main, "zoo", "save", folder, tmp_path / "m")
    assert call(*words, "--metric", "a=1", "b=2", "--metric", "c=3").returncode == 0
    card = (tmp_path / "m" / "README.md").read_text()
    assert all(f"| {row} |" in card for row in ("a | 1", "b | 2", "c | 3"))
    done = call(*words, "--license", "cc-by-4.0")
    assert done.returncode == 2 and "README.md: is there and stays" in done.stderr
    done = call(*words, "--metric", "a=1", "a=2")
    assert done.returncode == 2 and "--metric names one of a twice" in done.stderr
    other = call(cli.main, "zoo", "save", "solo_d2/stamps_lite0", tmp_path / "m")
    assert other.returncode == 0 and "does not say of the model" in caplog.text


def test_the_folder_of_a_training_is_a_model_and_is_not_written_over(predictor, tmp_path):
    (tmp_path / "config.yaml").write_text(predictor.cfg.dump())
    model = tiny_model(*LOW)
    save_checkpoint({"model": model.state_dict()}, tmp_path / "model_final.pth")
    same_results(SOLOPredictor.from_pretrained(tmp_path, device="cpu"), predictor)
    with pytest.raises(ValueError, match="is not empty and no model folder"):
        predictor.save_pretrained(tmp_path)


def test_a_config_is_read_from_a_folder(folder, tmp_path):
    assert load_config(folder, ["SEED", "3"]).MODEL.SOLO.NUM_CLASSES == 3
    with pytest.raises(ValueError, match=r"has no config.yaml; expected a folder of"):
        load_config(tmp_path)


def test_a_model_goes_to_the_hub_and_comes_back(hub, predictor, folder):
    card = ModelCard(license="apache-2.0")
    url = predictor.push_to_hub("me/cups", card, revision="v1", message="first")
    assert url.startswith(f"{hub.url}/me/cups/commit/")
    assert hub.private == {"me/cups": True}
    assert set(hub.files("me/cups", "v1")) == {x.name for x in folder.iterdir()}
    assert hub.files("me/cups", "main") == {}
    assert b"# cups\n" in hub.files("me/cups", "v1")["README.md"]
    back = SOLOPredictor.from_pretrained("me/cups", revision="v1", device="cpu")
    same_results(back, predictor)
    assert back(IMAGE).class_names == list(NAMES)
    other = tiny_model(*LOW, seed=1)
    load_weights(other, "hf://me/cups@v1")
    assert all(map(torch.equal, other.parameters(), predictor.model.parameters()))


def test_only_the_model_is_pushed_and_fetched(hub, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "notes.txt").write_text("mine alone")
    push_folder(copy, "me/cups", public=True)
    assert hub.private == {"me/cups": False}
    files = hub.files("me/cups", "main")
    assert "notes.txt" not in files
    files |= {"model.pth": b"a pickle", "code.py": b"raise SystemExit"}
    hub.asked.clear()
    SOLOPredictor("hf://me/cups", device="cpu")
    fetched = {path.rpartition("/")[2] for kind, path in hub.asked if "/resolve/" in path}
    assert fetched == {"config.yaml", "model.safetensors"}


def test_what_was_fetched_is_there_without_the_hub(hub, folder, predictor, monkeypatch):
    push_folder(folder, "me/cups")
    SOLOPredictor.from_pretrained("me/cups", device="cpu")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    same_results(SOLOPredictor.from_pretrained("me/cups", device="cpu"), predictor)
    with pytest.raises(ValueError, match=r"hf://me/forks: the Hub cannot be reached, and this"):
        SOLOPredictor.from_pretrained("me/forks")


@pytest.mark.parametrize(
    ("name", "revision", "text"),
    [
        ("me/none", None, "hf://me/none: there is no such repository, or it is private"),
        ("me/cups", "v9", "hf://me/cups: has no revision v9"),
        ("me/cu..ps", None, r"hf://me/cu..ps: is no name of a repository"),
        ("me/cups", None, r"has no model.safetensors, so it is no model of solo_d2; pickles"),
        ("cups", None, "expected a folder, OWNER/NAME on the Hub, or a checkpoint .* 'cups'"),
        ("solo_d2/objects_lite0", "v1", "only models of the Hub have revisions"),
    ],
)
def test_what_is_no_model_is_refused_in_a_line(hub, name, revision, text):
    hub.repositories["me/cups"] = {"main": {"config.yaml": b"{}", "model.pth": b"a pickle"}}
    with pytest.raises(ValueError, match=text) as caught:
        SOLOPredictor.from_pretrained(name, revision=revision)
    assert "\n" not in str(caught.value)


def test_a_config_of_the_hub_runs_no_code(hub, folder):
    weights = (folder / "model.safetensors").read_bytes()
    evil = b"MODEL: !!python/object/apply:os.system ['true']\n"
    hub.repositories["me/evil"] = {"main": {"config.yaml": evil, "model.safetensors": weights}}
    with pytest.raises(ValueError, match="not a usable config"):
        SOLOPredictor.from_pretrained("me/evil")


def test_torch_hub_loads_from_a_clone(folder, predictor):
    clone = str(Path(__file__).parents[2])
    loaded = torch.hub.load(clone, "predictor", str(folder), source="local", device="cpu")
    same_results(loaded, predictor)
    network = torch.hub.load(clone, "model", "solo_d2/stamps_lite0", source="local", device="cpu")
    assert not network.training
    assert len(network.class_names) == network.head.num_classes


def test_the_command_saves_and_pushes(hub, folder, tmp_path):
    saved = tmp_path / "saved"
    done = call(cli.main, "zoo", "save", folder, saved, "--license", "mit", "--metric", "segm/AP=1")
    assert (done.returncode, done.stdout.strip()) == (0, str(saved)), done.stderr
    assert "license: mit" in (saved / "README.md").read_text()
    done = call(cli.main, "zoo", "push", saved, "me/saved", "--public")
    assert done.returncode == 0 and done.stdout.startswith(hub.url), done.stderr
    assert hub.private == {"me/saved": False}
    done = call(cli.main, "zoo", "push", tmp_path, "me/saved")
    assert done.returncode == 2 and "has no config.yaml; push a folder" in done.stderr
