"""Faults of a training: what is lost, ignored or overwritten when it stops, resumes or fails."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
import training_runs as runs
from builders import SOFT
from panoptic_scenes import write_scenes
from training_runs import At, config, train, weights

from solo_d2.data.datasets.panoptic import register_coco_panoptic
from solo_d2.data.stream import ImageStream, Position
from solo_d2.engine import SOLOTrainer

MORE, PANOPTIC = "faults_training_more", "faults_training_panoptic"


@pytest.fixture(scope="module", autouse=True)
def data_sets(tmp_path_factory):
    """Three registered data sets; gone after the tests."""
    root = tmp_path_factory.mktemp("data")
    runs.register(root / "one")
    runs.register(root / "two", name=MORE, count=4, file="more.json")
    register_coco_panoptic(PANOPTIC, *map(str, write_scenes(root / "panoptic")))
    yield root
    runs.forget(runs.NAME, MORE, PANOPTIC)


# A training that was stopped and resumed is the training that was not


COSINE = (
    *("SOLVER.OPTIMIZER", "ADAMW", "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"),
    *("SOLVER.BASE_LR", 0.001),
)
REPEATED = ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")


@pytest.mark.parametrize(
    ("overrides", "workers"),
    [
        pytest.param((), (0, 2), id="SGD with steps, other workers"),
        pytest.param(COSINE, (0, 0), id="AdamW with cosine"),
        pytest.param(("SOLVER.AMP.ENABLED", True), (2, 0), id="AMP, other workers"),
        pytest.param(
            ("DATASETS.TRAIN", (runs.NAME, MORE), "DATASETS.TRAIN_SHARES", [1, 2]),
            (0, 0),
            id="shares of two data sets",
        ),
        pytest.param((*REPEATED, "DATALOADER.REPEAT_THRESHOLD", 0.6), (0, 0), id="repeat factors"),
        pytest.param(("DATALOADER.ASPECT_RATIO_GROUPING", False), (0, 0), id="no grouping"),
        pytest.param(
            (*COSINE, "SOLVER.CLIP_GRADIENTS.ENABLED", True,
             "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model", "SOLVER.BACKBONE_MULTIPLIER", 0.5),
            (0, 0), id="clipping, rate of the backbone",
        ),
        pytest.param(("MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0), (0, 0), id="BN"),
        pytest.param(SOFT, (0, 0), id="mattes"),
        pytest.param(
            ("MODEL.META_ARCHITECTURE", "PanopticSOLO", "DATASETS.TRAIN", (PANOPTIC,),
             "MODEL.SOLO.NUM_CLASSES", 2, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3),
            (0, 2), id="panoptic",
        ),
    ],
)  # fmt: skip
def test_ten_iterations_are_five_and_five(tmp_path, overrides, workers):
    whole, steps, _ = train(config(tmp_path / "whole", *overrides))
    key = "DATALOADER.NUM_WORKERS"
    half = config(tmp_path / "halves", *overrides, key, workers[0])
    _, first, code = train(half, stop=5)
    assert code == 143
    half = config(tmp_path / "halves", *overrides, key, workers[1])
    resumed, second, _ = train(half, resume=True)
    assert first + second == steps
    assert [x[0] for x in second] == [5, 6, 7, 8, 9]
    expected, found = weights(whole), weights(resumed)
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    moments, others = (x.optimizer.state_dict()["state"] for x in (whole, resumed))
    for values, other in zip(moments.values(), others.values(), strict=True):
        assert all(
            torch.equal(torch.as_tensor(values[k]), torch.as_tensor(other[k])) for k in values
        )


def test_without_a_seed_one_is_drawn_and_kept(tmp_path):
    """Both runs draw one; the second takes that of the first."""
    train(config(tmp_path, "SEED", -1), stop=3)
    saved = torch.load(tmp_path / "model_0000002.pth", weights_only=True)
    seed = saved["trainer"]["solo_d2"]["data"]["seed"]
    resumed, _, _ = train(config(tmp_path, "SEED", -1), resume=True, stop=4)
    assert resumed.data_loader.images.seed == resumed.data_loader.stream.seed == seed


def test_checkpoints_are_plain(tmp_path):
    """Safe loading takes them, and Detectron2's main branch finds its own entries."""
    train(config(tmp_path, "SOLVER.AMP.ENABLED", True), stop=2)
    state = torch.load(tmp_path / "model_0000001.pth", weights_only=True)["trainer"]
    assert state["iteration"] == 1
    assert set(state["_trainer"]) >= {"iteration", "optimizer"}
    assert state["hooks"]["LRScheduler"]["last_epoch"] == 2


