"""How the gradient fades or explodes with the lag, in each cell, from the Jacobians of its state.

s_t is the whole state: h_t for rnn and gru, (h_t, c_t) stacked for lstm. The share of lag j in
∂L/∂b_h is
    term(j) = Σ_t ∂L_t/∂h_t · (∂s_t/∂s_{t−1} · … · ∂s_{t−j+1}/∂s_{t−j}) · ∂s_{t−j}/∂b_h,
with the last factor immediate (s_{t−j−1} held); Σ_j term(j) = ∂L/∂b_h exactly. Backpropagation
truncated to T' steps keeps the lags below T'. Float64. Sizes: T the last step (t = 0…T), H units,
G gates, S parts of the state, N symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from charrnn.config import CellName, ModelConfig
from charrnn.lecture.rnn import Array, distance, softmax
from charrnn.network.cells import CELL_CLASSES
from charrnn.network.parameters import GATES, Parameters, initialize

LAYER = ("layers.0.V", "layers.0.W", "layers.0.b_h", "U", "b_y")
SYMBOLS = 8  # N of a random network
STEADY = 0.03  # a norm that changes by less than this share a step neither fades nor explodes
TINY = 1e-30  # of a complex step: f(x + iε) = f(x) + iε f'(x), with no rounding at all for such ε


@dataclass(frozen=True, eq=False)
class Fading:
    """One network's gradient by lag, 0…T."""

    cell: str
    gain: float | None  # as asked for; None: given weights
    singular: dict[str, float]  # by gate, the largest singular value of its block of W
    norms: list[float]  # by lag, spectral norm of ∂h_T/∂s_{T−lag}: 1 at lag 0
    terms: Array  # (T+1, G·H), by lag: they add up to ∂L/∂b_h

    @property
    def shares(self) -> list[float]:
        """By lag, ‖term‖ over the sum of these norms."""
        sizes = [float(np.linalg.norm(term)) for term in self.terms]
        return [size / (sum(sizes) or 1.0) for size in sizes]

    @property
    def lost(self) -> list[float]:
        """By lag, ‖sum of the terms up to it − ∂L/∂b_h‖ / ‖∂L/∂b_h‖: what truncation loses."""
        sums = np.cumsum(self.terms, axis=0)
        return [distance(kept, sums[-1]) for kept in sums]

    @property
    def factor(self) -> float:
        """What a step multiplies the norm by: the geometric mean from lag 0 to lag T."""
        return float(self.norms[-1] ** (1 / (len(self.norms) - 1)))

    @property
    def sentence(self) -> str:
        """What the norms show, in one sentence."""
        change = self.factor - 1
        verdict = "lasts" if abs(change) <= STEADY else "fades" if change < 0 else "explodes"
        return (
            f"{self.cell}, largest singular value of W {max(self.singular.values()):.2f}: "
            f"{len(self.norms) - 1} steps back ‖∂h_T/∂s_k‖ has gone from 1 to "
            f"{self.norms[-1]:.2g}, {self.factor:.2f} times a step: the gradient {verdict}."
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        lags = zip(self.norms, self.shares, self.lost, strict=True)
        names = ("cell", "gain", "singular", "factor", "sentence")
        return {name: getattr(self, name) for name in names} | {
            "lags": [
                {"lag": lag, "norm": norm, "share": share, "lost": lost}
                for lag, (norm, share, lost) in enumerate(lags)
            ]
        }


def fading(cell: str, seed: int, H: int, T: int, gain: float) -> Fading:
    """Return the gradient by lag in a random network; blocks of W are orthogonal times `gain`.

    V is small, so that saturated units don't hide what W does, and b_h as training starts: b_f = 1.
    """
    config, rng = ModelConfig(cast(CellName, cell), H), np.random.default_rng(seed)
    parameters = initialize(config, SYMBOLS, rng, dtype=np.float64)
    parameters["layers.0.W"][:] *= gain
    return fading_of(parameters, rng.integers(SYMBOLS, size=T + 2), gain)


def fading_of(parameters: Parameters, x: NDArray[Any], gain: float | None = None) -> Fading:
    """Return the gradient by lag in the first layer, which reads x (T+2,) from a zero state.

    Each symbol is the target of the one before it. ŷ_t is read off this layer: with several layers
    the norms are its own, but the shares are those of a loss on it alone.
    """
    cell, H = parameters.config.cell, parameters.config.hidden
    V, W, b_h, U, b_y = (parameters[name].astype(np.float64) for name in LAYER)
    A, targets = V[:, x[:-1]].T + b_h, x[1:]
    states = [np.zeros(len(CELL_CLASSES[cell].state_names) * H)]
    for A_t in A:
        states.append(step(cell, A_t, W, states[-1])[0])
    h = np.array(states)[1:, :H]
    D = softmax(h @ U.T + b_y)
    D[np.arange(len(h)), targets] -= 1
    terms, norms = terms_and_norms(cell, A, W, states, D @ U)
    blocks = zip(GATES[cell], np.split(W, len(GATES[cell])), strict=True)
    singular = {gate: float(np.linalg.norm(block, 2)) for gate, block in blocks}
    return Fading(cell, gain, singular, norms, terms)


def step(cell: str, A: Array, W: Array, s: Array) -> tuple[Array, Array, Array]:
    """Return s_t (S·H,), ∂s_t/∂s_{t−1} (S·H, S·H) and ∂s_t/∂b_h (S·H, G·H) with s_{t−1} held.

    A = V x_t + b_h (G·H,). Given A, W h and the state, a cell's step is elementwise, so that a push
    to all units of one of these parts gives a diagonal; each part is pushed in a column of its own.
    """
    kind, (GH, H) = CELL_CLASSES[cell], W.shape
    G, S, scale = GH // H, len(s) // H, kind.row_scale(H, np.complex128)
    parts = np.concatenate([W @ s[:H], s.reshape(S, H)[::-1].ravel(), A])  # W h, (c,) h and A
    pushed = parts[:, None] + 1j * TINY * np.repeat(np.eye(2 * G + S), H, axis=0)
    now, A_pushed = pushed[:-GH], pushed[-GH:] * scale
    now[:GH] *= scale
    kind.stepper(now[:GH], now, now)(A_pushed)
    after = now[GH:].reshape(S, H, -1)[::-1].reshape(S * H, -1)  # (S·H, parts)
    blocks = [np.vstack([*map(np.diag, slope.reshape(S, H))]) for slope in after.imag.T / TINY]
    by_Wh, by_state, by_A = blocks[:G], np.hstack(blocks[G : G + S][::-1]), blocks[G + S :]
    by_state[:, :H] += np.hstack(by_Wh) @ W
    return after[:, 0].real, by_state, np.hstack(by_A)


def terms_and_norms(
    cell: str, A: Array, W: Array, states: list[Array], rows: Array
) -> tuple[Array, list[float]]:
    """Return term(lag) (T+1, G·H) and ‖∂h_T/∂s_{T−lag}‖₂, both by lag 0…T.

    `rows` (T+1, H) is ∂L_t/∂h_t of h_t's own loss alone. Goes back over k and carries one row for
    each later loss, so that a single ∂s_k/∂s_{k−1} is in memory at a time.
    """
    T, (H, SH) = len(A) - 1, (W.shape[1], len(states[0]))
    terms, norms = np.zeros_like(A), []
    carried = np.zeros((0, SH))  # row j: ∂L_{k+j}/∂s_k, which has come back over j steps
    last = np.eye(H, SH)  # ∂h_T/∂s_k
    for k in range(T, -1, -1):
        carried = np.vstack([np.pad(rows[k], (0, SH - H)), carried])
        norms.append(float(np.linalg.norm(last, 2)))
        _, by_state, by_b_h = step(cell, A[k], W, states[k])
        terms[: len(carried)] += carried @ by_b_h
        carried, last = carried @ by_state, last @ by_state
    return terms, norms
