"""The state of a training in its checkpoints, and what of it a changed config replaces."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from torch import nn
from torch.optim import Optimizer

from ..io.errors import one_line

_logger = logging.getLogger(__name__)

STATE_KEY = "solo_d2"
"""Key of what Detectron2 does not keep itself, in the state of a trainer."""

# They say where, and not how, and do not count as a change.
_ELSEWHERE = ("OUTPUT_DIR", "MODEL.WEIGHTS", "MODEL.DEVICE", "DATALOADER.NUM_WORKERS", "VERSION")


def flat_config(cfg: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return all keys of a config with their values, tuples as lists: plain, and comparable."""
    flat: dict[str, Any] = {}
    for key, value in cfg.items():
        if isinstance(value, Mapping):
            flat.update(flat_config(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = _listed(value)
    return flat


def changes(saved: Mapping[str, Any], cfg: CfgNode) -> list[str]:
    """Return "KEY old -> new" for every key that has another value than in a saved `flat_config`.

    Keys that only one of both has belong to another version of the package.
    """
    now = flat_config(cfg)
    return [
        f"{key} {_short(saved[key])} -> {_short(value)}"
        for key, value in now.items()
        if key in saved and saved[key] != value and key not in _ELSEWHERE
    ]


def parameter_names(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """Return the name of every parameter of an optimizer, in the order of its state."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names.get(id(p), "") for group in optimizer.param_groups for p in group["params"]]


def kind_of(optimizer: Optimizer) -> str:
    """Return the name of an optimizer's class, without what Detectron2 derives for clipping."""
    names = [kind.__name__ for kind in type(optimizer).__mro__]
    return next(name for name in names if not name.endswith("WithGradientClip"))


def load_optimizer(
    optimizer: Optimizer,
    model: nn.Module,
    saved: Mapping[str, Any],
    names: list[str] | None,
    kind: str | None,
) -> None:
    """Give every parameter the moments that a parameter of its name had; the rest start anew.

    Rates, decay and momentum stay those of the optimizer: they come from the config.

    Args:
        optimizer: changed in place.
        model: whose parameters it has.
        saved: state of an optimizer, as of torch.
        names: of its parameters, in order; None for those of `optimizer`, if it has as many.
        kind: of it, see `kind_of`; None for that of `optimizer`.

    Raises:
        ValueError: It is damaged, or does not fit the parameters.
    """
    if kind not in (None, kind_of(optimizer)):
        _logger.warning(
            "SOLVER.OPTIMIZER: the checkpoint has the state of %s, and %s starts anew",
            kind,
            kind_of(optimizer),
        )
        return
    now = parameter_names(optimizer, model)
    try:
        old = [i for group in saved["param_groups"] for i in group["params"]]
        names = now if names is None and len(old) == len(now) else names or []
        by_name = {
            name: dict(saved["state"].get(i, {})) for i, name in zip(old, names, strict=True)
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the state of the optimizer is damaged ({one_line(error)})") from error
    known = {name: by_name[name] for name in now if by_name.get(name)}
    _check_shapes(known, model)
    state = {i: known[name] for i, name in enumerate(now) if name in known}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if any(by_name.values()) and len(known) < len(now):
        fresh, total = len(now) - len(known), len(now)
        _logger.warning("%d of %d trained parameters have no moments yet", fresh, total)


def load_scaler(scaler: Any, saved: Any) -> None:
    """Set a gradient scaler, where both runs have one.

    Raises:
        ValueError: The state is damaged.
    """
    if scaler is None or not saved or not scaler.is_enabled():
        return
    try:
        scaler.load_state_dict(saved)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"the state of AMP is damaged ({one_line(error)})") from error


def set_scheduler(scheduler: Any, iteration: int, saved: Mapping[str, Any] | None) -> None:
    """Set a scheduler behind an iteration; Detectron2's one alone follows from the config."""
    if not isinstance(scheduler, LRMultiplier):
        if saved and hasattr(scheduler, "load_state_dict"):
            scheduler.load_state_dict(dict(saved))
        return
    scheduler.load_state_dict({"last_epoch": iteration + 1})
    rates = scheduler.get_lr()
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler.load_state_dict({"_last_lr": rates})


def _check_shapes(moments: Mapping[str, Mapping[str, Any]], model: nn.Module) -> None:
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for name, values in moments.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.dim() and value.shape != shapes[name]:
                raise ValueError(
                    f"{key} of {name} has the shape {tuple(value.shape)}, expected "
                    f"{tuple(shapes[name])}"
                )


def _listed(value: Any) -> Any:
    return [_listed(x) for x in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
