"""Frames of a film behind the model: rendered, written and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..io.pipeline import Behind
from .failures import BadFrames, raise_if_hopeless
from .renderers import Renderer

__all__ = ["WAITING", "FoundFrame", "Images", "Show", "Write", "frame_output"]

WAITING = 4
"""Frames that wait at most in front of the model, and as many behind it."""

Images = dict[str, np.ndarray]
"""What a renderer makes of a frame."""

Write = Callable[[int, float, Images], None]
"""Takes the number of a frame, when it is shown in seconds, and its images."""

Show = Callable[[np.ndarray], bool]
"""Takes a rendered frame; returns whether there shall be more."""


class FoundFrame(NamedTuple):
    """A frame that the model has seen.

    Attributes:
        number: from 0 on.
        seconds: when it is shown.
        frame: uint8 BGR (H, W, 3).
        prediction: the model's output; None if there is none.
    """

    number: int
    seconds: float
    frame: np.ndarray
    prediction: dict[str, Any] | None


@contextmanager
def frame_output(
    renderer: Renderer | None, write: Write | None, show: Show | None, bad: BadFrames
) -> Iterator[Callable[[FoundFrame], bool]]:
    """Give a function that renders, writes and shows a frame; False where that was the last one.

    Without `show` a thread does the work, and what was handed over is done at the end. A window is
    for the main thread, in which frames are then finished at once.

    Args:
        renderer: None for nothing at all.
        write: Takes the images, if given.
        show: Takes the frame to be seen, if given.
        bad: Counts frames that cannot be rendered, which stay as they are.
    """
    if renderer is None:
        yield lambda _: True
        return
    finish = partial(_finish, renderer=renderer, write=write, bad=bad)
    if show is not None:
        yield lambda found: show(finish(found).get("", found.frame))
        return
    with Behind(finish, WAITING) as behind:

        def hand_over(found: FoundFrame) -> bool:
            behind.put(found)
            return True

        yield hand_over


def _finish(
    found: FoundFrame, *, renderer: Renderer, write: Write | None, bad: BadFrames
) -> Images:
    images: Images = {}
    if found.prediction is not None:
        try:
            images = renderer.image(found.frame, found.prediction)
        except Exception as error:
            raise_if_hopeless(error)
            bad.add(found.number, error)
    if not (images or renderer.separate):
        images = {"": found.frame}
    if write is not None:
        write(found.number, found.seconds, images)
    return images
