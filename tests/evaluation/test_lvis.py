"""Facts about LVIS evaluation: hotcoco and the package lvis agree, and only known classes count."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from evaluation_builders import CATEGORY_IDS, feed, random_mask, random_scene, write_scenes

from solo_d2.data.datasets.lvis import register_lvis_json, write_lvis
from solo_d2.evaluation import LVISInstanceEvaluator, build_evaluator, coco

GROUPS = {"APr", "APc", "APf"}
needs_hotcoco = pytest.mark.skipif(coco.hotcoco is None, reason="needs hotcoco")


@pytest.fixture
def register(tmp_path):
    """Writes scenes as LVIS; `edit` may change the file's content before it is registered."""

    def make(scenes, edit=lambda content: None):
        write_lvis(write_scenes(tmp_path, scenes), tmp_path / "lvis.json")
        content = json.loads((tmp_path / "lvis.json").read_text())
        edit(content)
        (tmp_path / "lvis.json").write_text(json.dumps(content))
        register_lvis_json("federated", tmp_path / "lvis.json", tmp_path)
        return "federated"

    yield make
    if "federated" in DatasetCatalog.list():
        DatasetCatalog.remove("federated")
        MetadataCatalog.pop("federated")


def scenes_of(seed, count=30, **options):
    rng = np.random.default_rng(seed)
    return [random_scene(rng, **options) for _ in range(count)]


def thin_out(seed):
    """Forget most of what images are known to lack, and call some classes not exhaustive."""

    def edit(content):
        rng = np.random.default_rng(seed)
        for image in content["images"]:
            negative = image["neg_category_ids"]
            shown = [i for i in CATEGORY_IDS if i not in negative]
            image["neg_category_ids"] = [i for i in negative if rng.random() < 0.3]
            image["not_exhaustive_category_ids"] = [i for i in shown if rng.random() < 0.3]
        for category, group in zip(content["categories"], "rccf", strict=True):
            category["frequency"] = group

    return edit


@needs_hotcoco
@pytest.mark.parametrize(("seed", "limit"), [(0, None), (1, None), (2, 4)])
def test_hotcoco_and_lvis_give_the_same_numbers(seed, limit, register):
    pytest.importorskip("lvis")
    scenes = scenes_of(seed, detections=12)
    name = register(scenes, thin_out(seed))
    before = set(vars(np))
    fast, slow = (
        feed(LVISInstanceEvaluator(name, fast=fast, max_dets_per_image=limit), scenes)
        for fast in (True, False)
    )
    assert set(vars(np)) == before
    assert set(fast) == set(slow) == {"segm", "bbox"}
    for task in fast:
        assert set(fast[task]) == {"AP", "AP50", "AP75", "APs", "APm", "APl"} | GROUPS
        for key, value in fast[task].items():
            assert value == pytest.approx(slow[task][key], abs=1e-9, nan_ok=True)
        assert all(0 < fast[task][key] < 100 for key in GROUPS)


def test_a_perfect_predictor_has_an_ap_of_100_and_unknown_groups_are_nan(register):
    scenes = scenes_of(3, count=8)
    result = feed(build_evaluator(register(scenes)), scenes, perfect=True)["segm"]
    assert result["AP"] == pytest.approx(100)
    assert result["APr"] == pytest.approx(100)  # no class is in more than 8 images
    assert math.isnan(result["APf"])


def test_only_classes_that_an_image_is_known_to_lack_count_as_wrong(register):
    rng = np.random.default_rng(4)
    object_, other = random_mask(rng), random_mask(rng)
    scenes = [([(object_, 0)], []), ([(object_, 1)], [(other, 0, 0.95)])]
    scenes[0][1].append((object_, 0, 0.9))
    scenes[1][1].append((object_, 1, 0.9))

    def forget(content):
        content["images"][1]["neg_category_ids"] = []

    name = register(scenes, forget)
    assert feed(build_evaluator(name), scenes)["segm"]["AP"] == pytest.approx(100)
    DatasetCatalog.remove(name)
    MetadataCatalog.pop(name)
    # A wrong detection of class 0 scores above the right one: its precision is 1/2.
    assert feed(build_evaluator(register(scenes)), scenes)["segm"]["AP"] == pytest.approx(75)


def test_without_any_detection_ap_is_unknown(register):
    scenes = [(truth, []) for truth, _ in scenes_of(5, count=3)]
    result = feed(build_evaluator(register(scenes)), scenes)
    assert all(math.isnan(x) for x in result["segm"].values())
    assert set(result["segm"]) >= GROUPS


def test_without_both_packages_the_better_one_is_named(register, monkeypatch):
    name = register(scenes_of(6, count=2))
    monkeypatch.setattr(coco, "hotcoco", None)
    monkeypatch.setitem(sys.modules, "lvis", None)
    with pytest.raises(ValueError, match="pip install hotcoco"):
        LVISInstanceEvaluator(name)


def test_ids_from_1_where_the_metadata_have_no_mapping(register):
    """Detectron2's own LVIS sets."""
    scenes = [([(mask, 0)], [(mask, 1, 0.5)]) for mask in [random_mask(np.random.default_rng(7))]]
    name = register(scenes)
    # Category 2 is label 0 of the file, but label 1 when ids start from 1.
    metadata = MetadataCatalog.get(name)
    MetadataCatalog.pop(name)
    MetadataCatalog.get(name).set(json_file=metadata.json_file, evaluator_type="lvis")
    assert feed(build_evaluator(name), scenes)["segm"]["AP"] == pytest.approx(100)
