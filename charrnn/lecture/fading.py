"""How the gradient fades or explodes with the lag, in each cell, from the Jacobians of its state.

s_t is the whole state: h_t for rnn and gru, c_t above h_t for lstm. Lag j contributes
    term(j) = Σ_t ∂L_t/∂h_t · (∂s_t/∂s_{t−1} · … · ∂s_{t−j+1}/∂s_{t−j}) · ∂s_{t−j}/∂b_h
to ∂L/∂b_h, with the last factor immediate (s_{t−j−1} held); Σ_j term(j) = ∂L/∂b_h exactly.
Backpropagation truncated after lag j keeps the terms up to it. Float64. Sizes: T the last step
(t = 0…T), H units, G gates, S arrays of state, N symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import CellName, ModelConfig
from charrnn.lecture.rnn import Array, distance, softmax
from charrnn.network.cells import CELL_CLASSES
from charrnn.network.parameters import Parameters, initialize

LAYER = ("layers.0.V", "layers.0.W", "layers.0.b_h", "U", "b_y")
SYMBOLS = 8  # N of a random network
STEADY = 0.03  # a norm that changes by at most this fraction per step neither fades nor explodes
TINY = 1e-30  # ε of the complex step f(x + iε) = f(x) + iε f'(x), exact for such a small ε


@dataclass(frozen=True)
class Lag:
    """How much of the gradient comes from one lag."""

    lag: int
    norm: float  # spectral norm of ∂h_T/∂s_{T−lag}: 1 at lag 0
    share: float  # ‖term(lag)‖ divided by the sum of these norms over all lags
    lost: float  # ‖sum of the terms up to this lag − ∂L/∂b_h‖ / ‖∂L/∂b_h‖


@dataclass(frozen=True)
class Fading:
    """One network's gradient by lag, with the fields that --json prints."""

    cell: str
    gain: float | None  # as requested; None: the weights were given
    singular: float  # the largest singular value of any gate's block of W
    factor: float  # what one step multiplies the norm by: the geometric mean over all lags
    sentence: str  # what the norms show
    lags: list[Lag]  # 0…T


def fading(cell: CellName, seed: int, H: int, T: int, gain: float) -> Fading:
    """Return the gradient by lag in a random network; blocks of W are orthogonal times `gain`.

    V is small, so that saturated units don't hide what W does. b_h is initialized as for training.
    """
    config, rng = ModelConfig(cell, H), np.random.default_rng(seed)
    parameters = initialize(config, SYMBOLS, rng, dtype=np.float64)
    parameters["layers.0.W"][:] *= gain
    return fading_of(parameters, rng.integers(SYMBOLS, size=T + 2), gain)


def fading_of(parameters: Parameters, x: NDArray[Any], gain: float | None = None) -> Fading:
    """Return the gradient by lag in the first layer, which reads x (T+2,) from a zero state.

    Each symbol is the target of the one before it. ŷ_t is computed from this layer's h_t: for a
    model with several layers, the norms are right, but the shares are for a loss on this layer.
    """
    cell, H = parameters.config.cell, parameters.config.hidden
    V, W, b_h, U, b_y = (parameters[name].astype(np.float64) for name in LAYER)
    s, states, slopes = np.zeros(len(CELL_CLASSES[cell].state_names) * H), [], []
    for A in V[:, x[:-1]].T + b_h:
        s, slope = step(cell, A, W, s)
        states.append(s)
        slopes.append(slope)
    D = softmax(np.array(states)[:, -H:] @ U.T + b_y)
    D[np.arange(len(D)), x[1:]] -= 1
    terms, norms = terms_and_norms(W, slopes, D @ U)
    sizes, sums = np.linalg.norm(terms, axis=1), np.cumsum(terms, axis=0)
    lags = [
        Lag(lag, norm, float(size / (sizes.sum() or 1)), distance(kept, sums[-1]))
        for lag, (norm, size, kept) in enumerate(zip(norms, sizes, sums, strict=True))
    ]
    singular = float(np.linalg.norm(W.reshape(-1, H, H), 2, (1, 2)).max())
    T, norm = len(lags) - 1, norms[-1]
    factor = norm ** (1 / T)
    verdict = "lasts" if abs(factor - 1) <= STEADY else "fades" if factor < 1 else "explodes"
    sentence = (
        f"{cell}, largest singular value of W {singular:.2f}: over {T} steps back "
        f"‖∂h_T/∂s_k‖ goes from 1 to {norm:.2g}, a factor of {factor:.2f} per step: the gradient "
        f"{verdict}."
    )
    return Fading(cell, gain, singular, factor, sentence, lags)


def step(cell: str, A: Array, W: Array, s: Array) -> tuple[Array, Array]:
    """Return s_t (S·H,) and its slopes (S, H, 2G+S), the derivatives by each input of the step.

    The inputs are each gate's block of W h_{t−1}, the S arrays of s_{t−1}, and each gate's block of
    A = V x_t + b_h. A unit depends only on its own element of each, so it has one slope per input,
    and one column can perturb an input in all units at once.
    """
    kind, (GH, H) = CELL_CLASSES[cell], W.shape
    parts, scale = np.concatenate([W @ s[-H:], s, A]), kind.row_scale(H, np.complex128)
    push = np.repeat(np.eye(len(parts) // H), H, axis=0)
    pushed = parts[:, None] + 1j * TINY * push
    now, A_pushed = pushed[:-GH], pushed[-GH:] * scale
    now[:GH] *= scale
    kind.stepper(now[:GH], now, now)(A_pushed)
    after = now[GH:]
    return after[:, 0].real, after.imag.reshape(-1, H, push.shape[1]) / TINY


def terms_and_norms(W: Array, slopes: list[Array], rows: Array) -> tuple[Array, list[float]]:
    """Return term(lag) (T+1, G·H) and ‖∂h_T/∂s_{T−lag}‖₂, both by lag 0…T.

    slopes: of each step t. rows (T+1, H): ∂L_t/∂h_t, without the losses of later steps.
    """
    (GH, H), (S, _, _) = W.shape, slopes[0].shape
    terms, norms = np.zeros((len(rows), GH)), list[float]()
    carried = np.eye(H, S * H, (S - 1) * H)  # rows: ∂h_T/∂s_k, then ∂L_{k+j}/∂s_k for j = 0, 1, …
    for slope, row in zip(reversed(slopes), rows[::-1], strict=True):
        carried = np.insert(carried, H, np.pad(row, ((S - 1) * H, 0)), axis=0)
        norms.append(float(np.linalg.norm(carried[:H], 2)))
        by_part = np.einsum("rsh,shp->rph", carried.reshape(-1, S, H), slope)
        by_Wh, carried, by_b_h = np.split(by_part.reshape(len(carried), -1), [GH, GH + S * H], 1)
        carried[:, -H:] += by_Wh @ W
        terms[: len(carried) - H] += by_b_h[H:]
    return terms, norms
