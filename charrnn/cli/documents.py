"""Coloured texts as files: an SVG picture, and an HTML page on which the value of a character is shown under the pointer.

Both follow the reader's light or dark setting. All text is escaped after its control characters have become symbols, so that
none of it can be markup; the page's policy lets no script run but ours, which only ever writes text nodes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from textwrap import wrap

from charrnn.cli.pictures import Cell, Heat, cells_of, rows_of, symbol
from charrnn.cli.scales import Colour, Scale, ink

INK, GROUND = ("#1b1b1f", "#e6e6ea"), ("#ffffff", "#141418")  # on light, on dark
COLUMN, ROW, SIZE = 8.4, 20.0, 14  # of the SVG, in pixels
COLUMNS = 88

SCRIPT = """
const out = document.getElementById('value');
const name = c => 'U+' + c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0');
const show = event => {
  const cell = event.target.closest('i[data-v]');
  if (!cell) return;
  const shown = cell.textContent;
  const codes = cell.dataset.c ? cell.dataset.c.split(' ').map(c => 'U+' + c) : [...shown].map(name);
  const line = cell.closest('[data-n]');
  out.textContent = shown + '  ' + codes.join(' ') + '  ' + cell.dataset.v + (line ? '  line ' + line.dataset.n : '');
  document.querySelectorAll('.on').forEach(other => other.classList.remove('on'));
  cell.classList.add('on');
};
for (const kind of ['pointerover', 'click']) document.addEventListener(kind, show);
"""

STYLE = """
body{margin:0 auto;padding:1rem 1rem 5rem;max-width:62rem;font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.25rem}h2{font-size:1rem;margin:2rem 0 .25rem;overflow-wrap:anywhere}p{margin:.25rem 0}
.keys i,.heat{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}
.keys{display:flex;flex-wrap:wrap;gap:.25rem}.keys i{padding:0 .5rem;border-radius:.2rem}
.heat{font-size:15px;line-height:1.55;white-space:pre-wrap;overflow-wrap:anywhere}
.heat div{content-visibility:auto;contain-intrinsic-size:auto 1.55em}
i{font-style:normal;border-radius:.1rem}.no{opacity:.55}.on{outline:2px solid currentColor}
#value{position:fixed;left:0;right:0;bottom:0;padding:.6rem 1rem;white-space:pre-wrap;overflow-wrap:anywhere;
border-top:1px solid;font:15px/1.4 ui-monospace,Menlo,Consolas,monospace}
"""


def _safe(text: str) -> str:
    """Return text that is neither markup nor control characters."""
    return escape("".join(map(symbol, text)))


def _colours(scale: Scale, rule: str, ground: str) -> str:
    """Return the style rules of each level, for light and, where the reader has it so, for dark.

    `rule` is filled with level, colour and ink for each level that has a colour, `ground` with the ground and its ink.
    """
    halves = []
    for dark in (False, True):
        rules = [ground.format(ground=GROUND[dark], ink=INK[dark])]
        rules += [
            rule.format(level=n, colour=colour, ink=ink(colour))
            for n, colour in enumerate(scale.palette(dark))
            if colour
        ]
        halves.append("".join(rules))
    return f"{halves[0]}@media(prefers-color-scheme:dark){{{halves[1]}}}"


def html(heats: Sequence[Heat], scale: Scale, *, title: str, about: Sequence[str]) -> Iterator[str]:
    """Yield the pieces of a self-contained page: title, lines about the model, legend, and each text."""
    colours = _colours(
        scale,
        ".l{level}{{background:{colour};color:{ink}}}",
        "body,#value{{background:{ground};color:{ink}}}",
    )
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_safe(title)}</title>\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">\n'
    yield f"<style>{STYLE}{colours}</style></head>\n<body><h1>{_safe(title)}</h1>\n"
    yield from (f"<p>{_safe(line)}</p>\n" for line in about)
    yield f"<p>{escape(scale.title[0].upper() + scale.title[1:])}:</p>\n"
    keys = "".join(f'<i class="l{level}">{escape(text)}</i>' for level, text in scale.legend)
    yield f'<p class="keys">{keys}</p>\n'
    for heat in heats:
        yield from _section(heat, scale)
    yield f'<div id="value" role="status">Point at a character, or tap it, to see its value.</div>\n<script>{SCRIPT}</script>\n'
    yield "</body></html>\n"


def _section(heat: Heat, scale: Scale) -> Iterator[str]:
    yield f"<h2>{_safe(heat.name)}</h2>\n<p>{_safe(heat.summary)}</p>\n"
    yield '<div class="heat">'
    cells = cells_of(heat.text, heat.values)
    for number, line in enumerate(
        rows_of(cells, len(heat.text) * 12 + 1), 1
    ):  # no row is so wide: the browser wraps
        yield f'<div data-n="{number}">{"".join(_marked(cell, scale) for cell in line)}</div\n>'
    yield "</div>\n"


def _marked(cell: Cell, scale: Scale) -> str:
    """Return a cell as an element with its values."""
    if cell.value is None:
        return f'<i class="no">{escape(cell.shown)}</i>'
    codes = (
        ""
        if cell.shown == cell.text
        else f' data-c="{" ".join(f"{ord(char):04X}" for char in cell.text)}"'
    )
    described = ", ".join(
        "no value" if value is None else scale.describe(value) for value in cell.values
    )
    return f'<i class="l{scale.level(cell.value)}"{codes} data-v="{escape(described)}">{escape(cell.shown)}</i>'


def svg(
    heats: Sequence[Heat], scale: Scale, *, title: str, about: Sequence[str], columns: int = COLUMNS
) -> Iterator[str]:
    """Yield the pieces of a picture: title, lines about the model, legend, and each text wrapped at `columns`."""
    lines = [piece for line in (title, *about, f"{scale.title}:") for piece in wrap(line, columns)]
    drawn = [*(_words(0, line) for line in lines), _legend(scale), ""]
    for heat in heats:
        drawn += [
            _words(0, line) for line in (*wrap(heat.name, columns), *wrap(heat.summary, columns))
        ]
        drawn += [_row(row, scale) for row in rows_of(cells_of(heat.text, heat.values), columns)]
        drawn.append("")
    width, height = round(columns * COLUMN + 24), round(len(drawn) * ROW + 24)
    colours = _colours(
        scale,
        "rect.l{level}{{fill:{colour}}}text.l{level}{{fill:{ink}}}",
        "text{{fill:{ink}}}.g{{fill:{ground}}}",
    )
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">\n'
    yield f"<title>{_safe(title)}</title>\n"
    yield f"<style>text{{font:{SIZE}px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}}{colours}</style>\n"
    yield f'<rect class="g" width="{width}" height="{height}"/>\n'
    for number, line in enumerate(drawn):
        if line:
            yield f'<g transform="translate(12 {number * ROW + 12:g})">{line}</g>\n'
    yield "</svg>\n"


def _words(column: float, text: str, level: int = 0) -> str:
    """Return text that begins at a column."""
    return (
        f'<text class="l{level}" x="{column * COLUMN:g}" y="15">{_safe(text)}</text>'
        if text
        else ""
    )


def _box(column: float, width: int, level: int, palette: tuple[Colour, ...]) -> str:
    if palette[level] is None:
        return ""
    return f'<rect class="l{level}" x="{column * COLUMN:.1f}" y="0" width="{width * COLUMN:.1f}" height="{ROW:g}"/>'


def _legend(scale: Scale) -> str:
    parts, column = [], 0
    for level, text in scale.legend:
        width = len(text) + 2
        parts += [_box(column, width, level, scale.light), _words(column + 1, text, level)]
        column += width + 1
    return "".join(parts)


def _row(row: list[Cell], scale: Scale) -> str:
    """Return a row: neighbours of one level share a box, and plain characters among them one text of exact length."""
    parts, column = [], 0
    for level, group in groupby(
        row, lambda cell: 0 if cell.value is None else scale.level(cell.value)
    ):
        cells = list(group)
        parts.append(_box(column, sum(cell.width for cell in cells), level, scale.light))
        for simple, same in groupby(cells, lambda cell: cell.shown.isascii()):
            for cell in [_joined(list(same))] if simple else same:
                parts.append(_placed(cell, column, level))
                column += cell.width
    return "".join(parts)


def _joined(cells: list[Cell]) -> Cell:
    return Cell("", "".join(cell.shown for cell in cells), sum(cell.width for cell in cells), ())


def _placed(cell: Cell, column: int, level: int) -> str:
    """Return a cell's text, as wide as its columns, or centred in them if it isn't ASCII; nothing for blanks."""
    if not cell.shown.strip():
        return ""
    left, width = column * COLUMN, cell.width * COLUMN
    place = f'x="{left:.1f}" textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs"'
    if not cell.shown.isascii():
        place = f'x="{left + width / 2:.1f}" text-anchor="middle"'
    return f'<text class="l{level}" {place} y="15" xml:space="preserve">{escape(cell.shown)}</text>'
