"""Choose the config of an architecture, and list the parameters of the model that it builds."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg

from ...config import add_solo_config, merge_file
from ...io.configs import config_folder
from .architectures import Architecture

_COCO = "COCO-InstanceSegmentation"


@functools.cache
def coco_configs() -> dict[str, CfgNode]:
    """Read the configs for COCO by name; the 3x schedule stands for all, which build the same."""
    found = {}
    for path in sorted(config_folder().glob(f"{_COCO}/*_3x.yaml")):
        cfg = found[f"{_COCO}/{path.name}"] = get_cfg()
        add_solo_config(cfg)
        merge_file(cfg, path)
    return found


def closest_config(architecture: Architecture) -> tuple[str, dict[str, Any]]:
    """Choose the config that builds an architecture with the fewest overrides.

    Args:
        architecture: Its head is one that some config for COCO has.

    Returns:
        Name for `solo_d2.model_zoo`, and the overrides, by config key.
    """
    wanted = architecture.settings()
    overrides = {
        name: {key: value for key, value in wanted.items() if _get(cfg, key) != value}
        for name, cfg in coco_configs().items()
        if cfg.MODEL.SOLO.HEAD == architecture.head
    }
    # The shortest name is the plainest of equally close configs: R_50 before R_101 and plus_R_50.
    best = min(overrides, key=lambda name: (len(overrides[name]), len(name), name))
    return best, overrides[best]


@functools.lru_cache(maxsize=32)
def model_shapes(architecture: Architecture) -> Mapping[str, tuple[int, ...]]:
    """List the state dict of the model that `closest_config` builds; no tensor is allocated.

    Returns:
        Key -> shape, in the model's order. Not to be changed: it is kept for the next call.

    Raises:
        ValueError: No config of this package builds the architecture.
    """
    # Late, since it imports all of Detectron2's models, which most files do not need.
    from detectron2.modeling import build_model

    name, overrides = closest_config(architecture)
    cfg = coco_configs()[name].clone()
    cfg.merge_from_list([item for pair in overrides.items() for item in pair])
    cfg.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            state = build_model(cfg).state_dict()
    except (ValueError, AssertionError) as error:  # Detectron2 asserts what its ResNets can be
        raise ValueError(f"no config builds it: {error}") from error
    # Some versions freeze a BatchNorm, whose counter is no parameter of ours.
    return {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}


def _get(cfg: CfgNode, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), cfg)
