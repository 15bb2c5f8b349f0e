"""Which files the arguments of a command stand for, and what they leave out."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..io.image import IMAGE_EXTENSIONS
from ..io.paths import not_a_file, printable
from ..io.video import VIDEO_EXTENSIONS

__all__ = ["find_images"]

_logger = logging.getLogger(__name__)


def find_images(patterns: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Expand files, folders and globs to files.

    A folder stands for the images directly in it (by file name extension), a glob for the files
    that match it ("**" for all depths), both sorted. A file is taken whatever its name. What is no
    regular file is never taken. What else a folder holds is counted in the log.

    Args:
        patterns: Paths or globs.

    Returns:
        The files, each once, in the order of the patterns; and one line for every pattern that
        stands for nothing, and for everything that was meant and cannot be used.
    """
    found: dict[tuple[str, str], Path] = {}
    problems: list[str] = []
    for pattern in patterns:
        for path in _expand(pattern, problems):
            # A folder that links to one above it comes again and again.
            found.setdefault((os.path.realpath(path.parent), path.name), path)
    return list(found.values()), problems


def _expand(pattern: str, problems: list[str]) -> list[Path]:
    path = Path(pattern)
    problem = not_a_file(pattern)  # first: a file name may contain the special characters of globs
    if problem is None:
        if path.suffix.lower() in VIDEO_EXTENSIONS:
            problems.append(f"{printable(pattern)}: is a video. Use --video-input.")
            return []
        return [path]
    if problem == "is a folder":
        return _in_folder(path, problems)
    files = sorted(map(Path, glob.glob(pattern, recursive=True)))
    if not files or files == [path]:
        if problem == "no such file":
            problem = "no such file, and no file matches it"
        problems.append(f"{printable(pattern)}: {problem}.")
        return []
    return _usable(files, problems)


def _usable(files: Iterable[Path], problems: list[str]) -> list[Path]:
    """Regular files; what else matches a glob is a problem, unless it is a folder."""
    usable = []
    for file in files:
        problem = not_a_file(file)
        if problem is None:
            usable.append(file)
        elif problem != "is a folder":
            problems.append(f"{printable(file)}: {problem}.")
    return usable


def _in_folder(folder: Path, problems: list[str]) -> list[Path]:
    name = printable(folder)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        problems.append(f"{name}: cannot be read ({error.strerror}).")
        return []
    meant = [path for path in entries if path.suffix.lower() in IMAGE_EXTENSIONS]
    files = _usable(meant, problems)
    left_out = [path for path in entries if path.suffix.lower() not in IMAGE_EXTENSIONS]
    left_out += [path for path in meant if path.is_dir()]
    if left_out:
        _logger.warning("%s: left out %s", name, _counts(left_out))
    if not files:
        problems.append(f"{name}: no image in this folder ({_extensions()}).")
    return files


def _counts(paths: list[Path]) -> str:
    """Kinds of paths, how many of each, and what to do about them."""
    kinds = Counter(map(_kind, paths))
    parts = []
    for kind, remedy in (
        ("subfolder", '"**" in a glob goes into them'),
        ("video", "use --video-input"),
        ("other file", " ".join(_other_extensions(paths))),
    ):
        if kinds[kind]:
            plural = "s" if kinds[kind] > 1 else ""
            parts.append(f"{kinds[kind]} {kind}{plural} ({remedy})")
    return ", ".join(parts)


def _kind(path: Path) -> str:
    if path.is_dir():
        return "subfolder"
    return "video" if path.suffix.lower() in VIDEO_EXTENSIONS else "other file"


def _other_extensions(paths: list[Path], most: int = 5) -> list[str]:
    others = (path for path in paths if _kind(path) == "other file")
    kinds = sorted({printable(path.suffix.lower()) or "without extension" for path in others})
    return [*kinds[:most], *(["..."] if len(kinds) > most else [])]


def _extensions() -> str:
    return " ".join(extension[1:] for extension in IMAGE_EXTENSIONS)
