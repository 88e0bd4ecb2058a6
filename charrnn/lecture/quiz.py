"""The quiz on the lecture's RNN: every candidate for ∂L/∂b_y and ∂L/∂b_h, evaluated literally.

h_t = tanh(V x_t + W h_{t−1} + b_h), ŷ_t = softmax(U h_t + b_y), L_t = −ln ŷ_t[target_t],
L = Σ_t L_t, t = 0…T.

Slow on purpose: each factor of a formula is one Jacobian matrix, each Σ and Π one loop, so that the
code can be read beside the formula. Gradients are row vectors. Float64. Sizes: T the last step, H
hidden units, N symbols.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from charrnn.lecture.rnn import Array, Example, distance, forward, numeric_gradient

# At the lecture's sizes, right formulas come within 1e-7 of the numeric gradient, and wrong ones
# not within 1e-2.
TOLERANCE = 1e-5

LABELS = (
    "∂L/∂ŷ_t = ∂L_t/∂ŷ_t, a row vector: ŷ_t enters no other loss.",
    "∂h_k/∂b_h is the immediate derivative diag(1 − h_k²), with h_{k−1} held.",
    "∂h_t/∂b_y = 0: b_y acts after h_t, so (3) to (5) of b_y are zero vectors and their "
    "distance is exactly 1.",
    "Π_{i=k+1..t} ∂h_i/∂h_{i−1} = diag(1 − h_t²) W · … · diag(1 − h_{k+1}²) W, and the identity "
    "for k = t.",
)

# (formula, what it counts)
B_Y = (
    (
        "∂L/∂ŷ_t · ∂ŷ_t/∂b_y, one t",
        "b_y enters every ŷ_t, so one term, here the one that comes nearest, misses all the other "
        "losses.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂b_y]",
        "b_y enters each ŷ_t directly and no h_t, so each L_t adds one term and nothing flows "
        "back in time.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · ∂h_t/∂b_y]",
        "It takes the path through h_t, which b_y never enters (∂h_t/∂b_y = 0), and leaves out the "
        "direct path to ŷ_t.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} ∂h_k/∂b_y]",
        "Earlier steps only add more zeros, since no h_k depends on b_y; the direct path to ŷ_t is "
        "still left out.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} (Π_{i=k+1..t} ∂h_i/∂h_{i−1}) ∂h_k/∂b_y]",
        "The product carries on to h_t what b_y does to h_k, which is nothing: ∂h_k/∂b_y is 0.",
    ),
)
B_H = (
    (
        "∂L/∂ŷ_t · ∂ŷ_t/∂h_t · ∂h_t/∂b_h, one t",
        "b_h enters every h_t, so one term, here the one that comes nearest, misses the other "
        "losses and all earlier steps.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · ∂h_t/∂b_h]",
        "It holds h_{t−1} fixed, although b_h has already changed h_{t−1}.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} ∂h_k/∂b_h]",
        "It counts every earlier h_k, but passes its change on to h_t untouched, as if each "
        "∂h_i/∂h_{i−1} were the identity.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · Σ_{k≤t} (Π_{i=k+1..t} ∂h_i/∂h_{i−1}) ∂h_k/∂b_h]",
        "b_h acts on every h_k, and the Jacobians carry this on to h_t: each path from b_h to each "
        "L_t counts once.",
    ),
    (
        "Σ_t [∂L_t/∂ŷ_t · ∂ŷ_t/∂h_t · dh_t/db_h], dh_t/db_h = diag(1 − h_t²) (I + W dh_{t−1}/db_h)",
        "h_{t−1} isn't held fixed: dh_t/db_h unrolls into the sum and product of (4).",
    ),
)


@dataclass
class YHatFacts:
    """Facts about all the vectors ŷ_t that were added."""

    length: int = 0  # N
    vectors: int = 0
    least: float = math.inf
    greatest: float = -math.inf
    sum_error: float = 0.0  # max |Σ ŷ_t − 1|

    def add(self, y_hat: Array) -> None:
        """Include these vectors, (…, N)."""
        sums = y_hat.sum(axis=-1)
        self.length, self.vectors = y_hat.shape[-1], self.vectors + sums.size
        self.least = min(self.least, float(y_hat.min()))
        self.greatest = max(self.greatest, float(y_hat.max()))
        self.sum_error = max(self.sum_error, float(abs(sums - 1).max()))

    def sentence(self) -> str:
        """Return the facts in a sentence."""
        inside = "all" if 0 <= self.least <= self.greatest <= 1 else "NOT all"
        return (
            f"ŷ_t, {self.vectors:,} vectors: length N = {self.length:,}; elements from "
            f"{self.least:.2g} to {self.greatest:.4g}, {inside} in [0, 1]; each sums to 1 (within "
            f"{self.sum_error:.1g})"
        )


@dataclass(frozen=True, eq=False)
class Candidate:
    """One answer of the quiz, measured."""

    candidate: int  # its number in the quiz
    formula: str
    sentence: str  # what it counts or misses
    value: Array  # (N,) for b_y, (H,) for b_h
    distance: float  # ‖value − numeric‖ / ‖numeric‖
    right: bool


@dataclass(frozen=True, eq=False)
class Quiz:
    """The whole quiz on one network, with the fields that --json prints."""

    net: Example
    y_hat: YHatFacts
    b_y: list[Candidate]  # (1) to (5)
    b_h: list[Candidate]  # (1) to (4)
    b_h_total: Candidate  # (2) of b_h with the total derivative


def quiz(net: Example) -> Quiz:
    """Return every candidate compared with the numeric gradient, on this network."""
    _, h, y_hat = forward(net)
    facts = YHatFacts()
    facts.add(y_hat)
    pairs = zip(y_hat, net.targets, strict=True)
    direct = [loss_by_y_hat(y, target) @ y_hat_by_logits(y) for y, target in pairs]  # ∂L_t/∂b_y
    steps = [h_by_h_before(net.W, h_t) for h_t in h]
    row = [by_logits @ net.U for by_logits in direct]  # ∂L_t/∂h_t
    zero = [np.zeros((len(net.b_h), len(net.b_y)))] * len(h)  # ∂h_t/∂b_y
    b_y_terms = [direct, direct, *through_h(row, steps, zero)]
    same_step, *others = through_h(row, steps, [h_by_b_h(h_t) for h_t in h])
    total = [row_t @ by_b_h for row_t, by_b_h in zip(row, total_derivatives(net, h), strict=True)]
    b_h_terms = [same_step, same_step, *others, total]
    b_y = _measured(B_Y, b_y_terms, numeric_gradient(net, "b_y"))
    *b_h, b_h_total = _measured(B_H, b_h_terms, numeric_gradient(net, "b_h"))
    return Quiz(net, facts, b_y, b_h, replace(b_h_total, candidate=2))


def _measured(
    texts: Sequence[tuple[str, str]], sums: list[list[Array]], numeric: Array
) -> list[Candidate]:
    """Return the candidates, each the sum of its terms; for (1), only the nearest term."""
    nearest = min(sums[0], key=lambda term: distance(term, numeric))
    values = [nearest, *(np.sum(terms, axis=0) for terms in sums[1:])]
    candidates = []
    for number, ((formula, sentence), value) in enumerate(zip(texts, values, strict=True), 1):
        off = distance(value, numeric)
        candidates.append(Candidate(number, formula, sentence, value, off, off < TOLERANCE))
    return candidates


# The factors of the formulas


def loss_by_y_hat(y_hat: Array, target: int) -> Array:
    """∂L_t/∂ŷ_t (N,): −1/ŷ_t[target] at the target, zero elsewhere."""
    return np.asarray(-np.eye(len(y_hat))[target] / y_hat)


def y_hat_by_logits(y_hat: Array) -> Array:
    """∂ŷ_t/∂(U h_t + b_y) (N, N) = diag(ŷ_t) − ŷ_t ŷ_tᵀ; this is ∂ŷ_t/∂b_y; times U, ∂ŷ_t/∂h_t."""
    return np.asarray(np.diag(y_hat) - np.outer(y_hat, y_hat))


def h_by_b_h(h: Array) -> Array:
    """∂h_k/∂b_h (H, H), immediate (h_{k−1} held) = diag(1 − h_k²)."""
    return np.diag(1 - h**2)


def h_by_h_before(W: Array, h: Array) -> Array:
    """∂h_i/∂h_{i−1} (H, H) = diag(1 − h_i²) W."""
    return np.asarray(h_by_b_h(h) @ W)


# The terms of a candidate's sum


def through_h(
    row: list[Array], steps: list[Array], immediate: list[Array]
) -> tuple[list[Array], list[Array], list[Array]]:
    """Return the terms of Σ_t row_t [·] for three readings, where row_t = ∂L_t/∂h_t.

    They are [∂h_t/∂b], [Σ_{k≤t} ∂h_k/∂b] and [Σ_{k≤t} (Π_{i=k+1..t} ∂h_i/∂h_{i−1}) ∂h_k/∂b]. The
    product has its latest factor on the left.
    """
    pairs = [(t, k) for t in range(len(row)) for k in range(t + 1)]

    def product(t: int, k: int) -> Array:
        return reduce(np.matmul, steps[t:k:-1], np.eye(len(steps[0])))

    return (
        [row_t @ now for row_t, now in zip(row, immediate, strict=True)],
        [row[t] @ immediate[k] for t, k in pairs],
        [row[t] @ product(t, k) @ immediate[k] for t, k in pairs],
    )


def total_derivatives(net: Example, h: Array) -> list[Array]:
    """Return dh_t/db_h = diag(1 − h_t²) (I + W dh_{t−1}/db_h) for t = 0…T."""
    total, totals = np.zeros_like(net.W), []
    for h_t in h:
        total = h_by_b_h(h_t) @ (np.eye(len(h_t)) + net.W @ total)
        totals.append(total)
    return totals
