"""The lecture on the screen: the quiz's candidates measured, what ŷ_t is, and how the gradient fades with the lag."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from charrnn.cli.terminal import bar, console, is_ascii
from charrnn.config import CELLS

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.lecture.fading import Fading
    from charrnn.lecture.quiz import Candidate, Quiz

QUIZ_SIZE, FADING_SIZE, SYMBOLS = (8, 10), (16, 24), 6  # (H, T) unless they are given, and N
Line = tuple[str, str]  # text, style
CELL_WIDTH = 23  # columns of one cell's figures: three fit into 80


@dataclass(frozen=True)
class Lecture:
    """All that is shown."""

    quiz: Quiz
    groups: tuple[
        tuple[str, tuple[Fading, ...]], ...
    ]  # what stands above, and the networks side by side

    @classmethod
    def of(
        cls,
        hidden: int | None,
        seq_len: int | None,
        seed: int,
        gains: Sequence[float],
        model: Model | None,
        cell: str | None,
    ) -> Lecture:
        """Return the lecture on random networks; with a model its trained weights show how the gradient fades."""
        from charrnn.lecture.fading import fading
        from charrnn.lecture.quiz import quiz

        H, T = hidden or FADING_SIZE[0], seq_len or FADING_SIZE[1]
        taken = quiz(seed, hidden or QUIZ_SIZE[0], seq_len or QUIZ_SIZE[1], SYMBOLS)
        if model is not None:
            return cls(taken, ((_of_model(model), (model_fading(model, T, seed),)),))
        cells = CELLS if cell is None else (cell,)
        titles = [f"Each gate's block of W has all its singular values {gain:g}" for gain in gains]
        return cls(
            taken,
            tuple(
                (title, tuple(fading(cell, seed, H, T, gain) for cell in cells))
                for title, gain in zip(titles, gains, strict=True)
            ),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the quiz's JSON and, as "lags", that of each network."""
        return {
            **self.quiz.as_json(),
            "lags": [fading.as_json() for _, fadings in self.groups for fading in fadings],
        }

    def show(self) -> None:
        """Print it on stdout."""
        from rich.text import Text

        screen = console()
        ascii = is_ascii(sys.stdout)
        lines = [*quiz_lines(self.quiz, screen.width), *_intro(self.groups, screen.width)]
        low, high = decades(
            [norm for _, fadings in self.groups for fading in fadings for norm in fading.norms]
        )
        for title, fadings in self.groups:
            lines += fading_lines(
                title, fadings, low=low, high=high, width=screen.width, ascii=ascii
            )
        for text, style in lines:
            screen.print(Text(text, style=style), soft_wrap=True)


def _of_model(model: Model) -> str:
    above = (
        f"; layer 0 of {model.config.layers}, with the output read off it"
        if model.config.layers > 1
        else ""
    )
    return f"At the trained weights{above}"


def model_fading(model: Model, seq_len: int, seed: int) -> Fading:
    """Return the gradient by lag at a model's trained weights, on a text that it writes itself."""
    import numpy as np

    from charrnn.lecture.fading import fading_of
    from charrnn.sampling.sampling import sample

    p = model.parameters
    text = "".join(sample(model, length=seq_len + 2, seed=seed))
    rest = np.random.default_rng(seed).integers(len(model.vocabulary), size=seq_len + 2 - len(text))
    x = np.concatenate([model.vocabulary.encode(text), rest]).astype(np.intp)
    return fading_of(
        model.config.cell, p["layers.0.V"], p["layers.0.W"], p["layers.0.b_h"], p["U"], p["b_y"], x
    )


# The quiz


def quiz_lines(quiz: Quiz, width: int) -> Iterator[Line]:
    """Yield the quiz: each candidate with its distances, a mark at the right one, and why."""
    yield "", ""
    yield "The quiz, on a real network", "bold"
    yield from _wrapped(
        "h_t = tanh(V x_t + W h_{t−1} + b_h), ŷ_t = softmax(U h_t + b_y), L = Σ_t L_t, L_t = −ln ŷ_t[target]; "
        f"H = {quiz.hidden}, N = {quiz.vocabulary_size}, t = 0…{quiz.seq_len}, random weights. Each formula is evaluated literally, "
        "from the Jacobian matrices; distance: ‖formula − reference‖ / ‖reference‖.",
        width,
        0,
    )
    for name, candidates in (("∂L/∂b_y", quiz.b_y), ("∂L/∂b_h", quiz.b_h)):
        yield "", ""
        yield f"Which formula is {name}?", "bold"
        for candidate in candidates:
            yield from _candidate(candidate, width)
    yield "", ""
    yield from _wrapped(f"Read otherwise, (2) of ∂L/∂b_h: {quiz.b_h_total.formula}", width, 0)
    yield from _wrapped(
        f"{quiz.b_h_total.sentence} Its distance from (4): {quiz.total_derivative_distance:.1e}.",
        width,
        4,
    )
    yield "", ""
    yield "How the formulas are read", "bold"
    for label in quiz.labels:
        yield from _wrapped(f"- {label}", width, 2, first=0)
    yield "", ""
    yield "What ŷ_t is", "bold"
    yield from _wrapped(f"{quiz.y_hat_facts.sentence()}.", width, 0)


