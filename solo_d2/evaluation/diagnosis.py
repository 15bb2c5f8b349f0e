"""Where AP is lost: figures with one thing made perfect at a time, error types, suspects.

Error types are those of TIDE (Bolya et al., 2020), which hotcoco computes. The rows with one thing
made perfect keep all detections and change only what they name, so that they say what the best
possible change of that part would gain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_util
from tabulate import tabulate

from .scoring import hotcoco
from .truth import as_rle

__all__ = ["Diagnosis", "ImageIoU", "diagnose", "evaluate_masks", "image_ious"]

MATCHED = 0.3
"""IoU from which a detection is taken for an attempt at an object."""

SUSPECT_SCORE = 0.5
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}
ERRORS = {
    "Cls": "wrong class",
    "Loc": "mask too far from the object's",
    "Both": "wrong class and mask",
    "Dupe": "second detection of an object",
    "Bkg": "background",
    "Miss": "object without a detection",
}

Entry = dict[str, Any]


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; all AP in percent.

    Attributes:
        perfect: AP, AP50 and AP75 by what is made perfect; "nothing" comes first.
        recall: share of the objects, in percent, with any detection of an IoU of at least 0.5 and
            0.75, whatever its class, by size and for "all"; NaN without such objects.
        errors: AP50 that would be gained without an error of TIDE, and the number of errors.
        calibration: expected difference of a score and the share of true detections, in percent.
        confused: (class of the object, class of the detection, number), most frequent first.
        worst: (image id, F1 at IoU 0.5), worst first.
        suspects: objects and detections that hint at a wrong annotation.
    """

    perfect: dict[str, tuple[float, float, float]]
    recall: dict[str, tuple[float, float]]
    errors: dict[str, tuple[float, int]]
    calibration: float
    confused: list[tuple[str, str, int]]
    worst: list[tuple[Any, float]]
    suspects: list[Entry]

    def to_markdown(self, rows: int = 20) -> str:
        """Return tables of all that was found, the long ones with the first `rows` rows."""
        classes = self.confused[:rows]
        parts = {
            "AP with one thing made perfect": (
                ("perfect", "AP", "AP50", "AP75"),
                [(name, *values) for name, values in self.perfect.items()],
            ),
            "Objects with a detection of that IoU, in percent": (
                ("size", "IoU 0.5", "IoU 0.75"),
                [(name, *values) for name, values in self.recall.items()],
            ),
            "Errors at IoU 0.5, and the AP50 that each costs": (
                ("error", "AP50", "number"),
                [(name, *values) for name, values in self.errors.items()],
            ),
            "Classes taken for others": (("object", "detection", "number"), classes),
            "Images with the lowest F1": (("image", "F1"), self.worst[:rows]),
            f"Detections with a score of {SUSPECT_SCORE} that hint at a wrong annotation": (
                ("image", "kind", "detection", "score", "annotation", "IoU"),
                [
                    (x["image_id"], x["type"].replace("_", " "), x["dt_category"], x["dt_score"],
                     x["gt_category"] or "", x["iou"])
                    for x in self.suspects[:rows]
                ],
            ),
        }  # fmt: skip
        text = "".join(
            f"## {title}\n\n{tabulate(body, headers, tablefmt='pipe', floatfmt='.2f')}\n\n"
            for title, (headers, body) in parts.items()
            if body
        )
        error = f"Scores differ from the share of true detections by {self.calibration:.1f} %."
        return f"# Diagnosis\n\n{text}{error}\n"


@dataclass(frozen=True)
class ImageIoU:
    """Detections (D) and single objects (G) of an image, masks as RLE, and their IoU (D, G)."""

    found: list[Entry]
    objects: list[Entry]
    ious: np.ndarray


def diagnose(
    content: Mapping[str, Any], results: list[Entry], image_ids: Mapping[int, Any] | None = None
) -> Diagnosis:
    """Find out where the AP of some results is lost.

    Args:
        content: ground truth as a COCO file has it, with masks.
        results: entries of a COCO results file, with masks and without boxes; all of them count,
            see `within_limit`.
        image_ids: names of the images in the answer, by their id in `content`; by default the id.

    Raises:
        ValueError: hotcoco is not installed, or there is no result.
    """
    if hotcoco is None:
        raise ValueError("a diagnosis needs hotcoco; install it: pip install hotcoco")
    if not results:
        raise ValueError("a diagnosis needs detections, got none; lower SCORE_THRESH_TEST")
    images = image_ious(content, results)
    perfect = {name: _score(content, images, change) for name, change in PERFECT.items()}
    perfect["class-agnostic scoring"] = _class_agnostic(content, images)
    scorer = evaluate_masks(content, results)
    tide, matrix = scorer.tide_errors(), scorer.confusion_matrix()
    facts = scorer.image_diagnostics(score_thr=SUSPECT_SCORE)
    names = image_ids or {x["id"]: x["id"] for x in content["images"]}
    summary = sorted(facts["img_summary"].items(), key=lambda item: (item[1]["f1"], item[0]))
    return Diagnosis(
        perfect=perfect,
        recall=_recall(images),
        errors={
            text: (100 * float(tide["delta_ap"][key]), int(tide["counts"][key]))
            for key, text in ERRORS.items()
        },
        calibration=100 * float(scorer.calibration()["ece"]),
        confused=_confused(matrix),
        worst=[(names[i], 100 * float(x["f1"])) for i, x in summary],
        suspects=[{**x, "image_id": names[x["image_id"]]} for x in facts["label_errors"]],
    )


