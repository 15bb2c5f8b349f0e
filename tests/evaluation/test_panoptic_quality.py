"""Panoptic quality against figures derived by hand, a slow reference and another package."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_d2.evaluation.panoptic_quality import PanopticQuality

CAT, DOG, SKY = 2, 4, 7


def quality(*images, categories=(CAT, DOG, SKY)):
    counter = PanopticQuality(categories)
    for image in images:
        counter.add(*image)
    return counter


def row(*runs):
    """Ids (1, W) of (id, length) pairs."""
    return np.concatenate([np.full(length, number) for number, length in runs])[None]


def segment(number, category, **more):
    return {"id": number, "category_id": category, **more}


def test_figures_derived_by_hand():
    # A cat of 10 pixels found on 8 of them and on 2 of the sky's: IoU 8 / 12.
    # The sky of 10 pixels keeps 8 and gains 2: IoU 8 / 12. The dog is missed.
    truth = row((1, 10), (2, 10), (3, 5))
    found = row((1, 8), (2, 2), (1, 2), (2, 8), (0, 5))
    counter = quality(
        (
            truth,
            [segment(1, CAT), segment(2, SKY), segment(3, DOG)],
            found,
            [segment(1, CAT), segment(2, SKY)],
        )
    )
    iou = 8 / 12
    assert counter.per_category() == {
        CAT: pytest.approx((iou, iou, 1.0)),
        DOG: (0.0, 0.0, 0.0),
        SKY: pytest.approx((iou, iou, 1.0)),
    }
    assert counter.mean([CAT, DOG]) == pytest.approx((iou / 2, iou / 2, 0.5))
    assert counter.mean([SKY]) == pytest.approx((iou, iou, 1.0))


def test_an_iou_of_one_half_is_no_match_and_a_pixel_more_is_one():
    truth = [segment(1, CAT)], [segment(1, CAT)]
    half = quality((row((1, 10), (0, 10)), truth[0], row((0, 10), (1, 10)), truth[1]))
    assert half.counts[1].sum() == 0
    # 10 pixels of truth, 5 of them found and nothing else: IoU 5 / 10.
    exactly = quality((row((1, 10)), truth[0], row((1, 5), (0, 5)), truth[1]))
    assert exactly.counts[:, 0].tolist() == [0, 0, 1, 1]
    more = quality((row((1, 10)), truth[0], row((1, 6), (0, 4)), truth[1]))
    assert more.counts[:, 0].tolist() == [0.6, 1, 0, 0]
    assert more.per_category()[CAT] == (0.6, 0.6, 1.0)


def test_the_right_place_of_the_wrong_category_is_two_mistakes():
    counter = quality((row((1, 10)), [segment(1, CAT)], row((9, 10)), [segment(9, DOG)]))
    assert counter.counts[:, 0].tolist() == [0, 0, 0, 1]
    assert counter.counts[:, 1].tolist() == [0, 0, 1, 0]


def test_void_pixels_count_in_no_union_and_excuse_segments_that_lie_on_them():
    # 6 of 10 pixels of truth found, and 10 of void: IoU 6 / 10.
    matched = quality((row((1, 10), (0, 10)), [segment(1, CAT)], row((1, 6), (0, 4), (1, 10)),
                       [segment(1, CAT)]))  # fmt: skip
    assert matched.counts[:, 0].tolist() == [0.6, 1, 0, 0]
    truth = row((1, 10), (0, 10))
    # 4 pixels on void and 3 on the other category: excused; half and half: a mistake.
    excused = quality((truth, [segment(1, SKY)], row((0, 7), (1, 7), (0, 6)), [segment(1, CAT)]))
    assert excused.counts[2].sum() == 0
    counted = quality((truth, [segment(1, SKY)], row((0, 7), (1, 6), (0, 7)), [segment(1, CAT)]))
    assert counted.counts[2].tolist() == [1, 0, 0]


def test_crowds_match_nothing_are_not_missed_and_excuse_their_category():
    truth, crowd = row((1, 20)), [segment(1, CAT, iscrowd=1)]
    found = row((1, 10), (2, 10))
    counter = quality((truth, crowd, found, [segment(1, CAT), segment(2, DOG)]))
    assert counter.counts.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_a_segment_that_the_picture_does_not_show_is_missed():
    counter = quality((row((1, 4)), [segment(1, CAT), segment(2, DOG)], row((1, 4)),
                       [segment(1, CAT)]))  # fmt: skip
    assert counter.counts[3].tolist() == [0, 1, 0]


def test_images_add_up_in_any_order():
    first = (row((1, 10)), [segment(1, CAT)], row((1, 8), (0, 2)), [segment(1, CAT)])
    second = (row((1, 10)), [segment(1, CAT)], row((0, 10)), [])
    assert np.array_equal(quality(first, second).counts, quality(second, first).counts)
    assert quality(first, second).per_category()[CAT] == pytest.approx((0.8 / 1.5, 0.8, 1 / 1.5))


def test_without_anything_there_is_no_mean():
    assert np.isnan(quality().mean([CAT])).all()
    empty = quality((row((0, 3)), [], row((0, 3)), []))
    assert empty.per_category() == {}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ((row((1, 3)), [], row((0, 3)), []), "ground truth.*segment id 1 "),
        ((row((0, 3)), [], row((4, 3)), []), "result.*segment id 4 "),
        ((row((0, 3)), [], row((0, 4)), []), r"\(1, 3\).*\(1, 4\)"),
        ((row((0, 3)), [], row((0, 3)), [segment(1, CAT)]), "covers nothing"),
        (
            (row((1, 3)), [segment(1, CAT), segment(1, SKY)], row((0, 3)), []),
            "ground truth.*two segments have the id 1,",
        ),
        (
            (row((0, 3)), [], row((1, 3)), [segment(1, CAT)] * 2),
            "result.*two segments have the id 1,",
        ),
        ((row((1, 3)), [segment(1, 99)], row((0, 3)), []), "category id 99"),
    ],
)
def test_what_cannot_be_counted_is_named(image, message):
    with pytest.raises(ValueError, match=message):
        quality(image)


def slow_counts(truth, truth_segments, found, found_segments, categories):
    """The definition, pair by pair, with sets of pixels."""

    def pixels(ids, number):
        return {tuple(p) for p in np.argwhere(ids == number)}

    counts = np.zeros((4, len(categories)))
    void, matched, seen = pixels(truth, 0), set(), set()
    for t in truth_segments:
        column = categories.index(t["category_id"])
        for f in found_segments:
            a, b = pixels(truth, t["id"]), pixels(found, f["id"])
            iou = len(a & b) / max(1, len(a | b - void))
            same = t["category_id"] == f["category_id"] and not t["iscrowd"]
            if same and iou > 0.5:
                counts[0, column] += iou
                counts[1, column] += 1
                matched.add(f["id"])
                seen.add(t["id"])
        counts[3, column] += not t["iscrowd"] and t["id"] not in seen
    for f in found_segments:
        b, excused = pixels(found, f["id"]), set(void)
        for t in truth_segments:
            if t["iscrowd"] and t["category_id"] == f["category_id"]:
                excused |= pixels(truth, t["id"])
        wrong = f["id"] not in matched and len(b & excused) <= len(b) / 2
        counts[2, categories.index(f["category_id"])] += wrong
    return counts


def random_image(rng, categories, count=6, crowds=True):
    """Truth of random blocks, and a result that is a shifted and relabelled copy of it."""
    truth = np.kron(rng.integers(0, count + 1, (4, 5)), np.ones((5, 6), np.int64))
    found = np.roll(truth, rng.integers(0, 3), axis=int(rng.integers(0, 2)))
    found[rng.random(found.shape) < 0.05] = 0
    segments, results, crowded = [], [], set()
    for number in range(1, count + 1):
        category = int(rng.choice(categories))
        # At most one crowd of a category in an image, as in COCO.
        crowd = int(crowds and rng.random() < 0.3 and category not in crowded)
        crowded |= {category} if crowd else set()
        if (truth == number).any():
            segments.append(segment(number, category, iscrowd=crowd))
        if (found == number).any():
            guess = category if rng.random() < 0.8 else int(rng.choice(categories))
            results.append(segment(number, guess))
    return truth, segments, found, results


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_counts_are_those_of_the_definition(seed):
    categories = [CAT, DOG, SKY]
    image = random_image(np.random.default_rng(seed), categories)
    np.testing.assert_allclose(quality(image).counts, slow_counts(*image, categories))
