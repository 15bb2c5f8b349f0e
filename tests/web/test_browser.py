"""The page in a headless Chromium: what it finds and writes is what the predictor finds."""

from __future__ import annotations

import contextlib
import gzip
import json

import numpy as np
import pytest
from commands import call
from export_builders import photo
from PIL import Image
from pycocotools import mask as coco

from solo_d2 import SOLOPredictor
from solo_d2.cli import main as cli
from solo_d2.web import bundle
from solo_d2.web.bundle import PAGE
from solo_d2.web.runtime import read_runtime

chromium = pytest.importorskip("chromium")  # the driver beside this file
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
web_builders = pytest.importorskip("web_builders")

pytestmark = pytest.mark.skipif(chromium.find_chromium() is None, reason="needs Chromium")
EXAMPLE = PAGE / "example.jpg"
STATE = "document.body.dataset.state"
STATUS = "document.getElementById('status').textContent"


@pytest.fixture(scope="module")
def runtime():
    """The runtime is fetched before a browser starts."""
    try:
        return read_runtime()
    except OSError as error:
        return pytest.skip(f"needs the npm registry: {error}")


@pytest.fixture(scope="module")
def site(runtime, tmp_path_factory):
    """A predictor of a small exported model, and the folder of its page."""
    folder = tmp_path_factory.mktemp("site")
    model = web_builders.write_model(folder / "m.onnx")
    bundle(model, folder / "web")
    return SOLOPredictor(model), folder / "web"


@contextlib.contextmanager
def opened(folder, profile):
    """Open a page and wait for its model."""
    with chromium.serve(folder) as url, chromium.Page(profile) as page:
        page.send("Emulation.setFocusEmulationEnabled", enabled=True)
        page.send("Page.navigate", url=url)
        page.wait_for(f"document.body && {STATE} === 'ready'")
        yield page


@pytest.fixture(scope="module")
def page(site, tmp_path_factory):
    """The page, with its model loaded."""
    with opened(site[1], tmp_path_factory.mktemp("browser")) as page:
        yield page


def look(page, file):
    """Choose a file and wait for the outcome."""
    page.run(f"{STATE} = 'waiting'")
    page.choose(file)
    return page.wait_for(f"['done', 'failed'].includes({STATE}) && {STATE}")


def set_score(page, value):
    page.run(
        f"{{ const score = document.getElementById('score'); score.value = {value};"
        "score.dispatchEvent(new Event('input')); }"
    )


def iou(one, other):
    return (one & other).sum() / max(1, (one | other).sum())


def compare(page, predictor, file):
    """Compare the page's results for a file with the predictor's; returns how many there are."""
    assert look(page, file) == "done"
    set_score(page, 0)
    page.run("document.getElementById('save').click()")
    found = json.loads(page.downloaded(f"{file.stem}.json").read_text())
    expected = predictor(str(file))["instances"]
    assert len(found) == len(expected) > 0
    masks = coco.decode([x["segmentation"] for x in found]).transpose(2, 0, 1).astype(bool)
    ids = np.array(predictor.model.category_ids or range(1000))
    categories = np.array([x["category_id"] for x in found])
    scores = np.array([x["score"] for x in found])
    boxes = np.array([x["bbox"] for x in found])
    boxes[:, 2:] += boxes[:, :2]
    for score, label, mask, box in zip(
        expected.scores.tolist(),
        expected.pred_classes.tolist(),
        expected.pred_masks.numpy(),
        expected.pred_boxes.tensor.numpy(),
        strict=True,
    ):
        alike = (categories == ids[label]) & (abs(scores - score) < 1e-3)
        alike &= abs(boxes - box).max(1) <= 1
        assert any(iou(masks[i], mask) > 0.99 for i in np.flatnonzero(alike)), (score, label)
    return found


@pytest.mark.parametrize("size", [(200, 150), (70, 110)])
def test_results_are_those_of_the_predictor(site, page, tmp_path, size):
    file = tmp_path / f"image{size[0]}.png"
    Image.fromarray(photo(*size)).save(file)
    found = compare(page, site[0], file)
    assert [x["category_name"] for x in found] == ["cup", "fork", "spoon"]
    assert {x["file_name"] for x in found} == {file.name}