def image_ious(content: Mapping[str, Any], results: list[Entry]) -> list[ImageIoU]:
    """Return the IoU of all detections and single objects, image by image.

    Args:
        content: ground truth as a COCO file has it, with masks.
        results: entries of a COCO results file, with masks.
    """
    found, objects = defaultdict(list), defaultdict(list)
    for x in results:
        found[x["image_id"]].append(x)
    sizes = {x["id"]: (x["height"], x["width"]) for x in content["images"]}
    for x in content["annotations"]:
        if not x["iscrowd"]:
            rle = as_rle(x["segmentation"], sizes[x["image_id"]])
            objects[x["image_id"]].append({**x, "segmentation": rle})
    return [ImageIoU(found[i], objects[i], _ious(found[i], objects[i])) for i in sizes]


def _ious(found: list[Entry], objects: list[Entry]) -> np.ndarray:
    if not found or not objects:
        return np.zeros((len(found), len(objects)))
    masks = ([x["segmentation"] for x in group] for group in (found, objects))
    return np.asarray(mask_util.iou(*masks, [0] * len(objects)))


def evaluate_masks(content: Mapping[str, Any], results: list[Entry]) -> Any:
    """Return hotcoco's evaluation of masks, with everything accumulated.

    All results count, however many an image has: those beyond a limit were left out before. So a
    change of their classes leaves out no more of them.
    """
    index = hotcoco.COCO(dict(content))
    scorer = hotcoco.COCOeval(index, index.load_res(results), "segm")
    scorer.params.max_dets = [max(1, len(results))]
    scorer.evaluate()
    scorer.accumulate()
    return scorer


def _score(
    content: Mapping[str, Any], images: list[ImageIoU], change: Callable[..., Entry]
) -> tuple[float, float, float]:
    """AP, AP50 and AP75 of changed detections."""
    results = [
        change(x, image.objects, ious)
        for image in images
        for x, ious in zip(image.found, image.ious, strict=True)
    ]
    precision = np.asarray(evaluate_masks(content, results).eval["precision"])[:, :, :, 0, -1]
    parts = (precision, precision[0], precision[5])
    means = [part[part > -1].mean() if (part > -1).any() else np.nan for part in parts]
    return (100 * float(means[0]), 100 * float(means[1]), 100 * float(means[2]))


def _as_it_is(x: Entry, objects: list[Entry], ious: np.ndarray) -> Entry:  # noqa: ARG001
    return x


def _true_class(x: Entry, objects: list[Entry], ious: np.ndarray) -> Entry:
    if max(ious, default=0) < MATCHED:
        return x
    return {**x, "category_id": objects[ious.argmax()]["category_id"]}


def _true_mask(x: Entry, objects: list[Entry], ious: np.ndarray) -> Entry:
    if max(ious, default=0) < MATCHED:
        return x
    return {**x, "segmentation": objects[ious.argmax()]["segmentation"]}


def _true_ranking(x: Entry, objects: list[Entry], ious: np.ndarray) -> Entry:
    of_class = [x["category_id"] == other["category_id"] for other in objects]
    return {**x, "score": float(np.max(ious, initial=0, where=np.array(of_class, bool)))}


PERFECT: dict[str, Callable[..., Entry]] = {
    "nothing": _as_it_is,
    "classes": _true_class,
    "ranking by IoU": _true_ranking,
    "masks": _true_mask,
}
"""Changes of a detection, given its image's objects and its IoU with them."""


def _class_agnostic(
    content: Mapping[str, Any], images: list[ImageIoU]
) -> tuple[float, float, float]:
    one = {
        **content,
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [{**x, "category_id": 1} for x in content["annotations"]],
    }
    return _score(one, images, lambda x, *_: {**x, "category_id": 1})


def _recall(images: list[ImageIoU]) -> dict[str, tuple[float, float]]:
    best = [(x["area"], max(ious, default=0)) for i in images for x, ious in zip(
        i.objects, i.ious.T, strict=True)]  # fmt: skip
    area, iou = np.array(best).reshape(-1, 2).T
    rows = {"all": np.ones(len(area), bool)}
    rows |= {name: (area >= low) & (area < high) for name, (low, high) in SIZES.items()}
    shares = {}
    for name, chosen in rows.items():
        hits = [(iou[chosen] >= least).mean() if chosen.any() else np.nan for least in (0.5, 0.75)]
        shares[name] = (100 * float(hits[0]), 100 * float(hits[1]))
    return shares


def _confused(found: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    matrix = np.asarray(found["matrix"])[:-1, :-1].astype(np.int64)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[: np.count_nonzero(matrix)]
    names = found["cat_names"]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [(names[i], names[k], int(matrix[i, k])) for i, k in pairs]
