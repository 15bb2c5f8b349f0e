"""Facts about configs by name and weights: what loads, and what is refused how."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from torch import nn

from solo_d2.checkpoint import load_weights
from solo_d2.config import add_solo_config
from solo_d2.inference.trained import load_trained
from solo_d2.model_zoo.model_zoo import get_config_file, load_config


def write(path, text):
    path.write_text(text)
    return path


def test_config_file_has_the_solo_keys_and_overrides_come_last(tmp_path):
    path = write(tmp_path / "a.yaml", "MODEL: {SOLO: {NUM_CLASSES: 7}}\nSEED: 1\n")
    cfg = load_config(path, ["SEED", "5"])
    expected = get_cfg()
    add_solo_config(expected)
    assert set(cfg.MODEL.SOLO) == set(expected.MODEL.SOLO)
    assert (cfg.MODEL.SOLO.NUM_CLASSES, cfg.SEED) == (7, 5)


def test_missing_config_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "text", ["MODEL: {NO_SUCH_KEY: 1}", "SEED: text", "a: [", "just words", "- a list"]
)
def test_unusable_config_is_named(tmp_path, text):
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(ValueError, match=r"bad\.yaml: not a usable config"):
        load_config(path)


def test_config_never_runs_code(tmp_path):
    marker = tmp_path / "marker"
    text = f"SEED: !!python/object/apply:os.mkdir ['{marker}']"
    with pytest.raises(ValueError, match=r"evil\.yaml: not a usable config"):
        load_config(write(tmp_path / "evil.yaml", text))
    assert not marker.exists()


@pytest.mark.parametrize("base", ["_BASE_: base.yaml\n", "_BASE_: [good.yaml, base.yaml]\n"])
def test_no_base_of_a_config_runs_code(tmp_path, base):
    write(tmp_path / "good.yaml", "SEED: 1")
    write(tmp_path / "base.yaml", "_BASE_: deep.yaml")
    code = f"SEED: !!python/object/apply:os.mkdir ['{tmp_path / 'marker'}']"
    for text in (code, f"SEED: !!python/object/new:os.mkdir ['{tmp_path / 'marker'}']"):
        write(tmp_path / "deep.yaml", text)
        with pytest.raises(ValueError, match=r"evil\.yaml: not a usable config") as caught:
            load_config(write(tmp_path / "evil.yaml", base))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("text", ["_BASE_: none.yaml", "_BASE_: bad.yaml"])
def test_base_that_cannot_be_read_is_an_error(tmp_path, text):
    with pytest.raises(ValueError, match=r"bad\.yaml: not a usable config"):
        load_config(write(tmp_path / "bad.yaml", text))


def test_lazy_and_pickled_configs_are_refused(tmp_path):
    marker = tmp_path / "marker"
    lazy = write(tmp_path / "lazy.py", f"import os\nos.mkdir({str(marker)!r})\n")
    (tmp_path / "pickled.yaml").write_bytes(pickle.dumps(Payload(str(marker))))
    for path in (lazy, tmp_path / "pickled.yaml"):
        with pytest.raises(ValueError, match="not a usable config"):
            load_config(path)
    with pytest.raises(ValueError, match="override"):
        load_config(
            write(tmp_path / "a.yaml", "SEED: 1"),
            ["SEED", f"__import__('os').mkdir({str(marker)!r})"],
        )
    assert not marker.exists()


@pytest.mark.parametrize(
    "overrides", [["MODEL.NO_SUCH_KEY", "1"], ["SEED"], ["SEED", "text"], ["SEED", "1", "INPUT"]]
)
def test_unusable_override_is_named(tmp_path, overrides):
    with pytest.raises(ValueError, match="override"):
        load_config(write(tmp_path / "a.yaml", "SEED: 1"), overrides)


def test_weights_come_back_as_saved(tmp_path):
    saved, model = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save({"model": saved.state_dict()}, tmp_path / "w.pth")
    load_weights(model, str(tmp_path / "w.pth"))
    assert torch.equal(model.weight, saved.weight)
    assert torch.equal(model.bias, saved.bias)


def test_no_weights_leave_the_model_and_warn(caplog):
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    load_weights(model, "")
    assert torch.equal(model.weight, before)
    assert "random weights" in caplog.text


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("name", ["evil.pkl", "evil.pkl?matching_heuristics=True", "evil.pth"])
def test_pickled_code_is_never_run(tmp_path, name):
    marker = tmp_path / "marker"
    with open(tmp_path / name.split("?")[0], "wb") as file:
        pickle.dump(Payload(str(marker)), file)
    with pytest.raises(ValueError, match="evil"):
        load_weights(nn.Linear(3, 2), str(tmp_path / name))
    assert not marker.exists()


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_missing_and_damaged_weights_are_named(tmp_path, content):
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth: (no such file|is empty|is no checkpoint)"):
        load_weights(nn.Linear(3, 2), str(path))


def test_truncated_weights_are_named(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"model": nn.Linear(50, 50).state_dict()}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"w\.pth: is damaged or cut off"):
        load_weights(nn.Linear(50, 50), str(path))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (nn.Linear(3, 5).state_dict(), r"weight \(5, 3\), expected \(2, 3\)"),
        ({"other": torch.zeros(1)}, "is of another model: not one"),
        ({"weight": torch.zeros(2, 3)}, "1 of 2 entries are missing, e.g. bias"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, state, message):
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message):
        load_weights(nn.Linear(3, 2), str(tmp_path / "w.pth"))


LIGHT = "COCO-InstanceSegmentation/solov2_light_448_R_18_FPN_3x.yaml"


def test_the_path_of_an_own_config_means_what_its_name_means(monkeypatch):
    path = Path(get_config_file(LIGHT))
    monkeypatch.chdir(path.parents[1])
    named = load_config(LIGHT, trained=True)
    assert named.MODEL.WEIGHTS.startswith("solo://")
    for place in (path, str(path), path.relative_to(path.parents[1]), f"./{LIGHT}"):
        assert load_config(place, trained=True) == named
        assert load_trained(place)[0] == named
        assert load_config(place).MODEL.WEIGHTS == "R-18.pth"


def test_published_weights_of_another_config_are_refused_in_a_line(tmp_path):
    path = write(tmp_path / "mine.yaml", "MODEL: {WEIGHTS: mine.pth}")
    with pytest.raises(ValueError, match=r"no weights are published for .*mine\.yaml") as caught:
        load_config(path, trained=True)
    assert "\n" not in str(caught.value)
    assert load_config(path, ["MODEL.WEIGHTS", "a.pth"], trained=True).MODEL.WEIGHTS == "a.pth"
    assert load_trained(path)[0].MODEL.WEIGHTS == "mine.pth"
