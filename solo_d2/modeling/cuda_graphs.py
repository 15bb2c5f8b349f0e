"""The network and its post-processing as one CUDA graph per input size.

A GPU is faster than a host that launches hundreds of kernels for it one by one; a graph is launched
at once.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .meta_arch import SOLO
from .meta_arch.inference import FixedOutputs

_logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=nn.Module)

_WARM_UPS = 3


class _Graph(NamedTuple):
    """A recorded graph; a replay reads `pixels` and writes `outputs`."""

    graph: Any
    pixels: Tensor
    outputs: Any


class CudaGraphs:
    """Replay a function of the pixels of a batch, recorded once for every size.

    Args:
        run: the function, of (N, C, H, W); must not wait for the GPU.
        state: what the recorded graphs hold for besides the size, e.g. thresholds.
        max_sizes: graphs to keep; the one that was not used for longest goes first.
        look: at what a replay must give as the function does, of its result. Some operations are
            not recorded although nothing says so, such as torchvision's deformable convolution.
        fused: the same function by faster kernels, recorded in its place if it can be.

    Attributes:
        graphs: by size, type, autocast and state.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Any],
        state: Callable[[], Hashable],
        max_sizes: int = 8,
        look: Callable[[Any], Any] = lambda outputs: outputs,
        fused: Callable[[Tensor], Any] | None = None,
    ) -> None:
        if max_sizes < 1:
            raise ValueError(f"max_sizes must be at least 1, got {max_sizes}")
        self.run = run
        self.state = state
        self.max_sizes = max_sizes
        self.look = look
        self.fused = fused
        self.graphs: OrderedDict[Hashable, _Graph | None] = OrderedDict()

    def __call__(self, pixels: Tensor) -> Any:
        """Run on pixels; the result is overwritten by the next call."""
        autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        key = (tuple(pixels.shape), pixels.dtype, pixels.device, autocast, self.state())
        if key not in self.graphs:
            while len(self.graphs) >= self.max_sizes:
                self.graphs.popitem(last=False)
            self.graphs[key] = self._best(pixels)
        self.graphs.move_to_end(key)
        recorded = self.graphs[key]
        if recorded is None:
            return self.run(pixels)
        with torch.no_grad():
            recorded.pixels.copy_(pixels)
        recorded.graph.replay()
        return recorded.outputs

    def _best(self, pixels: Tensor) -> _Graph | None:
        recorded = None
        if self.fused is not None:
            recorded = self._try_to_record(self.fused, pixels, "fused kernels", "goes without")
        return recorded or self._try_to_record(self.run, pixels, "CUDA graph", "runs eagerly")

    def _try_to_record(
        self, run: Callable[[Tensor], Any], pixels: Tensor, what: str, instead: str
    ) -> _Graph | None:
        try:
            recorded = self._record(run, pixels)
            if self._repeats(recorded, pixels):
                return recorded
            reason = "a replay gives other results, so that some operation was not recorded"
        except RuntimeError as error:  # an operation that cannot be recorded, or no compiler
            reason = str(error).strip().partition("\n")[0]
        size = "x".join(map(str, pixels.shape))
        _logger.warning("no %s for input %s, which %s: %s", what, size, instead, reason)
        return None

    def _repeats(self, recorded: _Graph, pixels: Tensor) -> bool:
        """Compare a replay on other pixels than the recorded ones with a run on these."""
        with torch.no_grad():
            recorded.pixels.copy_(pixels.flip(-1))
            recorded.graph.replay()
            found, expected = self.look(recorded.outputs), self.look(self.run(pixels.flip(-1)))
        pairs = zip(tree_leaves(found), tree_leaves(expected), strict=True)
        return all(_near(x.float(), y.float()) for x, y in pairs if isinstance(x, Tensor))

    def _record(self, run: Callable[[Tensor], Any], pixels: Tensor) -> _Graph:
        dtype = torch.get_autocast_dtype("cuda")
        enabled = torch.is_autocast_enabled("cuda")
        # Weights that autocast has cast and cached would not be part of the graph; and a graph
        # that was recorded in inference mode could not be fed outside of it.
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False),
        ):
            fixed = pixels.clone()
            stream = torch.cuda.Stream(pixels.device)
            stream.wait_stream(torch.cuda.current_stream(pixels.device))
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    run(fixed)
            torch.cuda.current_stream(pixels.device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = run(fixed)
        return _Graph(graph, fixed, outputs)


def _near(found: Tensor, expected: Tensor) -> bool:
    """Whether the norm of a difference is at most a hundredth of that of the tensor."""
    return bool((found - expected).norm() <= 0.01 * expected.norm() + 1e-6)


def compile(
    model: Model,
    sizes: Iterable[tuple[int, int]] = (),
    *,
    batch_size: int = 1,
    max_sizes: int = 8,
    fuse: bool = False,
) -> Model:
    """Let a model on a GPU replay recorded graphs: its instances are the same, and come sooner.

    The first image of a size takes longer, since the graph is recorded; every graph holds the
    memory of one run. A size whose graph cannot be recorded, or does not give the same again, runs
    eagerly, which one line says; so do models with deformable convolutions. Compile last: graphs
    are recorded anew after a change of the settings or of where the weights lie. Elsewhere than on
    a GPU nothing is changed, which one line says.

    Args:
        model: in evaluation mode.
        sizes: (height, width) of images as the network gets them, to record now.
        batch_size: images at once of these.
        max_sizes: graphs to keep.
        fuse: let `torch.compile` write kernels that do many operations of the network at once; the
            first image of a size then takes about a minute. Sums are rounded in another order.

    Returns:
        The same model.

    Raises:
        ValueError: the model is no `SOLO` in evaluation mode, or its NMS waits for the host.

    Example:
        >>> from solo_d2.testing import tiny_config
        >>> model = compile(SOLO(tiny_config()).eval())  # a line says that nothing is compiled
    """
    if not isinstance(model, SOLO) or model.training:
        kind = "a model in training mode" if isinstance(model, SOLO) else type(model).__name__
        raise ValueError(f"compile expects a SOLO in evaluation mode (.eval()), got {kind}")
    if model.device.type != "cuda":
        _logger.warning(
            "compile does nothing on %r: it records CUDA graphs; move the model to a GPU first",
            model.device.type,
        )
        return model
    if not model.uses_fixed(model.device):
        raise ValueError(
            'compile needs MODEL.SOLO.NMS_TYPE "matrix" or "fast"; the host takes part in others'
        )

    def state() -> Hashable:
        return model.settings, model.pixel_mean.data_ptr(), next(model.parameters()).data_ptr()

    def look(outputs: FixedOutputs) -> Any:
        return outputs.predictions, outputs.semantic, outputs.instances.scores

    fused = None
    if fuse:  # kernels of their own for every size: those for all sizes take minutes to write
        network = torch.compile(model.run_network, dynamic=False)
        fused = partial(model.run_fixed, network=network)
    model.runner = CudaGraphs(model.run_fixed, state, max_sizes, look, fused)
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        shape = len(model.pixel_mean), *size
        pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        with torch.no_grad():
            model([{"image": pixels}] * batch_size)
    return model
