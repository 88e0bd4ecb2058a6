"""Optimizers on the flat array of parameters. Each is one class, its defaults and one entry in OPTIMIZER_CLASSES.

`update` takes the gradient g and the rate of this step; `moments` are the arrays that resuming needs.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
EPSILON = 1e-8  # keeps a parameter that has no gradient where it is


class Optimizer(Protocol):
    """An update rule with its moments, twins of the flat array."""

    lr: ClassVar[float]  # default peak rate for an lstm of 256; choices.chosen_rate has the others'
    moments: dict[str, Array]

    def __init__(self, theta: Array) -> None: ...

    def update(self, theta: Array, g: Array, lr: float, step: int) -> None:
        """Move theta against g in place; g may be overwritten. `step` counts from 1."""


class Adam:
    """m ← β₁ m + (1−β₁) g, v ← β₂ v + (1−β₂) g²; θ ← θ − lr · m̂ / (√v̂ + ε), both freed from their bias (Kingma & Ba 2015)."""

    lr: ClassVar[float] = 1e-2
    beta1, beta2 = 0.9, 0.99

    def __init__(self, theta: Array) -> None:
        self.moments = {"m": np.zeros_like(theta), "v": np.zeros_like(theta)}
        self._u = np.zeros_like(theta)

    def update(self, theta: Array, g: Array, lr: float, step: int) -> None:
        m, v, u = self.moments["m"], self.moments["v"], self._u
        np.multiply(g, 1 - self.beta1, out=u)
        m *= self.beta1
        m += u
        g *= g
        g *= 1 - self.beta2
        v *= self.beta2
        v += g
        np.sqrt(v, out=u)
        # m̂ / (√v̂ + ε) with both corrections moved into two numbers
        correction = (1 - self.beta2**step) ** 0.5
        u += EPSILON * correction
        np.divide(m, u, out=u)
        u *= lr * correction / (1 - self.beta1**step)
        theta -= u


def _scaled_step(theta: Array, g: Array, v: Array, u: Array, lr: float) -> None:
    """θ ← θ − lr · g / (√v + ε), with u as scratch."""
    np.sqrt(v, out=u)
    u += EPSILON
    np.divide(g, u, out=u)
    u *= lr
    theta -= u


class RMSprop:
    """v ← ρ v + (1−ρ) g²; θ ← θ − lr · g / (√v + ε) (Tieleman & Hinton 2012; ρ as in char-rnn)."""

    lr: ClassVar[float] = 2e-3
    rho = 0.95

    def __init__(self, theta: Array) -> None:
        self.moments = {"v": np.zeros_like(theta)}
        self._u = np.zeros_like(theta)

    def update(self, theta: Array, g: Array, lr: float, step: int) -> None:
        v, u = self.moments["v"], self._u
        np.multiply(g, g, out=u)
        u *= 1 - self.rho
        v *= self.rho
        v += u
        _scaled_step(theta, g, v, u, lr)


class Adagrad:
    """v ← v + g²; θ ← θ − lr · g / (√v + ε) (Duchi et al. 2011)."""

    lr: ClassVar[float] = 2e-2

    def __init__(self, theta: Array) -> None:
        self.moments = {"v": np.zeros_like(theta)}
        self._u = np.zeros_like(theta)

    def update(self, theta: Array, g: Array, lr: float, step: int) -> None:
        v, u = self.moments["v"], self._u
        np.multiply(g, g, out=u)
        v += u
        _scaled_step(theta, g, v, u, lr)


class SGD:
    """m ← μ m + g; θ ← θ − lr · m, with momentum μ = 0.9 (Polyak 1964)."""

    lr: ClassVar[float] = 0.5
    mu = 0.9

    def __init__(self, theta: Array) -> None:
        self.moments = {"m": np.zeros_like(theta)}
        self._u = np.zeros_like(theta)

    def update(self, theta: Array, g: Array, lr: float, step: int) -> None:
        m, u = self.moments["m"], self._u
        m *= self.mu
        m += g
        np.multiply(m, lr, out=u)
        theta -= u


OPTIMIZER_CLASSES: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "sgd": SGD,
}


def clip_by_norm(g: Array, limit: float) -> float:
    """Return the Euclidean norm of g before it was scaled, in place, to at most `limit` (0: left as it is).

    The norm is finite wherever g is: large gradients are measured in float64, lest their squares overflow.
    """
    norm = (
        float(np.sqrt(np.dot(g, g)))
        if np.abs(g).max(initial=0) < 1e15
        else float(np.linalg.norm(g.astype(np.float64)))
    )
    if limit and norm > limit and np.isfinite(norm):
        g *= limit / norm
    return norm
