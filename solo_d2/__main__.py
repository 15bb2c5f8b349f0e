"""``python -m solo_d2``: the command ``solo-d2``."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
