"""Shares of several datasets in training."""

from __future__ import annotations

import itertools
import json

import pytest
from builders import tiny_config
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from solo_d2.data.build import build_train_loader, repeat_factors
from solo_d2.data.datasets.coco_json import register_coco_json

SIZES = {"mattes": 3, "masks": 9}


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9)), min_size=1, max_size=4).filter(
        lambda parts: sum(share for _, share in parts) > 0
    )
)
def test_expected_draws_have_the_shares_exactly(parts):
    sizes, shares = (list(column) for column in zip(*parts, strict=True))
    per_set = [part.sum().item() for part in repeat_factors(sizes, shares).split(sizes)]
    total = sum(sizes)
    wanted = [total * share / sum(shares) for share in shares]
    assert per_set == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_shares_of_the_sizes_draw_every_image_once():
    assert repeat_factors([2, 6], [1, 3]).tolist() == [1.0] * 8


@pytest.mark.parametrize("shares", [[1], [1, 1, 1], [-1, 2], [0, 0]])
def test_bad_shares_are_named(shares):
    with pytest.raises(ValueError, match="a number >= 0 for each of the 2 datasets"):
        repeat_factors([2, 6], shares)


@pytest.fixture
def sets(tmp_path):
    """Two datasets whose images all show one object, and an empty one."""
    for name, count in [*SIZES.items(), ("empty", 1)]:
        images, annotations = [], []
        for i in range(1, count + 1):
            Image.new("RGB", (16, 16)).save(tmp_path / f"{name}{i}.png")
            images.append({"id": i, "file_name": f"{name}{i}.png", "height": 16, "width": 16})
            annotations.append(
                {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 64,
                 "bbox": [2, 2, 8, 8], "segmentation": [[2, 2, 10, 2, 10, 10, 2, 10]]}
            )  # fmt: skip
        content = {
            "images": images,
            "annotations": [] if name == "empty" else annotations,
            "categories": [{"id": 1, "name": "thing"}],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        register_coco_json(name, tmp_path / f"{name}.json", tmp_path)
    yield tuple(SIZES)
    for name in (*SIZES, "empty"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def loader(names, shares, *overrides):
    cfg = tiny_config(
        "DATASETS.TRAIN", names, "DATASETS.TRAIN_SHARES", shares, "DATALOADER.NUM_WORKERS", 0,
        "SOLVER.IMS_PER_BATCH", 2, "INPUT.MIN_SIZE_TRAIN", (16,), *overrides,
    )  # fmt: skip
    return build_train_loader(cfg, mapper=lambda record: record)


def share_of_mattes(names, shares, batches=300):
    drawn = itertools.chain.from_iterable(itertools.islice(loader(names, shares), batches))
    return sum("mattes" in sample["file_name"] for sample in drawn) / (2 * batches)


def test_images_are_drawn_in_the_shares_of_the_key(sets, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.shared_random_seed", lambda: 3)
    # 600 draws: four standard deviations of a fair coin are 0.08, and epochs vary less.
    assert share_of_mattes(sets, []) == pytest.approx(0.25, abs=0.02)  # as they come: 3 of 12
    assert share_of_mattes(sets, [1, 1]) == pytest.approx(0.5, abs=0.08)
    assert share_of_mattes(sets, [9.0, 1.0]) == pytest.approx(0.9, abs=0.08)
    assert share_of_mattes(sets, [0, 1]) == 0


def test_shares_and_another_sampler_exclude_each_other(sets):
    with pytest.raises(ValueError, match=r"TRAIN_SHARES.*'RepeatFactorTrainingSampler'"):
        loader(sets, [1, 1], "DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")


def test_a_set_without_objects_is_named(sets):
    with pytest.raises(ValueError, match=r"empty\.json has no image with objects"):
        loader((sets[0], "empty"), [1, 1])
