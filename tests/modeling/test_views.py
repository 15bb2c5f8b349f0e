"""Views on other canvases, and several views as one (paper §4.3, "Multi-scale testing")."""

from __future__ import annotations

import math

import pytest
import torch

from solo_d2.layers import budgets
from solo_d2.modeling import postprocessing
from solo_d2.modeling.postprocessing import Candidates, Frame, View
from solo_d2.modeling.views import join_views, move_view


def view_of(soft, labels=None, scores=None):
    """A view in which every cell with a soft mask is a candidate."""
    count = len(soft)
    scores = torch.linspace(0.9, 0.5, count) if scores is None else torch.tensor(scores)
    labels = torch.zeros(count, dtype=torch.int64) if labels is None else torch.tensor(labels)
    cells = torch.arange(count)
    return View(
        Candidates(scores, labels, cells, cells, soft > 0.5), lambda cells: soft[cells].clone()
    )


def ramp(frame, axis):
    """A soft mask (1, h, w) that grows from 0 to 1 across the image, and further in the padding."""
    size = [side // 4 for side in frame.canvas]
    along = (torch.arange(size[axis]) + 0.5) * 4 / frame.image[axis] / 2
    return (along[:, None] if axis == 0 else along[None, :]).expand(*size)[None].contiguous()


SMALL, LARGE = Frame((64, 96), (50, 77)), Frame((128, 160), (100, 154))  # one image at two scales


@pytest.mark.parametrize(("source", "target"), [(SMALL, LARGE), (LARGE, SMALL)])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_linear_on_one_canvas_is_linear_on_the_other(source, target, axis):
    moved = move_view(view_of(ramp(source, axis)), source, target, flip=False, threshold=0.25)
    got, expected = moved.cell_masks(torch.tensor([0])), ramp(target, axis)
    # Beyond the centres of the outermost pixels there is nothing to interpolate with.
    half = 2 / source.image[axis] / 2
    inside = (expected > half) & (expected < ramp(source, axis).max() - half)
    assert inside.float().mean() > 0.7
    torch.testing.assert_close(got[inside], expected[inside])
    assert torch.equal(moved.candidates.masks, got > 0.25)


def test_mirrored_images_are_mirrored_back_without_their_padding():
    # The image has 20 x 28 pixels on a canvas of 32 x 32: 5 x 7 mask pixels.
    frame = Frame((32, 32), (20, 28))
    soft = torch.zeros(1, 8, 8)
    soft[0, 1, :2] = soft[0, 4, 6] = 1
    moved = move_view(view_of(soft), frame, frame, flip=True, threshold=0.5)
    expected = torch.zeros(1, 8, 8, dtype=torch.bool)
    expected[0, 1, 5:7] = expected[0, 4, 0] = True  # column c of seven becomes 6 - c
    # One pixel of padding beyond the edge repeats it, as the network does with its own padding.
    expected[0, 1, 7] = True
    assert torch.equal(moved.candidates.masks, expected)
    back = move_view(moved, frame, frame, flip=True, threshold=0.5)
    assert torch.equal(back.candidates.masks[..., :7], soft[..., :7] > 0.5)


def test_a_view_that_is_in_place_already_is_left_alone():
    view = view_of(torch.rand(3, 16, 24))
    assert move_view(view, SMALL, Frame(*SMALL), flip=False, threshold=0.5) is view
    assert join_views([view], 10) is view


@pytest.mark.parametrize("length", [1, 2, 100])
def test_chunks_do_not_matter(monkeypatch, length):
    soft = torch.rand(5, 16, 24)
    expected = move_view(view_of(soft), SMALL, LARGE, flip=True, threshold=0.5)
    monkeypatch.setitem(budgets.MASK_PIXELS, "cpu", length * 32 * 40)
    sizes = []
    plain = view_of(soft)

    def cell_masks(cells):
        sizes.append(len(cells))
        return plain.cell_masks(cells)

    moved = move_view(plain._replace(cell_masks=cell_masks), SMALL, LARGE, flip=True, threshold=0.5)
    assert torch.equal(moved.candidates.masks, expected.candidates.masks)
    assert max(sizes) <= length and sum(sizes) == 5


def test_joined_views_keep_their_candidates_and_number_their_cells():
    soft = [torch.rand(3, 4, 6), torch.rand(0, 4, 6), torch.rand(2, 4, 6)]
    views = [
        view_of(soft[0], [2, 0, 1], [0.9, 0.8, 0.7]),
        view_of(soft[1], [], []),
        view_of(soft[2], [1, 1], [0.85, 0.1]),
    ]
    shared = views[2].candidates._replace(rows=torch.tensor([1, 1]))  # two classes, one mask
    joined = join_views([views[0], views[1], View(shared, views[2].cell_masks)], num_cells=10)
    got = joined.candidates
    torch.testing.assert_close(got.scores, torch.tensor([0.9, 0.8, 0.7, 0.85, 0.1]))
    assert got.labels.tolist() == [2, 0, 1, 1, 1]
    assert got.cells.tolist() == [0, 1, 2, 20, 21]
    assert got.cells[got.rows].tolist() == [0, 1, 2, 21, 21]
    everything = torch.cat(soft)
    assert torch.equal(got.masks, everything > 0.5)
    # In the order asked for, also across views, and each as often as asked for.
    probs = joined.cell_masks(torch.tensor([21, 0, 20, 2, 21]))
    assert torch.equal(probs, everything[[4, 0, 3, 2, 4]])
    assert joined.cell_masks(torch.zeros(0, dtype=torch.int64)).shape == (0, 4, 6)


def test_a_duplicate_in_another_view_decays_as_one_in_the_same_view():
    mask = torch.zeros(1, 4, 6)
    mask[0, 1:3, 1:4] = 0.9
    views = [view_of(mask, scores=[0.7]), view_of(mask, scores=[0.8])]
    settings = postprocessing.InferenceSettings(
        score_thresh=0.1,
        mask_thresh=0.5,
        pre_nms_topk=500,
        nms=postprocessing.build_nms("matrix", kernel="gaussian", sigma=0.5, threshold=0.5),
        final_score_thresh=0.0,
        max_instances=100,
    )
    scores, _, cells = postprocessing.suppress(join_views(views, 10).candidates, settings)
    assert scores.tolist() == pytest.approx([0.8, 0.7 * math.exp(-2)])
    assert cells.tolist() == [10, 0]
