"""Results of a film by object: MOTS as text, YouTube-VIS as JSON.

Both take the COCO results of one frame after the other, whose entries have a ``track_id``, in
memory that does not grow with the film.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..layers import encode_masks
from .growing import GrowingFile, check_output
from .json_file import JsonList, dump_json
from .paths import printable
from .segmentation import decode_mask

__all__ = ["MOTSFile", "TrackFile", "VISFile", "track_file", "track_kind"]


class TrackFile:
    """A file of the objects of one film.

    Args:
        path: The file.

    Raises:
        ValueError: It cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = Path(path)
        self._file = GrowingFile(path)

    def add(self, results: Sequence[dict[str, Any]], panoptic: dict[str, Any] | None) -> None:
        """Take what was found in a frame.

        Args:
            results: COCO results with ``track_id``; ``image_id`` is the frame, from 0 on.
            panoptic: Of no meaning here.

        Raises:
            OutputError: The file cannot be written any further.
        """
        raise NotImplementedError

    def finish(self, *, whole: bool, frames: int) -> Path:  # noqa: ARG002
        """Close the file; see `GrowingFile.finish`.

        Args:
            whole: Nothing is missing.
            frames: Of the film.
        """
        return self._file.finish(whole=whole)

    def discard(self) -> None:
        """Delete what was written."""
        self._file.discard()


class MOTSFile(TrackFile):
    """A line for each mask: frame from 1 on, object, class, height, width, RLE.

    Masks of a frame must not overlap in this format: of a pixel that is in several the better
    score has it.
    """

    def add(self, results: Sequence[dict[str, Any]], panoptic: dict[str, Any] | None) -> None:
        """See `TrackFile`."""
        del panoptic
        lines = []
        for entry, rle in zip(results, _apart(results), strict=True):
            height, width = rle["size"]
            ids = f"{entry['image_id'] + 1} {entry['track_id']} {entry['category_id']}"
            lines.append(f"{ids} {height} {width} {rle['counts']}\n")
        self._file.write("".join(lines).encode())


def _apart(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Masks that do not overlap, as RLE; a mask of which nothing is left is empty."""
    if not results:
        return []
    masks = np.stack([decode_mask(x["segmentation"], x["segmentation"]["size"]) for x in results])
    order = np.argsort([-entry["score"] for entry in results], kind="stable")
    owner = np.where(masks.any(0), order[masks[order].argmax(0)], -1)
    return encode_masks(torch.from_numpy(owner == np.arange(len(results))[:, None, None]))


class VISFile(TrackFile):
    """A list with an entry for each object: its masks in all frames, null where it is not seen.

    Its score is the mean, its class that of its last frame. By frame in memory that does not grow:
    until the end masks lie in a temporary database on the disk.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__(path)
        self._masks = sqlite3.connect("")  # a file of the system's that nobody else sees
        self._masks.execute(
            "CREATE TABLE masks (track INT, frame INT, category, score REAL, rle TEXT,"
            " PRIMARY KEY (track, frame)) WITHOUT ROWID"
        )

    def add(self, results: Sequence[dict[str, Any]], panoptic: dict[str, Any] | None) -> None:
        """See `TrackFile`."""
        del panoptic
        rows = [
            (x["track_id"], x["image_id"], x["category_id"], x["score"],
             dump_json(x["segmentation"], self._path))
            for x in results
        ]  # fmt: skip
        self._masks.executemany("INSERT INTO masks VALUES (?, ?, ?, ?, ?)", rows)

    def finish(self, *, whole: bool, frames: int) -> Path:
        """See `TrackFile`."""
        entries = JsonList(self._file)
        for text in self._entries(frames):
            entries.extend([text])
        self._masks.close()
        return super().finish(whole=whole, frames=frames)

    def _entries(self, frames: int) -> Iterator[str]:
        """The entries as JSON, one object after the other."""
        tracks = self._masks.execute("SELECT track, AVG(score) FROM masks GROUP BY track")
        for track, score in tracks.fetchall():
            seen = self._masks.execute(
                "SELECT frame, rle, category FROM masks WHERE track = ? ORDER BY frame", (track,)
            ).fetchall()
            masks = ["null"] * frames
            for frame, rle, _ in seen:
                masks[frame] = rle
            head = {"video_id": 1, "id": track, "category_id": seen[-1][2], "score": score}
            text = dump_json(head, self._path)[:-1]
            yield f'{text}, "segmentations": [{", ".join(masks)}]}}'

    def discard(self) -> None:
        """See `TrackFile`."""
        self._masks.close()
        super().discard()


FORMATS: dict[str, type[TrackFile]] = {".txt": MOTSFile, ".json": VISFile}
"""By extension."""


def track_file(path: str | PathLike[str]) -> TrackFile:
    """Open a file of tracks, of the format that its extension says; raises as `track_kind`."""
    return track_kind(path)(path)


def track_kind(path: str | PathLike[str]) -> type[TrackFile]:
    """Return the format of a file of tracks.

    Raises:
        ValueError: The extension is another one, or the file cannot be written.
    """
    check_output(path)
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(
            f"{printable(path)}: tracks are written as .txt (MOTS) or .json (YouTube-VIS)."
        )
    return kind
