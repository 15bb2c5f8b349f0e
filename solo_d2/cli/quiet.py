"""Keep what other packages warn about among themselves off the console."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

__all__ = ["foreign_warnings_aside"]


@contextlib.contextmanager
def foreign_warnings_aside() -> Iterator[None]:
    """Turn Python warnings into log records, which only a log file gets.

    What this package warns about goes through `logging` and stays on the console; Python warnings
    are of packages below it, about their own calls of each other, such as "torch.jit.script is
    deprecated". ``-W error`` still raises them.
    """
    logger = logging.getLogger("py.warnings")
    if not logger.propagate:  # done further out
        yield
        return
    nowhere = logging.NullHandler()
    logger.addHandler(nowhere)
    logger.propagate = False
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logger.propagate = True
        logger.removeHandler(nowhere)
