"""Printing: results go to stdout, messages to stderr.

Text from a model or a file is data, never markup. Only this file escapes control characters.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

FLUSH_SECONDS = 0.05  # the longest that a Stream holds text back
# C0, DEL and C1; line ends and changes of direction; annotations; byte order mark; surrogates
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ufeff"
    "\ud800-\udfff]"
)


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with control characters as escapes, ESC as \x1b.

    lines: newlines and tabs stay.
    """

    def escape(found: re.Match[str]) -> str:
        char = found[0]
        return char if lines and char in "\n\t" else char.encode("unicode_escape").decode("ascii")

    return _INVISIBLE.sub(escape, text)


def is_plain(stream: TextIO) -> bool:
    """Return whether lines on `stream` can't be redrawn: it is not a terminal, or a dumb one."""
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown") or not stream.isatty()


def console(stderr: bool = False) -> Console:
    """Return a rich console that prints text as it is, without markup.

    It honours NO_COLOR, FORCE_COLOR and TERM=dumb. Without a terminal it is 80 columns wide.
    """
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def as_json(value: Any) -> str:
    """Return `value` as one line of ASCII JSON; NaN and numbers too large become null."""
    from charrnn.checkpoint.model import finite_json

    return json.dumps(finite_json(value))


def print_json(value: Any) -> None:
    """Print `value` as one line of JSON, at once."""
    print(as_json(value), flush=True)


def say(text: str) -> None:
    """Print a message as one line on stderr."""
    print(visible(text), file=sys.stderr, flush=True)


def bar(share: float, width: int, *, ascii: bool = False) -> str:
    """Return a bar that fills `share` (0 to 1) of `width` columns."""
    return ("#" if ascii else "█") * round(max(0.0, min(1.0, share)) * width)


def counted(number: float | None, noun: str) -> str:
    """Return a number with its noun: "1 step", "1,200 steps", "44.4 epochs"; empty for None."""
    if number is None:
        return ""
    whole = isinstance(number, int) or number >= 100
    text = f"{number:,.0f}" if whole else f"{number:.3g}"
    return f"{text} {noun}{'s' * (text != '1')}"


def labelled(rows: Mapping[str, str], screen: Console) -> Text:
    """Return the rows that aren't empty, each with its label.

    In a terminal, long rows are broken between words. Commands and paths stay whole, to be copied.
    """
    from rich.text import Text

    lines = list[Text]()
    for label, said in rows.items():
        line = f"{label:<14}{visible(said)}"
        if screen.is_terminal and not said.startswith(("charrnn ", "mpiexec ")):
            line = fill(line, max(1, screen.width), break_long_words=False, break_on_hyphens=False)
        if said:
            lines.append(Text(line))
            lines[-1].stylize("bold", 0, len(label))
    return Text("\n").join(lines)


class Stream:
    """Writes text to stdout as it comes, without a system call for each character.

    As a context manager, it ends the last line.
    """

    def __init__(
        self, file: TextIO | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.file, self.clock = file or sys.stdout, clock
        self.terminal = self.file.isatty()
        self._last, self._flushed = "\n", -math.inf

    def write(self, text: str) -> None:
        """Write a model's text; a terminal gets its control characters as visible escapes."""
        self.raw(visible(text, lines=True) if self.terminal else text)

    def raw(self, text: str) -> None:
        """Write text that is safe as it is."""
        if text:
            self.file.write(text)
            self._last = text[-1]
            if self.clock() - self._flushed >= FLUSH_SECONDS:
                self.flush()

    def flush(self) -> None:
        """Flush what was written."""
        self.file.flush()
        self._flushed = self.clock()

    def end_line(self) -> None:
        """Write a newline unless the text ends with one, and flush."""
        if self._last != "\n":
            self.raw("\n")
        self.flush()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.end_line()
        except OSError:
            if error is None:  # else `error` says what went wrong
                raise
