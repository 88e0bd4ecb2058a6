"""The quiz on the lecture's RNN: every candidate for ∂L/∂b_y and ∂L/∂b_h, evaluated literally from Jacobian matrices.

h_t = tanh(V x_t + W h_{t−1} + b_h),  ŷ_t = softmax(U h_t + b_y),  L_t = −ln ŷ_t[target_t],  L = Σ_t L_t,  t = 0…T.

Slow on purpose: each factor of a formula is one matrix (`lecture_rnn`), each Σ and Π one loop here, so that the code can be
read beside the formula. Float64. Sizes: T the last step, H hidden units, N symbols. Gradients are row vectors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from charrnn.config import check
from charrnn.lecture.rnn import (
    Array,
    Network,
    bptt,
    distance,
    forward,
    h_by_b_h,
    h_by_h_before,
    loss,
    loss_by_y_hat,
    losses_by_h,
    numeric_gradient,
    random_network,
    y_hat_by_logits,
)

TOLERANCE = 1e-5  # a candidate this near the numeric gradient is right; sound ones lie below 1e-8, wrong ones above 1e-2

LABELS = (
    "∂L/∂ŷ_t = ∂L_t/∂ŷ_t, a row vector: ŷ_t enters no other loss.",
    "∂h_k/∂b_h is the immediate derivative diag(1 − h_k²), with h_{k−1} held.",
    "∂h_t/∂b_y = 0: b_y acts after h_t, so (3) to (5) of b_y are zero vectors and their distance is exactly 1.",
    "Π_{i=k+1..t} ∂h_i/∂h_{i−1} = diag(1 − h_t²) W · … · diag(1 − h_{k+1}²) W, and the identity for k = t.",
    "(1) is shown at the t where it comes nearest to the numeric gradient.",
)

# (formula, what it counts); in (1), {T} and {at} are filled in
B_Y = (
    (
        "∂L/∂ŷ_t · ∂ŷ_t/∂b_y, one t",
        "b_y enters every ŷ_t, t = 0…{T}, so one term misses all the other losses; t = {at} comes nearest.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂b_y]",
        "b_y enters each ŷ_t directly and no h_t, so each L_t adds one term and nothing flows back in time.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · ∂h_t/∂b_y]",
        "It takes the way through h_t, which b_y never enters: ∂h_t/∂b_y = 0, and the direct way to ŷ_t is left out.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} ∂h_k/∂b_y]",
        "Earlier steps add only more zeros, since no h_k depends on b_y, and the direct way to ŷ_t is still left out.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} (Π_{i=k+1..t} ∂h_i/∂h_{i−1}) ∂h_k/∂b_y]",
        "The product of Jacobians serves what acts through h_k; for b_y each product meets ∂h_k/∂b_y = 0.",
    ),
)
B_H = (
    (
        "∂L/∂ŷ_t · ∂ŷ_t/∂h_t · ∂h_t/∂b_h, one t",
        "b_h enters every h_t, t = 0…{T}, so one term misses the other losses and all earlier steps; t = {at} comes nearest.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · ∂h_t/∂b_h]",
        "With h_{t−1} held it forgets that b_h has already changed h_{t−1}; read as the total derivative it is (4).",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} ∂h_k/∂b_h]",
        "It counts every earlier h_k, but passes its change on to h_t untouched, as if each ∂h_i/∂h_{i−1} were the identity.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} (Π_{i=k+1..t} ∂h_i/∂h_{i−1}) ∂h_k/∂b_h]",
        "b_h acts in every h_k, and the Jacobians between carry that to h_t: each way from b_h to each L_t counts once.",
    ),
)
TOTAL = (
    "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · dh_t/db_h],  dh_t/db_h = diag(1 − h_t²) (I + W dh_{t−1}/db_h)",
    "(2) with ∂h_t/∂b_h read as the total derivative, h_{t−1} not held: it unrolls into the sum and product of (4).",
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
    right: bool  # from_numeric < TOLERANCE
    sentence: str  # what it counts or misses

    def as_json(self) -> dict[str, Any]:
        """The candidate as plain numbers and strings; `distance` is that from the numeric gradient."""
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
    """The whole quiz on one random network."""

    hidden: int  # H
    seq_len: int  # T, the last step: there are T+1
    vocabulary_size: int  # N
    gain: float  # the largest singular value of W
    loss: float  # L, nats
    b_y: tuple[Candidate, ...]  # (1) to (5)
    b_h: tuple[Candidate, ...]  # (1) to (4)
    b_h_total: Candidate  # (2) of b_h with the total derivative
    total_derivative_distance: float  # ‖b_h_total − (4)‖ / ‖(4)‖
    numeric: dict[str, Array]  # b_y (N,) and b_h (H,) by central differences
    bptt: dict[str, Array]  # the same by backpropagation through time
    y_hat: Array  # (T+1, N), each row ŷ_t
    labels: tuple[str, ...] = LABELS  # sentences that settle how the formulas are read

    @property
    def doubt(self) -> str | None:
        """Why the numbers of this network decide nothing, in one sentence; None where each list has exactly one right."""
        marks = [
            sum(candidate.right for candidate in candidates) for candidates in (self.b_y, self.b_h)
        ]
        if marks == [1, 1]:
            return None
        if max(marks) > 1:
            return "More than one candidate matches: what flows through W is too small to tell them apart; raise the gain."
        size = float(np.linalg.norm(self.bptt["b_h"]))
        return f"No candidate matches: at ‖∂L/∂b_h‖ = {size:.1g} float64 may not resolve L; lower the gain or the length."

    @property
    def y_hat_facts(self) -> YHatFacts:
        """What holds of all ŷ_t."""
        facts = YHatFacts()
        facts.add(self.y_hat)
        return facts

    def as_json(self) -> dict[str, Any]:
        """The quiz as plain numbers, strings, lists and dicts."""
        return {
            "b_y": [candidate.as_json() for candidate in self.b_y],
            "b_h": [candidate.as_json() for candidate in self.b_h],
            "b_h_total": {
                **self.b_h_total.as_json(),
                "distance_from_4": self.total_derivative_distance,
            },
            "y_hat": {
                **asdict(self.y_hat_facts),
                "sums": self.y_hat.sum(axis=1).tolist(),
            },
            "labels": list(self.labels),
            "doubt": self.doubt,
        }


def quiz(seed: int, hidden: int, seq_len: int, vocabulary_size: int, gain: float = 1.0) -> Quiz:
    """Every candidate beside the true gradient, on a random network of H, T (steps 0…T) and N, with singular values `gain`.

    With a gain near TOLERANCE or below, what flows through W is too small to tell (2) from (4) of b_h; where a gain above 2
    and a long text blow the gradient up past 1e9 or so, float64 has no numeric gradient to compare with. Raises UsageError.
    """
    check("--hidden", hidden, least=1)
    check("--seq-len", seq_len, least=1)
    check("vocabulary_size", vocabulary_size, least=2)
    check("--gain", gain, above=0, most=100)
    return take_quiz(
        random_network(np.random.default_rng(seed), hidden, seq_len, vocabulary_size, gain)
    )


def take_quiz(net: Network) -> Quiz:
    """Every candidate beside the true gradient, on this network."""
    h, y_hat = forward(net)
    numeric = {"b_y": numeric_gradient(net, "b_y"), "b_h": numeric_gradient(net, "b_h")}
    backprop = bptt(net)
    b_y = b_y_candidates(net, h, y_hat, numeric=numeric["b_y"], backprop=backprop["b_y"])
    b_h = b_h_candidates(net, h, y_hat, numeric=numeric["b_h"], backprop=backprop["b_h"])
    total = total_derivative(net, h, y_hat)
    return Quiz(
        hidden=len(net.b_h),
        seq_len=len(net.x) - 1,
        vocabulary_size=len(net.b_y),
        gain=float(np.linalg.norm(net.W, 2)),
        loss=loss(net),
        b_y=b_y,
        b_h=b_h,
        b_h_total=_measured(2, TOTAL, total, numeric=numeric["b_h"], backprop=backprop["b_h"]),
        total_derivative_distance=distance(total, b_h[3].value),
        numeric=numeric,
        bptt=backprop,
        y_hat=y_hat,
    )


# The formulas


def b_y_candidates(
    net: Network, h: Array, y_hat: Array, *, numeric: Array, backprop: Array
) -> tuple[Candidate, ...]:
    """(1) to (5) of ∂L/∂b_y."""
    direct = [
        loss_by_y_hat(y, target) @ y_hat_by_logits(y)
        for y, target in zip(y_hat, net.targets.tolist(), strict=True)
    ]
    row, zero = (
        losses_by_h(net, y_hat),
        [np.zeros((len(net.b_h), len(net.b_y)))] * len(h),
    )  # ∂h_t/∂b_y = 0
    at = nearest(direct, numeric)
    values = [
        direct[at],
        _sum(direct),
        _sum(same_step(row, zero)),
        without_product(row, zero),
        with_product(net, h, row, zero),
    ]
    return _numbered(B_Y, values, at, len(h) - 1, numeric=numeric, backprop=backprop)


def b_h_candidates(
    net: Network, h: Array, y_hat: Array, *, numeric: Array, backprop: Array
) -> tuple[Candidate, ...]:
    """(1) to (4) of ∂L/∂b_h."""
    row, immediate = losses_by_h(net, y_hat), [h_by_b_h(h_k) for h_k in h]
    terms = same_step(row, immediate)
    at = nearest(terms, numeric)
    values = [
        terms[at],
        _sum(terms),
        without_product(row, immediate),
        with_product(net, h, row, immediate),
    ]
    return _numbered(B_H, values, at, len(h) - 1, numeric=numeric, backprop=backprop)


def nearest(terms: list[Array], reference: Array) -> int:
    """The t whose term comes nearest to the reference."""
    return int(np.argmin([distance(term, reference) for term in terms]))


def same_step(row: list[Array], immediate: list[Array]) -> list[Array]:
    """row_t · ∂h_t/∂b for t = 0…T, where row_t = ∂L_t/∂h_t."""
    return [row_t @ immediate_t for row_t, immediate_t in zip(row, immediate, strict=True)]


def without_product(row: list[Array], immediate: list[Array]) -> Array:
    """Σ_t row_t · Σ_{k≤t} ∂h_k/∂b."""
    return _sum([row[t] @ immediate[k] for t in range(len(row)) for k in range(t + 1)])


def with_product(net: Network, h: Array, row: list[Array], immediate: list[Array]) -> Array:
    """Σ_t row_t · Σ_{k≤t} (Π_{i=k+1..t} ∂h_i/∂h_{i−1}) ∂h_k/∂b, the product's latest factor on the left."""
    steps = [h_by_h_before(net.W, h_i) for h_i in h]
    terms = []
    for t in range(len(row)):
        product = np.eye(len(net.b_h))
        for k in range(t, -1, -1):
            terms.append(row[t] @ product @ immediate[k])
            product = product @ steps[k]
    return _sum(terms)


