"""Why an annotation cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Problem", "Reason"]


class Reason(Enum):
    """Why an annotation is dropped: what such annotations do, and the share a file may have."""

    ENTRY = ("are incomplete or have an id that is none", 0.1)
    NOTHING = ("cover nothing", 0.9)
    BARE = ("have no 'segmentation'", 0.5)
    IMAGE = ("belong to no image of the file", 0.1)
    CATEGORY = ("have no category of the file", 0.1)
    FORM = ("have a segmentation that is neither polygons nor RLE", 0.1)
    ODD = ("have an odd number of coordinates", 0.1)
    SHARES = ("have coordinates from 0 to 1", 0.1)
    FAR = ("lie far outside of their image", 0.1)
    OUTSIDE = ("lie outside of their image, or have x and y exchanged", 0.1)
    RLE = ("have an RLE that is no mask of their image", 0.1)
    SIZE = ("have an RLE of another size than their image", 0.1)
    CROWD = ("have an 'iscrowd' that is neither 0 nor 1", 0.1)
    ALPHA = ("have a matte that cannot be used", 0.1)

    @property
    def tolerated(self) -> float:
        """Share of the annotations above which the file is refused."""
        return self.value[1]


@dataclass(frozen=True)
class Problem:
    """Why one annotation is dropped.

    Attributes:
        reason: one of a few.
        text: in full, as the second half of a sentence.
    """

    reason: Reason
    text: str
