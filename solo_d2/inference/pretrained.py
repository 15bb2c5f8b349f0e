"""Write a model folder: config, safetensors weights, and a model card."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from torch import nn

from ..checkpoint.classes import shown
from ..checkpoint.convention import own_info
from ..checkpoint.files import save_checkpoint
from ..checkpoint.info import INFO_KEY
from ..export import ExportedModel
from ..io.atomic import atomic_write
from ..io.paths import printable
from ..model_zoo.folder import CARD, CONFIG, WEIGHTS

__all__ = ["ModelCard", "save_folder"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelCard:
    """What a model card says that the model does not know of itself.

    Attributes:
        name: Of the model; by default that of the folder.
        license: Identifier of the weights' licence, such as "apache-2.0"; None leaves it out.
        dataset: What it was trained and measured on; by default the name in `DATASETS.TEST`.
        metrics: Results on it, such as {"segm/AP": 37.5}.

    Raises:
        ValueError: A metric is not finite.

    Example:
        >>> ModelCard(license="apache-2.0", metrics={"segm/AP": 37.5}).license
        'apache-2.0'
    """

    name: str | None = None
    license: str | None = None
    dataset: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name}: expected a finite number, got {value}")


def save_folder(
    folder: str | PathLike[str], model: nn.Module, cfg: CfgNode, card: ModelCard
) -> None:
    """Write a model folder.

    Args:
        folder: See `SOLOPredictor.save_pretrained`.
        model: With the weights, and the class names where it knows them.
        cfg: Its config; what it says of this machine is left out.
        card: For the model card, which is only written where there is none.

    Raises:
        ValueError: The model is of an exported file, the folder holds something else, or it has a
            card that does not say what `card` says.
        OSError: It cannot be written.
    """
    path = Path(folder)
    if isinstance(model, ExportedModel):
        raise ValueError("an exported file is not saved as a folder; save the model it was made of")
    if path.exists() and not (path / WEIGHTS).is_file() and (path.is_file() or any(path.iterdir())):
        raise ValueError(
            f"{printable(os.fspath(folder))}: is not empty and no model folder; name a new one"
        )
    text = _card(path, model, cfg, card)
    if (path / CARD).exists():
        _compare_cards(path / CARD, text, card, _facts(model, cfg))
    path.mkdir(parents=True, exist_ok=True)
    state, info = {"model": model.state_dict()}, own_info(model)
    save_checkpoint(state if info is None else {**state, INFO_KEY: info}, path / WEIGHTS)
    with atomic_write(path / CONFIG) as file:
        file.write(_portable(cfg).dump().encode())
    if not (path / CARD).exists():
        with atomic_write(path / CARD) as file:
            file.write(text.encode())


def _compare_cards(file: Path, text: str, card: ModelCard, facts: list[str]) -> None:
    """Refuse a card that would get lost, and say where the old one, which stays, is wrong.

    Raises:
        ValueError: The old card is another than the options ask for.
    """
    old = file.read_text(errors="replace")
    if old == text:
        return
    name = printable(os.fspath(file))
    if card != ModelCard():
        raise ValueError(
            f"{name}: is there and stays, so that name, license, dataset and metrics would get "
            "lost; edit it, delete it to have a new one, or leave these options out"
        )
    lines = old.splitlines()
    lacking = [x for x in facts if not any(line.endswith((x, f"{x}.")) for line in lines)]
    if lacking:
        _logger.warning(
            "%s stays, and does not say of the model that is saved: %s; edit it, or delete it and "
            "save again", name, "; ".join(lacking),
        )  # fmt: skip
    else:
        _logger.info("%s stays as it is", name)


def _portable(cfg: CfgNode) -> CfgNode:
    """A config that says nothing of this machine, and needs no file but the weights beside it."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = "", get_cfg().OUTPUT_DIR
    cfg.MODEL.DEVICE = get_cfg().MODEL.DEVICE
    if "TIMM" in cfg.MODEL:
        cfg.MODEL.TIMM.WEIGHTS = ""
    return cfg


def _card(folder: Path, model: nn.Module, cfg: CfgNode, card: ModelCard) -> str:
    """Text of the card, with the metadata that the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    name = card.name or folder.absolute().name
    dataset = card.dataset or (cfg.DATASETS.TEST[0] if len(cfg.DATASETS.TEST) else "own data")
    results = [
        EvalResult("instance-segmentation", dataset, dataset, key, float(value), metric_name=key)
        for key, value in card.metrics.items()
    ]
    data = ModelCardData(
        library_name="solo_d2",
        license=card.license,
        pipeline_tag="image-segmentation",
        tags=["instance-segmentation", "solo", "detectron2"],
        model_name=name,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_text(name, dataset, model, cfg, card)}"


def _text(name: str, dataset: str, model: nn.Module, cfg: CfgNode, card: ModelCard) -> str:
    kind, *facts = _facts(model, cfg)
    lines = [
        f"# {name}",
        "",
        f"An instance segmentation model of the SOLO family for solo_d2: {kind}.",
        "",
        *(f"- {fact}" for fact in facts),
        f"- Licence: {card.license or 'not stated'}",
    ]
    if card.metrics:
        lines += ["", f"| {dataset} | |", "|---|---|"]
        lines += [f"| {key} | {value:g} |" for key, value in card.metrics.items()]
    return "\n".join([*lines, "", _USE.format(name=name)])


def _facts(model: nn.Module, cfg: CfgNode) -> list[str]:
    """What a card says of the model by itself: kind, classes, size of images."""
    head = type(getattr(model, "head", model)).__name__
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    classes = tuple(getattr(model, "class_names", ()))
    return [
        f"{cfg.MODEL.META_ARCHITECTURE} with {head}, {count:.1f} M parameters",
        f"Classes: {shown(classes) if classes else 'without names'}",
        f"Input: short side {cfg.INPUT.MIN_SIZE_TEST}, long side at most "
        f"{cfg.INPUT.MAX_SIZE_TEST} pixels",
    ]


_USE = """## Use

```python
from solo_d2 import SOLOPredictor

predictor = SOLOPredictor.from_pretrained("OWNER/{name}")  # or the path of this folder
print(predictor("photo.jpg"))
```

Weights are safetensors, and the config is YAML: neither runs code when it is loaded.
"""
