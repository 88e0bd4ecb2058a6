"""The events of a run as lines of JSON: on stdout, and in a file that a resumed run continues."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from charrnn.checkpoint.atomic_write import check_writable, part_of
from charrnn.cli.terminal import as_json
from charrnn.config import TrainConfig
from charrnn.errors import CharRNNError
from charrnn.training.events import Event

BEGINNING = b'{"event": "'  # of every log


def as_line(event: Event) -> str:
    """Return the event as a line of JSON, empty for one of the steps that are left out."""
    return as_json(event.as_dict()) + "\n" if getattr(event, "shown", True) else ""


def print_event(event: Event) -> None:
    """Write the event to stdout, at once."""
    sys.stdout.write(as_line(event))
    sys.stdout.flush()


class Log:
    """Writes events to the file `path`, which is not touched before the first step.

    Raises CharRNNError for a place where no log can be written, and OSError.
    """

    def __init__(self, path: Path, sources: Sequence[str], config: TrainConfig) -> None:
        self.path, self.waiting = path, ""
        self.first_step = 0
        self.file: IO[bytes] | None = None
        taken = part_of(path, (*sources, str(config.out)))
        if taken is not None:
            raise CharRNNError(
                f"--log {path} would change {taken}, which this run reads or writes; "
                "choose another place"
            )
        if not (path.is_fifo() or path.is_char_device()):  # which are written to as they are
            check_writable(path, overwrite=True)
        if path.is_file() and path.stat().st_size:
            _check_log(path, config)

    def __call__(self, event: Event) -> None:
        self.waiting += as_line(event)
        if event.name == "start":
            self.first_step = event.first_step  # type: ignore[attr-defined]
        elif self.file is None and event.name not in ("notice", "done"):
            self.file = _cut(self.path, self.first_step)
        if self.file is not None:
            try:
                line = self.waiting.encode("ascii")
                while line:  # a disk that is nearly full takes a part before it refuses
                    line = line[self.file.write(line) :]
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            self.waiting = ""

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()


def _check_log(path: Path, config: TrainConfig) -> None:
    """Raise CharRNNError if what is at `path` may not be continued or overwritten."""
    if not (config.resume or config.overwrite):
        raise CharRNNError(
            f"{path}: this file exists; choose another --log, or replace it and --out with "
            "--overwrite"
        )
    with path.open("rb") as file:
        if file.read(len(BEGINNING)) != BEGINNING:
            raise CharRNNError(
                f"{path}: this is not a log of charrnn, so it is kept; choose another --log"
            )


def _step(line: bytes) -> float:
    """Return the step of an event in the log, infinity for half a line."""
    try:
        event = json.loads(line)
        step: float = event.get("step", event.get("steps", 0))
    except (ValueError, AttributeError):
        return math.inf
    return step if line.endswith(b"\n") else math.inf


def _cut(path: Path, first_step: int) -> IO[bytes]:
    """Return the log open at its end, without what happened after `first_step` or half a line."""
    keep = 0
    if path.is_file():
        with path.open("rb") as before:
            for line in before if first_step else ():
                if _step(line) > first_step:
                    break
                keep += len(line)
        os.truncate(path, keep)
    return path.open("ab", buffering=0)
