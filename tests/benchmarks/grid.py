"""The time of a training step over B, T, H, N and L, in search of a cliff: python
tests/benchmarks/grid.py

One size varies at a time. A size is marked that costs more than 1.1 times the next larger one; both
are then measured again, and the mark stays only if it is seen twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from measure import CELLS, Timing, bare, machine, made_text, table, time_steps

from charrnn.network.cells import CELL_CLASSES

CLIFF = 1.1
SIZES: dict[str, tuple[int, ...]] = {
    "B": (
        1,
        2,
        3,
        4,
        6,
        7,
        8,
        12,
        15,
        16,
        17,
        24,
        31,
        32,
        33,
        48,
        63,
        64,
        65,
        96,
        127,
        128,
        129,
        192,
        255,
        256,
        257,
        384,
        511,
        512,
    ),
    "T": (
        1,
        2,
        3,
        4,
        7,
        8,
        15,
        16,
        17,
        31,
        32,
        33,
        50,
        63,
        64,
        65,
        100,
        127,
        128,
        129,
        200,
        255,
        256,
        257,
        500,
        511,
        512,
        513,
        1000,
    ),
    "H": (16, 32, 48, 63, 64, 65, 96, 127, 128, 129, 192, 250, 255, 256, 257, 300, 384, 500, 512),
    "N": (27, 64, 65, 96, 97, 127, 128, 129, 160, 200, 256, 257, 500, 1000, 2657),
}
QUICK: dict[str, tuple[int, ...]] = {"B": (15, 16), "T": (63, 64), "H": (250, 256), "N": (97, 128)}
CHARACTERS = 1_500_000  # enough for 512 streams of 1,000


@dataclass(frozen=True)
class Point:
    """The sizes of one measurement."""

    cell: str
    B: int = 64
    T: int = 64
    H: int = 256
    N: int = 65
    L: int = 1

    def products(self) -> int:
        """Return the multiply-adds that reading a character takes."""
        return len(CELL_CLASSES[self.cell].gates) * self.H**2 * (2 * self.L - 1) + self.N * self.H

    def measured(self, seconds: float) -> Timing:
        """Return the time of its steps."""
        config = bare(
            cell=self.cell, hidden=self.H, layers=self.L, batch_size=self.B, seq_len=self.T
        )
        with made_text(self.N, CHARACTERS) as text:
            return time_steps(text, config, seconds, warm=2)


def line(points: list[Point], seconds: float) -> tuple[list[Timing], list[int]]:
    """Return the times along one size, and which of them are cliffs."""
    timings = [point.measured(seconds) for point in points]
    cliffs = []
    for i, (here, larger) in enumerate(pairwise(timings)):
        if here.least > CLIFF * larger.least:
            again, beyond = points[i].measured(3 * seconds), points[i + 1].measured(3 * seconds)
            if again.least > CLIFF * min(beyond.least, larger.least):
                cliffs.append(i)
    return timings, cliffs


def rows(cell: str, sizes: dict[str, tuple[int, ...]], seconds: float) -> Iterator[list[str]]:
    """Yield a line of the table for each size."""
    for name, values in sizes.items():
        points = [Point(cell, **{name: value}) for value in values]
        timings, cliffs = line(points, seconds)
        for i, (value, timing) in enumerate(zip(values, timings, strict=True)):
            milliseconds = 1000 * timing.least
            per_character = 1e9 * timing.least / (points[i].B * points[i].T)
            mark = f"cliff: {timing.least / timings[i + 1].least:.2f}" if i in cliffs else ""
            yield [
                f"{cell}, {name} = {value}",
                str(timing.workers),
                f"{milliseconds:.2f}",
                f"{per_character:,.0f}",
                mark,
            ]


def layers(cell: str, seconds: float) -> list[str]:
    """Return a line that compares two layers with one: time and multiply-adds."""
    one, two = Point(cell), Point(cell, L=2)
    time = two.measured(seconds).least / one.measured(seconds).least
    products = two.products() / one.products()
    return [cell, f"{time:.2f}", f"{products:.2f}", f"{time / products:.2f}"]


def main() -> None:
    """Print a table over all sizes, and one that compares two layers with one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cell", choices=CELLS, action="append", help="only this one; may be given again"
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement, at least")
    parser.add_argument(
        "--quick", action="store_true", help="few sizes for 0.05 s: to see that it works"
    )
    a = parser.parse_args()
    sizes, seconds = (QUICK, 0.05) if a.quick else (SIZES, a.seconds)
    chosen = a.cell or CELLS
    print("The others are B = T = 64, H = 256, N = 65, L = 1; each time is the least of several.\n")
    header = ["size", "workers", "ms a step", "ns a character", f"over {CLIFF} times the next"]
    marks: list[str] = []

    def marked() -> Iterator[list[str]]:
        for cell in chosen:
            for row in rows(cell, sizes, seconds):
                marks.extend([row[0]] if row[-1] else [])
                yield row

    table(header, marked())
    print(f"Cliffs: {'; '.join(marks) or 'none'}.\n")
    table(
        ["two layers", "time, of one layer's", "multiply-adds", "time / multiply-adds"],
        (layers(cell, 2 * seconds) for cell in chosen),
    )
    print(machine())


if __name__ == "__main__":
    main()
