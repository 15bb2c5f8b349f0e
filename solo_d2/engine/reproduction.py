"""Compare what a published model has here with what is published of it."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._version import __version__
from ..io.atomic import atomic_write
from ..io.download import sha256
from ..io.paths import printable
from ..model_zoo.claims import Claim

__all__ = ["Data", "compare", "find_data", "make_record", "pack_results"]

TOLERANCE = 0.1
"""AP that may lie between both figures, in percent."""

TEST_DEV = "test-dev2017"

_FILES = {
    "coco": (("annotations/instances_val2017.json",), "val2017"),
    TEST_DEV: (("annotations/image_info_test-dev2017.json",), "test2017"),
    "lvis": (("lvis_v0.5_val.json", "annotations/lvis_v0.5_val.json"), "val2017"),
}
"""Annotation files, of which one is there, and the folder of the images."""

_PACKAGES = (
    *("torch", "torchvision", "detectron2", "numpy", "opencv-python", "pillow", "pycocotools"),
    *("hotcoco", "timm", "cityscapesscripts"),
)


@dataclass(frozen=True)
class Data:
    """Where the data of a claim are.

    Attributes:
        options: words of a command line that name them.
        annotations: the file of annotations; None of Cityscapes, which has one for every image.
    """

    options: list[str]
    annotations: Path | None


def find_data(dataset: str, folder: Path, *, test_dev: bool = False) -> Data:
    """Find a dataset in a folder that is laid out as its publisher does.

    Args:
        dataset: of a claim.
        folder: of the dataset.
        test_dev: the images of COCO's test-dev, which have no annotations.

    Raises:
        ValueError: Something is missing.
    """
    if dataset == "cityscapes":
        for name in ("leftImg8bit/val", "gtFine/val"):
            if not (folder / name).is_dir():
                raise ValueError(f"{printable(folder)}: expected {name}/ in it, as in Cityscapes")
        return Data(["--cityscapes", str(folder)], None)
    names, images = _FILES[TEST_DEV if test_dev else dataset]
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None or not (folder / images).is_dir():
        raise ValueError(
            f"{printable(folder)}: expected {' or '.join(names)} and {images}/ in it, as in "
            f"{dataset.upper()}"
        )
    words = ["--val-json", str(file), "--val-images", str(folder / images)]
    return Data([*words, *(["--data-format", "lvis"] if dataset == "lvis" else [])], file)


def compare(claim: Claim, ap: float | None, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Compare an AP with the published one.

    Args:
        claim: what is published.
        ap: measured, in percent; None or NaN where there is none.
        tolerance: that may lie between both.

    Returns:
        Both, their difference, and whether it is within the tolerance.

    Example:
        >>> claim = Claim("mmdet/model", "coco", 37.5, "mmdet")
        >>> [compare(claim, ap)["reproduced"] for ap in (37.6, 37.601, None)]
        [True, False, False]
    """
    known = ap is not None and not math.isnan(ap)
    difference = ap - claim.ap if known and ap is not None else None
    return {
        "published": claim.ap,
        "source": claim.source,
        "measured": ap if known else None,
        "difference": difference,
        "tolerance": tolerance,
        # Figures in decimal notation, of which the binary ones differ a little.
        "reproduced": difference is not None and abs(difference) <= tolerance + 1e-9,
    }


def make_record(
    claim: Claim,
    data: Data,
    results: Mapping[str, Any],
    overrides: Sequence[str],
    digest: str,
    device: str,
) -> dict[str, Any]:
    """Say what was evaluated on what by what.

    Args:
        claim: what is published.
        data: on which it was evaluated.
        results: of `SOLOTrainer.test`; empty without annotations.
        overrides: of the config.
        digest: SHA-256 of the file of the weights.
        device: `MODEL.DEVICE` of the evaluation; of a GPU its name is noted.
    """
    file = data.annotations
    return {
        "model": claim.name,
        "dataset": claim.dataset,
        "annotations": file and {"name": file.name, "sha256": sha256(file)},
        "weights": {"url": claim.url, "sha256": digest},
        "overrides": list(overrides),
        "results": dict(results),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "versions": {
            "solo_d2": __version__,
            "python": platform.python_version(),
            **{name: _version_of(name) for name in _PACKAGES},
        },
    }


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def pack_results(file: Path, folder: Path, name: str) -> list[Path]:
    """Make the files that COCO's evaluation server takes for test-dev, of masks and of boxes.

    Both servers ask for the same name. A result with a box is scored as a box there, so that
    masks go alone.

    Args:
        file: results as `JsonListWriter` writes them, an entry a line.
        folder: gets ``segm/`` and ``bbox/`` with a zip file each.
        name: of the model.

    Raises:
        OSError: They cannot be written.
    """
    stem = f"detections_{TEST_DEV}_{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}_results"
    packed = []
    for task, unused in (("segm", "bbox"), ("bbox", "segmentation")):
        target = folder / task / f"{stem}.zip"
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_write(target) as output,
            zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open(f"{stem}.json", "w", force_zip64=True) as member,
            file.open("rb") as lines,
        ):
            separator = b"[\n"
            for line in lines:
                text = line.strip().rstrip(b",")
                if text.startswith(b"{"):
                    entry = {k: v for k, v in json.loads(text).items() if k != unused}
                    member.write(separator + json.dumps(entry).encode())
                    separator = b",\n"
            member.write(b"\n]\n" if separator == b",\n" else b"[]\n")
        packed.append(target)
    return packed
