"""How the gradient fades or explodes with the lag, in each cell, from the Jacobians of its state.

s_t is the whole state: h_t for rnn and gru, (h_t, c_t) stacked for lstm. The share of lag j in ∂L/∂b_h is
    term(j) = Σ_t ∂L_t/∂h_t · (∂s_t/∂s_{t−1} · … · ∂s_{t−j+1}/∂s_{t−j}) · ∂s_{t−j}/∂b_h,
with the last factor immediate (s_{t−j−1} held); Σ_j term(j) = ∂L/∂b_h exactly. Backpropagation truncated to T' steps keeps
the lags below T'. Float64. Sizes: T the last step (t = 0…T), H units, G gates, S parts of the state, N symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.config import CELLS, check, check_choice
from charrnn.errors import UsageError
from charrnn.lecture.rnn import Array, distance, orthogonal, softmax
from charrnn.network.cells import CELL_CLASSES

STATES = {name: cell.S for name, cell in CELL_CLASSES.items()}

Step = tuple[
    Array, Array, Array
]  # s_t (S·H,), ∂s_t/∂s_{t−1} (S·H, S·H), ∂s_t/∂b_h (S·H, G·H) with s_{t−1} held

GATES: dict[str, tuple[str, ...]] = {
    "rnn": ("h",),
    "gru": ("r", "z", "n"),
    "lstm": ("i", "f", "o", "g"),
}
STEADY = 0.03  # a norm that changes by less than this share a step neither fades nor explodes


@dataclass(frozen=True)
class Kept:
    """What backpropagation truncated to `steps` steps keeps of ∂L/∂b_h."""

    steps: int  # T', the lags 0…T'−1 of every L_t
    distance: float  # ‖kept − ∂L/∂b_h‖ / ‖∂L/∂b_h‖
    cosine: float  # between the two; 0 where one of them is zero


@dataclass(frozen=True, eq=False)
class Fading:
    """One network's gradient by lag."""

    cell: str
    gain: float | None  # as asked for; None: given weights
    hidden: int  # H
    seq_len: int  # T, the last step: lags 0…T
    singular: dict[str, float]  # by gate, the largest singular value of its block of W
    norms: tuple[
        float, ...
    ]  # by lag, spectral norm of ∂h_T/∂s_{T−lag}: from the last step, 1 at lag 0
    shares: tuple[float, ...]  # by lag, ‖term‖ over the sum of these norms
    kept: tuple[Kept, ...]  # by T' = 1…T+1
    terms: Array  # (T+1, G·H), by lag
    gradient: Array  # (G·H,), ∂L/∂b_h

    @property
    def factor(self) -> float:
        """What a step multiplies the norm by: the geometric mean from lag 0 to lag T."""
        return float(self.norms[-1] ** (1 / self.seq_len))

    @property
    def sentence(self) -> str:
        """What the norms show, in one sentence."""
        verdict = (
            "fades"
            if self.factor < 1 - STEADY
            else "explodes"
            if self.factor > 1 + STEADY
            else "lasts"
        )
        return (
            f"{self.cell}, largest singular value of W {max(self.singular.values()):.2f}: {self.seq_len} steps back "
            f"‖∂h_T/∂s_k‖ has gone from 1 to {self.norms[-1]:.2g}, {self.factor:.2f} times a step: the gradient {verdict}."
        )

    def as_json(self) -> dict[str, Any]:
        """The figures as plain numbers, strings, lists and dicts."""
        lags = enumerate(zip(self.norms, self.shares, strict=True))
        return {
            "cell": self.cell,
            "gain": self.gain,
            "hidden": self.hidden,
            "seq_len": self.seq_len,
            "singular": dict(self.singular),
            "factor": self.factor,
            "lags": [{"lag": lag, "norm": norm, "share": share} for lag, (norm, share) in lags],
            "kept": [
                {"steps": k.steps, "distance": k.distance, "cosine": k.cosine} for k in self.kept
            ],
            "sentence": self.sentence,
        }


