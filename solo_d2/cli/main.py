"""``solo-d2 VERB ...``: choose the verb, and leave the rest to it."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from .._missing import explain
from .._version import __version__
from .quiet import foreign_warnings_aside

VERBS = {
    "predict": "find instances in images, folders, a video or a camera",
    "train": "train a model, also on data of your own in one command",
    "eval": "evaluate a model on a dataset",
    "reproduce": "compare a published model's AP with what it has here",
    "check": "find out before training what a model can learn of a dataset",
    "convert": "convert weights of other projects, or a dataset to another format",
    "export": "write a model for ONNX Runtime or OpenVINO",
    "serve": "put a model on a page to try it, and behind HTTP",
    "web": "write a page that finds instances in the browser",
    "benchmark": "compare the ways to run a model: time, size, parity, AP",
    "zoo": "list published models, or download some",
    "scenes": "build a dataset of generated scenes",
}
"""Verbs and what they do. The module `solo_d2.cli.VERB` has a function `main(argv)`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    verb = argv[0] if argv else "--help"
    if verb in ("-h", "--help", "help"):
        print(usage())
        return 0
    if verb in ("-V", "--version"):
        print(f"solo-d2 {__version__}")
        return 0
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        print(f"solo-d2: unknown verb {verb!r}{hint} (solo-d2 --help lists all)", file=sys.stderr)
        return 2
    program = importlib.import_module(f".{verb}", __package__)
    try:
        with foreign_warnings_aside():
            code: int = program.main(list(argv[1:]))
    except ModuleNotFoundError as error:
        text = explain(error)
        if text is None:
            raise
        print(f"solo-d2: {text}", file=sys.stderr)
        return 1
    return code


def usage() -> str:
    """Return the text of ``solo-d2 --help``."""
    lines = [f"  {verb:11}{text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "usage: solo-d2 VERB [options] [KEY VALUE ...]",
            "",
            "Box-free instance segmentation: the SOLO family for Detectron2.",
            "",
            *lines,
            "",
            "solo-d2 VERB --help explains a verb. KEY VALUE pairs override the config.",
        ]
    )
