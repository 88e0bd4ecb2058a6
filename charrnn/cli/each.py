"""`charrnn eval --each`: each line is scored as it is read, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from charrnn.cli.terminal import Stream, as_json, say
from charrnn.errors import CorpusError, VocabularyError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.config import Unknown

TOGETHER = 4096  # lines scored at once, at most


def write_each(
    model: Model,
    path: str,
    encoding: str | None,
    unknown: Unknown,
    above: float | None,
    *,
    json: bool,
) -> None:
    """Write the score of each line of a text as the line comes. Raises CharRNNError."""
    from charrnn.text.sources import Source

    if "\n" not in model.vocabulary:
        raise VocabularyError("the model doesn't know the newline, so it can't score single lines")
    source, number = Source(path, encoding), 0
    with Stream() as stream:
        try:
            for lines in batches(source):
                for row in _scored(model, source.name, lines, number, unknown):
                    if above is None or row["nats"] > above:
                        line = f"{row['nats']:.4f}\t{row['line']}\n"
                        stream.raw(as_json(row) + "\n") if json else stream.write(line)
                stream.flush()
                number += len(lines)
        except CorpusError as error:
            raise CorpusError(f"{error} (after line {number})") from None
    for note in source.notes:
        say(note)


def _scored(
    model: Model, name: str, lines: list[str], before: int, unknown: Unknown
) -> Iterator[dict[str, Any]]:
    """Yield what --json says about each line; `before` is the number of lines before these.

    If an unknown character is an error, the lines before it are still scored.
    """
    from charrnn.sampling.scoring import score_lines

    text = "\n".join(lines)
    at = model.vocabulary.find_unknown(text) if unknown == "error" else -1
    missing = model.vocabulary.missing(text)
    if at >= 0:
        lines = lines[: text.count("\n", 0, at)]
    _, nats, characters = score_lines(model, "\n".join(lines), unknown).by_line()
    columns = zip(lines, nats.tolist(), characters.tolist(), strict=False)
    for number, (line, total, count) in enumerate(columns, before + 1):
        yield {
            "line": line,
            "number": number,
            "nats": total / count,
            "total": total,
            "characters": int(count),
            "unknown": sum(map(line.count, missing)),
        }
    if at >= 0:
        raise VocabularyError(f"{name}: {model.vocabulary.unknown(text, before + 1)} or score")


def batches(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines that each piece of a text completes: many for a file, few for a slow pipe."""
    begun = list[str]()  # the pieces of an unfinished line
    for piece in pieces:
        first, *others = piece.split("\n")
        begun.append(first)
        if others:
            lines, begun = ["".join(begun), *others[:-1]], others[-1:]
            yield from (lines[i : i + TOGETHER] for i in range(0, len(lines), TOGETHER))
    if any(begun):  # an unterminated last line still counts
        yield ["".join(begun)]
