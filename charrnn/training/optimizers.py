"""Optimizers on the flat array of parameters: each is a class and an entry in OPTIMIZER_CLASSES."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
EPSILON = 1e-8  # keeps a parameter that has no gradient where it is


class Optimizer(ABC):
    """An update rule. Its moments are twins of the flat array; resuming needs them."""

    lr: ClassVar[float]  # peak rate for an lstm of 256; defaults.chosen_rate has the others'
    names: ClassVar[str]  # of the moments, a letter each

    def __init__(self, theta: Array, characters: float) -> None:
        """`characters`: predicted in a step."""
        self.characters = characters
        self.moments = {name: np.zeros_like(theta) for name in self.names}
        self.scratch = np.empty_like(theta)

    @abstractmethod
    def update(self, theta: Array, g: Array, lr: float, step: int) -> None:
        """Move theta against g in place; g may be overwritten. `step` counts from 1."""


class Adam(Optimizer):
    """m ← β₁ m + (1−β₁) g, v ← β₂ v + (1−β₂) g²; θ ← θ − lr · m̂ / (√v̂ + ε).

    m̂ and v̂ are m and v freed from their bias towards 0 (Kingma & Ba 2015).
    """

    lr, names = 1e-2, "mv"
    beta1 = 0.9
    half_life = 236_000  # characters; v forgets in text, not in steps: β₂ is 0.997 at B = T = 32

    def update(self, theta: Array, g: Array, lr: float, step: int) -> None:
        m, v, u = self.moments["m"], self.moments["v"], self.scratch
        beta2 = max(0.9, 0.5 ** (self.characters / self.half_life))
        np.multiply(g, 1 - self.beta1, out=u)
        m *= self.beta1
        m += u
        g *= g
        g *= 1 - beta2
        v *= beta2
        v += g
        # m̂ / (√v̂ + ε) with both corrections moved into two numbers
        correction = (1 - beta2**step) ** 0.5
        rate = lr * correction / (1 - self.beta1**step)
        _scaled_step(theta, m, v, u, rate, EPSILON * correction)


class RMSprop(Optimizer):
    """v ← ρ v + (1−ρ) g²; θ ← θ − lr · g / (√v + ε) (Tieleman & Hinton 2012; ρ as in char-rnn)."""

    lr, names = 2e-3, "v"
    rho = 0.95

    def update(self, theta: Array, g: Array, lr: float, step: int) -> None:
        v, u = self.moments["v"], self.scratch
        np.multiply(g, g, out=u)
        u *= 1 - self.rho
        v *= self.rho
        v += u
        _scaled_step(theta, g, v, u, lr)


class Adagrad(Optimizer):
    """v ← v + g²; θ ← θ − lr · g / (√v + ε) (Duchi et al. 2011)."""

    lr, names = 2e-2, "v"

    def update(self, theta: Array, g: Array, lr: float, step: int) -> None:
        v, u = self.moments["v"], self.scratch
        np.multiply(g, g, out=u)
        v += u
        _scaled_step(theta, g, v, u, lr)


class SGD(Optimizer):
    """m ← μ m + g; θ ← θ − lr · m, with momentum μ = 0.9 (Polyak 1964)."""

    lr, names = 0.5, "m"
    mu = 0.9

    def update(self, theta: Array, g: Array, lr: float, step: int) -> None:
        m, u = self.moments["m"], self.scratch
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


def _scaled_step(
    theta: Array, g: Array, v: Array, u: Array, lr: float, epsilon: float = EPSILON
) -> None:
    """θ ← θ − lr · g / (√v + ε), with u as scratch."""
    np.sqrt(v, out=u)
    u += epsilon
    np.divide(g, u, out=u)
    u *= lr
    theta -= u


def clip_by_norm(g: Array, limit: float) -> float:
    """Return the Euclidean norm of g before it was scaled, in place, to at most `limit` (0: off).

    The norm is finite wherever g is: large gradients are measured in float64, where their squares
    don't overflow.
    """
    wide = g if np.abs(g).max(initial=0) < 1e15 else g.astype(np.float64)
    norm = float(np.sqrt(np.dot(wide, wide)))
    if limit and norm > limit and np.isfinite(norm):
        g *= limit / norm
    return norm
