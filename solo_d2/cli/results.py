"""``solo-d2 eval --results``: AP of files of results, one after the other, without a model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

from ..data.arguments import add_data_arguments
from ..engine.arguments import add_import_argument, argument_parser

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = ["evaluate_results"]

_KEYS = (
    "DATASETS.TEST",
    "TEST.DETECTIONS_PER_IMAGE",
    "TEST.TILES.ENABLED",
    "TEST.TILES.DETECTIONS_PER_IMAGE",
)
"""Keys of the config that are read."""


def evaluate_results(args: argparse.Namespace) -> None:
    """Score files of results against a dataset, and print what comes out.

    Raises:
        ValueError: options or keys that are of a model, no dataset, or results that cannot be used.
    """
    from detectron2.utils.logger import create_small_table

    from ..evaluation.build import detections_per_image
    from ..evaluation.coco import COCOInstanceEvaluator, columns
    from ..evaluation.result_files import find_result_files
    from ..evaluation.scoring import METRICS
    from ..evaluation.streamed import StreamedScorer
    from ..evaluation.truth import read_truth

    _refuse_unused(args)
    cfg = _config(args)
    files = find_result_files(args.results)
    with _on_console():
        truth = read_truth(_dataset(args, cfg))
    scorer = StreamedScorer(truth, COCOInstanceEvaluator.limit_for(detections_per_image(cfg)))
    count = sum(scorer.add(file) for file in tqdm(files, unit="file", disable=None))
    print(f"{count} instances of {scorer.images} images in {len(files)} files")
    with _on_console():
        results = scorer.results()
    for task, figures in results.items():
        print(f"{task}:\n{create_small_table({k: figures[k] for k in METRICS})}")
        by_class = {k[3:]: value for k, value in figures.items() if k not in METRICS}
        if by_class:
            print(f"{task} AP by class:\n{columns(by_class)}")


def _refuse_unused(args: argparse.Namespace) -> None:
    """Refuse what is given and would not be used."""
    used = argparse.ArgumentParser()
    add_data_arguments(used)
    add_import_argument(used)
    names = {*vars(used.parse_args([])), "results", "config_file", "eval_only", "verbose", "opts"}
    for name, default in vars(argument_parser().parse_args([])).items():
        if name not in names and getattr(args, name) != default:
            option = name.replace("_", "-")
            raise ValueError(f"--results needs no model: leave --{option} out")
    for key in args.opts[::2]:
        if key not in _KEYS:
            raise ValueError(
                f"--results reads {', '.join(_KEYS)} of the config alone: leave {key} out"
            )


@contextmanager
def _on_console() -> Iterator[None]:
    """Show what is told about the dataset and the results."""
    from ..engine.log import end_log, open_console

    open_console()
    try:
        yield
    finally:
        end_log()


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
