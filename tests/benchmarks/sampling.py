"""How near drawing comes to the machine's limit, at H = 256: python tests/benchmarks/sampling.py

One stream is held against its matrix-vector products alone, 256 streams against the sgemm peak of
as many BLAS threads in the same run. Operations a character: 2·(G·H² + N·H).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator

import numpy as np
from measure import CELLS, best, machine, table

from charrnn.checkpoint.model import Model
from charrnn.config import ModelConfig
from charrnn.network.cells import CELL_CLASSES
from charrnn.network.parameters import initialize
from charrnn.sampling.sampling import sample, sample_many
from charrnn.text.vocabulary import Vocabulary

SYMBOLS, HIDDEN, STREAMS, ROUNDS = 65, 256, 256, 9


def untrained(cell: str) -> Model:
    """Return a network as it is before training."""
    config = ModelConfig(cell, HIDDEN)  # type: ignore[arg-type]
    vocabulary = Vocabulary("".join(chr(33 + i) for i in range(SYMBOLS)))
    return Model(config, vocabulary, initialize(config, SYMBOLS, np.random.default_rng(0)))


def median_of(steps: Iterator[object], count: int) -> float:
    """Return the median over rounds of the seconds of one of `count` steps."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(count):
            next(steps)
        times.append((time.perf_counter() - start) / count)
    return statistics.median(times)


def product(model: Model, count: int) -> float:
    """Return the median seconds of one stream's product in a step alone."""
    p = model.parameters
    M = np.concatenate([p["U"], p["layers.0.W"]])
    h, out = np.zeros(HIDDEN, M.dtype), np.zeros(len(M), M.dtype)
    return median_of((np.dot(M, h, out) for _ in itertools.count()), count)


def row(cell: str, peak: float, count: int) -> list[str]:
    """Return one line of the table."""
    model, wide = untrained(cell), max(3, count // 100)
    one = median_of(sample(model, length=ROUNDS * count, seed=1, temp=0.8), count)
    alone = product(model, count)
    many = median_of(sample_many(model, STREAMS, length=ROUNDS * wide, seed=1, temp=0.8), wide)
    speed = 2 * (len(CELL_CLASSES[cell].gates) * HIDDEN**2 + SYMBOLS * HIDDEN) * STREAMS / many
    characters = [
        f"{1 / one:,.0f}",
        f"{100 * alone / one:.0f} %",
        f"{STREAMS / many:,.0f}",
        f"{100 * speed / peak:.0f} %",
    ]
    return [f"{cell} {HIDDEN}", *characters]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few characters: to see that it works")
    count = 100 if parser.parse_args().quick else 10_000
    matrix = np.random.default_rng(0).standard_normal((2048, 2048), dtype=np.float32)
    out = np.empty_like(matrix)
    peak = 2 * 2048**3 / best(lambda: np.matmul(matrix, matrix, out=out), count / 10_000)
    header = [
        "drawing",
        "1 stream, characters/s",
        "of its products' speed",
        f"{STREAMS} streams, characters/s",
        "of sgemm peak",
    ]
    table(header, [row(cell, peak, count) for cell in CELLS])
    print(machine(f"sgemm peak {peak / 1e9:.0f} GFLOP/s with all threads of the BLAS"))


if __name__ == "__main__":
    main()
