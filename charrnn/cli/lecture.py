"""The lecture on the screen: the quiz's candidates measured, and how the gradient fades."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from charrnn.cli.terminal import bar, console

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from charrnn.checkpoint.model import Model
    from charrnn.cli.gradcheck import Asked
    from charrnn.lecture.fading import Fading
    from charrnn.lecture.quiz import Candidate, Quiz

SYMBOLS = 6  # N of the quiz
GAINS = (0.7, 1.0, 1.4)
WIDEST = 100  # columns
DECADES = 5  # powers of ten on either side of 1, in the bars
ABOUT_QUIZ = (
    "h_t = tanh(V x_t + W h_{t−1} + b_h), ŷ_t = softmax(U h_t + b_y), L = Σ_t L_t, "
    "L_t = −ln ŷ_t[target], with random weights. Each formula is evaluated literally, as a product "
    "of Jacobian matrices. The figure beside it is its distance ‖formula − numeric‖ / ‖numeric‖ "
    "from the numeric gradient, which comes from central differences of L."
)
ABOUT_FADING = (
    "Norm: the spectral norm of ∂h_T/∂s_k at lag T − k, where s is the whole state (h, and the "
    "LSTM's c). Share: how much of ∂L/∂b_h comes from this lag, as the norm of its term over the "
    "sum of the norms of all terms. Lost: the relative error of ∂L/∂b_h if backpropagation is "
    "truncated after this lag."
)
NORMS = f"Norm; the bars are logarithmic, from 1e-{DECADES} to 1e+{DECADES}"
PARTS = "Share of each lag, and what truncation after it loses"


class Lecture(NamedTuple):
    """What the lecture shows."""

    quiz: Quiz
    fadings: list[Fading]

    def as_json(self) -> dict[str, Any]:
        """Return the lecture as --json prints it."""
        return asdict(self.quiz) | {"lags": [*map(asdict, self.fadings)]}


def measured(asked: Asked, model: Model | None) -> Lecture:
    """Return the quiz and the fading gradient on random networks.

    With a model, the gradient is taken at its weights, on a text that it writes itself.
    """
    import numpy as np

    from charrnn.lecture.fading import fading, fading_of
    from charrnn.lecture.quiz import quiz
    from charrnn.lecture.rnn import random_network
    from charrnn.sampling.sampling import sample

    (H, T), seed = (asked.hidden or 16, asked.seq_len or 24), asked.seed
    if model is None:
        gains = asked.gain or GAINS
        fadings = [fading(cell, seed, H, T, gain) for gain in gains for cell in asked.cells]
    else:
        x = model.vocabulary.encode("".join(sample(model, length=T + 2, seed=seed)))
        fadings = [fading_of(model.parameters, np.resize(x, T + 2))]  # a shorter text is repeated
    rng = np.random.default_rng(seed)
    net = random_network(rng, asked.hidden or 8, asked.seq_len or 10, SYMBOLS)
    return Lecture(quiz(net), fadings)


def show(lecture: Lecture) -> None:
    """Print the lecture on stdout, in sections."""
    screen = console()
    screen.width = min(screen.width, WIDEST)
    sections = *quiz_sections(lecture.quiz), *fading_sections(lecture.fadings, screen.width)
    for heading, body in sections:
        screen.print(f"\n{heading}", style="bold")
        screen.print(body)


def quiz_sections(quiz: Quiz) -> Iterator[tuple[str, RenderableType]]:
    """Yield headings, and the text below each: the candidates, and how to read them."""
    from charrnn.lecture.quiz import LABELS

    net = quiz.net
    sizes = f"H = {len(net.b_h)}, N = {len(net.b_y)}, t = 0…{len(net.x) - 1}."
    yield "The quiz, on a real network", f"{ABOUT_QUIZ} {sizes}"
    yield "Which formula is ∂L/∂b_y?", answers(quiz.b_y)
    yield "Which formula is ∂L/∂b_h?", answers(quiz.b_h)
    heading = "And (2) of ∂L/∂b_h, if ∂h_t/∂b_h is read as the total derivative dh_t/db_h?"
    yield heading, answers([quiz.b_h_total])
    yield "How the formulas are read", "\n".join(f"- {label}" for label in LABELS)
    yield "What ŷ_t is", f"{quiz.y_hat.sentence()}."


def answers(candidates: Sequence[Candidate]) -> Table:
    """Return each candidate with its distance, a mark at the right one, and why."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for c in candidates:
        mark, verdict, style = (">>", "RIGHT", "bold green") if c.right else ("", "wrong", "")
        why = Text.assemble(c.formula, (f"\n{c.sentence}", "not bold dim"))
        table.add_row(mark, f"({c.candidate})", verdict, f"{c.distance:.1e}", why, style=style)
    return table


def fading_sections(fadings: Sequence[Fading], width: int) -> Iterator[tuple[str, RenderableType]]:
    """Yield headings, and below them the figures of the networks with the same gain."""
    from rich.console import Group
    from rich.table import Table

    def norm_bar(norm: float) -> str:
        share = math.log10(max(norm, 1e-300)) / (2 * DECADES) + 0.5
        return bar(share, room, ascii=console().options.ascii_only)

    yield "How the gradient fades, or explodes, with the lag", ABOUT_FADING
    for gain, same_gain in groupby(fadings, lambda fading: fading.gain):
        group = [*same_gain]
        room, T = (width - 5) // max(3, len(group)) - 10, group[0].lags[-1].lag
        heads = ("lag", *(fading.cell for fading in group))
        norms, parts = (Table(*heads, box=None, pad_edge=False) for _ in range(2))
        for lag in sorted({0, *(2**i for i in range(T.bit_length())), T}):
            found = [fading.lags[lag] for fading in group]
            norms.add_row(str(lag), *(f"{at.norm:.1e} {norm_bar(at.norm)}" for at in found))
            parts.add_row(str(lag), *(f"{at.share:6.1%} {at.lost:7.1%}" for at in found))
        heading = "At the trained weights of the first layer, with ŷ_t computed from its h_t"
        if gain is not None:
            heading = f"All singular values of each gate's block of W are {gain:g}"
        sentences = (fading.sentence for fading in group)
        yield heading, Group(f"{NORMS}:", norms, f"{PARTS}:", parts, *sentences)
