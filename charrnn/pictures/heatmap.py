"""Texts coloured character by character: on a terminal, as an SVG picture, as an HTML page.

A cell is what stands in one place: a character with the combining marks behind it, which may be
two columns wide (Chinese, emoji), or the visible symbol of a control character. No control
character and no markup of a text gets through. Both files follow the reader's light or dark
setting and load nothing.
"""

from __future__ import annotations

import contextlib
import math
import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.cells import cell_len

from charrnn.pictures.colormap import Colormap, ink

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = Sequence[float] | NDArray[Any]  # NaN for a character without a value
    from rich.console import Console

Place = tuple[int, str, int]  # of the SVG: level, what is shown, columns
LIGHT, DARK = ("#ffffff", "#1b1b1f"), ("#141418", "#e6e6ea")  # the ground and the ink on it
COLUMN, ROW, MARGIN = 8.4, 20, 12  # of the SVG, in pixels
COLUMNS = 88
_SYMBOLS = {"\n": "↵", "\t": "⇥"}


class Cell(NamedTuple):
    """What stands in one place."""

    text: str  # the characters themselves
    shown: str
    width: int  # columns
    values: tuple[float, ...]  # one a character, NaN for none

    @property
    def value(self) -> float:
        """The value that colours the cell: of several the one farthest from zero; NaN for none."""
        known = [value for value in self.values if not math.isnan(value)]
        return max(known, key=abs, default=math.nan)


class Heat(NamedTuple):
    """A text with a value for each character, and a line about it."""

    name: str
    text: str
    values: Values  # one a character
    summary: str = ""


def symbol(char: str, encoding: str = "utf-8") -> str:
    """Return what stands for a character: itself, if it can be seen, else a symbol or an escape.

    A combining mark stands on ◌. What cannot be written in `encoding` is an escape too.
    """
    shown = _SYMBOLS.get(char, char)
    if shown.isprintable() or unicodedata.category(shown) == "Zs":
        with contextlib.suppress(UnicodeError):
            shown.encode(encoding)
            return shown if cell_len(shown) else f"◌{shown}"
    return char.encode("unicode_escape").decode("ascii")


def cells_of(text: str, values: Values, encoding: str = "utf-8") -> Iterator[Cell]:
    """Yield the cells of a text; a mark joins the printable character before it.

    Without values they have none.
    """
    start = 0
    while start < len(text):
        stop, shown = start + 1, symbol(text[start], encoding)
        if shown == text[start]:
            while stop < len(text) and symbol(text[stop], encoding) == f"◌{text[stop]}":
                stop += 1
            shown = text[start:stop]
        yield Cell(text[start:stop], shown, cell_len(shown), tuple(values[start:stop]))
        start = stop


def rows_of(
    text: str, values: Values, width: float, encoding: str = "utf-8"
) -> Iterator[list[Cell]]:
    """Yield the rows of a text: its lines, in pieces of at most `width` columns."""
    row, used = list[Cell](), 0
    for cell in cells_of(text, values, encoding):
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

        self.colormap, self.encoding = colormap, console.encoding
        self.width = max(20, console.width)
        coloured = not console.no_color and console.color_system != "windows"
        self.system = COLOR_SYSTEMS.get(console.color_system or "") if coloured else None
        self.styles = [Style(color=c and ink(c), bgcolor=c) for c in colormap.dark]

    def legend(self) -> str:
        """Return the line that says what the colours, or the digits, mean."""
        if self.system is None:
            return f"{self.colormap.digits}\n"
        marks = " ".join(self._styled(level, f" {text} ") for level, text in self.colormap.legend)
        return f"{self.colormap.title}\n{marks}\n"

    def paint(self, text: str, values: Values) -> Iterator[str]:
        """Yield the lines of a text, each with its newline."""
        for row in rows_of(text, values, self.width, self.encoding):
            yield "".join(map(self.cell, row)) + "\n"
            if self.system is None:
                yield "".join(self._digit(cell).ljust(cell.width) for cell in row).rstrip() + "\n"

    def cell(self, cell: Cell) -> str:
        """Return one cell in its colour."""
        return self._styled(self.colormap.level(cell.value), cell.shown)

    def _styled(self, level: int, text: str) -> str:
        return self.styles[level].render(text, color_system=self.system)

    def _digit(self, cell: Cell) -> str:
        return " " if math.isnan(cell.value) else str(self.colormap.digit(cell.value))


