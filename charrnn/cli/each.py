"""`charrnn eval --each`: the score of each line as it is read, in flat memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from charrnn.cli.stream import Stream
from charrnn.cli.terminal import as_json, say
from charrnn.errors import CorpusError, VocabularyError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.sampling.scoring import Unknown

TOGETHER = 2048  # lines that are scored together at most


def write_each(
    model: Model,
    path: str,
    encoding: str | None,
    unknown: Unknown,
    above: float | None,
    *,
    json: bool,
) -> None:
    """Write the score of each line of a text, as it comes. Raises CharRNNError."""
    from charrnn.blas import blas_threads
    from charrnn.text.sources import Source

    if "\n" not in model.vocabulary:
        raise VocabularyError("the model knows no newline and can't score lines of their own")
    source, number = Source(path, encoding), 0
    with Stream() as stream, blas_threads(1):
        try:
            for lines in batches(source):
                for row in _scored(model, source.name, lines, number, unknown):
                    if above is None or row["nats"] > above:
                        text = f"{row['nats']:.4f}\t{row['line']}\n"
                        stream.raw(as_json(row) + "\n") if json else stream.write(text)
                stream.flush()
                number += len(lines)
        except CorpusError as error:
            raise CorpusError(f"{error} (after line {number})") from None
    for note in source.notes:
        say(note)


def _scored(
    model: Model, name: str, lines: list[str], number: int, unknown: Unknown
) -> Iterator[dict[str, Any]]:
    """Yield what is said of each line behind so many others.

    Those before a line that can't be scored come first.
    """
    from charrnn.sampling.scoring import score_lines

    text = "\n".join(lines)
    at = model.vocabulary.find_unknown(text) if unknown == "error" else -1
    good = len(lines) if at < 0 else text.count("\n", 0, at)
    columns = (column.tolist() for column in score_lines(model, lines[:good], unknown))
    for line, nats, characters, strange in zip(lines[:good], *columns, strict=False):
        number += 1
        yield {
            "line": line,
            "number": number,
            "nats": nats / characters,
            "total": nats,
            "characters": characters,
            "unknown": strange,
        }
    if good < len(lines):
        error = model.vocabulary.unknown(lines[good], number + 1)
        raise VocabularyError(f"{name}: {error}")


def batches(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines that end in each piece of a text: many of a file, few of a slow pipe."""
    begun = list[str]()  # the pieces of a line without its end
    for piece in pieces:
        first, *others = piece.split("\n")
        begun.append(first)
        if others:
            lines, begun = ["".join(begun), *others[:-1]], others[-1:]
            yield from (lines[i : i + TOGETHER] for i in range(0, len(lines), TOGETHER))
    if any(begun):  # an unterminated last line still counts
        yield ["".join(begun)]
