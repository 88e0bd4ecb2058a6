"""Promise 1: a run that is stopped and resumed, at any moment and in any way, ends as the run that
never stopped.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from promises.trial import (
    LINES,
    POSIX,
    Trial,
    a_text,
    begin,
    charrnn,
    environment,
    fill,
    folder,
    small_disk,
    wait_for,
)

CELLS, OPTIMIZERS = ("rnn", "gru", "lstm"), ("adam", "rmsprop", "adagrad", "sgd")
STEPS, DISK = 60, 1 << 20
KINDS = ("after k steps", "SIGINT", "SIGTERM", "SIGKILL", "full disk")
CODES = {"after k steps": 130, "SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9, "full disk": 1}
LOSSES = {"step": "loss", "validated": "val_loss"}
FREQUENTLY = ("--save-every", "0.001s")
STOPPING = """
import os, signal, sys, time
from charrnn.cli import app
from charrnn.training.replica import Replica
original, at = Replica.step, int(sys.argv.pop(1))
def step(self, number, lr):
    if number + 1 == at:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)  # a signal from outside comes some steps later at most, on any machine
    return original(self, number, lr)
Replica.step = step
sys.exit(app.main())
"""


class Case(NamedTuple):
    """What is trained."""

    cell: str
    optimizer: str
    lines: bool
    workers: int

    def options(self, text: Path) -> list[str]:
        """Return the words that begin the run: dropout on, a validation every third step."""
        words = [
            str(LINES if self.lines else text),
            "--cell",
            self.cell,
            "--optimizer",
            self.optimizer,
            "--workers",
            str(self.workers),
        ]
        words += [
            "--hidden",
            "6",
            "--batch-size",
            "32",
            "--seq-len",
            "32",
            "--dropout",
            "0.2",
            "--steps",
            str(STEPS),
            "--seed",
            "5",
        ]
        return [
            *words,
            "--val-every",
            "3",
            "--sample-every",
            "7",
            *(["--lines"] if self.lines else []),
        ]


ALL = [Case(*parts) for parts in product(CELLS, OPTIMIZERS, (False, True), (1, 2))]
SHORT = [Case("lstm", "adam", False, 1), Case("gru", "sgd", True, 2)]


class Runs:
    """A run that is stopped again and again, and its checkpoint and log."""

    def __init__(self, case: Case, disk: Path, home: Path, rng: random.Random) -> None:
        self.case, self.disk, self.rng = case, disk, rng
        self.out, self.log, self.text = (
            disk / "m.npz",
            home / "stopped.jsonl",
            a_text(home / "text.txt"),
        )
        self.straight = home / "straight.npz", home / "straight.jsonl"

    def words(self) -> list[str]:
        """Return the options that begin the run or go on with it."""
        start = (
            ["--resume"] if self.out.exists() else [*self.case.options(self.text), "--overwrite"]
        )
        return [
            "train",
            *start,
            "--out",
            str(self.out),
            "--log",
            str(self.log),
            *FREQUENTLY,
            "--quiet",
        ]

    def step(self) -> int:
        """Return the last step that the log knows of."""
        return max((event.get("step", 0) for event in events(self.log)), default=0)

    def stop(self, kind: str, after: int) -> int:
        """Stop the run somewhere after step `after`; return the exit code."""
        if kind == "after k steps":
            return subprocess.run(
                [sys.executable, "-c", STOPPING, str(after), *self.words()], env=environment()
            ).returncode
        process = begin([sys.executable, "-c", STOPPING, "0", *self.words()])
        wait_for(lambda: process.poll() is not None or (self.out.exists() and self.step() >= after))
        time.sleep(self.rng.random() * 0.02)
        if kind == "full disk":
            filler = fill(self.disk)
            process.wait()
            filler.unlink()
        else:
            process.send_signal(getattr(signal, kind))
        return process.wait()


def events(log: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a log."""
    if not log.exists():
        return []
    return [
        json.loads(line)
        for line in log.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]


def losses(log: Path) -> list[tuple[Any, ...]]:
    """Return what a log says of the losses, without what interrupted parts of the run said at their
    ends.
    """
    told = events(log)
    kept = [
        (event["event"], event["step"], event[LOSSES[event["event"]]])
        for event in told
        if event["event"] in LOSSES
    ]
    last = told[-1]
    return [
        *kept,
        (
            last["event"],
            last.get("steps"),
            last.get("train_loss"),
            last.get("val_loss"),
            last.get("stopped"),
        ),
    ]


def contents(path: Path) -> dict[str, Any]:
    """Return all of a checkpoint that the clock has no part in."""
    with np.load(path, allow_pickle=False) as archive:
        arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    meta = json.loads(str(arrays.pop("meta")))
    for name in ("seconds", "chars_per_second", "speeds"):
        meta.pop(name)
    return {**arrays, **{f"meta.{name}": value for name, value in meta.items()}}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return what differs between the contents of two checkpoints, arrays by their bytes."""
    same = {
        name: a.tobytes() == b.tobytes() and a.shape == b.shape and a.dtype == b.dtype
        if isinstance(a, np.ndarray)
        else a == b
        for name in one.keys() & other.keys()
        for a, b in [(one[name], other[name])]
    }
    return sorted(name for name in one.keys() | other.keys() if not same.get(name))


def kinds_for(disk: bool, rng: random.Random) -> Iterator[tuple[str, int]]:
    """Yield each way to stop with a step: k is one that validates, and at last that of the whole
    run.
    """
    kinds = [kind for kind in KINDS if disk or kind != "full disk"]
    rng.shuffle(kinds)
    for number, kind in enumerate(kinds):
        at = (number + 1) * STEPS // (len(kinds) + 2) + rng.randrange(4)
        yield kind, at // 3 * 3 if kind == "after k steps" else at
    yield "after k steps", STEPS


def attempt(trial: Trial, case: Case, seed: int) -> None:
    """Stop a run in every way, one after the other, and compare its end."""
    rng = random.Random(f"{seed}: {case}")
    with small_disk(DISK) as disk, folder() as home:
        runs = Runs(case, disk or home, home, rng)
        out, log = runs.straight
        ended = charrnn(
            "train", *case.options(runs.text), "--out", out, "--log", log, *FREQUENTLY, "--quiet"
        )
        if not trial.check(ended.code == 0, f"{case}: the run that isn't stopped: {ended.err}"):
            return
        stops = []
        for kind, after in kinds_for(disk is not None, rng):
            code = runs.stop(kind, after)
            stops.append(f"{kind} at {after}")
            trial.check(code == CODES[kind], f"{case} stopped by {stops[-1]}: exit code {code}")
        ended = charrnn(*runs.words())
        trial.check(ended.code == 0, f"{case}: going on to the end: {ended.err}")
        other = differences(contents(out), contents(runs.out))
        trial.check(
            not other, f"{case} ({', '.join(stops)}): the checkpoints differ in {', '.join(other)}"
        )
        trial.check(
            losses(log) == losses(runs.log), f"{case} ({', '.join(stops)}): the losses differ"
        )


def exact_resume(cases: list[Case], seed: int = 0) -> Trial:
    """Return the trial of this promise."""
    how = (
        "a command stopped after k steps, by Ctrl-C, SIGTERM, kill -9 and a full disk in turn, "
        "then resumed to its end"
    )
    trial = Trial("1. resume is exact", how)
    for case in cases if POSIX else []:
        attempt(trial, case, seed)
    return trial


def trials(full: bool) -> list[Trial]:
    """Return all trials of this promise."""
    return [exact_resume(ALL if full else SHORT)]
