"""The paper's numbers of tables S1 to S4, and Markdown tables of ours beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from solo_d2.evaluation.matting_metrics import METRICS

SOFI = ("SOFI_MSE", "SOFI_SAD")

# Keys are those of rows in `matting.py`; values are in the order of SOFI or METRICS.
PAPER_S1 = {
    "Mask R-CNN": (24.70, 22.99),
    "PointRend": (19.65, 18.57),
    "solo": (12.13, 12.06),
    "solo-tuned": (10.21, 10.33),
    "soft": (7.06, 9.24),
}
PAPER_S2 = {
    "closed-form": (20.16, 4.87, 7.34, 4.43),
    "kNN": (25.67, 5.66, 8.51, 5.29),
    "large kernel": (41.04, 8.56, 11.08, 8.19),
    "random walk": (48.07, 6.45, 15.34, 6.24),
    "soft": (28.51, 4.73, 9.14, 4.61),
}
PAPER_S3 = {"LFM": (14.47, 13.51, 8.66, 13.20), "soft": (7.18, 7.28, 11.21, 7.05)}
PAPER_S4 = {
    "soft": (37.44, 5.18, 10.99, 5.02),
    "no-rgb": (39.11, 5.39, 11.36, 5.27),
    "no-fusion": (39.88, 5.50, 11.85, 5.38),
    "mae": (38.31, 5.15, 11.26, 5.02),
    "dice": (39.11, 6.35, 12.19, 6.03),
}

ABLATIONS = {
    "no-rgb": "Details Refinement without the image",
    "no-fusion": "without adding the enlarged mask feature",
    "mae": "MAE alone",
    "dice": "Dice alone",
}


def table(
    heading: str,
    metrics: Sequence[str],
    rows: Sequence[tuple[str, str, Mapping[str, float] | None]],
    paper: Mapping[str, Sequence[float]],
) -> str:
    """Format a Markdown table, ours left and the paper's right.

    Args:
        heading: printed above, with what was measured.
        metrics: columns, keys of the rows' values.
        rows: key in `paper`, name, and values; None where only the paper has any.
        paper: numbers in the order of `metrics`.
    """
    columns = ["", *metrics, *(f"paper: {metric}" for metric in metrics)]
    lines = [heading, "", _line(columns), _line(["---"] * len(columns))]
    for key, name, values in rows:
        ours = [f"{values[metric]:.2f}" if values else "–" for metric in metrics]
        published = paper.get(key)
        theirs = [f"{x:.2f}" for x in published] if published else ["–"] * len(metrics)
        lines.append(_line([name, *ours, *theirs]))
    return "\n".join(lines)


def only_published(paper: Mapping[str, Sequence[float]], rows: Sequence) -> list:
    """Rows of the paper that have none of ours."""
    known = {key for key, _, _ in rows}
    return [(key, f"{key} (paper)", None) for key in paper if key not in known and key[0].isupper()]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


assert len(METRICS) == len(PAPER_S2["soft"])
