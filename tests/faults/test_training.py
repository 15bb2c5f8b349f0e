"""Faults of a training: what is lost, ignored or overwritten when it stops, resumes or fails."""

from __future__ import annotations

import errno
import gc
import importlib.util
import itertools
import json
import logging
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs as runs
import two_processes
from builders import SOFT, tiny_model
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from detectron2.engine import DefaultTrainer, SimpleTrainer
from detectron2.engine.train_loop import TrainerBase
from fresh_process import FreshProcess
from panoptic_scenes import write_scenes
from training_runs import At, config, send, train, weights

from solo_d2.data.datasets.panoptic import register_coco_panoptic
from solo_d2.data.loader import LoadingError
from solo_d2.data.stream import ImageStream, Position
from solo_d2.engine import SOLOTrainer
from solo_d2.engine.log import begin_log, end_log, open_log
from solo_d2.engine.processes import exit_code
from solo_d2.engine.state import kind_of
from solo_d2.io.errors import one_line
from solo_d2.io.lock import LOCK, FolderInUseError, FolderLock
from solo_d2.io.processes import this_process

ROOT = Path(__file__).parents[2]
pytest.importorskip("timm")

MORE, PANOPTIC = "faults_training_more", "faults_training_panoptic"


@pytest.fixture(scope="module", autouse=True)
def data_sets(tmp_path_factory):
    """Three registered datasets; gone after the tests."""
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
            id="shares of two datasets",
        ),
        pytest.param((*REPEATED, "DATALOADER.REPEAT_THRESHOLD", 0.6), (0, 0), id="repeat factors"),
        pytest.param(("DATALOADER.ASPECT_RATIO_GROUPING", False), (0, 0), id="no grouping"),
        pytest.param(
            (*COSINE, "SOLVER.CLIP_GRADIENTS.ENABLED", True,
             "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model", "SOLVER.BACKBONE_MULTIPLIER", 0.5),
            (0, 0), id="clipping, rate of the backbone",
        ),
        pytest.param(
            ("SOLVER.ACCUMULATE_STEPS", 2, "SOLVER.EMA.ENABLED", True, "SOLVER.AMP.ENABLED", True),
            (0, 0), id="two parts, averaged weights",
        ),
        pytest.param(("MODEL.TIMM.NORM_EVAL", False), (0, 0), id="running statistics"),
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


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_is_dropped_ends_its_processes_at_once(tmp_path, workers):
    """Not when garbage is collected, which is at any time, and waits seconds for each."""
    others = set(multiprocessing.active_children())
    loader = SOLOTrainer.build_train_loader(config(tmp_path, "DATALOADER.NUM_WORKERS", workers))
    next(loader)
    assert len(set(multiprocessing.active_children()) - others) == workers
    gc.disable()
    try:
        del loader
        assert set(multiprocessing.active_children()) <= others
    finally:
        gc.enable()


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
        pytest.param(("MODEL.TIMM.FREEZE_AT", 5), "MODEL.TIMM.FREEZE_AT 0 -> 5",
                     lambda t: not trained(t, "backbone.bottom_up."), id="more frozen"),
        pytest.param(("MODEL.SOLO.FREEZE_CATEGORY_BRANCH", True), "FREEZE_CATEGORY_BRANCH False",
                     lambda t: not trained(t, "head.category"), id="frozen branch"),
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


def trained(trainer, prefix):
    return {n for n, p in trainer.model.named_parameters() if n.startswith(prefix)
            and p.requires_grad}  # fmt: skip


@pytest.mark.parametrize("freeze", [(2, 5), (5, 2), (2, 0)])
def test_other_frozen_layers_are_used_and_told(tmp_path, caplog, freeze):
    """Detectron2 itself would stop at a list that is longer than the other."""
    before, after = ((*runs.RESNET, "MODEL.BACKBONE.FREEZE_AT", x) for x in freeze)
    first, _, _ = train(config(tmp_path, *before), stop=2)
    own = trained(first, "backbone.bottom_up.")
    resumed = SOLOTrainer(config(tmp_path, *after))
    resumed.resume_or_load(resume=True)
    assert f"MODEL.BACKBONE.FREEZE_AT {freeze[0]} -> {freeze[1]}" in caplog.text
    fresh = trained(resumed, "backbone.bottom_up.") - own
    assert bool(fresh) == (freeze[1] < freeze[0])
    assert (f"{len(fresh)} of " in caplog.text) == bool(fresh)
    state = resumed.optimizer.state
    with_moments = {n for n, p in resumed.model.named_parameters() if p in state}
    assert with_moments == trained(resumed, "") - fresh


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
        pytest.param(("MODEL.TIMM.NAME", "test_efficientnet"),
                     "MODEL.TIMM.NAME 'test_resnet' -> 'test_efficientnet'", id="backbone"),
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
        (("trainer", "solo_d2"), "does not say where in the data it was"),
    ],
    ids=["as Detectron2 0.6 saves", "as Detectron2's main branch saves"],
)
def test_checkpoints_with_less_still_resume(tmp_path, caplog, path, said):
    train(config(tmp_path), stop=3)
    strip(tmp_path, *path)
    caplog.clear()
    trainer, steps, _ = train(config(tmp_path), resume=True)
    assert [(x[0], pytest.approx(x[2])) for x in steps[:3]] == [(3, 0.002), (4, 2e-4), (5, 2e-4)]
    assert caplog.text.count(said) == 1
    assert trainer.optimizer.state


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


# Whatever ends a training saves the last whole iteration


def stopped(cfg, *hooks, prepare=lambda trainer: None):
    """Train until something ends it; the error, and the iteration of the last checkpoint."""
    trainer = SOLOTrainer(cfg)
    trainer.register_hooks(list(hooks))
    trainer.resume_or_load(resume=False)
    prepare(trainer)
    with pytest.raises(BaseException) as caught:
        trainer.train()
    return caught.value, last_iteration(Path(cfg.OUTPUT_DIR))


