"""A training loop that goes on exactly where it was, and saves whatever ends it."""

from __future__ import annotations

import logging
import signal
import weakref
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, SimpleTrainer, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from ..data.loader import TrainLoader
from ..data.stream import Position
from ..io.errors import one_line
from ..io.lock import unlock_folder
from .checkpointer import TrainingCheckpointer
from .folder import open_run
from .interruption import Interruption
from .state import (
    STATE_KEY,
    changes,
    flat_config,
    kind_of,
    load_optimizer,
    load_scaler,
    parameter_names,
    set_scheduler,
)

_logger = logging.getLogger(__name__)


class ResumableTrainer(DefaultTrainer):
    """`DefaultTrainer` whose checkpoints hold everything that the next iteration depends on.

    A training that is stopped after any iteration and resumed is equal, step by step, to one that
    was not. What the config says holds over what a checkpoint says, and is told. Signals and errors
    save a checkpoint of the last whole iteration before they end the training.

    Args:
        cfg: of the training; one with other precision may be given to Detectron2's part.
        plain: the config for Detectron2's part.
    """

    checkpointer: TrainingCheckpointer
    max_iter: int
    _trainer: SimpleTrainer

    def __init__(self, cfg: CfgNode, plain: CfgNode) -> None:
        self._config = cfg
        self._done: int | None = None  # last whole iteration of this run
        self._updating = False  # whether parameters may be half updated
        self._position: Position | None = None
        self._interruption = Interruption()
        super().__init__(plain)
        this = weakref.proxy(self)
        self.optimizer.register_step_pre_hook(lambda *_: setattr(this, "_updating", True))
        if isinstance(self.data_loader, TrainLoader):
            self.data_loader.check = self._interruption.agree
            if comm.get_world_size() == 1:
                self.data_loader.waiting = self._interruption.allowed

    def train(self) -> Any:
        """Train; see the class for what happens when it is stopped.

        Returns:
            Results of the last evaluation, if `TEST.EXPECTED_RESULTS` is set.

        Raises:
            FolderInUseError: Another training runs in `OUTPUT_DIR`.
            KeyboardInterrupt: SIGINT came.
            SystemExit: SIGTERM came.
        """
        open_run(self._config)
        try:
            with self._interruption:
                self._run()
        finally:
            if isinstance(self.data_loader, TrainLoader):
                self.data_loader.close()
            if comm.is_main_process():
                unlock_folder(self._config.OUTPUT_DIR)
        if len(self.cfg.TEST.EXPECTED_RESULTS) and comm.is_main_process():
            verify_results(self.cfg, self._last_eval_results)
            return self._last_eval_results
        return None

    def _run(self) -> None:
        _logger.info("Starting training from iteration %d", self.start_iter)
        if self.start_iter == self.max_iter:
            _logger.warning(
                "All %d iterations (SOLVER.MAX_ITER) are done; only the evaluation is left",
                self.max_iter,
            )
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage:
            try:
                self.before_train()
                for iteration in range(self.start_iter, self.max_iter):
                    self.iter = iteration
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    if comm.get_world_size() == 1:  # several agree when they have their data
                        self._interruption.check()
                self.iter = self.max_iter
                self.after_train()
            except BaseException as error:
                self._leave(error)
                raise
        if isinstance(self.data_loader, TrainLoader) and self.data_loader.summary():
            _logger.warning("%s", self.data_loader.summary())

    def run_step(self) -> None:
        """Run one iteration, and note that it is whole."""
        super().run_step()
        self._updating = False
        self._done = self.iter
        self._position = getattr(self.data_loader, "position", None)

    def after_step(self) -> None:
        """Run the hooks; evaluations can be interrupted."""
        self._run_hooks(lambda hook: hook.after_step())

    def after_train(self) -> None:
        """Run the hooks; evaluations can be interrupted."""
        self.storage.iter = self.iter
        self._run_hooks(lambda hook: hook.after_train())

    def _run_hooks(self, call: Callable[[Any], None]) -> None:
        for hook in self._hooks:
            if isinstance(hook, hooks.EvalHook):
                with self._interruption.allowed():
                    call(hook)
            else:
                call(hook)

    def _leave(self, error: BaseException) -> None:
        """Save what is whole, say where, and let the hooks close their files."""
        reason = one_line(error)
        if isinstance(error, KeyboardInterrupt | SystemExit) and self._interruption.signal:
            reason = signal.Signals(self._interruption.signal).name
        ended = self.iter == self.max_iter
        _logger.debug("What ended it:", exc_info=error)
        if comm.is_main_process():
            _logger.error("%s (%s)", self._save(error), reason)
        if ended:  # the hooks have been told
            return
        # Hooks take this for the end of the training and evaluate, unless more was to come.
        self.max_iter = max(self.max_iter, self.iter + 2)
        for hook in self._hooks:
            try:
                hook.after_train()
            except Exception as late:  # the first error is the one to raise
                _logger.warning("%s: %s", type(hook).__name__, one_line(late))

    def _save(self, error: BaseException) -> str:
        """Save the last whole iteration if that helps; returns what to tell."""
        saver = self.checkpointer
        last = saver.last_file()
        on = f"go on from {last} with --resume" if last else "there is no checkpoint yet"
        if self._done is None:
            return f"Stopped before an iteration was done; {on}"
        stopped = f"Stopped after iteration {self._done}"
        if isinstance(error, FloatingPointError):
            return f"{stopped}; parameters that diverge are not saved, {on}"
        if self._updating:
            return f"{stopped}; the next one changed a part of the parameters, {on}"
        if saver.saved_iteration != self._done:
            self.iter = self._done
            try:
                saver.save(f"model_{self._done:07d}", iteration=self._done)
            except Exception as failure:  # of any kind: the disk, the device, a bad value
                return f"{stopped}; it could not be saved ({one_line(failure)}), {on}"
        return f"{stopped}; go on from {saver.last_file()} with --resume"

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next iteration depends on, but for the model."""
        state = super().state_dict()
        state["_trainer"] = self._trainer.state_dict()  # Detectron2 0.6 leaves it out
        own = {
            "config": flat_config(self._config),
            "optimizer": kind_of(self.optimizer),
            "parameters": parameter_names(self.optimizer, self.checkpointer.model),
            "checkpoints": self.checkpointer.numbered,
        }
        if isinstance(self.data_loader, TrainLoader):
            own["data"] = self.data_loader.state_dict(self._position)
        return {**state, STATE_KEY: own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where another trainer was, with the rates and the schedule of this config.

        Raises:
            ValueError: The state is damaged, or more iterations are done than `SOLVER.MAX_ITER`.
        """
        iteration = int(state_dict["iteration"])
        if iteration >= self.max_iter:
            raise ValueError(
                f"SOLVER.MAX_ITER is {self.max_iter}, but {iteration + 1} iterations are done"
            )
        own, inner = state_dict.get(STATE_KEY, {}), state_dict.get("_trainer")
        self.checkpointer.numbered = list(own.get("checkpoints", []))
        changed = changes(own.get("config", {}), self._config)
        if changed:
            _logger.warning("Changed since the checkpoint, and used: %s", ", ".join(changed))
        if inner is None:
            _logger.warning(
                "The checkpoint is of an older version, without the state of the optimizer: "
                "momentum starts anew"
            )
        else:
            names, kind = own.get("parameters"), own.get("optimizer")
            model = self.checkpointer.model
            load_optimizer(self.optimizer, model, inner["optimizer"], names, kind)
            load_scaler(getattr(self._trainer, "grad_scaler", None), inner.get("grad_scaler"))
        states = dict(state_dict.get("hooks", {}))
        set_scheduler(self.scheduler, iteration, states.pop("LRScheduler", None))
        if isinstance(self.data_loader, TrainLoader):
            self._load_position(own.get("data"))
        TrainerBase.load_state_dict(self, {"iteration": iteration, "hooks": states})

    def _load_position(self, saved: dict[str, Any] | None) -> None:
        if saved is None:
            _logger.warning("The checkpoint does not say where in the data it was: they start anew")
        elif self.data_loader.load_state_dict(saved, keep_seed=self.cfg.SEED >= 0):
            _logger.info("Going on behind %d images", self.data_loader.position.drawn)
        else:
            _logger.warning("The images or SEED have changed: a new pass over them begins")