def test_the_best_checkpoint_is_known_after_a_resume(tmp_path, monkeypatch):
    scores = iter([30.0, 50.0, 40.0, 60.0])
    monkeypatch.setattr(SOLOTrainer, "test", lambda *_: {"segm": {"AP": next(scores)}})
    cfg = config(tmp_path, "DATASETS.TEST", (runs.NAME,), "TEST.EVAL_PERIOD", 2,
                 "SOLVER.MAX_ITER", 8, "SOLVER.STEPS", ())  # fmt: skip
    best = tmp_path / "model_best.pth"
    train(cfg, stop=5)  # 30 and 50 are behind it
    assert torch.load(best, weights_only=True)["best"] == {"segm/AP": 50.0}
    kept = []
    train(cfg, resume=True, extra=[At(6, lambda: kept.append(torch.load(best)["iteration"]))])
    assert kept == [3]  # 40 has not replaced it
    assert torch.load(best, weights_only=True)["best"] == {"segm/AP": 60.0}


# The order of the images


def drawn(stream, count, batch=2, processes=1, start=Position()):  # noqa: B008 - immutable
    """Draws of some steps, one list per step, and the last position."""
    steps = list(itertools.islice(stream.steps(start, batch, processes), count))
    return [list(itertools.chain(*batches)) for batches, _ in steps], steps[-1][1]


def make_stream(size=11, seed=3, **keywords):
    return ImageStream(torch.arange(size), seed, **keywords)


GROUPS = [0, 1, 1] * 4
FACTORS = torch.tensor([0.5, 1.0, 2.25] * 4)[:11]


@pytest.mark.parametrize("groups", [None, GROUPS[:11]])
@pytest.mark.parametrize("factors", [None, FACTORS])
@pytest.mark.parametrize(("batch", "processes"), [(1, 1), (2, 1), (3, 2)])
def test_a_stream_goes_on_where_it_was(groups, factors, batch, processes):
    stream = make_stream(groups=groups, factors=factors)
    whole, _ = drawn(stream, 20, batch, processes)
    for stop in (1, 7, 19):
        first, position = drawn(stream, stop, batch, processes)
        rest, _ = drawn(make_stream(groups=groups, factors=factors), 20 - stop, batch, processes,
                        position)  # fmt: skip
        assert first + rest == whole


@pytest.mark.parametrize("change", [(2, 1, 4, 1), (4, 1, 1, 1), (2, 2, 1, 3), (1, 3, 2, 1)])
def test_other_batches_or_processes_go_on_behind_the_images_seen(change):
    """No image is left out, and none comes twice in a pass."""
    before, processes, after, others = change
    stream = make_stream(size=12, groups=GROUPS)
    first, position = drawn(stream, 3, before, processes)
    rest, last = drawn(stream, 12, after, others, position)
    numbers = [number for step in first + rest for number, _ in step]
    assert sorted([*numbers, *(number for number, _ in last.waiting)]) == list(range(last.drawn))
    seen = {number: index for step in first + rest for number, index in step}
    seen.update(last.waiting)
    passes = [{seen[i] for i in range(k, k + 12)} for k in range(0, last.drawn - 11, 12)]
    assert passes and all(x == set(range(12)) for x in passes)