def last_iteration(folder):
    """The iteration in the file that `last_checkpoint` names; None if there is none."""
    if not (folder / "last_checkpoint").is_file():
        return None
    file = folder / (folder / "last_checkpoint").read_text()
    return torch.load(file, weights_only=True)["iteration"]


def fail(error):
    def action(*_):
        raise error

    return action


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(signal.SIGTERM, SystemExit, 143), (signal.SIGINT, KeyboardInterrupt, None)],
)
@pytest.mark.parametrize("after", [False, True])
def test_signals_end_it_between_iterations(tmp_path, caplog, number, kind, code, after):
    before = signal.getsignal(number)
    error, iteration = stopped(config(tmp_path), At(3, send(number), after=after))
    assert type(error) is kind and getattr(error, "code", None) == code
    assert iteration == (3 if after else 2)
    assert f"Stopped after iteration {iteration}" in caplog.text
    assert "with --resume" in caplog.text and signal.Signals(number).name in caplog.text
    assert signal.getsignal(number) is before
    assert not (tmp_path / "training.lock").exists()


def test_a_signal_waits_for_the_update(tmp_path):
    """The step that it comes in is whole in the checkpoint."""

    def prepare(trainer):
        once = iter([send(signal.SIGTERM)])
        trainer.optimizer.register_step_pre_hook(lambda *_: next(once, lambda: None)())

    error, iteration = stopped(config(tmp_path), prepare=prepare)
    assert (type(error), iteration) == (SystemExit, 0)