def _candidate(candidate: Candidate, width: int) -> Iterator[Line]:
    mark, style = (">>", "bold green") if candidate.right else ("  ", "")
    verdict = "RIGHT" if candidate.right else "wrong"
    yield (
        f"{mark} ({candidate.number}) {verdict}: {candidate.from_numeric:.1e} from the numeric gradient, "
        f"{candidate.from_bptt:.1e} from BPTT",
        style,
    )
    yield from _wrapped(candidate.formula, width, 7)
    yield from _wrapped(candidate.sentence, width, 7, style="dim")


def _wrapped(
    text: str, width: int, indent: int, *, first: int | None = None, style: str = ""
) -> Iterator[Line]:
    start = " " * (indent if first is None else first)
    for line in wrap(
        text,
        max(40, min(width, 100)),
        initial_indent=start,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    ):
        yield line, style


# How the gradient fades


def _intro(groups: Sequence[tuple[str, tuple[Fading, ...]]], width: int) -> Iterator[Line]:
    T = groups[0][1][0].seq_len
    yield "", ""
    yield "How the gradient fades, or explodes, with the lag", "bold"
    yield from _wrapped(
        f"Norm: the spectral norm of ∂h_T/∂s_k, lag T − k, T = {T}, s the whole state (the LSTM's c included). Share: the part of "
        "∂L/∂b_h that comes from that lag, the norm of its term over the sum of the norms. Kept: how far the gradient of "
        "backpropagation truncated to T' steps is from the whole one (0: all is kept), and the cosine between them.",
        width,
        0,
    )


def decades(norms: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a logarithmic bar for these norms, whole powers of ten (their exponents); 1 lies between them."""
    known = [math.log10(norm) for norm in norms if norm > 0 and math.isfinite(norm)] or [0.0]
    return max(-8, min(-1, math.floor(min(known)))), min(8, max(1, math.ceil(max(known))))


def some(last: int, most: int = 11) -> list[int]:
    """Return at most `most` lags from 0 to `last`, the first ones close together."""
    lags = {round(last * (i / (most - 1)) ** 1.5) for i in range(most)}
    return sorted(lags)


def fading_lines(
    title: str, fadings: Sequence[Fading], *, low: float, high: float, width: int, ascii: bool
) -> Iterator[Line]:
    """Yield the bars of a few networks side by side."""
    column = max(CELL_WIDTH, min(44, (width - 6) // max(3, len(fadings)) - 2))
    T, greatest = fadings[0].seq_len, max(share for fading in fadings for share in fading.shares)
    yield "", ""
    yield title, "bold"
    heads = [
        f"{fading.cell} ({', '.join(f'{gate} {value:.2f}' for gate, value in fading.singular.items())})"
        for fading in fadings
    ]
    if fadings[0].gain is None:
        yield f"largest singular values of W: {heads[0]}", ""

    def table(
        head: str,
        first: str,
        keys: Sequence[int],
        figures: Callable[[Fading, int], tuple[str, float]],
    ) -> Iterator[Line]:
        yield head, "cyan"
        yield (
            f"{first:>4}  "
            + "".join(f"{fading.cell:<{column + 2}}" for fading in fadings).rstrip(),
            "dim",
        )
        for key in keys:
            row = ""
            for text, share in (figures(fading, key) for fading in fadings):
                row += f"{text:>8} {bar(share, column - 9, ascii=ascii)}".ljust(column + 2)
            yield f"{key:>4}  {row}".rstrip(), ""

    def norm(fading: Fading, lag: int) -> tuple[str, float]:
        value = fading.norms[lag]
        return f"{value:.1e}", (math.log10(value) - low) / (high - low) if value > 0 else 0.0

    def share(fading: Fading, lag: int) -> tuple[str, float]:
        return f"{fading.shares[lag]:.1%}", fading.shares[lag] / (greatest or 1.0)

    def kept(fading: Fading, steps: int) -> tuple[str, float]:
        found = fading.kept[steps - 1]
        return f"{found.distance:.2f}", max(0.0, found.cosine)

    yield from table(
        f"Norm (bars: powers of ten, from 1e{low:+.0f} to 1e{high:+.0f})", "lag", some(T), norm
    )
    yield from table(f"Share of the gradient (bars: 0 to {greatest:.0%})", "lag", some(T), share)
    steps = [2**i for i in range((T + 1).bit_length()) if 2**i < T + 1] + [T + 1]
    yield from table(
        "Kept by truncation to T' steps: distance (bars: cosine, 0 to 1)", "T'", steps, kept
    )
    for fading in fadings:
        yield from _wrapped(fading.sentence, width, 2, first=0)
