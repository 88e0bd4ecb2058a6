"""What is printed: stdout has what was asked for, stderr the messages.

What a model or a file says is data, never markup. This is the only file that escapes control
characters.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# C0, DEL and C1; what ends a line or changes the direction of text; annotations; byte order mark;
# halves of pairs
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


def is_plain(stream: TextIO | None) -> bool:
    """Return whether nothing can be overwritten on `stream`: it is no terminal, or a dumb one."""
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return dumb or stream is None or stream.closed or not stream.isatty()


def is_ascii(stream: TextIO) -> bool:
    """Return whether `stream` may be unable to show box and block characters."""
    return not (stream.encoding or "ascii").lower().replace("_", "-").startswith("utf")


def console(stderr: bool = False) -> Console:
    """Return a rich console on stdout or stderr that prints text as it is, without markup.

    It honours NO_COLOR, FORCE_COLOR and TERM=dumb, and is 80 columns wide without a terminal.
    """
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def as_json(value: Any) -> str:
    """Return `value` as JSON on one line in ASCII; numbers that aren't finite are null."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):  # an array, or a number that isn't finite
        from charrnn.checkpoint.model import finite_json

        return json.dumps(finite_json(value), allow_nan=False)


def print_json(value: Any) -> None:
    """Write `value` to stdout as one line of JSON, at once."""
    sys.stdout.write(as_json(value) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Write a message to stderr, on one line."""
    print(visible(text), file=sys.stderr, flush=True)


def bar(share: float, width: int, *, ascii: bool = False) -> str:
    """Return a bar as long as `share` (0 to 1) of `width` columns."""
    return ("#" if ascii else "█") * round(max(0.0, min(1.0, share)) * width)


def counted(number: float, noun: str) -> str:
    """Return a number with its noun: "1 step", "1,200 steps", "44.4 epochs"."""
    text = f"{number:,}" if isinstance(number, int) else short(number)
    return f"{text} {noun}{'s' * (text != '1')}"


def short(number: float) -> str:
    """Return a number with about three digits, never with an exponent for a large one."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def clock_time(seconds: float) -> str:
    """Return 75 s as 1:15 and 3675 s as 1:01:15."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def labelled(rows: Mapping[str, str]) -> Text:
    """Return a line for each row that says something, after its label."""
    from rich.text import Text

    lines = [
        Text(f"{label:<14}", style="bold").append(visible(said), style="not bold")
        for label, said in rows.items()
        if said
    ]
    return Text("\n").join(lines)
