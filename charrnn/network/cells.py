"""The recurrences: from h_{t-1} and A_t = V x_t + b_h to h_t, and back.

A cell knows one thing, the loop over t. What is summed over time (∂L/∂W, ∂L/∂V, ∂L/∂b_h) is a few large matrix
products over all positions, in `model`. Columns are streams, as in the lecture: h_t is (H, B), a gate a block of rows.

σ(a) = ½ (1 + tanh(a/2)): with a gate's rows of V, W and b_h scaled by `scale` (½ for σ, 1 for tanh) all gates are one tanh,
which is faster than exp and a division, and cannot overflow; a σ of less than 3·10⁻⁸ is 0 in float32.

Sizes: T time steps, B streams, H units, G gates, S arrays of state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charrnn.network.matmul import step_product

Array = NDArray[Any]
Input = Callable[
    [int, Array], object
]  # input_into(t, out): out ← scale · (V x_t + b_h), out (G·H, B)


def columns(rows: int, T: int, B: int, dtype: DTypeLike) -> Array:
    """Return a (rows, T, B) array whose rows lie apart by no multiple of 4 KiB, which would all meet in the same cache lines."""
    size = T * B
    spare = 16 if size * np.dtype(dtype).itemsize % 4096 == 0 else 0
    return np.zeros((rows, size + spare), dtype)[:, :size].reshape(rows, T, B)


def half_of_one_plus(a: Array) -> None:
    """a ← ½ (1 + a), in place: σ where a is the tanh of half its argument."""
    np.multiply(a, 0.5, out=a)
    np.add(a, 0.5, out=a)


def one_minus_square(a: Array, out: Array) -> None:
    """out ← 1 − a², the derivative of tanh at the point where it is a."""
    np.multiply(a, a, out=out)
    np.subtract(1.0, out, out=out)


def transposed(W: Array) -> Array:
    """Return a contiguous copy of Wᵀ, made a few rows of W at a time, which is several times faster than all at once."""
    WT = np.empty(W.shape[::-1], W.dtype)
    for row in range(0, len(W), 32):
        WT[:, row : row + 32] = W[row : row + 32].T
    return WT


class Cell(ABC):
    """A recurrence over T steps of B streams. It owns the tape between forward and backward, reused from chunk to chunk."""

    scale: ClassVar[tuple[float, ...]]  # ½: σ, 1: tanh; one for each gate
    h: Array  # (H, T+1, B): h_{-1} to h_{T-1}, filled by forward
    dA: Array  # (G·H, T, B): gradient at A_t, filled by backward
    dC: tuple[
        Array, ...
    ]  # gradient at W h_{t-1}, in blocks of rows from the top; dA itself but for the gru

    @abstractmethod
    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        """Make room for T steps."""

    @abstractmethod
    def forward(self, input_into: Input, W: Array, state: Array, T: int) -> None:
        """Fill the tape with T steps from `state` (S, H, B) on; W (G·H, H) has its rows scaled."""

    @abstractmethod
    def state(self, t: int) -> Array:
        """Return the state (S, H, B) after t steps of the tape."""

    @abstractmethod
    def backward(self, dh: Array, W: Array) -> None:
        """Fill dA and dC from dh (H, T, B), the gradient that reaches each h_t from outside."""


class RNN(Cell):
    """The lecture's cell: h_t = tanh(V x_t + W h_{t-1} + b_h)."""

    scale = (1,)

    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        self.h = columns(H, T + 1, B, dtype)
        self.dA = columns(H, T, B, dtype)
        self.dC = (self.dA,)
        self.past = np.zeros((T + 1, H, B), dtype)  # h again, each step contiguous
        self.z, self.d = (np.zeros((H, B), dtype) for _ in range(2))

    def forward(self, input_into: Input, W: Array, state: Array, T: int) -> None:
        z = self.z
        multiply_W = step_product(W, z)
        self.past[0] = state[0]
        for t in range(T):
            h = self.past[t + 1]
            multiply_W(self.past[t])  # z ← W h_{t-1}
            input_into(t, h)
            h += z
            np.tanh(h, out=h)
        self.h[:, : T + 1] = self.past[: T + 1].transpose(1, 0, 2)

    def state(self, t: int) -> Array:
        return self.past[None, t].copy()

    def backward(self, dh: Array, W: Array) -> None:
        d, z = self.d, self.z
        multiply_WT = step_product(transposed(W), d)
        d[:] = 0
        for t in reversed(range(dh.shape[1])):
            d += dh[:, t]
            one_minus_square(self.past[t + 1], out=z)
            np.multiply(d, z, out=z)  # dA_t = d ⊙ (1 − h_t²)
            self.dA[:, t] = z
            multiply_WT(z)  # d ← Wᵀ dA_t, on to h_{t-1}


