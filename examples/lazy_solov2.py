"""SOLOv2 with a ResNet-50, as a `LazyConfig` of Detectron2: parts and their arguments, no keys.

    from detectron2.config import LazyConfig, instantiate
    cfg = LazyConfig.load("examples/lazy_solov2.py")
    for part in (cfg.model.head, cfg.model.assigner, cfg.model.criterion):
        part.num_classes = 3
    model = instantiate(cfg.model)

Detectron2's `tools/lazyconfig_train_net.py` trains it when `train`, `dataloader`, `optimizer` and
`lr_multiplier` are added, as in Detectron2's own configs of this kind. The parameters are those of
configs/COCO-InstanceSegmentation/solov2_R_50_FPN_1x.yaml, name by name.
"""

from __future__ import annotations

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from solo_d2.modeling import SOLO, DynamicSOLOHead, GridSpec
from solo_d2.modeling.criterion import SOLOCriterion
from solo_d2.modeling.postprocessing import InferenceSettings, build_nms
from solo_d2.modeling.targets import SOLOTargetAssigner
from solo_d2.modeling.towers import LayerStyle

CLASSES = 80
LEVELS = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
STAGES = ["res2", "res3", "res4", "res5"]

grid = L(GridSpec.build)(
    num_grids=[40, 36, 24, 16, 12],
    scale_ranges=[[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]],
    feature_strides=list(LEVELS.values()),
)

model = L(SOLO)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),
            out_features=STAGES,
            freeze_at=2,
        ),
        in_features=STAGES,
        out_channels=256,
        top_block=L(LastLevelMaxPool)(),
    ),
    head=L(DynamicSOLOHead)(
        grid=grid,
        in_channels=256,
        in_features=list(LEVELS),
        feature_strides=list(LEVELS.values()),
        num_classes=CLASSES,
        num_convs=4,
        num_coord_convs=1,
        conv_dim=512,
        style=L(LayerStyle)(norm="GN"),
        align_mode="bilinear",
        prior_prob=0.01,
        kernel_dim=256,
        kernel_size=1,
        unified_from={name: LEVELS[name] for name in ("p2", "p3", "p4", "p5")},
        feature_conv_dim=128,
        feature_num_convs=7,
        feature_coords=True,
    ),
    assigner=L(SOLOTargetAssigner)(
        grid=grid, num_classes=CLASSES, center_region=0.2, mask_strides=[4]
    ),
    criterion=L(SOLOCriterion)(
        num_classes=CLASSES,
        category_weight=1.0,
        mask_weight=3.0,
        focal_alpha=0.25,
        focal_gamma=2.0,
        mask_strides=[4] * len(LEVELS),
    ),
    settings=L(InferenceSettings)(
        score_thresh=0.1,
        mask_thresh=0.5,
        pre_nms_topk=500,
        nms=L(build_nms)(name="matrix", kernel="gaussian", sigma=0.5, threshold=0.5),
        final_score_thresh=0.05,
        max_instances=100,
    ),
    pixel_mean=[103.53, 116.28, 123.675],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="BGR",
)
