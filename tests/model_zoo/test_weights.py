"""Facts about ``solo://``: where a published file comes from, what is made of it, and how often."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectron2.utils.file_io import PathManager

from solo_d2 import SOLOPredictor, model_zoo
from solo_d2.checkpoint import load_checkpoint, load_weights
from solo_d2.model_zoo import local_weights, weights
from solo_d2.model_zoo.__main__ import main
from solo_d2.model_zoo.checkpoints import CHECKPOINTS, find_checkpoint, markdown_table
from solo_d2.model_zoo.model_zoo import load_config

R18 = "wxinlong/SOLOv2_LIGHT_448_R18_3x"
R18_CONFIG = "COCO-InstanceSegmentation/solov2_light_448_R_18_FPN_3x.yaml"
R50 = "adelaidet/SOLOv2_R50_3x"
KEYS = Path(__file__).parents[1] / "checkpoint" / "data" / "mmdet_keys.json.gz"

# From mmdetection's names to WXinlong/SOLO's.
RENAMED = (
    ("mask_head.mask_feature_head.conv_pred.", "mask_feat_head.conv_pred.0."),
    ("mask_head.mask_feature_head.", "mask_feat_head."),
    ("mask_head.cls_convs.", "bbox_head.cate_convs."),
    ("mask_head.conv_cls.", "bbox_head.solo_cate."),
    ("mask_head.conv_kernel.", "bbox_head.solo_kernel."),
    ("mask_head.", "bbox_head."),
)


def their_name(key):
    old, new = next((pair for pair in RENAMED if key.startswith(pair[0])), ("", ""))
    return new + key.removeprefix(old)


@pytest.fixture(scope="module")
def published_r18(tmp_path_factory):
    """A file such as WXinlong/SOLO publishes: all keys and shapes, random values."""
    shapes = json.loads(gzip.decompress(KEYS.read_bytes()))["solov2-light_r18_fpn_ms-3x_coco"]
    torch.manual_seed(0)
    state = {their_name(key): torch.rand(shape) * 0.01 for key, shape in shapes.items()}
    path = tmp_path_factory.mktemp("published") / "SOLOv2_LIGHT_448_R18_3x.pth"
    torch.save({"meta": {"epoch": 36}, "state_dict": state}, path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Every test has an empty cache, and no folder of published files."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FVCORE_CACHE", str(folder))
    monkeypatch.delenv("SOLO_D2_WEIGHTS", raising=False)
    return folder / "solo_d2"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that stands in for the hosts."""
    path = tmp_path / "weights"
    path.mkdir()
    monkeypatch.setenv("SOLO_D2_WEIGHTS", str(path))
    return path


@pytest.fixture
def conversions(monkeypatch):
    """Replaces conversion by a copy; the files then need not be checkpoints."""
    made = []

    def copy(checkpoint, published, converted):
        made.append(published)
        shutil.copy(published, converted)

    monkeypatch.setattr(weights, "_convert", copy)
    monkeypatch.setattr(weights, "load_checkpoint", lambda path, **options: None)
    return made


