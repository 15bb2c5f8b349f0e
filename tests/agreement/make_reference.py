"""Write `data/*.json`: what other projects' detectors make of weights that their keys determine.

    python tests/agreement/make_reference.py mmdet
    python tests/agreement/make_reference.py adelaidet --checkout DIR

Once, where the other project can be imported; `test_reference` then needs the files alone. They
hold shapes, a recipe and numbers: neither code nor weights.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import adelaidet_models
import mmdet_models
import torch
from peer_weights import (
    DATA,
    PADDED,
    WHOLE,
    encode_masks,
    every_nth,
    ground_truth,
    photo,
    random_weights,
    small_photo,
)
from torch import Tensor, nn

MMDET = {
    "solo": "solo/solo_r50_fpn_3x_coco",
    "decoupled_solo": "solo/decoupled-solo_r50_fpn_3x_coco",
    "decoupled_solo_light": "solo/decoupled-solo-light_r50_fpn_3x_coco",
    "solov2": "solov2/solov2_r50_fpn_ms-3x_coco",
    "solov2_light": "solov2/solov2-light_r18_fpn_ms-3x_coco",
    "solov2_light_dcn": "solov2/solov2-light_r50-dcn_fpn_ms-3x_coco",
}
CASES = ((PADDED, (300, 451)), (WHOLE, (80, 100)))


def describe(source: str, model: nn.Module, module: ModuleType) -> dict[str, Any]:
    """Everything that `test_reference` needs of one model.

    Args:
        source: name of the project, as in `solo_d2.checkpoint`.
        model: its model.
        module: which runs it.
    """
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(random_weights(shapes))
    cases = [
        {"photo": name, **_detections(module, model, photo(name), size)} for name, size in CASES
    ]
    raw = {
        key: [float(f"{x:.8g}") for x in every_nth(value).tolist()]
        for key, value in module.raw_outputs(model, photo(PADDED)).items()
    }
    with torch.no_grad():
        # One photograph: AdelaiDet's mask targets are misaligned in the other.
        losses = module.losses(model, [photo(WHOLE)], ground_truth()[1:])
    return {
        "source": source,
        "torch": torch.__version__,
        "losses": {key: float(value) for key, value in losses.items()},
        "raw": raw,
        "cases": cases,
        "shapes": shapes,
    }


def _detections(
    module: ModuleType, model: nn.Module, image: Tensor, size: tuple[int, int]
) -> dict[str, Any]:
    found = module.detect(model, [image], [size])[0]
    return {
        "size": size,
        "scores": [float(f"{x:.8g}") for x in found["scores"].tolist()],
        "labels": found["labels"].tolist(),
        "masks": encode_masks(found["masks"].bool()),
    }


def _write(name: str, reference: dict[str, Any]) -> None:
    path = DATA / f"{name}.json"
    path.write_text(json.dumps(reference, separators=(",", ":")) + "\n")
    found = [len(case["scores"]) for case in reference["cases"]]
    logging.info("%s: %s instances, %d kB", path.name, found, path.stat().st_size // 1000)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", choices=("mmdet", "adelaidet"))
    parser.add_argument("--checkout", type=Path, help="of AdelaiDet")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.source == "mmdet":
        for name, config in MMDET.items():
            model = mmdet_models.build(mmdet_models.read_config(config))
            _write(f"mmdet_{name}", describe("mmdet", model, mmdet_models))
    elif args.checkout is None:
        parser.error("adelaidet needs --checkout")
    else:
        model = adelaidet_models.build(args.checkout, "R50_3x")
        reference = describe("adelaidet", model, adelaidet_models)
        image = small_photo()
        reference["small"] = _detections(adelaidet_models, model.eval(), image, image.shape[1:])
        _write("adelaidet_solov2", reference)


if __name__ == "__main__":
    main()