def test_a_signal_ends_an_evaluation_at_once(tmp_path, monkeypatch):
    went_on = []

    def test(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        went_on.append(len("the handler has been run by now"))

    monkeypatch.setattr(SOLOTrainer, "test", test)
    cfg = config(tmp_path, "TEST.EVAL_PERIOD", 4)
    error, iteration = stopped(cfg)
    assert (type(error), iteration, went_on) == (SystemExit, 3, [])


def test_a_signal_in_a_save_lets_it_end(tmp_path):
    def prepare(trainer):
        tag = trainer.checkpointer.tag_last_checkpoint

        def tag_in_time(name):
            os.kill(os.getpid(), signal.SIGTERM)
            tag(name)

        trainer.checkpointer.tag_last_checkpoint = tag_in_time

    cfg = config(tmp_path, "SOLVER.CHECKPOINT_PERIOD", 3)
    error, iteration = stopped(cfg, prepare=prepare)
    assert (type(error), iteration) == (SystemExit, 2)
    assert [x.name for x in tmp_path.glob("*.pth")] == ["model_0000002.pth"]


SECOND_CTRL_C = """
import os, signal, sys
from solo_d2.engine.interruption import Interruption
with Interruption() as interruption:
    os.kill(os.getpid(), signal.SIGINT)
    print("went on", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("still there", flush=True)
"""


def test_a_second_ctrl_c_ends_the_process_at_once():
    done = subprocess.run([sys.executable, "-c", SECOND_CTRL_C], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT
    assert done.stdout == "went on\n"
    assert "SIGINT: training saves and stops after this iteration" in done.stderr


def break_images(folder, *names):
    def action():
        for name in names:
            (folder / name).write_bytes(b"no picture")

    return action


@pytest.fixture
def own_images(tmp_path):
    """A dataset of its own, whose files a test may break."""
    runs.register(tmp_path / "images", name="faults_own", count=6)
    yield tmp_path / "images"
    runs.forget("faults_own")


def own_config(tmp_path, *overrides):
    return config(tmp_path / "out", "DATASETS.TRAIN", ("faults_own",), *overrides)


ALL = [f"{i}.png" for i in range(6)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_stops_it_after_saving(tmp_path, own_images, caplog, workers):
    cfg = own_config(
        tmp_path, "DATALOADER.NUM_WORKERS", workers, "SOLVER.MAX_ITER", 60, "SOLVER.STEPS", ()
    )
    error, iteration = stopped(cfg, At(2, break_images(own_images, "4.png")))
    assert isinstance(error, LoadingError) and str(own_images / "4.png") in str(error)
    assert "\n" not in str(error) and "DATALOADER.SKIP_UNREADABLE" in str(error)
    assert iteration >= 1
    assert f"Stopped after iteration {iteration}" in caplog.text
    assert "Traceback" not in "\n".join(x.getMessage() for x in caplog.records if x.levelno > 10)


@pytest.mark.parametrize(
    ("broken", "ends"),
    [(["4.png"], False), (ALL[:3], False), (ALL[:4], True), (ALL, True)],
    ids=["one of six", "half", "most", "all"],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_can_be_left_out(tmp_path, own_images, caplog, broken, ends, workers):
    break_images(own_images, *broken)()
    cfg = own_config(
        tmp_path, "DATALOADER.SKIP_UNREADABLE", True, "DATALOADER.NUM_WORKERS", workers,
        "SOLVER.MAX_ITER", 12, "SOLVER.STEPS", (),
    )  # fmt: skip
    if ends:
        error, _ = stopped(cfg)
        assert isinstance(error, LoadingError)
        assert re.search(r"\d of 6 images cannot be read, too many to leave out", str(error))
        return
    train(cfg)
    assert caplog.text.count("Left out: ") == len(broken)
    assert f"{len(broken)} of 6 images could not be read and were left out" in caplog.text


def test_what_is_left_out_does_not_depend_on_the_workers(tmp_path, own_images):
    break_images(own_images, "1.png", "2.png")()
    cfgs = [
        own_config(tmp_path, "DATALOADER.SKIP_UNREADABLE", True, "DATALOADER.NUM_WORKERS", n)
        for n in (0, 2)
    ]
    assert equal_batches(*(first_batches(cfg, 6) for cfg in cfgs))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bug_in_a_mapper_names_the_image(tmp_path, monkeypatch, workers):
    """Also where it is in another process."""
    monkeypatch.setattr(
        "solo_d2.data.dataset_mapper.SOLODatasetMapper.__call__", fail(KeyError("bbox"))
    )
    error, iteration = stopped(config(tmp_path, "DATALOADER.NUM_WORKERS", workers))
    assert isinstance(error, LoadingError)
    assert re.fullmatch(r"\S+\.png: KeyError: 'bbox'", str(error))
    assert iteration is None


def test_a_dead_worker_stops_it_after_saving(tmp_path):
    others = set(multiprocessing.active_children())

    def kill_a_worker():
        new = set(multiprocessing.active_children()) - others
        assert len(new) == 2
        os.kill(min(x.pid for x in new), signal.SIGKILL)

    cfg = config(tmp_path, "DATALOADER.NUM_WORKERS", 2, "SOLVER.MAX_ITER", 99, "SOLVER.STEPS", ())
    error, iteration = stopped(cfg, At(2, kill_a_worker))
    assert isinstance(error, LoadingError) and "a loading process has died" in str(error)
    assert iteration >= 1
    resumed = SOLOTrainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == iteration + 1


@pytest.mark.parametrize(
    ("hook", "iteration"),
    [
        pytest.param(At(3, fail(RuntimeError("out of luck"))), 2, id="before an iteration"),
        pytest.param(At(3, fail(RuntimeError("out of luck")), after=True), 3, id="behind one"),
        pytest.param(At(3, fail(MemoryError("out of luck")), after=True), 3, id="no memory"),
        pytest.param(At(9, fail(RuntimeError("out of luck")), after=True), 9, id="the last"),
        pytest.param(At(0, fail(RuntimeError("out of luck"))), None, id="at the start"),
    ],
)
def test_an_error_anywhere_saves_what_is_whole(tmp_path, caplog, hook, iteration):
    error, saved = stopped(config(tmp_path), hook)
    assert "out of luck" in str(error) and saved == iteration
    stopped_at = "before an iteration was done" if iteration is None else f"iteration {iteration}"
    assert stopped_at in caplog.text


def test_the_half_of_an_update_is_never_saved(tmp_path, caplog):
    """The second update fails when the first parameter may have changed."""

    def prepare(trainer):
        actions = iter([lambda: None, fail(RuntimeError("in the middle"))])
        trainer.optimizer.register_step_pre_hook(lambda *_: next(actions)())

    error, iteration = stopped(config(tmp_path), prepare=prepare)
    assert "in the middle" in str(error) and iteration is None
    assert "changed a part of the parameters" in caplog.text


def test_a_failure_in_the_model_saves_the_iteration_before(tmp_path):
    whole, _, _ = train(config(tmp_path / "whole"), stop=2)

    def prepare(trainer):
        actions = iter([lambda: None, lambda: None, fail(RuntimeError("in the model"))])
        trainer.model.register_forward_pre_hook(lambda *_: next(actions)())

    torch.manual_seed(0)
    error, iteration = stopped(config(tmp_path / "other"), prepare=prepare)
    assert "in the model" in str(error) and iteration == 1
    saved = torch.load(tmp_path / "other/model_0000001.pth", weights_only=True)
    assert all(torch.equal(saved["model"][k], x) for k, x in weights(whole).items())


def test_diverged_parameters_are_not_saved(tmp_path, caplog):
    """The last good checkpoint stays the one to go on from."""

    def prepare(trainer):
        calls = itertools.count()
        trainer.model.head.category_predictor.register_forward_hook(
            lambda _, __, x: x * math.nan if next(calls) >= 20 else x  # five levels, four steps
        )

    cfg = config(tmp_path, "SOLVER.CHECKPOINT_PERIOD", 3)
    error, iteration = stopped(cfg, prepare=prepare)
    assert isinstance(error, FloatingPointError) and "loss_category" in str(error)
    assert iteration == 2
    assert "parameters that diverge are not saved" in caplog.text


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_never_gets_into_a_checkpoint(tmp_path, bad):
    trainer, _, _ = train(config(tmp_path), stop=2)
    trainer.model.head.kernel_predictor.weight.data[0, 0] = bad
    with pytest.raises(FloatingPointError, match=r"head\.kernel_predictor\.weight has NaN"):
        trainer.checkpointer.save("model_0000002", iteration=2)
    assert [x.name for x in tmp_path.glob("*.pth")] == ["model_0000001.pth"]
    assert last_iteration(tmp_path) == 1


def test_a_full_disk_is_told_with_the_checkpoint_that_is_left(tmp_path, monkeypatch, caplog):
    full = fail(OSError(errno.ENOSPC, "not saved: No space left on device"))

    def fill():
        monkeypatch.setattr("solo_d2.checkpoint.checkpointer.save_checkpoint", full)

    cfg = config(tmp_path, "SOLVER.CHECKPOINT_PERIOD", 2)
    error, iteration = stopped(cfg, At(2, fill))
    assert isinstance(error, OSError) and iteration == 1
    assert re.search(
        r"after iteration 3; it could not be saved \(.*No space left.*model_0000001\.pth with "
        r"--resume",
        caplog.text,
    )


def test_a_full_disk_ends_the_log_and_not_the_run(tmp_path, capsys):
    begin_log()
    open_log(str(tmp_path))
    file = next(x for x in logging.getLogger("solo_d2").handlers if hasattr(x, "baseFilename"))
    file.stream.close()
    file.stream = open("/dev/full", "w", buffering=1)
    for number in range(3):
        logging.getLogger("solo_d2.x").warning("line %d", number)
    end_log()
    said = capsys.readouterr()
    assert [f"line {number}" in said.out for number in range(3)] == [True] * 3
    assert said.err.count("no more is written (No space left on device)") == 1
    assert "Traceback" not in said.err


# One training in a folder; an evaluation leaves it alone


def lock_content(**changes):
    values = {**this_process()._asdict(), "since": "2026-01-01 00:00:00", **changes}
    return json.dumps(values)


def dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


OLD, FRESH = 1000, 0


@pytest.mark.parametrize(
    ("content", "age", "taken"),
    [
        pytest.param(lambda: lock_content(), FRESH, False, id="alive"),
        pytest.param(lambda: lock_content(), OLD, False, id="alive, though it did not beat"),
        pytest.param(lambda: lock_content(pid=dead_pid()), FRESH, True, id="dead process"),
        pytest.param(lambda: lock_content(start="1"), FRESH, True, id="its number again"),
        pytest.param(lambda: lock_content(pid=2**22 + 1), FRESH, True, id="no such number"),
        pytest.param(lambda: lock_content(pid=-1), FRESH, True, id="impossible number"),
        pytest.param(lambda: lock_content(host="elsewhere"), FRESH, False, id="another host"),
        pytest.param(lambda: lock_content(host="elsewhere"), OLD, True, id="silent host"),
        pytest.param(lambda: lock_content(boot="before"), FRESH, True, id="before a reboot"),
        pytest.param(lambda: lock_content(space="other"), FRESH, False, id="another container"),
        pytest.param(lambda: lock_content(space="other"), OLD, True, id="silent container"),
        pytest.param(lambda: "", FRESH, False, id="empty, just made"),
        pytest.param(lambda: "", OLD, True, id="empty, old"),
        pytest.param(lambda: "no json", OLD, True, id="something else"),
        pytest.param(lambda: '{"pid": null}', OLD, True, id="damaged"),
    ],
)
def test_locks(tmp_path, content, age, taken):
    file = tmp_path / LOCK
    file.write_text(content())
    os.utime(file, (time.time() - age,) * 2)
    lock = FolderLock(tmp_path)
    lock._owner = lock._owner._replace(start="another")  # of this process there is one lock alone
    if not taken:
        with pytest.raises(FolderInUseError, match="is in use by") as caught:
            lock.acquire()
        assert "\n" not in str(caught.value) and "OUTPUT_DIR" in str(caught.value)
        assert file.read_text() or not content()
        return
    lock.acquire()
    assert json.loads(file.read_text())["pid"] == os.getpid()
    lock.release()
    assert not file.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_others_took_over_is_left_to_them(tmp_path):
    lock = FolderLock(tmp_path)
    lock.acquire()
    (tmp_path / LOCK).write_text(lock_content(host="elsewhere"))
    lock.release()
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "elsewhere"


def test_a_living_run_shows_signs_of_life(tmp_path, monkeypatch):
    touched = threading.Event()
    monkeypatch.setattr("solo_d2.io.lock.BEAT", 0.01)
    monkeypatch.setattr("solo_d2.io.lock.os.utime", lambda path: touched.set())
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert touched.wait(10)
    lock.release()


def test_a_second_training_in_a_folder_is_refused(tmp_path, monkeypatch):
    train(config(tmp_path), stop=2)
    before = {x.name: x.read_bytes() for x in tmp_path.iterdir() if "events" not in x.name}
    (tmp_path / LOCK).write_text(lock_content(host="elsewhere"))
    trainer = SOLOTrainer(config(tmp_path, "SOLVER.BASE_LR", 0.5))
    with pytest.raises(FolderInUseError, match=r"in use by process \d+ on elsewhere"):
        trainer.train()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.fixture
def train_net(monkeypatch):
    """The command in this process; returns exit code, stdout and stderr."""
    spec = importlib.util.spec_from_file_location("train_net", ROOT / "train_net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("detectron2.engine.defaults.collect_env_info", lambda: "")

    def run(*arguments):
        runs.forget("own_train", "own_val", "own_more")
        try:
            return module.invoke_main([str(x) for x in arguments])
        finally:
            runs.forget("own_train", "own_val", "own_more")

    return run


@pytest.fixture
def command(tmp_path, train_net, capsys):
    """`train_net.py` on a small dataset; returns exit code, last line of stderr, all output."""
    (tmp_path / "tiny.yaml").write_text(config(tmp_path).dump())
    file = runs.write_images(tmp_path / "data")

    def run(*arguments, out=tmp_path / "out", train=file, val=None, config="tiny.yaml"):
        given = ["--config-file", tmp_path / config]
        given += ["--train-json", train, "--train-images", file.parent] if train else []
        given += ["--val-json", val, "--val-images", file.parent] if val else []
        flags = [x for x in arguments if str(x).startswith("--")]
        keys = [x for x in arguments if not str(x).startswith("--")]
        small = [
            *("SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 3, "SOLVER.STEPS", "()"),
            *("DATALOADER.NUM_WORKERS", 0, "INPUT.MIN_SIZE_TRAIN", "(64,)"),
            *("INPUT.MIN_SIZE_TEST", 64, "OUTPUT_DIR", out),
        ]
        capsys.readouterr()
        code = train_net(*given, *flags, *small, *keys)
        said = capsys.readouterr()
        return code, (said.err.strip().splitlines() or [""])[-1], said.out + said.err

    run.data, run.out = file.parent, tmp_path / "out"
    return run


def contents(folder):
    return {x.name: x.read_bytes() for x in folder.iterdir() if x.is_file()}


def test_an_evaluation_leaves_a_training_as_it_is(command):
    """Neither its config nor its log nor its results change."""
    file = command.data / "train.json"
    assert command(val=file)[0] == 0
    before = contents(command.out)
    results = command.out / "inference"
    kept = {x: x.read_bytes() for x in results.rglob("*") if x.is_file()}
    weights = ("MODEL.WEIGHTS", command.out / "model_final.pth")
    code, _, said = command("--eval-only", *weights, train=None, val=file)
    assert code == 0 and "the evaluation writes to" in said
    assert contents(command.out) == before
    assert {x: x.read_bytes() for x in results.rglob("*") if x.is_file()} == kept
    assert (command.out / "eval" / "log.txt").is_file()
    assert (command.out / "eval" / "inference").is_dir()


def test_an_evaluation_in_a_new_folder_writes_there(command, tmp_path):
    file = command.data / "train.json"
    command()
    weights = ("MODEL.WEIGHTS", command.out / "model_final.pth")
    code, _, _ = command("--eval-only", *weights, train=None, val=file, out=tmp_path / "new")
    assert code == 0
    assert {x.name for x in (tmp_path / "new").iterdir()} == {"log.txt", "inference"}


@pytest.mark.parametrize("evaluates", [True, False])
def test_a_new_training_in_the_folder_of_another_one_is_refused(command, evaluates):
    """It would mix both, and replace the better model."""
    evaluated = {"val": command.data / "train.json"}
    assert command("TEST.EVAL_PERIOD", 1, **evaluated)[0] == 0
    before = {x: x.read_bytes() for x in command.out.rglob("*") if x.is_file()}
    given = evaluated if evaluates else {}
    code, line, _ = command("SOLVER.MAX_ITER", 6, "TEST.EVAL_PERIOD", 2, **given)
    assert code == 2 and f"OUTPUT_DIR {command.out} has the checkpoints of a training" in line
    assert "--resume goes on with it" in line
    assert {x: x.read_bytes() for x in command.out.rglob("*") if x.is_file()} == before


def test_an_evaluation_with_resume_is_of_the_last_checkpoint(command, tmp_path):
    """As Detectron2's `--eval-only --resume`."""
    file = command.data / "train.json"
    given = {"train": None, "val": file}
    code, line, _ = command("--eval-only", "--resume", **given)
    assert code == 2 and f"OUTPUT_DIR {command.out} has no checkpoint" in line
    assert command("SOLVER.CHECKPOINT_PERIOD", 1)[0] == 0
    for name in ("model_final.pth", "model_0000001.pth"):
        (command.out / "last_checkpoint").write_text(name)
        code, _, said = command("--eval-only", "--resume", "MODEL.WEIGHTS", "other.pth", **given)
        assert code == 0 and f"Weights: {command.out / name};" in said
    for broken in command.out.glob("*.pth"):
        broken.write_bytes(b"PK")
    code, line, _ = command("--eval-only", "--resume", **given)
    assert code == 2 and "has no whole checkpoint" in line


def test_a_folder_without_checkpoints_takes_a_new_training(command):
    """A log or a lock of a run that was stopped before it saved is nothing to lose."""
    command.out.mkdir()
    (command.out / "log.txt").write_text("of a run that had no data")
    assert command()[0] == 0
    assert last_iteration(command.out) == 2


def test_resuming_in_an_empty_folder_starts(command):
    assert command("--resume")[0] == 0
    assert last_iteration(command.out) == 2


WRONG_CLASSES = ("MODEL.SOLO.NUM_CLASSES", 7)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        pytest.param(("--resume", "SOLVER.BASE_LRR", 1), "BASE_LRR", 2, id="misspelt key"),
        pytest.param(("--resume", "SOLVER.BASE_LR", -1), "BASE_LR", 2, id="bad value"),
        pytest.param(("--resume", *WRONG_CLASSES), "NUM_CLASSES is 7", 2, id="class count"),
        pytest.param(("--resume", "MODEL.SOLO.CONV_DIM", 64), "DIM 32 -> 64", 2, id="channels"),
        pytest.param(("--resume", "SOLVER.MAX_ITER", 2), "3 iterations are done", 2, id="too few"),
        pytest.param(("MODEL.WEIGHTS", "no/such.pth"), "such.pth: no such file", 2, id="weights"),
        pytest.param(("--eval-only",), "--eval-only needs a dataset", 2, id="no data"),
    ],
)  # fmt: skip
def test_a_mistake_changes_nothing_in_a_folder(command, arguments, said, code):
    """The log may grow; a config or a checkpoint that works stays."""
    assert command()[0] == 0
    before = contents(command.out)
    given = {"train": None, "val": None} if "--eval-only" in arguments else {}
    got, line, output = command(*arguments, **given)
    assert (got, said in line) == (code, True), line
    assert "Traceback" not in output
    after = contents(command.out)
    names = {x for x in after if not x.startswith("events") and x != "log.txt"}
    assert {x: before.get(x) for x in names} == {x: after[x] for x in names}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("SOLVER.BASE_LRR", 1), "BASE_LRR", id="misspelt key"),
        pytest.param(("MODEL.SOLO.CONV_DIM", 0), "CONV_DIM", id="bad value"),
        pytest.param(WRONG_CLASSES, "NUM_CLASSES is 7", id="class count"),
        pytest.param(("MODEL.WEIGHTS", "no/such.pth"), "no/such.pth", id="weights"),
        pytest.param(("MODEL.DEVICE", "cuda:63"), "cuda:63", id="device"),
    ],
)
def test_nothing_is_written_before_all_is_checked(command, arguments, said):
    code, line, _ = command(*arguments)
    assert (code, said in line) == (2, True), line
    assert not command.out.exists()


@pytest.mark.parametrize("name", ["train.json", "no/such.json"])
def test_data_that_cannot_be_read_leave_no_folder(command, name):
    (command.data / "train.json").write_text("{}")
    code, line, _ = command(train=command.data / name)
    assert code == 2 and name in line
    assert not command.out.exists()


@pytest.mark.parametrize(
    ("place", "said", "code"),
    [
        pytest.param("", "OUTPUT_DIR", 2, id="empty"),
        pytest.param("  ", "OUTPUT_DIR", 2, id="blank"),
        pytest.param("data/train.json", "is not a folder", 2, id="a file"),
        pytest.param("data/train.json/out", "is not a folder", 2, id="below a file"),
        pytest.param("/dev/null/out", "is not a folder", 2, id="below a device"),
        pytest.param("/proc/out", "nothing can be written to /proc", 1, id="unwritable"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_first(command, tmp_path, place, said, code):
    """Before any data are read."""
    out = place if not place.strip() or place.startswith("/") else tmp_path / place
    got, line, _ = command(out=out, train=tmp_path / "data" / "missing.json")
    assert (got, said in line) == (code, True), line


@pytest.mark.parametrize("name", ["last_checkpoint", "config.yaml", "metrics.json", "log.txt"])
def test_a_folder_where_a_file_will_be_is_told_first(command, name):
    (command.out / name).mkdir(parents=True)
    code, line, _ = command()
    assert code == 2 and f"{name} is a folder" in line
    assert [x.name for x in command.out.iterdir()] == [name]


def test_a_cut_line_of_metrics_does_not_spoil_the_next(command):
    """As a killed run leaves it."""
    assert command()[0] == 0
    file = command.out / "metrics.json"
    whole = file.read_text()
    file.write_text(whole + '{"iteration": 3, "total_lo')
    assert command("--resume", "SOLVER.MAX_ITER", 5)[0] == 0
    lines = [json.loads(x) for x in file.read_text().splitlines()]
    assert lines[0] == json.loads(whole.splitlines()[0]) and lines[-1]["iteration"] == 4


# The log has everything, once


def test_what_is_said_while_data_are_read_is_in_the_log_once(command):
    content = json.loads((command.data / "train.json").read_text())
    content["annotations"][1]["segmentation"] = [[5, 12, 23, 12, 40, 12]]  # a line
    (command.data / "train.json").write_text(json.dumps(content))
    code, _, said = command()
    assert code == 0
    for text in ((command.out / "log.txt").read_text(), said):
        assert len([x for x in text.splitlines() if "WARNING" in x and "train.json" in x]) == 1


def test_two_runs_in_one_process_have_a_log_each(command, tmp_path):
    assert command()[0] == 0
    first = (command.out / "log.txt").read_bytes()
    code, _, said = command(out=tmp_path / "other")
    assert code == 0
    assert (command.out / "log.txt").read_bytes() == first
    assert said.count("Starting training from iteration 0") == 1


def test_loggers_are_as_before(command):
    loggers = [logging.getLogger(name) for name in ("solo_d2", "detectron2", "fvcore")]
    assert command()[0] == 0
    assert [(x.propagate, x.handlers) for x in loggers] == [(True, [])] * 3


def test_warnings_before_a_refusal_come_before_its_line(command):
    content = json.loads((command.data / "train.json").read_text())
    content["annotations"][1]["segmentation"] = [[5, 12, 23, 12, 40, 12]]
    (command.data / "train.json").write_text(json.dumps(content))
    code, line, said = command("MODEL.WEIGHTS", "no/such.pth")
    assert code == 2 and "no/such.pth" in line
    assert len([x for x in said.splitlines() if x.startswith("WARNING") and "train.json" in x]) == 1


def test_messages_name_the_file_of_own_data(command):
    other = json.loads((command.data / "train.json").read_text())
    other["categories"] = other["categories"][::-1]
    other["categories"][0]["name"] = "z"
    (command.data / "val.json").write_text(json.dumps(other))
    code, line, _ = command(val=command.data / "val.json")
    assert code == 2 and "val.json" in line and "own_" not in line


# Keys of the solver, in any trainer


CLIP = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.5)
FULL = (*CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model")


@pytest.mark.parametrize("trainer", [SOLOTrainer, DefaultTrainer])
@pytest.mark.parametrize(
    ("overrides", "kind", "rates"),
    [
        pytest.param((), "SGD", {0.002}, id="default"),
        pytest.param(("SOLVER.OPTIMIZER", "ADAMW"), "AdamW", {0.002}, id="AdamW"),
        pytest.param(("SOLVER.BACKBONE_MULTIPLIER", 0.25), "SGD", {0.002, 0.0005}, id="backbone"),
        pytest.param(
            ("SOLVER.OPTIMIZER", "ADAMW", "SOLVER.BACKBONE_MULTIPLIER", 0.25, *CLIP),
            "AdamW", {0.002, 0.0005}, id="both, clipped",
        ),
        pytest.param(("SOLVER.OPTIMIZER", "ADAMW", *FULL), "AdamW", {0.002}, id="full_model"),
    ],
)  # fmt: skip
def test_optimizers_are_those_of_the_config(trainer, overrides, kind, rates):
    cfg = runs.tiny_config("SOLVER.BASE_LR", 0.002, *overrides)
    optimizer = trainer.build_optimizer(cfg, tiny_model())
    assert kind_of(optimizer) == kind
    assert {group["lr"] for group in optimizer.param_groups} == rates


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("SOLVER.OPTIMIZER", "ADAM"), r"SOLVER\.OPTIMIZER must be .*'ADAM'"),
        (
            (*CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "model"),
            r"CLIP_TYPE must be one of value, norm, full_model, got 'model'",
        ),
        (("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.0, *CLIP[:2]), "CLIP_VALUE must be > 0, got 0"),
    ],
)
def test_detectron2s_trainer_names_bad_keys_too(overrides, said):
    with pytest.raises(ValueError, match=said):
        DefaultTrainer.build_optimizer(runs.tiny_config(*overrides), tiny_model())


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_flat_cosine_stays_and_falls(share):
    """By hand: 1 up to the share, then (1 + cos(pi * t)) / 2 of the rest; Detectron2 calls it."""
    cfg = runs.tiny_config(
        *("SOLVER.LR_SCHEDULER_NAME", "WarmupFlatCosineLR", "SOLVER.FLAT_SHARE", share),
        *("SOLVER.MAX_ITER", 100, "SOLVER.WARMUP_ITERS", 10, "SOLVER.WARMUP_FACTOR", 0.5),
        *("SOLVER.BASE_LR", 2.0),
    )
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    schedule = DefaultTrainer.build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [
        1 + math.cos(math.pi * max(0, (t / 100 - share) / (1 - share))) for t in range(10, 100)
    ]
    assert rates[10:] == pytest.approx(expected)
    assert rates[0] == pytest.approx(1.0)


def test_other_configs_keep_detectron2s_optimizer():
    cfg = get_cfg()
    assert type(DefaultTrainer.build_optimizer(cfg, torch.nn.Linear(2, 2))) is torch.optim.SGD


@pytest.mark.parametrize("optimizer", ["SGD", "ADAMW"])
@pytest.mark.parametrize("scale", [0.25, 8.0])
def test_full_model_clipping_limits_the_norm_of_all_gradients(optimizer, scale):
    """By hand: n gradients of g have the norm g * sqrt(n); those above 0.5 become 0.5."""
    model = tiny_model()
    made = DefaultTrainer.build_optimizer(
        runs.tiny_config("SOLVER.OPTIMIZER", optimizer, *FULL), model
    )
    parameters = [p for group in made.param_groups for p in group["params"]]
    count = sum(p.numel() for p in parameters)
    for p in parameters:
        p.grad = torch.full_like(p, scale / math.sqrt(count))
    made.step()
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in parameters))
    assert norm == pytest.approx(min(scale, 0.5), rel=1e-3)  # torch sums in float32


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("DATASETS.TRAIN_SHARES", [1]), "DATASETS.TRAIN_SHARES"),
        (("DATALOADER.SKIP_UNREADABLE", True), "DATALOADER.SKIP_UNREADABLE"),
        (("SOLVER.CHECKPOINTS_TO_KEEP", 2), "SOLVER.CHECKPOINTS_TO_KEEP"),
        (("VIS_PERIOD", 5), "VIS_PERIOD"),
        (("INPUT.RESIZE_FILTER", "opencv"), "INPUT.RESIZE_FILTER"),
        (("SOLVER.EMA.ENABLED", True), "SOLVER.EMA.ENABLED"),
        (("INPUT.LSJ.ENABLED", True), "INPUT.LSJ.ENABLED"),
        (("INPUT.COPY_PASTE.ENABLED", True), "INPUT.COPY_PASTE.ENABLED"),
        (("MODEL.SOLO.NUM_CLASSES", 5), "NUM_CLASSES is 5, the dataset faults_training has 3"),
    ],
)
def test_what_detectron2s_trainer_does_not_know_is_told(caplog, overrides, said):
    cfg = runs.tiny_config("DATASETS.TRAIN", (runs.NAME,), *overrides)
    DefaultTrainer.build_optimizer(cfg, tiny_model())
    assert said in caplog.text
    caplog.clear()
    DefaultTrainer.build_optimizer(runs.tiny_config(), tiny_model())
    assert caplog.text == ""


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("INPUT.FORMAT", "RGB", "INPUT.MASK_FORMAT", "polygon"),
        SOFT,
    ],
    ids=["bitmasks", "polygons, RGB", "mattes"],
)
def test_pictures_of_the_training_reach_tensorboard(tmp_path, monkeypatch, overrides):
    drawn = []
    monkeypatch.setattr(
        "torch.utils.tensorboard.SummaryWriter.add_image",
        lambda _, name, image, step: drawn.append((name, image.shape, image.dtype, step)),
    )
    short = ("SOLVER.MAX_ITER", 4, "SOLVER.STEPS", ())
    trainer, steps, _ = train(config(tmp_path, "VIS_PERIOD", 2, *short, *overrides))
    assert [(name, dtype, step) for name, _, dtype, step in drawn] == [
        ("found | labelled", np.uint8, 1),
        ("found | labelled", np.uint8, 3),
    ]
    assert all(shape[0] == 3 and min(shape[1:]) >= 48 for _, shape, _, _ in drawn)
    assert trainer.model.training
    assert steps == train(config(tmp_path / "without", *short, *overrides))[1]  # it changes nothing


