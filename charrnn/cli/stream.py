"""Characters to stdout as they are drawn: readers see them flow without a write for each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from charrnn.cli.terminal import visible

TERMINAL_SECONDS, PIPE_SECONDS = 0.03, 0.1  # for so long at most is text held back


class Stream:
    """Gathers text and writes it after some time has passed; as a context it ends the last line."""

    def __init__(
        self, file: TextIO | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.file, self.clock = file or sys.stdout, clock
        self.terminal = self.file.isatty()
        self._seconds = TERMINAL_SECONDS if self.terminal else PIPE_SECONDS
        self._held: list[str] = []
        self._last, self._written = "\n", -1e9

    def write(self, text: str) -> None:
        """Take a model's text: on a terminal its control characters become visible escapes."""
        self.raw(visible(text, lines=True) if self.terminal else text)

    def raw(self, text: str) -> None:
        """Take text that is safe to write as it is."""
        if text:
            self._held.append(text)
            self._last = text[-1]
            if self.clock() - self._written >= self._seconds:
                self.flush()

    def flush(self) -> None:
        """Write all that is held."""
        self.file.write("".join(self._held))
        self.file.flush()
        self._held.clear()
        self._written = self.clock()

    def end_line(self) -> None:
        """Write all that is held, and a newline unless it ends with one."""
        if self._last != "\n":
            self.raw("\n")
        self.flush()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.end_line()
        except OSError:
            if error is None:  # else `error` tells what went wrong
                raise
