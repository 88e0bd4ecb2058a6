"""A text of 1 GB: how soon training begins, what it holds in memory, how fast it encodes.

    python tests/benchmarks/memory.py --from TEXT [--from TEXT_IN_ANOTHER_SCRIPT]

Each TEXT is repeated with a changing line between into a file of a temporary folder (TMPDIR needs
about 2.5 GB). The first is trained on from the file, a pipe and a .gz. Peak resident sets come from
/proc, so they are known on Linux alone.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from measure import CHARRNN, bare, machine, table, time_steps

from charrnn.text.corpus import read_corpus
from charrnn.text.vocabulary import Vocabulary

MB = 1_000_000
POLL = 0.02  # seconds between looks at the processes


def enlarge(source: Path, target: Path, size: int) -> Path:
    """Return `target`, written: the text again and again with a line that counts between, until it
    has `size` bytes.
    """
    text = source.read_bytes()
    with open(target, "wb") as file:
        written = number = 0
        while written < size:
            written += file.write(b"%s\n%d\n" % (text, number))
            number += 1
    return target


class Peaks(threading.Thread):
    """Watches the peak resident set of a process and of its children until it ends, in bytes by
    process id.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.bytes = pid, dict[int, int]()
        self.over = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        while not self.over.wait(POLL):
            with contextlib.suppress(OSError, ValueError):
                children = (
                    Path(f"/proc/{self.pid}/task/{self.pid}/children")
                    .read_text(encoding="ascii")
                    .split()
                )
                for pid in (self.pid, *map(int, children)):
                    self._look(pid)

    def _look(self, pid: int) -> None:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                self.bytes[pid] = max(self.bytes.get(pid, 0), 1024 * int(line.split()[1]))

    def __str__(self) -> str:
        own = self.bytes.pop(self.pid, 0)
        return (
            " + ".join(f"{peak / MB:.0f}" for peak in (own, *self.bytes.values()))
            if own
            else "unknown"
        )


def trained(name: str, source: str, stdin: IO[bytes] | None, folder: Path, steps: int) -> list[str]:
    """Return a line of the table: a run of some steps by the command, watched."""
    command = [
        *CHARRNN,
        "train",
        source,
        "--out",
        str(folder / "model.npz"),
        "--overwrite",
        "--json",
        "--steps",
        str(steps),
    ]
    own = folder / "own"
    own.mkdir()
    start, ready, first = time.perf_counter(), 0.0, 0.0
    with subprocess.Popen(
        [*command, "--val-fraction", "0", "--sample-every", "0"],
        stdin=stdin or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(own)},
    ) as process:
        peaks = Peaks(process.pid)
        peaks.start()
        assert process.stdout is not None
        for line in process.stdout:
            event, now = json.loads(line)["event"], time.perf_counter() - start
            ready = ready or (now if event == "start" else 0.0)
            first = first or (now if event == "step" else 0.0)
        peaks.over.set()
    if process.returncode:
        raise RuntimeError(f"training from {name} ended with exit code {process.returncode}")
    left = len(os.listdir(own))
    shutil.rmtree(own)
    return [name, f"{ready:.1f}", f"{first:.1f}", str(peaks), str(left)]


def runs(text: Path, folder: Path, steps: int) -> Iterator[list[str]]:
    """Yield a line for each way to bring a text."""
    yield trained("file", str(text), None, folder, steps)
    copy = (
        "import shutil, sys; "
        "shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer, 1 << 20)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", copy, str(text)], stdout=subprocess.PIPE
    ) as source:
        assert source.stdout is not None
        yield trained("pipe", "-", source.stdout, folder, steps)
    packed = folder / "text.gz"
    with open(text, "rb") as file, gzip.open(packed, "wb", compresslevel=1) as out:
        shutil.copyfileobj(file, out, 1 << 20)
    yield trained(".gz", str(packed), None, folder, steps)
    packed.unlink()


def encoding(source: Path, folder: Path, size: int) -> list[str]:
    """Return a line with the MB a second of encoding a text, and of reading a file of it: decode,
    check, encode, keep.
    """
    text = source.read_text(encoding="utf-8")[: 4 << 20]
    vocabulary, count = Vocabulary.of(text), max(1, size // 4 // len(text.encode()))
    start = time.perf_counter()
    for _ in range(count):
        vocabulary.encode(text)
    encoded = count * len(text.encode()) / (time.perf_counter() - start)
    path = enlarge(source, folder / "encoded.txt", size // 4)
    start = time.perf_counter()
    read_corpus([path])
    read = path.stat().st_size / (time.perf_counter() - start)
    path.unlink()
    return [source.name, f"{len(vocabulary):,}", f"{encoded / MB:.0f}", f"{read / MB:.0f}"]


def by_size(source: Path, folder: Path, size: int, seconds: float) -> Iterator[list[str]]:
    """Yield a line with the time of a step for texts of growing size."""
    for share in (1000, 100, 10, 1):
        text = enlarge(source, folder / "sized.txt", size // share)
        timing = time_steps(text, bare(hidden=128), seconds)
        yield [
            f"{size / share / MB:,g}",
            f"{1000 * timing.median:.2f}",
            f"{1000 * timing.least:.2f}",
        ]
        text.unlink()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="texts", type=Path, action="append", required=True, metavar="TEXT"
    )
    parser.add_argument("--size", type=float, default=1000, help="in MB")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--quick", action="store_true", help="10 MB and 20 steps: to see that it works"
    )
    a = parser.parse_args()
    size, steps = (10 * MB, 20) if a.quick else (int(a.size * MB), a.steps)
    with tempfile.TemporaryDirectory(prefix="charrnn-benchmark-") as name:
        folder = Path(name)
        header = ["text", "symbols", "encoded, MB/s", "read from a file, MB/s"]
        table(header, (encoding(text, folder, size) for text in a.texts))
        text = enlarge(a.texts[0], folder / "text.txt", size)
        header = [
            f"{size / MB:,.0f} MB from a",
            "ready, s",
            "first steps, s",
            "peak resident sets, MB",
            "files left",
        ]
        table(header, runs(text, folder, steps))
        text.unlink()
        table(
            ["corpus, MB", "median of a step, ms", "least, ms"],
            by_size(a.texts[0], folder, size, 0.2 if a.quick else 3),
        )
    print(machine())


if __name__ == "__main__":
    main()
