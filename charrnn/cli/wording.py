"""Numbers as a person says them."""

from __future__ import annotations

import math


def counted(number: float, noun: str) -> str:
    """Return a number with its noun: "1 step", "1,200 steps", "44.4 epochs"."""
    text = f"{number:,}" if isinstance(number, int) else short(number)
    return f"{text} {noun}{'s' * (text != '1')}"


def shape(cell: str, layers: int, hidden: int) -> str:
    """Return a network's shape: "lstm, 1 layer of 128 units"."""
    return f"{cell}, {counted(layers, 'layer')} of {counted(hidden, 'unit')}"


def loss(nats: float, digits: int = 3) -> str:
    """Return a loss in nats and in bits."""
    return f"{nats:.{digits}f} nats = {nats / math.log(2):.{digits}f} bits a character"


def short(number: float) -> str:
    """Return a number with about three digits, never with an exponent for a large one."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def clock_time(seconds: float) -> str:
    """Return 75 s as 1:15 and 3675 s as 1:01:15."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
