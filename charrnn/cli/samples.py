"""What `charrnn sample` writes: texts as they flow, new items, probabilities, JSON, answers."""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from charrnn.cli.options import UnknownChoice, known
from charrnn.cli.stream import Stream
from charrnn.cli.terminal import console, print_json, say
from charrnn.config import SampleConfig
from charrnn.errors import CharRNNError, CorpusError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.lecture.quiz import YHatFacts
    from charrnn.pictures.heatmap import Painter
    from charrnn.sampling.sampling import Sample, Samples

GROUP, GROUP_NUMBERS = 256, 1 << 21  # samples side by side, and logits of theirs, at most
AT_ONCE = 32  # items drawn together in search of new ones
PROMPT = "> "


@dataclass(frozen=True)
class Request:
    """What to draw."""

    model: Model
    config: SampleConfig
    echo: bool = True  # the prime is part of the output
    num: int = 1
    novel_to: frozenset[str] | None = None  # items that are left out

    @property
    def opening(self) -> str:
        """What stands before the drawn characters."""
        return self.config.prime if self.echo else ""

    def after(self, prime: str) -> Request:
        """Return the request with another prime."""
        return replace(self, config=replace(self.config, prime=prime))

    def groups(self, num: int, most: int = GROUP) -> Iterator[Samples]:
        """Yield `num` samples, as many side by side as memory easily allows, at most `most`."""
        from charrnn.sampling.sampling import Samples

        size = max(1, min(most, GROUP_NUMBERS // len(self.model.vocabulary)))
        for first in range(0, num, size):
            yield Samples(self.model, self.config, min(size, num - first), first=first)

    def single(self, number: int) -> Samples:
        """Return one of the samples alone, so that each ŷ_t can be seen."""
        from charrnn.sampling.sampling import Samples

        return Samples(self.model, self.config, 1, first=number)


def write(request: Request, *, json: bool = False, probs: bool = False) -> None:
    """Write what was asked for. A seed that nobody chose is said, so that it can be given again."""
    from charrnn.sampling.sampling import fresh_seed

    if request.config.seed is None:
        seed = fresh_seed()
        say(f"seed: {seed}")
        request = replace(request, config=replace(request.config, seed=seed))
    if json:
        for sample in _objects(request, probs):
            print_json(sample)
    elif probs:
        _write_probabilities(request)
    else:
        _write_texts(request)


def _write_texts(request: Request) -> None:
    """Write the samples one after the other: items a line each, several texts under headings."""
    with Stream() as stream:
        for number, pieces in enumerate(_texts(request)):
            _write_heading(stream, request, number)
            stream.write(request.opening)
            for piece in pieces:
                stream.write(piece)
            stream.end_line()


def _write_heading(stream: Stream, request: Request, number: int) -> None:
    if request.num > 1 and not request.model.of_lines:
        stream.raw(f"---- {number + 1} of {request.num} ----\n")


def _texts(request: Request) -> Iterator[Iterable[str]]:
    """Yield each sample in pieces as they are drawn."""
    from charrnn.sampling.sampling import sample

    if request.novel_to is not None:
        for item in _novel_items(request, request.novel_to):
            yield item.text
    elif request.num == 1:
        yield sample(request.model, **asdict(request.config))
    else:
        for samples in request.groups(request.num):
            yield from map(samples.follow, range(len(samples)))


def _novel_items(request: Request, known_items: frozenset[str]) -> Iterator[Sample]:
    """Yield `num` items that aren't known and that --length didn't cut off.

    Raises CharRNNError if too few turn up among many.
    """
    tries, found, cut = 1000 + 100 * request.num, 0, 0
    for samples in request.groups(tries, max(request.num, AT_ONCE)):
        for item, finished in zip(samples.draw_all(), samples.finished.tolist(), strict=True):
            cut += not finished
            text = item.prime + item.text
            if finished and text and text not in known_items:
                yield item
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
    if not probs:
        for sample in _ended(request):
            yield _object(request, sample)
        return
    from charrnn.lecture.quiz import YHatFacts

    for number in range(request.num):
        samples, facts = request.single(number), YHatFacts()
        probabilities = [p for _, p in _with_probabilities(samples, facts)]
        (sample,) = samples.samples()
        yield {
            **_object(request, sample),
            "probabilities": probabilities,
            "y_hat": asdict(facts),
        }


def _object(request: Request, sample: Sample) -> dict[str, Any]:
    return {**asdict(sample), "text": request.opening + sample.text}


def _ended(request: Request) -> Iterator[Sample]:
    """Yield the samples once they have ended."""
    if request.novel_to is not None:
        yield from _novel_items(request, request.novel_to)
        return
    for samples in request.groups(request.num):
        yield from samples.draw_all()


def _with_probabilities(samples: Samples, facts: YHatFacts) -> Iterator[tuple[str, float]]:
    """Yield each character of a single sample with its probability in ŷ_t, which `facts` sees."""
    from charrnn.sampling.decoding import distribution

    plain, vocabulary = SampleConfig(), samples.model.vocabulary
    for (char,) in samples:
        y_hat = distribution(samples.logits, plain)
        facts.add(y_hat)
        if char is not None:
            yield char, float(y_hat[vocabulary.index(char)])


def _write_probabilities(request: Request) -> None:
    """Write the samples with each drawn character's probability, and say on stderr what ŷ_t is."""
    from charrnn.lecture.quiz import YHatFacts
    from charrnn.pictures.colormap import PROBABILITY
    from charrnn.pictures.heatmap import Painter

    painter, facts = Painter(PROBABILITY, console()), YHatFacts()
    with Stream() as stream:
        stream.raw(painter.legend())
        for number in range(request.num):
            _write_heading(stream, request, number)
            drawn = _with_probabilities(request.single(number), facts)
            show = _show_digits if painter.system is None else _show_colours
            show(stream, painter, request.opening, drawn)
            stream.end_line()
    say(facts.sentence())


def _show_colours(
    stream: Stream, painter: Painter, opening: str, drawn: Iterator[tuple[str, float]]
) -> None:
    """Write each character in the colour of its probability as it is drawn."""
    from charrnn.pictures.heatmap import cells_of

    begun = [(opening, [math.nan] * len(opening))]
    for text, values in itertools.chain(begun, ((char, [p]) for char, p in drawn)):
        for cell in cells_of(text, values, painter.encoding):
            stream.raw(painter.cell(cell) + "\n" * (cell.text == "\n"))


def _show_digits(
    stream: Stream, painter: Painter, opening: str, drawn: Iterator[tuple[str, float]]
) -> None:
    """Write the characters row by row, with digits for their probabilities below."""
    from rich.cells import cell_len

    text, values = opening, [math.nan] * len(opening)
    for char, p in drawn:
        text, values = text + char, [*values, p]
        if char == "\n" or cell_len(text) + 2 > painter.width:
            stream.raw("".join(painter.paint(text, values)))
            text, values = "", []
    stream.raw("".join(painter.paint(text, values)))


def converse(request: Request, unknown: UnknownChoice, *, probs: bool) -> None:
    """Answer each line of standard input until it ends.

    Ctrl-C stops an answer; at the prompt it empties the line.
    """
    with contextlib.suppress(ImportError):  # not on Windows
        import_module("readline")  # edits the lines that input() reads
    if sys.stdin is not None and sys.stdin.isatty():
        say("Type a beginning and press Enter; Ctrl-C stops a text, Ctrl-D leaves.")
    for line in _typed_lines():
        try:
            write(request.after(known(request.model, line, unknown, "line")), probs=probs)
        except KeyboardInterrupt:
            continue
        except CharRNNError as error:
            say(str(error))


def _typed_lines() -> Iterator[str]:
    """Yield the lines that are typed, or that come through a pipe."""
    if sys.stdin is None:
        return
    asked = sys.stdin.isatty()
    edited = asked and sys.stdout.isatty()  # else the prompt would become part of the text
    while True:
        if asked and not edited:
            print(PROMPT, end="", file=sys.stderr, flush=True)
        try:
            yield input(PROMPT if edited else "")
        except KeyboardInterrupt:
            print(file=sys.stderr)
        except EOFError:
            if asked:
                print(file=sys.stderr)
            return
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"standard input: isn't {error.encoding} ({error.reason}); "
                "type or send text in that encoding"
            ) from None
