"""Does a checkpoint fit a model? One rule for prediction, one for the start of training."""

from __future__ import annotations

import dataclasses
import enum
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from .foreign.key_maps import describe_other

_logger = logging.getLogger(__name__)

_PARTIAL_HINT = "--allow-partial (allow_partial=True) loads what fits."
_OTHER_DETECTORS = re.compile(r"(roi_heads?|rpn_head|proposal_generator|bbox_head|mask_head)\.")
# Without meaning for prediction: counters, and values that the config has.
_IDLE = re.compile(
    r"(^|\.)(num_batches_tracked|pixel_mean|pixel_std)$|cell_anchors|^aux_semantic\."
)
_CLASSES = re.compile(
    r"^(head\.category_predictor|aux_semantic\.predictor|sem_seg_head\.predictor)\."
)
_STAGES = re.compile(r"^(backbone\.bottom_up\.)?res[2-5]\.")


class Require(enum.Enum):
    """How much of a model a checkpoint must fill.

    Example:
        >>> [member.name for member in Require]
        ['EVERYTHING', 'BACKBONE', 'NOTHING']
    """

    EVERYTHING = "prediction, evaluation and resuming"
    BACKBONE = "the start of training: all, or the network below the FPN alone"
    NOTHING = "whatever fits (--allow-partial)"


