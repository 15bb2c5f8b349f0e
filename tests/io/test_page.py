"""Pages and charts: well formed, escaped, at the right places, and without anything outside."""

from __future__ import annotations

import base64
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from solo_d2.io import charts
from solo_d2.io.page import Page, beside, code, image, matrix, paragraph, table


class Balance(HTMLParser):
    """Raises at a tag that closes what is not open."""

    VOID = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def svg_of(figure):
    return ElementTree.fromstring(figure[figure.index("<svg") : figure.index("</svg>") + 6])


def points_of(line):
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


def test_a_page_is_balanced_escaped_and_whole():
    page = Page("a < b", "x & y")
    page.section("One", paragraph("<script>"), code("a && b"), table(["<h>"], [["<td>"]]))
    page.section("Charts", beside(charts.line_chart({"<l>": [(0, 0), (1, 1)]}, "<x>", "<y>")))
    page.section("Bars", charts.bar_chart([("<b>", 2.0)], "x", "y"))
    page.section("Empty", "", "")
    text = page.to_html()
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert "<script>" not in text and "&lt;script&gt;" in text and "a &lt; b" in text
    assert "Empty" not in text
    assert re.findall(r"(?:src|href)='(?!data:|#)", text) == []
    assert "http" not in text


def test_a_page_is_saved(tmp_path):
    page = Page("\u00e9t\u00e9 \udcff")  # of a file name that is no UTF-8
    page.save(tmp_path / "a.html")
    assert "\u00e9t\u00e9 ?" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_numbers_stand_on_the_right_and_what_is_unknown_is_a_dash():
    text = table(["name", "AP"], [["a", 1.26], ["b", math.nan], ["c", None]], digits=1)
    assert "<td class='n'>1.3</td>" in text and text.count("<td class='n'>–</td>") == 2
    assert "<td>a</td>" in text
    assert "<td class='n'>1.260</td>" in table(["AP"], [[np.float32(1.26)]], digits=3)


def test_a_matrix_is_shaded_by_the_share_of_its_row_and_has_no_zeros():
    text = matrix(["a", "<b>"], ["c", "d"], np.array([[3, 1], [0, 0]]))
    cells = re.findall(r"rgb\(37 99 235 / ([0-9.]+)\)'>(\d*)</td>", text)
    assert cells == [("0.45", "3"), ("0.15", "1"), ("0.00", ""), ("0.00", "")]
    assert "<th>&lt;b&gt;</th>" in text


def test_an_image_keeps_its_shape_and_is_never_made_larger():
    pixels = np.full((100, 960, 3), (10, 200, 90), np.uint8)
    text = image(pixels, "cap", width=480)
    data = base64.b64decode(re.search(r"base64,([^']+)'", text)[1])
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (50, 480, 3)
    assert abs(decoded.astype(int) - (10, 200, 90)).max() <= 3
    assert "width='20'" in image(pixels[:, :20])


def test_corners_of_a_line_chart_are_corners_of_the_frame():
    figure = charts.line_chart(
        {"a": [(0, 0), (0.5, math.nan), (1, 1)], "b": [(1, 0.5)]}, "x", "y", diagonal=True
    )
    dashed, first, second = svg_of(figure).iter("polyline")
    assert points_of(dashed) == points_of(first)
    (x0, y0), (x1, y1) = points_of(first)
    assert x0 < x1 and y0 > y1  # y grows downwards
    assert points_of(second) == [(x1, (y0 + y1) / 2)]
    assert first.get("class") == "s0" and second.get("class") == "s1"
    assert "a&ensp;" in figure and "b&ensp;" in figure


def test_bars_have_heights_in_proportion():
    bars = list(svg_of(charts.bar_chart([("a", 4), ("b", 2), ("c", 0)], "x", "y")).iter("rect"))
    heights = [float(bar.get("height")) for bar in bars]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.11) and heights[2] == 0
    assert len({bar.get("width") for bar in bars}) == 1


def test_no_bars_are_an_empty_chart():
    assert list(svg_of(charts.bar_chart([], "x", "y")).iter("rect")) == []


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ((0, 10), [0, 2, 4, 6, 8, 10]),
        ((0, 7), [0, 2, 4, 6]),
        ((3, 3), [3]),
        ((0, 1200), [0, 500, 1000]),
    ],
)
def test_ticks_are_round(span, expected):
    assert charts._ticks(span) == pytest.approx(expected)
