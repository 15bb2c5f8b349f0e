"""Trackers of experiments beside TensorBoard: one key, `SOLVER.TRACKERS`, of several packages."""

from __future__ import annotations

import importlib
import logging
import os
from abc import abstractmethod
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from ..config.unused import leaves
from ..io.errors import one_line

__all__ = ["TRACKERS", "Tracker", "build_trackers"]

_logger = logging.getLogger(__name__)

_PROJECT = "solo_d2"


class Tracker(EventWriter):
    """Writes metrics and images of a training to a package that is imported where it is asked for.

    A tracker never ends a training: what it raises is logged once, and it is left alone from then.

    Args:
        project: That runs are grouped by.
        cfg: Of the training; its values become those of the run.

    Raises:
        ValueError: The package is not installed.
    """

    package = ""

    def __init__(self, project: str, cfg: CfgNode) -> None:
        try:
            self._module: ModuleType | None = importlib.import_module(self.package)
        except ImportError as error:
            raise ValueError(
                f"SOLVER.TRACKERS names {self.package}, which is not installed here: pip install "
                f"{self.package}"
            ) from error
        self._project, self._cfg = project, cfg
        self._started = False
        self._written = -1

    @abstractmethod
    def start(self, module: Any, name: str, settings: dict[str, Any]) -> None:
        """Begin a run.

        Args:
            module: The package.
            name: Of the run.
            settings: The config, by full names.
        """

    @abstractmethod
    def log(
        self, module: Any, values: dict[str, float], images: dict[str, np.ndarray], step: int
    ) -> None:
        """Write what is new.

        Args:
            module: The package.
            values: Metrics by name.
            images: uint8 RGB (H, W, 3) by name.
            step: The iteration.
        """

    @abstractmethod
    def finish(self, module: Any) -> None:
        """End the run."""

    def write(self) -> None:
        """Write the metrics and images that came since the last call."""
        storage = get_event_storage()
        new: dict[int, tuple[dict[str, float], dict[str, np.ndarray]]] = {}
        for name, (value, step) in storage.latest().items():
            if step > self._written:
                new.setdefault(step, ({}, {}))[0][name] = float(value)
        for name, image, step in storage._vis_data:  # which TensorBoard's writer takes away
            if step > self._written:
                new.setdefault(step, ({}, {}))[1][name] = _rgb(image)
        for step in sorted(new):
            self._attempt("log", *new[step], step)
        self._written = max([self._written, *new])

    def close(self) -> None:
        """End the run, if there is one."""
        if self._started:
            self._attempt("finish")

    def _attempt(self, action: str, *arguments: Any) -> None:
        if self._module is None:
            return
        try:
            if not self._started:
                name = os.path.basename(os.path.abspath(self._cfg.OUTPUT_DIR))
                self.start(self._module, name, dict(leaves(self._cfg)))
                self._started = True
            getattr(self, action)(self._module, *arguments)
        except Exception as error:  # of the package, the network behind it, the account
            self._module = None
            _logger.warning(
                "%s gets nothing more of this training (%s)", self.package, one_line(error)
            )


class _WandB(Tracker):
    package = "wandb"

    def start(self, module: Any, name: str, settings: dict[str, Any]) -> None:
        folder = self._cfg.OUTPUT_DIR
        module.init(project=self._project, name=name, config=settings, dir=folder)

    def log(
        self, module: Any, values: dict[str, float], images: dict[str, np.ndarray], step: int
    ) -> None:
        drawn = {name: module.Image(image) for name, image in images.items()}
        module.log({**values, **drawn}, step=step)

    def finish(self, module: Any) -> None:
        module.finish()


class _Trackio(_WandB):
    package = "trackio"

    def start(self, module: Any, name: str, settings: dict[str, Any]) -> None:
        module.init(project=self._project, name=name, config=settings)


class _MLflow(Tracker):
    package = "mlflow"

    def start(self, module: Any, name: str, settings: dict[str, Any]) -> None:
        module.set_experiment(self._project)
        module.start_run(run_name=name)
        module.log_params(settings)

    def log(
        self, module: Any, values: dict[str, float], images: dict[str, np.ndarray], step: int
    ) -> None:
        module.log_metrics(values, step=step)
        for name, image in images.items():
            module.log_image(image, key=name.replace("|", "-"), step=step)

    def finish(self, module: Any) -> None:
        module.end_run()


TRACKERS: dict[str, type[Tracker]] = {x.package: x for x in (_WandB, _Trackio, _MLflow)}
"""Trackers by the name of their package."""


def build_trackers(names: Sequence[str], cfg: CfgNode) -> list[Tracker]:
    """Return the trackers of `SOLVER.TRACKERS`.

    Args:
        names: Each "PACKAGE" or "PACKAGE:PROJECT".
        cfg: Of the training.

    Raises:
        ValueError: A package is not installed.
    """
    pairs = [name.partition(":")[::2] for name in names]
    return [TRACKERS[package](project or _PROJECT, cfg) for package, project in pairs]


def _rgb(image: Any) -> np.ndarray:
    """An image of the storage, (3, H, W), as trackers take it."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:  # in [0, 1], as TensorBoard has floats
        pixels = np.rint(pixels * 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
