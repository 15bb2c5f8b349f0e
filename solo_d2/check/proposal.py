"""Propose grids, scale ranges, input size and limits that fit a dataset, and say what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401 - registers its operators
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from torch.utils.flop_counter import FlopCounterMode

from ..modeling.grid import GridSpec
from ..modeling.meta_arch import SOLO
from .claims import Frames, claim, network_frames, network_of, with_grid
from .measure import Objects
from .search import COARSER, FINER, Search

__all__ = ["FINDABLE", "TARGET", "Advice", "Proposal", "propose", "with_settings"]

TARGET = 0.995
"""Share of the objects that are to own a cell."""

FINDABLE = 0.95
"""Share of the objects that are to have enough mask pixels to be found."""

LARGER = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Factors of the input's size that are tried."""

_SAMPLE = 20_000  # objects of the images that the search counts; the result is counted over all
_MARGINS = (0.0, 0.001, 0.002, 0.004)  # added to the target where that of a sample is not enough
_WORTHWHILE = 0.95  # cost above which fewer cells are not worth a word
_LIMITS = (100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000)


@dataclass(frozen=True)
class Proposal:
    """A config, as a change of another one.

    Attributes:
        settings: KEY -> value; empty for the config itself.
        with_cell: percent of the objects that own a cell.
        findable: percent of the objects that have enough mask pixels to be found.
        cost: multiplications of the network, relative to the config's.
    """

    settings: dict[str, Any]
    with_cell: float
    findable: float
    cost: float

    @property
    def suffices(self) -> bool:
        """Whether both shares are what they are to be."""
        return self.with_cell >= 100 * TARGET and self.findable >= 100 * FINDABLE


@dataclass(frozen=True)
class Advice:
    """What a dataset needs.

    Attributes:
        now: the config as it is.
        change: what reaches `TARGET` and `FINDABLE`; None where the config suffices.
        cheaper: for a config that suffices, coarser grids that do, too, where there are some.
    """

    now: Proposal
    change: Proposal | None
    cheaper: Proposal | None


def propose(cfg: CfgNode, network: SOLO, objects: Objects) -> Advice:
    """Search the least change with which objects are learnt and can be found.

    The input grows until `FINDABLE` of the objects have enough mask pixels, grids grow until
    `TARGET` own a cell. Where no change is enough, the best share that can be reached takes the
    target's place.

    Args:
        cfg: of the network.
        network: of `network_of`.
        objects: measured by `measure_objects`, at least one.
    """
    finder = _Finder(cfg, network, objects)
    limits = _limits(cfg, objects)
    now = finder.proposal(network.assigner.grid, 1.0, {})
    if not now.suffices:
        return Advice(now, finder.proposal(*finder.grow(), limits), None)
    change = replace(now, settings=limits) if limits else None
    fewer = finder.fewer()
    cheaper = None if fewer is None else finder.proposal(fewer, 1.0, limits)
    if cheaper is not None and cheaper.cost > _WORTHWHILE:
        cheaper = None
    return Advice(now, change, cheaper)


