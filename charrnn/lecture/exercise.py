"""The exercise: a learner writes the backward pass, and this module says which gradients are right.

A wrong gradient is compared with what known mistakes give, each of which changes lines of `bptt`. A
mistake in ∂L/∂h_t makes several gradients wrong at once; it is named once, as their common cause.
`runner` runs the learner's file, in a process of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from charrnn.lecture.rnn import (
    Array,
    Network,
    bptt,
    distance,
    numeric_gradient,
    random_network,
)

Gradients = Mapping[str, Array]
NAMES = ("V", "W", "b_h", "U", "b_y", "h_before")
TOLERANCE = 1e-5  # a gradient this near the numeric one is right; this near a mistake's it is that
SIZES = ((4, 5, 3), (5, 7, 4), (3, 4, 5))  # H, T − 1, N of the networks

HINTS = {
    "b_y": "a_t = U h_t + b_y: b_y acts on each L_t once. What is ∂a_t/∂b_y, and what is added up?",
    "U": "a_t = U h_t + b_y: what does U multiply at step t, and is every step added up?",
    "b_h": "A_t = V x_t + W h_{t−1} + b_h: b_h acts at every step. What is ∂A_t/∂b_h?",
    "V": "A_t = V x_t + W h_{t−1} + b_h: which column of V does x_t choose, and if it comes again?",
    "W": "A_t = V x_t + W h_{t−1} + b_h: what does W multiply at step t, and what at t = 0?",
    "h_before": "A_0 = V x_0 + W h_{−1} + b_h: by which way does h_{−1} reach the loss?",
}
COMMON_HINTS = (
    "L_t = −ln ŷ_t[target_t], ŷ_t = softmax(a_t): work out ∂L_t/∂a_t for N = 2 on paper",
    "h_t = tanh(A_t): what is ∂h_t/∂A_t, said with h_t alone? And h_t is read twice: by "
    "a_t = U h_t + b_y and by A_{t+1} = V x_{t+1} + W h_t + b_h",
)


def template() -> str:
    """Return the file that a learner fills in."""
    return (resources.files("charrnn.lecture") / "my_rnn.txt").read_text(encoding="utf-8")


class Mistake(NamedTuple):
    """A known mistake: what to say, and lines of `bptt` with what stands there instead."""

    said: str
    changes: tuple[tuple[str, str], ...]


def _mistake(said: str, *lines: str) -> Mistake:
    """Return a mistake: a line of `bptt` and its replacement, perhaps several in turn."""
    return Mistake(said, tuple(zip(lines[::2], lines[1::2], strict=True)))


ONEHOT, DH, DERIVATIVE = "da[net.targets[t]] -= 1", "net.U.T @ da + carry", "(1 - h[t] ** 2)"
CARRY, LAST, STEPS = "carry = net.W.T @ dA", "h[t - 1] if t > 0 else net.h_before", "range(T))"
MISTAKES = (
    # ∂L_t/∂a_t
    _mistake("∂L_t/∂a_t lacks the − onehot(target_t)", ONEHOT, "pass"),
    _mistake("∂L_t/∂a_t has + onehot(target_t) instead of −", ONEHOT, "da[net.targets[t]] += 1"),
    _mistake("∂L_t/∂a_t has the wrong sign: onehot − ŷ_t", ONEHOT, f"{ONEHOT}; da *= -1"),
    _mistake("∂L_t/∂a_t takes x_t for the target", ONEHOT, "da[net.x[t]] -= 1"),
    _mistake(
        "∂L_t/∂a_t is ∂L_t/∂ŷ_t: the softmax's Jacobian is missing",
        "da = y_hat[t].copy()",
        "da = 0 * y_hat[t]",
        ONEHOT,
        "da[net.targets[t]] -= 1 / y_hat[t, net.targets[t]]",
    ),
    _mistake(
        "∂L_t/∂a_t has the diagonal of the softmax's Jacobian alone",
        "da = y_hat[t].copy()",
        "da = 0 * y_hat[t]",
        ONEHOT,
        "da[net.targets[t]] -= 1 - y_hat[t, net.targets[t]]",
    ),
    # sums over t
    _mistake("∂L/∂U is overwritten at each step (= for +=)", "dU +=", "dU ="),
    _mistake("∂L/∂b_y is overwritten at each step (= for +=): one t alone", "db_y +=", "db_y ="),
    _mistake("∂L/∂W is overwritten at each step (= for +=)", "dW +=", "dW ="),
    _mistake("∂L/∂b_h is overwritten at each step (= for +=): one t alone", "db_h +=", "db_h ="),
    _mistake(
        "∂L/∂V loses repeats: the column of x_t is overwritten (= for +=)", "] += dA", "] = dA"
    ),
    _mistake("the first step is left out of the loop", STEPS, "range(1, T))"),
    _mistake("the last step is left out of the loop", STEPS, "range(T - 1))"),
    _mistake("the loop goes forwards in time", "reversed(range(T))", "range(T)"),
    # ∂L/∂h_t
    _mistake("∂L/∂h_t lacks what comes back from step t + 1", DH, "net.U.T @ da"),
    _mistake("nothing is passed on to h_{t−1}: the carry stays zero", CARRY, "pass"),
    _mistake(
        "∂L/∂h_t has the last step's loss alone: no output's share at the others",
        DH,
        "(net.U.T @ da if t == T - 1 else carry)",
    ),
    _mistake("the carry is never reset: it adds up over all steps", CARRY, "carry += net.W.T @ dA"),
    _mistake("the carry has W, not its transpose", CARRY, "carry = net.W @ dA"),
    _mistake("the carry lacks the tanh': Wᵀ times ∂L/∂h_t", CARRY, "carry = net.W.T @ dh"),
    _mistake("the carry lacks Wᵀ: ∂L/∂A_t itself is passed on", CARRY, "carry = dA"),
    _mistake("the carry lacks tanh' and Wᵀ: ∂L/∂h_t itself is passed on", CARRY, "carry = dh"),
    # ∂h_t/∂A_t
    _mistake("the tanh' is missing: ∂L/∂A_t = ∂L/∂h_t", DERIVATIVE, "1"),
    _mistake("the tanh' lacks its square: 1 − h_t", DERIVATIVE, "(1 - h[t])"),
    _mistake("the tanh' is 1 + h_t²", DERIVATIVE, "(1 + h[t] ** 2)"),
    _mistake("the tanh' is that of a sigmoid: h_t (1 − h_t)", DERIVATIVE, "(h[t] * (1 - h[t]))"),
    _mistake("the tanh' takes tanh of h_t again", DERIVATIVE, "(1 - np.tanh(h[t]) ** 2)"),
    _mistake("the tanh' is taken at h_{t−1}", DERIVATIVE, "(1 - h_last ** 2)"),
    _mistake("the tanh' is multiplied in twice", DERIVATIVE, "(1 - h[t] ** 2) ** 2"),
    # what stands in the sums
    _mistake("∂L/∂U has h_{t−1} for h_t", "outer(da, h[t])", "outer(da, h_last)"),
    _mistake("∂L/∂W has h_t for h_{t−1}", "outer(dA, h_last)", "outer(dA, h[t])"),
    _mistake("∂L/∂W is transposed", "outer(dA, h_last)", "outer(h_last, dA)"),
    _mistake("∂L/∂W takes the last h for h_{−1}: h[t − 1] at t = 0", LAST, "h[t - 1]"),
    _mistake("∂L/∂W takes h_{−1} for zero", LAST, "h[t - 1] if t > 0 else 0 * net.h_before"),
    _mistake("∂L/∂W lacks the tanh'", "outer(dA, h_last)", "outer(dh, h_last)"),
    _mistake("∂L/∂V lacks the tanh'", "] += dA", "] += dh"),
    _mistake("∂L/∂b_h lacks the tanh'", "db_h += dA", "db_h += dh"),
    _mistake("∂L/∂V has the column of the target", "dV[:, net.x[t]]", "dV[:, net.targets[t]]"),
    _mistake(
        "∂L/∂b_h counts each step's own loss alone, the quiz's (2)",
        "db_h += dA",
        "db_h += net.U.T @ da * (1 - h[t] ** 2)",
    ),
    _mistake(
        "∂L/∂b_h has the identity for each ∂h_i/∂h_{i−1}, the quiz's (3)",
        "T = len(net.x)",
        "T, plain = len(net.x), 0",
        "db_h += dA",
        "plain = plain + net.U.T @ da; db_h += plain * (1 - h[t] ** 2)",
    ),
    _mistake("∂L/∂h_{−1} is ∂L/∂A_0: Wᵀ is missing", '"h_before": carry', '"h_before": dA'),
    _mistake("∂L/∂h_{−1} is ∂L/∂h_0", '"h_before": carry', '"h_before": dh'),
)


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one gradient."""

    name: str
    right: bool
    distance: float | None  # ‖mine − numeric‖ / ‖numeric‖, the largest over the networks
    mistake: str | None  # None: right, or not a known one