def test_masks_along_edges_are_those_of_the_predictor(runtime, tmp_path):
    model = web_builders.write_model(tmp_path / "m.onnx", "MODEL.SOLO.REFINE_MASKS_TEST", True)
    bundle(model, tmp_path / "web")
    file = tmp_path / "image.png"
    Image.fromarray(photo(90, 130)).save(file)
    with opened(tmp_path / "web", tmp_path / "browser") as page:
        compare(page, SOLOPredictor(model), file)


def test_a_cut_out_is_the_image_inside_of_the_mask(site, page, tmp_path):
    file = tmp_path / "plate.png"
    image = photo(60, 80, seed=2)
    Image.fromarray(image).save(file)
    assert look(page, file) == "done"
    set_score(page, 0)
    page.run("document.querySelector('#list button').click()")
    instances = site[0](str(file))["instances"]
    name = ("cup", "fork", "spoon")[instances.pred_classes[0]]
    cut = np.asarray(Image.open(page.downloaded(f"plate_1_{name}.png")))
    x0, y0, x1, y1 = instances.pred_boxes.tensor[0].int().tolist()
    mask = instances.pred_masks[0].numpy()[y0:y1, x0:x1]
    assert cut.shape == (y1 - y0, x1 - x0, 4)
    assert ((cut[..., 3] == 255) == mask).mean() > 0.99
    inside = cut[..., 3] == 255
    assert (cut[inside][:, :3] == image[y0:y1, x0:x1][inside]).all()


def test_the_score_and_the_keyboard_choose_what_stands_out(page, tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(photo()).save(file)
    assert look(page, file) == "done"
    count = "document.querySelectorAll('#list li').length"
    set_score(page, 0)
    scores = page.run("[...document.querySelectorAll('#list .score')].map((x) => x.textContent)")
    set_score(page, 1)
    assert page.run(count) == 0 and page.run("document.getElementById('save').disabled")
    set_score(page, 0)
    assert page.run(count) == len(scores) == 3
    assert page.run("document.getElementById('label').hidden")
    page.run("document.querySelectorAll('#list button')[1].focus()")
    assert page.run("document.getElementById('label').textContent").endswith(scores[1])
    assert page.run("document.querySelector('#list .active .score').textContent") == scores[1]


def test_what_is_no_image_or_too_large_is_said_in_a_line(page, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    assert look(page, tmp_path / "text.png") == "failed"
    assert page.run(STATUS).startswith("The browser cannot read this as an image.")
    assert page.run("document.querySelectorAll('#list li').length") == 0
    assert page.run("document.getElementById('save').disabled")
    Image.new("1", (8000, 6000)).save(tmp_path / "large.png")
    assert look(page, tmp_path / "large.png") == "failed"
    assert page.run(STATUS).startswith("This image has 48 million pixels, the page takes 40.")


def test_the_camera_gives_an_image(page):
    page.run(f"{STATE} = 'waiting'; document.getElementById('camera').click()")
    page.wait_for("document.getElementById('video').videoWidth > 0")
    page.run("document.getElementById('take').click()")
    page.wait_for(f"{STATE} === 'done'")
    page.wait_for("document.getElementById('video').srcObject === null")


def test_the_page_fits_on_a_phone_and_says_nothing_on_the_console(page):
    page.send(
        "Emulation.setDeviceMetricsOverride",
        width=360,
        height=740,
        deviceScaleFactor=1,
        mobile=True,
    )
    assert page.run("document.documentElement.scrollWidth") <= 360
    assert page.complaints() == []


def test_a_missing_model_is_said_in_a_line(site, page, tmp_path):
    for file in site[1].iterdir():
        if file.name != "model.bin":
            (tmp_path / file.name).symlink_to(file)
    with chromium.serve(tmp_path) as url:
        page.send("Page.navigate", url=url)
        page.wait_for(f"document.body && {STATE} === 'failed'")
        assert page.run(STATUS) == "model.bin cannot be fetched: the server answers 404."


@pytest.mark.exports
def test_a_shipped_model_finds_the_same(runtime, tmp_path):
    done = call(cli.main, "web", "solo_d2/objects_lite0", "--output", tmp_path / "web")
    assert done.returncode == 0, done.stderr
    model = tmp_path / "model.onnx"
    model.write_bytes(gzip.decompress((tmp_path / "web" / "model.bin").read_bytes()))
    with opened(tmp_path / "web", tmp_path) as page:
        assert len(compare(page, SOLOPredictor(model), EXAMPLE)) > 20
