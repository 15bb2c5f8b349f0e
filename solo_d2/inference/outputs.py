"""Names of what a command writes: no file twice, none over an input, none that cannot be made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path

from ..io.growing import check_output
from ..io.image import can_write
from ..io.paths import file_key, fit_name, printable, refuse_overwriting, unique_name
from ..io.video import writable_extensions

__all__ = ["check_results_file", "distinct_stems", "is_file_name", "output_paths", "video_path"]


def output_paths(images: Sequence[Path], output: str | PathLike[str]) -> list[Path]:
    """Files to draw on, one for each image, none twice.

    Args:
        images: The images.
        output: A folder; or, for one image, a file: a name with an extension that is no existing
            folder and does not end with "/".

    Returns:
        `output/NAME.EXT` for each image: its own name, as .jpg or .png. Equal names get a number.

    Raises:
        ValueError: An image would be drawn over an input, there are several for one file, or the
            file cannot be written.
    """
    paths = _file(images, output) if is_file_name(output) else _names(images, Path(output))
    refuse_overwriting(paths, images)
    if paths:
        check_output(paths[0])
    return paths


def distinct_stems(paths: Sequence[Path]) -> list[Path]:
    """Number files of one name and several extensions, for what is called by their names alone."""
    taken: set[str] = set()
    return [path.with_name(unique_name(path.stem, "", taken) + path.suffix) for path in paths]


def video_path(source: str | PathLike[str] | int, output: str | PathLike[str]) -> Path:
    """Return the video to write for a video or for a camera's number.

    Args:
        source: The video, or the number of a camera.
        output: A folder or a file, see `output_paths`.

    Raises:
        ValueError: It would be written over the input, or cannot be written.
    """
    path = Path(output)
    if not is_file_name(output):
        stem = f"camera_{source}" if isinstance(source, int) else Path(source).stem
        path /= fit_name(stem, ".mp4")
    elif path.suffix.lower() not in writable_extensions():
        raise ValueError(
            f"{printable(path)}: a video is written as {' '.join(writable_extensions())}. {_FOLDER}"
        )
    if not isinstance(source, int):
        refuse_overwriting([path], [source])
    check_output(path)
    return path


def check_results_file(
    path: str | PathLike[str],
    inputs: Iterable[str | PathLike[str] | None],
    outputs: Iterable[str | PathLike[str]],
) -> None:
    """Raise a `ValueError` if results cannot be written to a file, or would replace another one.

    Args:
        path: Of the results.
        inputs: Files that the command reads; None for one that was not given.
        outputs: Files that it writes.
    """
    refuse_overwriting([path], [x for x in inputs if x is not None], "the results")
    if file_key(path) in {file_key(output) for output in outputs}:
        raise ValueError(f"{printable(path)}: is the drawing, too. Name another file of results.")
    check_output(path)


_FOLDER = 'For a folder end the name with "/".'


def is_file_name(output: str | PathLike[str]) -> bool:
    """Return whether a name has an extension of letters, and is and says to be no folder."""
    text = fspath(output)
    path = Path(text)
    return bool(re.match(r"\.[A-Za-z]", path.suffix)) and not (
        path.is_dir() or text.endswith(("/", "\\"))
    )


def _file(images: Sequence[Path], output: str | PathLike[str]) -> list[Path]:
    if len(images) > 1:
        raise ValueError(
            f"{printable(output)}: is one file, there are {len(images)} images. {_FOLDER}"
        )
    if not can_write(output):
        raise ValueError(
            f"{printable(output)}: no image format that can be written. Name it .png or .jpg. "
            f"{_FOLDER}"
        )
    return [Path(output)]


def _names(images: Sequence[Path], output: Path) -> list[Path]:
    taken: set[str] = set()
    paths = []
    for image in images:
        extension = ".jpg" if image.suffix.lower() in (".jpg", ".jpeg") else ".png"
        paths.append(output / unique_name(image.stem, extension, taken))
    return paths
