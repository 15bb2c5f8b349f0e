"""The report of a check as tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from .suspects import SUSPECTS

__all__ = ["as_text", "command_line", "overview", "proposal_lines"]

_ROWS = 20


def as_text(report: Mapping[str, Any], config: str) -> str:
    """Return the tables of a report of `check_datasets`.

    Args:
        report: of the datasets.
        config: the name of the config, for the command of the proposal.
    """
    splits = report["splits"]
    parts = ["", _table(("", *splits), overview(splits))]
    for key, split in splits.items():
        parts += [f"{key}: objects by size and class", _groups(split)]
    parts += _suspects(report)
    return "\n\n".join([*parts, *proposal_lines(report["proposal"], config)]).strip() + "\n"


def overview(splits: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return rows of a name and a text for every split."""
    rows: dict[str, Callable[[Any], Any]] = {
        "images": lambda x: x["images"],
        "- without objects": lambda x: x["images_without_objects"],
        "objects": lambda x: x["objects"],
        "- crowds, which are not learnt": lambda x: x["crowds"],
        "- per image, mean and most": lambda x: (
            f"{x['objects_per_image']['mean']:.1f}, {x['objects_per_image']['most']}"
        ),
        "images with more than DETECTIONS_PER_IMAGE": lambda x: x["images_over_the_limit"],
        "objects without a cell": lambda x: _part(x, x["cells"]["without"]),
        "- outside of all SCALE_RANGES": lambda x: _part(x, x["cells"]["outside"]),
        "- smaller objects have their cells": lambda x: _part(x, x["cells"]["beaten"]),
        "- at the training sizes": lambda x: ", ".join(
            f"{size}: {share:.1f} %"
            for size, share in x["cells"]["without_by_training_size"].items()
        ),
        "cells per object, mean": lambda x: f"{x['cells']['positives_per_object']:.1f}",
        "objects too small to be found": lambda x: _part(x, x["cells"]["too_small"]),
        "- under one mask pixel": lambda x: _part(x, x["cells"]["tiny"]),
        "objects by level, finest first": lambda x: ", ".join(map(str, x["levels"])),
        "best possible AP, AP50, AP75": lambda x: ", ".join(
            _number(x["best_possible"].get(key)) for key in ("AP", "AP50", "AP75")
        ),
        "pairs of objects": lambda x: x["pairs"]["pairs"],
        "- centres more than 30 pixels apart": lambda x: _percent(x["pairs"]["far"]),
        "- of the others, sizes differ 1.5 times": lambda x: _percent(x["pairs"]["differ"]),
    }
    return [(name, *(str(row(x)) for x in splits.values())) for name, row in rows.items()]


def _part(split: Mapping[str, Any], count: int) -> str:
    return f"{count} ({100 * count / max(1, split['objects']):.2f} %)"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    align = ("left", *["right"] * (len(headers) - 1))
    text: str = tabulate(rows, headers, tablefmt="simple", colalign=align, disable_numparse=True)
    return text


def _groups(split: Mapping[str, Any]) -> str:
    """Sizes, and the classes with most objects without a cell."""
    classes = sorted(split["by_class"].items(), key=lambda x: -x[1]["without_cell"])
    rows = [
        (name, x["objects"], x["without_cell"], x["too_small"], _number(x["best_ap"]))
        for name, x in [*split["by_size"].items(), *classes[:_ROWS]]
    ]
    text = _table(("", "objects", "without a cell", "too small", "best AP"), rows)
    more = len(classes) - _ROWS
    return f"{text}\n({more} more classes: --json)" if more > 0 else text


def _suspects(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, split in report["splits"].items():
        unused = [name for name, x in split["by_class"].items() if not x["objects"]]
        if unused:
            lines.append(f"{key}: classes without objects: {_some(unused)}")
        for kind, found in split["suspects"].items():
            if found["count"]:
                where = _some([name.rpartition("/")[2] for name in found["first"]])
                lines.append(f"{key}: {SUSPECTS[kind]}: {found['count']} objects, such as {where}")
        problems = split["problems"]
        if problems["count"]:
            first = problems["first"][0]
            lines.append(f"{key}: annotations without a usable mask: {problems['count']}; {first}")
    shared = report.get("in_both_splits", [])
    if shared:
        files = _some([pair[1].rpartition("/")[2] for pair in shared])
        lines.append(f"images of train that are in val, too: {len(shared)}, such as {files}")
    return ["Suspicious: " + ("\n  " + "\n  ".join(lines) if lines else "nothing")]


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def proposal_lines(proposal: Mapping[str, Any], config: str) -> list[str]:
    """Return what to change, as paragraphs."""
    now, change, cheaper = (proposal[key] for key in ("now", "change", "cheaper"))
    lines = [f"With {config}, {_shares(now)}."]
    if change is None:
        lines[0] += " It suffices."
    elif change["cost"] == now["cost"]:
        lines += ["Proposal, for images with more objects than the limit:"]
    else:
        lines += [f"Proposal: {_effect(change)} with:"]
    lines += [command_line(change["settings"])] if change else []
    if cheaper:
        lines += [f"Cheaper: {_effect(cheaper)} with:", command_line(cheaper["settings"])]
    return lines


def _shares(proposal: Mapping[str, Any]) -> str:
    cell, findable = proposal["with_cell"], proposal["findable"]
    return (
        f"{cell:.2f} % of the objects own a cell and {findable:.2f} % are large enough to be found"
    )


def _effect(proposal: Mapping[str, Any]) -> str:
    best = proposal.get("best_ap")
    more = "" if best is None else f" (best possible AP {best:.1f})"
    return f"at {proposal['cost']:.2f} times the multiplications, {_shares(proposal)}{more}"


def command_line(settings: Mapping[str, Any]) -> str:
    """Return settings as KEY VALUE pairs, to be copied behind a command."""
    return " \\\n".join(f'    {key} "{value}"' for key, value in settings.items())
