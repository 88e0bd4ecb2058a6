"""Texts coloured character by character: on a terminal, as an SVG picture, as an HTML page.

A cell is one character as it is drawn: with the combining marks that follow it, possibly two
columns wide (Chinese, emoji), and as a visible symbol if it is a control character. Control
characters and markup in a text are always escaped. The SVG and the page follow the reader's light
or dark setting and load nothing.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.cells import cell_len

from charrnn.pictures.colormap import Colormap, ink

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = Sequence[float] | NDArray[Any]  # NaN for a character without a value
    from rich.console import Console

LIGHT, DARK = ("#ffffff", "#1b1b1f"), ("#141418", "#e6e6ea")  # background and text
COLUMN, ROW, MARGIN = 8.4, 20, 12  # of the SVG, in pixels
COLUMNS = 88
_SYMBOLS = {"\n": "↵", "\t": "⇥"}


class Cell(NamedTuple):
    """A character as it is drawn, with the marks on it."""

    text: str  # the characters themselves
    shown: str
    width: int  # columns
    value: float  # the one farthest from zero of its characters' values; NaN: none


class Heat(NamedTuple):
    """A text with a value for each character, and a line about it."""

    name: str
    text: str
    values: Values  # one per character
    summary: str = ""


def symbol(char: str) -> str:
    """Return what stands for a character: itself, if it can be seen, else a symbol or an escape.

    A combining mark is shown on ◌.
    """
    shown = _SYMBOLS.get(char, char)
    if shown.isprintable() or unicodedata.category(shown) == "Zs":
        return shown if cell_len(shown) else f"◌{shown}"
    return char.encode("unicode_escape").decode("ascii")


def cells_of(text: str, values: Values) -> Iterator[Cell]:
    """Yield the cells of a text; a mark joins the printable character before it.

    `values` may be empty.
    """
    start = 0
    while start < len(text):
        stop, shown = start + 1, symbol(text[start])
        if shown == text[start]:
            while stop < len(text) and symbol(text[stop]) == f"◌{text[stop]}":
                stop += 1
            shown = text[start:stop]
        known = (value for value in values[start:stop] if not math.isnan(value))
        yield Cell(text[start:stop], shown, cell_len(shown), max(known, key=abs, default=math.nan))
        start = stop


def rows_of(text: str, values: Values, width: float) -> Iterator[list[Cell]]:
    """Yield the rows of a text: its lines, in pieces of at most `width` columns."""
    row, used = list[Cell](), 0
    for cell in cells_of(text, values):
        if row and (row[-1].text == "\n" or used + cell.width > width):
            yield row
            row, used = [], 0
        row.append(cell)
        used += cell.width
    if row:
        yield row


class Painter:
    """Writes texts for one console: coloured, or with a row of digits under each row."""

    def __init__(self, colormap: Colormap, console: Console) -> None:
        from rich.console import COLOR_SYSTEMS
        from rich.style import Style

        self.colormap, self.width = colormap, max(20, console.width)
        coloured = not console.no_color and console.color_system != "windows"
        self.system = COLOR_SYSTEMS.get(console.color_system or "") if coloured else None
        self.styles = [Style(color=c and ink(c), bgcolor=c) for c in colormap.dark]

    def legend(self) -> str:
        """Return the lines that say what the colours, or the digits, mean."""
        mark = "{}:{}" if self.system is None else " {1} "
        marks = (self._styled(key[0], mark.format(*key)) for key in self.colormap.legend)
        return f"{self.colormap.title}\n{' '.join(marks)}\n"

    def paint(self, text: str, values: Values) -> Iterator[str]:
        """Yield the lines of a text, each with its newline."""
        for row in rows_of(text, values, self.width):
            yield "".join(map(self.cell, row)) + "\n"
            if self.system is None:
                digits = ""
                for cell in row:
                    digit = "" if math.isnan(cell.value) else str(self.colormap.level(cell.value))
                    digits += digit.ljust(cell.width)
                yield digits.rstrip() + "\n"

    def cell(self, cell: Cell) -> str:
        """Return one cell in its colour."""
        return self._styled(self.colormap.level(cell.value), cell.shown)

    def _styled(self, level: int, text: str) -> str:
        return self.styles[level].render(text, color_system=self.system)


def _safe(text: str) -> str:
    """Return `text` with markup and control characters escaped."""
    return escape("".join(map(symbol, text)))


def _rules(colormap: Colormap, rule: str) -> str:
    """Return a style rule for each class: charrnn1 … charrnn9 for the levels, charrnn for the rest.

    `rule` takes a class, the background colour, and the text colour.
    """
    halves = []
    for palette, ground in ((colormap.light, LIGHT), (colormap.dark, DARK)):
        classes = {
            f"charrnn{n}": (colour, ink(colour)) for n, colour in enumerate(palette) if colour
        }
        classes["charrnn"] = ground
        halves.append("".join(rule.format(name, *colours) for name, colours in classes.items()))
    return "{}@media(prefers-color-scheme:dark){{{}}}".format(*halves)


STYLE = """
.charrnn p{margin:.25rem 0}.charrnn i{font-style:normal;border-radius:.1rem}
.charrnn .keys,.charrnn .heat{font-size:15px;line-height:1.55;
font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}
.charrnn .keys{display:flex;flex-wrap:wrap;gap:.25rem}.charrnn .keys i{padding:0 .5rem}
.charrnn .heat{white-space:pre-wrap;overflow-wrap:anywhere}.charrnn .none{opacity:.55}
.charrnn .heat div{content-visibility:auto;contain-intrinsic-size:auto 1.55em}
.charrnn .heat div:hover{content-visibility:visible}
.charrnn [data-v]{position:relative}.charrnn [data-v]:hover{outline:2px solid currentColor}
.charrnn [data-v]:hover::after{content:attr(data-v);position:absolute;left:0;top:1.7em;z-index:1;
padding:0 .4rem;white-space:pre;background:#1b1b1f;color:#fff}
@media(hover:none){.charrnn [data-v]{cursor:pointer}}
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';\
 base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width,initial-scale=1">\
<meta name="color-scheme" content="light dark">
<style>{style}
body{{margin:0 auto;padding:1rem 1rem 4rem;max-width:62rem;font:16px/1.5 system-ui,sans-serif}}
h1{{font-size:1.25rem}}h2{{font-size:1rem;margin:2rem 0 .25rem;overflow-wrap:anywhere}}
.charrnn [data-v]{{position:static}}.charrnn [data-v]:hover::after{{position:fixed;top:auto;right:0;
bottom:0;padding:.6rem 1rem;border-top:1px solid}}
</style></head>
<body class="charrnn"><h1>{title}</h1>
{about}
"""


def html(
    heats: Sequence[Heat], colormap: Colormap, *, title: str, about: Sequence[str]
) -> Iterator[str]:
    """Yield the pieces of a page: title, lines about the model, legend, and each text.

    The page shows the value of the character under the pointer, without a script.
    """
    lines = "\n".join(f"<p>{_safe(line)}</p>" for line in about)
    yield PAGE.format(title=_safe(title), style=_style(colormap), about=lines)
    yield _legend(colormap)
    for heat in heats:
        yield f"<h2>{_safe(heat.name)}</h2>\n<p>{_safe(heat.summary)}</p>\n"
        yield from _lines(heat, colormap)
    yield "</body></html>\n"


def fragment(heat: Heat, colormap: Colormap) -> str:
    """Return a text as a part of a notebook's page."""
    return (
        f'<style>{_style(colormap)}</style><div class="charrnn"><p>{_safe(heat.summary)}</p>'
        f"{_legend(colormap)}{''.join(_lines(heat, colormap))}</div>"
    )


def _style(colormap: Colormap) -> str:
    return STYLE + _rules(colormap, ".{}{{background:{};color:{}}}")


def _legend(colormap: Colormap) -> str:
    keys = (f'<i class="charrnn{level}">{escape(text)}</i>' for level, text in colormap.legend)
    return f'<p>{colormap.title}:</p>\n<p class="keys">{"".join(keys)}</p>\n'


def _lines(heat: Heat, colormap: Colormap) -> Iterator[str]:
    """Yield a text with an element for each line and cell; the browser wraps them."""
    yield '<div class="heat">'
    for line in rows_of(heat.text, heat.values, math.inf):
        yield f"<div>{''.join(_marked(cell, colormap) for cell in line)}</div\n>"
    yield "</div>\n"


def _marked(cell: Cell, colormap: Colormap) -> str:
    """Return a cell as an element with its value."""
    shown, value = escape(cell.shown), cell.value
    if math.isnan(value):
        return f'<i class="none">{shown}</i>'
    said = f"{shown}  {colormap.describe(value)}"
    return f'<i class="charrnn{colormap.level(value)}" data-v="{said}">{shown}</i>'


def svg(
    heats: Sequence[Heat], colormap: Colormap, *, title: str, about: Sequence[str]
) -> Iterator[str]:
    """Yield the pieces of a picture: title, lines about the model, legend, and each text."""
    keys = ((level, f"\xa0{text}", len(text) + 2) for level, text in colormap.legend)
    rows = [*_prose(title, *about, f"{colormap.title}:"), _places(keys, colormap), ""]
    for heat in heats:
        rows += _prose(heat.name, heat.summary)
        for cells in rows_of(heat.text, heat.values, COLUMNS):
            places = ((colormap.level(cell.value), cell.shown, cell.width) for cell in cells)
            rows.append(_places(places, colormap))
        rows.append("")
    width, height = round(COLUMNS * COLUMN + 2 * MARGIN), len(rows) * ROW + 2 * MARGIN
    colours = _rules(colormap, "rect.{0}{{fill:{1}}}text.{0}{{fill:{2}}}")
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    yield f'width="{width}" height="{height}" role="img">\n<title>{_safe(title)}</title>\n'
    yield "<style>text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    yield f"rect{{shape-rendering:crispEdges}}{colours}</style>\n"
    yield f'<rect class="charrnn" width="{width}" height="{height}"/>\n'
    for number, row in enumerate(rows):
        yield f'<g transform="translate({MARGIN} {number * ROW + MARGIN})">{row}</g>\n'
    yield "</svg>\n"


def _prose(*lines: str) -> list[str]:
    """Return lines of prose as rows of text without values."""
    rows = [row for line in lines for row in wrap(line, COLUMNS)]
    return [f'<text class="charrnn" y="15">{_safe(row)}</text>' for row in rows]


def _places(places: Iterable[tuple[int, str, int]], colormap: Colormap) -> str:
    """Return a row of coloured boxes with texts. A place: level, text shown, width in columns."""
    drawn, left = "", 0.0
    for level, shown, columns in places:
        width, kind = columns * COLUMN, "charrnn"
        if colormap.light[level] is not None:
            kind = f"charrnn{level}"
            drawn += f'<rect class="{kind}" x="{left:.1f}" width="{width:.1f}" height="{ROW}"/>'
        if shown.strip():
            drawn += f'<text class="{kind}" x="{left:.1f}" y="15">{escape(shown)}</text>'
        left += width
    return drawn
