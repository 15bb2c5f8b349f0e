"""One HTML page for reports: everything is in it, so that the file can be sent and kept."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import cv2
import numpy as np

from .atomic import atomic_write

__all__ = ["Page", "beside", "code", "image", "matrix", "paragraph", "table"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #6b7280; --line: #d9dde3;
  --tint: #f4f6f8; --s0: #2563eb; --s1: #ea580c; --s2: #16a34a; --s3: #9333ea; --s4: #dc2626;
  --s5: #0891b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #14171b; --faint: #9aa3af;
  --line: #333a42; --tint: #1d2228; --s0: #60a5fa; --s1: #fb923c; --s2: #4ade80; --s3: #c084fc;
  --s4: #f87171; --s5: #22d3ee; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem;
  padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p { margin: .4rem 0; max-width: 50rem; } .faint, figcaption, caption { color: var(--faint); }
nav { margin: 1rem 0; } nav a { margin-right: 1rem; color: var(--s0); text-decoration: none; }
pre { background: var(--tint); padding: .7rem 1rem; overflow-x: auto; border-radius: 4px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .6rem 0; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
figure { margin: .6rem 0; } figcaption { font-size: .85rem; max-width: 40rem; }
img { display: block; max-width: 100%; border-radius: 3px; }
svg { display: block; max-width: 100%; height: auto; font: 11px system-ui, sans-serif; }
svg text { fill: var(--faint); } svg .grid { stroke: var(--line); }
svg .dash { stroke: var(--faint); fill: none; }
""" + "".join(
    f"svg .s{k} {{ stroke: var(--s{k}); }} .f{k} {{ fill: var(--s{k}); color: var(--s{k}); }}\n"
    for k in range(6)
)


class Page:
    """A page of sections.

    Parts of a section are HTML: of the functions of this module and of `charts`, which escape what
    they are given.

    Args:
        title: of the page.
        subtitle: a line below it.

    Example:
        >>> page = Page("Run 1")
        >>> page.section("Figures", table(["AP"], [[37.5]]))
        >>> "<td class='n'>37.5</td>" in page.to_html()
        True
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title, self._subtitle = title, subtitle
        self._sections: list[tuple[str, str]] = []

    def section(self, title: str, *parts: str) -> None:
        """Add a section; one without parts is left out."""
        body = "\n".join(part for part in parts if part)
        if body:
            self._sections.append((title, body))

    def to_html(self) -> str:
        """Return the whole page."""
        title = html.escape(self._title)
        links, bodies = [], []
        for number, (name, body) in enumerate(self._sections, 1):
            links.append(f"<a href='#s{number}'>{html.escape(name)}</a>")
            bodies.append(f"<h2 id='s{number}'>{html.escape(name)}</h2>\n{body}")
        return (
            "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
            "<meta name='viewport' content='width=device-width, initial-scale=1'>"
            f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>"
            f"<p class='faint'>{html.escape(self._subtitle)}</p>"
            f"<nav>{''.join(links)}</nav>\n" + "\n".join(bodies) + "\n</body></html>\n"
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the page.

        Raises:
            OSError: The file cannot be written.
        """
        with atomic_write(path) as file:
            file.write(self.to_html().encode("utf-8", "replace"))


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def code(text: str) -> str:
    """Return lines of a file or a command line."""
    return f"<pre>{html.escape(text)}</pre>"


def beside(*parts: str) -> str:
    """Put parts side by side where there is room."""
    return f"<div class='beside'>{''.join(parts)}</div>"


def table(
    headers: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str = "", digits: int = 1
) -> str:
    """Return a table; numbers stand on the right, NaN and None as "–".

    Args:
        headers: of the columns.
        rows: cells: text, or numbers. Floats are rounded.
        caption: a line above it.
        digits: of floats, behind the point.
    """
    rows = [list(row) for row in rows]
    right = [any(_is_number(row[k]) for row in rows) for k in range(len(headers))]
    mark = [" class='n'" if x else "" for x in right]
    head = "".join(
        f"<th{kind}>{html.escape(name)}</th>" for name, kind in zip(headers, mark, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{m}>{_cell(x, digits)}</td>" for x, m in zip(row, mark, strict=True))
        + "</tr>\n"
        for row in rows
    )
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<div class='wide'><table>{title}<tr>{head}</tr>\n{body}</table></div>"


def image(pixels: np.ndarray, caption: str = "", *, width: int = 480, quality: int = 82) -> str:
    """Return an image as JPEG.

    Args:
        pixels: uint8 BGR (H, W, 3).
        caption: a line below it.
        width: in pixels; a wider image is made smaller.
        quality: of the JPEG, to 100.

    Example:
        >>> image(np.zeros((2, 2, 3), np.uint8)).startswith("<figure><img src='data:image/jpeg;")
        True
    """
    if pixels.shape[1] > width:
        height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    text = base64.b64encode(data.tobytes()).decode()
    return (
        f"<figure><img src='data:image/jpeg;base64,{text}' width='{pixels.shape[1]}' "
        f"height='{pixels.shape[0]}' alt='' loading='lazy'>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating))


def _cell(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return "–"
    if isinstance(value, (float, np.floating)):
        return f"{value:.{digits}f}"
    return html.escape(str(value))


def matrix(rows: Sequence[str], columns: Sequence[str], values: np.ndarray) -> str:
    """Return a table of numbers, each shaded by its share of its row.

    Args:
        rows: names, R of them.
        columns: names, C of them.
        values: numbers that are not negative (R, C); a 0 is left out.
    """
    shares = values / np.maximum(values.sum(1, keepdims=True), 1)
    head = "".join(f"<th class='n'>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(
            f"<td class='n' style='background: rgb(37 99 235 / {share:.2f})'>{value or ''}</td>"
            for value, share in zip(row.tolist(), line.tolist(), strict=True)
        )
        + "</tr>\n"
        for name, row, line in zip(rows, values, shares * 0.6, strict=True)
    )
    return f"<div class='wide'><table><tr><th></th>{head}</tr>\n{body}</table></div>"
