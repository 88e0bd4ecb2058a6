"""Characters to stdout as they are drawn: readers see them flow without a system call for each."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import TextIO

from charrnn.cli.terminal import visible

SECONDS = 0.05  # for so long at most is text held back while more comes


class Stream:
    """Writes text and flushes it now and then; as a context it ends the last line."""

    def __init__(
        self, file: TextIO | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.file, self.clock = file or sys.stdout, clock
        self.terminal = self.file.isatty()
        self._last, self._flushed = "\n", -math.inf

    def write(self, text: str) -> None:
        """Take a model's text: on a terminal its control characters become visible escapes."""
        self.raw(visible(text, lines=True) if self.terminal else text)

    def raw(self, text: str) -> None:
        """Take text that is safe to write as it is."""
        if text:
            self.file.write(text)
            self._last = text[-1]
            if self.clock() - self._flushed >= SECONDS:
                self.flush()

    def flush(self) -> None:
        """Let all be seen that was written."""
        self.file.flush()
        self._flushed = self.clock()

    def end_line(self) -> None:
        """Write a newline unless the text ends with one, and let all be seen."""
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