def test_processes_share_one_stream():
    alone = list(itertools.chain(*drawn(make_stream(), 6, 2, 1)[0]))
    assert list(itertools.chain(*drawn(make_stream(), 3, 2, 2)[0])) == alone


def test_a_batch_has_one_group():
    steps, _ = drawn(make_stream(size=12, groups=GROUPS), 30, 3)
    assert {len({GROUPS[index] for _, index in step}) for step in steps} == {1}


def test_factors_hold_on_average():
    """Hand-made: 0.5, 1 and 2.25 of 3.75 a pass; 8 standard deviations are below 0.02."""
    stream = ImageStream(torch.arange(3), 0, torch.tensor([0.5, 1.0, 2.25]))
    counts = np.bincount(list(itertools.chain(*(stream.order(k) for k in range(4000)))))
    assert counts[1] == 4000
    assert counts / 4000 == pytest.approx([0.5, 1.0, 2.25], abs=0.07)


@pytest.mark.parametrize(
    "keywords", [{"size": 0}, {"size": 2, "factors": torch.zeros(2)}], ids=["empty", "all zero"]
)
def test_a_stream_of_nothing_is_refused(keywords):
    with pytest.raises(ValueError, match="no image to draw"):
        make_stream(**keywords)


@pytest.mark.parametrize(
    ("sampler", "ratio", "said"),
    [
        ("TrainingSampler", None, None),
        ("RandomSubsetTrainingSampler", 0.6, None),
        ("RandomSubsetTrainingSampler", 0.1, "leave an image of 7"),
        ("RandomSubsetTrainingSampler", None, "RANDOM_SUBSET_RATIO"),
        ("NoSampler", None, "SAMPLER_TRAIN must be one of TrainingSampler, .*'NoSampler'"),
    ],
)
def test_samplers_of_detectron2(tmp_path, sampler, ratio, said):
    """The ratio is a key of some versions of Detectron2 only."""
    cfg = config(tmp_path, "DATALOADER.SAMPLER_TRAIN", sampler)
    if ratio is not None:
        cfg.DATALOADER.RANDOM_SUBSET_RATIO = ratio
    if said is not None:
        with pytest.raises(ValueError, match=said):
            SOLOTrainer.build_train_loader(cfg)
        return
    stream = SOLOTrainer.build_train_loader(cfg).stream
    assert sorted(stream.order(0)) == sorted(stream.order(1))
    assert stream.order(0) != stream.order(1)
    assert len(set(stream.order(0))) == int(7 * (ratio or 1))


def first_batches(cfg, count=4):
    loader = SOLOTrainer.build_train_loader(cfg)
    return [
        [(x["file_name"], x["image"], x["instances"].gt_masks.tensor) for x in batch]
        for batch in itertools.islice(loader, count)
    ]


