"""The page's own arithmetic, run by Node: images and masks are those of the package."""

from __future__ import annotations

import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from refinement_builders import MEAN, check_refined, edge_case

from solo_d2.inference.colors import instance_colors
from solo_d2.layers.images import resized_shape
from solo_d2.modeling.output import resize_masks
from solo_d2.web.bundle import PAGE

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Evaluate a body of JavaScript, with `data` and the page's modules, to what it returns."""
    folder = tmp_path_factory.mktemp("page")
    for file in PAGE.glob("*.js"):
        shutil.copy(file, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    names = ("resize", "masks", "refine", "draw")
    imports = "".join(f'import * as {name} from "./{name}.js";\n' for name in names)

    def run(body, data=None):
        program = (
            f'{imports}import {{ readFileSync }} from "node:fs";\n'
            'const data = JSON.parse(readFileSync(0, "utf8"));\n'
            "const plain = (_, x) => (ArrayBuffer.isView(x) ? [...x] : x);\n"
            f"process.stdout.write(JSON.stringify((() => {{ {body} }})(), plain));\n"
        )
        (folder / "program.js").write_text(program)
        done = subprocess.run(
            ["node", "program.js"],
            cwd=folder,
            input=json.dumps(data),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


SIZES = [((90, 130), (64, 92)), ((64, 96), (90, 135)), ((33, 57), (100, 57)), ((5, 7), (1, 2))]


def test_images_are_those_of_pillow_and_opencv(node):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 4), dtype=np.uint8) for size, _ in SIZES]
    data = [[x.ravel().tolist(), *size] for x, size in zip(images, SIZES, strict=True)]
    found = node(
        "return data.map(([x, size, output]) =>"
        " [resize.pillow, resize.opencv].map((f) => f(x, ...size, output)))",
        data,
    )
    for image, (_, output), results in zip(images, SIZES, found, strict=True):
        rgb = np.ascontiguousarray(image[..., :3])
        pillow = Image.fromarray(rgb).resize(output[::-1], Image.Resampling.BILINEAR)
        opencv = cv2.resize(rgb, output[::-1], interpolation=cv2.INTER_LINEAR)
        for expected, result in zip((np.asarray(pillow), opencv), results, strict=True):
            assert (np.array(result).reshape(*output, 4)[..., :3] == expected).all()


def test_the_network_sees_images_of_the_same_size(node):
    sizes = [(90, 130), (200, 50), (1, 3000), (481, 640), (96, 96)]
    models = [{"min_size": x, "max_size": 1333, "size": None} for x in (0, 96, 800)]
    found = node(
        "return data[1].map((m) => data[0].map((s) => resize.networkSize(...s, m)))",
        [sizes, models],
    )
    assert found == [
        [list(resized_shape(size, model["min_size"], 1333)) for size in sizes] for model in models
    ]
    fixed = {"size": [96, 128]}
    assert node("return resize.networkSize(300, 200, data)", fixed) == [96, 64]


@pytest.mark.parametrize(("order", "first"), [("RGB", 1), ("BGR", 3)])
def test_the_input_has_the_models_channels_and_padding(node, order, first):
    model = {"input_format": order, "resize_filter": "pillow", "pixel_mean": [7, 8, 9], "batch": 2}
    pixels = [1, 2, 3, 255, 11, 12, 13, 0]  # two pixels, of which alpha is left out
    found = node(
        "return resize.networkInput(data[0], 1, 2, [1, 2], [2, 3], data[1])", [pixels, model]
    )
    planes = np.array(found).reshape(2, 3, 2, 3)
    assert planes[0, 0].tolist() == [[first, first + 10, 7], [7, 7, 7]]
    assert planes[0, 1].tolist() == [[2, 12, 8], [8, 8, 8]]
    assert planes[1].tolist() == [[[x] * 3] * 2 for x in (7, 8, 9)]


