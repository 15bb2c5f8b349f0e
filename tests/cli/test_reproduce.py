"""``solo-d2 reproduce`` on stand-ins: a folder in COCO's layout and a host of published weights."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import cityscapes_folder
import numpy as np
import pytest
import torch
from commands import call
from hosts import running_host, send
from PIL import Image

from solo_d2 import model_zoo
from solo_d2.checkpoint.foreign.classes import COCO_IDS as IDS
from solo_d2.checkpoint.foreign.classes import COCO_NAMES
from solo_d2.cli import reproduce
from solo_d2.cli.main import main
from solo_d2.engine.prepare import choose_device
from solo_d2.engine.reproduction import Data, compare, find_data, make_record, pack_results
from solo_d2.io.json_file import JsonListWriter
from solo_d2.model_zoo import checkpoints, list_models
from solo_d2.model_zoo.claims import PAPER, Claim, find_claims

KEYS = Path(__file__).parents[1] / "checkpoint" / "data" / "mmdet_keys.json.gz"
NAME = "mmdet/solov2_light_r18_fpn_3x_coco"
FAST = ("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0, "INPUT.MIN_SIZE_TEST", 64)
FINDS = ("MODEL.SOLO.SCORE_THRESH_TEST", 0.0, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)
FINDS += ("TEST.DETECTIONS_PER_IMAGE", 5)


def published_file():
    """Such a file as mmdetection publishes: all keys and shapes, random values."""
    shapes = json.loads(gzip.decompress(KEYS.read_bytes()))["solov2-light_r18_fpn_ms-3x_coco"]
    torch.manual_seed(0)
    state = {key: torch.rand(shape) * 0.01 for key, shape in shapes.items()}
    buffer = io.BytesIO()
    torch.save({"meta": {}, "state_dict": state}, buffer)
    return buffer.getvalue()


def write_coco(folder, annotations=()):
    """Two images of COCO's val2017 and one of test-dev; the masks are whole images."""
    for name in ("annotations", "val2017", "test2017"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = []
    for i, place in enumerate(("val2017", "val2017", "test2017"), 1):
        Image.fromarray(rng.integers(0, 255, (64, 96, 3), np.uint8)).save(
            folder / place / f"{i}.png"
        )
        images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 96})
    content = {"categories": [{"id": i, "name": x} for i, x in zip(IDS, COCO_NAMES, strict=True)]}
    truth = {**content, "images": images[:2], "annotations": list(annotations)}
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(truth))
    file = folder / "annotations" / "image_info_test-dev2017.json"
    file.write_text(json.dumps({**content, "images": images[2:]}))


def annotation(number, found, area=64 * 96):
    """An object that is exactly what a model found."""
    keys = ("image_id", "category_id", "segmentation", "bbox")
    return {**{k: found[k] for k in keys}, "id": number, "area": area, "iscrowd": 0}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an empty cache, COCO, and the weights' host; the truth is what they find."""
    folder = tmp_path_factory.mktemp("reproduce")
    body = published_file()
    digest = hashlib.sha256(body).hexdigest()
    with pytest.MonkeyPatch.context() as patch, running_host(send(body)) as host:
        patch.setenv("FVCORE_CACHE", str(folder / "cache"))
        patch.delenv("SOLO_D2_WEIGHTS", raising=False)
        row = checkpoints._BY_NAME[NAME]
        url = f"{host.url}/light_20220511-{digest[:8]}.pth"
        patch.setitem(checkpoints._BY_NAME, NAME, replace(row, url=url, ap=100.0))
        write_coco(folder / "coco", [annotation(1, line(), area=64)])
        first = run(folder, "first")
        found = json.loads((folder / "first" / NAME / RESULTS).read_text())
        write_coco(folder / "coco", [annotation(k, x) for k, x in enumerate(found, 1)])
        yield folder, host, first, digest


RESULTS = Path("inference", "own_val", "coco_instances_results.json")


def line():
    """An object that no mask of a whole image is."""
    counts = {"size": [64, 96], "counts": [0, 64, 64 * 95]}
    return {"image_id": 1, "category_id": IDS[0], "segmentation": counts, "bbox": [0, 0, 1, 64]}


def run(folder, output, *words, name=NAME):
    return call(
        *(main, "reproduce", name, "--coco", folder / "coco", "--output", folder / output),
        *(*words, *FAST, *FINDS),
    )


def test_what_is_published_is_reproduced(place):
    folder, host, first, digest = place
    assert first.returncode == 1 and "NOT reproduced" in first.stdout  # of other annotations
    done = run(folder, "second")
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"{NAME}: reproduced, AP 100.00 against 100.0 (" in done.stdout
    record = json.loads((folder / "second" / NAME / "reproduction.json").read_text())
    assert record["reproduced"] and record["measured"] == pytest.approx(100)
    assert record["weights"] == {"url": find_claims([NAME])[0].url, "sha256": digest}
    truth = (folder / "coco" / "annotations" / "instances_val2017.json").read_bytes()
    assert record["annotations"]["sha256"] == hashlib.sha256(truth).hexdigest()
    assert record["overrides"][:2] == ["MODEL.DEVICE", "cpu"] and record["device"] == "cpu"
    assert record["versions"]["torch"] and record["versions"]["solo_d2"]
    assert record["results"]["bbox"]["AP"] == pytest.approx(100)
    assert len(host.asked) == 1  # downloaded once


