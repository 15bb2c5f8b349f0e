"""Which graphs are recorded and replayed; what a GPU does with one is tested where there is one."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from builders import tiny_model
from torch import nn
from torch.utils._pytree import tree_leaves

from solo_d2.layers import budgets
from solo_d2.modeling.cuda_graphs import CudaGraphs, _Graph, compile

PANOPTIC = (
    *("MODEL.META_ARCHITECTURE", "PanopticSOLO", "MODEL.SEM_SEG_HEAD.NAME", "SOLOSemSegHead"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4),
)


class Replay:
    """A graph of the CPU: does again what was recorded."""

    def __init__(self, run, pixels, outputs):
        self.run, self.pixels, self.outputs = run, pixels, outputs

    def replay(self):
        self.outputs.copy_(self.run(self.pixels))


@pytest.fixture
def recorded(monkeypatch):
    """Sizes for which graphs were recorded."""
    sizes = []

    def record(self, run, pixels):
        sizes.append(tuple(pixels.shape))
        fixed = pixels.clone()
        outputs = run(fixed)
        return _Graph(Replay(run, fixed, outputs), fixed, outputs)

    monkeypatch.setattr(CudaGraphs, "_record", record)
    return sizes


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_a_size_is_recorded_once_and_replayed_with_new_pixels(recorded):
    graphs = CudaGraphs(lambda x: x * 2, lambda: 0)
    for seed, size in enumerate([(1, 2), (1, 3), (1, 2), (1, 2)]):
        pixels = torch.full(size, float(seed))
        assert torch.equal(graphs(pixels), pixels * 2)
    assert recorded == [(1, 2), (1, 3)]


def test_the_size_that_was_not_used_for_longest_goes(recorded):
    graphs = CudaGraphs(lambda x: x + 1, lambda: 0, max_sizes=2)
    for width in (1, 2, 1, 3, 1, 2):
        graphs(images(1, width))
    assert recorded == [(1, 1), (1, 2), (1, 3), (1, 2)]
    assert len(graphs.graphs) == 2


def test_another_state_is_recorded_anew(recorded):
    state = ["a"]
    graphs = CudaGraphs(lambda x: x, lambda: state[0])
    for state[0] in ("a", "b", "a"):
        graphs(images(1, 2))
    assert recorded == [(1, 2)] * 2


def test_what_cannot_be_recorded_runs_eagerly_after_one_line(monkeypatch, caplog):
    def record(self, run, pixels):
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors")

    monkeypatch.setattr(CudaGraphs, "_record", record)
    graphs = CudaGraphs(lambda x: x * 3, lambda: 0)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(graphs(images(1, 2)), images(1, 2) * 3)
        graphs(images(1, 2))
    (line,) = caplog.messages
    assert line == (
        "no CUDA graph for input 1x2, which runs eagerly: "
        "operation not permitted when stream is capturing"
    )


def test_a_graph_that_lacks_an_operation_is_not_used(monkeypatch, caplog):
    """The second half of the operations runs when recording, and is no part of the graph."""

    def record(self, run, pixels):
        fixed = pixels.clone()
        outputs = run(fixed)
        return _Graph(Replay(lambda x: outputs.clone(), fixed, outputs), fixed, outputs)

    monkeypatch.setattr(CudaGraphs, "_record", record)
    graphs = CudaGraphs(lambda x: x * 3, lambda: 0)
    pixels = torch.tensor([[1.0, 2.0]])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(graphs(pixels), pixels * 3)
    (line,) = caplog.messages
    assert "some operation was not recorded" in line


def test_fused_kernels_are_replayed(recorded, caplog):
    graphs = CudaGraphs(lambda x: x * 2, lambda: 0, fused=lambda x: x * 2.001)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(graphs(images(1, 2)), images(1, 2) * 2.001)
    assert caplog.messages == []


def no_compiler(pixels):
    raise RuntimeError("no C++ compiler\nset CXX")


@pytest.mark.parametrize(
    ("fused", "reason"),
    [
        (no_compiler, "no C++ compiler"),
        (
            lambda x: x * 3,
            "a replay gives other results, so that some operation was not recorded",
        ),
    ],
)
def test_without_fused_kernels_the_function_itself_is_recorded(recorded, caplog, fused, reason):
    graphs = CudaGraphs(lambda x: x * 2, lambda: 0, fused=fused)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(graphs(images(1, 2)), images(1, 2) * 2)
    assert caplog.messages == [f"no fused kernels for input 1x2, which goes without: {reason}"]
    assert next(iter(graphs.graphs.values())) is not None


def test_on_a_cpu_a_line_says_that_nothing_is_compiled(caplog):
    model = tiny_model().eval()
    with caplog.at_level(logging.WARNING):
        assert compile(model) is model
    assert model.runner is None
    assert caplog.messages == [
        "compile does nothing on 'cpu': it records CUDA graphs; move the model to a GPU first"
    ]


@pytest.mark.parametrize("model", [nn.ReLU(), tiny_model()])
def test_only_a_solo_that_predicts_is_compiled(model):
    with pytest.raises(
        ValueError, match=r"SOLO in evaluation mode .*got (ReLU|a model in training)"
    ):
        compile(model)


def test_no_graph_at_all_is_refused():
    with pytest.raises(ValueError, match="max_sizes must be at least 1, got 0"):
        CudaGraphs(lambda x: x, lambda: 0, max_sizes=0)


def test_a_runner_finds_what_the_model_finds_image_by_image():
    model = tiny_model("MODEL.SOLO.MASK_THRESH_TEST", 0.2, "MODEL.SOLO.PRIOR_PROB", 0.3).eval()
    kept = []

    def run(pixels):
        """As a graph does: the next result is written over the last one."""
        outputs = model.run_fixed(pixels)
        if not kept:
            kept.append(outputs)
        for mine, new in zip(kept[0].instances, outputs.instances, strict=True):
            mine.copy_(new)
        return kept[0]

    inputs = [[{"image": images(3, 64, 96) * 255}], [{"image": images(3, 96, 64).mT * 255}]]
    with torch.no_grad():
        expected = [model(x)[0]["instances"] for x in inputs]
        model.runner = run
        found = [model(x)[0]["instances"] for x in inputs]
    assert len(expected[0]) > 2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.scores, other.scores)
        assert torch.equal(one.pred_classes, other.pred_classes)
        assert (one.pred_masks != other.pred_masks).float().mean() < 1e-4


def test_logits_that_are_kept_are_not_those_of_the_graph(monkeypatch):
    monkeypatch.setattr(budgets, "SEMANTIC_VALUES", 1)
    model = tiny_model(*PANOPTIC).eval()
    made = []

    def run(pixels):
        made.append(model.run_fixed(pixels))
        return made[0]

    model.runner = run
    with torch.no_grad():
        (result,) = model([{"image": images(3, 64, 96) * 255}])
    kept = result["sem_seg"].logits
    assert torch.equal(kept, made[0].semantic[0])
    assert kept.data_ptr() != made[0].semantic.data_ptr()


@pytest.mark.parametrize("overrides", [(), PANOPTIC])
def test_a_compiled_network_gives_what_the_network_gives(overrides):
    """Value by value, and in the same order, without an operation that is left to Python."""
    model = tiny_model(*overrides).eval()
    network = torch.compile(model.run_network, backend="eager", dynamic=False, fullgraph=True)
    pixels = images(2, 3, 64, 96)
    found, expected = (tree_leaves(model.run_fixed(pixels, network=n)) for n in (network, None))
    assert len(found) == len(expected) > 10
    for one, other in zip(found, expected, strict=True):
        assert one is other is None or torch.equal(one, other)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fuse", [False, True])
def test_a_compiled_model_finds_what_it_finds_eagerly(fuse):
    model = tiny_model("MODEL.SOLO.MASK_THRESH_TEST", 0.2, "MODEL.SOLO.PRIOR_PROB", 0.3).eval()
    model.cuda()
    inputs = [{"image": images(3, 64, 96) * 255}]
    with torch.no_grad():
        expected = model(inputs)[0]["instances"]
        compile(model, [(64, 96)], fuse=fuse)
        for _ in range(2):
            found = model(inputs)[0]["instances"]
            torch.testing.assert_close(found.scores, expected.scores)
            assert torch.equal(found.pred_masks, expected.pred_masks)
        assert len(model.runner.graphs) == 1
        model.settings = replace(model.settings, score_thresh=0.999)
        assert len(model(inputs)[0]["instances"]) == 0
