"""The examples in the docstrings of the public names run and show what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

MODULES = [
    "solo_d2",
    "solo_d2.checkpoint",
    "solo_d2.data",
    "solo_d2.engine",
    "solo_d2.evaluation",
    "solo_d2.export",
    "solo_d2.inference",
    "solo_d2.layers",
    "solo_d2.model_zoo",
    "solo_d2.modeling",
    "solo_d2.serve",
    "solo_d2.testing",
    "solo_d2.tracking",
    "solo_d2.web",
]


def documented():
    """Every public function and class once, with the names that its module exports."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(name)
        names = {public: getattr(module, public) for public in module.__all__}
        for public, thing in names.items():
            if inspect.isclass(thing) or inspect.isfunction(thing):
                found.setdefault(thing, (f"{name}.{public}", names))
    return [pytest.param(thing, names, id=label) for thing, (label, names) in found.items()]


@pytest.fixture
def catalogs():
    """Forget the datasets that an example registers."""
    before = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


@pytest.mark.parametrize(("thing", "names"), documented())
def test_examples_of_public_names_run(thing, names, catalogs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "timm" in thing.__name__:
        pytest.importorskip("timm")
    source = inspect.getdoc(thing)
    test = doctest.DocTestParser().get_doctest(source, dict(names), thing.__name__, None, 0)
    assert test.examples
    report = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.failed == 0, "".join(report)
