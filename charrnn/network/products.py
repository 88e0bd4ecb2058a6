"""Products of matrices in the blocks that this machine's BLAS multiplies best.

A large product first copies both matrices into the order that its kernel reads, which is much of the work where one of
them is narrow. For AVX-512, OpenBLAS has kernels for small products as well, which read them where they lie. So a product
with a narrow matrix is cut into small ones. In shares of the speed of a large square product, whole and cut, in float32
on one core: M (R, K) of 128 to 2,048 rows and columns by 32 columns: 86 to 91 and 100 to 111 %; by 16: 75 to 79 and 98 to
111; by 8: 46 to 49 and 75 to 98; U h over 2,048 positions for 65 symbols: 83 to 87 and 103 to 104; Uᵀ D: 69 to 82 and 103
to 105.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.blas import multiplies_small_ones_best

Array = NDArray[Any]
SMALL = 1_000_000  # multiplications up to which OpenBLAS calls a product small
ROWS, COLUMNS = 4, 64  # of the result that such a kernel likes to take at a time
NARROW = 1 << 16  # numbers in M up to which cutting pays for many columns


def step_product(M: Array, out: Array) -> Callable[[Array], object]:
    """Return the function x ↦ out ← M x for M (R, K), x (K, B) and out (R, B), to be called while M stays where it is."""
    R, K = M.shape
    B = out.shape[1]
    rows = _rows(R, K, B)
    if rows in (0, R):
        return lambda x: np.matmul(M, x, out=out)
    (M_blocks, out_blocks), *rest = [(M[s].reshape(n, -1, K), out[s].reshape(n, -1, B)) for s, n in _cuts(R, rows)]
    if not rest:
        return lambda x: np.matmul(M_blocks, x, out=out_blocks)
    M_rest, out_rest = rest[0]
    return lambda x: (np.matmul(M_blocks, x, out=out_blocks), np.matmul(M_rest, x, out=out_rest))


def product(M: Array, x: Array, out: Array) -> None:
    """out ← M x for M (R, K) and many columns, x (K, P)."""
    (R, K), P = M.shape, x.shape[1]
    rows = _rows(R, K, COLUMNS) if M.size <= NARROW and P > COLUMNS else 0
    if not rows:
        np.matmul(M, x, out=out)
        return
    for r, m in _cuts(R, rows):
        for c, n in _cuts(P, COLUMNS):
            x_blocks = x[:, c].reshape(K, n, -1).swapaxes(0, 1)
            np.matmul(M[r].reshape(m, 1, -1, K), x_blocks, out=out[r, c].reshape(m, -1, n, x_blocks.shape[-1]).swapaxes(1, 2))


def _rows(R: int, K: int, B: int) -> int:
    """Return how many rows of M (R, K) to multiply by B columns at a time; 0: better not cut at all."""
    most = SMALL // (K * B) // ROWS * ROWS
    if not most or not multiplies_small_ones_best():
        return 0
    even = -(-R // -(-R // most))  # as many in each block
    return min(R, -(-even // ROWS) * ROWS)


def _cuts(size: int, length: int) -> list[tuple[slice, int]]:
    """Return what covers `size`: (slice, number of blocks of `length` in it), and behind them the rest as one block."""
    count, rest = divmod(size, length)
    return [(slice(size - rest), count)] * bool(count) + [(slice(size - rest, size), 1)] * bool(rest)
