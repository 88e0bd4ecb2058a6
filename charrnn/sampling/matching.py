"""Drawing only what matches a pattern.

A state is a set of sequences, each of which would complete a match (the partial derivatives of
Antimirov 1996). The states that the model's characters can reach form a deterministic automaton.
Each state has its distance to the nearest match, in characters; a character may be drawn if the
nearest match after it still fits into the length.

A pattern may have literals, classes, `\\d \\w \\s .`, groups, alternation, `* + ? {m,n}`, anchors,
and `(?i)` at its start. It has to match the whole drawn text.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from charrnn.arrays import Array
from charrnn.errors import UsageError

LARGEST = 100_000  # most sequences in all states of an automaton together
NEVER = 1 << 40  # the distance of a state from which no match can be reached

Class = frozenset[str]  # the next character has to be one of these
Sequence = tuple[Any, ...]  # of pieces: classes, choices, repeats, and the anchors "first", "last"


class Choice(NamedTuple):
    """A piece that matches if any of these sequences does."""

    sequences: tuple[Sequence, ...]


class Repeat(NamedTuple):
    """A piece, repeated `least` to `most` times."""

    piece: Any
    least: int
    most: float


QUANTIFIER = r"(?:[*+?]|\{(?!\})\d*,?\d*\})"
TOKEN = re.compile(  # a token in none of the named groups isn't supported
    rf"""{QUANTIFIER}[?+] | (?P<quantifier>{QUANTIFIER})
    | \(\?[^:] | (?P<open>\((?:\?:)?) | (?P<bar>\|) | (?P<close>\))
    | (?P<first>\^|\\A) | (?P<last>\$|\\Z)
    | (?P<set>\.|\[\^?\]?(?:\\.|[^\]\\])*\]
        |\\(?:x[\da-fA-F]{{2}}|u[\da-fA-F]{{4}}|U[\da-fA-F]{{8}}|[dDwWsSnrtfva]|[^a-zA-Z\d]))
    | \\. | (?P<literal>.)""",
    re.VERBOSE | re.DOTALL,
)


def parsed(pattern: str, characters: str) -> tuple[Sequence, set[Class]]:
    """Return the pieces of a pattern over these characters, and the classes among them.

    Raises UsageError for an invalid or unsupported pattern.
    """
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"--match: {pattern!r} is not a pattern: {error}") from None
    flags = re.IGNORECASE if pattern.startswith("(?i)") else re.NOFLAG
    outermost, classes = [list[Any]()], dict[str, Class]()
    groups = [outermost]  # the open groups, each with its sequences
    for token in TOKEN.finditer(pattern, 4 if flags else 0):
        text, sequence = token.group(), groups[-1][-1]
        match token.lastgroup:
            case "open":
                groups.append([[]])
            case "bar":
                groups[-1].append([])
            case "close":
                choice = _choice(groups.pop())
                groups[-1][-1].append(choice)
            case "quantifier":
                sequence.append(_repeat(sequence.pop(), text))
            case "first" | "last" as anchor:
                sequence.append(anchor)
            case "set" | "literal" as kind:
                one = re.compile(text if kind == "set" else re.escape(text), flags)
                classes[text] = frozenset(filter(one.fullmatch, characters))
                sequence.append(classes[text])
            case _:
                raise UsageError(
                    f"--match: {text!r} at character {token.start() + 1} of {pattern!r} is not "
                    r"supported; use literals, [classes], \d \w \s ., groups, |, * + ? {m,n}, ^ $ "
                    "and a leading (?i)"
                )
    return (_choice(outermost),), set(classes.values())


def _choice(group: list[list[Any]]) -> Choice:
    return Choice(tuple(map(tuple, group)))


def _repeat(piece: Any, quantifier: str) -> Repeat:
    bounds = {"*": "0,", "+": "1,", "?": "0,1"}.get(quantifier, quantifier[1:-1])
    least, comma, most = bounds.partition(",")
    low = int(least or 0)
    return Repeat(piece, low, int(most) if most else math.inf if comma else low)


class State(NamedTuple):
    """The sequences that would each complete a match, and the part of the stop text read so far."""

    missing: frozenset[Sequence]
    tail: str = ""
    first: bool = False  # nothing has been read yet

    def reached(self, *, last: bool) -> set[Sequence]:
        """Return `missing` and all that its sequences expand to; last: no characters follow."""
        reached, new = set(self.missing), list(self.missing)
        while new:
            found = set(self._opened(new.pop(), last)) - reached
            reached |= found
            new += found
            _check_size(len(reached))
        return reached

    def _opened(self, sequence: Sequence, last: bool) -> Iterator[Sequence]:
        """Yield the sequences that may replace this one when its first piece is expanded."""
        match sequence:
            case [Choice(sequences), *after]:
                yield from ((*one, *after) for one in sequences)
            case [Repeat(piece, least, most), *after]:
                if not least:
                    yield tuple(after)
                if most:
                    yield piece, Repeat(piece, max(0, least - 1), most - 1), *after
            case ["first", *after] if self.first:
                yield tuple(after)
            case ["last", *after] if last:
                yield tuple(after)

    @property
    def matches(self) -> bool:
        """Whether a text that ends here matches."""
        return () in self.reached(last=True)

    def after(self, characters: str) -> Iterator[frozenset[Sequence]]:
        """Yield what is still missing after each of these characters."""
        reached = [sequence for sequence in self.reached(last=False) if sequence]
        begun = [(s[0], s[1:]) for s in reached if isinstance(s[0], frozenset)]
        for char in characters:
            yield frozenset(after for one, after in begun if char in one)


MATCHED, FAILED = State(frozenset({()})), State(frozenset())  # the states of a text that has ended


def _check_size(sequences: int) -> None:
    if sequences > LARGEST:
        raise UsageError("--match: the pattern is too large; use fewer or smaller repeats")


class Matcher:
    """The deterministic automaton of a pattern, for drawing from the characters of a vocabulary.

    prime: the beginning of what must match. The drawn text ends before the character `end`, or
    after the text `stop`. Raises UsageError as `parsed` does.
    """

    def __init__(
        self, pattern: str, characters: str, *, prime: str = "", end: str = "", stop: str = ""
    ) -> None:
        with warnings.catch_warnings(action="ignore"):  # ignore the warning about nested sets
            sequence, classes = parsed(pattern, characters)
        start = State(frozenset({sequence}), first=True)
        for char in prime:
            start = State(next(start.after(char)))
        # Characters that are in the same classes share a column of the table.
        kinds = [
            (char in stop + end and char, *(char in c for c in classes)) for char in characters
        ]
        shown = dict(zip(kinds, characters, strict=True))
        self._column: Array = np.array([[*shown].index(kind) for kind in kinds])
        self._end, self._stop = end, stop
        states, self._table = self._build(start, "".join(shown.values()))
        distance = np.array([0 if state.matches else NEVER for state in states])
        while True:  # each round finds the states one character farther from a match
            self._distance = distance
            distance = np.minimum(distance, distance[self._table].min(axis=1) + 1)
            if (distance == self._distance).all():
                break
        self._ahead = distance[self._table].min(axis=1)  # from the best next state to a match
        self.least = int(distance[0])  # characters that the shortest match needs

    def after(self, states: Any, indices: Any) -> Any:
        """Return the states after these characters, one for each state."""
        return self._table[states, self._column[indices]]

    def may_be_drawn(self, states: Any, left: int) -> Array:
        """Return which characters may be drawn, (..., N), with `left` characters to go."""
        allowed: Array = self._distance[self._table[states]] < left
        return allowed[..., self._column]

    def goes_on(self, states: Any, left: int) -> Any:
        """Return whether any character may be drawn with `left` characters to go."""
        return self._ahead[states] < left

    def _build(self, start: State, characters: str) -> tuple[list[State], Array]:
        """Return the reachable states, and for each the next state's number by character."""
        numbers, size = {start: 0}, 0
        states, table = [start], []
        for state in states:  # the loop appends to it
            after = zip(characters, state.after(characters), strict=True)
            row = [self._next(state, char, missing) for char, missing in after]
            for then in row:
                if numbers.setdefault(then, len(states)) == len(states):
                    states.append(then)
                    size += len(then.missing)
            table.append([numbers[then] for then in row])
            _check_size(size)
        return states, np.array(table)

    def _next(self, state: State, char: str, missing: frozenset[Sequence]) -> State:
        """Return the state after a character; `missing` is what is still missing then."""
        if char == self._end:
            return MATCHED if state.matches else FAILED
        if not missing:
            return FAILED
        tail = state.tail + char
        while not self._stop.startswith(tail):
            tail = tail[1:]
        then = State(missing, tail)
        if self._stop and tail == self._stop:
            return MATCHED if then.matches else FAILED
        return then
