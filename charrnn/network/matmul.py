"""Matrix products, cut into the blocks that this machine's BLAS multiplies fastest.

For a large product, BLAS first copies both matrices into the order that its kernel reads, which is
much of the work if one of them is narrow. For AVX-512, OpenBLAS also has kernels for small
products, which read the matrices in place. So we cut a product with a narrow matrix into small
ones. Speed, as a share of a large square product's, in float32 on one core of a Zen 4 with OpenBLAS
0.3.31:

    product                                               whole        cut
    W h, Wᵀ dA; 128 to 2,048 rows and columns, B = 32     86 to 91 %   100 to 111 %
    the same, B = 16                                      75 to 79 %    98 to 111 %
    the same, B = 8                                       46 to 49 %    75 to  98 %
    U h, 65 symbols by 2,048 positions                    83 to 87 %   103 to 104 %
    Uᵀ D, the same                                        69 to 82 %   103 to 105 %
    Σ dA hᵀ, 192 to 416 units, 512 positions              77 to 84 %    86 to  93 %

Every reshape below splits an axis and hence is a view, so that `out=` writes where it should.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import Array
from charrnn.blas import is_faster_in_blocks

SMALL = 1_000_000  # multiplications up to which OpenBLAS considers a product small
ROWS, COLUMNS = 4, 64  # block sizes of the result that suit such a kernel
SIDE, MOST = 32, 512  # of a sum of outer products: side of a block; positions up to which we cut
LINE = 16  # float32 numbers in a cache line: a copy is quickest line by line
NARROW = 1 << 16  # elements of M up to which `product` gains from blocks


def aligned_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return zeros that begin at a cache line: products that read them are up to 20 % faster."""
    size = prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def step_product(M: Array, out: Array) -> Callable[[Array], object]:
    """Return the function that writes M x into `out`: M (R, K), x (K, B), out (R, B).

    M may be a transposed view; its blocks are copied, so that each is contiguous.
    """
    (R, K), B = M.shape, out.shape[1]
    rows, transposed = _rows(R, K, B), M.strides[0] < M.strides[1]
    if rows == R:
        return partial(np.matmul, M, out=out)
    if transposed and rows > LINE:
        rows -= rows % LINE
    blocks = []
    for r, n in _cuts(R, rows):
        M_blocks = M[r].reshape(n, -1, K)
        if transposed:
            copied = aligned_zeros((n, K, M_blocks.shape[1]), M.dtype).swapaxes(1, 2)
            copied[:] = M_blocks
            M_blocks = copied
        blocks.append((M_blocks, out[r].reshape(n, -1, B)))

    def multiply(x: Array) -> None:
        for M_blocks, out_blocks in blocks:
            np.matmul(M_blocks, x, out=out_blocks)

    return multiply


def product(M: Array, x: Array, out: Array) -> None:
    """out ← M x for M (R, K) and many columns, x (K, P)."""
    (R, K), P = M.shape, x.shape[1]
    if M.size > NARROW or P <= COLUMNS or not is_faster_in_blocks():
        np.matmul(M, x, out=out)
        return
    for r, m in _cuts(R, _rows(R, K, COLUMNS)):
        for c, n in _cuts(P, COLUMNS):
            M_blocks, x_blocks = M[r].reshape(m, 1, -1, K), x[:, c].reshape(K, n, -1).swapaxes(0, 1)
            rows, width = M_blocks.shape[2], x_blocks.shape[2]
            # (m, 1, rows, K) by (n, K, width) is (m, n, rows, width): all blocks in one call
            np.matmul(M_blocks, x_blocks, out=out[r, c].reshape(m, rows, n, width).swapaxes(1, 2))


def sum_of_outer_products(a: Array, b: Array, out: Array) -> None:
    """out ← a bᵀ for a (R, P), b (C, P): the sum over P positions of their columns' products."""
    (R, P), C = a.shape, len(b)
    if P > MOST or R % SIDE or C % SIDE or not is_faster_in_blocks():
        np.matmul(a, b.T, out=out)
        return
    rows, columns = a.reshape(-1, SIDE, P), b.reshape(-1, 1, SIDE, P).swapaxes(2, 3)
    blocks = out.reshape(len(rows), SIDE, len(columns), SIDE).transpose(2, 0, 1, 3)
    np.matmul(rows, columns, out=blocks)  # (C / SIDE, R / SIDE, SIDE, SIDE)


def _rows(R: int, K: int, B: int) -> int:
    """Return how many rows of M (R, K) to multiply by B columns at a time; R: don't cut."""
    most = SMALL // (K * B) // ROWS * ROWS
    if not most or not is_faster_in_blocks():
        return R
    even = -(-R // -(-R // most))  # the same number in each block
    return min(R, -(-even // ROWS) * ROWS)


def _cuts(size: int, length: int) -> Iterator[tuple[slice, int]]:
    """Yield (slice, number of blocks of `length` in it), then the rest of `size` as one block."""
    count, rest = divmod(size, length)
    if count:
        yield slice(size - rest), count
    if rest:
        yield slice(size - rest, size), 1
