"""Other projects' results, computed once, against ours with the same weights: needs nothing else.

`make_reference` wrote them. Tolerances are wider than in `test_mmdet`: another machine's
convolutions round differently, which a pixel on the threshold turns into a jump of one score.
"""

from __future__ import annotations

import json

import compare
import mmdet_models
import our_models
import pytest
import torch
import torch.nn.functional as F
from peer_weights import (
    DATA,
    WHOLE,
    decode_masks,
    encode_masks,
    every_nth,
    ground_truth,
    photo,
    random_weights,
    small_photo,
)

NAMES = sorted(path.stem for path in DATA.glob("*.json"))
# Where mmdetection's models can be built, `test_mmdet` asks more of them; one stays for the file.
LIVE = {name for name in NAMES if name.startswith("mmdet_")} - {"mmdet_solov2_light"}
only_without_mmdet = pytest.mark.skipif(
    mmdet_models.installed(), reason="test_mmdet compares the model itself"
)
SCORE_TOLERANCE = 1e-3


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=only_without_mmdet) if n in LIVE else n for n in NAMES],
)
def pair(request):
    """Our model, and what the other project's does."""
    reference = json.loads((DATA / f"{request.param}.json").read_text())
    weights = random_weights(reference["shapes"])
    ours = our_models.build(weights, reference["source"])
    compare.remember(ours.head)
    return ours, reference


def test_raw_outputs_agree(pair):
    ours, reference = pair
    got = our_models.raw_outputs(ours, photo("chelsea"))
    dynamic = "kernels" in reference["raw"]
    got["categories"] = got["logits" if dynamic else "scores"]
    for key, wanted in reference["raw"].items():
        if key not in ("x", "y"):  # factors of masks, which ours never has all of
            wanted = torch.tensor(wanted)
            assert compare.relative_difference(every_nth(got[key]), wanted) < 1e-4, key


def test_detections_agree(pair):
    ours, reference = pair
    for case in reference["cases"]:
        size = tuple(case["size"])
        found = our_models.detect(ours, [photo(case["photo"])], [size])[0]
        wanted = {
            "scores": torch.tensor(case["scores"]),
            "labels": torch.tensor(case["labels"]),
            "masks": decode_masks(case["masks"], size),
        }
        compare.check_same(found, wanted, SCORE_TOLERANCE)


def test_losses_agree(pair):
    """Theirs divide the focal loss by the number of positives plus one."""
    ours, reference = pair
    with torch.no_grad():
        got, positives = our_models.losses(ours, [photo(WHOLE)], ground_truth()[1:])
    ours.eval()
    category = reference["losses"]["loss_cls"] * (positives + 1) / positives
    assert float(got["loss_category"]) == pytest.approx(category, rel=1e-4)
    assert float(got["loss_mask"]) == pytest.approx(reference["losses"]["loss_mask"], rel=1e-4)


@pytest.mark.slow
def test_masks_are_enlarged_by_four_here_and_by_too_little_there():
    """AdelaiDet's factor is image height / feature height, rounded up: here ceil(40 / 16) = 3."""
    reference = json.loads((DATA / "adelaidet_solov2.json").read_text())
    ours = our_models.build(random_weights(reference["shapes"]), "adelaidet")
    compare.remember(ours.head)
    theirs = reference["small"]
    size = tuple(theirs["size"])
    found = our_models.detect(ours, [small_photo()], [size])[0]
    # Selected before the masks are enlarged.
    assert found["labels"][:10].tolist() == theirs["labels"][:10]
    assert found["scores"][:10].tolist() == pytest.approx(theirs["scores"][:10], abs=1e-3)
    soft = our_models.raw_outputs(ours, small_photo())["masks"]
    large = F.interpolate(soft[None], scale_factor=4, mode="bilinear")[0, :, :40, :60] > 0.5
    for mine in found["masks"][:10]:
        assert int((large ^ mine).flatten(1).sum(1).min()) <= 1  # of the cell that it comes from
    different = found["masks"][:10] ^ decode_masks(theirs["masks"][:10], size)
    assert float(different.double().mean()) > 0.02


def test_the_wrong_order_of_channels_shows():
    reference = json.loads((DATA / "mmdet_solov2_light.json").read_text())
    ours = our_models.build(random_weights(reference["shapes"]), "mmdet")
    got = every_nth(our_models.raw_outputs(ours, photo("chelsea").flip(0))["kernels"])
    assert compare.relative_difference(got, torch.tensor(reference["raw"]["kernels"])) > 0.01


def test_reference_is_there():
    assert {"adelaidet_solov2", "mmdet_solo", "mmdet_decoupled_solo_light"} <= set(NAMES)


def test_masks_survive_encoding():
    masks = torch.zeros((2, 3, 5), dtype=torch.bool)
    masks[0, 1, 2:4] = True
    assert decode_masks(encode_masks(masks), (3, 5)).equal(masks)
