"""Optimizers on the flat array of parameters: each is a class and an entry in OPTIMIZER_CLASSES."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from charrnn.arrays import Array

EPSILON = 1e-8  # prevents 0 / 0 for a parameter whose gradient has been 0 so far


class Optimizer:
    """An update rule. Its moments are arrays like the flat one of θ; resuming needs them."""

    lr: ClassVar[float]  # peak rate for an lstm of 256; defaults.chosen_rate scales it for others
    names: ClassVar[str]  # of the moments, a letter each
    # change(lr, step, g, *moments) returns d for θ ← θ − d from the gradient g of any stretch of θ.
    # It updates the moments of that stretch in place, and may overwrite g; steps count from 1.
    change: Callable[..., Array]

    def __init__(self, characters: float) -> None:
        """Make an optimizer for steps that predict this many characters."""
        self.characters = characters


class Adam(Optimizer):
    """m ← β₁ m + (1−β₁) g, v ← β₂ v + (1−β₂) g²; θ ← θ − lr · m̂ / (√v̂ + ε).

    m̂ and v̂ are m and v, corrected for their bias towards 0 (Kingma & Ba 2015). All work is
    done in place, in g too, because new arrays take longer.
    """

    lr, names = 1.6e-2, "mv"
    beta1 = 0.9
    half_life = 236_000  # characters; v forgets in text, not in steps: β₂ is 0.997 at B = T = 32

    def change(self, lr: float, step: int, g: Array, m: Array, v: Array) -> Array:
        beta2 = max(0.9, 0.5 ** (self.characters / self.half_life))
        m *= self.beta1
        g *= 1 - self.beta1
        m += g  # m ← β₁ m + (1−β₁) g
        v *= beta2
        g *= g
        g *= (1 - beta2) / (1 - self.beta1) ** 2
        v += g  # v ← β₂ v + (1−β₂) g²
        correction = (1 - beta2**step) ** 0.5
        np.sqrt(v, out=g)
        g += EPSILON * correction
        np.divide(m, g, out=g)
        g *= lr * correction / (1 - self.beta1**step)
        return g  # lr · m̂ / (√v̂ + ε): lr and ε take the corrections, as the paper advises


class RMSprop(Optimizer):
    """v ← ρ v + (1−ρ) g²; θ ← θ − lr · g / (√v + ε) (Tieleman & Hinton 2012; ρ as in char-rnn)."""

    lr, names = 2e-3, "v"
    rho = 0.95

    def change(self, lr: float, step: int, g: Array, v: Array) -> Array:
        v *= self.rho
        v += (1 - self.rho) * (g * g)
        return lr * g / (np.sqrt(v) + EPSILON)


class Adagrad(Optimizer):
    """v ← v + g²; θ ← θ − lr · g / (√v + ε) (Duchi et al. 2011)."""

    lr, names = 2e-2, "v"

    def change(self, lr: float, step: int, g: Array, v: Array) -> Array:
        v += g * g
        return lr * g / (np.sqrt(v) + EPSILON)


class SGD(Optimizer):
    """m ← μ m + g; θ ← θ − lr · m, with momentum μ = 0.9 (Polyak 1964)."""

    lr, names = 0.5, "m"
    mu = 0.9

    def change(self, lr: float, step: int, g: Array, m: Array) -> Array:
        m *= self.mu
        m += g
        return lr * m


OPTIMIZER_CLASSES: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "sgd": SGD,
}


def sum_of_squares(g: Array) -> float:
    """Return Σ g², in float64 where it is too large for single precision."""
    with np.errstate(over="ignore"):
        total = float(np.dot(g, g))
    return total if np.isfinite(total) else float(np.square(g, dtype=np.float64).sum())


def clip(g: Array, norm: float, limit: float) -> None:
    """Scale g in place, a share of a gradient whose `norm` is given, to a norm of at most `limit`.

    A limit of 0 means no limit.
    """
    if limit and norm > limit:
        g *= limit / norm
