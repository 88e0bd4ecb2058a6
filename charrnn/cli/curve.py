"""A learning curve in characters: a line of validation losses, dots of training losses, a floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Point

MARGIN = 8  # columns of the losses' labels
IN_ASCII = str.maketrans("─│·╌┤┴", "-|.=||")


def curve(
    points: Sequence[Point],
    width: int = 72,
    height: int = 12,
    ascii: bool = False,
    floor: float | None = None,
) -> str:
    """Return a picture of `height` lines and `width` columns; empty for fewer than two points.

    A floor is drawn where it doesn't flatten the curve.
    """
    import numpy as np

    training, validation = _losses(points, 1), _losses(points, 2)
    main = validation or training
    if len(main) < 2:
        return ""
    losses = [*training.values(), *validation.values()]
    top, bottom = max(losses), min(losses)
    lines: dict[str, dict[float, float]] = {}  # by the name, which begins with the mark
    if floor is not None and 2 * bottom - top <= floor <= top:
        lines["╌ n-gram floor"], bottom = {0: floor}, min(bottom, floor)
    if training and validation:
        lines["· training"] = training
    lines[f"─ {'validation' if validation else 'training'}"] = main
    columns, rows = max(10, width - MARGIN), max(2, height - 2)
    first, last = min(main), max(main)
    grid = [[" "] * columns for _ in range(rows)]
    for name, line in lines.items():
        values = np.interp(np.linspace(first, last, columns), list(line), list(line.values()))
        heights = (top - values) / (top - bottom or 1) * (rows - 1)
        for column, row in enumerate(heights.round().astype(int).tolist()):
            grid[row][column] = name[0]
    names = "   ".join(reversed(lines))
    step = (top - bottom) / (rows - 1)
    labels = {
        row: f"{top - step * row:{MARGIN - 2}.2f} ┤" for row in (*range(0, rows - 2, 3), rows - 1)
    }
    left, right = f"{first:,.0f}", f"step {last:,.0f}"
    space = max(1, columns - len(left) - len(right))
    picture = [
        *(labels.get(row, f"{'│':>{MARGIN}}") + "".join(grid[row]).rstrip() for row in range(rows)),
        f"{'┴':>{MARGIN}}{'─' * columns}",
        " " * MARGIN + left + (names if len(names) < space - 1 else "").center(space) + right,
    ]
    return "\n".join(picture).translate(IN_ASCII if ascii else {})


def _losses(points: Sequence[Point], which: int) -> dict[float, float]:
    """Return one kind of loss by step, in order."""
    found = {float(point[0]): loss for point in points if (loss := point[which]) is not None}
    return dict(sorted(found.items()))
