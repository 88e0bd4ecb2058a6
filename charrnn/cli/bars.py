"""Bars of text."""

from __future__ import annotations

EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(share: float, width: int, *, ascii: bool = False) -> str:
    """Return a bar as long as `share` (0 to 1) of `width` columns, to an eighth of one; # signs where only ASCII is safe."""
    share = max(0.0, min(1.0, share))
    if ascii:
        return "#" * round(share * width)
    full, rest = divmod(round(share * width * 8), 8)
    return EIGHTHS[8] * full + (EIGHTHS[rest] if rest else "")
