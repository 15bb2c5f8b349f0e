"""The best AP that perfect predictions can reach: masks at stride 4, one cell for each object."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import Instances
from torch import Tensor

from ..data.dataset_mapper import labels_of
from ..data.masks import checked_masks, transform_masks
from ..data.records import is_crowd
from ..evaluation import COCOInstanceEvaluator
from ..layers import resize_bilinear
from ..modeling.meta_arch import SOLO
from ..modeling.postprocessing import Frame, View, postprocess, select_candidates
from .claims import MASK_STRIDE

__all__ = ["best_possible_ap"]

SIZES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def best_possible_ap(
    cfg: CfgNode,
    network: SOLO,
    records: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    step: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Score the ground truth as if the network had predicted exactly its targets.

    Every object that owns a cell is predicted from one of its cells, with its class, the score 1
    and its mask target; from there on everything is as in inference. No image is opened.

    Args:
        cfg: of the network.
        network: of `network_of`.
        records: of images of a dataset, with their sizes and ids.
        classes: names of the classes.
        step: called after every image.

    Returns:
        `COCOInstanceEvaluator`'s figures of the masks, in percent.
    """
    name = f"check_{uuid.uuid4().hex}"
    DatasetCatalog.register(name, lambda: [dict(x) for x in records])
    MetadataCatalog.get(name).set(thing_classes=list(classes), source=(name,))
    try:
        limit = cfg.TEST.DETECTIONS_PER_IMAGE
        evaluator = COCOInstanceEvaluator(name, distributed=False, max_dets_per_image=limit)
        for record in records:
            evaluator.process([dict(record)], [{"instances": _predict(cfg, network, record)}])
            step()
        found = evaluator.evaluate()["segm"]
        if math.isnan(found["AP"]):  # nothing was found, of something
            found |= dict.fromkeys(("AP", "AP50", "AP75"), 0.0)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    return {k: v for k, v in found.items() if k in SIZES or k.startswith("AP-")}


@torch.no_grad()
def _predict(cfg: CfgNode, network: SOLO, record: Mapping[str, Any]) -> Instances:
    """What the network would find if it predicted the targets of one image."""
    truth = _truth(cfg, record)
    size, divisor = truth.image_size, network.size_divisibility
    canvas = (-(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor)
    targets = network.assigner([truth], canvas, torch.device("cpu"))
    grid = network.head.grid
    owners, first = np.unique(targets.instances.numpy(), return_index=True)
    cells = targets.cells[torch.from_numpy(first)]
    small = (canvas[0] // MASK_STRIDE, canvas[1] // MASK_STRIDE)
    probs = torch.zeros((len(cells), *small))
    strides = torch.tensor(network.head.mask_strides)[grid.levels(cells)]
    for stride in strides.unique().tolist():
        chosen = strides == stride
        masks = targets.masks[stride][torch.from_numpy(owners)[chosen]]
        probs[chosen] = resize_bilinear(masks[:, None].float(), small)[:, 0]
    scores = torch.zeros(grid.num_cells, network.assigner.num_classes)
    scores[cells, targets.labels[0, cells]] = 1.0
    row = torch.zeros(grid.num_cells, dtype=torch.int64)
    row[cells] = torch.arange(len(cells))

    def cell_masks(some: Tensor) -> Tensor:
        return probs[row[some]]

    settings = network.settings
    view = View(select_candidates(scores, cell_masks, small, grid, settings), cell_masks)
    output = (int(record["height"]), int(record["width"]))
    return postprocess(view, Frame(canvas, size), output, settings)


def _truth(cfg: CfgNode, record: Mapping[str, Any]) -> Instances:
    """Ground truth of one image in the network's input, as training at the size of tests has it."""
    height, width = int(record["height"]), int(record["width"])
    size = (height, width)
    if cfg.INPUT.MIN_SIZE_TEST:
        shape = T.ResizeShortestEdge.get_output_shape
        size = shape(height, width, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    annotations = [x for x in record.get("annotations") or () if not is_crowd(x)]
    masks = checked_masks(annotations, (height, width), str(record["file_name"]))
    used = [i for i, mask in enumerate(masks) if mask is not None]
    truth = Instances(size)
    if used:
        truth.gt_classes = labels_of([annotations[i] for i in used], str(record["file_name"]))
        truth.gt_masks = transform_masks(
            [masks[i] for i in used],
            T.TransformList([T.ResizeTransform(height, width, *size)]),
            size,
            as_polygons=cfg.INPUT.MASK_FORMAT == "polygon",
        )
    return truth
