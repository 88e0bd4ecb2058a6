"""Drawing only what matches a pattern.

A pattern becomes a nondeterministic automaton (Thompson 1968), that one a deterministic one over
the model's vocabulary (Rabin and Scott 1959), each state of which knows how many characters it is
from the nearest match. A character may be drawn if enough of the length is left after it.

What a pattern may have: literals, classes, `\\d \\w \\s .`, groups, alternation, `* + ? {m,n}`,
anchors, and `(?i)` at its start. It matches the whole of what is drawn.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import UsageError

Array = NDArray[Any]
STATES = 20_000  # of an automaton, at most
NEVER = 1 << 40  # characters to a match from where none can be reached

# A piece of a pattern is one of: ("set", source of a class for `re`), ("^",), ("$",), ("all",
# pieces one after the other), ("any", pieces to choose from), ("repeat", piece, least, most).
Piece = tuple[Any, ...]
REPEAT = re.compile(r"[*+?]|\{(?!\})(\d*)(?:(,)(\d*))?\}")
TOKEN = re.compile(
    r"""\[\^?\]?(?:\\.|[^\]\\])*\]                 # a class
    |\\(?:x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|[dDwWsSnrtfvaAZ]|[^a-zA-Z\d])
    |[^\\\[]""",
    re.VERBOSE | re.DOTALL,
)


class _Reader:
    """A pattern as pieces, by recursive descent."""

    def __init__(self, pattern: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(f"--match: {pattern!r} is not a pattern: {error}") from None
        self.flags = re.IGNORECASE if pattern.startswith("(?i)") else re.NOFLAG
        self.pattern, self.at = pattern, 4 if self.flags else 0

    def choice(self) -> Piece:
        """Read alternatives up to a closing bracket or the end."""
        pieces = [self._sequence()]
        while self.pattern[self.at : self.at + 1] == "|":
            self.at += 1
            pieces.append(self._sequence())
        return ("any", *pieces)

    def _sequence(self) -> Piece:
        pieces: list[Piece] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            pieces.append(self._repeated(self._one()))
        return ("all", *pieces)

    def _one(self) -> Piece:
        rest = self.pattern[self.at :]
        if rest.startswith("("):
            if rest.startswith("(?") and not rest.startswith("(?:"):
                self._refuse(rest[:3])
            self.at += 3 if rest.startswith("(?:") else 1
            inside = self.choice()
            self.at += 1  # its closing bracket
            return inside
        token = TOKEN.match(rest)
        if token is None:
            self._refuse(rest[:2])
        self.at += token.end()
        word = token.group()
        if word in ("^", r"\A"):
            return ("^",)
        if word in ("$", r"\Z"):
            return ("$",)
        return ("set", word if word[0] in "\\[." else re.escape(word))

    def _repeated(self, piece: Piece) -> Piece:
        found = REPEAT.match(self.pattern, self.at)
        if found is None:
            return piece
        self.at = found.end()
        if self.pattern[self.at : self.at + 1] in ("?", "+"):
            self._refuse(self.pattern[found.start() : self.at + 1])
        least, comma, most = found.groups()
        if least is None:
            return ("repeat", piece, *{"*": (0, None), "+": (1, None), "?": (0, 1)}[found.group()])
        low = int(least or 0)
        return ("repeat", piece, low, (int(most) if most else None) if comma else low)

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(
            f"--match: {what!r} at character {self.at + 1} of {self.pattern!r} is not supported; "
            r"use literals, [classes], \d \w \s ., groups, |, * + ? {m,n}, ^ $ and a leading (?i)"
        )


class _Automaton:
    """The nondeterministic one: states are numbers, 0 the first, and `last` the one that accepts.

    A state of a set is (number, ended): behind `$` no character may follow.
    """

    def __init__(self, piece: Piece) -> None:
        self.moves = defaultdict[int, list[tuple[str, int]]](list)  # state: (class, next)
        self.leaps = defaultdict[int, list[tuple[str, int]]](list)  # the same without a character
        self.count = 1
        self.last = self._link(piece, 0)

    def _new(self) -> int:
        self.count += 1
        if self.count > STATES:
            raise UsageError("--match: the pattern is too large; repeat less")
        return self.count - 1

    def _link(self, piece: Piece, start: int) -> int:
        """Add a piece behind a state; return the state behind it."""
        kind, *rest = piece
        if kind == "all":
            for part in rest:
                start = self._link(part, start)
            return start
        if kind == "repeat":
            part, least, most = rest
            for _ in range(least):
                start = self._link(part, start)
            end = self._new()
            self.leaps[start].append(("", end))
            if most is None:
                self.leaps[self._link(part, end)].append(("", end))
            for _ in range((most or 0) - least):
                start = self._link(part, start)
                self.leaps[start].append(("", end))
            return end
        end = self._new()
        if kind == "set":
            self.moves[start].append((rest[0], end))
        elif kind == "any":
            for part in rest:
                self.leaps[self._link(part, start)].append(("", end))
        else:
            self.leaps[start].append((kind, end))
        return end

    def closure(
        self, states: Iterable[tuple[int, bool]], *, first: bool = False
    ) -> frozenset[tuple[int, bool]]:
        """Return the states that are reached without a character; first: none was read."""
        reached, new = set(states), list(states)
        while new:
            state, ended = new.pop()
            for kind, then in self.leaps[state]:
                reach = (then, ended or kind == "$")
                if reach not in reached and (kind != "^" or first):
                    reached.add(reach)
                    new.append(reach)
        return frozenset(reached)


class _Place(NamedTuple):
    """A state of the deterministic automaton: where in the pattern, and how much of the stop text
    stands at the end of what was drawn.
    """

    states: frozenset[tuple[int, bool]]
    stopping: int


class Matcher:
    """The deterministic automaton of a pattern, for drawing from the characters of a vocabulary.

    end: the character that ends what is drawn and isn't part of it; stop: the text that ends it and
    is; prime: what the match begins with. Raises UsageError for a pattern that isn't supported.
    """

    def __init__(
        self, pattern: str, characters: str, *, prime: str = "", end: str = "", stop: str = ""
    ) -> None:
        reader = _Reader(pattern)
        self._nfa, self._end, self._stop = _Automaton(reader.choice()), end, ""
        sources = sorted({source for moves in self._nfa.moves.values() for source, _ in moves})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            classes = [re.compile(source, reader.flags) for source in sources]
        members = [[one.fullmatch(c) is not None for c in characters] for one in classes]
        members += [[c == single for c in characters] for single in {*prime, *stop, *end}]
        members += [[True] * len(characters)]  # characters in the same classes share a column
        columns, first, inverse = np.unique(members, axis=1, return_index=True, return_inverse=True)
        self._column: Array = inverse.reshape(-1)  # of each character; NumPy 2.0 gave it two axes
        self._has = dict(zip(sources, columns, strict=False))
        start: _Place | bool = _Place(self._nfa.closure([(0, False)], first=True), 0)
        for char in prime:
            column = self._column[characters.index(char)]
            start = isinstance(start, _Place) and self._next(start, column, char)
        self._stop = stop  # which has to be drawn, and may not stand in the prime
        self._table, self._distance = self._build(start, [characters[i] for i in first])
        self._ahead = self._distance[self._table].min(axis=1)  # the nearest match with one more
        self.least = int(self._distance[0])  # characters to a match from the first state

    def after(self, states: Any, indices: Any) -> Any:
        """Return the states after characters."""
        return self._table[states, self._column[indices]]

    def may_be_drawn(self, states: Any, left: int) -> Array:
        """Return which characters may be drawn, (..., N), where at most `left` may."""
        allowed: Array = self._distance[self._table[states]] < left
        return allowed[..., self._column]

    def goes_on(self, states: Any, left: int) -> Any:
        """Return whether there is a character that may be drawn, where at most `left` may."""
        return self._ahead[states] < left

    def _build(self, start: _Place | bool, shown: list[str]) -> tuple[Array, Array]:
        """Return the table (states, columns), and each state's distance from a match.

        The last state but one is reached by what ends the text, the last by what may not be drawn.
        """
        places = [start if isinstance(start, _Place) else _Place(frozenset(), 0)]
        numbers: dict[_Place | bool, int] = {places[0]: 0}
        table: list[list[_Place | bool]] = []
        for place in places:  # which grows
            row = [self._next(place, column, char) for column, char in enumerate(shown)]
            for then in row:
                if isinstance(then, _Place) and then not in numbers:
                    numbers[then] = len(places)
                    places.append(then)
            if len(places) > STATES:
                raise UsageError("--match: the pattern is too large; repeat less")
            table.append(row)
        numbers |= {True: len(places), False: len(places) + 1}
        dead: list[_Place | bool] = [False] * len(shown)
        filled = np.array([[numbers[then] for then in row] for row in [*table, dead, dead]])
        matches = [*map(self._matches, places), True, False]
        distance = np.where(matches, 0, NEVER)
        while True:  # from the matches back, a character a round
            nearer = np.minimum(distance, distance[filled].min(axis=1) + 1)
            if (nearer == distance).all():
                return filled, distance
            distance = nearer

    def _next(self, place: _Place, column: int, char: str) -> _Place | bool:
        """Return where a character leads: a place, True if it ends the text, else False."""
        if char == self._end:
            return self._matches(place)
        moved = [
            (then, False)
            for state, ended in place.states
            if not ended
            for source, then in self._nfa.moves[state]
            if self._has[source][column]
        ]
        if not moved:
            return False
        drawn = self._stop[: place.stopping] + char
        longest = min(len(drawn), len(self._stop))
        stopping = next(k for k in range(longest, -1, -1) if drawn.endswith(self._stop[:k]))
        reached = _Place(self._nfa.closure(moved), stopping)
        return self._matches(reached) if self._stop and drawn == self._stop else reached

    def _matches(self, place: _Place) -> bool:
        return any(state == self._nfa.last for state, _ in place.states)
