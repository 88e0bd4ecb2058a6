"""What `charrnn sample` writes: one text as it flows, several one after the other, new items, probabilities, JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from charrnn.cli.flow import Flow
from charrnn.cli.pictures import Cell, Painter, cells_of, width_of
from charrnn.cli.scales import PROBABILITY
from charrnn.cli.terminal import console, print_json, say
from charrnn.config import SampleConfig
from charrnn.errors import CharRNNError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.lecture.quiz import YHatFacts
    from charrnn.sampling.sampling import Sample, Samples

GROUP, GROUP_NUMBERS = (
    256,
    1 << 21,
)  # samples side by side, at most; fewer if the vocabulary is large
AT_ONCE = 32  # items drawn together in search of new ones


@dataclass(frozen=True)
class Request:
    """What to draw."""

    model: Model
    config: SampleConfig
    prime: str
    seed: int
    echo: bool  # the prime is part of the output
    num: int = 1

    @property
    def opening(self) -> str:
        """Return what stands before what is drawn."""
        return self.prime if self.echo else ""

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of `sample` and `sample_many`."""
        return {"prime": self.prime, "seed": self.seed, **asdict(self.config)}

    def groups(self, num: int, first: int = 0) -> Iterator[Samples]:
        """Yield samples numbered first … first + num − 1, as many side by side as memory allows with ease."""
        from charrnn.sampling.sampling import sample_many

        size = max(1, min(GROUP, GROUP_NUMBERS // len(self.model.vocabulary)))
        for start in range(first, first + num, size):
            yield sample_many(
                self.model, min(size, first + num - start), first=start, **self.options()
            )


def write(request: Request, *, json: bool, probs: bool, but: frozenset[str] | None) -> None:
    """Write what was asked for: as JSON or as text, with probabilities, or items that are not among `but`."""
    if json:
        write_json(request, probs) if but is None else write_novel_json(request, but)
    elif probs:
        write_probs(request)
    elif but is not None:
        write_items(request, but)
    else:
        write_texts(request)


def write_texts(request: Request) -> None:
    """Write the samples one after the other: items a line each, texts under headings if there are several."""
    from charrnn.sampling.sampling import sample

    if request.num == 1:
        characters = sample(request.model, **request.options())
        with Flow() as flow:
            flow.write(request.opening)
            flow.flush()
            for char in characters:
                flow.write(char)
        return
    begun = 0
    with Flow() as flow:
        for samples in request.groups(request.num):
            _write_group(flow, request, samples, begun)
            begun += len(samples.nats)


def _write_group(flow: Flow, request: Request, samples: Samples, begun: int) -> None:
    """Write samples that are drawn side by side: one flows, and when it has ended the next takes over with what it has."""
    at, count = 0, len(samples.nats)
    _head(flow, request, begun)
    for new in samples:
        char = new[at]
        while char is None and at + 1 < count:
            at += 1
            flow.end_line()
            _head(flow, request, begun + at)
            char = new[at]
            text = samples.samples()[at].text
            flow.write(text if char is None else text[:-1])
        flow.write(char or "")
    ended = samples.samples()
    for after in range(at + 1, count):
        flow.end_line()
        _head(flow, request, begun + after)
        flow.write(ended[after].text)
    flow.end_line()


def _head(flow: Flow, request: Request, number: int) -> None:
    """Write what stands before a sample: a rule, if there are several texts, and the prime."""
    if not request.model.of_lines:
        flow.raw(f"---- {number + 1} of {request.num} ----\n")
    flow.write(request.opening)


def novel_items(request: Request, lines: frozenset[str]) -> Iterator[Sample]:
    """Yield `num` items that are not among `lines`. Raises CharRNNError if too few turn up among many."""
    found, tried, most = 0, 0, 1000 + 100 * request.num
    while tried < most:
        for samples in request.groups(min(max(request.num, AT_ONCE), most - tried), tried):
            for _ in samples:
                pass
            for drawn in samples.samples():
                tried += 1
                item = drawn.prime + drawn.text
                if item and item not in lines:
                    yield drawn
                    found += 1
                    if found == request.num:
                        return
    raise CharRNNError(
        f"only {found} of {request.num} items are new after {tried:,} tries; raise --temp, lower --num, or give a shorter --prime"
    )


def write_items(request: Request, lines: frozenset[str]) -> None:
    """Write items that are not among `lines`, a line each."""
    with Flow() as flow:
        for drawn in novel_items(request, lines):
            flow.write(request.opening + drawn.text)
            flow.end_line()


def write_novel_json(request: Request, lines: frozenset[str]) -> None:
    """Write items that are not among `lines` as JSON."""
    for drawn in novel_items(request, lines):
        print_json(_object(request, drawn))


def write_json(request: Request, probs: bool) -> None:
    """Write an object a sample; probs: with the probability of each drawn character, and facts about ŷ_t."""
    if probs:
        from charrnn.lecture.quiz import YHatFacts

        for number in range(request.num):
            samples, facts = alone(request, number), YHatFacts()
            probabilities = [p for _, p in watch(request.model, samples, facts)]
            print_json(
                {
                    **_object(request, samples.samples()[0]),
                    "probabilities": probabilities,
                    "y_hat": asdict(facts),
                }
            )
        return
    for samples in request.groups(request.num):
        for _ in samples:
            pass
        for drawn in samples.samples():
            print_json(_object(request, drawn))


def _object(request: Request, drawn: Sample) -> dict[str, Any]:
    return {**asdict(drawn), "text": request.opening + drawn.text}


def alone(request: Request, number: int = 0) -> Samples:
    """Return one sample by itself, so that each step's ŷ_t can be seen."""
    from charrnn.sampling.sampling import sample_many

    return sample_many(request.model, 1, first=number, **request.options())


def watch(model: Model, samples: Samples, facts: YHatFacts) -> Iterator[tuple[str, float]]:
    """Yield each drawn character of a single sample with its probability at temp 1; add the vectors ŷ_t to `facts`."""
    from charrnn.sampling.sampling import distribution

    plain, vocabulary = SampleConfig(), model.vocabulary
    for (char,) in samples:
        y_hat = distribution(samples.logits, plain)
        facts.add(y_hat)
        if char is not None:
            yield char, float(y_hat[vocabulary.index(char)])


def write_probs(request: Request) -> None:
    """Write the samples with each drawn character's probability shown, and say on stderr what ŷ_t is."""
    from charrnn.lecture.quiz import YHatFacts

    painter = Painter(PROBABILITY, console())
    facts = YHatFacts()
    with Flow() as flow:
        flow.raw(painter.legend())
        for number in range(request.num):
            if request.num > 1:
                _rule(flow, number, request.num)
            show_probabilities(
                flow, painter, request.opening, watch(request.model, alone(request, number), facts)
            )
    say(facts.sentence())


def _rule(flow: Flow, number: int, num: int) -> None:
    flow.end_line()
    flow.raw(f"---- {number + 1} of {num} ----\n")


def show_probabilities(
    flow: Flow, painter: Painter, opening: str, drawn: Iterator[tuple[str, float]]
) -> None:
    """Write characters in the colour of their probability as they are drawn, or, without colour, row by row with digits under."""
    text, values, used = opening, [None] * len(opening), sum(map(width_of, opening))
    if painter.brushes is not None:
        flow.raw(
            "".join(_shown(painter, cell) for cell in cells_of(opening, values, painter.encoding))
        )
        for char, p in drawn:
            flow.raw(
                "".join(_shown(painter, cell) for cell in cells_of(char, [p], painter.encoding))
            )
        flow.end_line()
        return
    held: list[float | None] = list(values)
    for char, p in drawn:
        text, used = text + char, used + width_of(char)
        held.append(p)
        if char == "\n" or used + 2 > painter.width:
            flow.raw("".join(painter.paint(text, held)))
            text, held, used = "", [], 0
    flow.raw("".join(painter.paint(text, held)))


def _shown(painter: Painter, cell: Cell) -> str:
    return painter.cell(cell) + "\n" * (cell.text == "\n")
