"""Charts as inline SVG, for `page.Page`."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

__all__ = ["bar_chart", "line_chart"]

_WIDTH, _HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 10, 40
_COLOURS = 6

Range = tuple[float, float]


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x: str,
    y: str,
    *,
    x_range: Range = (0, 1),
    y_range: Range = (0, 1),
    diagonal: bool = False,
) -> str:
    """Draw lines through points.

    Args:
        series: points (x, y) of every line by its name; points with NaN are left out.
        x: text at the horizontal axis.
        y: text at the vertical axis.
        x_range: first and last value of the horizontal axis.
        y_range: likewise of the vertical one.
        diagonal: draw a dashed line from corner to corner, too.

    Returns:
        A figure in HTML.
    """
    parts = _axes(x, y, _ticks(x_range), x_range, y_range)
    if diagonal:
        ends = (_point((x_range[k], y_range[k]), x_range, y_range) for k in (0, 1))
        parts.append(f"<polyline class='dash' stroke-dasharray='4 4' points='{' '.join(ends)}'/>")
    for k, points in enumerate(series.values()):
        known = [p for p in points if not (math.isnan(p[0]) or math.isnan(p[1]))]
        path = " ".join(_point(p, x_range, y_range) for p in known)
        parts.append(
            f"<polyline class='s{k % _COLOURS}' fill='none' stroke-width='2' points='{path}'/>"
        )
    return _figure(parts, list(series))


def bar_chart(bars: Sequence[tuple[str, float]], x: str, y: str) -> str:
    """Draw a bar for every value, from 0 up.

    Args:
        bars: text below a bar, and its value; of many texts only some are written.
        x: text at the horizontal axis.
        y: text at the vertical axis.

    Returns:
        A figure in HTML.
    """
    top = max((value for _, value in bars), default=0.0) or 1.0
    x_range, y_range = (0.0, float(max(len(bars), 1))), (0.0, _ticks((0, top))[-1])
    y_range = (0.0, max(y_range[1], top))
    step = max(1, math.ceil(len(bars) / 10))
    names = [(k + 0.5, text) for k, (text, _) in enumerate(bars) if k % step == 0]
    parts = _axes(x, y, [], x_range, y_range)
    for place, text in names:
        left = _at(place, x_range, _LEFT, _WIDTH - _RIGHT)
        parts.append(_text(left, _HEIGHT - _BOTTOM + 14, text, "middle"))
    for k, (text, value) in enumerate(bars):
        left, right = (_at(k + side, x_range, _LEFT, _WIDTH - _RIGHT) for side in (0.1, 0.9))
        high = _at(value, y_range, _HEIGHT - _BOTTOM, _TOP)
        parts.append(
            f"<rect class='f0' x='{left:.1f}' y='{high:.1f}' width='{right - left:.1f}' "
            f"height='{_HEIGHT - _BOTTOM - high:.1f}'>"
            f"<title>{html.escape(text)}: {value:g}</title></rect>"
        )
    return _figure(parts, [])


def _axes(x: str, y: str, x_ticks: Sequence[float], x_range: Range, y_range: Range) -> list[str]:
    parts = []
    for value in _ticks(y_range):
        height = _at(value, y_range, _HEIGHT - _BOTTOM, _TOP)
        parts.append(
            f"<line class='grid' x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{height:.1f}' "
            f"y2='{height:.1f}'/>"
        )
        parts.append(_text(_LEFT - 6, height + 4, f"{value:g}", "end"))
    for value in x_ticks:
        left = _at(value, x_range, _LEFT, _WIDTH - _RIGHT)
        parts.append(_text(left, _HEIGHT - _BOTTOM + 14, f"{value:g}", "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x, "middle"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f"<text transform='translate(12 {middle:.1f}) rotate(-90)' text-anchor='middle'>"
        f"{html.escape(y)}</text>"
    )
    return parts


def _ticks(span: Range) -> list[float]:
    """Return about five round numbers in a range."""
    low, high = span
    rough = (high - low) / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(k for k in (1, 2, 5, 10) if k * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _at(value: float, span: Range, first: float, last: float) -> float:
    share = (value - span[0]) / ((span[1] - span[0]) or 1.0)
    return first + min(max(share, 0.0), 1.0) * (last - first)


def _point(point: tuple[float, float], x_range: Range, y_range: Range) -> str:
    left = _at(point[0], x_range, _LEFT, _WIDTH - _RIGHT)
    return f"{left:.1f},{_at(point[1], y_range, _HEIGHT - _BOTTOM, _TOP):.1f}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{html.escape(text)}</text>"


def _figure(parts: Sequence[str], names: Sequence[str]) -> str:
    legend = " ".join(
        f"<span class='f{k % _COLOURS}'>■</span> {html.escape(name)}&ensp;"
        for k, name in enumerate(names)
    )
    return (
        f"<figure><svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}' "
        f"role='img'>{''.join(parts)}</svg><figcaption>{legend}</figcaption></figure>"
    )
