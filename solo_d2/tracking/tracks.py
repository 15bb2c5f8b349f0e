"""What is known of detections and of tracks, as arrays of one row each.

Shapes: K detections of a frame, P tracks, D numbers of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from detectron2.structures import Instances

from ..layers import dense_masks, masks_to_boxes
from .masks import PointMasks, grid_step

__all__ = ["Detections", "Tracks", "with_equal_kernels"]


@dataclass(frozen=True)
class Detections:
    """What a frame shows.

    Attributes:
        masks: K of them.
        centres: middles of the boxes (K, 2), y and x in cells of the masks' grid.
        scores: (K,).
        labels: classes (K,).
        kernels: of length 1 (K, D); D is 0 without kernels.
    """

    masks: PointMasks
    centres: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    kernels: np.ndarray

    @classmethod
    def of(cls, instances: Instances) -> Detections:
        """Take what a tracker needs of instances of any device."""
        masks = dense_masks(instances.pred_masks)
        given = instances.has("pred_boxes")
        tensor = instances.pred_boxes.tensor if given else masks_to_boxes(masks)
        boxes = tensor.cpu().numpy()
        kernels = np.zeros((len(boxes), 0), np.float32)
        if instances.has("pred_kernels"):
            kernels = unit(instances.pred_kernels.float().cpu().numpy())
        step = grid_step((masks.shape[1], masks.shape[2]))
        return cls(
            masks=PointMasks.sample(masks, boxes),
            centres=(boxes[:, 1::-1] + boxes[:, :1:-1]) / (2 * step),
            scores=instances.scores.float().cpu().numpy(),
            labels=instances.pred_classes.cpu().numpy(),
            kernels=kernels,
        )


@dataclass(frozen=True)
class Tracks:
    """Objects that were seen, as they were seen last.

    Attributes:
        ids: (P,), from 1 on.
        masks: P of them.
        centres: middles of the boxes (P, 2), y and x in cells of the masks' grid.
        velocities: cells per frame (P, 2).
        kernels: means of the latest ones (P, D), of length 1.
        labels: class that most of the scores were for (P,).
        votes: by how much (P,).
        missed: frames since (P,).
    """

    ids: np.ndarray
    masks: PointMasks
    centres: np.ndarray
    velocities: np.ndarray
    kernels: np.ndarray
    labels: np.ndarray
    votes: np.ndarray
    missed: np.ndarray

    @classmethod
    def born(cls, found: Detections, rows: np.ndarray, first_id: int) -> Tracks:
        """Begin a track with each of some detections (M,)."""
        return cls(
            ids=first_id + np.arange(len(rows)),
            masks=found.masks.take(rows),
            centres=found.centres[rows],
            velocities=np.zeros((len(rows), 2)),
            kernels=found.kernels[rows],
            labels=found.labels[rows],
            votes=found.scores[rows],
            missed=np.zeros(len(rows), np.int64),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Tracks:
        """Return the tracks of rows (M,)."""
        values = {x.name: getattr(self, x.name)[rows] for x in fields(self) if x.name != "masks"}
        return Tracks(masks=self.masks.take(rows), **values)

    def join(self, other: Tracks) -> Tracks:
        """Return these tracks and others."""
        values = {
            x.name: np.concatenate([getattr(self, x.name), getattr(other, x.name)])
            for x in fields(self)
            if x.name != "masks"
        }
        return Tracks(masks=self.masks.join(other.masks), **values)

    def seen(
        self, olds: np.ndarray, found: Detections, news: np.ndarray, memory: float = 0.5
    ) -> Tracks:
        """Return some tracks, brought up to date with their detections.

        Args:
            olds: rows of the tracks (M,).
            found: of the frame.
            news: rows of their detections (M,).
            memory: share of the old velocity and kernel in the new ones, in [0, 1).
        """
        moved = (found.centres[news] - self.centres[olds]) / (self.missed[olds] + 1)[:, None]
        same = self.labels[olds] == found.labels[news]
        # A majority by weight: what speaks for another class takes votes away, then takes over.
        votes = self.votes[olds] + np.where(same, 1, -1) * found.scores[news]
        return Tracks(
            ids=self.ids[olds],
            masks=found.masks.take(news),
            centres=found.centres[news],
            velocities=memory * self.velocities[olds] + (1 - memory) * moved,
            kernels=unit(memory * self.kernels[olds] + (1 - memory) * found.kernels[news]),
            labels=np.where(votes < 0, found.labels[news], self.labels[olds]),
            votes=np.abs(votes),
            missed=np.zeros(len(olds), np.int64),
        )

    def expected(self) -> PointMasks:
        """Masks where the next frame should show them, by their velocities."""
        ahead = self.velocities * (self.missed + 1)[:, None]
        return self.masks.move(np.rint(ahead).astype(np.int64))


def with_equal_kernels(tracks: Tracks, found: Detections) -> tuple[Tracks, Detections]:
    """Return both with kernels of one length: of nothing they have any.

    Raises:
        ValueError: There are tracks and detections, and their kernels differ in length.
    """
    old, new = tracks.kernels.shape[1], found.kernels.shape[1]
    if old == new:
        return tracks, found
    if not len(found.kernels):
        return tracks, replace(found, kernels=np.zeros((0, old), np.float32))
    if not len(tracks):
        return replace(tracks, kernels=np.zeros((0, new), np.float32)), found
    raise ValueError(
        f"a tracker expects pred_kernels of one length in all frames, or in none (0); got {new} "
        f"after {old}: take all frames from one predictor, or call reset() between films"
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (K, D) to length 1; zeros stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
