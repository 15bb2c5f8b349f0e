"""Detectron2's `DefaultTrainer` with this package's mapper, evaluators and checks."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.engine import defaults as detectron2_defaults
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ..data.checks import check_classes
from ..data.dataset_mapper import SOLODatasetMapper
from ..evaluation import build_evaluator

_logger = logging.getLogger(__name__)


class SOLOTrainer(DefaultTrainer):
    """`DefaultTrainer` for SOLO.

    It adds to Detectron2's: mixed precision and several processes also without CUDA, a check that
    model and data sets have the same classes, and a checkpoint of the best evaluation so far
    (``model_best.pth``, by segm AP, else the first metric that the evaluator reports).
    """

    def __init__(self, cfg: CfgNode) -> None:
        check_classes([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST], cfg.MODEL.SOLO.NUM_CLASSES)
        if not cfg.DATASETS.TRAIN:
            raise ValueError("DATASETS.TRAIN is empty; name at least one registered data set")
        if cfg.SOLVER.AMP.ENABLED and not _on_cuda(cfg):
            # Detectron2's AMPTrainer is for CUDA only; `build_model` has seen the original config.
            plain = cfg.clone()
            plain.defrost()
            plain.SOLVER.AMP.ENABLED = False
            plain.freeze()
            self._autocast = True
        else:
            plain, self._autocast = cfg, False
        with _ddp_on_any_device():
            super().__init__(plain)
        if self._autocast:
            model = self._trainer.model
            model.forward = functools.wraps(model.forward)(
                torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)
            )

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model and log its size; its text would fill pages."""
        model = detectron2_defaults.build_model(cfg)
        count = sum(p.numel() for p in model.parameters())
        _logger.info("%s with %.2f M parameters", type(model).__name__, count / 1e6)
        if not _on_cuda(cfg):
            # A step of EfficientNet-Lite0 with 4 images took 0.60 s instead of 0.75 s on 2 cores.
            model = model.to(memory_format=torch.channels_last)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer that `SOLVER.OPTIMIZER` names.

        Raises:
            ValueError: unknown name.
        """
        solver = cfg.SOLVER
        if solver.OPTIMIZER not in ("SGD", "ADAMW"):
            raise ValueError(f'SOLVER.OPTIMIZER must be "SGD" or "ADAMW", got {solver.OPTIMIZER!r}')
        groups = get_default_optimizer_params(
            model,
            base_lr=solver.BASE_LR,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        )
        groups = _scale_backbone(groups, model, solver.BASE_LR, solver.BACKBONE_MULTIPLIER)
        common = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY}
        if solver.OPTIMIZER == "ADAMW":
            return maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(groups, **common)
        return maybe_add_gradient_clipping(cfg, torch.optim.SGD)(
            groups, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV, **common
        )

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader:
        """Build the loader of `DATASETS.TRAIN` with `SOLODatasetMapper`."""
        return build_detection_train_loader(cfg, mapper=SOLODatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        """Build the loader of one data set of `DATASETS.TEST`."""
        return detectron2_defaults.build_detection_test_loader(
            cfg, dataset_name, mapper=SOLODatasetMapper(cfg, is_train=False)
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """Build the evaluator that the data set's metadata ask for."""
        folder = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
        return build_evaluator(dataset_name, str(folder))

    def build_hooks(self) -> list[HookBase]:
        """Add the best-checkpoint hook behind the evaluation, on the main process."""
        added = super().build_hooks()
        if comm.is_main_process() and self.cfg.TEST.EVAL_PERIOD > 0 and self.cfg.DATASETS.TEST:
            name = self.cfg.DATASETS.TEST[0]
            prefix = f"{name}/" if len(self.cfg.DATASETS.TEST) > 1 else ""
            checkpointer = _UntaggedCheckpointer(
                self.checkpointer.model,
                self.cfg.OUTPUT_DIR,
                **self.checkpointer.checkpointables,
            )
            best = hooks.BestCheckpointer(
                self.cfg.TEST.EVAL_PERIOD,
                checkpointer,
                f"{prefix}segm/AP",
                file_prefix="model_best",
            )
            position = next(i for i, hook in enumerate(added) if isinstance(hook, hooks.EvalHook))
            added.insert(position + 1, best)
        return added


class _UntaggedCheckpointer(DetectionCheckpointer):
    """Saves beside the regular checkpoints: `--resume` must go on from the last, not the best."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Leave the file `last_checkpoint` alone."""


def _scale_backbone(
    groups: list[dict[str, Any]], model: nn.Module, base_lr: float, factor: float
) -> list[dict[str, Any]]:
    """Split parameter groups so that the network below the FPN learns `factor` times as fast."""
    backbone = model.get_submodule("backbone")
    backbone = getattr(backbone, "bottom_up", backbone)
    inside = {id(parameter) for parameter in backbone.parameters()}
    scaled = []
    for group in groups:
        for is_inside in (True, False):
            chosen = [p for p in group["params"] if (id(p) in inside) == is_inside]
            if chosen:
                lr = group.get("lr", base_lr) * (factor if is_inside else 1.0)
                scaled.append({**group, "params": chosen, "lr": lr})
    return scaled


def _on_cuda(cfg: CfgNode) -> bool:
    return torch.device(cfg.MODEL.DEVICE).type == "cuda"


@contextmanager
def _ddp_on_any_device() -> Iterator[None]:
    """Let Detectron2 wrap a CPU model for several processes: it names a GPU in every case."""

    def create(model: nn.Module, **kwargs: Any) -> nn.Module:
        if comm.get_world_size() == 1:
            return model
        if next(model.parameters()).is_cuda:
            kwargs.setdefault("device_ids", [comm.get_local_rank()])
        return DistributedDataParallel(model, **kwargs)

    original = detectron2_defaults.create_ddp_model
    detectron2_defaults.create_ddp_model = create
    try:
        yield
    finally:
        detectron2_defaults.create_ddp_model = original
