"""charrnn beside PyTorch on this machine: python tests/benchmarks/pytorch.py --torch-python PYTHON

Training is forward, backward, clip and an Adam step at B = T = 64, with as many threads or
processes as there are cores; with `--batch-size 32 --seq-len 32 --hidden 192 288 416` at what
budgets choose. charrnn's speed is that of its commands, from two runs that differ only in length,
so that start-up doesn't count. The two sides take turns; the ratio is charrnn /
PyTorch, the median of the rounds. PYTHON is an interpreter with PyTorch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import CELLS, CHARRNN, SIZES, machine, made_text, table, wall

SYMBOLS, SAMPLED = 65, 256
CHARACTERS = 4_000_000
WORK = 100_000_000  # characters · units of a measurement: some seconds of training


def train_command(text: Path, model: Path, **options: int | str) -> list[str]:
    """Return the command of a run that does nothing but train."""
    plain = {"out": model, "val-fraction": 0, "dropout": 0, "sample-every": 0}
    words = [w for name, value in (plain | options).items() for w in (f"--{name}", str(value))]
    return [*CHARRNN, "train", str(text), "--overwrite", "--quiet", *words]


def train_speed(text: Path, model: Path, steps: int, size: dict[str, int | str]) -> float:
    """Return charrnn's characters per second over `steps` steps."""
    short = 10
    seconds = wall(train_command(text, model, steps=short + steps, **size)) - wall(
        train_command(text, model, steps=short, **size)
    )
    return steps * int(size["batch-size"]) * int(size["seq-len"]) / seconds


def sample_speed(model: Path, length: int) -> float:
    """Return charrnn's characters per second over `length` drawn characters."""

    def run(characters: int) -> float:
        return wall(
            [
                *CHARRNN,
                "sample",
                str(model),
                "--length",
                str(characters),
                "--seed",
                "1",
                "--temp",
                "0.8",
            ]
        )

    short = 1000
    return length / (run(short + length) - run(short))


Rows = Iterator[list[str]]


class Rounds:
    """The two sides in turns, and what came of it."""

    def __init__(self, python: str, rounds: int, quick: bool) -> None:
        self.python, self.rounds, self.quick = python, rounds, quick
        self.version = ""
        self.ratios: list[float] = []

    def torch(self, work: str, **options: int | str) -> float:
        """Return PyTorch's characters per second."""
        if self.quick:
            options.update(steps=2, length=200)
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        peer = Path(__file__).with_name("pytorch_peer.py")
        done = subprocess.run(
            [self.python, str(peer), work, *words], check=True, capture_output=True, text=True
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        self.version = answer["torch"]
        return float(answer["chars_per_second"])

    def row(self, name: str, pairs: Iterator[tuple[float, float]]) -> list[str]:
        """Return a row of the table from (charrnn, PyTorch) of each round."""
        ours, theirs = zip(*pairs, strict=True)
        self.ratios.append(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)))
        return [
            name,
            f"{statistics.median(ours):,.0f}",
            f"{statistics.median(theirs):,.0f}",
            f"{self.ratios[-1]:.2f}",
        ]

    def trained(self, text: Path, model: Path, sizes: list[int], B: int, T: int) -> Rows:
        """Yield a row for each cell and size."""
        for cell in CELLS:
            for hidden in sizes:
                size: dict[str, int | str] = {
                    "cell": cell,
                    "hidden": hidden,
                    "batch-size": B,
                    "seq-len": T,
                }
                steps = WORK // (hidden * B * T) * (3 if cell == "rnn" else 1)
                steps = 200_000 // (B * T) if self.quick else steps
                pairs = (
                    (
                        train_speed(text, model, steps, size),
                        self.torch("train", **size, symbols=SYMBOLS),
                    )
                    for _ in range(self.rounds)
                )
                yield self.row(f"{cell} {hidden}", pairs)

    def sampled(self, text: Path, model: Path, length: int) -> Rows:
        """Yield a row for each cell."""
        for cell in CELLS:
            wall(train_command(text, model, cell=cell, hidden=SAMPLED, steps=2))
            pairs = (
                (
                    sample_speed(model, length),
                    self.torch("sample", cell=cell, hidden=SAMPLED, symbols=SYMBOLS),
                )
                for _ in range(self.rounds)
            )
            yield self.row(f"{cell} {SAMPLED}", pairs)

    def summary(self) -> None:
        """Print the geometric mean and the least ratio of the table before, and begin anew."""
        print(
            f"Geometric mean {statistics.geometric_mean(self.ratios):.2f}, "
            f"least {min(self.ratios):.2f}.\n"
        )
        self.ratios = []


def main() -> None:
    """Print a table for training and one for sampling."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch-python", required=True, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["train", "sample"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--hidden", type=int, nargs="+", default=[*SIZES], help="widths to train")
    parser.add_argument(
        "--quick", action="store_true", help="one size, few steps: to see that it works"
    )
    a = parser.parse_args()
    rounds = Rounds(a.torch_python, a.rounds, a.quick)
    header = ["characters per second", "charrnn", "PyTorch", "ratio"]
    with made_text(SYMBOLS, CHARACTERS) as text, tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.npz"
        if a.only != "sample":
            table(
                [f"training, {header[0]}", *header[1:]],
                rounds.trained(
                    text, model, a.hidden[:1] if a.quick else a.hidden, a.batch_size, a.seq_len
                ),
            )
            rounds.summary()
        if a.only != "train":
            table(
                [f"sampling, {header[0]}", *header[1:]],
                rounds.sampled(text, model, 2000 if a.quick else 40_000),
            )
            rounds.summary()
    print(machine(f"PyTorch {rounds.version}", f"medians of {a.rounds} rounds"))


if __name__ == "__main__":
    main()
