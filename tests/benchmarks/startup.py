"""Time to start, and how many workers are best: python tests/benchmarks/startup.py

Start-up is the median of 11 runs, in turns with what it is compared with. The workers' table has
the time of a step with one process and with one a core; it names the sizes at which `--workers
auto` isn't within 5 % of the faster.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from measure import CELLS, CHARRNN, bare, machine, made_text, table, time_steps, wall

from charrnn.blas import cores
from charrnn.config import TrainConfig
from charrnn.training.events import Start
from charrnn.training.loop import train

HIDDEN, BATCHES = (16, 32, 64, 128, 256, 512), (8, 16, 32, 64, 128, 256)
SLOWER = 1.05


def first_character(command: Sequence[str]) -> float:
    """Return the seconds until a command writes its first byte."""
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise RuntimeError(f"{command} wrote nothing")
        seconds = time.perf_counter() - start
        process.kill()
    return seconds


def compared(
    name: str, ours: Callable[[], float], theirs: Callable[[], float], rounds: int
) -> list[str]:
    """Return a line with the medians of both sides, taken in turns, and their ratio."""
    ours(), theirs()  # files into the cache
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    return [name, f"{1000 * mine:.0f}", f"{1000 * other:.0f}", f"{mine / other:.2f}"]


def starts(text: Path, rounds: int) -> Iterator[list[str]]:
    """Yield a line for each kind of start."""

    def python(code: str) -> Callable[[], float]:
        return lambda: wall([sys.executable, "-c", code])

    yield compared(
        "charrnn --help, beside typer and rich",
        lambda: wall([*CHARRNN, "--help"]),
        python("import typer, rich.console"),
        rounds,
    )
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model.npz")
        wall(
            [
                *CHARRNN,
                "train",
                str(text),
                "--out",
                model,
                "--steps",
                "1",
                "--val-fraction",
                "0",
                "--quiet",
            ]
        )
        sample = [*CHARRNN, "sample", model, "--length", "100000", "--seed", "1"]
        yield compared(
            "first character of charrnn sample, beside NumPy",
            lambda: first_character(sample),
            python("import numpy"),
            rounds,
        )


def automatic(text: Path, config: TrainConfig) -> int:
    """Return how many workers the rule picks: the run is let go before they start."""
    events = train([text], config)
    return next(event.workers for event in events if isinstance(event, Start))


def workers(text: Path, cell: str, H: int, B: int, seconds: float) -> list[str]:
    """Return a line with the time of a step by workers."""
    counts = sorted({1, min(cores(), B)})
    config = {"cell": cell, "hidden": H, "batch_size": B, "seq_len": 64}
    least = {
        count: time_steps(text, bare(**config, workers=count), seconds).least for count in counts
    }
    picked = automatic(text, bare(**config))
    if picked not in least:
        least[picked] = time_steps(text, bare(**config, workers=picked), seconds).least
    ratio = least[picked] / min(least.values())
    times = [f"{1000 * least[count]:.2f}" for count in counts]
    return [
        f"{cell}, H = {H}, B = {B}",
        *times,
        str(picked),
        f"{ratio:.2f}" if ratio > SLOWER else "",
    ]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement of a step")
    parser.add_argument("--only", choices=["start", "workers"])
    parser.add_argument(
        "--quick", action="store_true", help="3 rounds, few sizes: to see that it works"
    )
    a = parser.parse_args()
    if a.quick:
        a.seconds, a.rounds = 0.05, 3
    hidden, batches = ((16, 128), (8, 64)) if a.quick else (HIDDEN, BATCHES)
    slow: list[str] = []

    def lines(text: Path) -> Iterator[list[str]]:
        for cell, H, B in ((cell, H, B) for cell in CELLS for H in hidden for B in batches):
            line = workers(text, cell, H, B, a.seconds)
            slow.extend([line[0]] if line[-1] else [])
            yield line

    with made_text(
        65, 1_000_000 if a.quick else 16_000_000
    ) as text:  # no stream ends, where a step is shorter
        if a.only != "workers":
            table(["start", "ms", "beside, ms", "ratio"], starts(text, a.rounds))
        if a.only != "start":
            table(
                [
                    "step at T = 64",
                    "1 worker, ms",
                    f"{cores()} workers, ms",
                    "auto",
                    "auto / fastest",
                ],
                lines(text),
            )
            print(
                f"Where auto isn't within {SLOWER} times the fastest: "
                f"{'; '.join(slow) or 'nowhere'}.\n"
            )
    print(machine())


if __name__ == "__main__":
    main()
