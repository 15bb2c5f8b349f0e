"""The visualisation tools as a user calls them, on small models and images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import _drawing
import plot_losses
import plot_speed_accuracy
import visualize_cells
import visualize_data
import visualize_mask_features

from solo_d2 import SOLOPredictor
from solo_d2.data.scenes.build import build
from solo_d2.data.scenes.shapes import ShapesSource
from solo_d2.io.image import read_image
from solo_d2.model_zoo.model_zoo import load_config

CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "Shapes" / "solov2_lite0.yaml")
SMALL = ["MODEL.TIMM.WEIGHTS", "", "INPUT.MIN_SIZE_TEST", "64", "INPUT.MIN_SIZE_TRAIN", "(64,)"]
SMALL += ["MODEL.SOLO.KERNEL_DIM", "32"]
SEPARATE = ["MODEL.SOLO.MASK_FEATURE.TYPE", "separate"]
GROUPS = ["MODEL.SOLO.HEAD", "DecoupledDynamicSOLOHead", "MODEL.SOLO.NUM_KERNEL_GROUPS", "2"]
GROUPS += ["MODEL.SOLO.KERNEL_DIM", "64"]
NO_KERNELS = ["MODEL.SOLO.KERNEL_DIM", "256", "MODEL.SOLO.MASK_FEATURE.CONV_DIM", "128"]  # defaults
VANILLA = ["MODEL.SOLO.HEAD", "VanillaSOLOHead", *NO_KERNELS]
DECOUPLED = ["MODEL.SOLO.HEAD", "DecoupledSOLOHead", *NO_KERNELS]
GAP, CAPTION = _drawing.GAP, _drawing.CAPTION
YELLOW = cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    build(ShapesSource((64, 90)), root, train=5, val=1, workers=1, progress=False)
    return root


@pytest.fixture
def picture(shapes):
    return next(iter(sorted((shapes / "val").iterdir())))  # 64x90: padded by 6 columns


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    model = build_model(load_config(CONFIG, [*SMALL, "MODEL.DEVICE", "cpu"]))
    torch.save({"model": model.state_dict()}, path)
    return str(path)


def tiles_of(path, height, width, columns):
    """All tiles of an image, without captions, in rows."""
    drawn = cv2.imread(str(path))
    step_y, step_x = height + CAPTION + GAP, width + GAP
    assert drawn.shape[1] == columns * step_x + GAP
    assert (drawn.shape[0] - GAP) % step_y == 0
    rows = range((drawn.shape[0] - GAP) // step_y)
    return [
        drawn[y * step_y + GAP + CAPTION :, x * step_x + GAP :][:height, :width]
        for y in rows
        for x in range(columns)
    ]


def call(tool, *arguments):
    return tool.main(["--config-file", CONFIG, "--device", "cpu", *map(str, arguments)])


def last_error(capsys):
    error = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(error)
    return error[-1]


# Mask features


def test_every_channel_of_the_mask_feature_is_a_tile(picture, weights, tmp_path, capsys):
    output = tmp_path / "new" / "channels.png"
    shared = ["--weights", weights, "--input", picture, "--output", output]
    code = call(visualize_mask_features, *shared, "--tile-width", "92", *SMALL)
    assert code == 0
    assert "32 of 32 channels of 23x16" in capsys.readouterr().out  # 90x64 at stride 4
    tiles = tiles_of(output, 64, 92, columns=6)
    assert len(tiles) == 36 and all((tile == 255).all() for tile in tiles[32:])
    predictor = SOLOPredictor(load_config(CONFIG, SMALL), weights=weights, device="cpu")
    model, image = predictor.model, read_image(picture)
    with torch.no_grad():
        rgb = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)
        features = model.backbone(model.preprocess_image([{"image": rgb}]).tensor)
        expected = model.head(features).mask_inputs.features[0].all[0, :, :16, :23]
    varied = [c for c in range(32) if expected[c].max() > expected[c].min()]
    assert len(varied) > 8
    for channel in varied:  # every cell of the map is a square of four pixels
        y, x = divmod(int(expected[channel].argmax()), 23)
        assert (tiles[channel][4 * y + 1, 4 * x + 1] == YELLOW).all()


def test_chosen_channels_and_levels(picture, tmp_path, capsys):
    output = tmp_path / "channels.jpg"
    arguments = ["--input", picture, "--output", output, "--columns", "3", "--channels", "5", "0"]
    arguments += ["--tile-width", "40"]
    assert call(visualize_mask_features, *arguments, "--level", "2", *SMALL, *SEPARATE) == 0
    assert "2 of 32 channels of 6x4" in capsys.readouterr().out  # level 2 has stride 16
    assert cv2.imread(str(output)).shape[1] == 3 * 44 + GAP
    assert call(visualize_mask_features, *arguments, *SMALL, *GROUPS) == 0
    assert "2 of 32 channels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (VANILLA, "VanillaSOLOHead has no mask feature; use a config with DynamicSOLOHead"),
        (DECOUPLED, "DecoupledSOLOHead has no mask feature"),
        (["--channels", "32"], "--channels must lie in [0, 32), got [32]"),
        (["--level", "0"], "one mask feature for all levels"),
        (["--level", "5", *SEPARATE], "--level must lie in [0, 5), got 5"),
        (["--tile-width", "2"], "--tile-width must be at least 8"),
        (["--output", "x.txt"], "--output x.txt: expected a name with .png or .jpg"),
        (["--input", "no/such.png"], "no/such.png"),
        (["--weights", "no/such.pth"], "no/such.pth"),
    ],
)
def test_mask_features_refuse_what_they_cannot_draw(arguments, said, picture, tmp_path, capsys):
    options = [x for x in arguments if x not in (*VANILLA, *DECOUPLED, *SEPARATE)]
    keys = arguments[len(options) :]
    shared = ["--input", picture, "--output", tmp_path / "x.png"]
    assert call(visualize_mask_features, *shared, *options, *SMALL, *keys) == 2
    assert said in last_error(capsys)


# Cells


@pytest.mark.parametrize("head", [[], SEPARATE, GROUPS, VANILLA, DECOUPLED], ids=str)
def test_cells_of_every_head(head, picture, tmp_path, capsys):
    output = tmp_path / "cells.png"
    torch.manual_seed(0)
    assert call(visualize_cells, "--input", picture, "--output", output, *SMALL, *head) == 0
    assert "13 tiles" in capsys.readouterr().out  # five levels and the eight best cells
    tiles = tiles_of(output, 64, 90, columns=4)
    assert all(tile.std() > 0 for tile in tiles[:13])
    assert all((tile == 255).all() for tile in tiles[13:])


def test_a_chosen_cell_is_outlined_where_it_lies(picture, weights, tmp_path):
    output = tmp_path / "cells.png"
    arguments = ["--weights", weights, "--input", picture, "--output", output, "--class", "1"]
    assert call(visualize_cells, *arguments, "--cells", "4:3:1", "4:7:0", *SMALL) == 0
    tiles = tiles_of(output, 64, 90, columns=3)
    assert len(tiles) == 9 and (tiles[7] == 255).all()
    # The grid of 8x8 cells covers the padded canvas of 64x96: cells of 8 rows and 12 columns.
    for tile, (top, left) in ((tiles[5], (24, 12)), (tiles[6], (56, 0))):
        red = (tile == visualize_cells.RED).all(2)
        rows, columns = np.nonzero(red)
        assert (rows.min(), rows.max()) == (top, top + 7)
        assert (columns.min(), columns.max()) == (left, left + 11)


def test_captions_have_the_names_of_classes(picture, weights, tmp_path):
    pictures = []
    for names in ("circle square triangle star ring", "a b c d e"):
        (tmp_path / "names.txt").write_text(names.replace(" ", "\n"))
        output = tmp_path / "cells.png"
        arguments = ["--weights", weights, "--input", picture, "--output", output, "--top", "1"]
        arguments += ["--class-names", tmp_path / "names.txt"]
        assert call(visualize_cells, *arguments, *SMALL) == 0
        pictures.append(cv2.imread(str(output)))
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cells", "0:1"], "--cells 0:1: expected LEVEL:ROW:COLUMN"),
        (["--cells", "5:0:0"], "--cells 5:0:0: the levels are 0 to 4"),
        (["--cells", "4:8:0"], "--cells 4:8:0: level 4 has 8x8 cells, got (8, 0)"),
        (["--top", "0"], "--top must be at least 1, got 0"),
        (["--class", "5"], "--class must lie in [0, 5), got 5"),
        (["--class-names", "no/such.txt"], "no/such.txt"),
        (["MODEL.SOLO.NO_KEY", "1"], "NO_KEY"),
    ],
)
def test_cells_refuse_what_they_cannot_draw(arguments, said, picture, tmp_path, capsys):
    shared = ["--input", picture, "--output", tmp_path / "x.png"]
    options = arguments if arguments[0].startswith("--") else []
    keys = [] if options else arguments
    assert call(visualize_cells, *shared, *options, *SMALL, *keys) == 2
    assert said in last_error(capsys)


# Training data


def draw_data(output, *arguments):
    given = ["--config-file", CONFIG, "--output", str(output), *map(str, arguments)]
    return visualize_data.main(given)


def test_training_data_is_drawn_the_same_with_the_same_seed(shapes, tmp_path, capsys):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        arguments = ["--shapes", shapes, "--count", "3", "--seed", seed]
        assert draw_data(tmp_path / f"{name}.png", *arguments, *SMALL) == 0
        assert "3 images" in capsys.readouterr().out
    tiles = tiles_of(tmp_path / "a.png", 64 * 7, 90 * 7, columns=2)  # enlarged to 400 or more
    assert all(tile.std() > 0 for tile in tiles[:3]) and (tiles[3] == 255).all()
    first, second, third = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == second != third


def test_own_data_is_drawn_with_the_cells_assigned_to_it(tmp_path):
    """One square of 32 pixels in the middle of 64x64: which cells learn it is known."""
    cv2.imwrite(str(tmp_path / "square.png"), np.full((64, 64, 3), 90, np.uint8))
    box = [16, 16, 48, 16, 48, 48, 16, 48]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1024}
    annotation.update(bbox=[16, 16, 32, 32], segmentation=[box])
    data = {
        "images": [{"id": 1, "file_name": "square.png", "height": 64, "width": 64}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "square"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    own = ["--train-json", tmp_path / "data.json", "--train-images", tmp_path, "--count", "1"]
    ranges = "[[1, 8], [1, 8], [1, 8], [1, 8], [30, 40]]"
    keys = ["MODEL.SOLO.SCALE_RANGES", ranges, "MODEL.SOLO.NUM_GRIDS", "[4, 4, 4, 4, 4]"]
    assert draw_data(tmp_path / "data.png", *own, *SMALL, *keys) == 0
    (tile,) = tiles_of(tmp_path / "data.png", 448, 448, columns=1)  # seven times as large
    # The centre region reaches 3.2 pixels to both sides of 32, a border of the 4x4 cells: the
    # four cells around it are assigned. Their outlines, white, span pixels 16 to 48.
    white = (tile > 250).all(2)
    rows, columns = np.nonzero(white[104:])  # below the name of the class
    assert abs(columns.min() - 16 * 7) <= 2 and abs(columns.max() - 48 * 7) <= 2
    assert abs(rows.max() + 104 - 48 * 7) <= 2
    middle = white[180:200, 224 - 4 : 224 + 4]
    assert middle.any(1).all()  # the border between them


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shapes", "no/such"], "no shapes dataset in no/such"),
        (["--count", "0"], "--count must be at least 1, got 0"),
        (["--train-json", "a.json"], "--train-images go together"),
        (["--output", "data"], "--output data: expected a name with .png or .jpg"),
    ],
)
def test_training_data_refuses_what_it_cannot_draw(arguments, said, tmp_path, capsys):
    assert draw_data(tmp_path / "x.png", *arguments, *SMALL) == 2
    assert said in last_error(capsys)


# Loss curves


def write_run(folder, count, resumed=()):
    folder.mkdir()
    records = [{"iteration": i, "loss_mask": 3.0 - i, "loss_category": 1.0} for i in range(count)]
    lines = [json.dumps(x) for x in [*records, {"iteration": 0, "segm/AP": 5.0}, *resumed]]
    (folder / "metrics.json").write_text("\n".join(lines))
    return str(folder)


def test_losses_of_several_runs_are_plotted(tmp_path, capsys):
    runs = [write_run(tmp_path / name, count) for name, count in (("one", 3), ("two", 2))]
    output = tmp_path / "new" / "losses.png"
    code = plot_losses.main(["first=" + runs[0], runs[1], "--output", str(output)])
    assert code == 0 and "2 runs, loss_category, loss_mask" in capsys.readouterr().out
    drawn = cv2.imread(str(output))
    assert drawn.shape[1] > 2 * drawn.shape[0]  # two panels
    for color in ((0xB4, 0x77, 0x1F), (0x0E, 0x7F, 0xFF)):  # of the first two lines
        assert ((drawn == color).all(2)).sum() > 100
    assert plot_losses.find_log("first=" + runs[0])[0] == "first"
    assert plot_losses.find_log(runs[1])[0] == "two"


def plotted(monkeypatch, *arguments):
    """The lines of the first panel, and the name of its axis."""
    axes = []
    monkeypatch.setattr(
        plot_losses.plt.Figure, "savefig", lambda figure, *_, **__: axes.extend(figure.axes)
    )
    assert plot_losses.main(list(arguments)) == 0
    return axes[0].lines, axes[0].get_xlabel()


@pytest.mark.parametrize(("count", "marker"), [(1, "o"), (20, "o"), (21, "None")])
def test_few_evaluations_are_points_as_one_makes_no_line(tmp_path, monkeypatch, count, marker):
    run = write_run(tmp_path / "one", count)
    lines, name = plotted(monkeypatch, run, "--keys", "loss_mask")
    assert lines[0].get_marker() == marker
    assert name == "iteration"


def test_the_axis_counts_epochs_if_asked(tmp_path, monkeypatch):
    run = write_run(tmp_path / "one", 3)
    options = ("--keys", "loss_mask", "--iterations-per-epoch", "0.5")
    lines, name = plotted(monkeypatch, run, *options)
    assert lines[0].get_xdata().tolist() == [0, 2, 4]
    assert name == "epoch"


def test_the_quick_starts_log_is_found_before_its_summary(tmp_path):
    folder = write_run(tmp_path / "demo", 2)
    Path(folder, "metrics.json").rename(Path(folder, "metrics_log.json"))
    Path(folder, "metrics.json").write_text('{\n "segm": {}\n}')
    assert plot_losses.find_log(folder) == ("demo", Path(folder, "metrics_log.json"))


def test_a_resumed_run_replaces_what_it_did_again(tmp_path):
    again = [{"iteration": 1, "loss_mask": 9.0}, {"iteration": 4, "loss_mask": 8.0}]
    path = Path(write_run(tmp_path / "run", 3, again), "metrics.json")
    iterations, losses = plot_losses.read_curves(path, ["loss_mask"])["loss_mask"]
    assert iterations.tolist() == [0, 1, 2, 4]
    assert losses.tolist() == [3.0, 9.0, 1.0, 8.0]


def test_smoothing_is_a_mean_over_what_came_before():
    values = np.array([2.0, 4.0, 9.0, 1.0])
    assert plot_losses.smooth(values, 1).tolist() == values.tolist()
    assert plot_losses.smooth(values, 2).tolist() == [2.0, 3.0, 6.5, 5.0]
    assert plot_losses.smooth(values, 9).tolist() == [2.0, 3.0, 5.0, 4.0]


def test_losses_refuse_what_is_no_log(tmp_path, capsys):
    run = write_run(tmp_path / "run", 2)
    (tmp_path / "bad.json").write_text("[1]")
    for arguments, said in (
        (["no/such"], "no/such: no such file, and no folder with metrics_log.json"),
        ([str(tmp_path / "bad.json")], "expected a JSON object with an iteration in every line"),
        ([run, "--keys", "loss_x"], "has no loss_x; name others with --keys"),
        ([run, "--smooth", "0"], "--smooth must be at least 1"),
        ([run, "--iterations-per-epoch", "0"], "--iterations-per-epoch must be above 0"),
        ([run, "--output", "x.gif"], "expected a name with .png or .jpg"),
    ):
        assert plot_losses.main(arguments) == 2
        assert said in last_error(capsys)


# Speed and accuracy


def test_speed_and_accuracy_of_csv_and_json(tmp_path, capsys):
    table = "name,AP,ms,fps,group\nlight, 34.0,,50,ours\nfull,38.8,60,,ours\nother,37,90,,\n"
    (tmp_path / "a.csv").write_text(table)
    (tmp_path / "b.json").write_text(json.dumps([{"name": "x", "AP": 30, "fps": 4}]))
    entries = plot_speed_accuracy.read_entries(tmp_path / "a.csv")
    assert entries[0] == ("light", 34.0, 20.0, "ours")  # 50 a second are 20 ms
    assert entries[2] == ("other", 37.0, 90.0, "")
    pictures = []
    for axis in ("ms", "fps"):
        output = tmp_path / f"{axis}.png"
        files = [str(tmp_path / "a.csv"), str(tmp_path / "b.json")]
        assert plot_speed_accuracy.main([*files, "--x", axis, "--output", str(output)]) == 0
        assert "4 models" in capsys.readouterr().out
        pictures.append(cv2.imread(str(output)))
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()
    blue = (pictures[0] == (0xB4, 0x77, 0x1F)).all(2)  # the group that is joined by a line
    assert blue.any(0).sum() > 100


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "name,AP,ms\n", "has no entries"),
        ("a.csv", "name,ms\nx,3\n", "entry 1: expected name and AP, got name, ms"),
        ("a.csv", "name,AP,ms\nx,high,3\n", "entry 1: AP is not a number: 'high'"),
        ("a.csv", "name,AP\nx,3\n", "entry 1: fps is not a number: None"),
        ("a.json", '[{"name": "x", "AP": 3, "ms": 0}]', "entry 1: ms must be positive, got 0"),
        ("a.json", '[{"name": "x", "AP": NaN, "ms": 1}]', "entry 1: AP must be finite"),
        ("a.json", '{"name": "x"}', "expected a list of objects"),
        ("a.json", "nothing", "cannot be read"),
    ],
)
def test_speed_and_accuracy_refuse_bad_files(name, text, said, tmp_path, capsys):
    (tmp_path / name).write_text(text)
    assert plot_speed_accuracy.main([str(tmp_path / name)]) == 2
    assert said in last_error(capsys)


def test_box_and_mask_ap_of_the_same_files(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("name,segm/AP,bbox/AP,ms\nfull,38.8,40.4,60\n")
    results = [{"name": "x", "segm": {"AP": 30}, "bbox": {"AP": 33, "AP50": 50}, "fps": 4}]
    (tmp_path / "b.json").write_text(json.dumps(results))
    read, pictures = plot_speed_accuracy.read_entries, []
    for metric, (first, second) in {"segm/AP": (38.8, 30), "bbox/AP": (40.4, 33)}.items():
        assert read(tmp_path / "a.csv", metric)[0].accuracy == first
        assert read(tmp_path / "b.json", metric)[0].accuracy == second
        output = tmp_path / "boxes.png"
        files = [str(tmp_path / "a.csv"), str(tmp_path / "b.json")]
        command = [*files, "--metric", metric, "--output", str(output)]
        assert plot_speed_accuracy.main(command) == 0
        pictures.append(cv2.imread(str(output)))
    assert (pictures[0] != pictures[1]).any()
    assert plot_speed_accuracy.label_of("bbox/AP50") == "box AP50"
    assert plot_speed_accuracy.label_of("AP") == "AP"
    capsys.readouterr()
    assert plot_speed_accuracy.main([str(tmp_path / "a.csv"), "--metric", "bbox/AP75"]) == 2
    assert "expected name and bbox/AP75, got name, segm/AP, bbox/AP, ms" in last_error(capsys)


def test_tiles_of_any_sizes_are_arranged_in_rows():
    small, large = np.zeros((2, 3, 3), np.uint8), np.full((5, 4, 3), 7, np.uint8)
    drawn = _drawing.tile([small, large, small], columns=2)
    assert drawn.shape == (2 * (5 + GAP) + GAP, 2 * (4 + GAP) + GAP, 3)
    assert (drawn[GAP : GAP + 2, GAP : GAP + 3] == 0).all()
    assert (drawn[GAP : GAP + 5, 2 * GAP + 4 : 2 * GAP + 8] == 7).all()
    assert (drawn == 0).all(2).sum() == 2 * 6 and (drawn == 7).all(2).sum() == 20
