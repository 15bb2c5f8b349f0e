"""Report two models, trained with the same seeds, as a table with their paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from _runs import METRICS

BOUNDARY = "Boundary AP"
COLUMNS = (*METRICS, BOUNDARY)


@dataclass(frozen=True)
class Run:
    """One training and its evaluation.

    Attributes:
        model: its name.
        seed: of the training.
        parameters: of the model, frozen ones included.
        steps: that were trained.
        seconds: that they took, the first steps and the loading of images included.
        train_speed: images per second in training, after the first steps.
        test_ms: median milliseconds of inference for one image.
        metrics: `COLUMNS` in percent; None if no object has that size.
    """

    model: str
    seed: int
    parameters: int
    steps: int
    seconds: float
    train_speed: float
    test_ms: float
    metrics: dict[str, float | None]


def differences(ours: Sequence[Run], theirs: Sequence[Run], metric: str) -> list[float]:
    """Return ours minus theirs for each seed that both have, in the order of the seeds."""
    there = {run.seed: run.metrics[metric] for run in theirs}
    pairs = [(run.metrics[metric], there.get(run.seed)) for run in ours]
    return [a - b for a, b in pairs if a is not None and b is not None]


def markdown(runs: Sequence[Run], names: tuple[str, str]) -> str:
    """Format the table in Markdown: a row for each model, and their difference.

    Args:
        runs: of both models.
        names: of the models; the difference is first minus second.
    """
    of = {name: [run for run in runs if run.model == name] for name in names}
    heads = ("model", "parameters", "steps", "seconds", "images/s", "test ms", *COLUMNS)
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, done in of.items():
        lines.append(f"| {' | '.join([name, *_costs(done), *_scores(done)])} |")
    paired = [differences(of[names[0]], of[names[1]], metric) for metric in COLUMNS]
    cells = [f"{names[0]} - {names[1]}", *[""] * 5, *(spread(x, sign="+") for x in paired)]
    lines.append(f"| {' | '.join(cells)} |")
    seeds = len(paired[0])
    if seeds < 2:
        lines += ["", "One seed only: how much of the difference is chance is not known."]
    else:
        lines += ["", f"{seeds} seeds; ± is the standard deviation over them, of the differences"]
        lines[-1] += " in the last row."
    return "\n".join(lines) + "\n"


def _costs(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return ["–"] * 5
    return [
        f"{runs[0].parameters / 1e6:.1f} M",
        f"{mean(run.steps for run in runs):.0f}",
        f"{mean(run.seconds for run in runs):.0f}",
        f"{mean(run.train_speed for run in runs):.1f}",
        f"{mean(run.test_ms for run in runs):.1f}",
    ]


def _scores(runs: Sequence[Run]) -> list[str]:
    found = [[run.metrics[metric] for run in runs] for metric in COLUMNS]
    return [spread([x for x in values if x is not None]) for values in found]


def spread(values: Sequence[float], sign: str = "") -> str:
    """Format mean and sample standard deviation; the latter with at least two values."""
    if not values:
        return "–"
    text = f"{mean(values):{sign}.1f}"
    return text if len(values) < 2 else f"{text} ± {stdev(values):.1f}"
