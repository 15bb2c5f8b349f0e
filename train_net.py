#!/usr/bin/env python
"""Train and evaluate models of the SOLO family; ``solo-d2 train`` and ``eval`` do the same.

    python train_net.py --config-file configs/COCO-InstanceSegmentation/solov2_R_50_FPN_3x.yaml
    python train_net.py --config-file FILE --eval-only MODEL.WEIGHTS model.pth
    python train_net.py --config-file FILE --train-json a.json --train-images a/ \
        --val-json b.json --val-images b/
    torchrun --nproc_per_node 2 train_net.py --config-file FILE

See README.md and `--help`.
"""

import sys
from collections.abc import Sequence

from solo_d2.cli.train import main


def invoke_main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and start the processes; returns the exit code."""
    return main(argv, prog="train_net.py")


if __name__ == "__main__":
    sys.exit(invoke_main())
