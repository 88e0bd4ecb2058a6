"""The exercise: a learner writes the backward pass, and this module says which gradients are right.

A wrong gradient is compared with the results of known mistakes: `bptt` with one part of its code
replaced. A mistake in ∂L/∂h_t makes several gradients wrong; it is named once, as their common
cause. `runner` runs the learner's file in a separate process.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations
from typing import Any

import numpy as np

from charrnn.lecture.rnn import (
    Array,
    Example,
    bptt,
    distance,
    forward,
    numeric_gradient,
    random_network,
)

NAMES = ("V", "W", "b_h", "U", "b_y", "h_before")
TOLERANCE = 1e-5  # how near a gradient must be to count as right, or as the result of a mistake
SIZES = ((4, 5, 3), (5, 7, 4), (3, 4, 5))  # H, T − 1, N of the networks

AT_A = (
    "L_t = −ln ŷ_t[target_t], ŷ_t = softmax(a_t), a_t = U h_t + b_y: work out ∂L_t/∂a_t for N = 2 "
    "on paper. What is ∂a_t/∂b_y, and what is added up?"
)
AT_H = (
    "h_t is read twice, by a_t = U h_t + b_y and by A_{t+1} = V x_{t+1} + W h_t + b_h: what does "
    "each path contribute to ∂L/∂h_t? What are ∂h_t/∂A_t, in terms of h_t alone, and ∂A_t/∂b_h?"
)
HINTS = {  # by the start of a message, or by gradient; the first match counts
    "missing": f"the keys of the dict that backward returns are {', '.join(NAMES)}",
    "shape": "print the shapes of the two sides of each +=; which product has the shape of "
    "the array that it is added to?",
    "some numbers": "print the gradient at each t; which line gives the first nan or inf?",
    "∂L_t/∂a_t": AT_A,
    "the loop": "L = Σ_t L_t: which t does the loop visit, and in which order?",
    "∂L/∂h_t": AT_H,
    "the carry": "A_{t+1} = V x_{t+1} + W h_t + b_h: what does ∂L/∂A_{t+1} say about h_t?",
    "tanh'": "h_t = tanh(A_t): what is ∂h_t/∂A_t, in terms of h_t alone, and where is it needed?",
    "divided by T": "L = Σ_t L_t: how often does each L_t count?",
    "b_y": AT_A,
    "U": "a_t = U h_t + b_y: what does U multiply at step t, and is every step added up?",
    "b_h": AT_H,
    "V": "A_t = V x_t + W h_{t−1} + b_h: which column of V does x_t select, and what if it recurs?",
    "W": "A_t = V x_t + W h_{t−1} + b_h: what does W multiply at step t, and what at t = 0?",
    "h_before": "A_0 = V x_0 + W h_{−1} + b_h: by which path does h_{−1} reach the loss?",
}
STILL_ZERO = "still zero: backward adds nothing yet"


def template() -> str:
    """Return the file that a learner fills in."""
    return (resources.files("charrnn.lecture") / "my_rnn.txt").read_text(encoding="utf-8")


ONEHOT, DH, DERIVATIVE = "da[net.targets[t]] -= 1", "net.U.T @ da + carry", "(1 - h[t] ** 2)"
# {a part of `bptt`: {message about a mistake in it: the code that makes the mistake}}
CHANGES = {
    ONEHOT: {
        "∂L_t/∂a_t lacks the − onehot(target_t)": "pass",
        "∂L_t/∂a_t: yours has + onehot(target_t), not −": "da[net.targets[t]] += 1",
        "∂L_t/∂a_t: yours has the wrong sign, onehot − ŷ_t": f"{ONEHOT}; da *= -1",
        "∂L_t/∂a_t: yours uses x_t as the target": "da[net.x[t]] -= 1",
        "∂L_t/∂a_t: yours is set to −1 at the target (= instead of −=)": "da[net.targets[t]] = -1",
        "∂L_t/∂a_t: yours subtracts 1 from every number of ŷ_t": "da -= 1",
        "∂L_t/∂a_t: yours is ∂L_t/∂ŷ_t, without the softmax's Jacobian": (
            "da[:] = np.eye(len(da))[net.targets[t]] / -da"
        ),
        "∂L_t/∂a_t: yours has only the diagonal of the softmax's Jacobian": (
            "da[:] = np.eye(len(da))[net.targets[t]] * (da - 1)"
        ),
    },
    # sums over t
    "range(T))": {
        "the loop leaves out the first step": "range(1, T))",
        "the loop leaves out the last step": "range(T - 1))",
    },
    "reversed(range(T))": {"the loop goes forwards in time": "range(T)"},
    "dU +=": {"∂L/∂U is overwritten at each step (= instead of +=)": "dU[:] ="},
    "db_y +=": {"∂L/∂b_y is overwritten at each step (= instead of +=)": "db_y ="},
    "dW +=": {"∂L/∂W is overwritten at each step (= instead of +=)": "dW[:] ="},
    "db_h +=": {"∂L/∂b_h is overwritten at each step (= instead of +=)": "db_h ="},
    "] += dA": {
        "∂L/∂V loses repeats: column x_t is overwritten (= instead of +=)": "] = dA",
        "∂L/∂V lacks tanh'": "] += dh",
    },
    # ∂L/∂h_t
    "carry = net.W.T @ dA": {
        "the loop ends after one iteration: is there a return or break in it?": (
            "carry = net.W.T @ dA; break"
        ),
        "the carry stays zero: nothing is passed on to h_{t−1}": "pass",
        "the carry is never reset: it adds up over all steps": "carry += net.W.T @ dA",
        "the carry: yours has W, not its transpose": "carry = net.W @ dA",
        "the carry has the wrong sign": "carry = -net.W.T @ dA",
        "the carry lacks tanh': yours is Wᵀ ∂L/∂h_t": "carry = net.W.T @ dh",
        "the carry lacks Wᵀ: yours is ∂L/∂A_t": "carry = dA",
        "the carry lacks tanh' and Wᵀ: yours is ∂L/∂h_t": "carry = dh",
        "the carry: yours has Wᵀ and tanh' in the wrong order": (
            f"carry = {DERIVATIVE} * (net.W.T @ dh)"
        ),
    },
    DH: {
        "∂L/∂h_t lacks what comes back from step t + 1": "net.U.T @ da",
        "∂L/∂h_t has only the last step's loss: at the others nothing comes through a_t": (
            "(net.U.T @ da if t == T - 1 else carry)"
        ),
        "tanh' is missing on the path through the carry": f"{DH} / {DERIVATIVE}",
        "tanh' is missing on the path through a_t": f"net.U.T @ da / {DERIVATIVE} + carry",
    },
    DERIVATIVE: {
        "tanh' is missing: yours has ∂L/∂A_t = ∂L/∂h_t": "1",
        "tanh' lacks its square: yours has 1 − h_t": "(1 - h[t])",
        "tanh': yours has 1 + h_t²": "(1 + h[t] ** 2)",
        "tanh': yours is a sigmoid's, h_t (1 − h_t)": "(h[t] * (1 - h[t]))",
        "tanh': yours takes tanh of h_t again": "(1 - np.tanh(h[t]) ** 2)",
        "tanh': yours is taken at h_{t−1}": "(1 - h_last ** 2)",
        "tanh' is multiplied in twice": "(1 - h[t] ** 2) ** 2",
        "tanh' lacks its brackets": "1 - h[t] ** 2",
    },
    # terms of the sums
    "np.outer(da, h[t])": {
        "∂L/∂U: yours has h_{t−1} instead of h_t": "np.outer(da, h_last)",
        "∂L/∂U lacks h_t: all its columns are equal": "da[:, None]",
    },
    "np.outer(dA, h_last)": {
        "∂L/∂W: yours has h_t instead of h_{t−1}": "np.outer(dA, h[t])",
        "∂L/∂W is transposed": "np.outer(h_last, dA)",
        "∂L/∂W lacks tanh'": "np.outer(dh, h_last)",
        "∂L/∂W: all its rows are equal (* of two vectors)": "dA * h_last",
        "∂L/∂W: all its numbers are equal (@ of two vectors)": "dA @ h_last",
    },
    "h[t - 1] if t > 0 else net.h_before": {
        "∂L/∂W: yours uses the last h as h_{−1}, h[t − 1] at t = 0": "h[t - 1]",
        "∂L/∂W: yours uses zero as h_{−1}": "h[t - 1] if t > 0 else 0 * net.h_before",
    },
    "db_h += dA": {
        "∂L/∂b_h lacks tanh'": "db_h += dh",
        "∂L/∂b_h: all its numbers are equal (a sum)": "db_h += dA.sum()",
        "∂L/∂b_h counts only each step's own loss, as (2) of the quiz does": (
            f"db_h += net.U.T @ da * {DERIVATIVE}"
        ),
        "∂L/∂b_h has the identity for each ∂h_i/∂h_{i−1}, as in (3) of the quiz": (
            "db_h += net.U.T @ (y_hat - np.eye(len(da))[net.targets])[t:].sum(0) * (1 - h[t] ** 2)"
        ),
    },
    "dV[:, net.x[t]] +=": {
        "∂L/∂V: yours has the column of the target": "dV[:, net.targets[t]] +=",
        "∂L/∂V: yours adds to every column, not only to that of x_t": "dV.T[:] +=",
    },
    '"h_before": carry': {
        "∂L/∂h_{−1} lacks Wᵀ: yours is ∂L/∂A_0": '"h_before": dA',
        "∂L/∂h_{−1}: yours is ∂L/∂h_0": '"h_before": dh',
    },
}
MISTAKES = {  # message: (part of `bptt`, the code that replaces it)
    said: (part, instead) for part, changes in CHANGES.items() for said, instead in changes.items()
}


@dataclass(frozen=True)
class Verdict:
    """The verdict on one gradient."""

    name: str
    right: bool
    distance: float | None  # ‖mine − numeric‖ / ‖numeric‖, the largest over the networks
    mistake: str | None  # None: right, or no known mistake fits


@cache
def networks() -> tuple[Example, ...]:
    """Return networks on which no two known mistakes give the same gradients.

    They have repeats and an initial state.
    """
    made = []
    for seed, (H, T, N) in enumerate(SIZES):
        rng = np.random.default_rng(seed)
        net = random_network(rng, H, T, N)
        net.W[:] += rng.normal(0, 0.3, (H, H))
        net.x[-2:] = net.x[0]
        made.append(net)
    return tuple(made)


def arguments(net: Example) -> dict[str, Array]:
    """Return the arguments of a learner's `backward` by name, in order."""
    _, h, y_hat = forward(net)
    return {**vars(net), "h": h, "y_hat": y_hat}


