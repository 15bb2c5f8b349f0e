"""The weights that lie beside a training's config."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ..io.paths import file_key, printable

__all__ = ["weights_beside"]

_CONFIG = "config.yaml"
"""What a training calls the config that it writes."""

_NAMES = ("model_best.pth", "model_final.pth")


def weights_beside(config_file: str | PathLike[str], weights: str) -> Path | None:
    """Find the weights of the training that wrote a config.

    Such a config names the weights that the training began with, which are hardly ever those that
    are meant.

    Args:
        config_file: A YAML file, or a name of the model zoo.
        weights: Its `MODEL.WEIGHTS`.

    Returns:
        The best model beside the config, else the last one; None if the file is of no training, or
        names weights of its own folder.

    Raises:
        ValueError: There are checkpoints, but neither of these two.
    """
    path = Path(config_file)
    folder = path.parent
    if path.name != _CONFIG or not path.is_file():
        return None
    if weights and Path(weights).is_file() and file_key(Path(weights).parent) == file_key(folder):
        return None
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("model_*.pth"))
    if others:
        raise ValueError(
            f"{printable(path)}: is of a training without {' and '.join(_NAMES)}. Name a "
            f"checkpoint, such as {printable(others[-1])}, with --weights."
        )
    return None
