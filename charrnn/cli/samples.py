"""What `charrnn sample` writes: texts, items, probabilities, JSON, answers to typed lines."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from charrnn.cli.options import UnknownChoice, without_unknown
from charrnn.cli.terminal import Stream, console, counted, print_json, say
from charrnn.config import SampleConfig
from charrnn.errors import CharRNNError, CorpusError
from charrnn.sampling.copying import RUN, copied
from charrnn.sampling.decoding import distribution
from charrnn.sampling.sampling import Drawing, Samples

if TYPE_CHECKING:
    from charrnn.lecture.quiz import YHatFacts
    from charrnn.pictures.heatmap import Painter

GROUP, GROUP_NUMBERS = 256, 1 << 21  # most samples drawn side by side, and most logits
PROMPT = "> "
SHOWN = 60  # most characters of a copied run to show
Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class Request:
    """What to draw and how to write it."""

    drawing: Drawing
    echo: bool = True  # the prime is part of the output
    num: int = 1
    novel_to: frozenset[str] | None = None  # items that are left out
    source: str | None = None  # text to search for copied runs

    @property
    def opening(self) -> str:
        """The text to write before the drawn characters."""
        return self.drawing.config.prime if self.echo else ""


def write(request: Request, *, json: bool, probs: bool) -> None:
    """Write the samples."""
    if json:
        _write_json(request, probs)
    elif probs:
        _write_probabilities(request)
    else:
        _write_texts(request)


def _write_texts(request: Request) -> None:
    """Write the samples as they are drawn, and print on stderr how much they copied."""
    texts = list[str]()
    with Stream() as stream:
        for pieces in _each(request, _pieces(request), stream):
            stream.write(request.opening)
            text = ""
            for piece in pieces:
                stream.write(piece)
                if request.source is not None:
                    text += piece
            texts.append(text)
    if request.source is not None:
        longest, share = copied(texts, request.source)
        say(
            f"longest run copied: {counted(len(longest), 'character')}, {longest[:SHOWN]!r}; "
            f"{share:.0%} of what was drawn is in runs of {RUN} or more"
        )


def _each(request: Request, drawn: Iterable[Drawn], stream: Stream) -> Iterator[Drawn]:
    """Yield samples to write one below the other: items one per line, texts with headings."""
    for number, one in enumerate(drawn, 1):
        if request.num > 1 and not request.drawing.model.of_lines:
            stream.raw(f"---- {number} of {request.num} ----\n")
        yield one
        stream.end_line()


def _pieces(request: Request) -> Iterator[Iterator[str]]:
    """Yield each sample in pieces as they are drawn."""
    if request.num == 1 and request.novel_to is None:
        return iter([request.drawing.characters()])
    return (samples.follow(i) for samples, i in _drawn(request))


def _drawn(request: Request, at_once: int = GROUP) -> Iterator[tuple[Samples, int]]:
    """Yield for each sample its group (at most `at_once`, drawn together) and its index there.

    With novel_to, yield only new items that --length didn't cut off. Raises CharRNNError if these
    are too rare.
    """
    drawing, novel_to = request.drawing, request.novel_to
    tries, found = request.num, 0
    if novel_to is not None:
        tries = 1000 + 100 * tries
    size = min(at_once, GROUP_NUMBERS // len(drawing.model.vocabulary))
    for first in range(0, tries, size):
        samples = Samples(drawing, min(size, tries - first), first=first)
        for i in range(len(samples)):
            if novel_to is not None:
                item = drawing.config.prime + samples.sample(i).text
                if not (item and samples.finished[i]) or item in novel_to:
                    continue
            yield samples, i
            found += 1
            if found == request.num:
                return
    raise CharRNNError(
        f"only {found} of {request.num} items are new after {tries:,} tries; raise --temp or "
        "--length, lower --num, or give a shorter --prime"
    )


def _write_json(request: Request, probs: bool) -> None:
    """Write an object for each sample; probs: with the probability of each drawn character."""
    from charrnn.lecture.quiz import YHatFacts

    for samples, i in _drawn(request, 1 if probs else GROUP):
        more, facts = dict[str, Any](), YHatFacts()
        if probs:
            more["probabilities"] = [p for _, p in _with_probabilities(samples, facts)]
            more["y_hat"] = asdict(facts)
        drawn = samples.sample(i)
        if request.source is not None:
            longest, share = copied([drawn.text], request.source)
            more |= {"longest_copied": len(longest), "copied_share": share}
        print_json({**asdict(drawn), "text": request.opening + drawn.text, **more})


def _with_probabilities(samples: Samples, facts: YHatFacts) -> Iterator[tuple[str, float]]:
    """Yield each character of a single sample with its probability in ŷ_t; add ŷ_t to `facts`."""
    for (char,) in samples:
        y_hat = distribution(samples.logits, SampleConfig())
        facts.add(y_hat)
        if char is not None:
            yield char, float(y_hat[samples.model.vocabulary.index(char)])


def _write_probabilities(request: Request) -> None:
    """Write the samples with each drawn character's probability, and on stderr facts about ŷ_t."""
    from charrnn.lecture.quiz import YHatFacts
    from charrnn.pictures.colormap import PROBABILITY
    from charrnn.pictures.heatmap import Painter

    painter, facts = Painter(PROBABILITY, console()), YHatFacts()
    with Stream() as stream:
        stream.raw(painter.legend())
        for samples, _ in _each(request, _drawn(request, 1), stream):
            for piece in _painted(painter, request.opening, _with_probabilities(samples, facts)):
                stream.raw(piece)
    say(facts.sentence())


def _painted(painter: Painter, opening: str, drawn: Iterator[tuple[str, float]]) -> Iterator[str]:
    """Yield a sample with a colour for each character's probability, or a digit below it."""
    from charrnn.pictures.heatmap import cells_of

    first = opening, [math.nan] * len(opening)
    pieces = chain([first], ((char, [p]) for char, p in drawn))
    if painter.system is None:  # digits are printed once their row is full
        texts, values = zip(*pieces, strict=True)
        yield from painter.paint("".join(texts), [*chain(*values)])
        return
    for text, levels in pieces:
        for cell in cells_of(text, levels):
            yield painter.cell(cell) + "\n" * (cell.text == "\n")


def converse(
    request: Request, config: SampleConfig, unknown: UnknownChoice, *, probs: bool
) -> None:
    """Continue each line of standard input until it ends.

    Each text has the seed of `config` or, if that is None, one higher than the text before.
    Ctrl-C stops an answer; at the prompt it empties the line.
    """
    model, seed = request.drawing.model, request.drawing.seed
    with contextlib.suppress(ImportError):  # not on Windows
        import_module("readline")  # edits the lines that input() reads
    prompt = ""  # none in an output file
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        say("Type a beginning and press Enter; Ctrl-C stops a text, Ctrl-D quits.")
        prompt = PROMPT
    while sys.stdin is not None:
        try:
            line = input(prompt)
            prime = without_unknown(model, line, unknown, "prime")
            drawing = Drawing(model, replace(config, prime=prime, seed=seed))
            seed += config.seed is None
            write(replace(request, drawing=drawing), json=False, probs=probs)
        except KeyboardInterrupt:
            print(file=sys.stderr)
        except EOFError:
            if prompt:
                print()
            return
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"standard input isn't {error.encoding} ({error.reason}); "
                "type or send text in that encoding"
            ) from None
        except CharRNNError as error:
            say(str(error))
