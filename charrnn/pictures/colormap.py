"""What the colours of a heat map mean: a value has a level from 0 to 9, and a level has a colour.

Each colormap has a palette for a light background and one for a dark background. A terminal
without colours shows the levels as digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Palette = tuple[str | None, ...]  # "#rrggbb" of each level, None for the background colour


@dataclass(frozen=True)
class Colormap:
    """How one kind of value, such as surprise, is shown."""

    title: str  # what a value is, with its unit
    describe: Callable[[float], str]  # a value in words
    level: Callable[[float], int]
    legend: tuple[tuple[int, str], ...]  # what levels mean, in ASCII, which every encoding has
    light: Palette
    dark: Palette


def ink(colour: str) -> str:
    """Return black or white, whichever is easier to read on "#rrggbb"."""
    red, green, blue = ((channel / 255) ** 2.2 for channel in bytes.fromhex(colour[1:]))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if luminance > 0.179 else "#ffffff"


def _palette(colours: str) -> Palette:
    return tuple(None if colour == "-" else colour for colour in colours.split())


def _legend(texts: str, first: int = 0) -> tuple[tuple[int, str], ...]:
    return tuple(enumerate(texts.split(), first))


def _limited(level: float) -> int:
    """Return a level from 0 to 9; 0, which has no colour, for NaN."""
    return int(min(9, max(0, level)))


_LIGHT = "- #fff3c4 #fed687 #fdba4a #f08834 #e2571e #b73a18 #8c1c13 #6b141f #4a0d2b"
_DARK = "- #2b2350 #4b2264 #6b2077 #90286b #b5305f #d04d4c #ec6a3a #f6a34b #ffdc5c"

SURPRISE = Colormap(
    title="Surprise of each character, in bits",
    describe=lambda nats: f"{nats / math.log(2):.2f} bits",
    level=lambda nats: _limited(nats / math.log(2)),
    legend=_legend("0-1 1-2 2-3 3-4 4-5 5-6 6-7 7-8 8-9 9+"),
    light=_palette(_LIGHT),
    dark=_palette(_DARK),
)
PROBABILITY = Colormap(
    title="Probability of each character",
    describe="probability {:.3g}".format,
    level=lambda p: _limited(-math.log2(max(p, 1e-9))),
    legend=_legend(">1/2 >1/4 >1/8 >1/16 >1/32 >1/64 >1/128 >1/256 >1/512 less"),
    light=_palette(_LIGHT),
    dark=_palette(_DARK),
)


def activation(unit: int) -> Colormap:
    """Return the colormap of a hidden unit's activation, −1 to 1, after each character."""
    return Colormap(
        title=f"Activation of unit {unit} after each character, from -1 to 1",
        describe="activation {:+.3f}".format,
        level=lambda value: _limited(5.5 + 4 * value),
        legend=_legend("-1 -0.75 -0.5 -0.25 0 +0.25 +0.5 +0.75 +1", first=1),
        light=_palette("- #123f7a #446ea0 #779ec6 #a9cdec - #f7bfa5 #d78673 #b64d41 #96140f"),
        dark=_palette("- #7cc4ff #5c94c6 #3c658c #1c3553 - #55261c #8e4d36 #c67351 #ff9a6b"),
    )
