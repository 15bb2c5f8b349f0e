"""Model folders on the Hugging Face Hub: fetch one, push one.

Of a repository only a config and safetensors weights are fetched, which are data: its code and
pickles stay where they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from ..checkpoint.places import read_info, register_scheme
from ..io.errors import one_line, printable

__all__ = ["CARD", "CONFIG", "HUB_PREFIX", "WEIGHTS", "fetch_folder", "push_folder"]

HUB_PREFIX = "hf://"
"""Of the name of a repository on the Hub."""

CONFIG = "config.yaml"
"""Config of a model folder, and of a training's."""

WEIGHTS = "model.safetensors"
"""Weights of a model folder; class names and input convention are in them."""

CARD = "README.md"
"""Model card, for people and the Hub."""


def fetch_folder(repository: str, revision: str | None = None) -> Path:
    """Fetch a model from the Hub, or take it from the cache of huggingface_hub.

    Args:
        repository: "OWNER/NAME".
        revision: Branch, tag or commit; by default the main branch.

    Returns:
        A folder with `CONFIG` and `WEIGHTS` of one commit, not to be changed.

    Raises:
        ValueError: There is no such repository or revision, it holds no model of this package,
            or the Hub cannot be reached and the cache does not have it.

    Example:
        >>> fetch_folder("someone/cups")  # doctest: +SKIP
        PosixPath('.../models--someone--cups/snapshots/0123abc')
    """
    from huggingface_hub import snapshot_download  # half a second that most runs do not need

    with _explained(repository, revision):
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=[CONFIG, WEIGHTS])
        )
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{HUB_PREFIX}{printable(repository)}: has no {' and no '.join(missing)}, so it is no "
            "model of solo_d2; pickles (.pth, .bin) are never fetched from the Hub"
        )
    return folder


def push_folder(
    folder: str | PathLike[str],
    repository: str,
    *,
    public: bool = False,
    revision: str | None = None,
    token: str | None = None,
    message: str = "Upload a model of solo_d2",
) -> str:
    """Push a model folder to the Hub: its config, its weights and its card, and nothing else.

    Args:
        folder: Of `SOLOPredictor.save_pretrained`.
        repository: "OWNER/NAME", made where there is none yet.
        public: Whether a new repository can be seen by everybody.
        revision: Branch to push to, made where there is none yet; by default the main one.
        token: Access token; by default that of ``hf auth login`` or ``HF_TOKEN``.
        message: Of the commit.

    Returns:
        The URL of the commit.

    Raises:
        ValueError: The folder is no model folder, or the Hub refuses or cannot be reached.

    Example:
        >>> push_folder("models/cups", "me/cups", public=True)  # doctest: +SKIP
        'https://huggingface.co/me/cups/commit/0123abc'
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise ValueError(
                f"{printable(os.fspath(folder))}: has no {name}; push a folder that save_pretrained"
                " or `solo-d2 zoo save` made"
            )
    read_info(str(folder / WEIGHTS))
    api = HfApi(token=token)
    with _explained(repository, revision):
        api.create_repo(repository, private=not public, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[CONFIG, WEIGHTS, CARD],
            revision=revision,
            commit_message=message,
        )
    return str(commit.commit_url)


@contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Turn whatever huggingface_hub raises into one line."""
    from huggingface_hub import errors

    name = f"{HUB_PREFIX}{printable(repository)}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise ValueError(
            f"{name}: its owner grants access on request; ask there, then run `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"{name}: there is no such repository, or it is private; check the name, and run "
            "`hf auth login` for a private one"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{name}: has no revision {printable(str(revision))}") from error
    except errors.HFValidationError as error:
        raise ValueError(f"{name}: is no name of a repository ({one_line(error)})") from error
    except errors.LocalEntryNotFoundError as error:
        raise ValueError(
            f"{name}: the Hub cannot be reached, and this model is not in the cache yet; check "
            "the network, or HF_HUB_OFFLINE"
        ) from error
    except Exception as error:  # of its HTTP client, and of the Hub's answers
        raise ValueError(f"{name}: the Hub cannot be used ({one_line(error)})") from error


def _weights(name: str) -> Path:
    """The weights of ``hf://OWNER/NAME@REVISION``."""
    repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    return fetch_folder(repository, revision or None) / WEIGHTS


def register_hub() -> None:
    """Make ``hf://OWNER/NAME`` known as a place of weights; importing `solo_d2.model_zoo` does."""
    register_scheme(HUB_PREFIX.removesuffix("://"), _weights)
