"""The LazyConfig is SOLOv2 as the YAML config has it: the same parameters, losses and instances."""

from __future__ import annotations

from pathlib import Path

import torch
from builders import RESNET18, noise_input
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model

from solo_d2 import load_config

FILE = Path(__file__).parents[2] / "examples" / "lazy_solov2.py"
YAML = "COCO-InstanceSegmentation/solov2_R_50_FPN_1x.yaml"


def shapes(model):
    """Of parameters and buffers, with the strides of convolutions."""
    strides = {n: x.stride for n, x in model.named_modules() if isinstance(x, torch.nn.Conv2d)}
    return {name: (x.shape, x.dtype) for name, x in model.state_dict().items()} | strides


def test_the_lazy_config_has_the_parameters_of_the_yaml_config():
    cfg = load_config(YAML, ["MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        assert shapes(instantiate(LazyConfig.load(str(FILE)).model)) == shapes(build_model(cfg))


def test_a_smaller_one_computes_the_same():
    lazy_cfg = LazyConfig.load(str(FILE)).model
    stages = lazy_cfg.backbone.bottom_up.stages
    stages.depth = 18
    del stages["stride_in_1x1"]  # of bottlenecks
    lazy_cfg.head.update(num_convs=1, conv_dim=32)
    head = ("MODEL.SOLO.NUM_CONVS", 1, "MODEL.SOLO.CONV_DIM", 32, "MODEL.DEVICE", "cpu")
    plain = build_model(load_config(YAML, [*map(str, RESNET18), *map(str, head)]))
    lazy = instantiate(lazy_cfg)
    lazy.load_state_dict(plain.state_dict())
    assert {n for n, p in lazy.named_parameters() if p.requires_grad} == {
        n for n, p in plain.named_parameters() if p.requires_grad
    }
    batch = [noise_input((64, 96), [(4, 4, 60, 60), (50, 10, 90, 40)], [0, 17])]
    with torch.no_grad():
        losses = [model.train()(batch) for model in (lazy, plain)]
    assert losses[0] == losses[1] and len(losses[0]) == 2
    for model in (lazy, plain):
        model.head.category_predictor.bias.data.zero_()
    found, expected = (model.eval()(batch)[0]["instances"] for model in (lazy, plain))
    assert len(found) > 0 and torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_masks, expected.pred_masks)


def test_the_lines_of_the_example_change_the_classes():
    cfg = LazyConfig.load(str(FILE))
    for part in (cfg.model.head, cfg.model.assigner, cfg.model.criterion):
        part.num_classes = 3
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert model.head.category_predictor.out_channels == 3