def fading(
    cell: str, seed: int, hidden: int, seq_len: int, gain: float, *, vocabulary_size: int = 8
) -> Fading:
    """The gradient by lag in a random network: each gate's block of W is orthogonal times `gain`, the inputs are random.

    V and b_h are small, lest saturated units hide what W does; b_f = 1, as training starts. Raises UsageError.
    """
    check_choice("--cell", cell, CELLS)
    check("--hidden", hidden, least=1)
    check("--seq-len", seq_len, least=1)
    check("--gain", gain, above=0, most=100)
    check("vocabulary_size", vocabulary_size, least=2)
    rng, H, N, gates = np.random.default_rng(seed), hidden, vocabulary_size, GATES[cell]
    W = np.vstack([gain * orthogonal(rng, H) for _ in gates])
    V, U = rng.normal(0, 0.2, (len(gates) * H, N)), rng.normal(0, 1 / np.sqrt(H), (N, H))
    b_h = np.repeat([float(gate == "f") for gate in gates], H)
    return fading_of(cell, V, W, b_h, U, np.zeros(N), rng.integers(N, size=seq_len + 2), gain=gain)


def fading_of(
    cell: str,
    V: npt.NDArray[Any],
    W: npt.NDArray[Any],
    b_h: npt.NDArray[Any],
    U: npt.NDArray[Any],
    b_y: npt.NDArray[Any],
    x: npt.NDArray[Any],
    *,
    gain: float | None = None,
) -> Fading:
    """The gradient by lag in this layer of one network, reading the symbols x (T+2,) from a zero state, each the next's input.

    V (G·H, N), W (G·H, H), b_h (G·H,), U (N, H), b_y (N,), as in a checkpoint. ŷ_t is read off this layer: with several layers
    the norms are the first layer's own, but the shares those of a loss on it alone. Raises UsageError for fewer than 3 symbols.
    """
    check_choice("cell", cell, CELLS)
    if len(x) < 3:
        raise UsageError(f"the text has {len(x)} characters; a gradient by lag needs at least 3")
    V, W, b_h, U, b_y = (np.asarray(array, np.float64) for array in (V, W, b_h, U, b_y))
    A, H = V[:, x[:-1]].T + b_h, W.shape[1]
    states = run(cell, A, W)
    rows = np.zeros_like(states[1:])
    rows[:, :H] = loss_rows(states[1:, :H], U, b_y, x[1:])
    terms, norms = terms_and_norms(cell, A, W, states, rows)
    sizes = np.linalg.norm(terms, axis=1)
    blocks = zip(GATES[cell], np.split(W, len(GATES[cell])), strict=True)
    return Fading(
        cell=cell,
        gain=gain,
        hidden=H,
        seq_len=len(A) - 1,
        singular={gate: float(np.linalg.norm(block, 2)) for gate, block in blocks},
        norms=norms,
        shares=tuple((sizes / (sizes.sum() or 1.0)).tolist()),
        kept=truncations(terms),
        terms=terms,
        gradient=terms.sum(axis=0),
    )


def run(cell: str, A: Array, W: Array) -> Array:
    """s_{−1} = 0, s_0 … s_T (T+2, S·H) from A = V x_t + b_h (T+1, G·H)."""
    states = np.zeros((len(A) + 1, STATES[cell] * W.shape[1]))
    for t, A_t in enumerate(A):
        states[t + 1] = STEPS[cell](A_t, W, states[t])[0]
    return states


def loss_rows(h: Array, U: Array, b_y: Array, targets: npt.NDArray[Any]) -> Array:
    """∂L_t/∂h_t (T+1, H) = (ŷ_t − onehot(target_t))ᵀ U."""
    D = softmax(h @ U.T + b_y)
    D[np.arange(len(h)), targets] -= 1
    return np.asarray(D @ U)


def terms_and_norms(
    cell: str, A: Array, W: Array, states: Array, rows: Array
) -> tuple[Array, tuple[float, ...]]:
    """term(lag) (T+1, G·H) and ‖∂h_T/∂s_{T−lag}‖₂, both by lag 0…T; `rows` (T+1, S·H) is ∂L_t/∂s_t, s_t's own loss alone.

    Goes back over k and carries one row for each later loss, so that a single ∂s_k/∂s_{k−1} is in memory at a time.
    """
    T, H = len(A) - 1, W.shape[1]
    terms, norms = np.zeros_like(A), []
    carried = rows[:0]  # row j: ∂L_{k+j}/∂s_k, which has come back over j steps
    last = np.eye(H, states.shape[1])  # ∂h_T/∂s_k
    for k in range(T, -1, -1):
        carried = np.vstack([rows[k], carried])
        norms.append(float(np.linalg.norm(last, 2)))
        _, by_state, by_b_h = STEPS[cell](A[k], W, states[k])
        terms[: len(carried)] += carried @ by_b_h
        carried, last = carried @ by_state, last @ by_state
    return terms, tuple(norms)


