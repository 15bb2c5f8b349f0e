"""Whatever stands in files of labels is read or refused in one line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from solo_d2.data.datasets import labelme, voc, yolo

numbers = st.one_of(st.integers(-50, 50), st.floats(width=32), st.sampled_from([1e308, 10**400]))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=4))
anything = st.recursive(
    scalars,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x),
    max_leaves=6,
)
points = st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=5)
kinds = st.sampled_from(["polygon", "rectangle", "circle", "mask", "point", None])
shapes = st.fixed_dictionaries(
    {},
    optional={
        "label": st.one_of(st.sampled_from(["cup", "_background_", "", "\ud800"]), anything),
        "points": st.one_of(points, anything),
        "shape_type": st.one_of(kinds, anything),
        "group_id": st.one_of(st.integers(0, 1), anything),
        "mask": st.one_of(st.just("iVBORw0KGgo="), anything),
    },
)
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        for part in ("images", "labels"):
            (Path(name) / part).mkdir(exist_ok=True)
        for image in ("a.png", "images/a.png"):
            Image.new("RGB", (30, 20)).save(Path(name) / image)
        yield Path(name)


def assert_read_or_refused(read):
    try:
        data = read()
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert len(data.records) == 1


@quick
@given(
    st.lists(st.one_of(shapes, anything), max_size=3),
    st.one_of(st.just("a.png"), anything),
    st.one_of(st.just(20), anything),
)
@example(
    [{"label": "cup", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": ""}], "a.png", 20
)
def test_labelme(folder, shapes, image, height):
    content = {"shapes": shapes, "imagePath": image, "imageHeight": height, "imageWidth": 30}
    (folder / "a.json").write_text(json.dumps(content))
    assert_read_or_refused(lambda: labelme.find(folder)["train"]())


lines = st.lists(
    st.one_of(
        st.lists(numbers, max_size=9).map(lambda row: " ".join(map(str, row))), st.text(max_size=9)
    ),
    max_size=3,
)


@quick
@given(lines)
@example(["0 nan nan 1 1 0 1", "inf 0 0 1 1 0 1", "1e308 0 0 1 1 0 1"])
def test_yolo_labels(folder, lines):
    (folder / "data.yaml").write_text("names: [cup]\ntrain: images\n")
    (folder / "labels" / "a.txt").write_text("\n".join(lines), errors="replace")
    assert_read_or_refused(lambda: yolo.find(folder)["train"]())


@quick
@given(
    st.fixed_dictionaries(
        {"names": st.one_of(st.just(["cup"]), anything)},
        optional={
            "train": st.one_of(st.just("images"), anything),
            "val": anything,
            "path": anything,
            "nc": anything,
        },
    )
)
def test_yolo_descriptions(folder, content):
    (folder / "data.yaml").write_text(json.dumps(content))
    (folder / "labels" / "a.txt").write_text("0 0 0 1 0 1 1\n")
    assert_read_or_refused(lambda: next(read() for read in yolo.find(folder).values()))


@quick
@given(st.text(max_size=30), st.text(max_size=10))
def test_lists_and_labelmaps_of_voc(tmp_path_factory, labelmap, ids):
    root = tmp_path_factory.getbasetemp() / "voc"
    for part in (voc.JPEG_IMAGES, voc.OBJECT_MASKS, voc.CLASS_MASKS, voc.ID_LISTS):
        (root / part).mkdir(parents=True, exist_ok=True)
        Image.new("L" if part != voc.JPEG_IMAGES else "RGB", (30, 20), 1).save(
            root / part / "a.png"
        )
    (root / "labelmap.txt").write_text(labelmap, errors="replace")
    (root / voc.ID_LISTS / "train.txt").write_text(ids, errors="replace")
    assert_read_or_refused(lambda: voc.find(root)["train"]())
