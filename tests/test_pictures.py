"""Heat maps: cells and rows, a terminal's colours, and files in which no text becomes markup."""

import math
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, strategies as st
from rich.console import Console

from charrnn.pictures.colormap import PROBABILITY, SURPRISE, activation, ink
from charrnn.pictures.heatmap import Heat, Painter, cells_of, html, rows_of, svg

texts = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from("ab <&>\"'\n\t\x1b\u0301中👩\u200d\u202e"),
    max_size=60,
)
HOSTILE = (
    "<script>alert(1)</script> ]]> <!-- &amp; '\" \x1b[2J\x00\x9b\u202e\ufffe\uffff\n</div></svg>\n"
)


def in_bits(*bits):
    """Return surprises in nats."""
    return [value * math.log(2) for value in bits]


def valued(text):
    return Heat(
        text,
        text,
        np.array([math.nan if i % 7 == 0 else i % 12 / 1.6 for i in range(len(text))]),
        text.replace("\n", " "),
    )


@given(texts)
def test_cells_hold_every_character_in_order_and_show_none_that_is_not_printable(text):
    cells = list(cells_of(text, range(len(text))))
    assert "".join(cell.text for cell in cells) == text
    ends = np.cumsum([len(cell.text) for cell in cells])
    assert [cell.value for cell in cells] == [end - 1 for end in ends]  # here the greatest is last
    shown = "".join(cell.shown for cell in cells)
    assert all(char.isprintable() or unicodedata.category(char) == "Zs" for char in shown)


@given(texts, st.integers(20, 40))
def test_rows_keep_all_cells_within_the_width_and_end_at_newlines(text, width):
    rows = list(rows_of(text, [math.nan] * len(text), width))
    assert "".join(cell.text for row in rows for cell in row) == text
    for row in rows:
        assert sum(cell.width for cell in row) <= width
        assert all(cell.text != "\n" for cell in row[:-1])


@pytest.mark.parametrize(
    ("text", "shown", "widths"),
    [
        ("e\u0301a", ["e\u0301", "a"], [1, 1]),
        ("中x", ["中", "x"], [2, 1]),
        ("\u0301a", ["◌\u0301", "a"], [1, 1]),
        ("\n\u0301", ["↵", "◌\u0301"], [1, 1]),
        ("\t\x1b\x9b", ["⇥", r"\x1b", r"\x9b"], [1, 4, 4]),
        ("\u202ea", [r"\u202e", "a"], [6, 1]),
        ("각", ["각"], [2]),
        ("\u1112\u1161\u11ab", ["\u1112\u1161\u11ab"], [2]),
        ("\u3000\xa0", ["\u3000", "\xa0"], [2, 1]),
    ],
)
def test_wide_combining_and_control_characters_take_the_columns_they_are_shown_in(
    text, shown, widths
):
    cells = list(cells_of(text, [math.nan] * len(text)))
    assert [cell.shown for cell in cells] == shown
    assert [cell.width for cell in cells] == widths


def painter(color_system, colormap=SURPRISE):
    return Painter(
        colormap,
        Console(
            force_terminal=True, color_system=color_system, width=40, no_color=False, _environ={}
        ),
    )


@pytest.mark.parametrize("system", ["standard", "256", "truecolor"])
def test_colours_change_nothing_but_the_colours(system):
    painted = "".join(
        painter(system).paint("abc\ndef", in_bits(math.nan, 0.5, 3.5, 9.5, 20, 1.5, 0))
    )
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == "abc↵\ndef\n"
    assert painted.count("\x1b[0m") == 4  # those of a bit or more
    assert painted.startswith("ab\x1b[")


