"""The events of a run as lines of JSON: on stdout, and in a file that a resumed run continues."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from charrnn.checkpoint.atomic_write import check_writable, part_of
from charrnn.cli.terminal import as_json
from charrnn.config import TrainConfig
from charrnn.errors import CharRNNError
from charrnn.training.events import Event, Start

BEGINNING = b'{"event": "'  # how every log begins


def as_line(event: Event) -> str:
    """Return the event as a line of JSON, empty for an event that isn't shown."""
    return as_json(event.as_dict()) + "\n" if getattr(event, "shown", True) else ""


def print_event(event: Event) -> None:
    """Write the event to stdout, at once."""
    sys.stdout.write(as_line(event))
    sys.stdout.flush()


class Log:
    """Writes events to the file at `path`, which stays unchanged until the run is under way.

    Raises CharRNNError if no log can be written there, and OSError.
    """

    def __init__(self, path: Path, sources: Sequence[str], config: TrainConfig) -> None:
        self.path, self.waiting, self.first_step = path, "", 0
        self.file: TextIO | None = None
        used = (*sources, str(config.out))
        if part_of(path, used) is None and (path.is_fifo() or path.is_char_device()):
            return
        check_writable(path, used, overwrite=config.resume or config.overwrite)
        if path.is_file() and path.read_bytes()[: len(BEGINNING)] not in (b"", BEGINNING):
            raise CharRNNError(
                f"{path}: this is not a charrnn log, so it is not overwritten; choose another --log"
            )

    def __call__(self, event: Event) -> None:
        self.waiting += as_line(event)
        if isinstance(event, Start):
            self.first_step = event.first_step
        elif self.file is None and event.name not in ("notice", "done"):
            _cut(self.path, self.first_step)
            self.file = self.path.open("a", encoding="ascii", newline="\n")
        if self.file is not None:
            try:
                self.file.write(self.waiting)
                self.file.flush()
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            self.waiting = ""

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            with suppress(OSError):  # a full disk was reported when the event was written
                self.file.close()


def _cut(path: Path, first_step: int) -> None:
    """Cut off a log's lines after `first_step`, and an incomplete one; for step 0, empty it."""
    if not path.is_file():
        return
    size = 0
    with path.open("rb") as lines:
        for line in lines if first_step else ():
            step = re.search(rb'"steps?": (\d+)', line)
            if not line.endswith(b"\n") or (step and int(step[1]) > first_step):
                break
            size += len(line)
    os.truncate(path, size)
