"""Texts coloured character by character: how they are cut into cells and rows, and how a terminal shows them.

A cell is what stands together in one place: a character with the combining marks behind it, which may be two columns wide
(Chinese, emoji), or the visible symbol of a control character. Nothing here passes a control character on.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from charrnn.cli.scales import Scale, dark_terminal, ink

if TYPE_CHECKING:
    from rich.console import Console

Values = Sequence[float | None]  # None: a character without a value, such as a text's first
Brush = tuple[str, str]  # what goes before and after a cell on the terminal
_SYMBOLS = {"\n": "↵", "\t": "⇥"}


class Cell(NamedTuple):
    """What stands in one place."""

    text: str  # the characters themselves
    shown: str
    width: int  # columns
    values: tuple[float | None, ...]  # one a character

    @property
    def value(self) -> float | None:
        """Return the value that colours the cell: of several the one farthest from zero."""
        known = [value for value in self.values if value is not None]
        return max(known, key=abs) if known else None


@dataclass(frozen=True)
class Heat:
    """A text with a value for each character, and a line about it."""

    name: str
    text: str
    values: Values
    summary: str = ""


def is_mark(char: str) -> bool:
    """Return whether a character takes no column but joins the one before: accents, vowel signs, jamo."""
    return unicodedata.category(char) in ("Mn", "Me") or "\u1160" <= char <= "\u11ff"


def width_of(char: str) -> int:
    """Return how many columns a printable character takes."""
    return 0 if is_mark(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1


def symbol(char: str, encoding: str = "utf-8") -> str:
    """Return what stands for a character: itself, or an escape if it is a control or cannot be written in `encoding`."""
    shown = _SYMBOLS.get(char, char)
    try:
        shown.encode(encoding)
    except (UnicodeError, LookupError):
        shown = char
    else:
        if shown != char or char.isprintable() or unicodedata.category(char) == "Zs":
            return f"◌{shown}" if is_mark(shown) else shown
    return char.encode("unicode_escape").decode("ascii")


def cells_of(text: str, values: Values, encoding: str = "utf-8") -> Iterator[Cell]:
    """Yield the cells of a text; a mark joins the printable character before it, and stands on ◌ where there is none."""
    start = 0
    while start < len(text):
        stop, shown = start + 1, symbol(text[start], encoding)
        if shown == text[start]:
            while (
                stop < len(text) and is_mark(text[stop]) and symbol(text[stop], encoding)[:1] == "◌"
            ):
                stop += 1
            shown = text[start:stop]
        yield Cell(text[start:stop], shown, sum(map(width_of, shown)), tuple(values[start:stop]))
        start = stop


def rows_of(cells: Iterable[Cell], width: int) -> Iterator[list[Cell]]:
    """Yield rows of at most `width` columns; a newline's cell ends its row."""
    row: list[Cell] = []
    used = 0
    for cell in cells:
        if row and used + cell.width > width:
            yield row
            row, used = [], 0
        row.append(cell)
        used += cell.width
        if cell.text == "\n":
            yield row
            row, used = [], 0
    if row:
        yield row


def brushes(scale: Scale, console: Console) -> list[Brush] | None:
    """Return the escape sequences for each level on this console, None where it shows no colours."""
    if console.no_color or console.color_system in (None, "windows"):
        return None
    from rich.color import ColorSystem
    from rich.style import Style

    system = {"standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT}.get(
        console.color_system, ColorSystem.TRUECOLOR
    )
    result = []
    for colour in scale.palette(dark_terminal()):
        style = Style() if colour is None else Style(color=ink(colour), bgcolor=colour)
        before, _, after = style.render("*", color_system=system).partition("*")
        result.append((before, after))
    return result


class Painter:
    """Turns texts with values into lines for one console: with colours, or with a line of digits under each line."""

    def __init__(self, scale: Scale, console: Console) -> None:
        self.scale, self.brushes = scale, brushes(scale, console)
        self.width, self.encoding = max(20, console.width), console.encoding

    def legend(self) -> str:
        """Return the line that says what the colours, or the digits, mean."""
        if self.brushes is None:
            return f"{self.scale.plain}\n"
        marks = " ".join(
            f"{self.brushes[level][0]} {text} {self.brushes[level][1]}"
            for level, text in self.scale.legend
        )
        return f"{self.scale.title}\n{marks}\n"

    def paint(self, text: str, values: Values) -> Iterator[str]:
        """Yield the lines of a text, each with its newline."""
        for row in rows_of(cells_of(text, values, self.encoding), self.width):
            if self.brushes is None:
                yield "".join(cell.shown for cell in row) + "\n"
                yield "".join(self._digit(cell).ljust(cell.width) for cell in row).rstrip() + "\n"
            else:
                yield "".join(map(self.cell, row)) + "\n"

    def cell(self, cell: Cell) -> str:
        """Return one cell in its colour."""
        if cell.value is None or self.brushes is None:
            return cell.shown
        before, after = self.brushes[self.scale.level(cell.value)]
        return f"{before}{cell.shown}{after}"

    def _digit(self, cell: Cell) -> str:
        return " " if cell.value is None else self.scale.digit(cell.value)
