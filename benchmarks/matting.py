r"""Compare Soft SOLO with its baselines as in the paper's tables S1 to S4, beside its numbers.

    python benchmarks/matting.py --data DIR --soft CONFIG WEIGHTS --solo CONFIG WEIGHTS \
        --solo-tuned CONFIG WEIGHTS --ablation no-rgb CONFIG WEIGHTS --output matting.md

    python benchmarks/matting.py --data DIR --other "Mask R-CNN" CONFIG WEIGHTS

--data is a folder with annotations/SPLIT.json in COCO format (with "alpha", see docs/matting.md)
and the images in SPLIT/, as `python -m solo_d2.data.scenes stamps` builds it. Every model must
have its classes. Tables whose models are not given are left out; Table S2 needs the
package pymatting. Exit code 2: a wrong argument.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _matting_models import KINDS, load_any_config
from _matting_oracles import ORACLES, OracleMeter
from _matting_tables import (
    ABLATIONS,
    PAPER_S1,
    PAPER_S2,
    PAPER_S3,
    PAPER_S4,
    SOFI,
    only_published,
    table,
)
from _soft_masks import keep_soft_masks
from _trimaps import METHODS, trimap_errors
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances
from tqdm import tqdm

from solo_d2 import SOLOPredictor
from solo_d2.data.checks import check_classes
from solo_d2.data.datasets.coco_json import register_coco_json
from solo_d2.evaluation.matting import SCORE_THRESH, MattingEvaluator, SOFIEvaluator
from solo_d2.evaluation.matting_metrics import METRICS
from solo_d2.inference.cli import split_overrides
from solo_d2.inference.effects import load_pymatting
from solo_d2.io.image import read_image

DATA = "matting_benchmark"
PAIR = ("CONFIG", "WEIGHTS")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all options except the trailing config overrides."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [KEY VALUE ...]",
        epilog="KEY VALUE ... override all configs, such as INPUT.MIN_SIZE_TEST 320",
    )
    add = parser.add_argument
    add("--data", required=True, type=Path, metavar="DIR", help="dataset with mattes")
    add("--split", default="val", help="of the dataset (default: val)")
    add("--images", type=int, metavar="N", help="only the first N images (default: all)")
    add("--soft", nargs=2, metavar=PAIR, help="Soft SOLO")
    add("--solo", nargs=2, metavar=PAIR, help="SOLOv2 trained on masks")
    add("--solo-tuned", nargs=2, metavar=PAIR, help="SOLOv2*, with Soft SOLO's data and schedule")
    add(
        "--ablation",
        nargs=3,
        action="append",
        default=[],
        metavar=("ROW", *PAIR),
        help=f"a row of Table S4: {', '.join(ABLATIONS)}; repeat it",
    )
    add(
        "--other",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", *PAIR),
        help="a model of Detectron2 with masks, such as Mask R-CNN or PointRend; repeat it",
    )
    add("--trimap-images", type=int, default=20, metavar="N", help="of Table S2 (20; 0: without)")
    add("--trimap-methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="M")
    add("--radius", type=int, default=10, metavar="PIXELS", help="of the trimaps (default: 10)")
    add("--oracles", action="store_true", help="also say what the SOFI errors consist of")
    add("--score-threshold", type=float, default=SCORE_THRESH, metavar="T")
    add("--device", default="auto", help='"auto" (default), "cpu", "cuda", ...')
    add("--output", type=Path, metavar="FILE", help="write the tables here, too")
    return parser


@dataclass
class Row:
    """Metrics of one kind of mattes of one model.

    Attributes:
        sofi: figures of Table S1.
        image: figures over the whole image.
        unknown: figures over the unknown region.
        objects: errors of every object over the unknown region.
        oracles: with --oracles, SOFI errors of better models, and what the model does wrong.
    """

    sofi: dict[str, float]
    image: dict[str, float]
    unknown: dict[str, float]
    objects: list[dict[str, Any]] = field(repr=False)
    oracles: OracleMeter | None = None


class Meter:
    """All evaluators for one kind of mattes."""

    def __init__(self, score_thresh: float, radius: int, *, oracles: bool) -> None:
        self.sofi = SOFIEvaluator(DATA, score_thresh=score_thresh)
        # An object is compared with the best matte of any score: this is about mattes alone.
        self.image = MattingEvaluator(DATA, score_thresh=0.0)
        self.unknown = MattingEvaluator(DATA, score_thresh=0.0, region="unknown", radius=radius)
        self.oracles = OracleMeter(DATA, score_thresh, radius) if oracles else None

    def process(self, record: dict[str, Any], found: Instances) -> None:
        """Measure one image."""
        for evaluator in (self.sofi, self.image, self.unknown):
            evaluator.process([record], [{"instances": found}])
        if self.oracles is not None:
            self.oracles.process(record, found)

    def read(self) -> Row:
        """Return the metrics."""
        results = [
            evaluator.evaluate()[evaluator.name]
            for evaluator in (self.sofi, self.image, self.unknown)
        ]
        return Row(*results, objects=self.unknown.rows, oracles=self.oracles)


def measure(
    pair: Sequence[str],
    records: Sequence[dict[str, Any]],
    args: argparse.Namespace,
    overrides: Sequence[str],
) -> dict[str, Row]:
    """Run a model over all images.

    Returns:
        What `KINDS` has for the model: "mattes" of Soft SOLO, "masks" of any other, and SOLO's
        before the threshold, "soft masks".
    """
    cfg = load_any_config(pair[0], overrides)
    kinds = KINDS.get(cfg.MODEL.META_ARCHITECTURE, ("masks",))
    node = cfg.MODEL.SOLO if cfg.MODEL.META_ARCHITECTURE in KINDS else cfg.MODEL.ROI_HEADS
    check_classes([DATA], node.NUM_CLASSES)
    predictor = SOLOPredictor(cfg, weights=pair[1], device=args.device)
    if "soft masks" in kinds:
        keep_soft_masks(predictor.model)
    meters = {
        kind: Meter(args.score_threshold, args.radius, oracles=args.oracles) for kind in kinds
    }
    for record in tqdm(records, desc=pair[0], unit="image", disable=None):
        image = read_image(record["file_name"], "BGR")
        found = predictor(image)["instances"].to("cpu")
        for kind, meter in meters.items():
            chosen = found
            if kind == "masks" and found.has("pred_mattes"):
                chosen = Instances(found.image_size, **found.get_fields())
                chosen.remove("pred_mattes")
            meter.process(record, chosen)
    return {kind: meter.read() for kind, meter in meters.items()}


def others_of(found: dict[str, dict[str, Row]]) -> list[str]:
    """Names of models that are not this package's."""
    return [key for key in found if key not in ("solo", "solo-tuned", "soft", *ABLATIONS)]


