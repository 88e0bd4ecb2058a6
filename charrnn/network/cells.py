"""The recurrences: from h_{t−1} and A_t = V x_t + b_h to h_t, and back.

A cell knows one thing, the loop over t. What is summed over time (∂L/∂W, ∂L/∂V, ∂L/∂b_h) is a few
large matrix products over all positions, in `network`. Columns are streams, as in the lecture: h_t
is (H, B), a gate a block of rows.

σ(a) = ½ (1 + tanh(a/2)): with the rows of a σ halved in V, W and b_h, all gates of a step are one
tanh. This is faster than exp and a division, and cannot overflow; a σ of less than 3·10⁻⁸ is 0 in
float32.

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
Input = Callable[[int, Array], object]  # input_into(t, out): out ← scaled A_t, (G·H, B)
Step = Callable[[Array], None]  # step(A): h_{t−1} becomes h_t in place; scaled A is (G·H, …)


def unaliased(rows: int, T: int, B: int, dtype: DTypeLike) -> Array:
    """Return (rows, T, B) zeros whose rows lie apart by no multiple of 4 KiB.

    Else they would all meet in the same few lines of the cache.
    """
    size = T * B
    spare = 16 if size * np.dtype(dtype).itemsize % 4096 == 0 else 0
    return np.zeros((rows, size + spare), dtype)[:, :size].reshape(rows, T, B)


def sigmoid_from_tanh(a: Array, half: Array) -> None:
    """a ← ½ (1 + a), in place: σ where a is the tanh of half its argument.

    `half` is ½ as an array of a's type: a Python float would cost NumPy as much again as the rest.
    """
    np.multiply(a, half, a)
    np.add(a, half, a)


def tanh_derivative(a: Array, out: Array) -> None:
    """out ← 1 − a², the derivative of tanh where its value is a."""
    np.multiply(a, a, out=out)
    np.subtract(1.0, out, out=out)


def transposed(W: Array) -> Array:
    """Return a contiguous copy of Wᵀ; a few rows at a time are several times faster than all."""
    WT = np.empty(W.shape[::-1], W.dtype)
    for row in range(0, len(W), 32):
        WT[:, row : row + 32] = W[row : row + 32].T
    return WT


class Cell(ABC):
    """A recurrence over T steps of B streams, with the tape that forward leaves for backward.

    A subclass is all that this package needs to know of a cell. Given A and W h_{t−1}, its step is
    elementwise: a unit's next state depends on that unit's rows alone.
    """

    gates: ClassVar[dict[str, float]]  # blocks of rows in order, with their scale: σ ½, tanh 1
    S: ClassVar[int] = 1  # arrays of state: h, and the lstm's c
    dC: tuple[tuple[slice, Array], ...]  # gradient at W h_{t−1} by rows of W; dA but for the gru

    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        """Make room for T steps."""
        GH = len(self.gates) * H
        self.scale, self.half = self.row_scale(H, dtype), np.array(0.5, dtype)
        self.h = unaliased(H, T + 1, B, dtype)  # h_{−1} to h_{T−1}, filled by forward
        self.dA = unaliased(GH, T, B, dtype)  # gradient at A_t, filled by backward
        self.dC = ((slice(GH), self.dA),)

    @classmethod
    def row_scale(cls, H: int, dtype: DTypeLike) -> Array:
        """Return what the rows of V, W and b_h are multiplied by in a step, a column (G·H, 1)."""
        return np.repeat(np.array([*cls.gates.values()], dtype), H)[:, None]

    @abstractmethod
    def forward(self, input_into: Input, W: Array, state: Array, T: int) -> None:
        """Fill the tape with T steps from `state` (S, H, B) on."""

    @abstractmethod
    def backward(self, dh: Array, W: Array) -> None:
        """Fill dA and dC from dh (H, T, B), the gradient that reaches each h_t from outside."""

    @staticmethod
    @abstractmethod
    def stepper(Wh: Array, h: Array) -> Step:
        """Return one step without a tape, for drawing; it overwrites h (H, …) and Wh.

        Wh begins with the product W h, its rows scaled; behind them are the other arrays of state.
        """

    def state(self, t: int) -> Array:
        """Return the state (S, H, B) after t steps of the tape."""
        return self.h[None, :, t].copy()


class RNN(Cell):
    """The lecture's cell: h_t = tanh(V x_t + W h_{t−1} + b_h)."""

    gates: ClassVar = {"h": 1}

    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        super().__init__(H, T, B, dtype)
        self.past = np.zeros((T + 1, H, B), dtype)  # h again, each step contiguous

    def forward(self, input_into: Input, W: Array, state: Array, T: int) -> None:
        Wh = np.empty_like(state[0])
        multiply_W = step_product(W * self.scale, Wh)
        self.past[0] = state[0]
        for t in range(T):
            h = self.past[t + 1]
            multiply_W(self.past[t])  # Wh ← W h_{t−1}
            input_into(t, h)
            h += Wh
            np.tanh(h, out=h)
        self.h[:, : T + 1] = self.past[: T + 1].transpose(1, 0, 2)

    def backward(self, dh: Array, W: Array) -> None:
        dA, d = np.empty_like(self.past[0]), np.zeros_like(self.past[0])
        multiply_WT = step_product(transposed(W), d)
        for t in reversed(range(dh.shape[1])):
            d += dh[:, t]
            tanh_derivative(self.past[t + 1], out=dA)
            dA *= d  # dA_t = d ⊙ (1 − h_t²)
            self.dA[:, t] = dA
            multiply_WT(dA)  # d ← Wᵀ dA_t, on to h_{t−1}

    @staticmethod
    def stepper(Wh: Array, h: Array) -> Step:
        add, tanh = np.add, np.tanh  # looked up once: it counts for one stream

        def step(A: Array) -> None:
            add(Wh, A, h)
            tanh(h, h)

        return step


