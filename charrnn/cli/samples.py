"""What `charrnn sample` writes: texts as they flow, new items, probabilities, JSON, answers."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import chain, tee
from typing import TYPE_CHECKING, Any, TypeVar

from charrnn.checkpoint.model import Model
from charrnn.cli.options import UnknownChoice, known
from charrnn.cli.stream import Stream
from charrnn.cli.terminal import console, print_json, say
from charrnn.config import SampleConfig
from charrnn.errors import CharRNNError, CorpusError
from charrnn.sampling.copying import RUN, copied
from charrnn.sampling.decoding import distribution
from charrnn.sampling.sampling import Samples, fresh_seed, sample

if TYPE_CHECKING:
    from charrnn.lecture.quiz import YHatFacts
    from charrnn.pictures.heatmap import Painter

GROUP, GROUP_NUMBERS = 256, 1 << 21  # samples side by side, and logits of theirs, at most
AT_ONCE = 32  # items drawn together in search of new ones
PROMPT = "> "
Drawn = TypeVar("Drawn")
SHOWN = 60  # characters of a copied run


@dataclass(frozen=True)
class Request:
    """What to draw."""

    model: Model
    config: SampleConfig
    echo: bool = True  # the prime is part of the output
    num: int = 1
    novel_to: frozenset[str] | None = None  # items that are left out
    source: str | None = None  # text in which to look for what is drawn

    @property
    def opening(self) -> str:
        """What stands before the drawn characters."""
        return self.config.prime if self.echo else ""

    def after(self, prime: str) -> Request:
        """Return the request with another prime."""
        return replace(self, config=replace(self.config, prime=prime))


def write(request: Request, *, json: bool = False, probs: bool = False) -> None:
    """Write what was asked for. A seed that nobody chose is said, so that it can be given again."""
    if request.config.seed is None:
        seed = fresh_seed()
        say(f"seed: {seed}")
        request = replace(request, config=replace(request.config, seed=seed))
    if json:
        for drawn in _objects(request, probs):
            print_json(drawn)
    elif probs:
        _write_probabilities(request)
    else:
        _write_texts(request)


def _write_texts(request: Request) -> None:
    """Write the samples as they are drawn, and say on stderr what they have copied."""
    texts = list[str]()
    with Stream() as stream:
        for pieces in _each(request, _pieces(request), stream):
            stream.write(request.opening)
            if request.source is not None:
                pieces, kept = tee(pieces)
            for piece in pieces:
                stream.write(piece)
            if request.source is not None:
                texts.append("".join(kept))
    if request.source is not None:
        longest, share = copied(texts, request.source)
        shown = longest if len(longest) <= SHOWN else longest[:SHOWN] + "…"
        say(
            f"longest run copied: {len(longest):,} characters, {shown!r}; "
            f"{share:.0%} of what was drawn stands in runs of {RUN} or more"
        )


def _each(request: Request, drawn: Iterable[Drawn], stream: Stream) -> Iterator[Drawn]:
    """Yield samples to be written one after the other: items a line each, else under headings."""
    for number, one in enumerate(drawn, 1):
        if request.num > 1 and not request.model.of_lines:
            stream.raw(f"---- {number} of {request.num} ----\n")
        yield one
        stream.end_line()


def _pieces(request: Request) -> Iterator[Iterator[str]]:
    """Yield each sample in pieces as they are drawn."""
    if request.num == 1 and request.novel_to is None:
        return iter([sample(request.model, **asdict(request.config))])
    return (samples.follow(i) for samples, i in _drawn(request))


def _drawn(request: Request, at_once: int = GROUP) -> Iterator[tuple[Samples, int]]:
    """Yield what was asked for, each as the samples that it is drawn with, and its place there."""
    if request.novel_to is None:
        return _side_by_side(request, request.num, at_once)
    return _new_items(request, request.novel_to)


def _side_by_side(request: Request, num: int, at_once: int) -> Iterator[tuple[Samples, int]]:
    """Yield `num` samples, as many drawn together as memory easily allows, at most `at_once`."""
    size = max(1, min(at_once, GROUP, GROUP_NUMBERS // len(request.model.vocabulary)))
    for first in range(0, num, size):
        samples = Samples(request.model, request.config, min(size, num - first), first=first)
        for i in range(len(samples)):
            yield samples, i


def _new_items(request: Request, known_items: frozenset[str]) -> Iterator[tuple[Samples, int]]:
    """Yield items that aren't known and that --length didn't cut off.

    Raises CharRNNError if too few turn up among many.
    """
    tries, found, cut = 1000 + 100 * request.num, 0, 0
    for samples, i in _side_by_side(request, tries, max(request.num, AT_ONCE)):
        item = request.config.prime + samples.sample(i).text
        if not samples.finished[i]:
            cut += 1
        elif item and item not in known_items:
            yield samples, i
            found += 1
            if found == request.num:
                return
    raise CharRNNError(
        f"only {found} of {request.num} items are new after {tries:,} tries"
        f"{f', {cut:,} of which --length cut off' if cut else ''}; "
        f"raise --temp{' or --length' if cut else ''}, lower --num, or give a shorter --prime"
    )


def _objects(request: Request, probs: bool) -> Iterator[dict[str, Any]]:
    """Yield what --json says of each sample; probs: with each drawn character's probability."""
    for samples, i in _drawn(request, 1 if probs else GROUP):
        more = dict[str, Any]()
        if probs:
            from charrnn.lecture.quiz import YHatFacts

            facts = YHatFacts()
            more["probabilities"] = [p for _, p in _with_probabilities(samples, facts)]
            more["y_hat"] = asdict(facts)
        drawn = samples.sample(i)
        if request.source is not None:
            longest, share = copied([drawn.text], request.source)
            more |= {"longest_copied": len(longest), "copied_share": share}
        yield {**asdict(drawn), "text": request.opening + drawn.text, **more}


