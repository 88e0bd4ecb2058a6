"""The lecture on the screen: the quiz's candidates measured, and how the gradient fades."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from charrnn.cli.terminal import bar, console, is_ascii
from charrnn.config import CELLS

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.lecture.fading import Fading, Kept
    from charrnn.lecture.quiz import Candidate, Quiz

QUIZ_SIZE, FADING_SIZE, SYMBOLS = (8, 10), (16, 24), 6  # (H, T) unless they are given, and N
CELL_WIDTH = 23  # columns of one cell's figures: three fit into 80
ABOUT_FADING = (
    "Norm: the spectral norm of ∂h_T/∂s_k, lag T − k, s the whole state (the LSTM's c included). "
    "Share: the part of ∂L/∂b_h that comes from that lag, the norm of its term over the sum of the "
    "norms. Kept: how far the gradient of backpropagation truncated to T' steps is from the whole "
    "one (0: all is kept), and the cosine between them."
)
Group = tuple[str, tuple["Fading", ...]]  # what stands above, and the networks side by side


@dataclass(frozen=True)
class Lecture:
    """All that is shown."""

    quiz: Quiz
    groups: Sequence[Group]

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
        """Return the lecture on random networks; a model shows the gradient at its own weights."""
        from charrnn.lecture.fading import fading
        from charrnn.lecture.quiz import quiz

        H, T = hidden or FADING_SIZE[0], seq_len or FADING_SIZE[1]
        taken = quiz(seed, hidden or QUIZ_SIZE[0], seq_len or QUIZ_SIZE[1], SYMBOLS)
        if model is not None:
            several = model.config.layers > 1
            above = f"; layer 0 of {model.config.layers}, with the output read off it" * several
            return cls(taken, [(f"At the trained weights{above}", (of_model(model, T, seed),))])
        cells = CELLS if cell is None else (cell,)
        return cls(
            taken,
            [
                (
                    f"Each gate's block of W has all its singular values {gain:g}",
                    tuple(fading(cell, seed, H, T, gain) for cell in cells),
                )
                for gain in gains
            ],
        )

    def as_json(self) -> dict[str, Any]:
        """Return the quiz's JSON and, as "lags", that of each network."""
        fadings = [fading.as_json() for _, group in self.groups for fading in group]
        return {**self.quiz.as_json(), "lags": fadings}

    def show(self) -> None:
        """Print it on stdout."""
        page = Page()
        page.quiz(self.quiz)
        page.heading("How the gradient fades, or explodes, with the lag")
        page.say(ABOUT_FADING)
        norms = [norm for _, group in self.groups for fading in group for norm in fading.norms]
        for group in self.groups:
            page.fading(group, decades(norms))


def of_model(model: Model, seq_len: int, seed: int) -> Fading:
    """Return the gradient by lag at a model's weights, on a text that it writes itself."""
    import numpy as np

    from charrnn.lecture.fading import fading_of
    from charrnn.sampling.sampling import sample

    count = seq_len + 2
    text = "".join(sample(model, length=count, seed=seed))
    rest = np.random.default_rng(seed).integers(len(model.vocabulary), size=count - len(text))
    x = np.concatenate([model.vocabulary.encode(text), rest]).astype(np.intp)
    return fading_of(model.parameters, x)


def decades(norms: Iterable[float]) -> tuple[float, float]:
    """Return the ends of a logarithmic bar for these norms, as exponents of 10 around 0."""
    known = [math.log10(norm) for norm in norms if norm > 0 and math.isfinite(norm)] or [0.0]
    return max(-8, min(-1, math.floor(min(known)))), min(8, max(1, math.ceil(max(known))))


def some(last: int, most: int = 11) -> list[int]:
    """Return at most `most` lags from 0 to `last`, the first ones close together."""
    return sorted({round(last * (i / (most - 1)) ** 1.5) for i in range(most)})


