"""`charrnn gradcheck`: backpropagation beside central differences, and the lecture's quiz."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli.options import Debug, Json, complete_checkpoint, given, option, switch
from charrnn.cli.terminal import console, print_json, visible
from charrnn.config import CELLS, CellName, check, flag
from charrnn.errors import CharRNNError, UsageError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.network.gradcheck import Check

NETWORKS, LECTURE, EXERCISE = "Which networks", "The lecture", "An exercise"
GAINS = (0.7, 1.0, 1.4)


Cell = Annotated[CellName | None, option("--cell", NETWORKS, "Only this cell.")]
Hidden = Annotated[
    int | None,
    option(
        "--hidden", NETWORKS, "Units in each layer.", "H", show_default="5, for the lecture more"
    ),
]
SeqLen = Annotated[
    int | None,
    option("--seq-len", NETWORKS, "Steps in time.", "T", show_default="6, for the lecture more"),
]
Seed = Annotated[int, option("--seed", NETWORKS, "Of the random weights, states and texts.", "N")]
ModelPath = Annotated[
    str | None,
    option(
        "--model",
        NETWORKS,
        "Check at this checkpoint's trained weights instead.",
        "PATH",
        autocompletion=complete_checkpoint,
    ),
]
Tolerance = Annotated[float, option("--tolerance", NETWORKS, "The largest error that passes.", "X")]
WithLecture = Annotated[
    bool,
    switch(
        "--lecture",
        LECTURE,
        "The quiz's formulas evaluated, and how the gradient fades with the lag.",
    ),
]
Gain = Annotated[
    list[float] | None,
    option(
        "--gain",
        LECTURE,
        "Largest singular value of each gate's block of W; may be given several times; "
        "by default 0.7, 1 and 1.4.",
        "X",
        show_default=False,
    ),
]


def gradcheck(
    context: typer.Context,
    cell: Cell = None,
    hidden: Hidden = None,
    seq_len: SeqLen = None,
    seed: Seed = 0,
    model: ModelPath = None,
    tolerance: Tolerance = 1e-5,
    lecture: WithLecture = False,
    gain: Gain = None,
    exercise: Annotated[
        Path | None,
        option(
            "--exercise",
            EXERCISE,
            "Write the lecture's network, its backward pass left out.",
            "FILE",
        ),
    ] = None,
    mine: Annotated[
        Path | None,
        option(
            "--mine", EXERCISE, "Run such a file, or a folder's, and mark its gradients.", "FILE"
        ),
    ] = None,
    hint: Annotated[
        bool, switch("--hint", EXERCISE, "Show the equation to look at for the first wrong one.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Prove the gradients: every parameter of every cell, in float64.

    Example: charrnn gradcheck --lecture
    """
    if exercise is not None or mine is not None:
        from charrnn.cli.exercise import show, write

        _check_alone(context)
        if exercise is not None:
            write(exercise)
        if mine is not None:
            show(mine, hints=hint, json=json)
        return
    _check_options(cell, hidden, seq_len, seed, model, tolerance, gain)
    if gain and not lecture:
        raise UsageError("--gain is part of the lecture; add --lecture")
    from charrnn.checkpoint.model import load

    trained = None if model is None else load(model)
    found = _checks(trained, cell, hidden, seq_len, seed)
    checks = list(found) if json else list(_shown(found, tolerance, brief=lecture))
    extra: dict[str, Any] = {}
    if lecture:
        from charrnn.cli.lecture import Lecture

        shown = Lecture.of(hidden, seq_len, seed, gain or GAINS, trained, cell)
        extra = shown.as_json()
        if not json:
            shown.show()
    if json:
        print_json(
            {
                "tolerance": tolerance,
                "passed": _passed(checks, tolerance),
                "checks": list(map(as_json, checks)),
                **extra,
            }
        )
    _verdict(checks, tolerance, say=not json)


def _check_alone(context: typer.Context) -> None:
    """Raise UsageError for an option that does nothing with an exercise."""
    for name in context.params.keys() - {"exercise", "mine", "hint", "json", "debug"}:
        if given(context, name):
            raise UsageError(f"{flag(name)} does nothing with an exercise; leave it out")


