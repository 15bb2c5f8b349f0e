"""``solo-d2 train`` and ``solo-d2 eval``, also behind ``train_net.py``.

solo-d2 train --data my_photos/ --epochs 50
solo-d2 train --config-file CONFIG --train-json a.json --train-images a/ \
        --val-json b.json --val-images b/ OUTPUT_DIR output/mine
solo-d2 eval --weights output/mine/model_best.pth --data my_photos/
"""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.arguments import argument_parser, parse_arguments
from .quiet import foreign_warnings_aside

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..report import ReportPlan

__all__ = ["main", "run"]

EPOCHS = 50
"""Epochs of a training on data named by ``--data``."""

CONFIGS = {
    "cuda": "COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml",
    "cpu": "COCO-InstanceSegmentation/solov2_light_448_R_18_FPN_3x.yaml",
}
"""Configs of trainings that name none, by device."""


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train or evaluate in one process.

    Returns:
        The results of an evaluation, on the main process.

    Raises:
        ValueError: An option, a file or the config cannot be used.
        OSError: A file cannot be written.
        FloatingPointError: The training has diverged.
    """
    from ..engine.log import end_log
    from ..io.lock import unlock_all

    # Also here, and not only around the verb: processes for several GPUs begin here.
    with contextlib.nullcontext() if args.verbose else foreign_warnings_aside():
        try:
            if args.eval_only:
                return _evaluate(args)
            _train(args)
            return None
        finally:
            unlock_all()
            end_log()


def _train(args: argparse.Namespace) -> None:
    from ..engine import SOLOTrainer, setup
    from ..engine.progress import TrainerWithProgress
    from ..engine.summary import closing_lines

    cfg = setup(args)
    trainer = (SOLOTrainer if args.verbose else TrainerWithProgress)(cfg)
    trainer.resume_or_load(resume=args.resume, allow_partial=args.allow_partial)
    trainer.train()
    for line in closing_lines(cfg):
        print(line)


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    from ..checkpoint import load_weights
    from ..engine import SOLOTrainer, name_classes, setup
    from ..engine.progress import EvaluationWithProgress
    from ..export import is_exported, load_exported

    cfg = setup(args)
    report = _plan_report(args, cfg)
    trainer = SOLOTrainer if args.verbose else EvaluationWithProgress
    if is_exported(cfg.MODEL.WEIGHTS):
        exported = load_exported(cfg.MODEL.WEIGHTS)
        exported.check_config(cfg)
        results: dict[str, Any] = trainer.test(cfg, exported)
        _write_report(report)
        return results
    model = trainer.build_model(cfg)
    name_classes(model, cfg.DATASETS.TEST[0])
    averaged = load_weights(model, cfg.MODEL.WEIGHTS, allow_partial=args.allow_partial)
    if cfg.SOLVER.EMA.ENABLED and not averaged:
        logging.getLogger(__name__).info(
            "%s has one set of weights, and no EMA weights (SOLVER.EMA) beside it",
            cfg.MODEL.WEIGHTS,
        )
    results = trainer.test(cfg, model)
    _write_report(report)
    if cfg.TEST.AUG.ENABLED:
        results |= trainer.test_with_TTA(cfg, model)
    return results


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that would not be used."""
    for name in ("epochs", "batch_size", "more_json", "more_images") if args.eval_only else ():
        if getattr(args, name) is not None:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is of a training: leave it out of an evaluation")
    if args.weights is not None and "MODEL.WEIGHTS" in args.opts[::2]:
        raise ValueError("--weights and MODEL.WEIGHTS both name weights: leave one of them out")
    if args.weights is not None and args.eval_only and args.resume:
        raise ValueError(
            "--weights and --resume, which takes the last checkpoint of OUTPUT_DIR, both name "
            "weights: leave one of them out"
        )
    if args.report_against is not None and args.report is None:
        raise ValueError("--report-against needs --report DIR")
    if args.report is not None and not args.eval_only:
        raise ValueError("--report is of an evaluation: solo-d2 eval --report DIR")
    if args.results and not args.eval_only:
        raise ValueError("--results is of an evaluation: solo-d2 eval --results PATH")


def _plan_report(args: argparse.Namespace, cfg: CfgNode) -> ReportPlan | None:
    """Check before the evaluation that its report can be made."""
    if args.report is None:
        return None
    from ..report import plan_report

    return plan_report(cfg, args.report, args.report_against)


def _write_report(report: ReportPlan | None) -> None:
    from detectron2.utils import comm

    if report is not None and comm.is_main_process():
        report.write()


def complete(args: argparse.Namespace) -> None:
    """Fill in, in place, what a command line leaves out: config, schedule, weights to start from.

    Raises:
        ValueError: An evaluation names no config, and none lies beside its weights.
    """
    named = args.opts[::2]
    if args.eval_only:
        args.config_file = args.config_file or _config_beside(args)
        return
    args.config_file = args.config_file or default_config()
    if args.data and args.epochs is None and "SOLVER.MAX_ITER" not in named:
        args.epochs = EPOCHS
    if args.data and args.weights is None and "MODEL.WEIGHTS" not in named:
        from ..io.configs import config_name
        from ..model_zoo.checkpoints import has_published_weights

        published = has_published_weights(config_name(args.config_file) or args.config_file)
        args.weights = "published" if published else None


def default_config() -> str:
    """Choose and tell the config of a command that names none."""
    import torch

    name = CONFIGS["cuda" if torch.cuda.is_available() else "cpu"]
    print(f"config: {name} (another one: --config-file)")
    return name


def _config_beside(args: argparse.Namespace) -> str:
    """The config.yaml beside the weights; none for an exported file, which holds its config."""
    from ..export import is_exported

    if is_exported(args.weights):
        return ""
    named = dict(zip(args.opts[::2], args.opts[1::2], strict=False))
    weights = args.weights or named.get("MODEL.WEIGHTS", "")
    beside = Path(weights).with_name("config.yaml") if weights else None
    if beside is None or not beside.is_file():
        raise ValueError(
            "name a config with --config-file, or weights with a config.yaml beside them"
        )
    return str(beside)


def main(
    argv: Sequence[str] | None = None, *, prog: str | None = None, evaluate: bool = False
) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: The command line without the program and the verb.
        prog: Name of the program in messages.
        evaluate: Do not train.
    """
    verb = "eval" if evaluate else "train"
    parser = argument_parser(prog or f"solo-d2 {verb}")
    try:
        args = parse_arguments(argv, parser)
        args.eval_only = args.eval_only or evaluate
        _check_options(args)
        if args.results:
            from .results import evaluate_results

            evaluate_results(args)
            return 0
        if prog is None:
            complete(args)
        else:
            args.verbose = True
        _launch(args)
    except SystemExit:  # of --help, and of SIGTERM
        raise
    except BaseException as error:
        from ..engine.processes import exit_code, tell

        code = exit_code(error)
        if code is None:
            raise
        tell(error, prog or "solo-d2")
        return code
    return 0


def _launch(args: argparse.Namespace) -> None:
    from ..engine import launch

    launch(
        run,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
