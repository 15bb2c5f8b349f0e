"""Translate the parameter names of other projects, by tables of substitutions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

SIGNATURES = {
    "adelaidet": r"ins_head\.(cate|kernel)_(tower|pred)\.",
    "solo": r"bbox_head\.(cate_convs|d?solo_cate)\.",
    "mmdet": r"mask_head\.(cls_convs|conv_cls)\.",
}
"""Source -> how keys of its SOLO models start, and no others."""

_HEADS = {
    "DynamicSOLOHead": r"kernel_(convs|tower)\.|(solo|conv)_kernel\.|kernel_pred\.",
    "DecoupledSOLOHead": r"(ins|mask)_convs_[xy]\.",
    "DecoupledLightSOLOHead": r"(dsolo_ins_list|conv_mask_list)_[xy]\.",
    "VanillaSOLOHead": r"(solo_ins_list|conv_mask_list)\.",
}
"""Our head -> a part of the keys of its masks or kernels; the first that occurs counts."""

_OTHERS = (
    (r"head\.category_predictor\.", "a model of this package already: load it as it is"),
    (r"roi_heads\.", "a two-stage detector of Detectron2, such as Mask R-CNN"),
    (r"(roi_head|rpn_head)\.", "a two-stage detector of mmdetection, such as Mask R-CNN"),
    (r"proposal_generator\.", "another detector of Detectron2 or AdelaiDet"),
    (r"(bbox_head|mask_head)\.", "another one-stage detector of mmdetection"),
    (r"(backbone\.)?(bottom_up\.|stem\.|conv1\.|layer1\.|res2\.)", "a backbone without a head"),
)

_RESNET: tuple[Rule, ...] = (
    (r"^backbone\.(conv1|bn1)\.", r"backbone.bottom_up.stem.\1."),
    *((rf"^backbone\.layer{i}\.", f"backbone.bottom_up.res{i + 1}.") for i in range(1, 5)),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"\.conv2\.conv_offset\.", ".conv2_offset."),  # old files of mmdet 1.x have our name
    *((rf"^neck\.lateral_convs\.{i}\.", f"backbone.fpn_lateral{i + 2}.") for i in range(4)),
    *((rf"^neck\.fpn_convs\.{i}\.", f"backbone.fpn_output{i + 2}.") for i in range(4)),
)
# A layer of mmcv is a module with the members conv and gn, one of ours a conv with the member norm.
_LAYERS: tuple[Rule, ...] = (
    (r"(\.stages\.\d+)\.conv(\d+)\.", r"\1.\2."),
    (r"\.conv\.", "."),
    (r"\.gn\.", ".norm."),
)
_MASK_TOWERS = {
    "VanillaSOLOHead": "head.mask_tower.",
    "DecoupledLightSOLOHead": "head.mask_towers.xy.",
}


def _starts(prefixes: dict[str, str]) -> tuple[Rule, ...]:
    return tuple((f"^{re.escape(old)}", new) for old, new in prefixes.items())


_SOLO = _starts(
    {
        "bbox_head.cate_convs.": "head.category_tower.",
        "bbox_head.solo_cate.": "head.category_predictor.",
        "bbox_head.dsolo_cate.": "head.category_predictor.",
        "bbox_head.solo_ins_list.": "head.mask_predictors.",
        "bbox_head.ins_convs_x.": "head.mask_towers.x.",
        "bbox_head.ins_convs_y.": "head.mask_towers.y.",
        "bbox_head.dsolo_ins_list_x.": "head.x_predictors.",
        "bbox_head.dsolo_ins_list_y.": "head.y_predictors.",
        "bbox_head.kernel_convs.": "head.kernel_tower.",
        "bbox_head.solo_kernel.": "head.kernel_predictor.",
        "mask_feat_head.convs_all_levels.": "head.mask_feature.stages.",
        "mask_feat_head.conv_pred.0.": "head.mask_feature.predictor.",
    }
)
_MMDET = _starts(
    {
        "mask_head.cls_convs.": "head.category_tower.",
        "mask_head.conv_cls.": "head.category_predictor.",
        "mask_head.conv_mask_list.": "head.mask_predictors.",
        "mask_head.mask_convs_x.": "head.mask_towers.x.",
        "mask_head.mask_convs_y.": "head.mask_towers.y.",
        "mask_head.conv_mask_list_x.": "head.x_predictors.",
        "mask_head.conv_mask_list_y.": "head.y_predictors.",
        "mask_head.kernel_convs.": "head.kernel_tower.",
        "mask_head.conv_kernel.": "head.kernel_predictor.",
        "mask_head.mask_feature_head.convs_all_levels.": "head.mask_feature.stages.",
        "mask_head.mask_feature_head.conv_pred.": "head.mask_feature.predictor.",
    }
)


def _tower_layer(match: re.Match[str]) -> str:
    """Translate a layer of AdelaiDet, which counts convolution, norm and ReLU separately."""
    layer, part = divmod(int(match[2]), 3)
    tower = {"cate": "category_tower", "kernel": "kernel_tower"}[match[1]]
    return f"head.{tower}.{layer}." + ("norm." if part else "")


_ADELAIDET: tuple[Rule, ...] = (
    (r"^ins_head\.(cate|kernel)_tower\.(\d+)\.", _tower_layer),
    (r"^ins_head\.cate_pred\.", "head.category_predictor."),
    (r"^ins_head\.kernel_pred\.", "head.kernel_predictor."),
    (r"^mask_head\.convs_all_levels\.(\d+)\.conv(\d+)\.0\.", r"head.mask_feature.stages.\1.\2."),
    (
        r"^mask_head\.convs_all_levels\.(\d+)\.conv(\d+)\.1\.",
        r"head.mask_feature.stages.\1.\2.norm.",
    ),
    (r"^mask_head\.conv_pred\.0\.", "head.mask_feature.predictor."),
    (r"^mask_head\.conv_pred\.1\.", "head.mask_feature.predictor.norm."),
)


def find_source(keys: Iterable[str]) -> str | None:
    """Return the project whose SOLO models have such keys, or None."""
    keys = list(keys)
    return next((name for name, start in SIGNATURES.items() if _any(start, keys)), None)


def find_head(keys: Iterable[str]) -> str | None:
    """Return this package's head for the keys of a SOLO model; None without a mask branch."""
    heads = [key for key in keys if not key.startswith(("backbone.", "neck."))]
    return next(
        (head for head, part in _HEADS.items() if any(re.search(part, key) for key in heads)), None
    )


def describe_other(keys: Iterable[str]) -> str | None:
    """Describe a state dict that is no SOLO of another project; None if unknown."""
    keys = list(keys)
    return next((words for start, words in _OTHERS if _any(start, keys)), None)


def _any(start: str, keys: list[str]) -> bool:
    pattern = re.compile(start)
    return any(map(pattern.match, keys))


def rename(key: str, source: str, head: str) -> str:
    """Translate the name of a parameter or buffer.

    Args:
        key: the source's name.
        source: of `SIGNATURES`.
        head: name of our head class.

    Returns:
        The name; `key` itself, if no rule applies.
    """
    for pattern, replacement in _rules(source, head):
        key = re.sub(pattern, replacement, key)
    return key


def _rules(source: str, head: str) -> tuple[Rule, ...]:
    if source == "adelaidet":
        return _ADELAIDET
    old, table = {"solo": ("ins_convs", _SOLO), "mmdet": ("mask_convs", _MMDET)}[source]
    tower = _MASK_TOWERS.get(head)
    mask_tower: tuple[Rule, ...] = ()
    if tower is not None:
        mask_tower = ((rf"^(bbox|mask)_head\.{old}\.", tower),)
    return (*_RESNET, *mask_tower, *table, *_LAYERS)
