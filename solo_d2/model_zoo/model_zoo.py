"""Configs and models by name, as in `detectron2.model_zoo`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import nn

from ..checkpoint.checkpointer import load_weights
from ..config import (
    add_solo_config,
    merge_file,
    merge_overrides,
    resolve_device,
    validate_config,
)
from ..config.rules import shorten
from ..io.config_file import is_remote
from ..io.configs import config_folder, config_name
from .checkpoints import default_checkpoint, find_checkpoint, is_checkpoint_name, use_checkpoint
from .folder import find_model

_PARTS = ("backbones", "heads", "schedules")
"""Folders of configs that are parts of others, and cannot be run."""


def get_config_file(name: str) -> str:
    """Find a config of this package.

    Args:
        name: relative to ``configs/``, e.g. "COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml".

    Returns:
        Path of the file.

    Raises:
        ValueError: there is no such config.

    Example:
        >>> get_config_file("COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml").endswith("3x.yaml")
        True
    """
    folder = config_folder()
    path = folder / name
    if not os.path.isfile(path):  # says no to names that no file can have
        known = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.yaml"))
        known = [name for name in known if name.split("/")[0] not in _PARTS]
        close = [x for x in known if Path(x).stem == Path(name).stem]
        close += difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        close = list(dict.fromkeys(close))[:3] or known[:3]
        raise ValueError(
            f"{shorten(name)} is no file and not a config of solo_d2; similar: {', '.join(close)}"
        )
    return str(path)


def get_config(name: str, trained: bool = False) -> CfgNode:
    """Load a config of this package.

    Args:
        name: of a config, see `get_config_file`; or of a published checkpoint, as
            "mmdet/solov2_r50_fpn_3x_coco" or "solo://mmdet/solov2_r50_fpn_3x_coco" (all are in
            `list_models`), which means the config that fits it, always with its weights.
        trained: put the config's default published weights into ``MODEL.WEIGHTS``, and the input
            that they were trained with into ``INPUT.FORMAT``, ``INPUT.RESIZE_FILTER``,
            ``MODEL.PIXEL_MEAN``, ``MODEL.PIXEL_STD`` and ``MODEL.RESNETS.STRIDE_IN_1X1``. Nothing
            is downloaded yet.

    Raises:
        ValueError: there is no such config or checkpoint, or no published weights of the config.

    Example:
        >>> get_config("COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml").SOLVER.MAX_ITER
        270000
    """
    checkpoint = None
    if is_checkpoint_name(name):
        checkpoint = find_checkpoint(name)
    path = get_config_file(checkpoint.config if checkpoint else name)
    if trained and not checkpoint:
        checkpoint = default_checkpoint(name)
    cfg = get_cfg()
    add_solo_config(cfg)
    merge_file(cfg, path)
    if checkpoint:
        use_checkpoint(cfg, checkpoint)
    validate_config(cfg)
    return cfg


def get(name: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Build a model by name, in evaluation mode.

    Args:
        name: of a config or of a published checkpoint, see `get_config`.
        trained: load the published weights, always so for a checkpoint's name; otherwise those
            that the config names (ImageNet, for the backbone) are not loaded either.
        device: torch device; by default CUDA where there is one.

    Raises:
        ValueError: as `get_config`, or the weights cannot be had; see `local_weights`.

    Example:
        >>> model = get("COCO-InstanceSegmentation/solov2_light_448_R_18_FPN_3x.yaml", device="cpu")
        >>> model.training
        False
    """
    cfg = get_config(name, trained)
    cfg.MODEL.DEVICE = str(resolve_device(device or "auto"))
    model = build_model(cfg)
    if trained or is_checkpoint_name(name):
        load_weights(model, cfg.MODEL.WEIGHTS)
    return model.eval()


def load_config(
    name_or_path: CfgNode | str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    trained: bool = False,
) -> CfgNode:
    """Read a config with all SOLO keys.

    Args:
        name_or_path: The path of a YAML file or of a model folder, "hf://OWNER/NAME" on the
            Hugging Face Hub, or else a name of `solo_d2.model_zoo`; or a config, which is copied.
        overrides: KEY VALUE KEY VALUE ..., applied last.
        trained: Let `MODEL.WEIGHTS` point to the published weights of the config, which is one of
            this package, by name or path; unless it is overridden.

    Raises:
        ValueError: There is no such config, it has an unknown key or a wrong value (see
            `solo_d2.config.validate_config`), it is not local, it wants to run code, or no weights
            are published for it.

    Example:
        >>> cfg = load_config("COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml", ["SEED", "1"])
        >>> cfg.MODEL.SOLO.HEAD, cfg.SEED
        ('DynamicSOLOHead', 1)
    """
    if isinstance(name_or_path, CfgNode):
        cfg = name_or_path.clone()
        cfg.defrost()
    else:
        trained = trained and "MODEL.WEIGHTS" not in overrides[::2]
        cfg = _read_config(find_model(name_or_path), trained=trained)
    merge_overrides(cfg, overrides)
    validate_config(cfg)
    return cfg


def _read_config(name: str, *, trained: bool) -> CfgNode:
    own = config_name(name)
    if trained and own is not None:
        return get_config(own, trained=True)
    if os.path.isabs(name) or os.path.lexists(name):
        cfg = get_cfg()
        add_solo_config(cfg)
        merge_file(cfg, name)
        if trained:
            default_checkpoint(name)  # raises: they are those of configs of this package
        return cfg
    if is_remote(name) and not is_checkpoint_name(name):
        raise ValueError(f"a config must be a local file or a name, got {name!r}")
    return get_config(name, trained=trained)
