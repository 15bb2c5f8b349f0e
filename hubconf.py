"""Entry points of `torch.hub`.

import torch
predictor = torch.hub.load("OWNER/solo_d2", "predictor", "solo_d2/objects_lite0")
predictor("photo.jpg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import solo_d2

if TYPE_CHECKING:
    from torch import nn

dependencies = ["torch", "torchvision", "detectron2", "timm", "cv2", "pycocotools", "safetensors"]


def predictor(name: str = "solo_d2/objects_lite0", **options: Any) -> solo_d2.SOLOPredictor:
    """Return a predictor of images: `solo_d2.SOLOPredictor.from_pretrained`.

    Args:
        name: A checkpoint of the model zoo, a folder, or "OWNER/NAME" on the Hugging Face Hub.
        **options: Such as device, confidence_threshold and revision.
    """
    return solo_d2.SOLOPredictor.from_pretrained(name, **options)


def model(name: str = "solo_d2/objects_lite0", device: str | None = None) -> nn.Module:
    """Return a model with its published weights: `solo_d2.model_zoo.get`.

    Args:
        name: A checkpoint or a config of the model zoo.
        device: Torch device; by default CUDA where there is one.
    """
    return solo_d2.model_zoo.get(name, trained=True, device=device)
