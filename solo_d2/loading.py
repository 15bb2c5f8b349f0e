"""Configs by name, weights and devices, with one clear error for what cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from detectron2.config import CfgNode, get_cfg

from .checkpoint import load_weights
from .config import add_solo_config
from .model_zoo import get_config

__all__ = ["load_config", "load_weights", "resolve_device"]


def load_config(
    name_or_path: str | PathLike[str], overrides: Sequence[str] = (), *, trained: bool = False
) -> CfgNode:
    """Read a config with all SOLO keys.

    Args:
        name_or_path: The path of a YAML file, or else a name of `solo_d2.model_zoo`.
        overrides: KEY VALUE KEY VALUE ..., applied last.
        trained: For a name, let `MODEL.WEIGHTS` point to its published weights, unless it is
            overridden.

    Raises:
        ValueError: There is no such config, it has an unknown key or a wrong value, or it wants
            to run code.
    """
    path = Path(name_or_path)
    if path.is_file():
        cfg = get_cfg()
        add_solo_config(cfg)
        try:
            # Detectron2's default would run code that a YAML file names.
            cfg.merge_from_file(str(path), allow_unsafe=False)
        except Exception as error:  # yacs and PyYAML raise asserts, KeyError and their own types
            raise ValueError(f"{path}: not a usable config: {_one_line(error)}") from error
    elif path.is_absolute() or path.is_dir():
        raise ValueError(f"{path}: no such config file. Check the path.")
    else:
        trained = trained and "MODEL.WEIGHTS" not in overrides[::2]
        cfg = get_config(str(name_or_path), trained=trained)
    try:
        cfg.merge_from_list(list(overrides))
    except Exception as error:  # yacs asserts on unknown keys
        raise ValueError(f"Bad config override: {_one_line(error)}") from error
    return cfg


def resolve_device(name: str) -> torch.device:
    """Turn "auto" (CUDA where there is one, else the CPU) or a torch name into a device.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'Unknown device {name!r}; use "auto", "cpu" or "cuda[:N]".') from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"Device {name!r} asked for, {torch.cuda.device_count()} CUDA devices found. "
            'Use "auto" or "cpu".'
        )
    return device


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
