#!/usr/bin/env python
"""Train and evaluate models of the SOLO family.

    python train_net.py --config-file configs/COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml
    python train_net.py --config-file FILE --eval-only MODEL.WEIGHTS model.pth
    python train_net.py --config-file FILE --train-json a.json --train-images a/ \
        --val-json b.json --val-images b/
    torchrun --nproc_per_node 2 train_net.py --config-file FILE

See README.md and `--help`.
"""

import argparse
import sys

import torch

from solo_d2.checkpoint import load_weights
from solo_d2.engine import (
    SOLOTrainer,
    check_data,
    launch,
    name_classes,
    parse_arguments,
    setup,
)
from solo_d2.engine.log import end_log
from solo_d2.io.errors import one_line
from solo_d2.io.lock import unlock_all

EXPECTED = (ValueError, OSError, FloatingPointError, MemoryError, torch.cuda.OutOfMemoryError)
"""Errors of the input or the machine, for which one line is enough."""


def main(args: argparse.Namespace) -> None:
    """Run in one process."""
    try:
        cfg = setup(args)
        if args.eval_only:
            if not cfg.DATASETS.TEST:
                raise ValueError("--eval-only needs a data set: --val-json and --val-images")
            check_data(cfg, cfg.DATASETS.TEST)
            model = SOLOTrainer.build_model(cfg)
            name_classes(model, cfg.DATASETS.TEST[0])
            load_weights(model, cfg.MODEL.WEIGHTS, allow_partial=args.allow_partial)
            SOLOTrainer.test(cfg, model)
            if cfg.TEST.AUG.ENABLED:
                SOLOTrainer.test_with_TTA(cfg, model)
            return
        trainer = SOLOTrainer(cfg)
        trainer.resume_or_load(resume=args.resume, allow_partial=args.allow_partial)
        trainer.train()
    finally:
        unlock_all()
        end_log()


def invoke_main(argv: list[str] | None = None) -> int:
    """Parse the command line and start the processes; returns the exit code."""
    args = parse_arguments(argv)
    try:
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:  # of SIGTERM
        return stop.code if isinstance(stop.code, int) else 1
    except (
        ValueError,
        OSError,
        FloatingPointError,
        MemoryError,
        torch.cuda.OutOfMemoryError,
    ) as error:
        print(f"train_net.py: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(invoke_main())
