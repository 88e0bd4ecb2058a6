"""Ctrl-C and its like during training: the first lets the step end and the run be saved, the second ends at once."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # the last where there is one: the terminal was closed


class Interruption:
    """Whether the run is to end after this step, and why. Until `listen` is called signals do what they always do."""

    def __init__(self) -> None:
        self.number: int | None = None  # the signal that came
        self.listening = False
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.number is not None

    def __enter__(self) -> Interruption:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def listen(self) -> None:
        """Take over the signals; those that were ignored when the program began (nohup, a script's &) stay ignored."""
        if self.listening:
            return
        self.listening = True
        with contextlib.suppress(ValueError):  # not the main thread
            for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._come)

    def _come(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