@pytest.mark.parametrize("category", [3, -1, None, "cup"])
def test_classes_of_sets_registered_by_a_function_are_checked(category):
    """Detectron2 knows no names of them, and CUDA would stop without a word about the data."""
    record = {"file_name": "a.png", "height": 8, "width": 8, "image_id": 0}
    record["annotations"] = [{"category_id": category, "bbox": [0, 0, 4, 4], "bbox_mode": 1}]
    DatasetCatalog.register("faults_function", lambda: [record])
    try:
        cfg = runs.tiny_config("DATASETS.TRAIN", ("faults_function",))
        with pytest.raises(
            ValueError, match=r"faults_function has an annotation of class .* in a\.png; "
        ):
            SOLOTrainer.build_train_loader(cfg)
    finally:
        runs.forget("faults_function")


# Several processes stop together


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folder and endings of the runs of `two_processes`."""
    root = tmp_path_factory.mktemp("two")
    with FreshProcess(280) as process:
        kind, endings = process(two_processes.main, root)
    assert kind == "value", endings
    return root, endings


def saved(folder, iteration):
    return torch.load(folder / f"model_{iteration:07d}.pth", weights_only=True)


@pytest.mark.slow
def test_one_signal_stops_both_processes_at_the_same_iteration(two):
    root, endings = two
    assert endings["stopped"] == [143, 143]
    assert last_iteration(root / "stopped") is not None
    assert endings["resumed"] == [0, 0]
    whole, resumed = (
        torch.load(root / name / "model_final.pth", weights_only=True)["model"]
        for name in ("whole", "stopped")
    )
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


@pytest.mark.slow
def test_both_stop_where_one_has_no_image(two):
    root, endings = two
    assert endings["unreadable"] == ["LoadingError", "LoadingError"]
    assert saved(root / "unreadable", 1)["iteration"] == 1


@pytest.mark.slow
def test_no_process_waits_for_a_dead_one(two):
    root, endings = two
    assert endings["killed"][1] == -signal.SIGKILL
    assert endings["killed"][0] not in (0, -signal.SIGALRM)
    assert saved(root / "killed", 1)["iteration"] == 1


@pytest.mark.slow
def test_fewer_processes_go_on_behind_the_images_seen(two):
    root, endings = two
    assert endings["alone"] == [0]
    before = torch.load(root / "whole" / "model_final.pth", weights_only=True)
    after = torch.load(root / "alone" / "model_final.pth", weights_only=True)
    counts = [x["trainer"]["solo_d2"]["data"]["position"] for x in (before, after)]
    seen = [x["drawn"] - len(x["waiting"]) for x in counts]
    assert seen == [6 * 2, 8 * 2]


@pytest.mark.slow
def test_two_processes_with_two_parts_each_are_one_with_four(two):
    root, endings = two
    assert (endings["accumulated"], endings["parts"]) == ([0, 0], [0])
    together, alone = (
        torch.load(root / name / "model_final.pth", weights_only=True)["model"]
        for name in ("accumulated", "parts")
    )
    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, rtol=1e-4, atol=1e-6)


# Errors of the processes that load images, also of an evaluation


FROM_A_WORKER = """Caught ValueError in DataLoader worker process 1.
Original Traceback (most recent call last):
  File "x.py", line 3, in y
    raise z
