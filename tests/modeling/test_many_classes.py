"""What is done differently for many classes gives what it gave for few."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from solo_d2.layers import pairwise_intersection, point_nms
from solo_d2.modeling.grid import GridSpec
from solo_d2.modeling.postprocessing import (
    InferenceSettings,
    build_nms,
    category_scores,
    select_candidates,
)

NMS = build_nms("matrix", kernel="gaussian", sigma=0.5, threshold=0.5)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_point_nms_is_a_max_pooling(height, width, seed):
    noise = torch.Generator().manual_seed(seed)
    # Few values, so that neighbours are often equal.
    scores = torch.randint(0, 4, (2, 3, height, width), generator=noise) / 4
    peaks = F.max_pool2d(scores, kernel_size=2, stride=1, padding=1)[..., :-1, :-1]
    assert torch.equal(point_nms(scores), scores * (peaks == scores))


def test_scores_of_more_classes_than_are_handled_at_a_time():
    torch.manual_seed(0)
    logits = [torch.randn(2, 300, side, side) for side in (5, 3)]
    found = category_scores(logits)
    assert found.shape == (2, 34, 300)
    for c in (0, 127, 128, 255, 256, 299):
        alone = category_scores([x[:, c : c + 1] for x in logits])
        torch.testing.assert_close(found[..., c], alone[..., 0])


def test_selection_does_not_depend_on_classes_that_score_low():
    torch.manual_seed(1)
    grid = GridSpec((6, 4), ((1, 64), (32, 2048)), (8, 16))
    soft = torch.rand(52, 20, 24)
    settings = InferenceSettings(0.1, 0.5, 40, NMS, 0.05, 30)
    few = torch.rand(52, 4)
    many = torch.full((52, 1203), 0.1)  # at the threshold, which a candidate must exceed
    columns = torch.tensor([3, 500, 777, 1202])
    many[:, columns] = few

    def select(scores):
        before = scores.clone()
        result = select_candidates(
            scores, lambda cells: soft[cells].clone(), (20, 24), grid, settings
        )
        assert torch.equal(scores, before)
        return result

    one, other = select(few), select(many)
    assert torch.equal(other.labels, columns[one.labels])
    for name in ("scores", "rows", "cells", "masks"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_intersections_where_most_classes_have_one_mask():
    torch.manual_seed(2)
    masks = torch.rand(300, 10, 12) < 0.3
    labels = torch.randint(0, 400, (300,))
    flat = masks.flatten(1).float()
    wanted = (flat @ flat.T) * (labels[:, None] == labels)
    assert torch.equal(pairwise_intersection(masks, labels), wanted)
