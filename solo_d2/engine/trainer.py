"""The trainer of SOLO: this package's mappers, evaluators and checks."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.engine import defaults as detectron2_defaults
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ..check.training import learnable
from ..checkpoint import Require
from ..checkpoint.files import EMA_KEY
from ..config import validate_config
from ..data.build import build_train_loader
from ..data.checks import check_classes, check_stuff
from ..data.dataset_mapper import PanopticDatasetMapper, SOLODatasetMapper
from ..data.loader import TrainLoader
from ..data.matting_mapper import MattingDatasetMapper
from ..evaluation import build_evaluator
from ..evaluation.build import detections_per_image
from ..modeling.levels import has_unread_levels
from ..modeling.meta_arch import SOLO, PanopticSOLO, SoftSOLO, is_panoptic
from ..modeling.test_time_augmentation import SOLOWithTTA
from ..modeling.tiles import TiledModel
from ..solver import build_optimizer
from .accumulation import AccumulatingTrainer
from .checkpointer import BestCheckpointer, TrainingCheckpointer
from .classes import align_datasets, check_names, name_classes
from .ema import AverageWeights, WeightAverage
from .freezing import FreezeBackbone
from .hooks import BestCheckpoint, DrawnImages, draw_evaluation
from .loop import ResumableTrainer
from .trackers import build_trackers

_logger = logging.getLogger(__name__)

# Meta-architectures, also derived ones, that learn from more than instance masks.
_MAPPERS: dict[type[nn.Module], type[SOLODatasetMapper]] = {
    PanopticSOLO: PanopticDatasetMapper,
    SoftSOLO: MattingDatasetMapper,
}


class SOLOTrainer(ResumableTrainer):
    """`DefaultTrainer` for SOLO.

    It adds to Detectron2's: mixed precision and several processes also without CUDA, a check that
    model and datasets have the same classes, a checkpoint of the best evaluation so far
    (``model_best.pth``, by segm AP), and all that `ResumableTrainer` keeps.

    Attributes:
        average: the EMA weights of `SOLVER.EMA`, which are evaluated and saved; None without.

    Example:
        >>> from solo_d2.testing import tiny_config
        >>> model = SOLOTrainer.build_model(tiny_config())
        >>> type(model).__name__, model.training
        ('SOLO', True)
    """

    average: WeightAverage | None = None

    def __init__(self, cfg: CfgNode) -> None:
        validate_config(cfg, processes=comm.get_world_size())
        if not cfg.DATASETS.TRAIN:
            raise ValueError("DATASETS.TRAIN is empty; name at least one registered dataset")
        align_datasets(cfg)
        check_data(cfg, [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
        plain = cfg.clone()
        autocast = cfg.SOLVER.AMP.ENABLED and not _on_cuda(cfg)
        if autocast:
            # Detectron2's AMPTrainer is for CUDA only; `build_model` has seen the original config.
            plain.defrost()
            plain.SOLVER.AMP.ENABLED = False
            plain.freeze()
        idle = cfg.SOLVER.FREEZE_BACKBONE_ITERS > 0 or has_unread_levels(cfg)
        with _ddp_on_any_device(find_unused_parameters=idle):
            super().__init__(cfg, plain)
        if autocast:
            model = self._trainer.model
            model.forward = functools.wraps(model.forward)(
                torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)
            )
        if cfg.SOLVER.ACCUMULATE_STEPS > 1:
            self._trainer = AccumulatingTrainer(self._trainer, cfg.SOLVER.ACCUMULATE_STEPS)
        name_classes(self.checkpointer.model, cfg.DATASETS.TRAIN[0])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model and log its size; its text would fill pages."""
        model = detectron2_defaults.build_model(cfg)
        count = sum(p.numel() for p in model.parameters())
        _logger.info("%s with %.2f M parameters", type(model).__name__, count / 1e6)
        if cfg.TEST.AUG.ENABLED:
            SOLOWithTTA(cfg, model)  # bad scales are known now, not after hours
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer of `SOLVER`, see `solo_d2.solver.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        """Build the loader of `DATASETS.TRAIN` with the ground truth that the model needs."""
        return build_train_loader(cfg, _mapper_class(cfg)(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader[Any]:
        """Build the loader of one dataset of `DATASETS.TEST`."""
        return detectron2_defaults.build_detection_test_loader(
            cfg, dataset_name, mapper=SOLODatasetMapper(cfg, is_train=False)
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Build the evaluator that the dataset's metadata ask for."""
        folder = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
        return build_evaluator(
            dataset_name,
            str(folder),
            max_dets_per_image=detections_per_image(cfg),
            boundary=cfg.TEST.BOUNDARY_AP,
            diagnosis=cfg.TEST.DIAGNOSE,
        )

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Evaluate on all of `DATASETS.TEST`, with windows if `TEST.TILES` asks for them.

        Raises:
            ValueError: The model has other classes than a dataset.
        """
        for name in cfg.DATASETS.TEST:
            check_names(model, name)
        if cfg.TEST.TILES.ENABLED:
            cfg, model = _without_resizing(cfg), TiledModel(cfg, model)
        return super().test(cfg, model, evaluators)

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Evaluate with `TEST.AUG`, as the method of this name in Detectron2's `train_net.py`.

        Args:
            cfg: names the datasets and the scales.
            model: a `SOLO`, also one wrapped for distributed training.

        Returns:
            Results as of `test`, with "_TTA" behind the names: "segm_TTA", "bbox_TTA".
        """
        _logger.info("Testing with test-time augmentation ...")
        augmented = SOLOWithTTA(cfg, model)
        native = _without_resizing(cfg)
        native.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / "TTA")  # do not overwrite plain results
        results = cls.test(native, augmented)
        return {f"{name}_TTA": value for name, value in results.items()}

    def train(self) -> Any:
        """Train, and say at first what can be learnt of the data; see `ResumableTrainer.train`."""
        if comm.is_main_process() and isinstance(self.data_loader, TrainLoader):
            network, records = self.checkpointer.model, self.data_loader.images.records
            text = learnable(self.cfg, network, records) if isinstance(network, SOLO) else ""
            if text:
                _logger.info("%s", text)
        return super().train()

    def resume_or_load(self, resume: bool = True, *, allow_partial: bool = False) -> None:
        """Go on with the last whole checkpoint of the output folder, or load `MODEL.WEIGHTS`.

        Args:
            resume: whether to look for a checkpoint to go on with.
            allow_partial: of other weights take what fits. Otherwise they must fill the model, or
                at least the network below the FPN.

        Raises:
            ValueError: The weights or the checkpoints cannot be used.
        """
        self.checkpointer.require = Require.NOTHING if allow_partial else Require.BACKBONE
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.checkpointer.resumed:
            # The checkpoint has the number of the iteration that was finished.
            self.start_iter = self.iter + 1
            if self.average is not None and not self.average.started:
                _logger.warning(
                    "The checkpoint has no EMA weights (SOLVER.EMA): their average starts anew"
                )

    def build_hooks(self) -> list[HookBase]:
        """Add the best-checkpoint hook behind the evaluation, on the main process."""
        # Here, since the hooks are the first who get to know Detectron2's checkpointer.
        plain = self.checkpointer
        saved = dict(plain.checkpointables)
        if self.cfg.SOLVER.EMA.ENABLED:
            self.average = saved[EMA_KEY] = WeightAverage(plain.model, self.cfg.SOLVER.EMA.DECAY)
        self.checkpointer = TrainingCheckpointer(self._config, plain.model, **saved)
        added = super().build_hooks()
        position = next(i for i, hook in enumerate(added) if isinstance(hook, hooks.EvalHook))
        added[position] = hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, self._evaluate)
        if self.cfg.TEST.AUG.ENABLED:
            added.insert(position + 1, hooks.EvalHook(0, self._evaluate_with_tta))
        if self.average is not None:
            added.insert(0, AverageWeights(self.average))
            position += 1
        if self.cfg.SOLVER.FREEZE_BACKBONE_ITERS > 0:
            added.insert(0, FreezeBackbone(plain.model, self.cfg.SOLVER.FREEZE_BACKBONE_ITERS))
            position += 1
        if not comm.is_main_process():
            return added
        if self.cfg.TEST.EVAL_PERIOD > 0 and self.cfg.DATASETS.TEST:
            name = self.cfg.DATASETS.TEST[0]
            prefix = f"{name}/" if len(self.cfg.DATASETS.TEST) > 1 else ""
            saver = BestCheckpointer(self._config, plain.model, **saved)
            best = BestCheckpoint(self.cfg.TEST.EVAL_PERIOD, saver, f"{prefix}segm/AP")
            added.insert(position + 1, best)
        if self.cfg.VIS_PERIOD > 0 and isinstance(self.data_loader, TrainLoader):
            shown = (plain.model, self.data_loader, self.cfg.INPUT.FORMAT)
            added.insert(0, DrawnImages(self.cfg.VIS_PERIOD, *shown))
        return added

    def build_writers(self) -> list[EventWriter]:
        """Add the trackers of `SOLVER.TRACKERS`.

        Raises:
            ValueError: A package is not installed.
        """
        # Before TensorBoard's, which takes the images out of the storage.
        return [*build_trackers(self.cfg.SOLVER.TRACKERS, self._config), *super().build_writers()]

    def _evaluate(self) -> dict[str, Any]:
        with self.average.applied() if self.average else nullcontext():
            self._last_eval_results = self.test(self.cfg, self.model)
            if self.cfg.TEST.DRAWN_IMAGES and self.cfg.DATASETS.TEST and comm.is_main_process():
                mapper = SOLODatasetMapper(self.cfg, is_train=False)
                draw_evaluation(self.checkpointer.model, mapper, self.cfg)
        return self._last_eval_results

    def _evaluate_with_tta(self) -> dict[str, Any]:
        with self.average.applied() if self.average else nullcontext():
            return self.test_with_TTA(self.cfg, self.model)


def check_data(cfg: CfgNode, names: Sequence[str]) -> None:
    """Check that registered datasets have the classes of the model.

    Raises:
        ValueError: they have not, or cannot be read.

    Example:
        >>> from solo_d2.testing import tiny_config, tiny_dataset
        >>> check_data(tiny_config(), [tiny_dataset()])  # both have three classes
    """
    check_classes(names, cfg.MODEL.SOLO.NUM_CLASSES)
    if is_panoptic(cfg):
        check_stuff(names, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)


def _mapper_class(cfg: CfgNode) -> type[SOLODatasetMapper]:
    """The mapper that makes the ground truth of `MODEL.META_ARCHITECTURE`."""
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    for base, mapper in _MAPPERS.items():
        if isinstance(architecture, type) and issubclass(architecture, base):
            return mapper
    return SOLODatasetMapper


def _without_resizing(cfg: CfgNode) -> CfgNode:
    """The config for a loader whose images are resized by what wraps the model."""
    native = cfg.clone()
    native.defrost()
    native.INPUT.MIN_SIZE_TEST = 0
    return native


def _on_cuda(cfg: CfgNode) -> bool:
    return torch.device(cfg.MODEL.DEVICE).type == "cuda"


@contextmanager
def _ddp_on_any_device(*, find_unused_parameters: bool) -> Iterator[None]:
    """Let Detectron2 wrap a CPU model for several processes: it names a GPU in every case."""

    def create(model: nn.Module, **kwargs: Any) -> nn.Module:
        if comm.get_world_size() == 1:
            return model
        if next(model.parameters()).is_cuda:
            kwargs.setdefault("device_ids", [comm.get_local_rank()])
        kwargs.setdefault("find_unused_parameters", find_unused_parameters)
        return DistributedDataParallel(model, **kwargs)

    original = detectron2_defaults.create_ddp_model
    detectron2_defaults.create_ddp_model = create
    try:
        yield
    finally:
        detectron2_defaults.create_ddp_model = original
