"""A learning curve in characters: a line for the validation loss, dots for the training loss, dashes for the n-gram floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Point = tuple[
    int, float | None, float | None
]  # step, training loss, validation loss, as checkpoints keep them
Line = list[tuple[int, float]]  # step, loss
MARGIN = 8  # columns of the losses' labels


class Pen(NamedTuple):
    """The characters that a curve is drawn with."""

    level: str
    upright: str
    falls_from: str
    rises_from: str
    falls_to: str
    rises_to: str
    dot: str  # training
    dash: str  # floor
    axis: str
    foot: str


BOX, ASCII = Pen(*"─│╮╯╰╭·╌┤┴"), Pen(*"-|.''.:=||")


def curve(
    points: Sequence[Point],
    width: int = 72,
    height: int = 12,
    ascii: bool = False,
    floor: float | None = None,
) -> str:
    """Return a picture of `height` lines of at most `width` columns, without colour; empty for fewer than two points.

    A floor is drawn where it doesn't flatten the curve.
    """
    training, validation = _line(points, 1), _line(points, 2)
    main = validation or training
    if len(main) < 2:
        return ""
    pen, columns, rows = ASCII if ascii else BOX, max(10, width - MARGIN), max(2, height - 2)
    top, bottom = (
        max(loss for _, loss in training + validation),
        min(loss for _, loss in training + validation),
    )
    if floor is not None and not bottom - (top - bottom) <= floor <= top:
        floor = None
    bottom = bottom if floor is None else min(bottom, floor)
    first, last = main[0][0], main[-1][0]
    steps = [first + column * (last - first) / (columns - 1) for column in range(columns)]
    grid = [[" "] * columns for _ in range(rows)]

    def row(loss: float) -> int:
        return round((top - loss) / (top - bottom or 1) * (rows - 1))

    if floor is not None:
        grid[row(floor)] = [pen.dash] * columns
    if validation and training:
        for column, step in enumerate(steps):
            grid[row(_at(training, step))][column] = pen.dot
    _draw(grid, [row(_at(main, step)) for step in steps], pen)
    labels = {
        y: f"{top - (top - bottom) * y / (rows - 1):{MARGIN - 2}.2f} {pen.axis}"
        for y in (*range(0, rows - 2, 3), rows - 1)
    }
    lines = [
        labels.get(y, " " * (MARGIN - 1) + pen.upright) + "".join(cells).rstrip()
        for y, cells in enumerate(grid)
    ]
    names = [f"{pen.level} {'validation' if validation else 'training'}"]
    names += [f"{pen.dot} training"] * bool(validation and training) + [
        f"{pen.dash} n-gram floor"
    ] * (floor is not None)
    rule = " " * (MARGIN - 1) + pen.foot + pen.level * columns
    return "\n".join(
        [*lines, rule, _legend(f"{first:,}", "   ".join(names), f"step {last:,}", columns)]
    )


def _line(points: Sequence[Point], which: int) -> Line:
    """Return the steps and finite losses of one kind."""
    losses = [(point[0], point[which]) for point in points]
    return [(step, loss) for step, loss in losses if loss is not None and math.isfinite(loss)]


def _at(line: Line, step: float) -> float:
    """Return the loss at `step`, on straight lines between the points."""
    after = next((i for i, (x, _) in enumerate(line) if x >= step), len(line) - 1)
    (x0, y0), (x1, y1) = line[max(0, after - 1)], line[after]
    return (
        y1
        if step >= x1 or x1 == x0
        else y0
        if step <= x0
        else y0 + (y1 - y0) * (step - x0) / (x1 - x0)
    )


def _draw(grid: list[list[str]], rows: list[int], pen: Pen) -> None:
    """Draw a connected line through the given row of each column."""
    for column, (here, there) in enumerate(zip(rows, [*rows[1:], rows[-1]], strict=True)):
        for y in range(min(here, there) + 1, max(here, there)):
            grid[y][column] = pen.upright
        if here == there:
            grid[here][column] = pen.level
        else:
            grid[here][column] = pen.falls_from if there > here else pen.rises_from
            grid[there][column] = pen.falls_to if there > here else pen.rises_to


def _legend(left: str, middle: str, right: str, columns: int) -> str:
    """Return the line under the axis: the first step, what is what where there is room, the last step."""
    space = columns - len(left) - len(right)
    return (
        " " * MARGIN
        + left
        + (middle if space >= len(middle) + 2 else "").center(max(1, space))
        + right
    )
