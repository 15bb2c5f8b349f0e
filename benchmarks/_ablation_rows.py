"""Shrink a row of the paper's tables to a small budget without losing what the table varies."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from _ablation_tables import Table
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

from solo_d2 import model_zoo
from solo_d2.model_zoo.model_zoo import load_config
from solo_d2.modeling.backbone import MergedBackbone, build_timm_fpn_backbone
from solo_d2.modeling.model_config import reset_unused_keys

BUDGETS = {"stamps": "Stamps/solov2_lite0.yaml", "shapes": "Shapes/solov2_lite0.yaml"}
FULL_SIZE = 800  # short side of the paper's inputs, which its sizes in pixels refer to
NORM_GROUPS = 32  # of "GN"
FULL_SCHEDULE = 270_000  # iterations of the paper's 3x schedule

HEAD, GRIDS, DEPTH = "MODEL.SOLO.HEAD", "MODEL.SOLO.NUM_GRIDS", "MODEL.SOLO.NUM_CONVS"
WIDTHS = ("MODEL.SOLO.CONV_DIM", "MODEL.SOLO.KERNEL_DIM", "MODEL.SOLO.MASK_FEATURE.CONV_DIM")
SIZES = tuple(f"INPUT.{end}_SIZE_{when}" for end in ("MIN", "MAX") for when in ("TRAIN", "TEST"))
ITERATIONS, BACKBONE, LATERALS = "SOLVER.MAX_ITER", "MODEL.BACKBONE.NAME", "MODEL.FPN.IN_FEATURES"
RULERS = ("INPUT.MIN_SIZE_TEST", ITERATIONS)  # of the budget; what a table varies scales with them
MERGED = {"build_merged_resnet_backbone": "build_merged_timm_backbone"}


@BACKBONE_REGISTRY.register()
def build_merged_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MergedBackbone:
    """Build the light counterpart of `build_merged_resnet_backbone`, for Table 4(a)."""
    bottom_up = build_timm_fpn_backbone(cfg, input_shape).bottom_up
    node = cfg.MODEL.FPN
    return MergedBackbone(bottom_up, node.IN_FEATURES, node.OUT_CHANNELS, node.NORM)


def flatten(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    """Return all values of a config by full key."""
    values: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, CfgNode):
            values.update(flatten(value, f"{prefix}{key}."))
        else:
            values[prefix + key] = value
    return values


def differing(configs: Sequence[CfgNode]) -> list[str]:
    """Return the keys whose values differ between configs, sorted."""
    flat = [flatten(cfg) for cfg in configs]
    return sorted(key for key in flat[0] if any(x[key] != flat[0][key] for x in flat))


def assign(cfg: CfgNode, key: str, value: Any) -> None:
    """Set a value by full key."""
    *path, last = key.split(".")
    for part in path:
        cfg = cfg[part]
    cfg[last] = value


def shrink(row: CfgNode, budget: CfgNode, varied: Sequence[str]) -> CfgNode:
    """Combine the budget's config with the `MODEL.SOLO` of a row.

    What the rows of the table vary stays as it is, and what they share gets the budget's size:

    - Widths and depth of the head: kept where the table varies them, otherwise (also where they
      differ with the kind of head) at most the budget's width, and half the depth.
    - Grids: kept where the table varies them, otherwise the budget's.
    - Scale ranges, and the input's sizes where the table varies any, are scaled to the budget's.
    - Iterations: where varied, in proportion, the 3x schedule being the budget's.
    - Backbone: the budget's; merged to one level where the row's is. Solver: the budget's.

    Args:
        row: the row's config as it is.
        budget: of `BUDGETS`, with the user's changes.
        varied: keys in which the rows of the table differ, see `differing`.

    Returns:
        A new config.
    """
    cfg = budget.clone()
    cfg.MODEL.SOLO = row.MODEL.SOLO.clone()
    cfg.MODEL.SOLO.NUM_CLASSES = budget.MODEL.SOLO.NUM_CLASSES
    mine, small = flatten(row), flatten(budget)
    ratio = budget.INPUT.MIN_SIZE_TEST / FULL_SIZE
    exact = set(varied) if HEAD not in varied else set(varied) - {*WIDTHS, DEPTH}
    for key in set(WIDTHS) - exact:
        assign(cfg, key, min(mine[key], small[key]))
    if DEPTH not in exact:
        cfg.MODEL.SOLO.NUM_CONVS = max(math.ceil(mine[DEPTH] / 2), row.MODEL.SOLO.NUM_COORD_CONVS)
    if GRIDS not in exact:
        assign(cfg, GRIDS, small[GRIDS])
    cfg.MODEL.SOLO.SCALE_RANGES = [
        [_scale(bound, ratio) for bound in bounds] for bounds in row.MODEL.SOLO.SCALE_RANGES
    ]
    for key in SIZES if exact.intersection(SIZES) else ():
        sizes = mine[key]
        scaled = (
            _scale(sizes, ratio) if isinstance(sizes, int) else [_scale(x, ratio) for x in sizes]
        )
        assign(cfg, key, scaled)
    if ITERATIONS in exact:
        assign(cfg, ITERATIONS, max(1, round(small[ITERATIONS] * mine[ITERATIONS] / FULL_SCHEDULE)))
    if BACKBONE in exact:
        assign(cfg, BACKBONE, MERGED.get(mine[BACKBONE], small[BACKBONE]))
        assign(cfg, LATERALS, mine[LATERALS])
    reset_unused_keys(cfg)  # the budget's sizes of kernels, on a head without
    return cfg


def dropped(varied: Sequence[str], shrunken: Sequence[CfgNode]) -> list[str]:
    """Return the varied keys that the budget makes equal."""
    return sorted(set(varied) - set(differing(shrunken)))


def _scale(pixels: float, ratio: float) -> int:
    """Scale pixels of the full input to the small one; 2048 and above mean no limit."""
    return round(pixels) if pixels >= 2048 else max(1, round(pixels * ratio))


def budget_config(kind: str, iterations: int | None, overrides: Sequence[str]) -> CfgNode:
    """Return the config of `BUDGETS` with the overrides of the command line.

    Raises:
        ValueError: unknown key or wrong value in `overrides`.
    """
    cfg = load_config(model_zoo.get_config_file(BUDGETS[kind]), overrides)
    if iterations:
        cfg.SOLVER.MAX_ITER = iterations
    return cfg


def resolve(
    table: Table, budget: CfgNode, overrides: Sequence[str]
) -> tuple[list[CfgNode], list[str]]:
    """Return the configs of a table's rows under the budget, and the keys that differ.

    Raises:
        ValueError: an override of a key that the table varies.
    """
    full = [load_config(model_zoo.get_config_file(row.config)) for row in table.rows]
    varied = differing(full)
    given = dict(zip(overrides[::2], overrides[1::2], strict=True))
    clash = sorted(set(varied).intersection(given) - set(RULERS))
    if clash:
        raise ValueError(f"{clash[0]} is what the rows of table {table.key} vary; leave it out")
    # A group of kernels reads at least as many channels as the mask feature's norm has groups.
    budget, groups = budget.clone(), max(cfg.MODEL.SOLO.NUM_KERNEL_GROUPS for cfg in full)
    budget.MODEL.SOLO.KERNEL_DIM = max(budget.MODEL.SOLO.KERNEL_DIM, NORM_GROUPS * groups)
    configs = [shrink(cfg, budget, varied) for cfg in full]
    shortest = min(cfg.SOLVER.MAX_ITER for cfg in configs)
    last = [part for item in given.items() if item[0] not in varied for part in item]
    for cfg in configs:
        cfg.merge_from_list(last)
        # At most a tenth of a run.
        cfg.SOLVER.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, shortest // 10)
        cfg.SOLVER.CHECKPOINT_PERIOD = 10**9  # the last one is always written
        cfg.TEST.EVAL_PERIOD = 0  # evaluated once, after training
    return configs, varied


def fingerprint(cfg: CfgNode, data: str, *, training: bool = False) -> str:
    """Return a short hash of everything that a result depends on.

    Args:
        cfg: resolved config of a run.
        data: identity of the dataset.
        training: leave out what acts at test time only, so that such rows share their weights.
    """
    values = flatten(cfg)
    del values["OUTPUT_DIR"]
    if training:
        values = {
            key: value
            for key, value in values.items()
            if not (key.endswith("_TEST") or key.startswith("MODEL.SOLO.NMS_"))
        }
    return hashlib.sha256(f"{sorted(values.items())}{data}".encode()).hexdigest()[:12]