def table_s1(found: dict[str, dict[str, Row]], about: str) -> str:
    """Format Table S1: SOFI errors."""
    own = {"solo": "SOLOv2", "solo-tuned": "SOLOv2*", "soft": "**Soft SOLO**"}
    names = {**{key: key for key in others_of(found)}, **own}
    rows = only_published(PAPER_S1, [(key, "", None) for key in found])
    for key in names:
        for kind, row in found.get(key, {}).items():
            # The paper does not say whether its SOLOv2 was thresholded.
            rows.append((key if kind != "soft masks" else "", f"{names[key]}, {kind}", row.sofi))
    lines = [
        table(
            f"### SOFI errors (paper: Table S1)\n\n{about} SOFI-MSE in 10⁻³, SOFI-SAD in 10³. "
            "SOLOv2* is trained with the data and schedule of Soft SOLO; soft masks are SOLOv2's "
            "probabilities, enlarged and not thresholded.",
            SOFI,
            rows,
            PAPER_S1,
        )
    ]
    base = found.get("solo-tuned", found.get("solo"))
    if base and "soft" in found:
        ours = found["soft"]["mattes"].sofi["SOFI_MSE"]
        for kind, row in base.items():
            change = 100 * (1 - ours / max(row.sofi["SOFI_MSE"], 1e-12))
            way = "lower" if change >= 0 else "higher"
            lines.append(f"\nSOFI-MSE of Soft SOLO against {kind}: {abs(change):.1f} % {way}.")
        lines.append("\nThe paper has 30.9 % lower.")
    return "\n".join(lines)


def table_oracles(found: dict[str, dict[str, Row]]) -> str:
    """Format SOFI-MSE of every model with oracles, and the numbers of what is wrong."""
    lines = [
        "### What SOFI-MSE consists of\n",
        f"| | {' | '.join(ORACLES)} | false | missed |",
        "|---|" + "---|" * (len(ORACLES) + 2),
    ]
    for key, kinds in found.items():
        for kind, row in kinds.items():
            assert row.oracles is not None
            errors = [f"{results['SOFI_MSE']:.2f}" for _, results in row.oracles.read()]
            counts = f"{row.oracles.false} | {row.oracles.missed}"
            lines.append(f"| {key}, {kind} | {' | '.join(errors)} | {counts} |")
    return "\n".join(lines)


def table_s2(
    found: dict[str, dict[str, Row]], records: Sequence[dict[str, Any]], args: argparse.Namespace
) -> str:
    """Format Table S2: trimap-based methods and ours, over the unknown region."""
    rows, failed = trimap_errors(records, args.trimap_methods, args.radius)
    known = {(row["image_id"], row["object"]) for row in next(iter(rows.values()))}
    judge = MattingEvaluator(DATA)
    lines = [
        (method, f"trimap + {method}", judge.summarize(values, ()))
        for method, values in rows.items()
    ]
    for key, kind, name in (
        ("solo-tuned", "masks", "SOLOv2*, masks"),
        ("soft", "mattes", "**Soft SOLO**"),
    ):
        if key in found:
            same = [
                row for row in found[key][kind].objects if (row["image_id"], row["object"]) in known
            ]
            lines.append((key, name, judge.summarize(same, ())))
    notes = ", ".join(f"{method} {n}" for method, n in failed.items() if n)
    heading = (
        f"### Matting over the unknown region (paper: Table S2)\n\n{len(known)} objects of "
        f"{len(records)} images, those with a sure part; trimaps from the true mattes, eroded "
        f"by {args.radius} pixels, which the methods of pymatting get and ours does not. "
        f"{UNITS}{' Not converged: ' + notes + '.' if notes else ''}"
    )
    return table(heading, METRICS, lines, PAPER_S2)


