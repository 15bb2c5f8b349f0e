"""Call a command in this process as a user calls it in a shell."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Done:
    """What is known of a command that has run, with the names of `subprocess`."""

    returncode: int
    stdout: str
    stderr: str


def load_script(path):
    """Import a script below the repository, as a module of its own."""
    name = Path(path).with_suffix("").as_posix().replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def call(main, *arguments):
    """Call the function of a command, which takes a list of words and returns its exit status.

    What it prints is kept, and what it registers is forgotten, as if its process had ended.
    """
    before = [(catalog, set(catalog.list())) for catalog in (DatasetCatalog, MetadataCatalog)]
    with (
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        try:
            code = main([str(word) for word in arguments])
        except SystemExit as stop:  # of argparse
            code = stop.code
        finally:
            for catalog, names in before:
                for name in set(catalog.list()) - names:
                    catalog.remove(name)
    return Done(code or 0, stdout.getvalue(), stderr.getvalue())


def train_net(*arguments):
    """Call ``train_net.py``."""
    return call(load_script("train_net.py").invoke_main, *arguments)