@pytest.mark.parametrize("colormap", [SURPRISE, PROBABILITY, activation(3)])
def test_without_colour_a_digit_stands_under_each_value_and_the_legend_says_what_it_means(colormap):
    shown = painter(None, colormap)
    title, keys = shown.legend().splitlines()
    assert title == colormap.title
    assert [f"{level}:{meaning}" for level, meaning in colormap.legend] == keys.split()
    text, digits = shown.paint("中a\x1bz", [math.nan, 0.95, 0.0, -0.5])
    assert text == "中a\\x1bz\n"
    first, second, third = map(colormap.level, (0.95, 0.0, -0.5))
    assert digits == f"  {first}{second}   {third}\n"


def test_levels_are_those_of_the_legends():
    bits = in_bits(-0.1, 0, 0.99, 1.01, 8.9, 9.01, 1e9)
    assert [SURPRISE.level(nats) for nats in bits] == [0, 0, 0, 1, 8, 9, 9]
    assert [PROBABILITY.level(p) for p in (1, 0.51, 0.5, 0.26, 2**-9, 0)] == [0, 0, 1, 1, 9, 9]
    assert [activation(0).level(a) for a in (-1.0, -0.1, 0, 0.13, 1.0)] == [1, 5, 5, 6, 9]


@pytest.mark.parametrize("colormap", [SURPRISE, PROBABILITY, activation(3)])
def test_what_has_no_value_has_the_level_that_no_palette_colours(colormap):
    level = colormap.level(math.nan)
    assert colormap.light[level] is None
    assert colormap.dark[level] is None


def luminance(colour):
    """Return the relative luminance, 0 to 1, of "#rrggbb" by WCAG 2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colormap", [SURPRISE, activation(0)])
def test_text_on_every_colour_has_a_contrast_of_at_least_4_5(colormap):
    for colour in (*colormap.light, *colormap.dark):
        if colour is not None:
            light, dark = sorted((luminance(colour), luminance(ink(colour))), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5


@given(texts | st.just(HOSTILE))
def test_an_svg_is_well_formed_and_holds_the_text_as_text(text):
    page = "".join(
        svg([valued(text)], SURPRISE, title=text.replace("\n", " ") or "t", about=["<a & b>"])
    )
    root = ElementTree.fromstring(page)
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert kinds <= {"svg", "title", "style", "rect", "g", "text"}
    drawn = "".join(element.text or "" for element in root.iter() if element.tag.endswith("}text"))
    shown = "".join(cell.shown for cell in cells_of(text, [math.nan] * len(text)))
    assert "".join(shown.split()) in "".join(drawn.split())


class Page(HTMLParser):
    """What a browser sees in a page: elements, the coloured cells, and their values."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.cells = []
        self.values = []
        self.inside = self.reading = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside |= ("class", "heat") in attrs
        self.reading = tag == "i" and self.inside
        if self.reading:
            self.cells.append("")
            self.values.append(dict(attrs).get("data-v"))

    def handle_endtag(self, tag):
        self.reading = False

    def handle_data(self, data):
        if self.reading:
            self.cells[-1] += data


@given(texts | st.just(HOSTILE))
def test_a_page_has_no_script_and_every_cell_with_its_value(text):
    heat = valued(text)
    written = "".join(html([heat], SURPRISE, title=text, about=[text]))
    page = Page(written)
    assert set(page.tags) <= {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "p",
        "i",
        "div",
    }
    cells = list(cells_of(text, heat.values))
    assert page.cells == [cell.shown for cell in cells]
    for cell, value in zip(cells, page.values, strict=True):
        if math.isnan(cell.value):
            assert value is None
        else:
            assert f"{cell.value / math.log(2):.2f} bits" in (value or "")


def test_a_page_allows_no_script_and_loads_nothing():
    page = "".join(html([valued(HOSTILE)], SURPRISE, title=HOSTILE, about=[]))
    assert "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'" in page
    assert not re.search(r"(src|href|url)\s*[=(]", page.replace("default-src", ""))
    assert "\x1b" not in page


def test_marks_are_coloured_by_the_value_farthest_from_zero():
    (cell,) = cells_of("e\u0301\u0302", [0.5, -0.75, math.nan])
    assert (cell.shown, cell.value) == ("e\u0301\u0302", -0.75)
