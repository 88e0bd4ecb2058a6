"""`charrnn gradcheck`: backpropagation against central differences, and the lecture's quiz."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from charrnn.cli import exercise as exercises, lecture as lectures
from charrnn.cli.options import (
    Debug,
    Json,
    check_together,
    complete_checkpoint,
    of_field,
    with_options,
)
from charrnn.cli.terminal import console, counted, print_json
from charrnn.config import CELLS, CellName, check
from charrnn.errors import CharRNNError, UsageError

if TYPE_CHECKING:
    from charrnn.network.gradcheck import Check

OF_CHECKS = ("cell", "hidden", "seq_len", "seed", "model", "tolerance", "lecture", "gain")
CLASHES = {"exercise": ("mine", *OF_CHECKS), "mine": OF_CHECKS, "model": ("cell", "hidden")}


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    cell: CellName | None = None  # None: all
    hidden: int | None = None  # None: chosen automatically, like seq_len
    seq_len: int | None = None
    seed: int = 0
    model: str | None = None
    tolerance: float = 1e-5
    lecture: bool = False
    gain: list[float] | None = None
    exercise: Path | None = None
    mine: Path | None = None
    hint: bool = False

    def __post_init__(self) -> None:
        if self.gain and not self.lecture:
            raise UsageError("--gain is for the lecture; add --lecture")
        if self.hint and self.mine is None:
            raise UsageError("--hint is for an exercise; add --mine")
        check("--seed", self.seed, least=0)
        check("--tolerance", self.tolerance, above=0)
        for gain in self.gain or ():
            check("--gain", gain, above=0, most=100)

    @property
    def cells(self) -> Sequence[CellName]:
        """The cells to check."""
        return CELLS if self.cell is None else (self.cell,)


NETWORKS = partial(of_field, Asked, "Which networks")
LECTURE = partial(of_field, Asked, "The lecture")
EXERCISE = partial(of_field, Asked, "An exercise")


@with_options(
    NETWORKS("--cell", "Only this cell."),
    NETWORKS("--hidden", "Units in each layer.", "H", "5, more for the lecture"),
    NETWORKS("--seq-len", "Steps in time.", "T", "6, more for the lecture"),
    NETWORKS("--seed", "Seed of the random weights, states and texts.", "N"),
    NETWORKS(
        "--model",
        "Check this checkpoint's trained weights instead.",
        "PATH",
        autocompletion=complete_checkpoint,
    ),
    NETWORKS("--tolerance", "The largest error that passes.", "X"),
    LECTURE("--lecture", "Evaluate the quiz's formulas, and show how the gradient fades.", ""),
    LECTURE(
        "--gain",
        "All singular values of each gate's block of W; may be given several times.",
        "X",
        "0.7, 1 and 1.4",
    ),
    EXERCISE("--exercise", "Write the lecture's network without its backward pass.", "FILE"),
    EXERCISE("--mine", "Run this file, or each one in a folder, and mark its gradients.", "FILE"),
    EXERCISE("--hint", "Show the equation to look at for the first wrong gradient.", ""),
)
def gradcheck(
    context: typer.Context, *, json: Json = False, debug: Debug = False, **options: Any
) -> None:
    """Prove the gradients: every parameter of every cell, in float64.

    Example: charrnn gradcheck --lecture
    """
    check_together(context, CLASHES)
    asked = Asked(**options)
    if asked.exercise is not None:
        exercises.write(asked.exercise)
    elif asked.mine is not None:
        exercises.show(asked.mine, hints=asked.hint, json=json)
    else:
        _prove(asked, json)


def _prove(asked: Asked, json: bool) -> None:
    """Check the networks, or the model alone, and show the lecture if it is asked for.

    Raises CharRNNError if an error is above the tolerance.
    """
    from charrnn.checkpoint.model import load
    from charrnn.network.gradcheck import check_trained, gradcheck

    model = None if asked.model is None else load(asked.model)
    sizes = {"hidden": asked.hidden, "seq_len": asked.seq_len}
    chosen = {name: size for name, size in sizes.items() if size is not None}
    if model is None:
        checks = [*gradcheck(asked.cells, **chosen, seed=asked.seed)]
    else:
        checks = [check_trained(model.parameters, **chosen, seed=asked.seed)]
    lecture = lectures.measured(asked, model) if asked.lecture else None
    worst = max(checks, key=lambda found: found.error)
    passed = worst.error <= asked.tolerance
    if json:
        report = {
            "tolerance": asked.tolerance,
            "passed": passed,
            "checks": [asdict(found) | {"error": found.error} for found in checks],
        }
        print_json(report | (lecture.as_json() if lecture else {}))
    else:
        for found in checks:
            _show(found, asked)
        if lecture:
            lectures.show(lecture)
    result = f"largest error {worst.error:.1e}, {_name(worst)}"
    if not passed:
        raise CharRNNError(f"gradcheck failed: {result}; the tolerance is {asked.tolerance:g}")
    if not json:
        arrays = sum(len(found.arrays) for found in checks)
        print(f"All {arrays} arrays agree within {asked.tolerance:g}; {result}")


def _show(found: Check, asked: Asked) -> None:
    """Print a check; without the lecture, with the worst element of each array."""
    from rich.table import Table

    screen, good = console(), found.error <= asked.tolerance
    verdict = "agrees" if good else "FAILS, above the tolerance"
    style = "green" if good else "bold red"
    screen.print(f"{_name(found)}: {verdict}, largest error {found.error:.1e}", style=style)
    if asked.lecture:
        return
    heads = ("parameter", "worst element", "analytic", "numeric", "error")
    table = Table(*heads, box=None, pad_edge=False)
    for array in found.arrays:
        mark, style = ("", "") if array.error <= asked.tolerance else (" <-", "bold red")
        numbers = f"{array.analytic:.6e}", f"{array.numeric:.6e}", f"{array.error:.1e}{mark}"
        table.add_row(array.name, str([*array.index]), *numbers, style=style)
    table.add_row("random directions", "", "", "", f"{found.direction_error:.1e}")
    screen.print(table, "")


def _name(found: Check) -> str:
    """Return a description of the network that was checked."""
    return f"{found.cell}, {counted(found.layers, 'layer')}{', dropout' * found.dropout}"
