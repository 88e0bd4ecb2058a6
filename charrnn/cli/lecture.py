"""The lecture on the screen: the quiz's candidates measured, and how the gradient fades."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from charrnn.cli.terminal import bar, console, is_ascii

if TYPE_CHECKING:
    from rich.console import Console

    from charrnn.checkpoint.model import Model
    from charrnn.lecture.fading import Fading
    from charrnn.lecture.quiz import Candidate, Quiz

QUIZ_SIZE, FADING_SIZE, SYMBOLS = (8, 10), (16, 24), 6  # (H, T) unless they are given, and N
WIDEST = 100  # columns
DECADES = 5  # of the bars, to either side of 1
ABOUT_QUIZ = (
    "h_t = tanh(V x_t + W h_{t−1} + b_h), ŷ_t = softmax(U h_t + b_y), L = Σ_t L_t, "
    "L_t = −ln ŷ_t[target], with random weights. Each formula is evaluated literally, as a product "
    "of Jacobian matrices. Distance: ‖formula − numeric‖ / ‖numeric‖, where the numeric gradient "
    "is that of central differences of L."
)
ABOUT_FADING = (
    "Norm: the spectral norm of ∂h_T/∂s_k, lag T − k, s the whole state (the LSTM's c included). "
    "Share: the part of ∂L/∂b_h that comes from this lag, the norm of its term over the sum of the "
    "norms of all lags. Lost: how far the gradient is from the whole one, relatively, if "
    "backpropagation is truncated after this lag."
)


def measured(
    model: Model | None,
    cells: Sequence[str],
    hidden: int | None,
    seq_len: int | None,
    seed: int,
    gains: Sequence[float],
) -> tuple[Quiz, list[Fading]]:
    """Return the lecture on random networks; a model shows the gradient at its own weights."""
    from charrnn.lecture.fading import fading
    from charrnn.lecture.quiz import quiz

    H, T = hidden or FADING_SIZE[0], seq_len or FADING_SIZE[1]
    taken = quiz(seed, hidden or QUIZ_SIZE[0], seq_len or QUIZ_SIZE[1], SYMBOLS)
    if model is not None:
        return taken, [of_model(model, T, seed)]
    return taken, [fading(cell, seed, H, T, gain) for gain in gains for cell in cells]


def of_model(model: Model, T: int, seed: int) -> Fading:
    """Return the gradient by lag at a model's weights, on a text that it writes itself."""
    import numpy as np

    from charrnn.lecture.fading import fading_of
    from charrnn.sampling.sampling import sample

    x = model.vocabulary.encode("".join(sample(model, length=T + 2, seed=seed)))
    return fading_of(model.parameters, np.resize(x, T + 2))  # an item that is shorter comes again


def show(quiz: Quiz, fadings: Sequence[Fading]) -> None:
    """Print the lecture on stdout; the networks of one gain stand side by side."""
    show_quiz(quiz)
    heading("How the gradient fades, or explodes, with the lag")
    say(ABOUT_FADING)
    for gain, group in groupby(fadings, lambda fading: fading.gain):
        if gain is None:
            heading("At the trained weights of the first layer, with ŷ_t read off it")
        else:
            heading(f"Each gate's block of W has all its singular values {gain:g}")
        show_fading([*group])


def screen() -> Console:
    """Return a console on stdout that is narrow enough to read."""
    narrow = console()
    narrow.width = min(narrow.width, WIDEST)
    return narrow


def heading(text: str) -> None:
    """Print a heading below an empty line."""
    screen().print(f"\n{text}", style="bold")


def say(text: str, indent: int = 0, style: str = "") -> None:
    """Print a paragraph."""
    from rich.padding import Padding

    screen().print(Padding.indent(text, indent), style=style)


def show_quiz(quiz: Quiz) -> None:
    """Print each candidate with its distance, a mark at the right ones, and why."""
    from charrnn.lecture.quiz import LABELS

    net = quiz.net
    heading("The quiz, on a real network")
    say(f"{ABOUT_QUIZ} H = {len(net.b_h)}, N = {len(net.b_y)}, t = 0…{len(net.x) - 1}.")
    for name, candidates in (("∂L/∂b_y", quiz.b_y), ("∂L/∂b_h", quiz.b_h)):
        heading(f"Which formula is {name}?")
        for number, candidate in enumerate(candidates, 1):
            show_candidate(number, candidate)
    heading("And (2) of ∂L/∂b_h, if ∂h_t/∂b_h is read as the total derivative dh_t/db_h?")
    show_candidate(2, quiz.b_h_total)
    heading("How the formulas are read")
    for label in LABELS:
        say(f"- {label}")
    heading("What ŷ_t is")
    say(f"{quiz.y_hat_facts.sentence()}.")


def show_candidate(number: int, candidate: Candidate) -> None:
    """Print one answer of the quiz."""
    mark, style = (">>", "bold green") if candidate.right else ("  ", "")
    verdict = "RIGHT" if candidate.right else "wrong"
    say(f"{mark} ({number}) {verdict}: distance {candidate.distance:.1e}", style=style)
    say(candidate.formula, 7)
    say(candidate.sentence, 7, "dim")


def show_fading(group: Sequence[Fading]) -> None:
    """Print the figures of a few networks side by side, with bars for the norms."""
    from rich.table import Table

    def norm_bar(norm: float) -> str:
        share = math.log10(max(norm, 1e-300)) / (2 * DECADES) + 0.5
        return bar(share, room, ascii=is_ascii(sys.stdout))

    T, room = len(group[0].norms) - 1, (screen().width - 5) // max(3, len(group)) - 10
    heads = ("lag", *(fading.cell for fading in group))
    norms, parts = (Table(*heads, box=None, pad_edge=False) for _ in range(2))
    for lag in sorted({0, *(2**i for i in range(T.bit_length())), T}):
        norms.add_row(str(lag), *(f"{f.norms[lag]:.1e} {norm_bar(f.norms[lag])}" for f in group))
        parts.add_row(str(lag), *(f"{f.shares[lag]:6.1%} {f.lost[lag]:7.1%}" for f in group))
    say(f"Norm (bars: powers of ten, from 1e-{DECADES} to 1e+{DECADES})", style="cyan")
    screen().print(norms)
    say("Share of the lag in the gradient, and what truncation after it loses", style="cyan")
    screen().print(parts)
    for fading in group:
        say(fading.sentence)
