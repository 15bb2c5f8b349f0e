"""Soft masks and an image for the three implementations of the refinement to agree on."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from solo_d2.modeling.refinement import make_guide, refine_masks

MEAN = (104.0, 117.0, 124.0)


def edge_case():
    """An image (1, 3, 64, 96) in [0, 255], masks (6, 16, 24) at stride 4, and what they become."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 1, 5, 7, generator=generator)
    probs = F.interpolate(coarse, (16, 24), mode="bilinear")[:, 0]
    probs[3], probs[4] = 0.1, 0.9  # nothing and everything
    probs[5] = 0.0
    probs[5, 15, 23] = 1.0  # in a corner
    colors = torch.rand(1, 3, 9, 11, generator=generator)
    image = F.interpolate(colors * 255, (64, 96), mode="bicubic")
    image[..., 70:] = image[0, :, 3, 70].view(3, 1, 1)  # flat: nothing but the ridge
    guide = make_guide(image - torch.tensor(MEAN).view(3, 1, 1), torch.ones(3, 1, 1))
    return image, probs, refine_masks(probs, guide[0], 0.5)


def check_refined(found, expected):
    """Compare with what PyTorch finds in single precision."""
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert (found - expected).abs().mean() < 1e-5
    assert not found[3].any() and found[5, -6:, -6:].any() and found[4].all()