class GRU(Cell):
    """r, z = σ(V x_t + W h_{t-1} + b_h); n = tanh(V x_t + b_h + r ⊙ W h_{t-1}); h_t = n + z ⊙ (h_{t-1} − n).

    Rows r, z, n. The reset gate acts after the product, so that a step has one product (Cho et al. 2014, as cuDNN has it).
    """

    scale = (0.5, 0.5, 1)

    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        self.h = columns(H, T + 1, B, dtype)
        self.dA, self.dC_n = columns(3 * H, T, B, dtype), columns(H, T, B, dtype)
        self.dC = (self.dA[: 2 * H], self.dC_n)
        self.past = np.zeros((T + 1, H, B), dtype)  # h again, each step contiguous
        self.gate = np.zeros((T, 3 * H, B), dtype)
        self.q = np.zeros((T, H, B), dtype)  # W_n h_{t-1}
        self.e = np.zeros((3 * H, B), dtype)
        self.slope = np.zeros((2 * H, B), dtype)
        self.d, self.u = np.zeros((H, B), dtype), np.zeros((H, B), dtype)

    def forward(self, input_into: Input, W: Array, state: Array, T: int) -> None:
        H = self.past.shape[1]
        e, u = self.e, self.u
        multiply_W = step_product(W, e)
        self.past[0] = state[0]
        for t in range(T):
            h, after, gate = self.past[t], self.past[t + 1], self.gate[t]
            input_into(t, gate)
            multiply_W(h)  # e ← W h_{t-1}
            self.q[t] = e[2 * H :]
            rz, n = gate[: 2 * H], gate[2 * H :]
            rz += e[: 2 * H]
            np.tanh(rz, out=rz)
            half_of_one_plus(rz)
            np.multiply(gate[:H], e[2 * H :], out=u)
            n += u
            np.tanh(n, out=n)
            np.subtract(h, n, out=after)
            after *= gate[H : 2 * H]
            after += n
        self.h[:, : T + 1] = self.past[: T + 1].transpose(1, 0, 2)

    def state(self, t: int) -> Array:
        return self.past[None, t].copy()

    def backward(self, dh: Array, W: Array) -> None:
        H = self.past.shape[1]
        d, e, u, slope = self.d, self.e, self.u, self.slope
        multiply_WT = step_product(transposed(W), d)
        d[:] = 0
        for t in reversed(range(dh.shape[1])):
            gate = self.gate[t]
            r, z, n = gate[:H], gate[H : 2 * H], gate[2 * H :]
            e_r, e_z, e_n = e[:H], e[H : 2 * H], e[2 * H :]
            d += dh[:, t]
            np.subtract(self.past[t], n, out=e_z)
            e_z *= d  # dz before its slope: d ⊙ (h_{t-1} − n)
            np.subtract(1.0, gate[: 2 * H], out=slope)
            one_minus_square(n, out=e_n)
            e_n *= slope[H:]
            e_n *= d  # dn = d ⊙ (1 − z) ⊙ (1 − n²)
            self.dA[2 * H :, t] = e_n
            np.multiply(e_n, self.q[t], out=e_r)
            slope *= gate[: 2 * H]  # σ' = (1 − σ) σ
            e[: 2 * H] *= slope
            e_n *= r  # what reaches W_n h_{t-1}
            self.dA[: 2 * H, t] = e[: 2 * H]
            self.dC_n[:, t] = e_n
            np.multiply(d, z, out=u)
            multiply_WT(e)  # d ← Wᵀ dC_t
            d += u


