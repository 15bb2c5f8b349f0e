"""Configs and models by name, as in `detectron2.model_zoo`."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import nn

from ..config import add_solo_config

# In an installed package the configs lie beside this file, in a checkout at its top.
_FOLDERS = (
    Path(__file__).resolve().parent / "configs",
    Path(__file__).resolve().parents[2] / "configs",
)


def get_config_file(name: str) -> str:
    """Find a config of this package.

    Args:
        name: relative to ``configs/``, e.g. "COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml".

    Returns:
        Path of the file.

    Raises:
        ValueError: there is no such config.
    """
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    if folder is None:
        raise ValueError(f"the configs of solo_d2 are not installed; looked in {_FOLDERS[0]}")
    path = folder / name
    if not path.is_file():
        known = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.yaml"))
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known
        raise ValueError(f"{name!r} is not a config of solo_d2; similar: {', '.join(close)}")
    return str(path)


def get_config(name: str, trained: bool = False) -> CfgNode:
    """Load a config of this package.

    Args:
        name: see `get_config_file`.
        trained: put the model's published weights into ``MODEL.WEIGHTS``.

    Raises:
        ValueError: there is no such config, or no trained weights of it.
    """
    cfg = get_cfg()
    add_solo_config(cfg)
    cfg.merge_from_file(get_config_file(name), allow_unsafe=False)
    if trained:
        raise ValueError(
            f"no trained weights are listed for {name!r}; set MODEL.WEIGHTS to a checkpoint"
        )
    return cfg


def get(name: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Build a model by the name of its config, in evaluation mode.

    Args:
        name: see `get_config_file`.
        trained: load the model's published weights; otherwise those that the config names
            (ImageNet, for the backbone) are not loaded either.
        device: torch device; by default CUDA where there is one.
    """
    cfg = get_config(name, trained)
    cfg.MODEL.DEVICE = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(cfg)
    if trained:
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model.eval()
