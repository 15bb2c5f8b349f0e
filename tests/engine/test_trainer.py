"""Training through Detectron2's loop on a dataset of a few images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import tiny_config, tiny_model
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from solo_d2.checkpoint.files import load_checkpoint
from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.engine import SOLOTrainer

ROOT = Path(__file__).parents[2]
NAME = "trainer_tiny"


def write_coco(folder, count=5):
    """Images of noise with a bright rectangle each; the last has no object."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(count):
        pixels = rng.integers(0, 128, (64, 96, 3), dtype=np.uint8)
        x, y, w, h = 8 + 8 * (i % 4), 8, 40, 24
        if i < count - 1:
            pixels[y : y + h, x : x + w] += 100
            annotations.append(
                {
                    "id": i + 1,
                    "image_id": i + 1,
                    "category_id": i % 3 + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        Image.fromarray(pixels).save(folder / f"{i}.png")
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 64, "width": 96})
    categories = [{"id": k + 1, "name": name} for k, name in enumerate("abc")]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"


def train_config(output, *overrides):
    return tiny_config(
        "OUTPUT_DIR", str(output),
        "DATASETS.TRAIN", (NAME,),
        "DATASETS.TEST", (),
        "DATALOADER.NUM_WORKERS", 0,
        "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False,
        "INPUT.MIN_SIZE_TRAIN", (64,),
        "INPUT.MIN_SIZE_TEST", 64,
        "SOLVER.IMS_PER_BATCH", 2,
        "SOLVER.MAX_ITER", 2,
        "SOLVER.BASE_LR", 0.001,
        *overrides,
    )  # fmt: skip


@pytest.fixture
def data_set(tmp_path):
    """A registered dataset of five images; gone after the test."""
    register_coco_json(NAME, str(write_coco(tmp_path)), str(tmp_path))
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def test_trains_and_evaluates_and_keeps_the_best(data_set, tmp_path):
    cfg = train_config(
        tmp_path / "out", "DATASETS.TEST", (NAME,), "TEST.EVAL_PERIOD", 1,
        "MODEL.SOLO.PRIOR_PROB", 0.5, "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0,
    )  # fmt: skip
    trainer = SOLOTrainer(cfg)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    assert not torch.equal(
        after["head.kernel_predictor.weight"], before["head.kernel_predictor.weight"]
    )
    assert {"segm", "bbox"} <= set(trainer._last_eval_results)
    found = json.loads(
        (tmp_path / "out/inference" / NAME / "coco_instances_results.json").read_text()
    )
    assert {x["image_id"] for x in found} == {1, 2, 3, 4, 5}
    assert (tmp_path / "out/model_best.pth").is_file()
    final = load_checkpoint(tmp_path / "out/model_final.pth")
    assert final["solo_d2"]["class_names"] == tuple(MetadataCatalog.get(NAME).thing_classes)


def test_resumes_from_the_newest_whole_checkpoint(data_set, tmp_path, caplog):
    overrides = ("SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 3)
    first = SOLOTrainer(train_config(tmp_path / "out", *overrides))
    first.resume_or_load(resume=True)  # nothing to resume
    assert first.start_iter == 0
    first.train()
    for name in ("model_final.pth", "model_0000002.pth"):
        (tmp_path / "out" / name).write_bytes(b"PK")
    again = SOLOTrainer(train_config(tmp_path / "out", *overrides))
    again.resume_or_load(resume=True)
    assert again.start_iter == 2
    assert "Going on with the newest whole checkpoint" in caplog.text
    again.train()
    saved = torch.load(tmp_path / "out/model_final.pth", weights_only=True)
    assert saved["iteration"] == 2
    assert saved["solo_d2"]["convention"]["pixel_format"] == "BGR"


def test_training_starts_from_a_backbone_but_not_from_another_model(data_set, tmp_path, caplog):
    state = tiny_model().state_dict()
    backbone = {k: v for k, v in state.items() if k.startswith("backbone.bottom_up.")}
    torch.save({"model": backbone}, tmp_path / "backbone.pth")
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "other.pth")
    weights = "MODEL.WEIGHTS", str(tmp_path / "backbone.pth")
    SOLOTrainer(train_config(tmp_path / "out", *weights)).resume_or_load(resume=False)
    weights = "MODEL.WEIGHTS", str(tmp_path / "other.pth")
    trainer = SOLOTrainer(train_config(tmp_path / "out", *weights))
    with pytest.raises(ValueError, match=r"other\.pth: is of another model"):
        trainer.resume_or_load(resume=False)
    trainer.resume_or_load(resume=False, allow_partial=True)
    assert "0 entries loaded" in caplog.text
    assert "  head.category_predictor.weight" in caplog.text