def truncations(terms: Array) -> tuple[Kept, ...]:
    """What T' = 1…T+1 steps keep of the gradient, from its terms (T+1, G·H) by lag."""
    gradient = terms.sum(axis=0)
    sums = np.cumsum(terms, axis=0)
    return tuple(
        Kept(n, distance(kept, gradient), cosine(kept, gradient))
        for n, kept in enumerate(sums, start=1)
    )


def cosine(a: Array, b: Array) -> float:
    """The cosine of the angle between two vectors; 0 where one of them is zero."""
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / sizes if sizes else 0.0


# The cells: a step, and below it the derivatives of each of its lines


def rnn_step(A: Array, W: Array, s: Array) -> Step:
    """h_t = tanh(A + W h_{t−1}) with its Jacobians."""
    h = np.tanh(A + W @ s)
    by_b_h = np.diag(1 - h**2)
    return h, by_b_h @ W, by_b_h


def gru_step(A: Array, W: Array, s: Array) -> Step:
    """h_t = (1−z) ⊙ n + z ⊙ h_{t−1}, n = tanh(A_n + r ⊙ q), q = W_n h_{t−1}, with its Jacobians.

    b_n and q stand on either side of r, so the n block of ∂h/∂(W h_{t−1}) has a factor r that ∂h/∂b_h has not.
    """
    (A_r, A_z, A_n), (p_r, p_z, q) = np.split(A, 3), np.split(W @ s, 3)
    r, z = sigmoid(A_r + p_r), sigmoid(A_z + p_z)
    n = np.tanh(A_n + r * q)
    h = (1 - z) * n + z * s
    by_n = (1 - z) * (1 - n**2)
    by_r, by_z = by_n * q * r * (1 - r), (s - n) * z * (1 - z)
    by_b_h = np.hstack([np.diag(by_r), np.diag(by_z), np.diag(by_n)])
    by_product = np.hstack([np.diag(by_r), np.diag(by_z), np.diag(by_n * r)])
    return h, np.diag(z) + by_product @ W, by_b_h


def lstm_step(A: Array, W: Array, s: Array) -> Step:
    """c_t = f ⊙ c_{t−1} + i ⊙ g, h_t = o ⊙ tanh c_t, stacked (h_t, c_t), with its Jacobians."""
    h_before, c_before = np.split(s, 2)
    a_i, a_f, a_o, a_g = np.split(A + W @ h_before, 4)
    i, f, o, g = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o), np.tanh(a_g)
    c = f * c_before + i * g
    tanh_c = np.tanh(c)
    h_by_c, zero = o * (1 - tanh_c**2), np.zeros((len(c), len(c)))  # h_by_c: the diagonal of ∂h/∂c
    c_by_b = np.hstack(
        [np.diag(g * i * (1 - i)), np.diag(c_before * f * (1 - f)), zero, np.diag(i * (1 - g**2))]
    )
    h_by_b = h_by_c[:, None] * c_by_b + np.hstack([zero, zero, np.diag(tanh_c * o * (1 - o)), zero])
    by_b_h = np.vstack([h_by_b, c_by_b])
    by_c_before = np.vstack([np.diag(h_by_c * f), np.diag(f)])
    return np.concatenate([o * tanh_c, c]), np.hstack([by_b_h @ W, by_c_before]), by_b_h


def sigmoid(a: Array) -> Array:
    """σ(a) = ½ (1 + tanh(a/2)): the same function, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * a)))


STEPS: dict[str, Callable[[Array, Array, Array], Step]] = {
    "rnn": rnn_step,
    "gru": gru_step,
    "lstm": lstm_step,
}