class GRU(Cell):
    """r, z = σ(A + W h_{t−1}); n = tanh(A + r ⊙ W h_{t−1}); h_t = n + z ⊙ (h_{t−1} − n).

    Rows r, z, n. The reset gate acts after the product, so that a step has a single one (Cho et al.
    2014, in cuDNN's form).
    """

    gates: ClassVar = {"r": 0.5, "z": 0.5, "n": 1}

    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        super().__init__(H, T, B, dtype)
        self.dC_n = unaliased(H, T, B, dtype)
        self.dC = ((slice(2 * H), self.dA[: 2 * H]), (slice(2 * H, 3 * H), self.dC_n))
        self.past = np.zeros((T + 1, H, B), dtype)  # h again, each step contiguous
        self.gate = np.zeros((T, 3 * H, B), dtype)
        self.r, self.z, self.n = np.split(self.gate, 3, axis=1)
        self.rz = self.gate[:, : 2 * H]
        self.q = np.zeros((T, H, B), dtype)  # W_n h_{t−1}

    def forward(self, input_into: Input, W: Array, state: Array, T: int) -> None:
        H, Wh, u = len(self.h), np.empty_like(self.gate[0]), np.empty_like(self.n[0])
        Wh_rz, Wh_n = Wh[: 2 * H], Wh[2 * H :]
        multiply_W = step_product(W * self.scale, Wh)
        self.past[0] = state[0]
        for t in range(T):
            before, h = self.past[t], self.past[t + 1]
            r, z, n, rz = self.r[t], self.z[t], self.n[t], self.rz[t]
            multiply_W(before)  # Wh ← W h_{t−1}
            self.q[t] = Wh_n
            input_into(t, self.gate[t])
            rz += Wh_rz
            np.tanh(rz, out=rz)
            sigmoid_from_tanh(rz, self.half)  # r, z = σ(A + W h_{t−1})
            np.multiply(r, Wh_n, out=u)
            n += u
            np.tanh(n, out=n)  # n = tanh(A + r ⊙ W h_{t−1})
            np.subtract(before, n, out=h)
            h *= z
            h += n  # h_t = n + z ⊙ (h_{t−1} − n)
        self.h[:, : T + 1] = self.past[: T + 1].transpose(1, 0, 2)

    def backward(self, dh: Array, W: Array) -> None:
        H, dC, dA_n = len(self.h), np.empty_like(self.gate[0]), np.empty_like(self.n[0])
        dC_r, dC_z, dC_n = np.split(dC, 3)
        dC_rz, slope = dC[: 2 * H], np.empty_like(self.rz[0])
        d, u = np.zeros_like(dA_n), np.empty_like(dA_n)
        multiply_WT = step_product(transposed(W), d)
        for t in reversed(range(dh.shape[1])):
            r, z, n, rz = self.r[t], self.z[t], self.n[t], self.rz[t]
            d += dh[:, t]
            np.subtract(1.0, rz, out=slope)
            np.subtract(self.past[t], n, out=dC_z)
            dC_z *= d  # dz = d ⊙ (h_{t−1} − n)
            tanh_derivative(n, out=dA_n)
            dA_n *= slope[H:]
            dA_n *= d  # dA_n = d ⊙ (1 − z) ⊙ (1 − n²)
            np.multiply(dA_n, self.q[t], out=dC_r)  # dr = dA_n ⊙ W_n h_{t−1}
            np.multiply(dA_n, r, out=dC_n)  # dC_n = dA_n ⊙ r
            slope *= rz
            dC_rz *= slope  # dA_r, dA_z = dr, dz ⊙ (1 − σ) σ
            self.dA[: 2 * H, t] = dC_rz
            self.dA[2 * H :, t] = dA_n
            self.dC_n[:, t] = dC_n
            np.multiply(d, z, out=u)
            multiply_WT(dC)
            d += u  # d ← Wᵀ dC_t + d ⊙ z, on to h_{t−1}

    @staticmethod
    def stepper(Wh: Array, h: Array) -> Step:
        H, half = len(h), np.array(0.5, h.dtype)
        r, z, n, rz = Wh[:H], Wh[H : 2 * H], Wh[2 * H : 3 * H], Wh[: 2 * H]
        add, multiply, tanh = np.add, np.multiply, np.tanh

        def step(A: Array) -> None:
            add(rz, A[: 2 * H], rz)
            tanh(rz, rz)
            sigmoid_from_tanh(rz, half)
            multiply(r, n, n)
            add(n, A[2 * H :], n)
            tanh(n, n)
            np.subtract(h, n, h)
            multiply(z, h, h)
            add(h, n, h)

        return step


