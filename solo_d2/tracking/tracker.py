"""Identities of the instances of a film: masks that overlap, kernels that agree, gaps bridged.

Shapes: K instances of a frame, P tracks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from detectron2.structures import Instances
from scipy.optimize import linear_sum_assignment

from .tracks import Detections, Tracks, with_equal_kernels

__all__ = ["BIRTH_SCORE", "Tracker"]

BIRTH_SCORE = 0.6
"""Score that begins a track: what the shipped models are seldom wrong with."""

_UNLIKE = 0.8
"""Cosine at which two kernels speak of two objects: neighbours in a frame reach 0.9."""

_HALF = 0.5


class Tracker:
    """Gives the instances of one frame after the other the numbers of their objects.

    A track is where its mask was, moved by its velocity. How well an instance fits is the mean of
    two numbers in [0, 1]: the IoU of the two masks, and how alike the kernels are that the head
    predicted for them (`SOLOPredictor(kernels=True)`); without kernels it is the IoU alone.
    Together the pairs that are chosen fit best (`scipy.optimize.linear_sum_assignment`). Classes
    play no part: a track has the class that most of its scores were for, so that labels do not
    flicker.

    Args:
        birth_score: An instance that fits no track begins one with at least this score; with less
            it is dropped. In [0, 1].
        min_fit: What an instance of a track must reach, in (0, 1].
        memory: Frames for which an object that is not seen keeps its number.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> from solo_d2.testing import tiny_results
        >>> tracker = Tracker(birth_score=0.0)
        >>> instances = tiny_results()
        >>> tracker(instances).track_ids.tolist() == tracker(instances).track_ids.tolist()
        True
    """

    def __init__(
        self, birth_score: float = BIRTH_SCORE, *, min_fit: float = 0.3, memory: int = 30
    ) -> None:
        if not (0 <= birth_score <= 1 and 0 < min_fit <= 1 and memory >= 0):
            raise ValueError(
                "a tracker expects birth_score in [0, 1], min_fit in (0, 1] and memory of 0 or "
                f"more, got {birth_score}, {min_fit} and {memory}"
            )
        self.birth_score, self.min_fit, self.memory = birth_score, min_fit, memory
        self.reset()

    def reset(self) -> None:
        """Forget all objects, as before another film; numbers begin at 1."""
        self._next_id = 1
        self._size: tuple[int, int] | None = None
        self._tracks: Tracks | None = None

    def __call__(self, instances: Instances) -> Instances:
        """Find the objects of the next frame.

        Args:
            instances: With `pred_masks` (K, H, W), `scores` and `pred_classes` (K,), on any
                device; `pred_kernels` (K, D) if there are some, which a frame without instances may
                lack.

        Returns:
            Those that belong to an object, with `track_ids` (K',) int64 from 1 on and the class of
            the track as `pred_classes`.

        Raises:
            ValueError: The kernels have another length than those of the tracks.
        """
        found = Detections.of(instances)
        size = tuple(instances.image_size)
        if self._tracks is None or size != self._size:
            self._tracks, self._size = Tracks.born(found, np.arange(0), 0), size
        tracks, found = with_equal_kernels(self._tracks, found)
        olds, news = self._pairs(tracks, found)
        born = np.setdiff1d(np.flatnonzero(found.scores >= self.birth_score), news)
        born = self._apart(found, born, news)
        current = tracks.seen(olds, found, news)
        current = current.join(Tracks.born(found, born, self._next_id))
        self._next_id += len(born)
        gone = np.setdiff1d(np.arange(len(tracks)), olds)
        gone = gone[tracks.missed[gone] < self.memory]
        lost = tracks.take(gone)
        self._tracks = current.join(replace(lost, missed=lost.missed + 1))
        return _numbered(instances, np.concatenate([news, born]), current)

    def _pairs(self, tracks: Tracks, found: Detections) -> tuple[np.ndarray, np.ndarray]:
        """Tracks and detections (M,) that belong together."""
        fit = tracks.expected().iou(found.masks)
        if tracks.kernels.shape[1]:
            cosine = tracks.kernels @ found.kernels.T
            fit = (fit + np.clip((cosine - _UNLIKE) / (1 - _UNLIKE), 0, 1)) / 2
        fit = np.where(fit >= self.min_fit, fit, 0)
        olds, news = linear_sum_assignment(fit, maximize=True)
        chosen = fit[olds, news] > 0
        return olds[chosen], news[chosen]

    def _apart(self, found: Detections, born: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """Leave out, of detections that might begin a track, second ones of an object."""
        if not len(born):
            return born
        overlap = found.masks.take(born).shared(found.masks.take(np.concatenate([taken, born])))
        return born[~(np.tril(overlap, len(taken) - 1) > _HALF).any(1)]


def _numbered(instances: Instances, rows: np.ndarray, tracks: Tracks) -> Instances:
    """Return rows of instances, in their order, with the numbers and classes of their tracks."""
    order = np.argsort(rows)
    if len(rows) == len(instances):  # no copy of masks of which none is left out
        chosen = Instances(instances.image_size, **instances.get_fields())
    else:
        chosen = instances[torch.from_numpy(rows[order]).to(instances.scores.device)]
    device = chosen.scores.device
    chosen.track_ids = torch.from_numpy(tracks.ids[order]).to(device)
    chosen.pred_classes = torch.from_numpy(tracks.labels[order]).to(device)
    return chosen