@pytest.fixture
def host(monkeypatch):
    """A host of all published files, each with its name as content; counts requests."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = self.path.rpartition("/")[2].encode() * 1000
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(weights, "find_checkpoint", functools.partial(at_host, address))
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def at_host(address, name):
    row = find_checkpoint(name)
    return replace(row, url=f"{address}/{row.file}")


def test_published_file_becomes_a_model(published_r18, folder, cache, monkeypatch):
    shutil.copy(published_r18, folder)
    model = model_zoo.get(R18, device="cpu")
    assert not model.training
    theirs = torch.load(published_r18, weights_only=True)["state_dict"]
    ours = model.state_dict()
    for key, name in (
        ("backbone.bottom_up.res3.0.conv1.weight", "backbone.layer2.0.conv1.weight"),
        ("head.category_predictor.bias", "bbox_head.solo_cate.bias"),
        ("head.mask_feature.predictor.weight", "mask_feat_head.conv_pred.0.conv.weight"),
    ):
        torch.testing.assert_close(ours[key], theirs[name], rtol=0, atol=0)
    # Converted once: neither a second model nor Detectron2's own way to the file does it again.
    monkeypatch.setattr(weights, "_convert", None)
    assert str(local_weights(R18)) == PathManager.get_local_path(f"solo://{R18}")
    predictor = SOLOPredictor(R18, device="cpu")
    assert torch.equal(
        predictor.model.state_dict()["head.kernel_predictor.weight"],
        ours["head.kernel_predictor.weight"],
    )
    (converted,) = (cache / "wxinlong").glob("*.pth")
    assert re.fullmatch(r"SOLOv2_LIGHT_448_R18_3x-[0-9a-f]{8}-v\d+\.pth", converted.name)
    info = load_checkpoint(converted)["solo_d2"]
    assert (info["source"], info["config"]) == ("solo", R18_CONFIG)


def test_weights_are_refused_by_a_config_with_another_input(published_r18, folder):
    shutil.copy(published_r18, folder)
    cfg = load_config(R18, ["MODEL.DEVICE", "cpu", "INPUT.FORMAT", "BGR"])
    from detectron2.modeling import build_model

    with pytest.raises(ValueError, match=r"INPUT\.FORMAT RGB"):
        load_weights(build_model(cfg), cfg.MODEL.WEIGHTS)


def test_wrong_file_under_a_published_name_is_named(published_r18, folder):
    shutil.copy(published_r18, folder / "SOLOv2_LIGHT_448_R34_3x.pth")
    with pytest.raises(ValueError, match=r"not wxinlong/SOLOv2_LIGHT_448_R34_3x.*light R18"):
        local_weights("wxinlong/SOLOv2_LIGHT_448_R34_3x")
    shutil.copy(published_r18, folder / "SOLOv2_R50_3x.pth")
    with pytest.raises(ValueError, match=r"SOLOv2_R50_3x\.pth: cannot be used.*'solo'"):
        local_weights(R50)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_what_is_no_checkpoint_is_named(folder, cache, content):
    (folder / "SOLOv2_R50_3x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"SOLOv2_R50_3x\.pth: cannot be used") as error:
        local_weights(R50)
    assert "\n" not in str(error.value)
    assert list((cache / "adelaidet").glob("*.pth")) == []


def test_mmdet_file_with_another_hash_is_refused_and_kept(folder):
    row = find_checkpoint("mmdet/solov2_r50_fpn_3x_coco")
    (folder / row.file).write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected fed092d4"):
        local_weights(row.name)
    assert (folder / row.file).is_file()


def test_equal_file_names_are_told_apart_by_subfolders(folder, conversions):
    for project in ("adelaidet", "wxinlong"):
        (folder / project).mkdir()
        (folder / project / "SOLOv2_R50_3x.pth").write_text(project)
    (folder / "SOLOv2_R50_3x.pth").write_text("any")
    assert local_weights("wxinlong/SOLOv2_R50_3x").read_text() == "wxinlong"
    assert local_weights("adelaidet/SOLOv2_R50_3x").read_text() == "adelaidet"


def test_changed_file_is_converted_anew(folder, conversions):
    (folder / "SOLOv2_R50_3x.pth").write_text("one")
    assert local_weights(R50).read_text() == local_weights(R50).read_text() == "one"
    assert len(conversions) == 1
    (folder / "SOLOv2_R50_3x.pth").write_text("two")
    assert local_weights(R50).read_text() == "two"
    assert len(conversions) == 2


def test_file_that_the_folder_lacks_is_not_downloaded(folder, host):
    with pytest.raises(ValueError, match=r"SOLO_D2_WEIGHTS is set.*no SOLOv2_R50_3x\.pth.*http"):
        local_weights(R50)
    assert host == []


def test_file_is_downloaded_and_converted_once(host, cache, conversions):
    first = local_weights(R50)
    assert first == local_weights(f"solo://{R50}")
    assert first.read_text() == "SOLOv2_R50_3x.pth" * 1000
    assert (cache / "adelaidet" / "SOLOv2_R50_3x.pth").is_file()
    assert (len(host), len(conversions)) == (1, 1)
    PathManager.get_local_path(f"solo://{R50}", force=True)
    assert (len(host), len(conversions)) == (2, 1)


def test_damaged_download_is_refused_and_deleted(host, cache):
    with pytest.raises(ValueError, match=r"cannot download .*expected fed092d4"):
        local_weights("mmdet/solov2_r50_fpn_3x_coco")
    assert [path.suffix for path in (cache / "mmdet").iterdir()] == [".lock"]


def test_callers_at_the_same_time_share_one_download(host, conversions):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(local_weights(R50))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6 and len(set(results)) == 1
    assert (len(host), len(conversions)) == (1, 1)


def test_dead_host_says_what_to_do_and_that_works(cache, conversions, monkeypatch):
    dead = functools.partial(at_host, "http://127.0.0.1:9")
    monkeypatch.setattr(weights, "find_checkpoint", dead)
    with pytest.raises(ValueError, match=r"cannot download http://127\.0\.0\.1:9/SOLOv2") as error:
        local_weights(R50)
    text = str(error.value)
    assert f"into {cache / 'adelaidet'} as SOLOv2_R50_3x.pth" in text
    assert "tools/convert_weights.py" in text and "MODEL.WEIGHTS" in text and "\n" not in text
    (cache / "adelaidet" / "SOLOv2_R50_3x.pth").write_text("by hand")
    assert local_weights(R50).read_text() == "by hand"


def test_cache_that_cannot_be_written_is_named(cache):
    cache.parent.mkdir()
    cache.write_text("a file where a folder should be")
    with pytest.raises(ValueError, match="FVCORE_CACHE"):
        local_weights(R50)


def test_full_disk_leaves_no_converted_file(published_r18, folder, cache, monkeypatch):
    shutil.copy(published_r18, folder)

    def fail(checkpoint, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_checkpoint", fail)
    with pytest.raises(ValueError, match=r"No space left.*FVCORE_CACHE"):
        local_weights(R18)
    assert list((cache / "wxinlong").glob("*.pth")) == []


def test_detectron2_opens_and_finds_names(folder, conversions):
    (folder / "SOLOv2_R50_3x.pth").write_bytes(b"content")
    with PathManager.open(f"solo://{R50}", "rb") as file:
        assert file.read() == b"content"
    assert PathManager.exists(f"solo://{R50}") and PathManager.isfile(f"solo://{R50}")
    assert not PathManager.exists("solo://adelaidet/none")
    with pytest.raises(ValueError, match="only be read"):
        PathManager.open(f"solo://{R50}", "wb")


@pytest.mark.parametrize("name", ["../../secret", "adelaidet/../secret", "adelaidet/", ""])
def test_names_outside_of_the_table_reach_no_file(folder, name):
    (folder / "secret").write_text("secret")
    (folder.parent / "secret").write_text("secret")
    with pytest.raises(ValueError, match="not a published checkpoint"):
        PathManager.get_local_path(f"solo://{name}")


def test_command_lists_and_fetches(folder, conversions, capsys):
    assert main([]) == 0
    assert capsys.readouterr().out == markdown_table() + "\n"
    (folder / "SOLOv2_R50_3x.pth").write_text("x")
    assert main([R50]) == 0
    assert Path(capsys.readouterr().out.strip()) == local_weights(R50)
    assert main(["adelaidet/none"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: 'adelaidet/none'")
    assert len(captured.err.splitlines()) == 1


def test_every_row_has_a_file_of_its_own_in_the_cache():
    assert len({(row.project, row.file) for row in CHECKPOINTS}) == len(CHECKPOINTS)
