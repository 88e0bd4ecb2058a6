"""What the colours of a heat map mean: a value has a level from 0 to 9, and a level has a colour.

Each colormap has a palette for a light ground and one for a dark ground.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Palette = tuple[str | None, ...]  # "#rrggbb" of each level, None for the ground's own colour


@dataclass(frozen=True)
class Colormap:
    """How values of one kind are shown."""

    title: str  # what a value is, with its unit
    describe: Callable[[float], str]  # a value in words
    level: Callable[[float], int]
    legend: tuple[tuple[int, str], ...]  # what levels mean, in ASCII, which every encoding has
    digit: Callable[[float], int]  # stands for a value where there are no colours
    digits: str  # what the digits mean
    light: Palette
    dark: Palette


def ink(colour: str) -> str:
    """Return black or white, whichever is the easier to read on "#rrggbb"."""
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


def _bits(nats: float) -> int:
    return _limited(nats / math.log(2))


def _activation(value: float) -> int:
    return _limited(5.5 + 4 * value)


_LIGHT = "- #fff3c4 #fed687 #fdba4a #f08834 #e2571e #b73a18 #8c1c13 #6b141f #4a0d2b"
_DARK = "- #2b2350 #4b2264 #6b2077 #90286b #b5305f #d04d4c #ec6a3a #f6a34b #ffdc5c"

SURPRISE = Colormap(
    title="surprise of each character, in bits",
    describe=lambda nats: f"{nats / math.log(2):.2f} bits",
    level=_bits,
    legend=_legend("0-1 1-2 2-3 3-4 4-5 5-6 6-7 7-8 8-9 9+"),
    digit=_bits,
    digits="under each character its surprise in whole bits, 9: nine or more",
    light=_palette(_LIGHT),
    dark=_palette(_DARK),
)
PROBABILITY = Colormap(
    title="probability of each character",
    describe="probability {:.3g}".format,
    level=lambda p: _limited(-math.log2(max(p, 1e-9))),
    legend=_legend(">1/2 >1/4 >1/8 >1/16 >1/32 >1/64 >1/128 >1/256 >1/512 less"),
    digit=lambda p: _limited(10 * p),
    digits="under each drawn character its probability in tenths: 0 is below 0.1, 9 is 0.9 or more",
    light=_palette(_LIGHT),
    dark=_palette(_DARK),
)


def activation(unit: int) -> Colormap:
    """Return the colormap of a hidden unit's activation, −1 to 1, after each character."""
    return Colormap(
        title=f"activation of unit {unit} after each character, from -1 to 1",
        describe="activation {:+.3f}".format,
        level=_activation,
        legend=_legend("-1 -0.75 -0.5 -0.25 0 +0.25 +0.5 +0.75 +1", first=1),
        digit=_activation,
        digits="under each character the activation from 1 (-1) over 5 (0) to 9 (+1)",
        light=_palette("- #123f7a #446ea0 #779ec6 #a9cdec - #f7bfa5 #d78673 #b64d41 #96140f"),
        dark=_palette("- #7cc4ff #5c94c6 #3c658c #1c3553 - #55261c #8e4d36 #c67351 #ff9a6b"),
    )
