"""The benchmark of mattes on a tiny dataset and untrained models."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import SOFT, noise_input, tiny_config, tiny_model
from detectron2 import model_zoo as detectron2_zoo
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances
from PIL import Image

from solo_d2.evaluation.matting_metrics import METRICS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import _matting_tables
import _trimaps
from _matting_oracles import OracleMeter
from _soft_masks import keep_soft_masks

# Under a name of its own: there is a demo/matting.py, too.
spec = importlib.util.spec_from_file_location(
    "matting_baselines", Path(_trimaps.__file__).with_name("matting.py")
)
matting_baselines = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = matting_baselines
spec.loader.exec_module(matting_baselines)

LIVELY = ("MODEL.SOLO.PRIOR_PROB", 0.5, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0)
LIVELY += ("MODEL.SOLO.MASK_THRESH_TEST", 0.4, "TEST.DETECTIONS_PER_IMAGE", 20)
SIZE = (64, 96)


def soft_disc(x, y=32, radius=14):
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.clip((radius - np.hypot(v - y, u - x)) / 6 + 0.5, 0, 1)


@pytest.fixture
def data(tmp_path):
    """Two images with one soft disc each, red on blue."""
    (tmp_path / "val").mkdir()
    (tmp_path / "alpha").mkdir()
    (tmp_path / "annotations").mkdir()
    images, annotations = [], []
    for number, x in ((1, 40), (2, 60)):
        matte = soft_disc(x)
        picture = matte[..., None] * (200, 20, 0) + (1 - matte[..., None]) * (0, 40, 180)
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "val" / f"{number}.png")
        file = f"alpha/{number}.png"
        Image.fromarray(np.rint(matte * 255).astype(np.uint8)).save(tmp_path / file)
        images.append(
            {"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]}
        )
        box = [x - 14, 18, 28, 28]
        polygon = [x - 14, 18, x + 14, 18, x + 14, 46, x - 14, 46]
        annotations.append(
            {
                **{"id": number, "image_id": number, "category_id": 1 + number, "iscrowd": 0},
                **{"bbox": box, "area": 784, "segmentation": [polygon]},
                "alpha": {"file_name": file},
            }
        )
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": k, "name": f"class {k}"} for k in (1, 2, 3)]
    (tmp_path / "annotations" / "val.json").write_text(json.dumps(content))
    yield tmp_path
    if matting_baselines.DATA in DatasetCatalog:
        DatasetCatalog.remove(matting_baselines.DATA)
    MetadataCatalog.pop(matting_baselines.DATA, None)


def write_model(folder, name, *overrides):
    cfg = tiny_config(*LIVELY, *overrides, "INPUT.MIN_SIZE_TEST", 64)
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / f"{name}.pth")
    (folder / f"{name}.yaml").write_text(cfg.dump())
    return [str(folder / f"{name}.yaml"), str(folder / f"{name}.pth")]


def run(data, *more):
    line = ["--data", data, "--device", "cpu", "--score-threshold", 0.05, *more]
    return matting_baselines.main([str(word) for word in line])


def rows_of(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines[2:]}


# Soft masks of plain SOLO


# The decoupled head multiplies two probabilities, here after they are enlarged.
@pytest.mark.parametrize(
    ("head", "threshold", "tolerance"),
    [("DynamicSOLOHead", 0.4, 1e-4), ("DecoupledSOLOHead", 0.24, 1e-2)],
)
def test_soft_masks_are_the_probabilities_of_the_masks(head, threshold, tolerance):
    overrides = (*LIVELY, "MODEL.SOLO.HEAD", head, "MODEL.SOLO.MASK_THRESH_TEST", threshold)
    inputs = [{**noise_input((64, 90)), "height": 128, "width": 180}]
    with torch.no_grad():
        plain = tiny_model(*overrides).eval()(inputs)[0]["instances"]
        model = tiny_model(*overrides).eval()
        keep_soft_masks(model)
        soft = model(inputs)[0]["instances"]
    assert len(soft) > 2
    for name in ("pred_masks", "scores", "pred_classes"):
        assert torch.equal(soft.get(name), plain.get(name))
    assert soft.pred_mattes.shape == (len(soft), 128, 180)
    # Both are bilinear twice, so that the threshold of one is the mask of the other.
    wrong = (soft.pred_mattes > threshold) != soft.pred_masks
    assert float(wrong.float().mean()) < tolerance


# Trimap methods


def test_a_trimap_is_the_truth_outside_of_the_unknown():
    target = soft_disc(40)
    unknown = (target > 0) & (target < 1)
    trimap = _trimaps.make_trimap(target, unknown)
    assert set(np.unique(trimap)) == {0, 0.5, 1}
    assert np.array_equal(trimap[~unknown], target[~unknown])
    rows, columns = _trimaps.crop_around(unknown, trimap, 3)
    inside = np.zeros(SIZE, bool)
    inside[rows, columns] = True
    assert inside[unknown].all() and inside.sum() < inside.size
    assert _trimaps.crop_around(target > 0, np.where(target > 0, 0.5, 0), 3) is None


def test_a_solver_that_fails_leaves_the_trimap(monkeypatch):
    class Module:
        @staticmethod
        def estimate_alpha_cf(image, trimap):
            raise ValueError("Conjugate gradient descent did not converge")

    monkeypatch.setattr(_trimaps, "load_pymatting", lambda name: Module)
    trimap = np.full((4, 4), 0.5)
    matte, converged = _trimaps.solve("closed-form", np.zeros((4, 4, 3)), trimap)
    assert matte is trimap and not converged


@pytest.mark.slow  # the first import of pymatting compiles for a minute
@pytest.mark.parametrize("method", ["closed-form", "random walk", "kNN"])
def test_trimap_methods_find_the_edge_of_a_plain_object(data, method):
    pytest.importorskip("pymatting")
    target = soft_disc(40)
    image = np.array(Image.open(data / "val" / "1.png")) / 255.0
    unknown = (target > 0) & (target < 1)
    matte, converged = _trimaps.solve(method, image, _trimaps.make_trimap(target, unknown))
    assert converged
    assert np.abs(matte - target)[unknown].mean() < 0.6 * np.abs(0.5 - target)[unknown].mean()


# The command


def test_all_tables_are_printed_with_the_papers_numbers(data, capsys, monkeypatch):
    class Half:
        """Every method answers one half."""

        def __getattr__(self, name):
            return lambda image, trimap: trimap

    monkeypatch.setattr(_trimaps, "load_pymatting", lambda name: Half())
    monkeypatch.setattr(matting_baselines, "load_pymatting", lambda name: Half())
    soft = write_model(data, "soft", *SOFT)
    plain = write_model(data, "plain")
    code = run(
        data,
        *("--soft", *soft, "--solo", *plain, "--solo-tuned", *plain, "--radius", 3),
        *("--ablation", "mae", *soft, "--trimap-images", 1, "--output", data / "new" / "t.md"),
        "--oracles",
    )
    text = capsys.readouterr().out
    assert code == 0
    assert (data / "new" / "t.md").read_text() == text[:-1]
    first, parts, second, third, fourth = (rows_of(x) for x in text.split("###")[1:])
    assert first["SOLOv2, masks"][2:] == ["12.13", "12.06"]
    assert first["SOLOv2, masks"][:2] == first["SOLOv2*, masks"][:2]  # the same model
    assert first["SOLOv2, soft masks"][2:] == ["–", "–"]
    assert first["**Soft SOLO**, mattes"][2:] == ["7.06", "9.24"]
    assert parts["soft, mattes"][0] == first["**Soft SOLO**, mattes"][0]
    assert len(second) == len(_trimaps.METHODS) + 2
    assert second["trimap + kNN"][4:] == ["25.67", "5.66", "8.51", "5.29"]
    assert "1 objects of 1 images" in text
    assert third["LFM (paper)"][:4] == ["–"] * 4
    assert fourth["**Soft SOLO**"][:4] == fourth["MAE alone"][:4]  # the same model
    assert fourth["MAE alone"][4:] == ["38.31", "5.15", "11.26", "5.02"]
    assert "2 images with 2 objects" in text


def test_oracles_take_one_kind_of_error_away_each(data):
    matting_baselines.register_coco_json(
        matting_baselines.DATA, data / "annotations" / "val.json", data / "val"
    )
    records = DatasetCatalog.get(matting_baselines.DATA)
    meter = OracleMeter(matting_baselines.DATA, 0.3, radius=2)
    # Of the first image the object is found, at twice its opacity and with a hole, beside a
    # rectangle of its class; the second image's object is missed: one of the first's place and
    # another class is false.
    guess = np.clip(2 * soft_disc(40), 0, 1)
    guess[30:34, 38:42] = 0
    for record, labels in zip(records, ((1, 1), (1,)), strict=True):
        found = Instances(SIZE)
        found.scores = torch.tensor([0.9, 0.8])[: len(labels)]
        found.pred_classes = torch.tensor(labels)
        mattes = torch.zeros(len(labels), *SIZE)
        mattes[0] = torch.from_numpy(guess)
        mattes[1:, :10, :10] = 1.0
        found.pred_mattes = mattes
        meter.process(record, found)
    assert (meter.false, meter.missed) == (2, 1)
    errors = {name: 1e-3 * results["SOFI_MSE"] for name, results in meter.read()}
    matte, other = soft_disc(40), soft_disc(60)
    wrong = ((guess - matte) ** 2).mean()
    rectangle = (
        (matte - np.pad(np.ones((10, 10)), ((0, SIZE[0] - 10), (0, SIZE[1] - 10)))) ** 2
    ).mean()
    alien, missed = (guess**2).mean(), (other**2).mean()
    # Two classes of the truth, two images; each error counts from both sides.
    assert errors["as found"] == pytest.approx(
        (wrong + (wrong + rectangle) / 2 + alien + missed) / 4, rel=1e-2
    )
    assert errors["no false predictions"] == pytest.approx((2 * wrong + missed) / 4, rel=1e-2)
    hole = 16 / matte.size  # of which no pixel is near the edge
    assert errors["true edges"] == pytest.approx(
        (hole + (hole + rectangle) / 2 + alien + missed) / 4, rel=1e-2
    )
    assert errors["true mattes"] == pytest.approx((rectangle / 2 + alien + missed) / 4, rel=1e-2)
    assert errors["both"] == pytest.approx(missed / 4, rel=1e-2)


def write_rcnn(folder, name, config, *overrides):
    """A Mask R-CNN of the least size, whose proposals and boxes are all kept."""
    cfg = matting_baselines.load_any_config(config)
    small = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.DEPTH", 18]
    small += ["MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "INPUT.MIN_SIZE_TEST", 64]
    small += ["MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0]
    cfg.merge_from_list([*small, "TEST.DETECTIONS_PER_IMAGE", 5, *overrides])
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / f"{name}.pth")
    (folder / f"{name}.yaml").write_text(cfg.dump())
    return [str(folder / f"{name}.yaml"), str(folder / f"{name}.pth")]


def test_any_model_of_detectron2_has_a_row_beside_the_papers(data, capsys):
    rcnn = detectron2_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    mask = write_rcnn(data, "mask", rcnn)
    point = write_rcnn(data, "point", rcnn, "MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead",
        "MODEL.ROI_MASK_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.NUM_FC", 1,
        "MODEL.ROI_MASK_HEAD.POOLER_TYPE", "", "MODEL.ROI_MASK_HEAD.IN_FEATURES", ["p2"],
        "MODEL.ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION", 7, "MODEL.POINT_HEAD.NUM_CLASSES", 3,
        "MODEL.POINT_HEAD.IN_FEATURES", ["p2"], "MODEL.POINT_HEAD.FC_DIM", 32,
        "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON", True)  # fmt: skip
    others = [("Mask R-CNN", *mask), ("mine", *point)]
    words = [word for other in others for word in ("--other", *other)]
    assert run(data, *words, "--trimap-images", 0) == 0
    first, third = (rows_of(part) for part in capsys.readouterr().out.split("###")[1:])
    assert first["Mask R-CNN, masks"][2:] == ["24.70", "22.99"]
    assert "Mask R-CNN (paper)" not in first and "PointRend (paper)" in first
    assert first["mine, masks"][2:] == ["–", "–"]
    for name in ("Mask R-CNN, masks", "mine, masks"):
        assert all(float(x) > 0 for x in first[name][:2] + third[name][:4])


def test_perfect_trimap_answers_have_no_error(data, monkeypatch):
    targets = iter([soft_disc(40), soft_disc(60)])

    class Oracle:
        def __getattr__(self, name):
            target = np.rint(next(targets) * 255) / 255
            return lambda image, trimap: target[place]

    place = (slice(None), slice(None))
    monkeypatch.setattr(_trimaps, "load_pymatting", lambda name: Oracle())
    monkeypatch.setattr(_trimaps, "MARGIN", 100)  # so that the crop is the whole image
    matting_baselines.register_coco_json(
        matting_baselines.DATA, data / "annotations" / "val.json", data / "val"
    )
    records = DatasetCatalog.get(matting_baselines.DATA)
    rows, failed = _trimaps.trimap_errors(records, ["kNN"], radius=2)
    assert [row["image_id"] for row in rows["kNN"]] == [1, 2] and failed == {"kNN": 0}
    for row in rows["kNN"]:
        assert [row[key] for key in METRICS] == pytest.approx([0] * 4, abs=1e-7)


def test_paper_and_own_columns_have_the_same_order():
    for paper in (_matting_tables.PAPER_S2, _matting_tables.PAPER_S3, _matting_tables.PAPER_S4):
        assert {len(numbers) for numbers in paper.values()} == {len(METRICS)}


def test_bad_use_is_named(data, capsys):
    soft = write_model(data, "soft", *SOFT)
    cases = {
        ("--trimap-images", 0): "nothing to measure",
        ("--trimap-images", -1): "--trimap-images must be 0 or more, got -1",
        ("--solo", *soft): "a SoftSOLO model, the row 'solo' wants SOLO",
        ("--ablation", "rgb", *soft): "--ablation rgb: choose from no-rgb",
        ("--other", "soft", *soft): "--other soft: the name of another row",
        ("--soft", *soft, "--images", 0): "--images must be at least 1, got 0",
        ("--soft", *soft, "--split", "test", "--trimap-images", 0): "test.json: no such file",
    }
    for arguments, message in cases.items():
        assert run(data, *arguments) == 2
        assert message in capsys.readouterr().err
    other = ["MODEL.SOLO.NUM_CLASSES", 5]
    assert run(data, "--soft", *soft, "--trimap-images", 0, *other) == 2
    assert "the dataset matting_benchmark has 3 classes, the model has 5" in capsys.readouterr().err