class LSTM(Cell):
    """i, f, o = σ(A + W h_{t-1}), g = tanh(A + W h_{t-1}); c_t = f ⊙ c_{t-1} + i ⊙ g; h_t = o ⊙ tanh c_t.

    Rows i, f, o, g: the three σ lie together (Hochreiter & Schmidhuber 1997; the forget gate: Gers et al. 2000).
    """

    scale = (0.5, 0.5, 0.5, 1)

    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        self.h = columns(H, T + 1, B, dtype)
        self.dA = columns(4 * H, T, B, dtype)
        self.dC = (self.dA,)
        self.c = np.zeros((T + 1, H, B), dtype)
        self.gate = np.zeros((T, 4 * H, B), dtype)
        self.tanh_c = np.zeros((T, H, B), dtype)
        self.e = np.zeros((4 * H, B), dtype)
        self.slope = np.zeros((3 * H, B), dtype)
        self.now, self.d, self.dc, self.u = (np.zeros((H, B), dtype) for _ in range(4))

    def forward(self, input_into: Input, W: Array, state: Array, T: int) -> None:
        H = self.now.shape[0]
        h, u, z = self.now, self.u, self.e
        multiply_W = step_product(W, z)
        h[:], self.c[0] = state
        self.h[:, 0] = h
        for t in range(T):
            gate, tanh_c = self.gate[t], self.tanh_c[t]
            multiply_W(h)  # z ← W h_{t-1}
            input_into(t, gate)
            gate += z
            i, f, o, g = gate[:H], gate[H : 2 * H], gate[2 * H : 3 * H], gate[3 * H :]
            np.tanh(gate, out=gate)
            half_of_one_plus(gate[: 3 * H])
            c = self.c[t + 1]
            np.multiply(f, self.c[t], out=c)
            np.multiply(i, g, out=u)
            c += u
            np.tanh(c, out=tanh_c)
            np.multiply(o, tanh_c, out=h)
            self.h[:, t + 1] = h

    def state(self, t: int) -> Array:
        return np.stack([self.h[:, t], self.c[t]])

    def backward(self, dh: Array, W: Array) -> None:
        H = self.now.shape[0]
        d, dc, e, u, slope = self.d, self.dc, self.e, self.u, self.slope
        e_i, e_f, e_o, e_g = e[:H], e[H : 2 * H], e[2 * H : 3 * H], e[3 * H :]
        multiply_WT = step_product(transposed(W), d)
        d[:], dc[:] = 0, 0
        for t in reversed(range(dh.shape[1])):
            gate, tanh_c = self.gate[t], self.tanh_c[t]
            i, f, o, g = gate[:H], gate[H : 2 * H], gate[2 * H : 3 * H], gate[3 * H :]
            d += dh[:, t]
            one_minus_square(tanh_c, out=u)
            u *= o
            u *= d
            dc += u  # dc_t = dc_{t+1} ⊙ f_{t+1} + d ⊙ o ⊙ (1 − tanh² c_t)
            np.multiply(dc, g, out=e_i)
            np.multiply(dc, self.c[t], out=e_f)
            np.multiply(d, tanh_c, out=e_o)
            np.subtract(1.0, gate[: 3 * H], out=slope)
            slope *= gate[: 3 * H]  # σ' = σ (1 − σ)
            e[: 3 * H] *= slope
            one_minus_square(g, out=e_g)
            e_g *= i
            e_g *= dc
            dc *= f
            self.dA[:, t] = e
            multiply_WT(e)  # d ← Wᵀ dA_t, on to h_{t-1}


CELL_CLASSES: dict[str, type[Cell]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


def row_scale(cell: str, H: int, dtype: DTypeLike) -> Array:
    """Return the cell's `scale` for each row of V, W and b_h, as a column (G·H, 1)."""
    return np.repeat(np.array(CELL_CLASSES[cell].scale, dtype), H)[:, None]
