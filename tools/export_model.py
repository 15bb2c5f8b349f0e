#!/usr/bin/env python
"""Export a model for another runtime, as ``solo-d2 export``.

python tools/export_model.py --config-file CONFIG --weights FILE --output model.onnx
"""

import sys
from collections.abc import Sequence

from solo_d2.cli import export


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return export.main(argv, prog="export_model.py")


if __name__ == "__main__":
    sys.exit(main())
