"""Paths that others chose: what lies there, how it is shown, and that no output is an input."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

__all__ = [
    "file_key",
    "fit_name",
    "is_within",
    "not_a_file",
    "output_problem",
    "printable",
    "refuse_overwriting",
    "unique_name",
]

_KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


def not_a_file(path: str | PathLike[str]) -> str | None:
    """Tell what a path is, if it is no regular file; never opens it, so that nothing waits.

    Returns:
        None for a regular file or a link to one, else what follows the name in a sentence, such
        as "is a named pipe" or "no such file".
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError:  # a NUL character
        return "no such file"
    except OSError as error:
        if os.path.islink(path):
            return "is a link that leads nowhere or to itself"
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return "no such file"
        return f"cannot be reached ({error.strerror})"
    if stat.S_ISREG(mode):
        return None
    return next((text for test, text in _KINDS if test(mode)), "is no regular file")


def printable(text: str | PathLike[str]) -> str:
    r"""Return text in one line that every terminal and every file takes.

    Control characters and bytes that are not UTF-8 (surrogates in Python) become escapes such as
    ``\n`` and ``\xe9``; everything else stays.
    """
    text = os.fspath(text)
    if text.isprintable():  # surrogates are not
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name, as os.fsdecode has it
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character


def fit_name(stem: str, ending: str, limit: int = 255) -> str:
    """Return ``stem + ending``, the stem cut so that file systems take the name.

    Args:
        stem: of the name; it loses characters at its end.
        ending: is kept whole.
        limit: bytes; 255 in all common file systems.
    """
    while stem and len(os.fsencode(stem + ending)) > limit:
        stem = stem[:-1]
    return stem + ending


def unique_name(stem: str, ending: str, taken: set[str]) -> str:
    """Return a name of a file, with a number where it is taken, and add it to those taken.

    Args:
        stem: Of the name.
        ending: As of `fit_name`.
        taken: Names in lower case, since file systems may not tell them apart.
    """
    name, number = fit_name(stem, ending), 2
    while name.lower() in taken:
        name, number = fit_name(stem, f"_{number}{ending}"), number + 1
    taken.add(name.lower())
    return name


def file_key(path: str | PathLike[str]) -> object:
    """Return what two names of one file have in common, be they links of any kind."""
    try:
        status = os.stat(path)
        return status.st_dev, status.st_ino
    except (OSError, ValueError):
        return os.path.realpath(path)  # pathlib's resolve() raises for links that form a loop


def is_within(path: str | PathLike[str], folder: str | PathLike[str]) -> bool:
    """Return whether a file or folder, which need not exist, is a folder or lies in it."""
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return inner == outer or inner.startswith(os.path.join(outer, ""))


def refuse_overwriting(
    outputs: Iterable[str | PathLike[str]],
    inputs: Iterable[str | PathLike[str]],
    what: str = "drawing",
) -> None:
    """Raise a `ValueError` if an output is one of the inputs, whatever names they have."""
    keys = {file_key(path) for path in inputs}
    for path in outputs:
        if file_key(path) in keys:
            raise ValueError(
                f"{printable(path)}: is an input, {what} would replace it. Name another output."
            )


def output_problem(path: str | PathLike[str]) -> str | None:
    """Tell why no file of this name can be written, without writing; None if nothing is known."""
    target = Path(os.path.realpath(path))
    what = not_a_file(target)
    if what is None:
        return None if os.access(target, os.W_OK) else "is write-protected"
    if what != "no such file":
        return what
    folder = target.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{printable(folder)} is no folder"
    return None if os.access(folder, os.W_OK) else f"{printable(folder)} is write-protected"
