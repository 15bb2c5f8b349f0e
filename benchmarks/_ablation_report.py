"""Report ablations as tables and plots beside the paper's numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
import numpy as np
from _ablation_tables import Row, Table
from _runs import METRICS

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STYLE: dict[str, Any] = {"fmt": "o", "color": "#2a6f97", "capsize": 3}
LABEL: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 8}


@dataclass(frozen=True)
class Outcome:
    """Results of a row: one dict of metrics, in percent, per finished seed."""

    row: Row
    results: list[dict[str, float | None]]

    def mean(self, metric: str) -> float:
        """Return the mean over the seeds; nan without a result."""
        values = [x[metric] for x in self.results if x[metric] is not None]
        return mean(values) if values else math.nan

    def spread(self) -> float:
        """Return the sample standard deviation of AP over the seeds; 0 for one seed."""
        values = [result["AP"] for result in self.results]
        return stdev(values) if len(values) > 1 else 0.0

    def text(self, metric: str) -> str:
        """Format a cell of the table."""
        if math.isnan(self.mean(metric)):
            return "–"
        spread = f" ± {self.spread():.1f}" if metric == "AP" and len(self.results) > 1 else ""
        return f"{self.mean(metric):.1f}{spread}"


def agreement(outcomes: list[Outcome]) -> tuple[int, int]:
    """Count the pairs of rows that the paper ranks, and those that are ranked equally here."""
    ranked = same = 0
    for a, b in combinations([x for x in outcomes if x.results and x.row.paper is not None], 2):
        paper = a.row.paper - b.row.paper
        if paper:
            ranked += 1
            same += (a.mean("AP") - b.mean("AP")) * paper > 0
    return same, ranked


def markdown(
    table: Table, outcomes: list[Outcome], changes: list[str], budget: list[str], seeds: int
) -> str:
    """Format the table in Markdown.

    Args:
        table: of the paper.
        outcomes: of its rows that were asked for.
        changes: what makes each row, in the order of `outcomes`.
        budget: lines that state the budget.
        seeds: how many were asked for.
    """
    lines = [f"## {table.title}", "", *budget, ""]
    lines += ["| row | what makes it here | seeds | " + " | ".join(METRICS) + " | paper AP |"]
    lines += ["|---|---|---|" + "---|" * (len(METRICS) + 1)]
    for outcome, change in zip(outcomes, changes, strict=True):
        cells = [outcome.row.label, change, f"{len(outcome.results)} of {seeds}"]
        cells += [outcome.text(metric) for metric in METRICS] + [outcome.row.published]
        lines.append(f"| {' | '.join(cells)} |")
    same, ranked = agreement(outcomes)
    if ranked:
        lines += ["", f"{same} of {ranked} pairs of rows are in the paper's order."]
    if seeds == 1:
        lines += ["", "One seed only: how much of a difference is chance is not known."]
    return "\n".join(lines) + "\n"


def plot(table: Table, outcomes: list[Outcome], path: Path) -> None:
    """Plot AP of every row, here and in the paper, in two panels of the same scale."""
    done = [x for x in outcomes if x.results]
    height = 1.4 + 0.42 * len(done)
    figure, (here, paper) = plt.subplots(1, 2, figsize=(8.5, height), sharey=True)
    means = [x.mean("AP") for x in done]
    here.errorbar(means, range(len(done)), xerr=[x.spread() for x in done], **STYLE)
    seeds = [(result["AP"], place) for place, x in enumerate(done) for result in x.results]
    here.plot(*np.transpose(seeds), "|", color="#555555", markersize=10)
    known = [(x.row.paper, place) for place, x in enumerate(done) if x.row.paper is not None]
    if known:
        paper.plot(*np.transpose(known), "D", color="#c2553a")
    for axis, points in ((here, list(zip(means, range(len(done)), strict=True))), (paper, known)):
        for value, place in points:
            axis.annotate(f"{value:.1f}", (value, place), (0, 6), **LABEL)
    here.set_yticks(range(len(done)), [x.row.label for x in done])
    here.set_ylim(len(done) - 0.5, -0.7)
    shown = [[value for value, _ in seeds], [value for value, _ in known]]
    span = 1.3 * max([max(x) - min(x) for x in shown if x] + [1.0])
    titles = ("here (strokes: one seed each)", "in the paper")
    for axis, values, title in zip((here, paper), shown, titles, strict=True):
        middle = (max(values) + min(values)) / 2 if values else 0.0
        axis.set_xlim(middle - span / 2, middle + span / 2)
        axis.set(xlabel="mask AP (%)", title=title)
        axis.grid(alpha=0.3)
    figure.suptitle(table.title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
