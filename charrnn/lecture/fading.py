"""How the gradient fades or explodes with the lag, in each cell, from the Jacobians of its state.

s_t is the whole state: h_t for rnn and gru, (h_t, c_t) stacked for lstm. The share of lag j in
∂L/∂b_h is
    term(j) = Σ_t ∂L_t/∂h_t · (∂s_t/∂s_{t−1} · … · ∂s_{t−j+1}/∂s_{t−j}) · ∂s_{t−j}/∂b_h,
with the last factor immediate (s_{t−j−1} held); Σ_j term(j) = ∂L/∂b_h exactly. Backpropagation
truncated to T' steps keeps the lags below T'. Float64. Sizes: T the last step (t = 0…T), H units,
G gates, S parts of the state, N symbols.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from charrnn.config import CELLS, CellName, ModelConfig, check, check_choice
from charrnn.errors import UsageError
from charrnn.lecture.rnn import Array, distance, softmax
from charrnn.network.cells import CELL_CLASSES
from charrnn.network.parameters import GATES, Parameters, initialize

LAYER = ("layers.0.V", "layers.0.W", "layers.0.b_h", "U", "b_y")
STEADY = 0.03  # a norm that changes by less than this share a step neither fades nor explodes
TINY = 1e-30  # of a complex step: f(x + iε) = f(x) + iε f'(x), with no rounding at all for such ε


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
    norms: tuple[float, ...]  # by lag, spectral norm of ∂h_T/∂s_{T−lag}: 1 at lag 0
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
        change = self.factor - 1
        verdict = "lasts" if abs(change) <= STEADY else "fades" if change < 0 else "explodes"
        return (
            f"{self.cell}, largest singular value of W {max(self.singular.values()):.2f}: "
            f"{self.seq_len} steps back ‖∂h_T/∂s_k‖ has gone from 1 to {self.norms[-1]:.2g}, "
            f"{self.factor:.2f} times a step: the gradient {verdict}."
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        lags = enumerate(zip(self.norms, self.shares, strict=True))
        figures = asdict(self) | {
            "factor": self.factor,
            "lags": [{"lag": lag, "norm": norm, "share": share} for lag, (norm, share) in lags],
            "sentence": self.sentence,
        }
        return {
            k: v for k, v in figures.items() if k not in ("norms", "shares", "terms", "gradient")
        }


def fading(
    cell: str, seed: int, hidden: int, seq_len: int, gain: float, *, vocabulary_size: int = 8
) -> Fading:
    """Return the gradient by lag in a random network; blocks of W are orthogonal times `gain`.

    V is small, so that saturated units don't hide what W does, and b_h as training starts: b_f = 1.
    Raises UsageError.
    """
    check_choice("--cell", cell, CELLS)
    check("--hidden", hidden, least=1)
    check("--seq-len", seq_len, least=1)
    check("--gain", gain, above=0, most=100)
    check("vocabulary_size", vocabulary_size, least=2)
    config, rng = ModelConfig(cast(CellName, cell), hidden), np.random.default_rng(seed)
    parameters = initialize(config, vocabulary_size, rng, dtype=np.float64)
    parameters["layers.0.W"][:] *= gain
    return fading_of(parameters, rng.integers(vocabulary_size, size=seq_len + 2), gain)


def fading_of(parameters: Parameters, x: npt.NDArray[Any], gain: float | None = None) -> Fading:
    """Return the gradient by lag in the first layer, which reads x (T+2,) from a zero state.

    Each symbol is the target of the one before it. ŷ_t is read off this layer: with several layers
    the norms are its own, but the shares are those of a loss on it alone. Raises UsageError for
    fewer than 3 symbols.
    """
    if len(x) < 3:
        raise UsageError(f"the text has {len(x)} characters; a gradient by lag needs at least 3")
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
) -> tuple[Array, tuple[float, ...]]:
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
    return terms, tuple(norms)


def truncations(terms: Array) -> tuple[Kept, ...]:
    """Return what T' = 1…T+1 steps keep of the gradient, from its terms (T+1, G·H) by lag."""
    sums = np.cumsum(terms, axis=0)
    return tuple(
        Kept(n, distance(kept, sums[-1]), cosine(kept, sums[-1])) for n, kept in enumerate(sums, 1)
    )


def cosine(a: Array, b: Array) -> float:
    """Return the cosine of the angle between two vectors; 0 where one of them is zero."""
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / sizes if sizes else 0.0
