"""The output layer: ŷ_t = softmax(U h_t + b_y), L_t = −ln ŷ_t[y_t] in nats, and its gradients.

Softmax and cross-entropy are computed together, after subtracting the maximum, so that no exp
overflows. Positions are columns. All P = T·B of them are taken in blocks, so that the (N, block)
probabilities stay small whatever N is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from charrnn.arrays import Array
from charrnn.network.matmul import product

BLOCK = 1 << 21  # probabilities held at once: 8 MB in float32


def _blocks(U: Array, b_y: Array, h: Array, y: Array) -> Iterator[tuple[slice, Array, Array]]:
    """Yield (positions, ŷ (N, size), −ln ŷ[y] (size,)) for each block of positions."""
    size = max(1, BLOCK // b_y.size)
    for start in range(0, y.size, size):
        s = slice(start, start + size)
        z = np.empty((b_y.size, y[s].size), h.dtype)
        product(U, h[:, s], z)
        z += b_y[:, None]
        z -= z.max(axis=0)
        picked = z[y[s], np.arange(y[s].size)]
        np.exp(z, out=z)
        total = z.sum(axis=0)
        z /= total
        yield s, z, np.log(total) - picked


def losses(U: Array, b_y: Array, h: Array, y: Array) -> Array:
    """Return −ln ŷ[y] in nats for each position: h (H, P), y (P,) → (P,)."""
    return np.concatenate([nats for _, _, nats in _blocks(U, b_y, h, y)])


def losses_backward(
    U: Array, b_y: Array, h: Array, y: Array, weight: Array, *, dU: Array, db_y: Array, dh: Array
) -> Array:
    """Return `losses` and overwrite dU, db_y and dh (H, P) with the gradients of Σ weight · losses.

    D_t = weight_t (ŷ_t − onehot(y_t)); dh_t = Uᵀ D_t; ∂L/∂U = Σ D_t h_tᵀ; ∂L/∂b_y = Σ D_t, since
    b_y acts on each L_t only once, through ŷ_t.
    """
    nats = np.empty(y.size, h.dtype)
    dU[:], db_y[:] = 0, 0
    for s, D, nats_s in _blocks(U, b_y, h, y):
        nats[s] = nats_s
        D[y[s], np.arange(y[s].size)] -= 1
        D *= weight[s]
        dU += (h[:, s] @ D.T).T  # faster than D @ h[:, s].T
        db_y += D.sum(axis=1)
        product(U.T, D, dh[:, s])
    return nats
