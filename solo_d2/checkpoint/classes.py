"""Names and category ids of classes, where weights meet a model that has some already.

A model has the classes of the data that it is to be trained or evaluated on, or of nothing yet.
Its labels are numbers: with other names behind them all results are wrong and look right.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from torch import Tensor, nn

from ..io.errors import printable
from .info import CheckpointInfo

_logger = logging.getLogger(__name__)

# Kind of class: attributes of `CheckpointInfo` and of models, and the layers with an output each.
_THINGS = ("class_names", "category_ids", ("head.category_predictor", "aux_semantic.predictor"))
_STUFF = ("stuff_names", "stuff_category_ids", ("sem_seg_head.predictor",))
_SHOWN = 10


def check_classes(info: CheckpointInfo, state: dict[str, Tensor]) -> None:
    """Compare the class names of a file with the classes that its weights predict.

    Raises:
        ValueError: They are more or fewer. The caller adds the name of the file.
    """
    for attribute, _, layers in (_THINGS, _STUFF):
        names = getattr(info, attribute)
        for layer in layers:
            weight = state.get(f"{layer}.weight")
            if names and weight is not None and weight.shape[:1] != (len(names),):
                raise ValueError(
                    f"is damaged: it has {len(names)} {attribute.replace('_', ' ')} "
                    f"({shown(names)}), and {layer} has the shape {tuple(weight.shape)}"
                )
        _warn_of_odd_names(names)


def match_classes(
    model: nn.Module, info: CheckpointInfo, state: dict[str, Tensor], *, strict: bool, move: bool
) -> None:
    """Bring the classes of a file to the order of the model's, by their names.

    Nothing happens where one of both has no names.

    Args:
        model: has `class_names` and `stuff_names`.
        info: of the file.
        state: weights of the file; changed in place.
        strict: other names are an error, else a warning.
        move: the same names in another order are moved, else they are as other names.

    Raises:
        ValueError: Other names, or another number. The caller adds the name of the file.
    """
    for attribute, _, layers in (_THINGS, _STUFF):
        own, theirs = getattr(model, attribute, ()), getattr(info, attribute)
        if not own or not theirs or list(own) == list(theirs):
            continue
        order = class_order(own, theirs) if move else None
        if order is not None:
            _move(state, layers, order)
            _logger.warning(
                "The classes of the file (%s) are put in the order %s", shown(theirs), shown(own)
            )
            continue
        text = describe_difference(own, theirs)
        if strict:
            raise ValueError(f"{text}. Its labels would mean something else")
        _logger.warning("The file %s. The names here are kept", text)


def class_order(own: Sequence[str], theirs: Sequence[str]) -> list[int] | None:
    """Return where each own class stands among theirs; None if these are not the same."""
    if list(own) == list(theirs):
        return list(range(len(own)))
    if len(set(own)) != len(own) or Counter(own) != Counter(theirs):
        return None
    place = {name: k for k, name in enumerate(theirs)}
    return [place[name] for name in own]


def take_classes(model: nn.Module, info: CheckpointInfo) -> None:
    """Give a model that was filled by a file the names and ids that it lacks.

    Args:
        model: `match_classes` took the file for it. One without `class_names` is left alone.
        info: of the file.
    """
    for attribute, ids_attribute, _ in (_THINGS, _STUFF):
        own, theirs = getattr(model, attribute, None), getattr(info, attribute)
        ids: tuple[int, ...] = getattr(info, ids_attribute)
        if own == ():
            setattr(model, attribute, theirs)
            setattr(model, ids_attribute, ids)
        elif own and len(ids) == len(own) and not getattr(model, ids_attribute, ()):
            order = class_order(own, theirs) or range(len(own))  # other names of the same classes
            setattr(model, ids_attribute, tuple(ids[k] for k in order))


def describe_difference(own: Sequence[str], theirs: Sequence[str]) -> str:
    """Describe, as part of a sentence, how the classes of weights differ from the expected ones."""
    new = [name for name in own if name not in theirs]
    left = [name for name in theirs if name not in own]
    details = [f"without {shown(new)}"] * bool(new) + [f"not expected: {shown(left)}"] * bool(left)
    if len(new) == len(own):  # both lists say it
        details = []
    elif not details:
        details = ["another order"]
    return f"has the classes {shown(theirs)}; expected {shown(own)}" + (
        f" ({'; '.join(details)})" if details else ""
    )


def shown(names: Sequence[str]) -> str:
    """Names for people: the first ones, in a line."""
    listed = ", ".join(printable(name, 40) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{listed} and {more} more" if more > 0 else listed


def _move(state: dict[str, Tensor], layers: Sequence[str], order: Sequence[int]) -> None:
    for layer in layers:
        for key in (f"{layer}.weight", f"{layer}.bias"):
            if key in state:
                state[key] = state[key][list(order)]


def _warn_of_odd_names(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    odd = [name for name in names if not name.strip() or not name.isprintable()]
    if twice:
        _logger.warning("Classes of one name in the file: %s", shown(twice))
    if odd:
        _logger.warning("%d class names in the file are empty or cannot be printed", len(odd))
