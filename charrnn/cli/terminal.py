"""The two streams: stdout for what was asked for, stderr for all talk. What a model or a file says is data, never markup."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_INVISIBLE = (  # C0, DEL and C1; what changes the direction of text or ends a line; annotations and the byte order mark
    range(0x00, 0x20),
    range(0x7F, 0xA0),
    (0x061C, 0x200E, 0x200F),
    range(0x2028, 0x202F),
    range(0x2066, 0x206A),
    range(0xFFF9, 0xFFFC),
    (0xFEFF,),
    range(0xD800, 0xE000),
)


def _escapes(codes: Iterable[Iterable[int]]) -> dict[int, str]:
    return {
        code: chr(code).encode("unicode_escape").decode("ascii") for some in codes for code in some
    }


_ESCAPES = _escapes(_INVISIBLE)
_ESCAPES_IN_TEXT = {code: escape for code, escape in _ESCAPES.items() if chr(code) not in "\n\t"}


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with control characters as escapes: ESC as \x1b. lines: newlines and tabs stay."""
    return text.translate(_ESCAPES_IN_TEXT if lines else _ESCAPES)


def is_plain(stream: TextIO | None) -> bool:
    """Return whether nothing may move or be overwritten on `stream`: no terminal, or a dumb one."""
    try:
        return (
            stream is None
            or not stream.isatty()
            or os.environ.get("TERM", "").lower() in ("dumb", "unknown")
        )
    except ValueError:  # closed
        return True


def is_ascii(stream: TextIO) -> bool:
    """Return whether `stream` may be unable to show box and block characters."""
    return not (stream.encoding or "ascii").lower().replace("_", "-").startswith("utf")


def console(stderr: bool = False) -> Console:
    """Return a rich console on stdout or stderr that takes text as text: no markup, no emoji codes, no highlighting.

    It honours NO_COLOR, FORCE_COLOR and TERM=dumb, is as wide as the terminal, and 80 columns wide where there is none.
    """
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def as_json(value: Any) -> str:
    """Return `value` as JSON on one line in ASCII; numbers that aren't finite are null."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_json(value: Any) -> None:
    """Write `value` to stdout as one line of JSON, at once."""
    sys.stdout.write(as_json(value) + "\n")
    sys.stdout.flush()


def say(text: str, *, lines: bool = False) -> None:
    """Write talk to stderr, a line; lines: its newlines stay."""
    print(visible(text, lines=lines), file=sys.stderr, flush=True)
