"""docs/reliability.md names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def named_tests():
    for row in re.findall(r"^\|.*\|$", PAGE, re.MULTILINE):
        file = None
        for path, name in re.findall(r"`(tests/[\w/]+\.py)?::(\w+)`", row):
            file = path or file
            yield file, name


@pytest.mark.parametrize(("file", "name"), sorted(set(named_tests())))
def test_a_promise_has_its_test(file, name):
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_a_test():
    promises = 0
    for table in PAGE.split("| promise | test |\n|---|---|\n")[1:]:
        for row in table.partition("\n\n")[0].splitlines():
            assert "::" in row, row
            promises += 1
    assert promises >= 40