def _safe(text: str) -> str:
    """Return text that is neither markup nor control characters."""
    return escape("".join(map(symbol, text)))


def _rules(colormap: Colormap, rule: str) -> str:
    """Return a style rule for each class: l1 … l9 for the levels, g for the ground."""
    halves = []
    for palette, ground in ((colormap.light, LIGHT), (colormap.dark, DARK)):
        classes = {f"l{n}": (colour, ink(colour)) for n, colour in enumerate(palette) if colour}
        classes["g"] = ground
        halves.append("".join(rule.format(name, *colours) for name, colours in classes.items()))
    return "{}@media(prefers-color-scheme:dark){{{}}}".format(*halves)


SCRIPT = """
const out = document.getElementById('value');
const name = c => 'U+' + c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0');
const show = event => {
  const cell = event.target.closest('i[data-v]');
  if (!cell) return;
  const shown = cell.textContent, codes = cell.dataset.c || [...shown].map(name).join(' ');
  const line = cell.closest('[data-n]').dataset.n;
  out.textContent = shown + '  ' + codes + '  ' + cell.dataset.v + '  line ' + line;
  document.querySelectorAll('.on').forEach(other => other.classList.remove('on'));
  cell.classList.add('on');
};
for (const kind of ['pointerover', 'click']) document.addEventListener(kind, show);
"""

STYLE = """
body{margin:0 auto;padding:1rem 1rem 5rem;max-width:62rem;font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.25rem}h2{font-size:1rem;margin:2rem 0 .25rem;overflow-wrap:anywhere}
p{margin:.25rem 0}
.keys i,.heat{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}
.keys{display:flex;flex-wrap:wrap;gap:.25rem}.keys i{padding:0 .5rem;border-radius:.2rem}
.heat{font-size:15px;line-height:1.55;white-space:pre-wrap;overflow-wrap:anywhere}
.heat div{content-visibility:auto;contain-intrinsic-size:auto 1.55em}
i{font-style:normal;border-radius:.1rem}.no{opacity:.55}.on{outline:2px solid currentColor}
#value{position:fixed;left:0;right:0;bottom:0;padding:.6rem 1rem;white-space:pre-wrap;
overflow-wrap:anywhere;border-top:1px solid;font:15px/1.4 ui-monospace,Menlo,Consolas,monospace}
"""

NOTEBOOK = """
.charrnn .g{padding:.5rem}.charrnn p{margin:.25rem 0}
.charrnn i{font-style:normal;font-family:monospace;position:relative}
.charrnn .keys i{padding:0 .5rem}.charrnn .heat{white-space:pre-wrap;overflow-wrap:anywhere}
.charrnn i[data-v]:hover::after{content:attr(data-v);position:absolute;left:0;top:1.3em;z-index:1;
padding:0 .3rem;white-space:nowrap;background:#1b1b1f;color:#fff}
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';\
 script-src {source}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width,initial-scale=1">\
<meta name="color-scheme" content="light dark">
<style>{style}</style></head>
<body class="g"><h1>{title}</h1>
{about}
<p>{meaning}:</p>
<p class="keys">{keys}</p>
"""

END = """<div id="value" class="g" role="status">Point at a character, or tap it, to see its value.\
</div>
<script>{script}</script>
</body></html>
"""


def source(code: str) -> str:
    """Return the expression by which a content security policy allows this inline code."""
    return f"'sha256-{b64encode(sha256(code.encode()).digest()).decode()}'"


def html(
    heats: Sequence[Heat], colormap: Colormap, *, title: str, about: Sequence[str]
) -> Iterator[str]:
    """Yield the pieces of a page that shows a character's value under the pointer.

    It has the title, lines about the model, the legend, and each text. No script but ours may run.
    """
    yield PAGE.format(
        title=_safe(title),
        source=source(SCRIPT),
        style=STYLE + _rules(colormap, ".{}{{background:{};color:{}}}"),
        about="\n".join(f"<p>{_safe(line)}</p>" for line in about),
        meaning=colormap.title.capitalize(),
        keys=_keys(colormap),
    )
    for heat in heats:
        yield f"<h2>{_safe(heat.name)}</h2>\n<p>{_safe(heat.summary)}</p>\n"
        yield from _lines(heat, colormap)
    yield END.format(script=SCRIPT)


