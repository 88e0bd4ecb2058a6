"""The events of a run as JSON lines in a file that a resumed run continues."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from charrnn.checkpoint.atomic_write import check_writable, part_of
from charrnn.cli.terminal import as_json
from charrnn.config import TrainConfig
from charrnn.errors import CharRNNError

if TYPE_CHECKING:
    from charrnn.training.events import Event


def as_line(event: Event) -> str | None:
    """Return the event as a line of JSON, None for those that JSON leaves out."""
    return as_json(event.as_dict()) + "\n" if getattr(event, "shown", True) else None


class Printed:
    """Writes what it hears to stdout, each line at once."""

    def __call__(self, event: Event) -> None:
        line = as_line(event)
        if line is not None:
            sys.stdout.write(line)
            sys.stdout.flush()

    def close(self) -> None:
        """Nothing is open."""


class Log:
    """Writes what it hears to `path` once something is done: before it nothing is touched. Raises CharRNNError, OSError."""

    def __init__(self, path: Path, sources: Sequence[str], config: TrainConfig) -> None:
        self.path, self.waiting = path, list[str]()
        self.first_step = 0
        self.file: IO[bytes] | None = None
        _check_apart(path, sources, config)
        _check(path, config)

    def __call__(self, event: Event) -> None:
        if event.name == "start":
            self.first_step = event.first_step  # type: ignore[attr-defined]
        if event.name not in ("start", "notice", "done") and self.file is None:
            self.file = _cut(self.path, self.first_step)
        line = as_line(event)
        if line is not None:
            self.waiting.append(line)
        if self.file is not None:
            self._write(self.file)

    def _write(self, file: IO[bytes]) -> None:
        """Write what is waiting at once. Raises OSError with the file's name."""
        try:
            file.write("".join(self.waiting).encode("ascii"))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.waiting.clear()

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()


def _check_apart(path: Path, sources: Sequence[str], config: TrainConfig) -> None:
    """Raise CharRNNError if the log would be the checkpoint or a text, or in a folder that is one, whose text it would change."""
    if config.out is not None and os.path.realpath(path) == os.path.realpath(config.out):
        raise CharRNNError(f"--log and --out are both {path}; give them different names")
    source = part_of(path, sources)
    if source is not None:
        raise CharRNNError(
            f"--log {path} would become part of the text in {source}; choose another place"
        )


def _check(path: Path, config: TrainConfig) -> None:
    """Raise CharRNNError unless the log can be written and isn't something else that would be lost."""
    if not (path.is_fifo() or path.is_char_device()):  # which are written to as they are
        check_writable(path)
    if path.is_file() and path.stat().st_size:
        if not (config.resume or config.overwrite):
            raise CharRNNError(
                f"{path}: this file exists; choose another --log, or --overwrite to start afresh over it and --out"
            )
        _check_lines(path)


def _check_lines(path: Path) -> None:
    """Raise CharRNNError unless the first line of the file is an event."""
    with path.open("rb") as file:
        first = file.readline(1 << 20)
    if _event(first) is None and (first.endswith(b"\n") or not first.startswith(b'{"event"')):
        raise CharRNNError(
            f"{path}: this is not a log of charrnn and is left as it is; choose another --log"
        )


def _event(line: bytes) -> dict[str, Any] | None:
    """Return the event of a whole line, None if it is half of one or something else."""
    try:
        value = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def _cut(path: Path, first_step: int) -> IO[bytes]:
    """Return the log open at its end, with nothing in it that happened after `first_step`, and no half a line."""
    keep = 0
    if first_step and path.is_file():
        with path.open("rb") as file:
            for line in file:
                event = _event(line) or {}
                step = event.get("step", event.get("steps", 0))
                if not event or not isinstance(step, int) or step > first_step:
                    break
                keep += len(line)
    if path.is_file():
        os.truncate(path, keep)
    return path.open("ab", buffering=0)