def joined(gradients: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Return each gradient as one vector, joined over all networks."""
    on_each = [*gradients]
    return {name: np.concatenate([array[name].ravel() for array in on_each]) for name in on_each[0]}


@cache
def numeric() -> dict[str, Array]:
    """Return the gradients by central differences."""
    return joined({name: numeric_gradient(net, name) for name in NAMES} for net in networks())


@cache
def gradients_with(*mistakes: str) -> dict[str, Array]:
    """Return the gradients of `bptt` with these mistakes; of two in one part, only the first."""
    source = inspect.getsource(bptt)
    for mistake in mistakes:
        source = source.replace(*MISTAKES[mistake])
    space: dict[str, Any] = {**bptt.__globals__}
    exec(source, space)
    return joined(map(space["bptt"], networks()))


def mark(answers: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Return the verdict on each gradient of `answers`, one set for each of `networks()`."""
    said = {name: why for name in NAMES if (why := _unusable(answers, name))}
    usable = [name for name in NAMES if name not in said]
    mine = joined({name: np.asarray(answer[name]) for name in usable} for answer in answers)
    far = {name: distance(mine[name], numeric()[name]) for name in usable}
    right = {name for name in usable if far[name] <= TOLERANCE}
    said |= _explained(mine, {*usable} - right)
    return [Verdict(name, name in right, far.get(name), said.get(name)) for name in NAMES]


def _unusable(answers: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """Return why a gradient cannot be compared, None if it can."""
    for answer, net in zip(answers, networks(), strict=True):
        if name not in answer:
            return "missing from the dict"
        array, shape = np.asarray(answer[name]), getattr(net, name).shape
        if array.shape != shape:
            turned = ", the transpose," * (array.T.shape == shape)
            return f"shape {array.shape}{turned} instead of {shape}"
        if not np.isfinite(array).all():
            return "some numbers are not finite"
    return None


def _explained(mine: dict[str, Array], wrong: set[str]) -> dict[str, str]:
    """Return the mistakes in each wrong gradient, if they are known.

    They come from the smallest set of at most two mistakes that explains the most gradients. A
    gradient that it doesn't explain may be right except for a factor, or have a mistake of its own.
    A gradient of exact zeros isn't written yet, and doesn't count.
    """
    written, said = {name for name in mine if mine[name].any()}, dict[str, str]()
    for most in (1, 2):
        sets = [mistakes for n in range(most + 1) for mistakes in combinations(MISTAKES, n)]
        same = {mistakes: _same(mine, gradients_with(*mistakes)) for mistakes in sets}
        best = max(sets, key=lambda mistakes: len(same[mistakes] & written))
        if written <= same[best]:
            break
    for name in wrong:
        fitting = [mistakes for mistakes in sets if name in same[mistakes]]
        common = [mistakes for mistakes in fitting if {*mistakes} <= {*best}]
        if common:
            said[name] = "; ".join(common[0])  # the smallest, like fitting[0]
        elif name not in written:
            said[name] = STILL_ZERO
        elif factor := _factor(mine[name], name):
            said[name] = factor
        elif fitting:
            said[name] = "; ".join(fitting[0])
    return said


def _same(mine: Mapping[str, Array], others: Mapping[str, Array]) -> set[str]:
    """Return which gradients are the same."""
    return {name for name in mine if distance(mine[name], others[name]) <= TOLERANCE}


def _factor(mine: Array, name: str) -> str | None:
    """Return the message about a gradient that is right except for a factor, None for others."""
    right = numeric()[name]
    T = np.concatenate([np.full(getattr(net, name).size, len(net.x)) for net in networks()])
    factor = float(mine @ right / (right @ right))
    known = {
        "wrong sign": -right,
        "divided by T, but L is the sum over t, not the mean": right / T,
        "T times too large": right * T,
        f"{factor:.4g} times the right gradient": right * factor,
    }
    return next((said for said, it in known.items() if distance(mine, it) <= TOLERANCE), None)


def hint(verdicts: Sequence[Verdict]) -> str | None:
    """Return what to look at for the first mistake, None if all gradients are right."""
    wrong = "".join(f"; {one.name}; {one.mistake}" for one in verdicts if not one.right)
    return next((text for key, text in HINTS.items() if f"; {key}" in wrong), None)
