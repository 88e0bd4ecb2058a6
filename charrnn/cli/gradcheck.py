"""`charrnn gradcheck`: backpropagation beside central differences, and the lecture's quiz."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli import exercise as exercises
from charrnn.cli import lecture as lectures
from charrnn.cli.options import Debug, Json, complete_checkpoint, given, option, switch
from charrnn.cli.terminal import console, counted, print_json
from charrnn.config import CELLS, CellName, check, flag
from charrnn.errors import CharRNNError, UsageError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.network.gradcheck import Check

NETWORKS, LECTURE, EXERCISE = "Which networks", "The lecture", "An exercise"
GAINS = (0.7, 1.0, 1.4)
OF_CHECKS = {"cell", "hidden", "seq_len", "seed", "model", "tolerance", "lecture", "gain"}
CLASHES = {"exercise": OF_CHECKS, "mine": OF_CHECKS, "model": {"cell", "hidden"}}
NEEDS = {"gain": "lecture", "hint": "mine"}


def gradcheck(
    context: typer.Context,
    cell: Annotated[CellName | None, option("--cell", NETWORKS, "Only this cell.")] = None,
    hidden: Annotated[
        int | None,
        option(
            "--hidden",
            NETWORKS,
            "Units in each layer.",
            "H",
            show_default="5, for the lecture more",
        ),
    ] = None,
    seq_len: Annotated[
        int | None,
        option(
            "--seq-len", NETWORKS, "Steps in time.", "T", show_default="6, for the lecture more"
        ),
    ] = None,
    seed: Annotated[
        int, option("--seed", NETWORKS, "Of the random weights, states and texts.", "N")
    ] = 0,
    model: Annotated[
        str | None,
        option(
            "--model",
            NETWORKS,
            "Check at this checkpoint's trained weights instead.",
            "PATH",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    tolerance: Annotated[
        float, option("--tolerance", NETWORKS, "The largest error that passes.", "X")
    ] = 1e-5,
    lecture: Annotated[
        bool,
        switch(
            "--lecture",
            LECTURE,
            "The quiz's formulas evaluated, and how the gradient fades with the lag.",
        ),
    ] = False,
    gain: Annotated[
        list[float] | None,
        option(
            "--gain",
            LECTURE,
            "Largest singular value of each gate's block of W; may be given several times; "
            "by default 0.7, 1 and 1.4.",
            "X",
            show_default=False,
        ),
    ] = None,
    exercise: Annotated[
        Path | None,
        option(
            "--exercise", EXERCISE, "Write the lecture's network without its backward pass.", "FILE"
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
    _check_together({name for name in context.params if given(context, name)})
    if exercise is not None:
        exercises.write(exercise)
    if mine is not None:
        exercises.show(mine, hints=hint, json=json)
    if exercise is not None or mine is not None:
        return
    check("--seed", seed, least=0)
    check("--tolerance", tolerance, above=0)
    for value in gain or ():
        check("--gain", value, above=0, most=100)
    from charrnn.checkpoint.model import load

    trained = None if model is None else load(model)
    cells = CELLS if cell is None else (cell,)
    checks = []
    for found in _checks(trained, cells, hidden, seq_len, seed):
        checks.append(found)
        if not json:
            _show(found, tolerance, brief=lecture)
    report = _as_json(checks, tolerance)
    if lecture:
        quiz, fadings = lectures.measured(trained, cells, hidden, seq_len, seed, gain or GAINS)
        report |= quiz.as_json() | {"lags": [fading.as_json() for fading in fadings]}
        if not json:
            lectures.show(quiz, fadings)
    if json:
        print_json(report)
    _verdict(checks, tolerance, say=not json)


def _check_together(names: set[str]) -> None:
    """Raise UsageError for an option that does nothing with or without another one."""
    for name in sorted(names):
        if useless := names & CLASHES.get(name, set()):
            raise UsageError(f"{flag(min(useless))} does nothing with {flag(name)}; leave it out")
        if name in NEEDS and NEEDS[name] not in names:
            raise UsageError(f"{flag(name)} does nothing without {flag(NEEDS[name])}; add it")


def _checks(
    trained: Model | None, cells: Sequence[str], hidden: int | None, seq_len: int | None, seed: int
) -> Iterable[Check]:
    """Return a check of each network, or of the model alone."""
    from charrnn.network import gradcheck as network

    sizes = {"hidden": hidden, "seq_len": seq_len}
    chosen = {name: size for name, size in sizes.items() if size is not None}
    if trained is not None:
        return [network.check_trained(trained.parameters, **chosen, seed=seed)]
    return network.gradcheck(cells, **chosen, seed=seed)


def _as_json(checks: Sequence[Check], tolerance: float) -> dict[str, Any]:
    return {
        "tolerance": tolerance,
        "passed": all(found.error <= tolerance for found in checks),
        "checks": [asdict(found) | {"error": found.error} for found in checks],
    }


def _show(found: Check, tolerance: float, *, brief: bool) -> None:
    """Print a check; unless brief, with the worst element of each array."""
    screen, good = console(), found.error <= tolerance
    verdict = f"{_name(found)}: {'agrees' if good else 'FAILS'}, largest error {found.error:.1e}"
    screen.print(verdict, style="green" if good else "bold red", soft_wrap=True)
    if brief:
        return

    def row(start: str, error: float) -> None:
        mark = "" if error <= tolerance else "  <- above the tolerance"
        screen.print(f"  {start:<58}{error:>10.1e}{mark}", soft_wrap=True)

    screen.print(
        f"  {'parameter':<14}{'worst element':<16}{'analytic':>14}{'numeric':>14}{'error':>10}"
    )
    for array in found.arrays:
        at = f"[{', '.join(map(str, array.index))}]"
        row(f"{array.name:<14}{at:<16}{array.analytic:>14.6e}{array.numeric:>14.6e}", array.error)
    row("random directions through all of them at once", found.direction_error)
    screen.print()


def _name(found: Check) -> str:
    """Return which network a check is of."""
    return f"{found.cell}, {counted(found.layers, 'layer')}{', dropout' * found.dropout}"


def _verdict(checks: Sequence[Check], tolerance: float, *, say: bool) -> None:
    """Print that all is well; else raise CharRNNError."""
    worst = max(checks, key=lambda found: found.error)
    errors = [array.error for found in checks for array in found.arrays]
    shown = f"worst: {worst.error:.1e}, {_name(worst)}"
    if worst.error > tolerance:
        bad = sum(not error <= tolerance for error in errors)
        raise CharRNNError(
            f"gradcheck failed: {bad} of {len(errors)} arrays are above the tolerance "
            f"{tolerance:g}; {shown}"
        )
    if say:
        print(f"All {len(errors)} arrays agree (tolerance {tolerance:g}); {shown}")