class _Finder:
    """Runs searches over a sample, and counts what they find over all objects."""

    def __init__(self, cfg: CfgNode, network: SOLO, objects: Objects) -> None:
        self._cfg, self._network, self._objects = cfg, network, objects
        self._sample = _draw_images(objects)
        self._searches: dict[float, Search] = {}

    def frames(self, sizes: np.ndarray, factor: float) -> Frames:
        short, longest = _input_size(self._cfg, factor)
        return network_frames(sizes, short, longest, self._network.size_divisibility)

    def shares(self, grid: GridSpec, factor: float) -> tuple[float, float]:
        """Shares of all objects that own a cell, and that have enough mask pixels."""
        frames = self.frames(self._objects.sizes, factor)
        found = claim(self._objects, frames, with_grid(self._network.assigner, grid))
        return 1.0 - float(found.lost.mean()), 1.0 - float(found.dropped.mean())

    def grow(self) -> tuple[GridSpec, float]:
        """The fewest cells, at the smallest factor of the input at which there are enough."""
        grid = self._network.assigner.grid
        factors = LARGER if self._cfg.INPUT.MIN_SIZE_TEST else LARGER[:1]
        best = {f: (self._search(f).finest_share(), self.shares(grid, f)[1]) for f in factors}
        # What is out of reach is not paid for: of the best share half a percent is left.
        most = [max(shares) - (1 - TARGET) for shares in zip(*best.values(), strict=True)]
        target, findable = min(TARGET, most[0]), min(FINDABLE, most[1])
        factor = next(
            (f for f in factors if best[f][0] >= target and best[f][1] >= findable), factors[-1]
        )
        return self._least(factor, target, FINER, move=True) or grid, factor

    def fewer(self) -> GridSpec | None:
        """The fewest cells at the config's input and ranges, with coarser grids than its own."""
        return self._least(1.0, TARGET, COARSER, move=False)

    def proposal(self, grid: GridSpec, factor: float, limits: dict[str, Any]) -> Proposal:
        """Settings of a grid and an input, with what they reach and cost."""
        settings: dict[str, Any] = {}
        own = self._network.assigner.grid
        if grid.num_grids != own.num_grids:
            settings["MODEL.SOLO.NUM_GRIDS"] = list(grid.num_grids)
        if grid.scale_ranges != own.scale_ranges:
            settings["MODEL.SOLO.SCALE_RANGES"] = [list(x) for x in grid.scale_ranges]
        settings |= _input_settings(self._cfg, factor) if factor != 1 else {}
        cost = self._work(settings, factor) / self._work({}, 1.0) if settings else 1.0
        with_cell, findable = self.shares(grid, factor)
        return Proposal({**settings, **limits}, 100 * with_cell, 100 * findable, cost)

    def _search(self, factor: float) -> Search:
        if factor not in self._searches:
            frames = self.frames(self._sample.sizes, factor)
            self._searches[factor] = Search(self._sample, frames, self._network.assigner)
        return self._searches[factor]

    def _least(
        self, factor: float, target: float, factors: tuple[float, ...], *, move: bool
    ) -> GridSpec | None:
        """The fewest cells whose share of all objects, not of the sample alone, is enough."""
        best = None
        for margin in _MARGINS:
            found = self._search(factor).best(min(1.0, target + margin), factors, move=move)
            if found is None:
                break
            best = found
            if self.shares(best, factor)[0] >= target:
                break
        return best

    def _work(self, settings: dict[str, Any], factor: float) -> float:
        """Floating-point operations of the network for an image of the mean size."""
        network = network_of(with_settings(self._cfg, settings))
        canvas = self.frames(self._objects.sizes, factor).canvases
        divisor = network.size_divisibility
        width, height = (max(divisor, divisor * round(x / divisor)) for x in canvas.mean(0))
        channels = len(network.pixel_mean)
        images = torch.zeros((1, channels, height, width), device="meta")
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_COUNTED) as counter:
            network.predict(network.backbone(images), ImageList(images, []))
        return float(counter.get_total_flops())


def _deformed(_: Any, weight: torch.Size, *__: Any, out_shape: torch.Size, **___: Any) -> int:
    """Operations of a deformable convolution, those of a plain one of its shape."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


_COUNTED = {torch.ops.torchvision.deform_conv2d: _deformed}


def with_settings(cfg: CfgNode, settings: Mapping[str, Any]) -> CfgNode:
    """Return a config with other values."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([x for pair in settings.items() for x in pair])
    return cfg


def _draw_images(objects: Objects) -> Objects:
    """The objects of images drawn at random, about `_SAMPLE` of them."""
    order = np.random.default_rng(0).permutation(len(objects.sizes))
    count = int(np.searchsorted(objects.per_image[order].cumsum(), _SAMPLE)) + 1
    return objects.of_images(np.sort(order[:count]))


def _input_size(cfg: CfgNode, factor: float) -> tuple[int, int]:
    """`INPUT.MIN_SIZE_TEST` and `INPUT.MAX_SIZE_TEST`, larger."""
    return round(cfg.INPUT.MIN_SIZE_TEST * factor), round(cfg.INPUT.MAX_SIZE_TEST * factor)


def _input_settings(cfg: CfgNode, factor: float) -> dict[str, Any]:
    short, longest = _input_size(cfg, factor)
    jitter = cfg.INPUT.LSJ
    crop = {"INPUT.LSJ.SIZE": min(8192, round(jitter.SIZE * factor))} if jitter.ENABLED else {}
    return {
        "INPUT.MIN_SIZE_TEST": short,
        "INPUT.MAX_SIZE_TEST": longest,
        "INPUT.MIN_SIZE_TRAIN": tuple(round(x * factor) for x in cfg.INPUT.MIN_SIZE_TRAIN),
        "INPUT.MAX_SIZE_TRAIN": round(cfg.INPUT.MAX_SIZE_TRAIN * factor),
        **crop,
    }


def _limits(cfg: CfgNode, objects: Objects) -> dict[str, Any]:
    """Limits of instances that leave `TARGET` of the objects room; nothing where they do."""
    counts, given = objects.per_image, cfg.TEST.DETECTIONS_PER_IMAGE
    options = [given, *(x for x in _LIMITS if x > given), int(counts.max(initial=0))]
    enough = next(x for x in options if np.minimum(counts, x).sum() >= TARGET * counts.sum())
    if enough <= given:
        return {}
    before_nms = max(cfg.MODEL.SOLO.PRE_NMS_TOPK_TEST, 5 * enough)
    return {"TEST.DETECTIONS_PER_IMAGE": enough, "MODEL.SOLO.PRE_NMS_TOPK_TEST": before_nms}
