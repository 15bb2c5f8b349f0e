"""What is wrong in an annotation file: collected while it is read, and told once at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...io.errors import shown
from ...io.segmentation import Problem, Reason

__all__ = ["Findings", "count_of", "listed"]

_SHOWN_IDS = 5


@dataclass
class Findings:
    """Everything that is to be said about one annotation file.

    Attributes:
        path: of the file.
        total: number of its annotations.
        notes: further sentences, without a full stop.
        standard: whether references, sizes and names are as the format has them.
        boxes: whether the format has boxes and areas, so that one that lacks them is told.
    """

    path: Path
    total: int
    notes: list[str] = field(default_factory=list)
    standard: bool = True
    boxes: bool = True
    _dropped: dict[Reason, list[Any]] = field(default_factory=dict)
    _first: dict[Reason, str] = field(default_factory=dict)
    _completed: list[Any] = field(default_factory=list)

    def drop(self, annotation_id: Any, problem: Problem) -> None:
        """Note an annotation that is left out."""
        self._dropped.setdefault(problem.reason, []).append(annotation_id)
        self._first.setdefault(problem.reason, problem.text)

    def complete(self, annotation_id: Any) -> None:
        """Note an annotation that is kept, though not as it stands in the file."""
        if self.boxes:
            self._completed.append(annotation_id)

    @property
    def repaired(self) -> int:
        """Number of annotations that were dropped or completed."""
        return self.dropped + len(self._completed)

    @property
    def dropped(self) -> int:
        """Number of annotations that were dropped."""
        return sum(map(len, self._dropped.values()))

    def check(self) -> None:
        """Refuse the file if too many annotations are dropped.

        Raises:
            ValueError: with the file, the first annotation and how many are like it.
        """
        worst = max(self._dropped, key=lambda x: len(self._dropped[x]), default=None)
        too_many = [x for x, ids in self._dropped.items() if len(ids) > x.tolerated * self.total]
        if worst is not None and self.dropped > Reason.NOTHING.tolerated * self.total:
            too_many.append(worst)
        if not too_many:
            return
        reason = too_many[0]
        ids = self._dropped[reason]
        rest = f"; of {self.total} in all, {self._told_dropped()}" if self.total > 1 else ""
        raise ValueError(
            f"{self.path}: annotation {shown(ids[0])} cannot be used: {self._first[reason]}{rest}"
        )

    def message(self) -> str:
        """Return one line for the log; empty where there is nothing to say."""
        parts = list(self.notes)
        if self.dropped:
            left = self.total - self.dropped
            parts.append(f"{self._told_dropped()}: dropped, {left} of {self.total} are left")
        if self._completed:
            count = count_of(len(self._completed), "annotation")
            parts.append(
                f"{count} lacked a box, an area or another key, or had one in another form; read "
                f"as meant ({listed(self._completed)})"
            )
        return f"{self.path}: {'; '.join(parts)}" if parts else ""

    def _told_dropped(self) -> str:
        return ", ".join(_told(reason, ids) for reason, ids in self._dropped.items())


def _told(reason: Reason, ids: list[Any]) -> str:
    """A reason as a sentence about the annotations of these ids."""
    verb, _, rest = reason.value[0].partition(" ")
    if len(ids) == 1:
        verb = {"have": "has", "are": "is"}.get(verb, f"{verb}s")
    return f"{count_of(len(ids), 'annotation')} {verb} {rest} ({listed(ids)})"


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where it is not 1."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(values: list[Any]) -> str:
    """Return the first of some values, and how many more there are."""
    text = ", ".join(shown(value) for value in values[:_SHOWN_IDS])
    more = len(values) - _SHOWN_IDS
    return f"{text} and {more} more" if more > 0 else text