def test_mixed_precision_trains_on_the_cpu(data_set, tmp_path):
    cfg = train_config(tmp_path / "out", "SOLVER.AMP.ENABLED", True)
    trainer = SOLOTrainer(cfg)
    types = []
    trainer.model.head.category_predictor.register_forward_hook(
        lambda module, args, output: types.append(output.dtype)
    )
    trainer.train()
    assert types == [torch.bfloat16] * 10  # five levels, two iterations
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize(
    ("layer", "loss"), [("category_predictor", "loss_category"), ("kernel_predictor", "loss_mask")]
)
def test_nan_stops_with_the_iteration_and_the_loss(data_set, tmp_path, layer, loss, amp):
    trainer = SOLOTrainer(train_config(tmp_path / "out", "SOLVER.AMP.ENABLED", amp))

    class Poison(torch.nn.Module):
        """Fails on the second of the iterations, which is number 1."""

        calls = 0

        def __call__(self, module, args, output):
            self.calls += 1
            return output * float("nan") if self.calls > 5 else output  # five levels a step

    getattr(trainer.model.head, layer).register_forward_hook(Poison())
    with pytest.raises(FloatingPointError, match=rf"iteration=1[\s\S]*'{loss}'[^,]*nan"):
        trainer.train()


def test_class_count_is_checked_before_the_model_is_built(data_set, tmp_path, monkeypatch):
    monkeypatch.setattr(SOLOTrainer, "build_model", lambda cfg: pytest.fail("built"))
    cfg = train_config(tmp_path / "out", "MODEL.SOLO.NUM_CLASSES", 80)
    with pytest.raises(ValueError, match="has 3 classes, the model has 80"):
        SOLOTrainer(cfg)


def test_training_needs_a_data_set(tmp_path):
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN is empty"):
        SOLOTrainer(train_config(tmp_path / "out", "DATASETS.TRAIN", ()))


def test_detectron2_is_left_as_it_was(data_set, tmp_path):
    from detectron2.engine import defaults

    before = defaults.create_ddp_model
    SOLOTrainer(train_config(tmp_path / "out"))
    assert defaults.create_ddp_model is before


@pytest.mark.slow
def test_torchrun_trains_in_two_processes_and_merges_their_results(tmp_path):
    """In mixed precision; two processes without it are in `tests/two_processes.py`."""
    annotations = write_coco(tmp_path)
    cfg = train_config(
        tmp_path / "out", "MODEL.SOLO.PRIOR_PROB", 0.5,
        "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0, "SOLVER.AMP.ENABLED", True,
        "SOLVER.FREEZE_BACKBONE_ITERS", 1,
    )  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(cfg.dump())
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(ROOT / "train_net.py"), "--config-file", str(tmp_path / "tiny.yaml"),
        "--train-json", str(annotations), "--train-images", str(tmp_path),
        "--val-json", str(annotations), "--val-images", str(tmp_path),
        "MODEL.SOLO.NUM_CLASSES", "3",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = next((tmp_path / "out/inference").rglob("coco_instances_results.json"))
    found = json.loads(results.read_text())
    assert {x["image_id"] for x in found} == {1, 2, 3, 4, 5}  # of both processes
    assert (tmp_path / "out/model_final.pth").is_file()


def with_scales(output, *sizes):
    return train_config(
        output, "DATASETS.TEST", (NAME,), "TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", sizes,
        "TEST.AUG.FLIP", False, "MODEL.SOLO.PRIOR_PROB", 0.5,
        "MODEL.SOLO.FINAL_SCORE_THRESH_TEST", 0.0,
    )  # fmt: skip


def results_in(folder):
    return json.loads((folder / "inference" / NAME / "coco_instances_results.json").read_text())


def test_augmented_results_stand_beside_the_plain_ones(data_set, tmp_path):
    cfg = with_scales(tmp_path, 64)  # the size of plain testing
    model = SOLOTrainer.build_model(cfg)
    plain = SOLOTrainer.test(cfg, model)
    augmented = SOLOTrainer.test_with_TTA(cfg, model)
    assert set(augmented) == {"segm_TTA", "bbox_TTA"}
    assert len(results_in(tmp_path)) > 100
    assert results_in(tmp_path / "TTA") == results_in(tmp_path)
    assert augmented["segm_TTA"]["AP"] == plain["segm"]["AP"]
    SOLOTrainer.test_with_TTA(with_scales(tmp_path, 64, 96), model)
    assert results_in(tmp_path / "TTA") != results_in(tmp_path)


def test_training_ends_with_augmented_results_in_its_log(data_set, tmp_path):
    trainer = SOLOTrainer(with_scales(tmp_path, 48, 64))
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert {"segm/AP", "segm_TTA/AP", "bbox_TTA/AP"} <= set(lines[-1])
    assert trainer.model.training


def test_bad_scales_are_known_before_training(data_set, tmp_path):
    with pytest.raises(ValueError, match=r"TEST.AUG.MIN_SIZES .* got \(\)"):
        SOLOTrainer(with_scales(tmp_path))
