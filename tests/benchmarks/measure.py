"""What the benchmarks share: clocks, a made-up text, a table, and what machine this is."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from charrnn.blas import blas_threads, cores
from charrnn.config import TrainConfig
from charrnn.training.events import Start, Step
from charrnn.training.loop import train

CELLS = ("rnn", "gru", "lstm")
SIZES = (128, 256, 512)
CHARRNN = (sys.executable, "-m", "charrnn")


@dataclass(frozen=True)
class Timing:
    """Seconds of each step of a run, and with how many processes it ran."""

    seconds: list[float]
    workers: int

    @property
    def median(self) -> float:
        """Return the seconds of a usual step."""
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        """Return the seconds of the fastest step, which other programs disturb least."""
        return min(self.seconds)


def time_steps(
    source: Path, config: TrainConfig, seconds: float, warm: int = 3, least: int = 3
) -> Timing:
    """Return the time of each training step, by the clock outside, over about `seconds` and at
    least `least` steps.
    """
    times: list[float] = []
    workers, before, end = 1, 0.0, float("inf")
    done = 0

    def enough() -> bool:
        return len(times) >= least and time.perf_counter() >= end

    for event in train([source], config, interrupted=enough):
        now = time.perf_counter()
        if isinstance(event, Start):
            workers = event.workers
        elif isinstance(event, Step):
            done += 1
            if done > warm:
                times.append(now - before)
            elif done == warm:
                end = now + seconds
            before = time.perf_counter()
    return Timing(times, workers)


def bare(**options: object) -> TrainConfig:
    """Return the options of a run that only trains: no validation, no samples, no dropout,
    no file.
    """
    plain = {
        "out": None,
        "steps": 10**9,
        "val_fraction": 0.0,
        "sample_every": 0,
        "dropout": 0.0,
        "workers": "auto",
    }
    return TrainConfig(**{**plain, **options})  # type: ignore[arg-type]


def wall(command: Sequence[str]) -> float:
    """Return the seconds that a command takes. Raises CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return time.perf_counter() - start


def best(function: Callable[[], object], seconds: float) -> float:
    """Return the least time of one call, over about `seconds` of calls."""
    least, end = float("inf"), time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        function()
        now = time.perf_counter()
        least = min(least, now - start)
        if now >= end:
            return least


def sgemm(seconds: float, n: int = 2048) -> float:
    """Return the operations a second of one float32 product of (n, n) matrices on one thread, the
    best of several.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, n), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    with blas_threads(1):
        return 2 * n**3 / best(lambda: np.matmul(a, b, out=out), seconds)


def sgemm_peak(processes: int, seconds: float) -> float:
    """Return the operations a second of `processes` that multiply matrices at the same time, one
    thread each.
    """
    with get_context("spawn").Pool(processes) as pool:
        pool.map(sgemm, [0.01] * processes, chunksize=1)  # all awake
        return sum(pool.map(sgemm, [seconds] * processes, chunksize=1))


@contextmanager
def made_text(N: int, length: int) -> Iterator[Path]:
    """Yield a file of `length` random characters of N kinds, some of them far commoner than
    others.
    """
    alphabet = np.array([chr(0x4E00 + i) if N > 94 else chr(33 + i) for i in range(N)])
    share = 1 / (1 + np.arange(N))
    drawn = np.random.default_rng(0).choice(N, length, p=share / share.sum())
    drawn[:N] = np.arange(N)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.txt"
        path.write_text(alphabet[drawn].view(f"<U{length}").item(), encoding="utf-8")
        yield path


def table(header: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, each row as it comes; the first column is text, the others are
    numbers.
    """
    print("|", " | ".join(header), "|")
    print("|---|" + "---:|" * (len(header) - 1))
    for row in rows:
        print("|", " | ".join(row), "|", flush=True)
    print()


def machine(*more: str) -> str:
    """Return one line that says on what the figures were measured."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    parts = [
        f"{cores()} cores",
        _processor(),
        f"Python {platform.python_version()}",
        f"NumPy {np.__version__}",
    ]
    return ", ".join([*parts, f"{blas['name']} {blas['version']}", *more])


def _processor() -> str:
    """Return the processor's name, as well as it can be known."""
    known = Path("/proc/cpuinfo")
    if known.is_file():
        for line in known.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or os.name
