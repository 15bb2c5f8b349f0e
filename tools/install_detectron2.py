#!/usr/bin/env python3
"""Run `solo_d2.install_detectron2` from a checkout that is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from solo_d2.install_detectron2 import main

if __name__ == "__main__":
    sys.exit(main())
