"""What reading an annotation file costs, and what Detectron2's own reader costs.

    python benchmarks/reading.py --images 10000 100000 --masks polygon rle

A file with the statistics of COCO is made for every row (7.3 objects an image, 20 points a
polygon); each reader runs in a process of its own. Prints a Markdown table: CPU seconds, and by how
much the process grew at its peak (Linux). Exit code 1: the readers give other records.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_util

SIZES = ((480, 640), (640, 480), (427, 640), (640, 426))


def make_objects(random: np.random.Generator, size: tuple[int, int], masks: str) -> list[dict]:
    """Annotations of one image, without ids."""
    made = []
    for _ in range(int(random.poisson(7.3))):
        points = int(np.clip(random.lognormal(3, 0.6), 4, 200))
        angle = np.sort(random.uniform(0, 2 * np.pi, points))
        radius = np.exp(random.uniform(1.5, 4.5)) * random.uniform(0.7, 1, points)
        centre = random.uniform(20, np.array(size) - 20)[::-1]
        outline = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        outline = np.clip(outline, 0, size[::-1]).round(2)
        low, high = outline.min(0), outline.max(0)
        polygon: Any = [outline.ravel().tolist()]
        segmentation = polygon
        if masks == "rle":
            segmentation = mask_util.merge(mask_util.frPyObjects(polygon, *size))
            segmentation["counts"] = segmentation["counts"].decode()
            if mask_util.area(segmentation) == 0:
                continue
        box = [*low.tolist(), *(high - low).round(2).tolist()]
        made.append({"segmentation": segmentation, "area": box[2] * box[3] / 2 + 1, "bbox": box,
                     "iscrowd": 0, "category_id": int(random.integers(1, 81))})  # fmt: skip
    return made


def write_file(folder: Path, images: int, masks: str) -> Path:
    """Write annotations of so many images, and the images, which are links to a few files."""
    random = np.random.default_rng(images)
    listed, annotations = [], []
    for number in range(1, images + 1):
        size = SIZES[int(random.integers(len(SIZES)))]
        source, name = folder / f"{size[0]}x{size[1]}.png", f"{number:012d}.png"
        if not source.exists():
            Image.new("RGB", size[::-1]).save(source)
        os.symlink(source, folder / name)
        listed.append({"id": number, "file_name": name, "height": size[0], "width": size[1],
                       "license": 1, "date_captured": "2013-11-14 11:18:45"})  # fmt: skip
        for made in make_objects(random, size, masks):
            annotations.append({**made, "id": len(annotations) + 1, "image_id": number})
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, 81)]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    (folder / "set.json").write_text(json.dumps(content))
    return folder / "set.json"


def peak() -> float:
    """Most memory that this process has had, in MB, without that of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def read(reader: str, path: Path) -> dict[str, Any]:
    """Read a file in this process, and measure that."""
    from detectron2.data.datasets import load_coco_json as load_as_detectron2

    from solo_d2.data.datasets.coco_json import load_coco_json

    before, start = peak(), time.process_time()
    if reader == "solo_d2":
        records = load_coco_json(path, path.parent).records
    else:
        records = load_as_detectron2(str(path), str(path.parent), "benchmark")
    seconds = time.process_time() - start
    grown = peak() - before
    objects = [x for record in records for x in record["annotations"]]
    facts = [len(records), len(objects), sum(x["category_id"] for x in objects)]
    return {"seconds": seconds, "MB": grown, "facts": facts}


def in_process(reader: str, path: Path) -> dict[str, Any]:
    """`read` in a process of its own."""
    command = [sys.executable, __file__, "--reader", reader, "--file", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[10_000], metavar="N")
    parser.add_argument("--masks", nargs="+", choices=("polygon", "rle"), default=["polygon"])
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.reader:
        print(json.dumps(read(args.reader, args.file)))
        return 0
    print(
        "| images | masks | Detectron2, s | ours, s | ratio | Detectron2, MB | ours, MB | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|")
    equal = True
    for count in args.images:
        for masks in args.masks:
            with tempfile.TemporaryDirectory() as folder:
                path = write_file(Path(folder), count, masks)
                theirs, ours = (in_process(reader, path) for reader in ("detectron2", "solo_d2"))
            equal &= theirs["facts"] == ours["facts"]
            cells = [f"{count} | {masks}"]
            for unit in ("seconds", "MB"):
                cells += [f"{theirs[unit]:.1f}", f"{ours[unit]:.1f}"]
                cells += [f"{ours[unit] / max(theirs[unit], 1e-9):.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
