"""The recurrences: from h_{t−1} and A_t = V x_t + b_h to h_t, and back.

A cell contains only the loop over t. Sums over time (∂L/∂W, ∂L/∂V, ∂L/∂b_h) are a few large matrix
products over all positions, in `network`. Columns are streams, as in the lecture: h_t is (H, B),
and a gate is a block of rows.

σ(a) = ½ (1 + tanh(a/2)): if the rows of each σ are halved in V, W and b_h, one tanh computes all
gates of a step. This is faster than exp and a division, and cannot overflow; in float32, a σ of
less than 3·10⁻⁸ becomes 0.

Sizes: T time steps, B streams, H units, G gates, S arrays of state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import Array
from charrnn.network.matmul import aligned_zeros, step_product

Input = Callable[[int, Array], object]  # input_into(t, out): out ← scaled A_t, (G·H, B)
Step = Callable[[Array], None]  # step(A): one step forward, given scaled A_t (G·H, …)


def unaliased(rows: int, T: int, B: int, dtype: DTypeLike) -> Array:
    """Return (rows, T, B) zeros whose rows don't start a multiple of 4 KiB apart.

    Otherwise all rows would compete for the same few cache lines.
    """
    size = T * B
    spare = 16 if size * np.dtype(dtype).itemsize % 4096 == 0 else 0
    return aligned_zeros((rows, size + spare), dtype)[:, :size].reshape(rows, T, B)


def sigmoid_from_tanh(a: Array, half: Array) -> None:
    """a ← ½ (1 + a), in place: σ where a is the tanh of half its argument.

    `half`, like `one` below, is an array: a Python float costs NumPy 0.5 µs more per call.
    """
    np.multiply(a, half, a)
    np.add(a, half, a)


def tanh_derivative(a: Array, one: Array, out: Array) -> None:
    """out ← 1 − a², the derivative of tanh where its value is a."""
    np.multiply(a, a, out)
    np.subtract(one, out, out)


class Cell(ABC):
    """A recurrence over T steps of B streams, with the tape that forward leaves for backward.

    A subclass defines all that this package needs to know about a cell: its gates, one step
    forward, and the loop backward.
    """

    gates: ClassVar[dict[str, float]]  # in order, with the scale of their rows: σ ½, tanh 1
    state_names: ClassVar[tuple[str, ...]] = ("h",)
    tape_names: ClassVar[tuple[str, ...]]  # blocks of a step: gates, the state before it, and more
    # (rows of W, gradient at these rows of W h_{t−1}), which is dA except in the gru
    dC: tuple[tuple[slice, Array], ...]

    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        """Allocate the tape and the results of T steps."""
        GH, blocks = len(self.gates) * H, len(self.tape_names)
        self.scale, self.Wh = self.row_scale(H, dtype), aligned_zeros((GH, B), dtype)
        self.one = np.array(1, dtype)
        # one spare row: see unaliased()
        self.tape = np.zeros((T + 1, blocks * H + 1, B), dtype)[:, :-1]
        self.A = self.tape[:, :GH]  # where A_t is written, then turned into the gates
        self.blocks = np.split(self.tape, blocks, axis=1)
        self.state_blocks = [self.blocks[self.tape_names.index(n)] for n in self.state_names]
        self.steps = [self.stepper(self.Wh, *self.tape[t : t + 2]) for t in range(T)]
        self.h = unaliased(H, T + 1, B, dtype)  # h_{−1} to h_{T−1}, filled by forward
        self.dA = unaliased(GH, T, B, dtype)  # gradient at A_t, filled by backward
        self.dC = ((slice(GH), self.dA),)

    @classmethod
    def row_scale(cls, H: int, dtype: DTypeLike) -> Array:
        """Return the factors of the rows of V, W and b_h in a step, a column (G·H, 1)."""
        return np.repeat(np.array([*cls.gates.values()], dtype), H)[:, None]

    @staticmethod
    @abstractmethod
    def stepper(Wh: Array, now: Array, then: Array) -> Step:
        """Return the function of A_t (G·H, …) that takes one step, elementwise in the units.

        Wh (G·H, …) is W h_{t−1}, which it may overwrite; `now` and `then` are the tape at t and
        t + 1. Sampling keeps no tape: it passes the same array twice, Wh followed by the state.
        """

    @abstractmethod
    def backward(self, dh: Array, W: Array) -> None:
        """Fill dA and dC from dh (H, T, B), the gradient that reaches each h_t from outside."""

    def forward(self, input_into: Input, W: Array, state: Array, T: int) -> None:
        """Fill the tape with T steps, starting from `state` (S, H, B)."""
        multiply_W = step_product(W * self.scale, self.Wh)
        h = self.state_blocks[0]
        for block, array in zip(self.state_blocks, state, strict=True):
            block[0] = array
        for t in range(T):
            A = self.A[t]
            multiply_W(h[t])  # Wh ← W h_{t−1}
            input_into(t, A)
            self.steps[t](A)
        self.h[:, : T + 1] = h[: T + 1].transpose(1, 0, 2)

    def state(self, at: int | tuple[Array, Array]) -> Array:
        """Return the state (S, H, B) after t steps: `at` is t, or (t of each column, columns)."""
        return np.stack([block.swapaxes(1, 2)[at].T for block in self.state_blocks])


class RNN(Cell):
    """The lecture's cell: h_t = tanh(V x_t + W h_{t−1} + b_h)."""

    gates: ClassVar = {"h": 1}
    tape_names = ("h",)

    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        super().__init__(H, T, B, dtype)
        self.A = self.tape[1:]  # A_t becomes h_t

    @staticmethod
    def stepper(Wh: Array, now: Array, then: Array) -> Step:
        h = then[-len(Wh) :]
        add, tanh = np.add, np.tanh  # local names are faster, which matters for one stream

        def step(A: Array) -> None:
            add(Wh, A, h)
            tanh(h, h)  # h_t = tanh(A_t + W h_{t−1})

        return step

    def backward(self, dh: Array, W: Array) -> None:
        h, dA, d = self.tape, np.empty_like(self.Wh), np.zeros_like(self.Wh)
        multiply_WT = step_product(W.T, d)
        for t in reversed(range(dh.shape[1])):
            d += dh[:, t]
            tanh_derivative(h[t + 1], self.one, out=dA)
            dA *= d  # dA_t = d ⊙ (1 − h_t²)
            self.dA[:, t] = dA
            multiply_WT(dA)  # d ← Wᵀ dA_t, on to h_{t−1}


