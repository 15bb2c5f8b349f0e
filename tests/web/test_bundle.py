"""The folder of the page: what is in it, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile

import pytest
from commands import ROOT, call

from solo_d2.cli import main as cli
from solo_d2.testing import tiny_config
from solo_d2.web import bundle, runtime
from solo_d2.web.bundle import PAGE

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
web_builders = pytest.importorskip("web_builders")


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A stand-in for the runtime's tarball."""
    path = tmp_path / "runtime.tgz"
    with tarfile.open(path, "w:gz") as file:
        for name, member in runtime.MEMBERS.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(name)
            file.addfile(entry, io.BytesIO(name.encode()))
    monkeypatch.setattr(runtime, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_the_folder_has_all_that_the_page_needs(tmp_path, archive):
    model = web_builders.write_model(tmp_path / "mine.onnx")
    output = tmp_path / "new" / "web"
    done = call(cli.main, "web", model, "--output", output, "--runtime", archive)
    assert done.returncode == 0, done.stderr
    assert "http.server --directory" in done.stdout
    written = {path.name: path.read_bytes() for path in output.iterdir()}
    page = {path.name: path.read_bytes() for path in PAGE.iterdir()}
    assert page.items() <= written.items()
    assert set(written) - set(page) == {"model.bin", "model.json", "runtime.bin", "runtime.js"}
    assert gzip.decompress(written["model.bin"]) == model.read_bytes()
    assert gzip.decompress(written["runtime.bin"]) == b"runtime.bin"
    told = json.loads(written["model.json"])
    assert told["files"] == {name: len(written[name]) for name in ("runtime.bin", "model.bin")}
    assert (told["name"], told["category_ids"], told["min_size"]) == ("mine", [3, 5, 9], 96)
    assert "config" not in told and told["refine_masks"] is False


def test_the_example_of_the_documents_runs_with_a_runtime_from_the_cache(
    tmp_path, archive, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "solo_d2" / "web" / f"onnxruntime-web-{runtime.VERSION}.tgz"
    kept.parent.mkdir(parents=True)
    archive.rename(kept)
    web_builders.write_model(tmp_path / "mine.onnx")
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "browser.md").read_text(), re.S)
    exec(block, {})
    assert json.loads((tmp_path / "web" / "model.json").read_text())["name"] == "My model"


def test_the_page_loads_nothing_from_elsewhere_and_names_what_there_is():
    texts = {path.name: path.read_text() for path in PAGE.iterdir() if path.suffix != ".jpg"}
    code = "".join(text for name, text in texts.items() if name.endswith((".js", ".css", ".html")))
    assert "://" not in code
    assert "default-src 'self'" in texts["index.html"]
    ids = set(re.findall(r' id="(\w+)"', texts["index.html"]))
    assert set(re.findall(r'(?:element|ById)\("(\w+)"\)', code)) <= ids
    files = set(re.findall(r'(?:from "\./|(?:href|src)="|Worker\(")([\w.]+)"', code))
    assert files == {*texts, "runtime.js"} - {"index.html"}


def test_a_config_is_exported_first(tmp_path, archive, monkeypatch):
    seen = []

    def export_model(predictor, path):
        seen.append(predictor.cfg.MODEL.SOLO.SCORE_THRESH_TEST)
        web_builders.write_model(path)

    monkeypatch.setattr("solo_d2.export.export_model", export_model)
    config = tmp_path / "small.yaml"
    config.write_text(tiny_config().dump())
    words = (config, "--runtime", archive, "--output", tmp_path / "web")
    done = call(cli.main, "web", *words, "MODEL.SOLO.SCORE_THRESH_TEST", "0.25")
    assert done.returncode == 0, done.stderr
    assert seen == [0.25]
    assert json.loads((tmp_path / "web" / "model.json").read_text())["name"] == "small"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "raw"}, "is no model of instances"),
        ({"outputs": (*web_builders.OUTPUTS, "mattes")}, "is no"),
    ],
)
def test_other_models_are_refused(tmp_path, archive, changes, text):
    with pytest.raises(ValueError, match=text):
        bundle(
            web_builders.write_model(tmp_path / "m.onnx", **changes),
            tmp_path / "web",
            runtime=archive,
        )
    assert not (tmp_path / "web").exists()


def test_what_is_wrong_is_one_line(tmp_path, archive, monkeypatch):
    model = web_builders.write_model(tmp_path / "m.onnx")

    def fails(*words):
        done = call(cli.main, "web", *words, "--output", tmp_path / "web")
        assert done.stderr.count("\n") == 1 and not (tmp_path / "web").exists()
        return done.returncode, done.stderr

    code, text = fails(model, "--runtime", model)
    assert code == 2 and "m.onnx: has another SHA-256; expected the file of https://" in text
    code, text = fails(model, "--runtime", tmp_path / "none.tgz")
    assert code == 2 and "no such file" in text
    code, text = fails(model, "--runtime", archive, "MODEL.SOLO.MASK_THRESH_TEST", "0.4")
    assert code == 2 and "is exported already" in text
    code, text = fails(tmp_path / "none.onnx", "--runtime", archive)
    assert code == 2 and "no such file" in text
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "URL", "http://127.0.0.1:9/runtime.tgz")
    code, text = fails(model)
    assert code == 1 and "cannot be reached" in text and "--runtime" in text