def test_masks_are_those_of_the_model(node):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(5, 1, 6, 8, generator=generator)
    probs = torch.nn.functional.interpolate(coarse, (24, 32), mode="bilinear")[:, 0]
    probs[4] = 0.1  # nothing is left of it
    canvas, image, outputs = (96, 128), (90, 121), [(70, 110), (33, 20), (200, 301)]
    found = node(
        "return data.outputs.map((output) => {"
        " const f = masks.maskResizer([24, 32], data.canvas, data.image, output, 0.5);"
        " return data.probs.map(f); })",
        {"outputs": outputs, "canvas": canvas, "image": image, "probs": probs.flatten(1).tolist()},
    )
    for output, windows in zip(outputs, found, strict=True):
        expected, boxes = resize_masks(probs, canvas, image, output, 0.5)
        assert windows[4] is None
        for window, mask, box in zip(windows[:4], expected.numpy(), boxes.tolist(), strict=False):
            full = np.zeros(output, bool)
            x, y, width, height = (window[key] for key in ("x", "y", "width", "height"))
            full[y : y + height, x : x + width] = np.reshape(window["data"], (height, width))
            assert (full != mask).mean() < 1e-4
            assert [x, y, x + width, y + height] == box


def test_masks_along_edges_are_those_of_the_model(node):
    image, probs, expected = edge_case()
    found = node(
        "const f = refine.maskRefiner(data.input, [64, 96], data.mean, 0.5);"
        " return data.probs.map((x) => f(Float32Array.from(x)));",
        {"input": image.flatten().tolist(), "mean": MEAN, "probs": probs.flatten(1).tolist()},
    )
    check_refined(torch.tensor(found).view(expected.shape), expected)


def test_masks_in_files_are_those_of_pycocotools(node):
    rng = np.random.default_rng(0)
    places = [(0, 0, 6, 5), (0, 0, 3, 2), (3, 3, 6, 5), (0, 2, 6, 4), (2, 0, 4, 5), (1, 1, 2, 2)]
    data, expected = [], []
    for repeat in (1, 1, 40):
        for y0, x0, y1, x1 in places:
            part = rng.integers(0, 2, (y1 - y0, x1 - x0), dtype=np.uint8)
            part[0, 0] = part[-1, -1] = 1
            part, size = part.repeat(repeat, 0).repeat(repeat, 1), (6 * repeat, 5 * repeat)
            y, x, height, width = y0 * repeat, x0 * repeat, *part.shape
            window = {"x": x, "y": y, "width": width, "height": height}
            data.append([{**window, "data": part.ravel().tolist()}, size])
            mask = np.zeros(size, np.uint8, order="F")
            mask[y : y + height, x : x + width] = part
            expected.append(coco.encode(mask)["counts"].decode())
    assert node("return data.map((x) => masks.encodeRle(...x))", data) == expected


def test_colours_are_those_of_the_package(node):
    found = node("return Array.from({length: 30}, (_, i) => draw.colorOf(i))")
    assert (np.array(found) == instance_colors(range(30))[:, ::-1]).all()


def test_small_instances_are_drawn_over_large_ones(node):
    found = node(
        "const context = { canvas: { width: 4, height: 3 },"
        " createImageData: (width, height) =>"
        " ({ width, data: new Uint8ClampedArray(4 * width * height) }),"
        " putImageData(image) { this.image = image; } };"
        "const box = (number, width) => ({ number, window: { x: 1, y: 1, width, height: 2,"
        " data: new Uint8Array(2 * width).fill(1) } });"
        "const top = draw.drawInstances(context, [box(0, 1), box(5, 3)], null);"
        "return [top, context.image.data.subarray(4 * 5, 4 * 6)];"
    )
    assert np.reshape(found[0], (3, 4)).tolist() == [[-1] * 4, [-1, 0, 5, 5], [-1, 0, 5, 5]]
    assert found[1] == [*instance_colors([0])[0, ::-1].tolist(), 220]
