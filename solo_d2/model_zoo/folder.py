"""Model folders: a config, weights, and a card for people, as one thing with one name."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path

from ..io.errors import shown
from ..io.paths import printable
from .checkpoints import is_checkpoint_name
from .hub import CARD, CONFIG, HUB_PREFIX, WEIGHTS, fetch_folder

__all__ = ["CARD", "CONFIG", "WEIGHTS", "find_model", "pretrained_model"]

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def find_model(name: str | PathLike[str]) -> str:
    """Find the config that a name of a model means.

    Args:
        name: A folder with a config.yaml, of `SOLOPredictor.save_pretrained` or of a training;
            "hf://OWNER/NAME" or "hf://OWNER/NAME@REVISION", which is downloaded if need be; or
            anything else, which stays as it is.

    Returns:
        The path of the folder's config, or `name`.

    Raises:
        ValueError: The folder has no config, or the repository cannot be had.

    Example:
        >>> find_model("solo_d2/objects_lite0")
        'solo_d2/objects_lite0'
    """
    name = os.fspath(name)
    if name.startswith(HUB_PREFIX):
        repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
        return str(fetch_folder(repository, revision or None) / CONFIG)
    if not os.path.isdir(name):
        return name
    config = Path(name, CONFIG)
    if not config.is_file():
        raise ValueError(
            f"{printable(name)}: has no {CONFIG}; expected a folder of save_pretrained or of a "
            "training"
        )
    return str(config)


def pretrained_model(name: str | PathLike[str], revision: str | None = None) -> str:
    """Find the model that `from_pretrained` is asked for.

    Args:
        name: A folder, "OWNER/NAME" on the Hugging Face Hub, also with "hf://" before it, or the
            name of a checkpoint of the model zoo.
        revision: Branch, tag or commit on the Hub.

    Returns:
        What `SOLOPredictor` takes: the path of a config, or a name of the model zoo.

    Raises:
        ValueError: It is none of these, cannot be had, or has no revisions.
    """
    name = os.fspath(name)
    local = os.path.isdir(name) or is_checkpoint_name(name)
    if local and revision is not None:
        raise ValueError(f"{printable(name)}: only models of the Hub have revisions; leave it out")
    if local:
        return find_model(name)
    repository = name.removeprefix(HUB_PREFIX)
    if not _REPOSITORY.fullmatch(repository.partition("@")[0]):
        raise ValueError(
            f"expected a folder, OWNER/NAME on the Hub, or a checkpoint of `solo-d2 zoo`, got "
            f"{shown(name)}"
        )
    suffix = "" if revision is None else f"@{revision}"
    return find_model(f"{HUB_PREFIX}{repository}{suffix}")
