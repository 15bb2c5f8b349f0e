"""Constant pads: the same features, bit by bit, wherever strides divide the sides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from solo_d2.export.same_padding import with_constant_pads
from solo_d2.modeling.backbone import TimmBackbone

timm = pytest.importorskip("timm")


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), ((2, 1), 1)])
def test_a_convolution_stays_what_it_is(kernel, stride, dilation):
    from timm.layers import Conv2dSame

    torch.manual_seed(0)
    layer = Conv2dSame(3, 4, kernel, stride=stride, dilation=dilation, bias=kernel != 3)
    model = nn.Sequential(layer)
    x = torch.randn(2, 3, 8, 12)
    before = model(x)
    with_constant_pads(model)
    assert torch.equal(model(x), before)
    assert type(model[0]) is nn.Sequential


def test_features_of_a_backbone_stay_what_they_are():
    backbone = TimmBackbone("tf_efficientnet_lite0", ["res2", "res5"]).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = backbone(x)
        with_constant_pads(backbone)
        after = backbone(x)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(type(m).__name__ == "Conv2dSame" for m in backbone.modules())


def test_a_pooling_of_same_padding_is_refused():
    from timm.layers import create_pool2d

    model = nn.Sequential(create_pool2d("max", 3, stride=2, padding="same"))
    with pytest.raises(ValueError, match=r"MaxPool2dSame.*choose another MODEL\.TIMM\.NAME"):
        with_constant_pads(model)
