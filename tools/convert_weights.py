#!/usr/bin/env python
"""Convert published SOLO weights, as ``solo-d2 convert``.

python tools/convert_weights.py SOLOv2_R50_3x.pth solov2_R_50.pth
"""

import sys
from collections.abc import Sequence

from solo_d2.cli import convert


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return convert.main(argv, prog="convert_weights.py")


if __name__ == "__main__":
    sys.exit(main())
