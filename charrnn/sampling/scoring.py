"""How surprising a text is to a model: −ln ŷ_t[y_t] of each character, in nats.

A text is read in pieces, many side by side, each from a zero state: the streams that running text
is cut into or, for a model of lines, its lines. NaN stands for a character that wasn't
predicted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from charrnn.arrays import Array
from charrnn.checkpoint.model import Model
from charrnn.config import Unknown
from charrnn.errors import CheckpointError, CorpusError
from charrnn.network.network import Network, zero_state
from charrnn.text.vocabulary import code_points

Pieces = tuple[Array, Array]  # each piece's start, and its number of predictions
SIDE_BY_SIDE = 256  # most pieces read together
CHUNK, LONGEST = 4096, 256  # most characters read at once: in all pieces, in one piece
SHOWN = 10_000  # most characters shown in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """How surprising a text is to a model, character by character."""

    text: str
    surprise: Array  # nats (len + 1,); the last value is for the newline that ends the last item
    unknown: int = 0  # characters that the model doesn't know

    @property
    def nats(self) -> Array:
        """The surprise of each predicted character."""
        return self.surprise[~np.isnan(self.surprise)]

    @cached_property
    def characters(self) -> int:
        """The number of predicted characters."""
        return self.nats.size

    @cached_property
    def mean(self) -> float:
        """Nats per predicted character."""
        return float(self.nats.mean(dtype=np.float64))

    @property
    def bpc(self) -> float:
        """Bits per predicted character."""
        return self.mean / math.log(2)

    @property
    def perplexity(self) -> float:
        """e^mean: the number of equally likely characters that would be as surprising."""
        return math.exp(min(self.mean, 700.0))

    @property
    def summary(self) -> str:
        """The figures in one line."""
        means = f"{self.mean:.4f} nats, {self.bpc:.4f} bits, perplexity {self.perplexity:.3f}"
        return f"{means} per character over {self.characters:,} characters"

    def as_dict(self) -> dict[str, float]:
        """Return the figures as --json prints them."""
        return {
            "nats": self.mean,
            "bpc": self.bpc,
            "perplexity": self.perplexity,
            "characters": self.characters,
            "unknown": self.unknown,
        }

    def __repr__(self) -> str:
        return f"<charrnn.Score: {self.summary}>"

    def _repr_html_(self) -> str:
        """Return the text as a heat map, which is how a notebook shows a score."""
        from charrnn.pictures.colormap import SURPRISE
        from charrnn.pictures.heatmap import Heat, fragment

        text = self.text + "\n" * (not np.isnan(self.surprise[-1]))
        return fragment(Heat("", text[:SHOWN], self.surprise[:SHOWN], self.summary), SURPRISE)

    def by_line(self) -> tuple[Array, Array, Array]:
        """Return the borders of the lines, and each line's nats and predicted characters.

        A newline belongs to the line that it ends. L lines have L + 1 borders.
        """
        borders = np.flatnonzero(code_points(f"\n{self.text}\n") == ord("\n"))
        nats, characters = (
            np.add.reduceat(values, borders[:-1], dtype=np.float64)
            for values in (np.nan_to_num(self.surprise), ~np.isnan(self.surprise))
        )
        return borders, nats, characters

    def worst(self, count: int) -> list[tuple[int, slice]]:
        """Return the numbers (from 1) and slices of the most surprising lines, the worst first.

        Empty lines are left out.
        """
        borders, nats, characters = self.by_line()
        lines = np.flatnonzero((characters > 0) & (np.diff(borders) > 1))
        order = np.argsort(-nats[lines] / characters[lines], kind="stable")[:count]
        return [(i + 1, slice(*borders[i : i + 2].tolist())) for i in lines[order].tolist()]


def score(model: Model, text: str, *, streams: int = 1, unknown: Unknown = "error") -> Score:
    """Return how surprising `text` is as running text or, for a model of lines, item by item.

    Running text is read from a zero state, and every character but the first is predicted. More
    streams are faster, but the first character of each isn't predicted. In an item, all characters
    and the newline that ends it are predicted; empty lines are not items.

    unknown="skip" leaves out characters that the model doesn't know. With "score" each of them
    costs ln(n + 1) nats, where n is the number of characters that the model was trained on. With
    "error" they raise VocabularyError. Raises CorpusError if nothing is predicted, and
    CheckpointError if the model doesn't record n.
    """
    known, symbols = _encoded(model, text, unknown, items=model.of_lines)
    if model.of_lines:
        start, length = _items(symbols)
        whole = _items(code_points(f"\n{text}\n"))[1] if unknown == "score" else length
        pieces = start[whole > 1], length[whole > 1]
    else:
        pieces = _streams(len(symbols) - 2, streams)
    result = _score(model, text, known, symbols, pieces, unknown)
    if not result.characters:
        least = "a line that isn't empty" if model.of_lines else "at least two characters"
        raise CorpusError(f"the text has nothing to predict; give one with {least}")
    return result


def score_lines(model: Model, text: str, unknown: Unknown = "error") -> Score:
    """Return how surprising `text` is with each line as an item, even for a model of running text.

    An empty line is an item too: its newline is predicted. Raises what `score` raises.
    """
    known, symbols = _encoded(model, text, unknown, items=True)
    return _score(model, text, known, symbols, _items(symbols), unknown)


def activations(model: Model, text: str, unit: int) -> Array:
    """Return the activation of a hidden unit of the last layer after each character (len,).

    It is NaN for unknown characters, which aren't read, and for the newlines between items.
    """
    known, symbols = _encoded(model, text, "skip", items=model.of_lines)
    pieces = _items(symbols) if model.of_lines else _streams(len(symbols) - 1, 1)
    values = _read(model, known, symbols, pieces, unit)[:-1]
    if model.of_lines:
        values[code_points(text) == ord("\n")] = np.nan
    return values


def _score(
    model: Model, text: str, known: Array, symbols: Array, pieces: Pieces, unknown: Unknown
) -> Score:
    surprise = _read(model, known, symbols, pieces)
    if unknown == "score":
        if model.training_characters is None:
            raise CheckpointError(
                "the model doesn't record how many characters it was trained on, and the cost of "
                "an unknown one depends on that; train it again, or use --unknown skip"
            )
        surprise[:-1][~known] = math.log(model.training_characters + 1)
    return Score(text, surprise, int(np.count_nonzero(~known)))


def _encoded(model: Model, text: str, unknown: Unknown, *, items: bool) -> tuple[Array, Array]:
    """Return which characters are known (len,), and the indices of those between two newlines.

    For running text, the two outer indices are arbitrary and never used.
    """
    vocabulary = model.vocabulary
    indices = vocabulary.encode(text) if unknown == "error" else vocabulary.lookup(text)
    known = indices >= 0
    end = vocabulary.index("\n") if items else 0
    return known, np.pad(indices[known], 1, constant_values=end)


def _items(symbols: Array) -> Pieces:
    """Return the lines; each begins with the newline before it."""
    ends = np.flatnonzero(symbols == symbols[0])
    return ends[:-1], np.diff(ends)


def _streams(n: int, streams: int) -> Pieces:
    """Cut n characters into streams, fewer if a stream would get under two characters."""
    S = max(1, min(streams, n // 2))
    borders = np.arange(S + 1) * n // S
    return 1 + borders[:-1], np.diff(borders) - 1


def _read(
    model: Model, known: Array, symbols: Array, pieces: Pieces, unit: int | None = None
) -> Array:
    """Return the surprise of each character of a text and of the newline after it (len + 1,).

    With a unit, return its activation after each character instead. A piece reads as many symbols
    as it has predictions, and predicts the symbol after each. Pieces of similar length are read
    side by side and dropped as they end.
    """
    dtype, order = model.parameters.flat.dtype, np.argsort(pieces[1], kind="stable")
    network = Network(model.config, dtype)
    result = np.full(len(symbols), np.nan, dtype)
    for first in range(0, len(order), SIDE_BY_SIDE):
        start, length = (array[order[first : first + SIDE_BY_SIDE]] for array in pieces)
        state, step = zero_state(model.config, len(start), dtype), 0
        while (going := length > step).any():
            start, length, state = start[going], length[going], state[..., going]
            steps = step + np.arange(min(LONGEST, CHUNK // len(start), length[-1] - step))[:, None]
            at = start + np.minimum(steps, length - 1)
            x, y = (symbols[at + ahead].astype(np.intp) for ahead in (0, 1))
            if unit is None:
                values, state = network.losses(model.parameters, x, y, state)
                at += 1
            else:
                h, state = network.hidden(model.parameters, x, state)
                values = h[unit]
            inside = steps < length
            result[at[inside]] = values[inside]
            step += len(steps)
    of_text = np.full(len(known) + 1, np.nan, dtype)
    of_text[np.append(known, True)] = result[1:]
    return of_text
