"""``solo-d2 eval --results``: AP of files of results, one after the other, without a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = ["evaluate_results"]


def evaluate_results(args: argparse.Namespace) -> None:
    """Score files of results against a dataset, and print what comes out.

    Raises:
        ValueError: options that are of a model, no dataset, or results that cannot be used.
    """
    from detectron2.utils.logger import create_small_table

    from ..evaluation.coco import columns
    from ..evaluation.result_files import find_result_files
    from ..evaluation.scoring import METRICS
    from ..evaluation.streamed import StreamedScorer
    from ..evaluation.truth import read_truth

    for option in ("weights", "report", "resume", "diagnose"):
        if getattr(args, option):
            raise ValueError(f"--results needs no model: leave --{option} out")
    cfg = _config(args)
    files = find_result_files(args.results)
    truth = read_truth(_dataset(args, cfg))
    scorer = StreamedScorer(truth, cfg.TEST.DETECTIONS_PER_IMAGE)
    count = sum(scorer.add(file) for file in tqdm(files, unit="file", disable=None))
    print(f"{count} instances of {scorer.images} images in {len(files)} files")
    for task, figures in scorer.results().items():
        print(f"{task}:\n{create_small_table({k: figures[k] for k in METRICS})}")
        by_class = {k[3:]: value for k, value in figures.items() if k not in METRICS}
        if by_class:
            print(f"{task} AP by class:\n{columns(by_class)}")


def _config(args: argparse.Namespace) -> CfgNode:
    from detectron2.config import get_cfg

    from ..config import add_solo_config, merge_overrides
    from ..io.plugins import import_plugins
    from ..model_zoo.model_zoo import load_config

    import_plugins(args.imports)
    if args.config_file:
        return load_config(args.config_file, args.opts)
    cfg = get_cfg()
    add_solo_config(cfg)
    merge_overrides(cfg, args.opts)
    return cfg


def _dataset(args: argparse.Namespace, cfg: CfgNode) -> str:
    """Return the name of the dataset, registered by now."""
    from detectron2.data import MetadataCatalog

    from ..data.arguments import register_named_data

    own = register_named_data(args, panoptic=False)
    names = list(own.values()) or list(cfg.DATASETS.TEST)
    if len(names) != 1:
        raise ValueError(
            "--results needs one dataset: --val-json and --val-images, or --data, or DATASETS.TEST"
        )
    kind = MetadataCatalog.get(names[0]).get("evaluator_type", "coco")
    if kind not in ("coco", "coco_panoptic_seg"):
        raise ValueError(f"--results is scored by COCO's rules, {names[0]} has those of {kind}")
    return names[0]