class GRU(Cell):
    """r, z = σ(A + W h_{t−1}); n = tanh(A + r ⊙ W h_{t−1}); h_t = n + z ⊙ (h_{t−1} − n).

    Rows r, z, n. The reset gate acts after the product, so that a step needs only one product (Cho
    et al. 2014, in cuDNN's form).
    """

    gates: ClassVar = {"r": 0.5, "z": 0.5, "n": 1}
    tape_names = ("r", "z", "n", "h", "q")  # q = W_n h_{t−1}

    def __init__(self, H: int, T: int, B: int, dtype: DTypeLike) -> None:
        super().__init__(H, T, B, dtype)
        self.dC_n = unaliased(H, T, B, dtype)
        self.dC = ((slice(2 * H), self.dA[: 2 * H]), (slice(2 * H, 3 * H), self.dC_n))

    @staticmethod
    def stepper(Wh: Array, now: Array, then: Array) -> Step:
        H, half = len(Wh) // 3, np.array(0.5, Wh.dtype)
        r, z, n, before, q = (now[k * H : (k + 1) * H] for k in range(5))
        rz, Wh_rz, Wh_n, h = now[: 2 * H], Wh[: 2 * H], Wh[2 * H :], then[3 * H : 4 * H]
        add, multiply, subtract, tanh = np.add, np.multiply, np.subtract, np.tanh
        has_tape = len(q) > 0

        def step(A: Array) -> None:
            if has_tape:
                q[:] = Wh_n
            add(Wh_rz, A[: 2 * H], rz)
            tanh(rz, rz)
            sigmoid_from_tanh(rz, half)  # r, z = σ(A + W h_{t−1})
            multiply(r, Wh_n, Wh_n)
            add(Wh_n, A[2 * H :], n)
            tanh(n, n)  # n = tanh(A + r ⊙ W h_{t−1})
            subtract(before, n, h)
            multiply(z, h, h)
            add(h, n, h)  # h_t = n + z ⊙ (h_{t−1} − n)

        return step

    def backward(self, dh: Array, W: Array) -> None:
        H, dC = len(self.h), np.empty_like(self.Wh)
        (dC_r, dC_z, dC_n), dC_rz, slope = np.split(dC, 3), dC[: 2 * H], np.empty_like(dC[: 2 * H])
        dA_n, d, u = np.empty_like(dC_n), np.zeros_like(dC_n), np.empty_like(dC_n)
        multiply_WT = step_product(W.T, d)
        for t in reversed(range(dh.shape[1])):
            r, z, n, before, q = (block[t] for block in self.blocks)
            rz = self.tape[t, : 2 * H]
            d += dh[:, t]
            np.subtract(self.one, rz, out=slope)
            np.subtract(before, n, out=dC_z)
            dC_z *= d  # dz = d ⊙ (h_{t−1} − n)
            tanh_derivative(n, self.one, out=dA_n)
            dA_n *= slope[H:]
            dA_n *= d  # dA_n = d ⊙ (1 − z) ⊙ (1 − n²)
            np.multiply(dA_n, q, out=dC_r)  # dr = dA_n ⊙ W_n h_{t−1}
            np.multiply(dA_n, r, out=dC_n)  # dC_n = dA_n ⊙ r
            slope *= rz
            dC_rz *= slope  # dA_r, dA_z = dr, dz ⊙ (1 − σ) σ
            self.dA[: 2 * H, t] = dC_rz
            self.dA[2 * H :, t] = dA_n
            self.dC_n[:, t] = dC_n
            np.multiply(d, z, out=u)
            multiply_WT(dC)
            d += u  # d ← Wᵀ dC_t + d ⊙ z, on to h_{t−1}