def test_test_dev_makes_a_package_of_each_kind(place):
    folder = place[0]
    done = run(folder, "third", "--test-dev")
    assert done.returncode == 0, done.stderr
    stem = "detections_test-dev2017_mmdet-solov2-light-r18-fpn-3x-coco_results"
    for task, unused in (("segm", "bbox"), ("bbox", "segmentation")):
        file = folder / "third" / NAME / "test-dev" / task / f"{stem}.zip"
        assert str(file) in done.stdout
        with zipfile.ZipFile(file) as archive:
            assert archive.namelist() == [f"{stem}.json"]
            entries = json.loads(archive.read(f"{stem}.json"))
        assert len(entries) == 5 and {x["image_id"] for x in entries} == {3}
        assert all(unused not in x and x["category_id"] in IDS for x in entries)


def test_a_file_with_another_hash_is_refused(place, monkeypatch):
    folder, host, *_ = place
    row = checkpoints._BY_NAME[NAME]
    url = f"{host.url}/other-00000000.pth"
    monkeypatch.setitem(checkpoints._BY_NAME, NAME, replace(row, url=url))
    done = run(folder, "fourth")
    assert done.returncode == 2 and "00000000" in done.stderr
    assert done.stderr.count("\n") == 1 and not (folder / "fourth").exists()


CLAIM = Claim("mmdet/x", "coco", 37.5, "mmdet")


@pytest.mark.parametrize(
    ("ap", "expected"),
    [
        (37.6, True),
        (37.4, True),
        (37.6001, False),
        (37.3999, False),
        (None, False),
        (math.nan, False),
    ],
)
def test_the_tolerance_has_two_sides(ap, expected):
    found = compare(CLAIM, ap)
    assert found["reproduced"] is expected
    assert (found["measured"] is None) == (found["difference"] is None)


@pytest.mark.parametrize(
    ("overrides", "device", "recorded"),
    [
        ([], "cuda", "a GPU, cuda"),
        (["MODEL.DEVICE", "cuda:1"], "cuda:1", "a GPU, cuda:1"),
        (["MODEL.DEVICE", "cpu"], "cpu", "cpu"),
    ],
)
def test_the_device_of_the_record_is_that_of_the_evaluation(
    overrides, device, recorded, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda x: f"a GPU, {x}")
    chosen = choose_device(model_zoo.load_config(NAME, overrides), overrides)
    assert chosen == device
    record = make_record(CLAIM, Data([], None), {}, overrides, "", chosen)
    assert record["device"] == recorded


def test_all_are_the_published_checkpoints_of_the_zoo():
    claims = find_claims(["all"])
    assert [x.name for x in claims] == [x.name for x in list_models() if not x.shipped]
    assert len(claims) == 32 and {x.dataset for x in claims} == {"coco"}
    assert find_claims([NAME, NAME]) == find_claims([NAME])


def test_configs_of_the_paper_exist():
    for claim in PAPER:
        assert find_claims([claim.name]) == [claim]
        assert checkpoints.has_published_weights(claim.name) is False
        assert Path(model_zoo.get_config_file(claim.name)).is_file()


def test_an_empty_file_of_results_is_an_empty_list(tmp_path):
    with JsonListWriter(tmp_path / "x.json"):
        pass
    for file in pack_results(tmp_path / "x.json", tmp_path / "out", "a b/c"):
        with zipfile.ZipFile(file) as archive:
            (name,) = archive.namelist()
            assert name == "detections_test-dev2017_a-b-c_results.json"
            assert json.loads(archive.read(name)) == []


def test_lvis_and_cityscapes_are_found_in_their_layouts(tmp_path):
    cityscapes_folder.write_folder(tmp_path)
    assert find_data("cityscapes", tmp_path).options == ["--cityscapes", str(tmp_path)]
    (tmp_path / "val2017").mkdir()
    (tmp_path / "lvis_v0.5_val.json").write_text("{}")
    found = find_data("lvis", tmp_path)
    assert found.annotations == tmp_path / "lvis_v0.5_val.json"
    assert found.options[-2:] == ["--data-format", "lvis"]


CITY = "Cityscapes-InstanceSegmentation/solov2_R_50_FPN.yaml"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([NAME], f"{NAME} is evaluated on --coco DIR, which is missing"),
        (
            [NAME, "--coco", "none"],
            "none: expected annotations/instances_val2017.json and val2017/",
        ),
        (["mmdet/solov2_r50", "--coco", "none"], "is not a published checkpoint"),
        (["solo_d2/objects_lite0", "--coco", "none"], "comes with this package"),
        (["Shapes/solov2_lite0.yaml", "--coco", "none"], "no AP is published of it"),
        ([CITY, "--cityscapes", "none"], "has no published weights; name some with --weights"),
        ([CITY, "--cityscapes", "none", "--weights", __file__], "none: expected leftImg8bit/val/"),
        ([CITY, "--cityscapes", "none", "--test-dev"], "--test-dev is of COCO"),
        ([NAME, "--coco", "none", "--weights", __file__], "leave --weights out"),
        ([NAME, "--coco", "none", "--weights", "no.pth"], "--weights no.pth: "),
        ([NAME, "--coco", "none", "MODEL.WEIGHTS", "a.pth"], "MODEL.WEIGHTS is no override"),
        ([NAME, "--coco", "none", "OUTPUT_DIR", "a"], "which writes to --output DIR: leave it out"),
        ([NAME, "--coco", "none", "DATASETS.TEST", "('a',)"], "DATASETS.TEST is no override"),
        ([CITY, "--weights", __file__, "MODEL.WEIGHTS", "a.pth"], "or --weights FILE where there"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_done(words, message, capsys, tmp_path):
    assert reproduce.main([*words, "--output", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