UNITS = (
    "MSE in 10⁻³, the others in 10³ as usual; the paper has Grad in 10¹ of a scale that it does "
    "not define."
)


def table_s3(found: dict[str, dict[str, Row]], about: str) -> str:
    """Format Table S3: errors over the entire image."""
    rows = only_published(PAPER_S3, [])
    for key, kind, name in (
        *((key, "masks", f"{key}, masks") for key in others_of(found)),
        ("solo", "masks", "SOLOv2, masks"),
        ("solo", "soft masks", "SOLOv2, soft masks"),
        ("solo-tuned", "masks", "SOLOv2*, masks"),
        ("solo-tuned", "soft masks", "SOLOv2*, soft masks"),
        ("soft", "mattes", "**Soft SOLO**"),
    ):
        if key in found:
            rows.append((key, name, found[key][kind].image))
    heading = f"### Matting over the whole image (paper: Table S3)\n\n{about} {UNITS}"
    return table(heading, METRICS, rows, PAPER_S3)


def table_s4(found: dict[str, dict[str, Row]], about: str) -> str:
    """Format Table S4: ablations, over the unknown region."""
    names = {"soft": "**Soft SOLO**", **ABLATIONS}
    rows = [(key, names[key], found[key]["mattes"].unknown) for key in names if key in found]
    heading = f"### Ablations, over the unknown region (paper: Table S4)\n\n{about} {UNITS}"
    return table(heading, METRICS, rows, PAPER_S4)


def named_models(args: argparse.Namespace) -> dict[str, Sequence[str]]:
    """Return config and weights by key; raises a `ValueError` for a row that cannot be."""
    models = {"solo": args.solo, "solo-tuned": args.solo_tuned, "soft": args.soft}
    for key, *pair in args.ablation:
        if key not in ABLATIONS:
            raise ValueError(f"--ablation {key}: choose from {', '.join(ABLATIONS)}")
        models[key] = pair
    for key, pair in models.items():
        meta = load_any_config(pair[0]).MODEL.META_ARCHITECTURE if pair else None
        wanted = "SOLO" if key.startswith("solo") else "SoftSOLO"
        if meta not in (None, wanted):
            raise ValueError(f"{pair[0]}: a {meta} model, the row {key!r} wants {wanted}")
    for name, *pair in args.other:
        if name in (*models, *ABLATIONS):
            raise ValueError(f"--other {name}: the name of another row; choose one of your own")
        load_any_config(pair[0])
        models[name] = pair
    return {key: pair for key, pair in models.items() if pair}


def check(args: argparse.Namespace) -> dict[str, Sequence[str]]:
    """Return the models by key; raises a `ValueError` for what cannot be meant."""
    models = named_models(args)
    if args.images is not None and args.images < 1:
        raise ValueError(f"--images must be at least 1, got {args.images}")
    if args.trimap_images < 0:
        raise ValueError(f"--trimap-images must be 0 or more, got {args.trimap_images}")
    if not models and not args.trimap_images:
        raise ValueError("nothing to measure: give --soft, --solo, or --trimap-images above 0")
    if args.trimap_images:
        load_pymatting("alpha")
    return models


def report(args: argparse.Namespace, overrides: Sequence[str]) -> str:
    """Measure, and return the tables."""
    models = check(args)
    file = args.data / "annotations" / f"{args.split}.json"
    register_coco_json(DATA, file, args.data / args.split)
    records = DatasetCatalog.get(DATA)[: args.images]
    found = {key: measure(pair, records, args, overrides) for key, pair in models.items()}
    objects = sum(not x.get("iscrowd", 0) for r in records for x in r["annotations"])
    about = f"{len(records)} images with {objects} objects."
    parts = []
    if found:
        threshold = f"{about} Scores of at least {args.score_threshold:g}."
        parts.append(table_s1(found, threshold))
        if args.oracles:
            parts.append(table_oracles(found))
    if args.trimap_images:
        parts.append(table_s2(found, records[: args.trimap_images], args))
    if found:
        parts.append(table_s3(found, f"{about} Each against its nearest matte of any score."))
    if args.ablation:
        parts.append(table_s4(found, about))
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        arguments, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
        args = make_parser().parse_args(arguments)
        text = report(args, overrides)
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"matting.py: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
