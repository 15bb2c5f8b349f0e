"""The key "alpha" of COCO annotations: where matte files are looked for, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from solo_d2.data.datasets.coco_json import load_coco_json, register_coco_json
from solo_d2.evaluation import build_evaluator
from solo_d2.evaluation.matting import target_matte

MATTE = np.tile(np.arange(12, dtype=np.uint8) * 20, (10, 1))


@pytest.fixture
def load(tmp_path):
    """Reads a set of one image of 10 x 12 pixels and one annotation with this alpha."""
    (tmp_path / "annotations").mkdir()
    Image.new("RGB", (12, 10)).save(tmp_path / "a.png")
    Image.fromarray(MATTE).save(tmp_path / "matte.png")
    Image.fromarray(MATTE[2:6, 3:11]).save(tmp_path / "crop.png")

    def read(alpha, folder="annotations"):
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 10, "width": 12}],
            "annotations": [
                {"id": 5, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 16,
                 "bbox": [1, 2, 4, 4], "segmentation": [[1, 2, 5, 2, 5, 6, 1, 6]], "alpha": alpha}
            ],
            "categories": [{"id": 1, "name": "thing"}],
        }  # fmt: skip
        path = tmp_path / folder / "set.json"
        path.write_text(json.dumps(content))
        return path, load_coco_json(path, tmp_path).records[0]["annotations"][0]["alpha"]

    return read


@pytest.mark.parametrize("folder", ["annotations", "."])
def test_files_are_found_above_the_annotations_or_beside_them(load, tmp_path, folder):
    _, alpha = load({"file_name": "matte.png"}, folder)
    assert alpha == {"file_name": str(tmp_path.resolve() / "matte.png")}
    np.testing.assert_allclose(target_matte({"alpha": alpha}, (10, 12)), MATTE / 255, rtol=1e-6)


def test_a_crop_keeps_its_offset(load):
    _, alpha = load({"file_name": "crop.png", "offset": [3, 2]})
    expected = np.zeros((10, 12))
    expected[2:6, 3:11] = MATTE[2:6, 3:11] / 255
    np.testing.assert_allclose(target_matte({"alpha": alpha}, (10, 12)), expected, rtol=1e-6)


def test_an_absolute_path_stays(load, tmp_path):
    file = str(tmp_path.resolve() / "matte.png")
    assert load({"file_name": file})[1]["file_name"] == file


@pytest.mark.parametrize("offset", [[4, 6], [4, 0], [0, 6]])
def test_a_crop_may_touch_the_border(load, offset):
    load({"file_name": "crop.png", "offset": offset})


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        ({"file_name": "none.png"}, r"matte .*none\.png does not exist; .* folder above"),
        ({"file_name": "crop.png"}, r"crop\.png has 8x4 pixels, its image 12x10; .*'offset'"),
        ({"file_name": "crop.png", "offset": [5, 2]}, r"crop\.png of 8x4 .* at \(5, 2\) does not"),
        ({"file_name": "crop.png", "offset": [3, 7]}, r"crop\.png .* does not lie inside"),
        ({"file_name": "crop.png", "offset": [-1, 0]}, r"crop\.png .* does not lie inside"),
        ({"file_name": "crop.png", "offset": 3}, r"offset of its matte .*crop\.png should be"),
        ({"file_name": "annotations/set.json"}, r"set\.json is not a readable image"),
        ("matte.png", r"'alpha' should be .*got 'matte\.png'"),
        (
            {"file_name": "../matte.png"},
            r"has the file name '\.\./matte\.png', which leads",
        ),
        ({"file_name": "/etc/hostname"}, r"matte has the file name '/etc/hostname', which leads"),
        ({"file_name": "x" * 3000}, r"matte .*x does not exist"),
        ({"file_name": ""}, r"its matte has the file name ''"),
        ({"file_name": "crop.png", "offset": [3.5, 2]}, r"should be \[x, y\], got \[3\.5, 2\]"),
        ({"file_name": "crop.png", "offset": ["3", 2]}, r"should be \[x, y\], got \['3', 2\]"),
        ({"file_name": "crop.png", "offset": [1e999, 2]}, r"should be \[x, y\], got \[inf, 2\]"),
        ({"file_name": "crop.png", "offset": [3]}, r"should be \[x, y\], got \[3\]"),
        ({"file_name": 5}, "'alpha' should be"),
        ([1], "'alpha' should be"),
        ({}, "'alpha' should be"),
    ],
)
def test_what_does_not_fit_is_named_with_its_annotation(load, alpha, message):
    with pytest.raises(ValueError, match=rf"set\.json: annotation 5 cannot be used: .*{message}"):
        load(alpha)


def test_mattes_are_evaluated_where_the_registration_asks_for_it(load, tmp_path):
    path, _ = load({"file_name": "matte.png"})
    try:
        register_coco_json("plain", path, tmp_path)
        register_coco_json("soft", path, tmp_path, matting=True)
        assert type(build_evaluator("plain")).__name__ == "COCOInstanceEvaluator"
        kinds = [type(x).__name__ for x in build_evaluator("soft")._evaluators]
        assert kinds == ["COCOInstanceEvaluator", "SOFIEvaluator", "MattingEvaluator"]
    finally:
        for name in ("plain", "soft"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