def _with_probabilities(samples: Samples, facts: YHatFacts) -> Iterator[tuple[str, float]]:
    """Yield each character of a single sample with its probability in ŷ_t, which `facts` sees."""
    for (char,) in samples:
        y_hat = distribution(samples.logits, SampleConfig())
        facts.add(y_hat)
        if char is not None:
            yield char, float(y_hat[samples.model.vocabulary.index(char)])


def _write_probabilities(request: Request) -> None:
    """Write the samples with each drawn character's probability, and say on stderr what ŷ_t is."""
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
    """Yield characters coloured by their probability, or in rows with digits for it below."""
    from rich.cells import cell_len

    from charrnn.pictures.heatmap import cells_of

    coloured, text, values = painter.system is not None, opening, [math.nan] * len(opening)
    for char, p in chain(drawn, [("", math.nan)]):
        text += char
        values += [p] * len(char)
        if coloured:
            for cell in cells_of(text, values, painter.encoding):
                yield painter.cell(cell) + "\n" * (cell.text == "\n")
        elif char in ("\n", "") or cell_len(text) + 2 > painter.width:
            yield from painter.paint(text, values)
        else:
            continue
        text, values = "", []


def converse(request: Request, unknown: UnknownChoice, *, probs: bool) -> None:
    """Answer each line of standard input until it ends.

    Ctrl-C stops an answer; at the prompt it empties the line.
    """
    with contextlib.suppress(ImportError):  # not on Windows
        import_module("readline")  # edits the lines that input() reads
    asked = sys.stdin is not None and sys.stdin.isatty()
    edited = asked and sys.stdout.isatty()  # else the prompt would become part of the text
    if asked:
        say("Type a beginning and press Enter; Ctrl-C stops a text, Ctrl-D quits.")
    while sys.stdin is not None:
        if asked and not edited:
            print(PROMPT, end="", file=sys.stderr, flush=True)
        try:
            line = input(PROMPT if edited else "")
            write(request.after(known(request.model, line, unknown, "line")), probs=probs)
        except KeyboardInterrupt:
            print(file=sys.stderr)
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"standard input: isn't {error.encoding} ({error.reason}); "
                "type or send text in that encoding"
            ) from None
        except CharRNNError as error:
            say(str(error))