def _check_options(
    cell: str | None,
    hidden: int | None,
    seq_len: int | None,
    seed: int,
    model: str | None,
    tolerance: float,
    gain: list[float] | None,
) -> None:
    """Raise UsageError for what is out of range or doesn't go together."""
    check("--hidden", hidden, least=1, most=64)
    check("--seq-len", seq_len, least=3, most=64)
    check("--seed", seed, least=0)
    check("--tolerance", tolerance, above=0)
    for value in gain or ():
        check("--gain", value, above=0, most=100)
    clash = "--cell" if cell is not None else "--hidden" if hidden is not None else ""
    if model is not None and clash:
        raise UsageError(f"--model has its own cell and size; leave out {clash}")


def _checks(
    model: Model | None, cell: str | None, hidden: int | None, seq_len: int | None, seed: int
) -> Iterator[Check]:
    """Yield a check of each network, or of the model alone."""
    from charrnn.network.gradcheck import check_trained
    from charrnn.network.gradcheck import gradcheck as check_cells

    if model is not None:
        yield check_trained(model.parameters, seq_len=seq_len or 8, seed=seed)
        return
    yield from check_cells(
        CELLS if cell is None else (cell,), hidden=hidden or 5, seq_len=seq_len or 6, seed=seed
    )


def _passed(checks: Iterable[Check], tolerance: float) -> bool:
    return all(check.error <= tolerance for check in checks)


def as_json(check: Check) -> dict[str, Any]:
    """Return a check as JSON has it."""
    return {**asdict(check), "error": check.error}


def _shown(checks: Iterable[Check], tolerance: float, *, brief: bool) -> Iterator[Check]:
    """Yield the checks, each after it has been printed; brief: a line each."""
    from rich.text import Text

    screen = console()
    for found in checks:
        good = found.error <= tolerance
        title = Text(f"{name_of(found)}: ").append(
            "agrees" if good else "FAILS", style="green" if good else "bold red"
        )
        screen.print(title.append(f", largest error {found.error:.1e}"), soft_wrap=True)
        if not brief:
            for line in rows(found, tolerance):
                screen.print(Text(line), soft_wrap=True)
        yield found


def name_of(found: Check) -> str:
    """Return which network a check is of."""
    return (
        f"{found.cell}, {found.layers} layer{'s' * (found.layers > 1)}{', dropout' * found.dropout}"
    )


def rows(found: Check, tolerance: float) -> Iterator[str]:
    """Yield a line for each array: where analytic and numeric gradient differ most."""
    yield f"  {'parameter':<14}{'worst element':<16}{'analytic':>14}{'numeric':>14}{'error':>10}"
    for array in found.arrays:
        at = f"[{', '.join(map(str, array.index))}]"
        mark = "" if array.error <= tolerance else "  <- above the tolerance"
        numbers = f"{array.analytic:>14.6e}{array.numeric:>14.6e}{array.error:>10.1e}"
        yield f"  {visible(array.name):<14}{at:<16}{numbers}{mark}"
    mark = "" if found.direction_error <= tolerance else "  <- above the tolerance"
    directions = "random directions through all of them at once"
    yield f"  {directions:<58}{found.direction_error:>10.1e}{mark}\n"


def _verdict(checks: Sequence[Check], tolerance: float, *, say: bool) -> None:
    """Print that all is well; else raise CharRNNError."""
    worst = max(checks, key=lambda found: found.error)
    arrays = sum(len(found.arrays) for found in checks)
    if not _passed(checks, tolerance):
        bad = sum(array.error > tolerance for found in checks for array in found.arrays)
        raise CharRNNError(
            f"gradcheck failed: {bad} of {arrays} arrays are above the tolerance {tolerance:g}; "
            f"the largest error is {worst.error:.1e}, in {name_of(worst)}"
        )
    if say:
        print(
            f"All {arrays} arrays agree (tolerance {tolerance:g}); "
            f"the worst: {worst.error:.1e}, {name_of(worst)}"
        )
