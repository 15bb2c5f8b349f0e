"""Derive a schedule from the size of a dataset, for trainings given in epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detectron2.config import CfgNode

__all__ = ["EVALUATIONS", "Schedule", "plan_schedule"]

EVALUATIONS = 10
"""Evaluations (and checkpoints) of a training given in epochs."""

CHECKPOINTS = 2
"""Of the checkpoints of a training given in epochs, how many stay: the last, and one in reserve."""

_LARGEST_WARMUP = 0.1
"""Share of the iterations that warm-up may take."""


@dataclass(frozen=True)
class Schedule:
    """Keys of `SOLVER` and `TEST` that depend on the size of a dataset.

    Attributes:
        num_images: Images of the training set.
        epochs: How often each is seen.
        batch_size: Images per iteration, over all processes.
        iterations: Length of the training.
        base_lr: Learning rate after warm-up.
        steps: Iterations at which the learning rate drops; empty for schedules without drops.
        warmup: Iterations of warm-up.
        period: Iterations between two evaluations, and between two checkpoints.
    """

    num_images: int
    epochs: float
    batch_size: int
    iterations: int
    base_lr: float
    steps: tuple[int, ...]
    warmup: int
    period: int

    def apply(self, cfg: CfgNode) -> None:
        """Write the schedule into a config, in place."""
        solver = cfg.SOLVER
        solver.IMS_PER_BATCH = self.batch_size
        solver.MAX_ITER = self.iterations
        solver.BASE_LR = self.base_lr
        solver.STEPS = self.steps
        solver.WARMUP_ITERS = self.warmup
        solver.CHECKPOINT_PERIOD = self.period
        solver.CHECKPOINTS_TO_KEEP = solver.CHECKPOINTS_TO_KEEP or CHECKPOINTS
        cfg.TEST.EVAL_PERIOD = self.period

    def __str__(self) -> str:
        """Say in one line how long the training is."""
        return (
            f"{self.num_images} images x {self.epochs:g} epochs / batch of {self.batch_size} = "
            f"{self.iterations} iterations, learning rate {self.base_lr:.2g}, evaluated every "
            f"{self.period}"
        )


def plan_schedule(
    cfg: CfgNode, num_images: int, epochs: float, batch_size: int | None = None
) -> Schedule:
    """Plan a training on a dataset of any size.

    The config's own schedule is scaled: drops of the learning rate stay where they are in
    proportion, warm-up takes at most a tenth, and the learning rate follows the batch size:
    linearly for SGD (Goyal et al., 2017), by its square root for AdamW.

    Args:
        cfg: Has the schedule to start from; not changed.
        num_images: Images of the training set.
        epochs: How often each is to be seen; may be a fraction.
        batch_size: Images per iteration; by default the config's, or the whole dataset where it
            is smaller.

    Raises:
        ValueError: No image, or epochs or batch size are not positive.

    Example:
        >>> from solo_d2 import model_zoo
        >>> cfg = model_zoo.get_config("COCO-InstanceSegmentation/solov2_R_50_FPN_1x.yaml")
        >>> print(plan_schedule(cfg, num_images=8, epochs=50, batch_size=4))
        8 images x 50 epochs / batch of 4 = 100 iterations, learning rate 0.0025, evaluated every 10
    """
    if num_images < 1:
        raise ValueError("a training needs at least one image, the dataset has none")
    if not (epochs > 0 and math.isfinite(epochs)):
        raise ValueError(f"the number of epochs must be above 0, got {epochs}")
    solver = cfg.SOLVER
    batch = min(solver.IMS_PER_BATCH, num_images) if batch_size is None else batch_size
    if batch < 1:
        raise ValueError(f"the batch size must be at least 1, got {batch}")
    iterations = max(1, math.ceil(num_images * epochs / batch))
    ratio = batch / solver.IMS_PER_BATCH
    rate = ratio if solver.OPTIMIZER == "SGD" else math.sqrt(ratio)
    scaled = (round(step / solver.MAX_ITER * iterations) for step in solver.STEPS)
    return Schedule(
        num_images=num_images,
        epochs=epochs,
        batch_size=batch,
        iterations=iterations,
        base_lr=solver.BASE_LR * rate,
        steps=tuple(sorted({step for step in scaled if 0 < step < iterations})),
        warmup=min(solver.WARMUP_ITERS, int(iterations * _LARGEST_WARMUP)),
        period=max(1, math.ceil(iterations / EVALUATIONS)),
    )
