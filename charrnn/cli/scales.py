"""What the colours of a picture mean: a value becomes one of ten levels, a level a colour, a digit and an entry of the legend.

Each scale has two palettes, for a light and for a dark ground; a level whose colour is None has the ground's own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

Colour = str | None  # "#rrggbb"


@dataclass(frozen=True)
class Scale:
    """How values of one kind are shown."""

    title: str  # what a value is, with its unit
    level: Callable[[float], int]  # 0 to 9, for the colour
    digit: Callable[[float], str]  # one character that says as much without colour
    describe: Callable[[float], str]  # the value in words
    legend: tuple[tuple[int, str], ...]  # (level, what it means)
    plain: str  # what the digits mean
    light: tuple[Colour, ...]
    dark: tuple[Colour, ...]

    def palette(self, dark: bool) -> tuple[Colour, ...]:
        """Return the colour of each level."""
        return self.dark if dark else self.light


def ramp(anchors: tuple[str, ...], count: int) -> list[str]:
    """Return `count` colours at equal distances along the line through the anchors."""
    points = [tuple(int(anchor[i : i + 2], 16) for i in (1, 3, 5)) for anchor in anchors]
    colours = []
    for i in range(count):
        at = i * (len(points) - 1) / (count - 1)
        low = min(int(at), len(points) - 2)
        share = at - low
        mixed = [
            round(a + (b - a) * share) for a, b in zip(points[low], points[low + 1], strict=True)
        ]
        colours.append("#{:02x}{:02x}{:02x}".format(*mixed))
    return colours


def luminance(colour: str) -> float:
    """Return the relative luminance, 0 to 1, of "#rrggbb" (WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def ink(colour: str) -> str:
    """Return black or white, whichever is the easier to read on a colour."""
    return "#000000" if luminance(colour) > 0.179 else "#ffffff"


def _rising(anchors: tuple[str, ...]) -> tuple[Colour, ...]:
    return (None, *ramp(anchors, 9))


def _from_the_middle(low: tuple[str, ...], high: tuple[str, ...]) -> tuple[Colour, ...]:
    return (None, *ramp(low, 4), None, *ramp(high, 4))


_LIGHT = _rising(("#fff3c4", "#fdba4a", "#e2571e", "#8c1c13", "#4a0d2b"))
_DARK = _rising(("#2b2350", "#6b2077", "#b5305f", "#ec6a3a", "#ffdc5c"))
_BITS = (
    *((n, f"{n}-{n + 1}") for n in range(9)),
    (9, "9+"),
)  # ASCII, so that it survives every encoding
_CHANCES = (*((n, f">1/{2 ** (n + 1)}") for n in range(9)), (9, "less"))


def _whole_bits(value: float) -> int:
    return max(0, min(9, int(value)))


def _whole_halvings(value: float) -> int:
    return _whole_bits(-math.log2(value)) if value > 0 else 9


def _of_activation(value: float) -> int:
    return max(1, min(9, 5 + round(4 * value)))


SURPRISE = Scale(
    title="surprise of each character, in bits",
    level=_whole_bits,
    digit=lambda value: str(_whole_bits(value)),
    describe=lambda value: f"{value:.2f} bits",
    legend=_BITS,
    plain="under each character its surprise in whole bits, 9: nine or more",
    light=_LIGHT,
    dark=_DARK,
)
PROBABILITY = Scale(
    title="probability of each character",
    level=_whole_halvings,
    digit=lambda value: str(max(0, min(9, int(10 * value)))),
    describe=lambda value: f"probability {value:.3g}",
    legend=_CHANCES,
    plain="under each drawn character its probability in tenths: 0 is below 0.1, 9 is 0.9 or more",
    light=_LIGHT,
    dark=_DARK,
)


def activation(unit: int) -> Scale:
    """Return the scale of a hidden unit's activation, −1 to 1, after each character."""
    return Scale(
        title=f"activation of unit {unit} after each character, from -1 to 1",
        level=_of_activation,
        digit=lambda value: str(_of_activation(value)),
        describe=lambda value: f"activation {value:+.3f}",
        legend=tuple(
            (level, f"{(level - 5) / 4:+g}" if level != 5 else "0") for level in range(1, 10)
        ),
        plain="under each character the activation from 1 (-1) over 5 (0) to 9 (+1)",
        light=_from_the_middle(("#123f7a", "#a9cdec"), ("#f7bfa5", "#96140f")),
        dark=_from_the_middle(("#7cc4ff", "#1c3553"), ("#55261c", "#ff9a6b")),
    )


def dark_terminal() -> bool:
    """Return whether the terminal is dark, as most are; those that set COLORFGBG say so."""
    return os.environ.get("COLORFGBG", "").rpartition(";")[2] not in ("7", "15")
