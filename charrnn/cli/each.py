"""`charrnn eval --each`: the score of each line as it is read, in flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from charrnn.cli.stream import Stream
from charrnn.cli.terminal import as_json, say
from charrnn.errors import CorpusError, VocabularyError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.sampling.scoring import Unknown
    from charrnn.text.sources import Source

PATIENCE = 0.1  # seconds that lines wait for more, which are scored together
TOGETHER = 1 << 19  # characters scored together at most, unless one line has more
AHEAD = 4  # pieces of the text that are read while others are scored


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
                for line, row in _scored(model, source.name, lines, number, unknown):
                    if above is None or row["nats"] > above:
                        text = f"{row['nats']:.4f}\t{line}\n"
                        stream.raw(as_json(row) + "\n") if json else stream.write(text)
                stream.flush()
                number += len(lines)
        except CorpusError as error:
            raise CorpusError(f"{error} (after line {number})") from None
    for note in source.notes:
        say(note)


def _scored(
    model: Model, name: str, lines: list[str], number: int, unknown: Unknown
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield lines with their scores; those before a line that can't be scored come first."""
    from charrnn.sampling.scoring import score_lines

    strange = bool(unknown == "error" and model.vocabulary.missing("".join(lines)))
    missing = (i for i, line in enumerate(lines) if strange and model.vocabulary.missing(line))
    good = next(missing, len(lines))
    columns = score_lines(model, lines[:good], unknown) if good else ((), (), ())
    for i, (total, characters, strangers) in enumerate(zip(*columns, strict=True)):
        mean = total / max(characters, 1)
        yield (
            lines[i],
            {
                "line": lines[i],
                "number": number + i + 1,
                "nats": mean,
                "total": total,
                "characters": characters,
                "unknown": strangers,
            },
        )
    if good < len(lines):
        at = model.vocabulary.find_unknown(lines[good])
        char = lines[good][at]
        raise VocabularyError(
            f"{name}: line {number + good + 1}, column {at + 1}: {char!r} (U+{ord(char):04X}) "
            f"isn't among the {len(model.vocabulary)} characters the model knows; "
            "use --unknown score or skip"
        )


def batches(source: Source) -> Iterator[list[str]]:
    """Yield the lines of a text: many at once from a file, what there is from a slow pipe."""
    pieces: Queue[str | BaseException | None] = Queue(AHEAD)
    Thread(target=_read, args=(source, pieces), daemon=True).start()
    lines, begun, size = list[str](), list[str](), 0  # `begun`: pieces of a line without its end
    while True:
        try:
            piece = pieces.get(timeout=PATIENCE if lines else None)
        except Empty:
            piece = ""
        if isinstance(piece, str):
            first, *others = piece.split("\n")
            begun.append(first)
            if others:
                lines += ["".join(begun), *others[:-1]]
                begun = others[-1:]
            size += len(piece)
            if piece and size < TOGETHER:
                continue
        elif piece is None and any(begun):
            lines.append("".join(begun))  # an unterminated last line still counts
        if lines:
            yield lines
        if isinstance(piece, BaseException):
            raise piece
        if piece is None:
            return
        lines, size = [], 0


def _read(source: Source, pieces: Queue[str | BaseException | None]) -> None:
    """Put the pieces of a text, and None or an error behind them."""
    try:
        for piece in source:
            pieces.put(piece)
        pieces.put(None)
    except BaseException as error:
        pieces.put(error)
