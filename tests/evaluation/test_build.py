"""Which evaluators a dataset gets."""

from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from evaluation_builders import random_scene, write_scenes

from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.evaluation import COCOInstanceEvaluator, build, build_evaluator


@pytest.fixture
def name():
    yield "a_set"
    MetadataCatalog.pop("a_set", None)
    if "a_set" in DatasetCatalog.list():
        DatasetCatalog.remove("a_set")


def test_unknown_types_and_none_are_named_with_the_known_ones(name):
    with pytest.raises(ValueError, match="'a_set' has the evaluator_type None; known: 'coco'"):
        build_evaluator(name)
    MetadataCatalog.get(name).set(evaluator_type="voc")
    with pytest.raises(ValueError, match=r"'voc'; known: .*'lvis', 'cityscapes_instance'"):
        build_evaluator(name)


def test_one_evaluator_comes_as_it_is(name, tmp_path):
    import numpy as np

    scenes = [random_scene(np.random.default_rng(0)) for _ in range(2)]
    register_coco_json(name, write_scenes(tmp_path, scenes), tmp_path)
    assert type(build_evaluator(name)) is COCOInstanceEvaluator


def test_several_evaluators_are_joined(name, monkeypatch):
    class Count(DatasetEvaluator):
        def __init__(self, key):
            self.key = key

        def reset(self):
            self.seen = 0

        def process(self, inputs, outputs):
            self.seen += len(inputs)

        def evaluate(self):
            return {self.key: self.seen}

    both = (lambda name, folder: Count(name), lambda name, folder: Count(folder))
    monkeypatch.setitem(build.EVALUATORS, "count", both)
    MetadataCatalog.get(name).set(evaluator_type="count")
    evaluator = build_evaluator(name, "out")
    assert isinstance(evaluator, DatasetEvaluators)
    evaluator.reset()
    evaluator.process([1, 2], [3, 4])
    assert evaluator.evaluate() == {"a_set": 2, "out": 2}