ValueError: a.png: damaged or truncated
"""


def test_a_traceback_of_a_worker_becomes_its_last_line():
    assert one_line(ValueError(FROM_A_WORKER)) == "a.png: damaged or truncated"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("a"), 2),
        (FileNotFoundError("a"), 1),
        (FloatingPointError("a"), 1),
        (MemoryError(), 1),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(143), 143),
        (RuntimeError("a bug"), None),
        (KeyError("a bug"), None),
    ],
)
def test_exit_codes(error, code):
    assert exit_code(error) == code


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_of_the_evaluation_is_one_line(command, workers):
    """What was trained until then is saved."""
    text = (command.data / "train.json").read_text()
    for number in range(7):
        shutil.copy(command.data / f"{number}.png", command.data / f"val{number}.png")
    (command.data / "val.json").write_text(text.replace('"file_name": "', '"file_name": "val'))
    (command.data / "val1.png").write_bytes(b"no picture")
    code, line, said = command(
        "TEST.EVAL_PERIOD", 2, "DATALOADER.NUM_WORKERS", workers, val=command.data / "val.json"
    )
    assert code in (1, 2) and str(command.data / "val1.png") in line
    assert "Traceback" not in said and "Stopped after iteration 1" in said
    assert last_iteration(command.out) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_goes_on_after_it_was_closed(tmp_path, workers):
    whole = first_batches(config(tmp_path), 5)
    loader = SOLOTrainer.build_train_loader(config(tmp_path, "DATALOADER.NUM_WORKERS", workers))
    batches = []
    for _ in range(5):
        batches.append(next(loader))
        loader.close()
    assert [[x["file_name"] for x in batch] for batch in batches] == [
        [x[0] for x in batch] for batch in whole
    ]
    assert all(torch.equal(a[0]["image"], b[0][1]) for a, b in zip(batches, whole, strict=True))


def test_nohup_keeps_its_word(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _, steps, code = train(config(tmp_path), extra=[At(2, send(signal.SIGHUP))])
        assert (len(steps), code) == (10, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        error, iteration = stopped(config(tmp_path / "other"), At(2, send(signal.SIGHUP)))
        assert (error.code, iteration) == (129, 1)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_detectron2s_main_branch_goes_on_as_well(tmp_path, monkeypatch):
    """There `DefaultTrainer` asks the inner trainer, and makes the loader's iterator late."""
    whole, steps, _ = train(config(tmp_path / "whole"))

    def state_dict(self):
        return {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state):
        raise AssertionError("it would let the checkpoint's rates hold over the config's")

    def iterator(self):
        if self.__dict__.get("_iterator") is None:
            self.__dict__["_iterator"] = iter(self.data_loader)
        return self.__dict__["_iterator"]

    monkeypatch.setattr(DefaultTrainer, "state_dict", state_dict, raising=False)
    monkeypatch.setattr(DefaultTrainer, "load_state_dict", load_state_dict, raising=False)
    monkeypatch.setattr(
        SimpleTrainer, "_data_loader_iter", property(iterator, lambda *_: None), raising=False
    )
    _, first, _ = train(config(tmp_path / "halves"), stop=5)
    resumed, second, _ = train(config(tmp_path / "halves"), resume=True)
    assert first + second == steps
    assert all(torch.equal(x, weights(resumed)[key]) for key, x in weights(whole).items())
