"""Draw the masks of several models for the same objects, enlarged, as in the paper's Figure 5(b).

    python tools/compare_masks.py --annotations val.json --images val/ --output crops.png \
        --results SOLOv2=solo/coco_instances_results.json "Mask R-CNN=coco_instances_results.json"

The results are those that an evaluation writes, of any model. A row is an object: the annotation,
then the mask of each model with its IoU. Shown are the largest objects, one an image, that every
model has found: with its class and an IoU of at least --min-iou. What a model misses is in its AP.
Exit code 2: files that cannot be used, or no such object.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _drawing import save, tile
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from solo_d2.io.image import read_image

BLUE = (255, 128, 0)
MARGIN = 0.1  # of the object's box, on each side


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--annotations", required=True, metavar="FILE", help="COCO JSON with the true masks")
    add("--images", required=True, metavar="DIR", help="folder of their file names")
    add("--results", required=True, nargs="+", metavar="NAME=FILE", help="of each model")
    add("--output", required=True, metavar="FILE", help="image to write, .png or .jpg")
    add("--count", type=int, default=6, metavar="N", help="objects at most (default: 6)")
    add("--min-iou", type=float, default=0.5, metavar="IOU", help="of every model (default: 0.5)")
    add("--height", type=int, default=240, metavar="PIXELS", help="of a crop (default: 240)")
    return parser


def read(args: argparse.Namespace) -> tuple[COCO, dict[str, COCO]]:
    """Read annotations, and the results by the names of their models.

    Raises:
        ValueError: a file that is not what it should be.
    """
    if args.count < 1 or args.height < 16:
        raise ValueError("--count must be at least 1 and --height at least 16")
    results = {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells how long it takes
        try:
            truth = COCO(args.annotations)
            for text in args.results:
                name, equals, file = text.partition("=")
                if not equals:
                    raise ValueError(f"--results {text}: expected NAME=FILE")
                results[name] = truth.loadRes(file)
        except (AssertionError, KeyError, TypeError, IndexError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"results and annotations do not fit: {reason}") from error
    return truth, results


def find(truth: COCO, results: COCO, image: int) -> dict[int, tuple[float, dict[str, Any]]]:
    """Match annotation ids of an image to (IoU, result) of the best mask of their class."""
    objects = [x for x in truth.imgToAnns[image] if not x.get("iscrowd")]
    found = results.imgToAnns[image]
    if not objects or not found:
        return {}
    overlap = coco_mask.iou(
        [x["segmentation"] for x in found], [truth.annToRLE(x) for x in objects], [0] * len(objects)
    )
    same = np.equal.outer([x["category_id"] for x in found], [x["category_id"] for x in objects])
    overlap = np.where(same, overlap, 0.0)
    best = overlap.argmax(0)
    return {
        x["id"]: (float(overlap[row, column]), found[row])
        for column, (x, row) in enumerate(zip(objects, best, strict=True))
    }


def choose(
    truth: COCO, results: dict[str, COCO], count: int, min_iou: float
) -> list[tuple[dict[str, Any], list[tuple[float, dict[str, Any]]]]]:
    """Choose the largest objects that all models found, one an image, with what they found.

    Raises:
        ValueError: There is none.
    """
    candidates = []
    for image in truth.getImgIds():
        matches = [find(truth, one, image) for one in results.values()]
        shared = [
            (truth.anns[key], [match[key] for match in matches])
            for key in set.intersection(*map(set, matches))
            if min(match[key][0] for match in matches) >= min_iou
        ]
        candidates += [max(shared, key=lambda x: x[0]["area"])] if shared else []
    if not candidates:
        raise ValueError(f"no object that all models found with an IoU of {min_iou:g}")
    return sorted(candidates, key=lambda x: -x[0]["area"])[:count]


def crop(image: np.ndarray, mask: np.ndarray, box: Sequence[float], height: int) -> np.ndarray:
    """Cut out a box with a margin, enlarge it to a height, and draw the outline of a mask."""
    x, y, w, h = box
    side = max(w, h) * (1 + 2 * MARGIN)
    left, top = round(x + w / 2 - side / 2), round(y + h / 2 - side / 2)
    edge = max(1, round(side))
    room = cv2.BORDER_CONSTANT, None, (255, 255, 255)  # white beside the image
    inner = edge, edge, edge, edge
    window = np.s_[top + edge : top + 2 * edge, left + edge : left + 2 * edge]
    seen = cv2.copyMakeBorder(image, *inner, *room)[window]
    found = np.pad(mask, edge)[window]
    large = cv2.resize(seen, (height, height), interpolation=cv2.INTER_CUBIC)
    inside = cv2.resize(found, (height, height), interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    tinted = large.copy()
    tinted[inside > 0] = BLUE
    large = cv2.addWeighted(large, 0.65, tinted, 0.35, 0)
    cv2.drawContours(large, outlines, -1, BLUE, 2, cv2.LINE_AA)
    return large


def draw(args: argparse.Namespace) -> str:
    """Draw the figure; returns a line about it."""
    truth, results = read(args)
    pictures, captions = [], []
    for annotation, matches in choose(truth, results, args.count, args.min_iou):
        info = truth.imgs[annotation["image_id"]]
        image = read_image(Path(args.images, info["file_name"]))
        masks = [truth.annToMask(annotation)]
        masks += [coco_mask.decode(match["segmentation"]) for _, match in matches]
        pictures += [crop(image, mask, annotation["bbox"], args.height) for mask in masks]
        captions.append(truth.cats[annotation["category_id"]]["name"])
        captions += [f"{name} {iou:.2f}" for name, (iou, _) in zip(results, matches, strict=True)]
    return save(args.output, tile(pictures, captions, columns=1 + len(results)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        print(draw(make_parser().parse_args(argv)))
    except (ValueError, OSError) as error:
        print(f"compare_masks.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
