"""Promise 7: a long run takes no more memory than a short one and leaves nothing open; two runs
don't write one file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from promises.exact_resume import events
from promises.trial import (
    LINUX,
    POSIX,
    Trial,
    a_text,
    begin,
    charrnn,
    command,
    environment,
    folder,
    wait_for,
)

FLAT = 5 << 20  # bytes that the resident set may grow
TINY = (
    "--hidden",
    "4",
    "--batch-size",
    "2",
    "--seq-len",
    "4",
    "--sample-every",
    "1000",
    "--val-every",
    "100",
    "--save-every",
    "0.5s",
    "--quiet",
)
COUNTING = """
import gc, json, os, sys, threading
from charrnn.cli import app
def left():
    gc.collect()
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return {
        "descriptors": sorted(os.listdir("/proc/self/fd"))[:-1],
        "threads": threading.active_count(),
        "children": children,
        "tasks": len(os.listdir("/proc/self/task")),
    }
import numpy, charrnn.cli.app, charrnn.training.loop
numpy.ones((64, 64)) @ numpy.ones((64, 64))
before = left()
codes = [app.main([*sys.argv[1:], "--overwrite", "--out", f"{number}.npz"]) for number in range(3)]
print(json.dumps([codes, before, left()]))
"""


def resident(pid: int) -> int:
    """Return the bytes that a process has in memory, 0 if it is gone; Linux alone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def growth(process: subprocess.Popen[bytes]) -> int:
    """Return by how many bytes a process grows from now to its end at most."""
    first = most = resident(process.pid)
    while process.poll() is None:
        most = max(most, resident(process.pid))
        time.sleep(0.02)
    return most - first


def flat_training(steps: int) -> Trial:
    """Return the trial of the memory of a long run."""
    trial = Trial(
        "7. training holds its memory",
        f"{steps:,} steps with saves and validations, after the first 1,000",
    )
    if not LINUX:
        return trial
    with folder() as home:
        log = home / "run.jsonl"
        text, out = a_text(home / "text.txt"), home / "m.npz"
        process = begin(
            command(
                "train", text, *TINY, "--workers", "1", "--steps", steps, "--out", out, "--log", log
            )
        )
        wait_for(
            lambda: (
                process.poll() is not None
                or any(event.get("step", 0) >= 1000 for event in events(log))
            ),
            pause=0.05,
        )
        grown = growth(process)
        trial.how += f": {grown / 1e6:.1f} MB more"
        trial.count = steps
        if process.returncode or grown > FLAT:
            trial.failures.append(f"{grown / 1e6:.1f} MB more, exit code {process.returncode}")
    return trial


def flat_sampling(length: int) -> Trial:
    """Return the trial of the memory of a long sample."""
    trial = Trial("7. sampling holds its memory", f"{length:,} characters in one go")
    if not LINUX:
        return trial
    with folder() as home:
        out = home / "m.npz"
        assert (
            charrnn(
                "train",
                a_text(home / "text.txt"),
                *TINY,
                "--workers",
                "1",
                "--steps",
                "2",
                "--out",
                out,
            ).code
            == 0
        )
        process = begin(
            command("sample", out, "--length", length, "--seed", "1"), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        read = len(process.stdout.read(10_000))
        first = most = resident(process.pid)
        with process.stdout:
            while piece := process.stdout.read(100_000):
                read, most = read + len(piece), max(most, resident(process.pid))
        trial.how += f": {(most - first) / 1e6:.1f} MB more"
        trial.count = length
        if process.wait() or most - first > FLAT or read < length:
            trial.failures.append(
                f"{most - first:,} bytes more, {read:,} bytes read, exit code {process.returncode}"
            )
    return trial


def nothing_left(steps: int) -> Trial:
    """Return the trial of what three runs in one process leave open."""
    trial = Trial(
        "7. nothing is left open",
        f"descriptors, threads and processes after three runs of {steps} steps, "
        "alone and with workers",
    )
    with folder() as home:
        text = a_text(home / "text.txt")
        for workers in ("1", "3") if LINUX else ():
            words = [
                "train",
                str(text),
                *TINY,
                "--batch-size",
                "6",
                "--workers",
                workers,
                "--steps",
                str(steps),
                "--log",
                "run.jsonl",
            ]
            ended = subprocess.run(
                [sys.executable, "-c", COUNTING, *words],
                cwd=home,
                env=environment(),
                capture_output=True,
                text=True,
            )
            codes, before, after = (
                json.loads(ended.stdout) if ended.stdout else (ended.stderr, 0, 1)
            )
            trial.check(
                codes == [0, 0, 0] and before == after,
                f"{workers} workers: {codes}, {before} became {after}",
            )
    return trial


def two_at_once(rounds: int) -> Trial:
    """Return the trial of a second run with the same --out, while the first lives and after it was
    killed.
    """
    trial = Trial(
        "7. two runs, one file",
        "a second run with the same --out is refused while the first lives, not after kill -9",
    )
    with folder() as home:
        text, out, link = a_text(home / "text.txt"), home / "m.npz", home / "link.npz"
        link.symlink_to(out)
        for number in range(rounds if POSIX else 0):
            name = link if number % 2 else out
            process = begin(
                command(
                    "train",
                    text,
                    *TINY,
                    "--workers",
                    "2",
                    "--steps",
                    "1000000",
                    "--overwrite",
                    "--out",
                    out,
                )
            )
            wait_for(
                lambda process=process: (
                    process.poll() is not None or (home / ".m.npz.lock").exists()
                )
            )
            time.sleep(0.05)
            second = charrnn("train", text, *TINY, "--steps", "3", "--overwrite", "--out", name)
            refused = second.code == 1 and "another run is writing it" in second.err
            trial.check(refused, f"while the first lives: {second}")
            trial.check(process.poll() is None, "the first run ended")
            process.kill()
            process.wait()
            third = charrnn("train", text, *TINY, "--steps", "3", "--overwrite", "--out", name)
            trial.check(third.code == 0, f"after the first was killed: {third}")
    return trial


def trials(full: bool) -> list[Trial]:
    """Return all trials of this promise."""
    long = (
        (flat_training(100_000), flat_sampling(10**7))
        if full
        else (flat_training(3_000), flat_sampling(300_000))
    )
    return [*long, nothing_left(300 if full else 50), two_at_once(20 if full else 2)]