def equal_batches(a, b):
    return all(
        x[0] == y[0] and torch.equal(x[1], y[1]) and torch.equal(x[2], y[2])
        for left, right in zip(a, b, strict=True)
        for x, y in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_augmentations_do_not_depend_on_the_workers(tmp_path, workers):
    here = first_batches(config(tmp_path))
    assert equal_batches(here, first_batches(config(tmp_path, "DATALOADER.NUM_WORKERS", workers)))
    assert not equal_batches(here, first_batches(config(tmp_path, "SEED", 8)))


# What has changed between two runs is used, or refused by name


def changed(tmp_path, caplog, *overrides):
    """Three iterations, and the resumed rest with other keys: the log, the trainer, its steps."""
    train(config(tmp_path, "SOLVER.STEPS", (5,)), stop=3)
    caplog.clear()
    trainer, steps, _ = train(
        config(tmp_path, "SOLVER.STEPS", (5,), "SOLVER.MAX_ITER", 7, *overrides), resume=True
    )
    return caplog.text, trainer, steps


@pytest.mark.parametrize(
    ("overrides", "said", "rates"),
    [
        pytest.param((), "SOLVER.MAX_ITER 10 -> 7", [0.002, 0.002, 0.0002, 0.0002], id="MAX_ITER"),
        pytest.param(
            ("SOLVER.BASE_LR", 0.05), "BASE_LR 0.002 -> 0.05", [0.05, 0.05, 0.005, 0.005], id="rate"
        ),
        pytest.param(
            ("SOLVER.STEPS", (4, 6)), r"STEPS [5] -> [4, 6]",
            [0.002, 0.0002, 0.0002, 0.00002], id="steps",
        ),
        pytest.param(("SOLVER.GAMMA", 0.5), "GAMMA 0.1 -> 0.5", [0.002, 0.002, 0.001, 0.001],
                     id="gamma"),
        pytest.param(
            ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"), "'WarmupMultiStepLR' -> ",
            [0.002 * (1 + math.cos(math.pi * k / 7)) / 2 for k in (3, 4, 5, 6)], id="schedule",
        ),
        pytest.param(
            ("SOLVER.OPTIMIZER", "ADAMW"), "SOLVER.OPTIMIZER: the checkpoint has the state of SGD",
            [0.002, 0.002, 0.0002, 0.0002], id="optimizer",
        ),
        pytest.param(
            ("SOLVER.BACKBONE_MULTIPLIER", 0.5), "SOLVER.BACKBONE_MULTIPLIER 1.0 -> 0.5",
            [0.001, 0.001, 0.0001, 0.0001], id="rate of the backbone, which has most parameters",
        ),
    ],
)  # fmt: skip
def test_the_configs_schedule_holds(tmp_path, caplog, overrides, said, rates):
    text, _, steps = changed(tmp_path, caplog, *overrides)
    assert said in text
    assert [rate for _, _, rate in steps] == pytest.approx(rates, rel=1e-6)


@pytest.mark.parametrize(
    ("overrides", "said", "check"),
    [
        pytest.param(("SOLVER.MOMENTUM", 0.5), "MOMENTUM 0.9 -> 0.5",
                     lambda t: t.optimizer.param_groups[0]["momentum"] == 0.5, id="momentum"),
        pytest.param(("SOLVER.WEIGHT_DECAY", 0.5), "WEIGHT_DECAY 0.0001 -> 0.5",
                     lambda t: 0.5 in {g["weight_decay"] for g in t.optimizer.param_groups},
                     id="weight decay"),
        pytest.param(("SOLVER.WEIGHT_DECAY_NORM", 0.0001), "WEIGHT_DECAY_NORM 0.0 -> 0.0001",
                     lambda t: len(t.optimizer.param_groups) < 3, id="other groups of parameters"),
        pytest.param(("MODEL.BACKBONE.FREEZE_AT", 5), "MODEL.BACKBONE.FREEZE_AT 2 -> 5",
                     lambda t: not t.model.backbone.bottom_up.res5[0].conv1.weight.requires_grad,
                     id="more frozen"),
        pytest.param(("MODEL.BACKBONE.FREEZE_AT", 0), "trained parameters have no moments yet",
                     lambda t: t.model.backbone.bottom_up.stem.conv1.weight.requires_grad,
                     id="fewer frozen"),
        pytest.param(("SOLVER.IMS_PER_BATCH", 3), "SOLVER.IMS_PER_BATCH 2 -> 3",
                     lambda t: t.data_loader.position.drawn >= 3 * 2 + 4 * 3, id="batch"),
        pytest.param(("SEED", 8), "a new pass over them begins",
                     lambda t: t.data_loader.images.seed == 8, id="seed"),
        pytest.param(("DATASETS.TRAIN", (MORE,)), "a new pass over them begins",
                     lambda t: t.data_loader.position.epoch >= 1, id="other images"),
        pytest.param(("MODEL.SOLO.MASK_LOSS_WEIGHT", 1.0), "MASK_LOSS_WEIGHT 3.0 -> 1.0",
                     lambda t: True, id="loss"),
    ],
)  # fmt: skip
def test_other_values_are_used_and_told(tmp_path, caplog, overrides, said, check):
    text, trainer, steps = changed(tmp_path, caplog, *overrides)
    assert said in text
    assert check(trainer)
    assert [x[0] for x in steps] == [3, 4, 5, 6]


def test_moments_find_their_parameters_by_name(tmp_path):
    """Groups in another order would exchange the moments of parameters of one shape."""
    first, _, _ = train(config(tmp_path), stop=3)
    resumed = SOLOTrainer(config(tmp_path, "SOLVER.WEIGHT_DECAY_NORM", 0.0001))
    resumed.resume_or_load(resume=True)

    def moments(trainer):
        state = trainer.optimizer.state
        return {n: state[p]["momentum_buffer"] for n, p in trainer.model.named_parameters()
                if p in state}  # fmt: skip

    expected, found = moments(first), moments(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        pytest.param(("SOLVER.MAX_ITER", 2), "SOLVER.MAX_ITER is 2, but 3 iterations are done",
                     id="MAX_ITER"),
        pytest.param(("MODEL.SOLO.CONV_DIM", 64), "MODEL.SOLO.CONV_DIM 32 -> 64", id="channels"),
        pytest.param(("MODEL.SOLO.HEAD", "DecoupledSOLOHead"),
                     "MODEL.SOLO.HEAD 'DynamicSOLOHead' -> 'DecoupledSOLOHead'", id="head"),
        pytest.param(("MODEL.RESNETS.DEPTH", 34), "MODEL.RESNETS.DEPTH 18 -> 34", id="backbone"),
    ],
)  # fmt: skip
def test_what_cannot_be_resumed_names_the_key(tmp_path, overrides, said):
    train(config(tmp_path), stop=3)
    before = (tmp_path / "config.yaml").read_bytes()
    trainer = SOLOTrainer(config(tmp_path, *overrides))
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        trainer.resume_or_load(resume=True)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "config.yaml").read_bytes() == before