class Page:
    """Prints lines that fit the screen."""

    def __init__(self) -> None:
        self.screen, self.ascii = console(), is_ascii(sys.stdout)
        self.width = max(40, min(self.screen.width, 100))

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line as it is."""
        self.screen.print(text, style=style, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Print a heading below an empty line."""
        self.line()
        self.line(text, "bold")

    def say(self, text: str, indent: int = 0, hanging: int = 0, style: str = "") -> None:
        """Print a paragraph, wrapped; hanging: how much further all lines but the first go in."""
        start, rest = " " * indent, " " * (indent + hanging)
        wrapped = wrap(
            text, self.width, initial_indent=start, subsequent_indent=rest, break_on_hyphens=False
        )
        for line in wrapped:
            self.line(line, style)

    def quiz(self, quiz: Quiz) -> None:
        """Print each candidate with its distances, a mark at the right one, and why."""
        from charrnn.lecture.quiz import LABELS

        self.heading("The quiz, on a real network")
        self.say(
            "h_t = tanh(V x_t + W h_{t−1} + b_h), ŷ_t = softmax(U h_t + b_y), L = Σ_t L_t, "
            f"L_t = −ln ŷ_t[target]; H = {len(quiz.net.b_h)}, N = {len(quiz.net.b_y)}, "
            f"t = 0…{len(quiz.net.x) - 1}, random weights. Each formula is evaluated literally, "
            "from the Jacobian matrices; distance: ‖formula − reference‖ / ‖reference‖."
        )
        for name, candidates in (("∂L/∂b_y", quiz.b_y), ("∂L/∂b_h", quiz.b_h)):
            self.heading(f"Which formula is {name}?")
            for candidate in candidates:
                self.candidate(candidate)
        self.line()
        self.say(f"Read otherwise, (2) of ∂L/∂b_h: {quiz.b_h_total.formula}")
        away = quiz.total_derivative_distance
        self.say(f"{quiz.b_h_total.sentence} Its distance from (4): {away:.1e}.", 4)
        self.heading("How the formulas are read")
        for label in LABELS:
            self.say(f"- {label}", hanging=2)
        self.heading("What ŷ_t is")
        self.say(f"{quiz.y_hat_facts.sentence()}.")

    def candidate(self, candidate: Candidate) -> None:
        """Print one answer of the quiz."""
        mark, verdict, style = ("  ", "wrong", "")
        if candidate.right:
            mark, verdict, style = (">>", "RIGHT", "bold green")
        away = f"{candidate.from_numeric:.1e} from the numeric gradient"
        bptt = f"{candidate.from_bptt:.1e} from BPTT"
        self.line(f"{mark} ({candidate.number}) {verdict}: {away}, {bptt}", style)
        self.say(candidate.formula, 7)
        self.say(candidate.sentence, 7, style="dim")

    def fading(self, group: Group, ends: tuple[float, float]) -> None:
        """Print the bars of a few networks side by side; `ends` of those of the norms."""
        (title, fadings), (low, high) = group, ends
        T, greatest = fadings[0].seq_len, max(max(f.shares) for f in fadings) or 1.0

        def norm(value: float) -> tuple[str, float]:
            return f"{value:.1e}", (math.log10(max(value, 1e-300)) - low) / (high - low)

        def share(value: float) -> tuple[str, float]:
            return f"{value:.1%}", value / greatest

        def kept(found: Kept) -> tuple[str, float]:
            return f"{found.distance:.2f}", found.cosine

        self.heading(title)
        if fadings[0].gain is None:
            values = ", ".join(f"{gate} {s:.2f}" for gate, s in fadings[0].singular.items())
            self.line(f"largest singular values of W: {fadings[0].cell} ({values})")
        lags, steps = some(T), [*(2**i for i in range(T.bit_length())), T + 1]
        norms = {lag: [norm(f.norms[lag]) for f in fadings] for lag in lags}
        shares = {lag: [share(f.shares[lag]) for f in fadings] for lag in lags}
        parts = {n: [kept(f.kept[n - 1]) for f in fadings] for n in steps}
        names = [f.cell for f in fadings]
        powers = f"powers of ten, from 1e{low:+.0f} to 1e{high:+.0f}"
        self.table(f"Norm (bars: {powers})", "lag", names, norms)
        self.table(f"Share of the gradient (bars: 0 to {greatest:.0%})", "lag", names, shares)
        kept_head = "Kept by truncation to T' steps: distance (bars: cosine, 0 to 1)"
        self.table(kept_head, "T'", names, parts)
        for fading in fadings:
            self.say(fading.sentence, hanging=2)

    def table(
        self, head: str, first: str, names: list[str], rows: dict[int, list[tuple[str, float]]]
    ) -> None:
        """Print a row for each key: for each network a number, and a bar by its share of 1."""
        column = max(CELL_WIDTH, min(44, (self.screen.width - 6) // max(3, len(names)) - 2))
        self.line(head, "cyan")
        self.line(
            f"{first:>4}  {''.join(name.ljust(column + 2) for name in names)}".rstrip(), "dim"
        )
        for key, figures in rows.items():
            row = f"{key:>4}  "
            for text, share in figures:
                row += f"{text:>8} {bar(share, column - 9, ascii=self.ascii)}".ljust(column + 2)
            self.line(row.rstrip())