@cache
def networks() -> tuple[Network, ...]:
    """Return networks with repeats and a state, on which no two known mistakes look alike."""
    made = []
    for seed, (H, T, N) in enumerate(SIZES):
        rng = np.random.default_rng(seed)
        net = random_network(rng, H, T, N, gain=1.0)
        net.W[:] += rng.normal(0, 0.3, (H, H))
        net.x[-2:] = net.x[0]
        made.append(net)
    return tuple(made)


@cache
def numeric() -> tuple[dict[str, Array], ...]:
    """Return the gradients of each network by central differences."""
    return tuple({name: numeric_gradient(net, name) for name in NAMES} for net in networks())


def with_mistakes(mistakes: Sequence[Mistake]) -> tuple[dict[str, Array], ...] | None:
    """Return what `bptt` gives with these mistakes on each network.

    None where they change the same line.
    """
    source = inspect.getsource(bptt)
    for old, new in (change for mistake in mistakes for change in mistake.changes):
        if source.count(old) != 1:
            return None
        source = source.replace(old, new)
    space: dict[str, Any] = {**bptt.__globals__}
    exec(source, space)
    return tuple(space["bptt"](net) for net in networks())


@cache
def catalogue(most: int) -> dict[tuple[Mistake, ...], tuple[dict[str, Array], ...]]:
    """Return the gradients that known mistakes give, alone and up to `most` of them together."""
    sets = (mistakes for n in range(1, most + 1) for mistakes in combinations(MISTAKES, n))
    found = ((mistakes, with_mistakes(mistakes)) for mistakes in sets)
    return {mistakes: gradients for mistakes, gradients in found if gradients is not None}


