"""How near training comes to the machine's limit, and where a step's time goes: python
tests/benchmarks/speed.py

Operations a character: 6·(G·H²·(2L−1) + N·H), which leaves out V x_t, a column of V. The limit is
what as many processes as train reach at once in float32 products of 2,048² matrices, one thread
each, in the same run. The shares of time are rank 0's in a run of its own, B / workers streams on
one BLAS thread; the speed is from a run without clocks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from measure import CELLS, SIZES, bare, machine, made_text, sgemm_peak, table, time_steps

from charrnn.blas import blas_threads
from charrnn.network import cells, matmul as products, network as model
from charrnn.network.cells import CELL_CLASSES
from charrnn.training import replica, workers

SYMBOLS, BATCH, LENGTH = 65, 64, 64
RECURRENT, POSITIONS, ELEMENTWISE, OUTPUT = (
    "recurrent products",
    "dW, dV",
    "elementwise",
    "output layer",
)
OPTIMIZER, REDUCE, REST = "optimizer", "all-reduce", "Python, rest"
PARTS = (RECURRENT, POSITIONS, ELEMENTWISE, OUTPUT, OPTIMIZER, REDUCE, REST)
Function = Callable[..., Any]


class Clocks:
    """Seconds of each part of a step, a part's own: what it calls of other parts counts for
    those.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]  # seconds within the calls of each open one

    def timed(self, part: str, function: Function) -> Function:
        """Return the function with a clock."""

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            result = function(*arguments, **options)
            seconds = time.perf_counter() - start
            self._seconds[part] += seconds - self._inner.pop()
            self._inner[-1] += seconds
            return result

        return call

    def whole(self, function: Function) -> Function:
        """Return the function of a whole step, after which the parts' seconds are kept."""
        inner = self.timed(REST, function)

        @wraps(function)  # a step is ordered by its name
        def call(*arguments: Any, **options: Any) -> Any:
            result = inner(*arguments, **options)
            self.steps.append(dict(self._seconds))
            self._seconds.clear()
            return result

        return call

    def numpy(self, part: str) -> SimpleNamespace:
        """Return NumPy with clocks on its matrix products."""
        return SimpleNamespace(**{**vars(np), "matmul": self.timed(part, np.matmul)})

    def step_product(self, M: Any, out: Any) -> Function:
        """Return the cells' product with a clock."""
        return self.timed(RECURRENT, products.step_product(M, out))

    @contextmanager
    def attached(self, cell: str) -> Iterator[None]:
        """Put clocks on everything that a step of this process calls."""
        kind: Any = cells.CELL_CLASSES[cell]
        timed = [
            (kind, "forward", ELEMENTWISE),
            (kind, "backward", ELEMENTWISE),
            (model, "symbol_input_backward", POSITIONS),
            (model, "sum_of_outer_products", POSITIONS),
            (model, "losses_backward", OUTPUT),
            (replica, "sum_of_squares", OPTIMIZER),
            (replica, "clip", OPTIMIZER),
            (replica.Replica, "_update", OPTIMIZER),
            *(
                (transport, name, REDUCE)
                for transport in (workers.SharedMemory, replica.Transport)
                for name in ("reduce_scatter", "all_reduce", "all_gather")
            ),
        ]
        with ExitStack() as stack:
            for owner, name, part in timed:
                stack.enter_context(
                    patch.object(owner, name, self.timed(part, getattr(owner, name)))
                )
            stack.enter_context(
                patch.object(replica.Replica, "step", self.whole(replica.Replica.step))
            )
            stack.enter_context(patch.object(cells, "step_product", self.step_product))
            stack.enter_context(patch.object(model, "np", self.numpy(POSITIONS)))
            yield

    def shares(self, warm: int = 3) -> list[str]:
        """Return the percentage of each part, from its median over the steps."""
        medians = [
            statistics.median(step.get(part, 0.0) for step in self.steps[warm:]) for part in PARTS
        ]
        return [f"{100 * seconds / sum(medians):.1f} %" for seconds in medians]


def operations(cell: str, H: int, N: int, L: int = 1) -> int:
    """Return the floating-point operations that learning from one character takes."""
    return 6 * (len(CELL_CLASSES[cell].gates) * H * H * (2 * L - 1) + N * H)


def row(text: Path, cell: str, H: int, seconds: float, peaks: dict[int, float]) -> list[str]:
    """Return one line of the table."""
    config = bare(cell=cell, hidden=H, batch_size=BATCH, seq_len=LENGTH)
    timing = time_steps(text, config, seconds)
    speed = BATCH * LENGTH / timing.median
    if timing.workers not in peaks:
        peaks[timing.workers] = sgemm_peak(timing.workers, seconds)
    clocks = Clocks()
    with clocks.attached(cell), blas_threads(1):
        time_steps(text, config, seconds)
    share = speed * operations(cell, H, SYMBOLS) / peaks[timing.workers]
    return [
        f"{cell} {H}",
        str(timing.workers),
        f"{speed:,.0f}",
        f"{100 * share:.0f} %",
        *clocks.shares(),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument(
        "--quick", action="store_true", help="H = 128 for 0.3 s: to see that it works"
    )
    a = parser.parse_args()
    seconds, sizes = (0.3, SIZES[:1]) if a.quick else (a.seconds, SIZES)
    peaks: dict[int, float] = {}
    with made_text(SYMBOLS, 4_000_000) as text:
        rows = (row(text, cell, H, seconds, peaks) for cell in CELLS for H in sizes)
        table(["training, B = T = 64", "workers", "characters/s", "of sgemm peak", *PARTS], rows)
    limits = (
        f"sgemm peak {peak / 1e9:.0f} GFLOP/s with {count} processes"
        for count, peak in peaks.items()
    )
    print(machine(*limits))


if __name__ == "__main__":
    main()