@dataclass(frozen=True)
class Fit:
    """Names of a checkpoint compared with those of a model.

    Attributes:
        matched: in both, with the same shape.
        missing: in the model alone.
        unexpected: in the checkpoint alone.
        wrong_shapes: name, shape in the checkpoint, shape in the model.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


def compare(model: nn.Module, state_dict: Mapping[str, Tensor]) -> Fit:
    """Compare names and shapes, leaving out those that do not matter.

    Running statistics do not count as missing where the checkpoint has none at all and the model's
    normalisation is frozen: Caffe2's backbones have them in the weights.
    """
    own = model.state_dict()
    fused = not any(key.endswith((".running_mean", ".running_var")) for key in state_dict)
    excused = _frozen_statistics(model) if fused else set()
    both = [key for key in own if key in state_dict]
    wrong = [key for key in both if own[key].shape != state_dict[key].shape]
    return Fit(
        matched=tuple(key for key in both if own[key].shape == state_dict[key].shape),
        missing=tuple(
            key for key in own if not (key in state_dict or key in excused or _IDLE.search(key))
        ),
        unexpected=tuple(key for key in state_dict if key not in own and not _IDLE.search(key)),
        wrong_shapes=tuple(
            (key, tuple(state_dict[key].shape), tuple(own[key].shape)) for key in wrong
        ),
    )


def leave_out_classes(fit: Fit, state_dict: dict[str, Tensor]) -> Fit:
    """Leave out, in place, what predicts another number of classes than the model has.

    A training that starts from weights of other classes learns its own; all else is of use.

    Args:
        fit: Of the checkpoint and the model.
        state_dict: Of the checkpoint; loses the entries that are left out.

    Returns:
        The same comparison, in which they are missing.
    """
    left = [key for key, _, _ in fit.wrong_shapes if _CLASSES.match(key)]
    for key, found, expected in fit.wrong_shapes:
        if key in left and key.endswith(".bias"):
            _logger.info("%s starts new: %d classes in the file, %d here", key.rpartition(".")[0],
                         found[0], expected[0])  # fmt: skip
    for key in left:
        del state_dict[key]
    wrong = tuple(entry for entry in fit.wrong_shapes if entry[0] not in left)
    return dataclasses.replace(fit, missing=(*fit.missing, *left), wrong_shapes=wrong)


def check_fit(fit: Fit, require: Require) -> None:
    """Refuse a checkpoint that would leave a model partly random without anybody noticing.

    Args:
        fit: of the checkpoint and the model.
        require: `Require.NOTHING` logs what is left random, name by name, instead.

    Raises:
        ValueError: It does not fit. The caller adds the name of the file.
    """
    if require is Require.NOTHING:
        _log_partial(fit)
        return
    _check_kind(fit)
    if not fit.matched and not fit.wrong_shapes:
        raise ValueError(
            f"is of another model: not one of its {len(fit.unexpected)} entries is in this one; "
            f"it has e.g. {_first(fit.unexpected)}, the model {_first(fit.missing)}. "
            "Files of other projects: see tools/convert_weights.py."
        )
    if fit.wrong_shapes:
        key, found, expected = fit.wrong_shapes[0]
        raise ValueError(
            f"is of another model: {len(fit.wrong_shapes)} entries have another shape, e.g. {key} "
            f"{found}, expected {expected}. Use the config that it was trained with (class count, "
            f"light or full?); {_PARTIAL_HINT}"
        )
    if require is Require.EVERYTHING:
        _check_everything(fit)
    else:
        _check_start(fit)


def _check_kind(fit: Fit) -> None:
    keys = [key for key in fit.unexpected if _OTHER_DETECTORS.match(key)]
    if keys:
        raise ValueError(
            f"is of {describe_other(keys)} (it has {keys[0]}). Use weights of a SOLO model or of a "
            f"backbone; {_PARTIAL_HINT}"
        )


def _check_everything(fit: Fit) -> None:
    total = len(fit.matched) + len(fit.missing)
    if fit.missing:
        raise ValueError(
            f"is of another model, or of a backbone alone: {len(fit.missing)} of {total} entries "
            f"are missing, e.g. {_first(fit.missing)}. Use weights that were trained with this "
            f"config; {_PARTIAL_HINT}"
        )
    if fit.unexpected:
        # E.g. offsets of deformable convolutions, or more layers: all else may well fit.
        raise ValueError(
            f"is of another model: this one has no {_first(fit.unexpected)} (and "
            f"{len(fit.unexpected) - 1} more). Use the config that it was trained with; "
            f"{_PARTIAL_HINT}"
        )


def _check_start(fit: Fit) -> None:
    """All of the model, or all of its backbone; offsets of deformable convolutions start at 0."""
    missing = [key for key in fit.missing if "conv2_offset" not in key]
    below = [key for key in missing if is_backbone(key)]
    if below:
        raise ValueError(
            f"does not fill the backbone: {len(below)} entries are missing, e.g. {below[0]}. "
            f"Use weights of this backbone (depth?); {_PARTIAL_HINT}"
        )
    deeper = [key for key in fit.unexpected if _STAGES.match(key)]
    if deeper:
        raise ValueError(
            f"is of another backbone: this one has no {deeper[0]} (and {len(deeper) - 1} more). "
            f"Use weights of this backbone (depth, deformable?); {_PARTIAL_HINT}"
        )
    head = [key for key in fit.unexpected if key.startswith("head.")]
    if head and any(key.startswith("head.") for key in fit.matched):
        raise ValueError(
            f"is of another head: this one has no {head[0]} (and {len(head) - 1} more). Use the "
            f"config that it was trained with; {_PARTIAL_HINT}"
        )
    total = len(fit.matched) + len(fit.missing)
    groups = sorted({".".join(key.split(".")[:2]) for key in fit.missing})
    _logger.info(
        "%d of %d entries loaded; new: %s", len(fit.matched), total, ", ".join(groups) or "none"
    )
    if fit.unexpected:
        _logger.info("Not used: %s", ", ".join(fit.unexpected))


def is_backbone(key: str) -> bool:
    """Return whether a name belongs to the network below the FPN."""
    return key.startswith("backbone.bottom_up.")


def _frozen_statistics(model: nn.Module) -> set[str]:
    return {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, FrozenBatchNorm2d)
        for key in ("running_mean", "running_var")
    }


def _log_partial(fit: Fit) -> None:
    left = [*fit.missing, *(key for key, _, _ in fit.wrong_shapes)]
    if left:
        _logger.warning(
            "Partial weights: %d entries loaded, %d left random:\n  %s",
            len(fit.matched),
            len(left),
            "\n  ".join(left),
        )
    for key, found, expected in fit.wrong_shapes:
        _logger.warning("Skipped for its shape: %s %s, expected %s", key, found, expected)
    if fit.unexpected:
        _logger.warning("Not used: %s", ", ".join(fit.unexpected))


def _first(keys: tuple[str, ...]) -> str:
    return keys[0] if keys else "nothing"
