"""The quiz on the lecture's RNN: every candidate for ∂L/∂b_y and ∂L/∂b_h, evaluated literally.

h_t = tanh(V x_t + W h_{t−1} + b_h), ŷ_t = softmax(U h_t + b_y), L_t = −ln ŷ_t[target_t],
L = Σ_t L_t, t = 0…T.

Slow on purpose: each factor of a formula is one Jacobian matrix (`rnn`), each Σ and Π one loop
here, so that the code can be read beside the formula. Float64. Sizes: T the last step, H hidden
units, N symbols. Gradients are row vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from charrnn.config import check
from charrnn.lecture.rnn import (
    Array,
    Example,
    bptt,
    distance,
    forward,
    h_by_b_h,
    h_by_h_before,
    losses_by_logits,
    numeric_gradient,
    random_network,
)

TOLERANCE = 1e-5  # from the numeric gradient: right ones are nearer than 1e-8, wrong ones not 1e-2

LABELS = (
    "∂L/∂ŷ_t = ∂L_t/∂ŷ_t, a row vector: ŷ_t enters no other loss.",
    "∂h_k/∂b_h is the immediate derivative diag(1 − h_k²), with h_{k−1} held.",
    "∂h_t/∂b_y = 0: b_y acts after h_t, so (3) to (5) of b_y are zero vectors and their "
    "distance is exactly 1.",
    "Π_{i=k+1..t} ∂h_i/∂h_{i−1} = diag(1 − h_t²) W · … · diag(1 − h_{k+1}²) W, and the identity "
    "for k = t.",
    "(1) is shown at the t where it comes nearest to the numeric gradient.",
)

# (formula, what it counts); in (1), {T} and {at} are filled in
B_Y = (
    (
        "∂L/∂ŷ_t · ∂ŷ_t/∂b_y, one t",
        "b_y enters every ŷ_t, t = 0…{T}, so one term misses all the other losses; t = {at} "
        "comes nearest.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂b_y]",
        "b_y enters each ŷ_t directly and no h_t, so each L_t adds one term and nothing flows "
        "back in time.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · ∂h_t/∂b_y]",
        "It takes the way through h_t, which b_y never enters: ∂h_t/∂b_y = 0, and the direct "
        "way to ŷ_t is left out.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} ∂h_k/∂b_y]",
        "Earlier steps add only more zeros, since no h_k depends on b_y, and the direct way to "
        "ŷ_t is still left out.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} (Π_{i=k+1..t} ∂h_i/∂h_{i−1}) ∂h_k/∂b_y]",
        "The product of Jacobians serves what acts through h_k; for b_y each product meets "
        "∂h_k/∂b_y = 0.",
    ),
)
B_H = (
    (
        "∂L/∂ŷ_t · ∂ŷ_t/∂h_t · ∂h_t/∂b_h, one t",
        "b_h enters every h_t, t = 0…{T}, so one term misses the other losses and all earlier "
        "steps; t = {at} comes nearest.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · ∂h_t/∂b_h]",
        "With h_{t−1} held it forgets that b_h has already changed h_{t−1}; read as the total "
        "derivative it is (4).",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} ∂h_k/∂b_h]",
        "It counts every earlier h_k, but passes its change on to h_t untouched, as if each "
        "∂h_i/∂h_{i−1} were the identity.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} (Π_{i=k+1..t} ∂h_i/∂h_{i−1}) ∂h_k/∂b_h]",
        "b_h acts in every h_k, and the Jacobians between carry that to h_t: each way from b_h "
        "to each L_t counts once.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · dh_t/db_h], dh_t/db_h = diag(1 − h_t²) (I + W dh_{t−1}/db_h)",
        "(2) with ∂h_t/∂b_h read as the total derivative, h_{t−1} not held: it unrolls into the "
        "sum and product of (4).",
    ),
)


@dataclass
class YHatFacts:
    """What holds of all vectors ŷ_t that were added."""

    length: int = 0  # N
    vectors: int = 0
    least: float = float("inf")
    greatest: float = float("-inf")
    sum_error: float = 0.0  # max |Σ ŷ_t − 1|

    def add(self, y_hat: Array) -> None:
        """Take in some vectors, (…, N)."""
        sums = y_hat.sum(axis=-1)
        self.length, self.vectors = y_hat.shape[-1], self.vectors + sums.size
        self.least = min(self.least, float(y_hat.min()))
        self.greatest = max(self.greatest, float(y_hat.max()))
        self.sum_error = max(self.sum_error, float(abs(sums - 1).max()))

    def sentence(self) -> str:
        """Return the facts in a sentence."""
        inside = "all in [0, 1]" if self.least >= 0 and self.greatest <= 1 else "NOT all in [0, 1]"
        return (
            f"ŷ_t, {self.vectors:,} vectors: length N = {self.length:,}; elements from "
            f"{self.least:.2g} to {self.greatest:.4g}, {inside}; each sums to 1 (within "
            f"{self.sum_error:.1g})"
        )


@dataclass(frozen=True, eq=False)
class Candidate:
    """One answer of the quiz, measured."""

    number: int  # as in the quiz, from 1
    formula: str
    value: Array  # (N,) for b_y, (H,) for b_h
    at: int | None  # the t shown, where the formula has a single one
    from_numeric: float  # ‖value − numeric‖ / ‖numeric‖
    from_bptt: float  # the same from backpropagation through time
    sentence: str  # what it counts or misses

    @property
    def right(self) -> bool:
        """Whether it is the numeric gradient."""
        return self.from_numeric < TOLERANCE

    def as_json(self) -> dict[str, Any]:
        """Return the candidate as JSON has it; `distance` is that from the numeric gradient."""
        return {
            "candidate": self.number,
            "formula": self.formula,
            "distance": self.from_numeric,
            "distance_bptt": self.from_bptt,
            "right": self.right,
            "t": self.at,
            "sentence": self.sentence,
        }


@dataclass(frozen=True, eq=False)
class Quiz:
    """The whole quiz on one network."""

    net: Example
    y_hat: Array  # (T+1, N), each row ŷ_t
    b_y: list[Candidate]  # (1) to (5)
    b_h: list[Candidate]  # (1) to (4)
    b_h_total: Candidate  # (2) of b_h with the total derivative

    @property
    def total_derivative_distance(self) -> float:
        """How far (2) of b_h with the total derivative is from (4)."""
        return distance(self.b_h_total.value, self.b_h[3].value)

    @property
    def doubt(self) -> str | None:
        """Why the numbers decide nothing, None where each list has exactly one right answer."""
        marks = [sum(answer.right for answer in answers) for answers in (self.b_y, self.b_h)]
        if marks == [1, 1]:
            return None
        if max(marks) > 1:
            return (
                "More than one candidate matches: what flows through W is too small to tell them "
                "apart; raise the gain."
            )
        size = float(np.linalg.norm(self.b_h[3].value))
        return (
            f"No candidate matches: at ‖∂L/∂b_h‖ = {size:.1g} float64 may not resolve L; lower the "
            "gain or the length."
        )

    @property
    def y_hat_facts(self) -> YHatFacts:
        """What holds of all ŷ_t."""
        facts = YHatFacts()
        facts.add(self.y_hat)
        return facts

    def as_json(self) -> dict[str, Any]:
        """Return the quiz as JSON has it."""
        total = {"distance_from_4": self.total_derivative_distance}
        return {
            "b_y": [candidate.as_json() for candidate in self.b_y],
            "b_h": [candidate.as_json() for candidate in self.b_h],
            "b_h_total": self.b_h_total.as_json() | total,
            "y_hat": asdict(self.y_hat_facts) | {"sums": self.y_hat.sum(axis=1).tolist()},
            "labels": LABELS,
            "doubt": self.doubt,
        }


def quiz(seed: int, hidden: int, seq_len: int, vocabulary_size: int, gain: float = 1.0) -> Quiz:
    """Return the quiz on a random network of H, T (steps 0…T) and N, with singular values `gain`.

    With a gain near TOLERANCE or below, what flows through W is too small to tell (2) from (4) of
    b_h; where a gain above 2 and a long text blow the gradient up past 1e9 or so, float64 has no
    numeric gradient to compare with. Raises UsageError.
    """
    check("--hidden", hidden, least=1)
    check("--seq-len", seq_len, least=1)
    check("vocabulary_size", vocabulary_size, least=2)
    check("--gain", gain, above=0, most=100)
    rng = np.random.default_rng(seed)
    return take_quiz(random_network(rng, hidden, seq_len, vocabulary_size, gain))


def take_quiz(net: Example) -> Quiz:
    """Return every candidate beside the true gradient, on this network."""
    h, y_hat = forward(net)
    direct = losses_by_logits(net, y_hat)
    row = [by_logits @ net.U for by_logits in direct]  # ∂L_t/∂h_t
    zero = [np.zeros((len(net.b_h), len(net.b_y)))] * len(h)  # ∂h_t/∂b_y
    b_y_terms = [direct, direct, *through_h(net, h, row, zero)]
    same_step, *others = through_h(net, h, row, [h_by_b_h(h_k) for h_k in h])
    total = [row_t @ by_b_h for row_t, by_b_h in zip(row, total_derivatives(net, h), strict=True)]
    b_h_terms = [same_step, same_step, *others, total]
    b_y, (*b_h, b_h_total) = (
        _measured(texts, terms, numeric_gradient(net, name), bptt(net)[name])
        for name, texts, terms in (("b_y", B_Y, b_y_terms), ("b_h", B_H, b_h_terms))
    )
    return Quiz(net, y_hat, b_y, b_h, replace(b_h_total, number=2))


def _measured(
    texts: Sequence[tuple[str, str]], sums: list[list[Array]], numeric: Array, backprop: Array
) -> list[Candidate]:
    """Return the candidates, each the sum of its terms; of (1) only the nearest term is shown."""
    distances = [distance(term, numeric) for term in sums[0]]
    at = int(np.argmin(distances))
    values = [sums[0][at], *(np.sum(terms, axis=0) for terms in sums[1:])]
    found = []
    for number, ((formula, sentence), value) in enumerate(zip(texts, values, strict=True), 1):
        said = sentence.replace("{T}", str(len(distances) - 1)).replace("{at}", str(at))
        shown = at if number == 1 else None
        away = distance(value, numeric), distance(value, backprop)
        found.append(Candidate(number, formula, value, shown, *away, said))
    return found


# The formulas: the terms of a candidate's sum


def through_h(
    net: Example, h: Array, row: list[Array], immediate: list[Array]
) -> tuple[list[Array], list[Array], list[Array]]:
    """Return the terms of Σ_t row_t [·] for three readings, where row_t = ∂L_t/∂h_t.

    [∂h_t/∂b], [Σ_{k≤t} ∂h_k/∂b] and [Σ_{k≤t} (Π_{i=k+1..t} ∂h_i/∂h_{i−1}) ∂h_k/∂b], of which the
    product has its latest factor on the left.
    """
    steps = [h_by_h_before(net.W, h_i) for h_i in h]
    same_step, without_product, with_product = [], [], []
    for t, row_t in enumerate(row):
        product = np.eye(len(net.b_h))
        same_step.append(row_t @ immediate[t])
        for k in range(t, -1, -1):
            without_product.append(row_t @ immediate[k])
            with_product.append(row_t @ product @ immediate[k])
            product = product @ steps[k]
    return same_step, without_product, with_product


def total_derivatives(net: Example, h: Array) -> list[Array]:
    """Return dh_t/db_h = diag(1 − h_t²) (I + W dh_{t−1}/db_h) for t = 0…T."""
    total, totals = np.zeros_like(net.W), []
    for h_t in h:
        total = np.diag(1 - h_t**2) @ (np.eye(len(h_t)) + net.W @ total)
        totals.append(total)
    return totals
