"""Soft SOLO trains on mattes, mixed with masks; mattes are measured where asked for."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from builders import SOFT, tiny_config
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from PIL import Image

from solo_d2.data.arguments import register_named_data
from solo_d2.data.scenes.compose import Layer, compose
from solo_d2.data.scenes.writer import SceneSplit, write_dataset
from solo_d2.engine import SOLOTrainer, argument_parser, setup
from solo_d2.engine.prepare import add_training_data, use_data
from solo_d2.modeling import SoftSOLO


def make_scene(i):
    y, x = np.mgrid[:40, :40] - 19.5
    alpha = np.clip((19 - np.hypot(x, y)) / 8, 0, 1).astype(np.float32)
    rgba = np.repeat(alpha[..., None], 4, axis=2)
    return compose(np.zeros((64, 96, 3), np.uint8), [Layer(rgba, 5 + 10 * i, 10, i % 3)])


@pytest.fixture
def matting_set(tmp_path):
    """A folder as the composer writes it; what a test registers goes away."""
    before = set(DatasetCatalog.list())
    splits = [SceneSplit(s, 3, make_scene, ["a", "b", "c"], alpha=True) for s in ("train", "val")]
    write_dataset(tmp_path / "set", {}, splits, workers=1, progress=False)
    yield tmp_path / "set"
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def config(matting_set, *overrides):
    args = argument_parser().parse_args(["--matting", str(matting_set)])
    cfg = tiny_config(
        "DATALOADER.NUM_WORKERS", 0, "INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64,
        "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 2, "SOLVER.BASE_LR", 0.001, *overrides,
    )  # fmt: skip
    use_data(cfg, register_named_data(args, panoptic=False))
    return cfg


def first_instances(cfg):
    return next(iter(SOLOTrainer.build_train_loader(cfg)))[0]["instances"]


def test_the_meta_architecture_decides_about_mattes(matting_set):
    assert not first_instances(config(matting_set)).has("gt_mattes")
    soft = first_instances(config(matting_set, *SOFT))
    assert ((soft.gt_mattes > 0) & (soft.gt_mattes < 255)).any()
    assert torch.equal(soft.gt_masks.tensor, soft.gt_mattes >= 128)


def test_derived_architectures_learn_from_mattes_too(matting_set):
    class Softer(SoftSOLO):
        pass

    META_ARCH_REGISTRY.register(Softer)
    try:
        cfg = config(matting_set, *SOFT, "MODEL.META_ARCHITECTURE", "Softer")
        assert first_instances(cfg).has("gt_mattes")
    finally:
        del META_ARCH_REGISTRY._obj_map["Softer"]


@pytest.mark.parametrize("overrides", [(), SOFT], ids=["masks", "mattes"])
def test_any_model_trains_and_has_its_mattes_measured(matting_set, tmp_path, overrides):
    cfg = config(matting_set, *overrides, "OUTPUT_DIR", str(tmp_path / "out"))
    assert cfg.DATASETS.TEST == ("matting_val",)
    trainer = SOLOTrainer(cfg)
    trainer.train()
    results = SOLOTrainer.test(cfg, trainer.model)
    assert results["sofi"]["SOFI_MSE"] > 0
    assert all(math.isfinite(v) for v in results["matting"].values())
    assert "segm" in results
    assert (tmp_path / "out/inference/matting_val/sofi.json").is_file()


def test_masks_are_mixed_in(matting_set, tmp_path):
    Image.new("RGB", (96, 64)).save(tmp_path / "plain.png")
    content = {
        "images": [{"id": 1, "file_name": "plain.png", "height": 64, "width": 96}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 2, "iscrowd": 0, "area": 800,
             "bbox": [10, 10, 40, 20], "segmentation": [[10, 10, 50, 10, 50, 30, 10, 30]]}
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate("abc", 1)],
    }  # fmt: skip
    (tmp_path / "masks.json").write_text(json.dumps(content))
    cfg = config(matting_set, *SOFT, "DATASETS.TRAIN_SHARES", [0, 1])
    add_training_data(cfg, str(tmp_path / "masks.json"), str(tmp_path))
    assert cfg.DATASETS.TRAIN == ("matting_train", "own_more")
    mattes = first_instances(cfg).gt_mattes
    assert mattes.shape == (1, 64, 96)
    assert set(mattes.unique().tolist()) == {0, 255}


@pytest.mark.parametrize("given", [("a.json", None), (None, "folder")])
def test_half_of_a_pair_is_named(given):
    with pytest.raises(ValueError, match="--more-json and --more-images go together"):
        add_training_data(tiny_config(), *given)


def test_a_panoptic_model_takes_no_more_instances(matting_set):
    cfg = tiny_config("MODEL.META_ARCHITECTURE", "PanopticSOLO")
    with pytest.raises(ValueError, match="has no stuff"):
        add_training_data(cfg, "a.json", "folder")


def test_own_files_with_mattes_have_a_format_of_their_own(matting_set):
    args = argument_parser().parse_args(
        ["--val-json", str(matting_set / "annotations/val.json"), "--val-images",
         str(matting_set / "val"), "--data-format", "matting"]
    )  # fmt: skip
    assert register_named_data(args, panoptic=False) == {"TEST": "own_val"}
    assert MetadataCatalog.get("own_val").evaluator_type == "coco_matting"


def test_a_format_without_files_is_refused(matting_set):
    args = argument_parser().parse_args(
        ["--config-file", "Shapes/solov2_lite0.yaml", "--matting", str(matting_set),
         "--data-format", "matting"]
    )  # fmt: skip
    with pytest.raises(ValueError, match="--data-format matting is that of --train-json"):
        setup(args)