class LSTM(Cell):
    """i, f, o, g = σ, σ, σ, tanh(A + W h_{t−1}); c_t = f ⊙ c_{t−1} + i ⊙ g; h_t = o ⊙ tanh c_t.

    Rows i, f, o, g: the three σ lie together (Hochreiter & Schmidhuber 1997; the forget gate: Gers
    et al. 2000).
    """

    gates: ClassVar = {"i": 0.5, "f": 0.5, "o": 0.5, "g": 1}
    S = 2

    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        super().__init__(H, T, B, dtype)
        self.c = np.zeros((T + 1, H, B), dtype)
        self.gate = np.zeros((T, 4 * H, B), dtype)
        self.i, self.f, self.o, self.g = np.split(self.gate, 4, axis=1)
        self.ifo = self.gate[:, : 3 * H]
        self.tanh_c = np.zeros((T, H, B), dtype)

    def forward(self, input_into: Input, W: Array, state: Array, T: int) -> None:
        Wh, u = np.empty_like(self.gate[0]), np.empty_like(self.g[0])
        multiply_W = step_product(W * self.scale, Wh)
        h, self.c[0] = state[0].copy(), state[1]
        self.h[:, 0] = h
        for t in range(T):
            gate, c, tanh_c = self.gate[t], self.c[t + 1], self.tanh_c[t]
            multiply_W(h)  # Wh ← W h_{t−1}
            input_into(t, gate)
            gate += Wh
            np.tanh(gate, out=gate)
            sigmoid_from_tanh(self.ifo[t], self.half)  # i, f, o, g = σ, σ, σ, tanh(A + W h_{t−1})
            np.multiply(self.f[t], self.c[t], out=c)
            np.multiply(self.i[t], self.g[t], out=u)
            c += u  # c_t = f ⊙ c_{t−1} + i ⊙ g
            np.tanh(c, out=tanh_c)
            np.multiply(self.o[t], tanh_c, out=h)  # h_t = o ⊙ tanh c_t
            self.h[:, t + 1] = h

    def backward(self, dh: Array, W: Array) -> None:
        dA, slope = np.empty_like(self.gate[0]), np.empty_like(self.ifo[0])
        dA_i, dA_f, dA_o, dA_g = np.split(dA, 4)
        dA_ifo = dA[: len(slope)]
        d, dc, u = np.zeros_like(dA_g), np.zeros_like(dA_g), np.empty_like(dA_g)
        multiply_WT = step_product(transposed(W), d)
        for t in reversed(range(dh.shape[1])):
            i, f, o, g, tanh_c = self.i[t], self.f[t], self.o[t], self.g[t], self.tanh_c[t]
            d += dh[:, t]
            tanh_derivative(tanh_c, out=u)
            u *= o
            u *= d
            dc += u  # dc_t = dc_{t+1} ⊙ f_{t+1} + d ⊙ o ⊙ (1 − tanh² c_t)
            np.multiply(dc, g, out=dA_i)  # di = dc ⊙ g
            np.multiply(dc, self.c[t], out=dA_f)  # df = dc ⊙ c_{t−1}
            np.multiply(d, tanh_c, out=dA_o)  # do = d ⊙ tanh c_t
            np.subtract(1.0, self.ifo[t], out=slope)
            slope *= self.ifo[t]
            dA_ifo *= slope  # dA = di, df, do ⊙ (1 − σ) σ
            tanh_derivative(g, out=dA_g)
            dA_g *= i
            dA_g *= dc  # dA_g = dc ⊙ i ⊙ (1 − g²)
            dc *= f
            self.dA[:, t] = dA
            multiply_WT(dA)  # d ← Wᵀ dA_t, on to h_{t−1}

    @staticmethod
    def stepper(Wh: Array, h: Array) -> Step:
        """i, f and g, c lie side by side, so that i ⊙ g and f ⊙ c are one call."""
        H, half = len(h), np.array(0.5, h.dtype)
        gate, ifo, i_f, o = Wh[: 4 * H], Wh[: 3 * H], Wh[: 2 * H], Wh[2 * H : 3 * H]
        g_c, c = Wh[3 * H :], Wh[4 * H :]
        ig_fc = np.empty_like(g_c)
        ig, fc = ig_fc[:H], ig_fc[H:]
        add, multiply, tanh = np.add, np.multiply, np.tanh

        def step(A: Array) -> None:
            add(gate, A, gate)
            tanh(gate, gate)
            sigmoid_from_tanh(ifo, half)
            multiply(i_f, g_c, ig_fc)
            add(ig, fc, c)
            tanh(c, h)
            multiply(o, h, h)

        return step

    def state(self, t: int) -> Array:
        return np.stack([self.h[:, t], self.c[t]])


CELL_CLASSES: dict[str, type[Cell]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
