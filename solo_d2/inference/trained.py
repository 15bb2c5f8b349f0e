"""The config of a trained model, and the weights that lie beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from detectron2.config import CfgNode

from ..io.configs import config_name
from ..io.paths import file_key, printable
from ..model_zoo.checkpoints import has_published_weights
from ..model_zoo.folder import CONFIG, WEIGHTS, find_model
from ..model_zoo.model_zoo import load_config

__all__ = ["load_trained", "weights_beside"]

_OF_TRAININGS = ("model_best.pth", "model_final.pth")


def load_trained(
    name: str | PathLike[str],
    overrides: Sequence[str] = (),
    weights: str | PathLike[str] | None = None,
) -> tuple[CfgNode, str | PathLike[str] | None]:
    """Load the config of a model with its weights' place.

    Args:
        name: As of `load_config`.
        overrides: As of `load_config`.
        weights: Given ones; None for those that belong to the model.

    Returns:
        The config, and the weights to load in place of its `MODEL.WEIGHTS`, or None.

    Raises:
        ValueError: See `load_config` and `weights_beside`.
    """
    name = find_model(name)
    own = config_name(name)
    published = has_published_weights(own) if own else not os.path.lexists(name)
    cfg = load_config(name, overrides, trained=weights is None and published)
    if weights is None and "MODEL.WEIGHTS" not in overrides[::2]:
        weights = weights_beside(name, cfg.MODEL.WEIGHTS)
    return cfg, weights


def weights_beside(config_file: str | PathLike[str], weights: str) -> Path | None:
    """Find the weights of the model folder, or of the training, that a config belongs to.

    The config of a training names the weights that it began with, which are hardly ever those
    that are meant.

    Args:
        config_file: A YAML file, or a name of the model zoo.
        weights: Its `MODEL.WEIGHTS`.

    Returns:
        model.safetensors beside the config, else the best model of the training, else the last
        one; None if the file is of neither, or names weights of its own folder.

    Raises:
        ValueError: There are checkpoints, but neither of these two.
    """
    path = Path(config_file)
    folder = path.parent
    if path.name != CONFIG or not path.is_file():
        return None
    if weights and Path(weights).is_file() and file_key(Path(weights).parent) == file_key(folder):
        return None
    for name in (WEIGHTS, *_OF_TRAININGS):
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("model_*.pth"))
    if others:
        raise ValueError(
            f"{printable(path)}: is of a training without {' and '.join(_OF_TRAININGS)}. Name a "
            f"checkpoint, such as {printable(others[-1])}, with --weights."
        )
    return None