def fragment(heat: Heat, colormap: Colormap) -> str:
    """Return a text for a notebook's page: its colours and its legend, but no script."""
    rules = _rules(colormap, ".charrnn .{}{{background:{};color:{}}}")
    return (
        f'<style>{NOTEBOOK}{rules}</style><div class="charrnn"><div class="g">'
        f'<p>{_safe(heat.summary)}; {colormap.title}:</p><p class="keys">{_keys(colormap)}</p>'
        f"{''.join(_lines(heat, colormap))}</div></div>"
    )


def _keys(colormap: Colormap) -> str:
    return "".join(f'<i class="l{level}">{escape(text)}</i>' for level, text in colormap.legend)


def _lines(heat: Heat, colormap: Colormap) -> Iterator[str]:
    """Yield a text with an element for each line and cell; the browser wraps them."""
    yield '<div class="heat">'
    for number, line in enumerate(rows_of(heat.text, heat.values, math.inf), 1):
        cells = "".join(_marked(cell, colormap) for cell in line)
        yield f'<div data-n="{number}">{cells}</div\n>'
    yield "</div>\n"


def _marked(cell: Cell, colormap: Colormap) -> str:
    """Return a cell as an element with its values."""
    shown, value = escape(cell.shown), cell.value
    if math.isnan(value):
        return f'<i class="no">{shown}</i>'
    codes = " ".join(f"U+{ord(char):04X}" for char in cell.text)
    data = "" if cell.shown == cell.text else f' data-c="{codes}"'
    values = ", ".join("no value" if math.isnan(v) else colormap.describe(v) for v in cell.values)
    return f'<i class="l{colormap.level(value)}"{data} data-v="{values}">{shown}</i>'


def svg(
    heats: Sequence[Heat], colormap: Colormap, *, title: str, about: Sequence[str]
) -> Iterator[str]:
    """Yield the pieces of a picture: title, lines about the model, legend, and each text."""

    def rows_of_text(text: str, values: Values = ()) -> list[list[Place]]:
        rows = rows_of(text, values, COLUMNS)
        return [[(colormap.level(c.value), c.shown, c.width) for c in row] for row in rows]

    def rows_of_prose(*lines: str) -> list[list[Place]]:
        return [row for line in lines for text in wrap(line, COLUMNS) for row in rows_of_text(text)]

    legend = [(level, text, len(text) + 2) for level, text in colormap.legend]
    rows = [*rows_of_prose(title, *about, f"{colormap.title}:"), legend, []]
    for heat in heats:
        rows += [*rows_of_prose(heat.name, heat.summary), *rows_of_text(heat.text, heat.values), []]
    width, height = round(COLUMNS * COLUMN + 2 * MARGIN), len(rows) * ROW + 2 * MARGIN
    colours = _rules(colormap, "rect.{0}{{fill:{1}}}text.{0}{{fill:{2}}}")
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    yield f'width="{width}" height="{height}" role="img">\n<title>{_safe(title)}</title>\n'
    yield "<style>text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    yield f"text-anchor:middle}}rect{{shape-rendering:crispEdges}}{colours}</style>\n"
    yield f'<rect class="g" width="{width}" height="{height}"/>\n'
    for number, row in enumerate(rows):
        place = f"translate({MARGIN} {number * ROW + MARGIN})"
        yield f'<g transform="{place}">{"".join(_drawn(row, colormap))}</g>\n' if row else ""
    yield "</svg>\n"


def _drawn(row: Iterable[Place], colormap: Colormap) -> Iterator[str]:
    """Yield the box and the text of each place."""
    left = 0.0
    for level, shown, columns in row:
        width, kind = columns * COLUMN, "g"
        if colormap.light[level] is not None:
            kind = f"l{level}"
            yield f'<rect class="{kind}" x="{left:.1f}" width="{width:.1f}" height="{ROW}"/>'
        if shown.strip():
            yield f'<text class="{kind}" x="{left + width / 2:.1f}" y="15">{escape(shown)}</text>'
        left += width
