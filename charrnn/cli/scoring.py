"""Texts scored by a model: what `charrnn eval` measures, before anybody shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from charrnn.cli.terminal import say
from charrnn.errors import CorpusError, VocabularyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from charrnn.checkpoint.model import Model

MOST = 100_000_000  # characters of one text; a small archive may hold any number of them
SLOW = 200_000  # characters from which one stream takes some time


class Figures(NamedTuple):
    """How well characters were predicted."""

    total: float  # nats
    characters: int  # predicted
    unknown: int

    def as_json(self) -> dict[str, Any]:
        """Return the figures under the contract's names."""
        nats = self.total / self.characters
        bpc, perplexity = nats / math.log(2), math.exp(min(nats, 700.0))
        return {
            "nats": nats,
            "bpc": bpc,
            "perplexity": perplexity,
            "characters": self.characters,
            "unknown": self.unknown,
        }


@dataclass(frozen=True, eq=False)
class Scored:
    """A text with the surprise of each of its characters."""

    name: str
    text: str
    nats: NDArray[Any]  # (len(text),), NaN where nothing was predicted
    figures: Figures
    lines: bool  # its lines are items of their own

    @property
    def bits(self) -> list[float | None]:
        """Return the surprise of each character in bits, None where nothing was predicted."""
        return optional(self.nats / math.log(2))


class Line(NamedTuple):
    """A line of a text and its surprise."""

    text: str  # the name of the text
    line: int  # from 1
    bits: float  # per character
    start: int
    stop: int  # behind the newline


def optional(values: NDArray[Any]) -> list[float | None]:
    """Return numbers as a list with None for NaN."""
    return [None if math.isnan(value) else value for value in values.tolist()]


def total(figures: Sequence[Figures]) -> Figures:
    """Return the figures of several texts together."""
    return Figures(*(sum(column) for column in zip(*figures, strict=True)))


def read(path: str, encoding: str) -> tuple[str, str]:
    """Return the name and the characters of a text; what was changed while reading is said. Raises CorpusError."""
    from charrnn.text.corpus import read_text

    name = "standard input" if path == "-" else path
    text, notes = read_text(path, encoding=encoding, limit=MOST + 1)
    if len(text) > MOST:
        raise CorpusError(
            f"{name}: has more than {MOST:,} characters, which is more than is read at once; give it in pieces"
        )
    for note in notes:
        say(note)
    return name, text


def score_text(model: Model, name: str, text: str, *, streams: int, unknown: str) -> Scored:
    """Return a text's scores. Raises CharRNNError for characters the model doesn't know, and if nothing is predicted."""
    import numpy as np

    from charrnn.blas import blas_threads

    if unknown == "error":
        _refuse_unknown(model, name, text)
    is_known, indices = known_part(model, text)
    nats, lines = np.full(len(text), np.nan), model.of_lines
    try:
        with blas_threads(
            1
        ):  # steps are too short for several, which spin where other programs want the processor
            read = (
                _score_lines(model, indices) if lines else _score_running(model, indices, streams)
            )
    except CorpusError as error:
        raise CorpusError(f"{name}: {error}") from None
    nats[is_known] = read[: len(indices)]
    predicted = read[~np.isnan(read)]
    figures = Figures(float(predicted.sum()), predicted.size, int(np.count_nonzero(~is_known)))
    return Scored(name, text, nats, figures, lines)


def _refuse_unknown(model: Model, name: str, text: str) -> None:
    """Raise VocabularyError if there is a character that the model doesn't know."""
    try:
        model.vocabulary.encode(text)
    except VocabularyError as error:
        raise VocabularyError(f"{name}: {error}") from None


def known_part(model: Model, text: str) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return for each character whether the model knows it, and the indices of those that it knows."""
    import numpy as np

    is_known = np.ones(len(text), bool)
    is_known[[at for at, _ in model.vocabulary.find_unknown(text)]] = False
    if not is_known.all():
        text = "".join(char for char, good in zip(text, is_known.tolist(), strict=True) if good)
    return is_known, model.vocabulary.encode(text)


def _score_running(model: Model, indices: NDArray[Any], streams: int) -> NDArray[Any]:
    """Return the nats of running text, NaN for the first character of each stream."""
    import numpy as np

    from charrnn.sampling.scoring import score_indices, score_streams

    if streams > 1:
        if indices.size < 2:
            raise CorpusError(
                "the text has fewer than two characters, so nothing is predicted; give a longer one"
            )
        return score_streams(model, indices, streams)
    if indices.size > SLOW:
        say(
            f"reading {indices.size:,} characters as one stream; --streams 64 is much faster and costs next to no accuracy"
        )
    return np.concatenate([[np.nan], score_indices(model, indices)])


def _score_lines(model: Model, indices: NDArray[Any]) -> NDArray[Any]:
    """Return the nats of lines that are items, NaN for empty lines' ends, and behind them those of a newline at the very end.

    A last line without its newline ends all the same; behind one that has it there is but an empty line.
    """
    import numpy as np

    from charrnn.sampling.scoring import score_items
    from charrnn.text.batches import items_of

    newline = model.vocabulary.index("\n")
    items = items_of(indices, newline)
    if not len(items):
        raise CorpusError(
            "the text has nothing but empty lines; this model reads items, a line each"
        )
    ends = np.append(indices, newline) == newline
    counted = ~(ends & np.append(True, ends[:-1]))
    nats = np.full(len(ends), np.nan)
    nats[counted] = score_items(model, items)
    return nats


def unit_values(model: Model, scored: Scored, unit: int) -> list[float | None]:
    """Return the activation of a hidden unit of the top layer after each character, None where the model read nothing."""
    import numpy as np

    from charrnn.sampling.scoring import activations

    values = np.full(len(scored.text), np.nan)
    is_known, indices = known_part(model, scored.text)
    if not scored.lines:
        values[is_known] = activations(model, indices, unit)
        return optional(values)
    newline = model.vocabulary.index("\n")
    inside = is_known.copy()
    inside[is_known] = indices != newline
    lines = np.split(
        indices, np.flatnonzero(indices == newline)
    )  # each but the first begins with its newline
    read = [
        activations(model, np.append(newline, line[line != newline]), unit)[1:] for line in lines
    ]
    values[inside] = np.concatenate(read)
    return optional(values)


def lines_of(scored: Scored) -> list[Line]:
    """Return the lines in which something was predicted, with their mean surprise, the newline behind included."""
    import numpy as np

    lines, start = [], 0
    for number, text in enumerate(scored.text.split("\n"), 1):
        stop = min(start + len(text) + 1, len(scored.text))
        part = scored.nats[start:stop]
        part = part[~np.isnan(part)]
        if part.size and text:
            lines.append(Line(scored.name, number, float(part.mean()) / math.log(2), start, stop))
        start = stop
    return lines


def floor_of(model: Model) -> tuple[float | None, int | None]:
    """Return the floor of the training run in nats and its order, None where it isn't known."""
    return model.floor_nats, model.floor_order
