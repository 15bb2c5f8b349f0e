"""Reading JSON files that others wrote."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import one_line, shown
from .paths import not_a_file

__all__ = ["collector_paused", "is_utf8", "read_json", "read_json_object"]

_MANY_OBJECTS = 50_000  # so many, a search for garbage visits within milliseconds


def read_json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON file whose content is an object, see `read_json`.

    Raises:
        ValueError: as `read_json`, or no object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, got a json {type(content).__name__}")
    return content


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    UTF-8, UTF-16 and UTF-32 are recognised, each with or without a byte order mark.

    Args:
        path: a regular file; pipes and devices are refused.

    Returns:
        The content. `NaN` and `Infinity` are read as Python's `json` reads them.

    Raises:
        ValueError: no such file, no JSON, or an object with one key twice.
    """
    path = Path(path)
    problem = not_a_file(path)
    if problem is not None:
        raise ValueError(f"{path}: {problem}; expected a JSON file")
    try:
        with collector_paused():
            return json.loads(path.read_bytes(), object_pairs_hook=_object)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({one_line(error)})") from error
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply to be read; is it the right file?") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not valid json: {error.reason} at byte {error.start}; save it as UTF-8"
        ) from error
    except _RepeatedKeyError as error:
        raise ValueError(f"{path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid json ({one_line(error)}); is it cut off?") from error


class _RepeatedKeyError(ValueError):
    """An object that gives one key two values."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        for key, value in pairs:
            # A value that is not itself, as NaN, is equal to what was made of it.
            if made[key] is not value and made[key] != value:
                raise _RepeatedKeyError(
                    f"the key {shown(key)} stands twice in one object, with the values "
                    f"{shown(value)} and {shown(made[key])}; remove one"
                )
    return made


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Return whether a JSON file begins as UTF-8 without a mark, which every reader takes."""
    with open(path, "rb") as file:
        return json.detect_encoding(file.read(4)) == "utf-8"


@contextmanager
def collector_paused() -> Iterator[None]:
    """Make no search for circular garbage, which takes half of the time of reading large files.

    If much is made inside, it counts as old afterwards, so that the next search passes it over.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            # What somebody means to keep frozen stays so; counting it takes long, if it is much.
            if gc.get_count()[0] > _MANY_OBJECTS and not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()