def strip(folder, *path):
    """Take an entry out of the last checkpoint."""
    file = folder / (folder / "last_checkpoint").read_text()
    content = torch.load(file, weights_only=True)
    entry = content
    for key in path[:-1]:
        entry = entry[key]
    del entry[path[-1]]
    torch.save(content, file)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (("trainer", "_trainer"), "of an older version, without the state of the optimizer"),
        (("trainer", "solo_d2"), ""),
    ],
    ids=["as Detectron2 0.6 saves", "as Detectron2's main branch saves"],
)
def test_checkpoints_with_less_still_resume(tmp_path, caplog, path, said):
    train(config(tmp_path), stop=3)
    strip(tmp_path, *path)
    caplog.clear()
    trainer, steps, _ = train(config(tmp_path), resume=True)
    assert [(x[0], pytest.approx(x[2])) for x in steps[:3]] == [(3, 0.002), (4, 2e-4), (5, 2e-4)]
    assert caplog.text.count(said) == 1 if said else trainer.optimizer.state


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (("trainer", "_trainer", "optimizer", "param_groups"), "state of the optimizer is damaged"),
        (("trainer", "solo_d2", "data", "position"), "position in the data is damaged"),
        (("trainer", "solo_d2", "data", "seed"), "position in the data is damaged"),
    ],
    ids=lambda x: x[-1] if isinstance(x, tuple) else "",
)
def test_a_damaged_state_is_one_line(tmp_path, path, said):
    train(config(tmp_path), stop=3)
    strip(tmp_path, *path)
    with pytest.raises(ValueError, match=said):
        SOLOTrainer(config(tmp_path)).resume_or_load(resume=True)
