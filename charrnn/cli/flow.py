"""Characters to stdout as they are drawn: a person sees them flow, yet a character costs no system call."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from charrnn.cli.terminal import visible

TERMINAL_SECONDS, PIPE_SECONDS = 0.03, 0.1  # at most so long is text held back


class Flow:
    """Gathers text and writes it when some time has passed; as a context it writes the rest, and a newline, at its end."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.stream, self.clock = stream or sys.stdout, clock
        self.terminal = self.stream.isatty()
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
            if self.clock() - self._written >= self._seconds:
                self.flush()

    def flush(self) -> None:
        """Write all that is held."""
        text = "".join(self._held)
        self._held.clear()
        if text:
            self.stream.write(text)
            self.stream.flush()
            self._last = text[-1]
            self._written = self.clock()

    def end_line(self) -> None:
        """Write all that is held, and a newline unless it ends with one."""
        if (self._held[-1][-1] if self._held else self._last) != "\n":
            self._held.append("\n")
        self.flush()

    def __enter__(self) -> Flow:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.end_line()
            return
        with contextlib.suppress(OSError):  # what went wrong is told by `error`
            self.end_line()