def total_derivative(net: Network, h: Array, y_hat: Array) -> Array:
    """(2) of b_h read with the total derivative: dh_t/db_h = diag(1 − h_t²) (I + W dh_{t−1}/db_h), forwards in t."""
    total, terms = np.zeros_like(net.W), []
    for row_t, h_t in zip(losses_by_h(net, y_hat), h, strict=True):
        total = np.diag(1 - h_t**2) @ (np.eye(len(h_t)) + net.W @ total)
        terms.append(row_t @ total)
    return _sum(terms)


def _sum(terms: list[Array]) -> Array:
    """The sum of equally long row vectors."""
    return np.asarray(np.sum(terms, axis=0))


def _numbered(
    texts: tuple[tuple[str, str], ...],
    values: list[Array],
    at: int,
    T: int,
    *,
    numeric: Array,
    backprop: Array,
) -> tuple[Candidate, ...]:
    """The candidates in the quiz's order; only (1) has a t of its own, named in its sentence."""
    candidates = [
        _measured(n, text, value, numeric=numeric, backprop=backprop)
        for n, (text, value) in enumerate(zip(texts, values, strict=True), 1)
    ]
    candidates[0] = replace(candidates[0], at=at, sentence=texts[0][1].format(T=T, at=at))
    return tuple(candidates)


def _measured(
    number: int, text: tuple[str, str], value: Array, *, numeric: Array, backprop: Array
) -> Candidate:
    """The candidate with its distances; whether it is right is found by the numeric gradient alone."""
    away = distance(value, numeric)
    return Candidate(
        number, text[0], value, None, away, distance(value, backprop), away < TOLERANCE, text[1]
    )
