"""Annotation files with anything anywhere: checked records, or one line; never a crash or a hang.

Every example runs in another process, which may crash; what is read must be trained on and scored.
"""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
from annotation_uses import check_and_decode, count_records, read_and_use
from fresh_process import FreshProcess
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_util

from solo_d2.evaluation.coco import hotcoco
from solo_d2.io.segmentation import check_segmentations, decode_mask

H, W = 50, 70


def encode(mask):
    return mask_util.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


MASK = np.zeros((H, W), np.uint8)
MASK[12:30, 35:53] = 1
FLAT = [5, 12, 23, 12, 23, 30, 5, 30]
CONTENT = {
    "info": {"year": 2026},
    "licenses": [{"id": 1, "name": "none"}],
    "images": [
        {"id": k, "file_name": f"p{k}.png", "height": H, "width": W, "license": 1} for k in (1, 2)
    ],
    "annotations": [
        {"id": k + 1, "image_id": 1 + k % 2, "category_id": 1 + k % 3, "segmentation": form,
         "bbox": box, "area": 324.0, "iscrowd": 0}
        for k, (form, box) in enumerate(
            [([FLAT], [5, 12, 18, 18]), ({"size": [H, W], "counts": encode(MASK)},
                                         [35, 12, 18, 18])] * 6
        )
    ],
    "categories": [{"id": k, "name": name} for k, name in enumerate(("a", "b", "c"), 1)],
}  # fmt: skip

NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 0.5, 1e308, -1e308, 5e7, 4e9, 2**31, 2**32, 2**63, 2**70, 1e-9]),
    st.sampled_from([math.nan, math.inf, -math.inf, 10**400, True, False, -0.0]),
    st.integers(-100, 4000),
    st.floats(-100, 200),
)
TEXTS = st.one_of(
    st.sampled_from(["", "0", "1", "2", "-1", "1.0", "p1.png", "../p1.png", "/", "\ud800", "\0"]),
    st.sampled_from(
        [encode(MASK), encode(MASK)[:-1], encode(MASK[:30]), "o" * 40, "é", "x" * 3000]
    ),
    st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12),
)
SCALARS = st.one_of(st.none(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=8),
        st.dictionaries(st.sampled_from(["id", "size", "counts", "x", "y"]), inner, max_size=3),
        st.lists(NUMBERS, min_size=3, max_size=12),
        st.fixed_dictionaries({"size": st.just([H, W]), "counts": st.one_of(inner, TEXTS)}),
    ),
    max_leaves=6,
)


def places(value, path=()):
    """Paths of everything in a file."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


PLACES = [path for path in places(CONTENT) if path]


def put(content, path, value, action):
    """Replace, remove or double what is at a path, if it is still there."""
    *way, last = path
    inner = content
    try:
        for key in way:
            inner = inner[key]
        if action == "remove":
            del inner[last]
        elif action == "double" and isinstance(inner, list):
            inner.insert(last, copy.deepcopy(inner[last]))
        else:
            inner[last] = value
    except (KeyError, IndexError, TypeError):
        return


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(PLACES), VALUES, st.sampled_from(["set", "set", "set", "remove", "double"])
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def in_process():
    process = FreshProcess()
    yield process
    process.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzzed")
    for k in (1, 2):
        Image.new("RGB", (W, H)).save(path / f"p{k}.png")
    return path


def made(folder, changes):
    content = copy.deepcopy(CONTENT)
    for path, value, action in changes:
        put(content, path, value, action)
    (folder / "set.json").write_bytes(json.dumps(content).encode())
    return folder / "set.json"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(CHANGES, st.booleans())
@example(
    [(("annotations", 0, "iscrowd"), None, "remove"), (("annotations", 4, "iscrowd"), [], "set")],
    False,
)
def test_a_file_is_read_and_used_or_refused_in_one_line(in_process, folder, changes, fast):
    path = made(folder, changes)
    kind, got = in_process(read_and_use, path, folder, fast and hotcoco is not None)
    if kind == "ValueError":
        assert str(path) in got
        assert "\n" not in got
        assert len(got) < 1500
    else:
        assert kind == "value", got


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=60), st.integers(0, 400), st.booleans())
def test_bytes_in_a_file_are_read_or_refused(in_process, folder, noise, place, cut):
    path = made(folder, [])
    good = path.read_bytes()
    path.write_bytes(good[:place] + noise + (b"" if cut else good[place + len(noise) :]))
    kind, got = in_process(count_records, path, folder)
    assert kind in ("value", "ValueError"), got
    assert kind == "value" or str(path) in got


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_segmentations_of_anything_decode_to_their_image(in_process, segmentations):
    kind, got = in_process(check_and_decode, segmentations, (H, W))
    assert (kind, got) == ("value", True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40))
def test_an_rle_is_read_exactly_if_it_decodes_to_its_image(seed, height, width):
    random = np.random.default_rng(seed)
    mask = (random.random((height, width)) < random.random()).astype(np.uint8)
    counts = encode(mask)
    (kept,) = check_segmentations(
        [{"size": [height, width], "counts": counts}], [(height, width)]
    ).kept
    if mask.any():
        np.testing.assert_array_equal(decode_mask(kept, (height, width)), mask != 0)
    else:
        assert kept is None
    runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=2)), prepend=0)
    as_list = {"size": [height, width], "counts": runs.tolist()}
    assert sum(as_list["counts"]) == mask.size
    (kept,) = check_segmentations([as_list], [(height, width)]).kept
    if mask.any():
        np.testing.assert_array_equal(decode_mask(kept, (height, width)), mask != 0)
    for wrong in ((height + 1, width), (height, width + 1)):
        checked = check_segmentations([{"size": list(wrong), "counts": counts}], [wrong])
        assert checked.kept == [None]