class LSTM(Cell):
    """i, f, o, g = σ, σ, σ, tanh(A + W h_{t−1}); c_t = f ⊙ c_{t−1} + i ⊙ g; h_t = o ⊙ tanh c_t.

    Rows i, f, o, g: the three σ lie together (Hochreiter & Schmidhuber 1997; the forget gate: Gers
    et al. 2000). On the tape, c_{t−1} follows g as f follows i, so that one call computes both
    i ⊙ g and f ⊙ c_{t−1}.
    """

    gates: ClassVar = {"i": 0.5, "f": 0.5, "o": 0.5, "g": 1}
    state_names = ("h", "c")
    tape_names = ("i", "f", "o", "g", "c", "h", "tanh_c")

    @staticmethod
    def stepper(Wh: Array, now: Array, then: Array) -> Step:
        H, half = len(Wh) // 4, np.array(0.5, Wh.dtype)
        gate, ifo, i_f, o, g_c = (
            now[: 4 * H],
            now[: 3 * H],
            now[: 2 * H],
            now[2 * H : 3 * H],
            now[3 * H : 5 * H],
        )
        c, h = then[4 * H : 5 * H], then[5 * H : 6 * H]
        tanh_c = now[6 * H :] if len(now) > 6 * H else h
        ig_fc, ig, fc = Wh[: 2 * H], Wh[:H], Wh[H : 2 * H]
        add, multiply, tanh = np.add, np.multiply, np.tanh

        def step(A: Array) -> None:
            add(Wh, A, gate)
            tanh(gate, gate)
            sigmoid_from_tanh(ifo, half)  # i, f, o, g = σ, σ, σ, tanh(A + W h_{t−1})
            multiply(i_f, g_c, ig_fc)
            add(ig, fc, c)  # c_t = i ⊙ g + f ⊙ c_{t−1}
            tanh(c, tanh_c)
            multiply(o, tanh_c, h)  # h_t = o ⊙ tanh c_t

        return step

    def backward(self, dh: Array, W: Array) -> None:
        H, dA = len(self.h), np.empty_like(self.Wh)
        dA_i, dA_f, dA_o, dA_g = np.split(dA, 4)
        dA_ifo, slope = dA[: 3 * H], np.empty_like(dA[: 3 * H])
        d, dc, u = np.zeros_like(dA_g), np.zeros_like(dA_g), np.empty_like(dA_g)
        multiply_WT = step_product(W.T, d)
        for t in reversed(range(dh.shape[1])):
            i, f, o, g, c_before, _, tanh_c = (block[t] for block in self.blocks)
            ifo = self.tape[t, : 3 * H]
            d += dh[:, t]
            tanh_derivative(tanh_c, self.one, out=u)
            u *= o
            u *= d
            dc += u  # dc_t = dc_{t+1} ⊙ f_{t+1} + d ⊙ o ⊙ (1 − tanh² c_t)
            np.multiply(dc, g, out=dA_i)  # di = dc ⊙ g
            np.multiply(dc, c_before, out=dA_f)  # df = dc ⊙ c_{t−1}
            np.multiply(d, tanh_c, out=dA_o)  # do = d ⊙ tanh c_t
            np.subtract(self.one, ifo, out=slope)
            slope *= ifo
            dA_ifo *= slope  # dA = di, df, do ⊙ (1 − σ) σ
            tanh_derivative(g, self.one, out=dA_g)
            dA_g *= i
            dA_g *= dc  # dA_g = dc ⊙ i ⊙ (1 − g²)
            dc *= f
            self.dA[:, t] = dA
            multiply_WT(dA)  # d ← Wᵀ dA_t, on to h_{t−1}


CELL_CLASSES: dict[str, type[Cell]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
