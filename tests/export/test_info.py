"""Metadata of exported files: written, read, and refused where anything is wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from solo_d2.export.info import _RULES, LAYOUT, ExportInfo

INFO = ExportInfo(
    layout=LAYOUT,
    solo_d2="0.1.0",
    kind="full",
    precision="f32",
    outputs=("scores", "labels"),
    config="SEED: 1",
    class_names=("cup",),
    stuff_names=(),
    category_ids=(7,),
    stuff_category_ids=(),
    input_format="BGR",
    resize_filter="pillow",
    min_size=256,
    max_size=640,
    pixel_mean=(1.0, 2.0, 3.0),
    divisor=32,
    size=(64, 96),
    batch=None,
    mask_thresh=0.5,
    max_candidates=200,
    max_instances=100,
    weights_sha256="0",
    parity=({"size": [64, 96], "score": 1e-7},),
    tools={"torch": "2"},
)


def changed(**values):
    return json.dumps({**json.loads(INFO.to_json()), **values})


def test_what_is_written_is_read():
    assert ExportInfo.from_json(INFO.to_json()) == INFO
    free = replace(INFO, size=None, batch=2)
    assert ExportInfo.from_json(free.to_json()) == free


@pytest.mark.parametrize("key", _RULES)
def test_a_missing_value_is_named(key):
    values = json.loads(INFO.to_json())
    del values[key]
    with pytest.raises(ValueError, match=f"metadata without '{key}'"):
        ExportInfo.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "other"),
        ("config", 3),
        ("class_names", "cup"),
        ("class_names", [1]),
        ("category_ids", [1.5]),
        ("category_ids", [True]),
        ("input_format", "GBR"),
        ("resize_filter", None),
        ("min_size", -1),
        ("max_size", "640"),
        ("pixel_mean", [1, 2]),
        ("pixel_mean", [1, 2, "3"]),
        ("divisor", 0),
        ("size", [64]),
        ("size", [0, 32]),
        ("batch", 0),
        ("batch", True),
        ("mask_thresh", 1.5),
        ("mask_thresh", float("nan")),
        ("max_candidates", 2**31),
        ("parity", [1]),
        ("tools", []),
    ],
)
def test_a_value_out_of_range_is_named(key, value):
    with pytest.raises(ValueError, match=f"damaged metadata: '{key}' must be") as error:
        ExportInfo.from_json(changed(**{key: value}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [{"max_size": 641}, {"class_names": ["mug"]}, {"sha256": ""}])
def test_a_plausible_change_is_found_by_the_checksum(values):
    with pytest.raises(ValueError, match="metadata that was changed after export"):
        ExportInfo.from_json(changed(**values))


@pytest.mark.parametrize("layout", [LAYOUT + 1, "1", None])
def test_another_layout_is_told(layout):
    with pytest.raises(ValueError, match=f"reads layout {LAYOUT}; export the model again"):
        ExportInfo.from_json(changed(layout=layout))


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "[" * 100_000, "x" * 2**21])
def test_what_is_no_object_is_damaged(text):
    with pytest.raises(ValueError, match="metadata"):
        ExportInfo.from_json(text)
