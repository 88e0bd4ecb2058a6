"""What all attempts share: the command as a process of its own, counting, the corpus, a
small disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
TALES, LINES = ROOT / "corpora" / "tales.txt", ROOT / "corpora" / "minerals.txt"
POSIX = sys.platform != "win32"
LINUX = sys.platform == "linux"
PATIENCE = 120.0  # seconds after which something that is waited for counts as hanging


@dataclass
class Trial:
    """A promise, how it was tried, how often, and what failed."""

    promise: str
    how: str
    count: int = 0
    failures: list[str] = field(default_factory=list)

    def check(self, good: object, what: str) -> bool:
        """Count an attempt; `what` is kept if it isn't `good`."""
        self.count += 1
        if not good:
            self.failures.append(what)
        return bool(good)

    def row(self) -> str:
        """Return the trial as a row of a Markdown table."""
        return f"| {self.promise} | {self.how} | {self.count:,} | {len(self.failures):,} |"


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: bytes
    err: str
    peak: int  # bytes of memory at most


def environment(**changes: str | None) -> dict[str, str]:
    """Return the environment for a command: this one with the package found from any folder; None
    removes a variable.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    }
    kept |= {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return {name: value for name, value in {**kept, **changes}.items() if value is not None}


def command(*arguments: object) -> list[str]:
    """Return the words that run charrnn with this Python."""
    return [sys.executable, "-m", "charrnn", *map(str, arguments)]


def begin(words: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Return a started command that talks to nobody."""
    quiet: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    return subprocess.Popen(words, **{**quiet, "env": environment(), **options})


def charrnn(
    *arguments: object,
    changes: Mapping[str, str | None] | None = None,
    given: bytes = b"",
    **options: Any,
) -> Ended:
    """Return how the command `charrnn` ended; `changes` are to the environment, `given` is its
    standard input.
    """
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.TemporaryFile() as into,
    ):
        into.write(given)
        into.seek(0)
        streams: dict[str, Any] = {"stdin": into, "stdout": out, "stderr": err}
        process = begin(
            command(*arguments), **{**streams, "env": environment(**(changes or {})), **options}
        )
        code, peak = _awaited(process)
        out.seek(0)
        err.seek(0)
        return Ended(code, out.read(), err.read().decode("utf-8", "surrogateescape"), peak)


def _awaited(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Return the exit code of a process and the bytes of memory that it took at most (0 where that
    isn't known).
    """
    if not POSIX:
        return process.wait(), 0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def wait_for(condition: Callable[[], object], *, pause: float = 0.002) -> bool:
    """Return whether `condition` came true while it was waited for."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


@contextmanager
def folder() -> Iterator[Path]:
    """Yield a new folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="charrnn-promises-") as path:
        yield Path(path).resolve()


@contextmanager
def small_disk(size: int) -> Iterator[Path | None]:
    """Yield a folder that is a disk of `size` bytes in memory; None where that cannot be had
    (Linux's root alone may).
    """
    with folder() as path:
        made = LINUX and os.geteuid() == 0
        made = (
            made
            and subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True
            ).returncode
            == 0
        )
        try:
            yield path if made else None
        finally:
            if made:
                subprocess.run(["umount", "-l", path], check=True)


def fill(disk: Path) -> Path:
    """Return a new file that leaves no room on a small disk."""
    path = disk / "filler"
    with suppress(OSError), path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return path


def a_text(path: Path, characters: int = 6_000) -> Path:
    """Return `path` with the beginning of a real text in it."""
    path.write_text(TALES.read_text(encoding="utf-8")[:characters], encoding="utf-8")
    return path


def report(trials: list[Trial]) -> int:
    """Print what failed and the table; return the exit code."""
    for trial in trials:
        for failure in trial.failures:
            print(f"FAILED {trial.promise}: {failure}", file=sys.stderr)
    print("| promise | how it was tried | count | failures |\n|---|---|---:|---:|")
    print("\n".join(trial.row() for trial in trials))
    return 1 if any(trial.failures for trial in trials) else 0