def away(mine: Sequence[Gradients], reference: Sequence[Gradients], name: str) -> float:
    """Return the largest distance of one gradient from the reference over the networks."""
    pairs = zip(mine, reference, strict=True)
    return max(distance(a[name], b[name]) for a, b in pairs)


def mark(answers: Sequence[Mapping[str, Any]]) -> tuple[Verdict, ...]:
    """Return the verdict on each gradient of `answers`, one set for each of `networks()`."""
    unusable: dict[str, str] = {}
    mine = [_usable(answer, net, unusable) for answer, net in zip(answers, networks(), strict=True)]
    distances = {name: away(mine, numeric(), name) for name in NAMES}
    wrong = [name for name in NAMES if not distances[name] <= TOLERANCE]
    said = (_explained(mine, wrong) if wrong else {}) | unusable
    return tuple(
        Verdict(n, n not in wrong, None if n in unusable else distances[n], said.get(n))
        for n in NAMES
    )


def _usable(answer: Mapping[str, Any], net: Network, unusable: dict[str, str]) -> Gradients:
    """Return the gradients as arrays, of infinities where there is no usable one; say why."""
    usable = {}
    for name in NAMES:
        shape = getattr(net, name).shape
        found = np.asarray(answer.get(name, np.nan), np.float64)
        if name not in answer:
            unusable[name] = "is missing from the dict"
        elif found.shape != shape:
            turned = ", the transpose" if len(shape) == 2 and found.shape == shape[::-1] else ""
            unusable.setdefault(name, f"has shape {found.shape}{turned}; expected {shape}")
        elif not np.isfinite(found).all():
            unusable[name] = "has numbers that are not finite"
        usable[name] = found if name not in unusable else np.full(shape, np.inf)
    return usable


def _explained(mine: Sequence[Gradients], wrong: Sequence[str]) -> dict[str, str]:
    """Return what is wrong, by gradient: of the known mistakes those that explain most of the six.

    One mistake is preferred to two. What they leave open may be right but for a factor, or be
    explained by a mistake that shows there alone.
    """
    if not any(gradients[name].any() for gradients in mine for name in NAMES):
        return dict.fromkeys(wrong, "is still zero")
    for most in (1, 2):
        same = {
            mistakes: {name for name in NAMES if away(mine, gradients, name) <= TOLERANCE}
            for mistakes, gradients in catalogue(most).items()
        }
        best = max(same, key=lambda mistakes: (len(same[mistakes]), -len(mistakes)))
        if len(same[best]) == len(NAMES):
            break
    said = {}
    for name in wrong:
        alone = next((mistakes for mistakes, names in same.items() if name in names), None)
        if name in same[best]:
            said[name] = _named(best, name)
        elif factor := _factor(mine, name):
            said[name] = factor
        elif alone is not None:
            said[name] = _named(alone, name)
    return said


def _named(mistakes: tuple[Mistake, ...], name: str) -> str:
    """Return what is said of those of the mistakes, one or two, that this gradient shows."""
    if len(mistakes) == 1:
        return mistakes[0].said
    both, one = catalogue(2)[mistakes], catalogue(1)
    shown = [  # a mistake shows where the other one alone gives something else
        mistake.said
        for mistake, other in zip(mistakes, reversed(mistakes), strict=True)
        if away(both, one[(other,)], name) > TOLERANCE
    ]
    return "; ".join(shown)


def hint(verdicts: Sequence[Verdict]) -> str | None:
    """Return the equation to look at for the first wrong gradient, None if there is none.

    Where nearly all are wrong, their common cause comes before what is particular to one.
    """
    wrong = [verdict.name for verdict in verdicts if not verdict.right]
    if {"U", "b_y"} <= {*wrong}:
        return COMMON_HINTS[0]
    if len(wrong) > 2:
        return COMMON_HINTS[1]
    return HINTS[wrong[0]] if wrong else None


def _factor(mine: Sequence[Gradients], name: str) -> str | None:
    """Return what to say of a gradient that is right but for a factor, None of others."""
    steps = [len(net.x) for net in networks()]
    factors = {
        "has the wrong sign": [-1.0 for _ in steps],
        "is divided by T: L is the sum over t, not the mean": [1 / T for T in steps],
        "is T times too large": [float(T) for T in steps],
        "is twice too large": [2.0 for _ in steps],
        "is half of what it should be": [0.5 for _ in steps],
        "is zero": [0.0 for _ in steps],
    }
    for said, values in factors.items():
        scaled = [{name: c * net[name]} for c, net in zip(values, numeric(), strict=True)]
        if away(mine, scaled, name) <= TOLERANCE:
            return said
    return None
