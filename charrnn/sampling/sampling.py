"""From a model to characters: one sample, or many side by side.

`decoding` draws an index from logits, `stepping` runs the network one character at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint.model import Model
from charrnn.config import SampleConfig, SampleOptions, check
from charrnn.errors import VocabularyError
from charrnn.sampling.decoding import distribution, draw_rows, drawer, unnormalized_probabilities
from charrnn.sampling.stepping import Sampler

Array = NDArray[Any]
BLOCK = 1024  # uniforms drawn at a time; a generator gives the same ones in blocks of any size


def fresh_seed() -> int:
    """Return a seed that nobody chose, below 2³²."""
    return secrets.randbits(32)


def _generator(config: SampleConfig, number: int) -> np.random.Generator:
    """Return the random numbers of one sample, the same however many others there are."""
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(number,)))


def check_known(model: Model, text: str, what: str) -> None:
    """Raise VocabularyError for the first character of `text` that the model doesn't know.

    The message has its place and the nearest known characters. For an escape such as a literal \\n
    it says how a shell writes the character.
    """
    unknown = model.vocabulary.find_unknown(text)
    if not len(unknown):
        return
    at = int(unknown[0])
    char = text[at]
    if (escape := text[at : at + 2]) in (r"\n", r"\r", r"\t"):
        advice = f"{escape} is two characters here; the shell writes the one it means $'{escape}'"
    else:
        near = ", ".join(map(repr, model.vocabulary.nearest(char)))
        advice = f"the nearest: {near}; replace it, or use --unknown skip"
    raise VocabularyError(
        f"character {at + 1} of the {what}, {char!a} (U+{ord(char):04X})"
        f"{f' after {text[max(0, at - 30) : at]!r}' if at else ''}, "
        f"isn't among the {len(model.vocabulary)} that the model knows; {advice}"
    )


def _begin(model: Model, config: SampleConfig) -> tuple[Sampler, int]:
    """Return one stream that has read all but the last character of the opening, and that one.

    The opening is the prime, after a newline if the model is one of lines; without a prime the
    newline or, if the vocabulary has none, the commonest character, which has the greatest b_y.
    Raises VocabularyError for an unknown character in the prime or the stop text.
    """
    check_known(model, config.prime, "prime")
    check_known(model, config.stop or "", "stop text")
    vocabulary = model.vocabulary
    opening = vocabulary.encode(config.prime).tolist()
    if "\n" in vocabulary and (model.of_lines or not opening):
        opening.insert(0, vocabulary.index("\n"))
    sampler = Sampler(model)
    *before, last = opening or [int(model.parameters["b_y"].argmax())]
    for index in before:
        sampler.feed(index)
    return sampler, last


def likeliest(model: Model, text: str, k: int) -> list[tuple[str, float]]:
    """Return the k likeliest characters after `text` with their probabilities, in that order."""
    sampler, last = _begin(model, SampleConfig(prime=text))
    sampler.feed(last)
    y_hat = distribution(sampler.logits, SampleConfig())
    best = (-y_hat).argsort(kind="stable")[:k].tolist()
    return [(model.vocabulary.characters[i], float(y_hat[i])) for i in best]


def sample(model: Model, **options: Unpack[SampleOptions]) -> Iterator[str]:
    """Yield drawn characters one at a time; the options are the fields of SampleConfig.

    The same seed gives the same characters. The state before the first draw is that after the
    prime, which isn't yielded, or without one that after a newline or the commonest character. Ends
    after `length` characters or once `stop` has been drawn; a model of lines ends at a newline,
    which isn't yielded. Raises UsageError and VocabularyError at once, not at the first character.
    """
    config = SampleConfig(**options)
    characters = _drawn(*_begin(model, config), config)
    return _until(config.stop, characters) if config.stop else characters


def _drawn(sampler: Sampler, last: int, config: SampleConfig) -> Iterator[str]:
    """Yield what is drawn once `last` has been read; each is read when the next is asked for."""
    model, read, index = sampler.model, sampler.read, drawer(sampler.logits, config)
    characters, end = model.vocabulary.characters, "\n" if model.of_lines else None

    def following(drawn: int, uniform: float) -> int:
        read(drawn)
        return index(uniform)

    for uniform in _uniforms(_generator(config, 0), config.length):
        last = sampler.without_float_warnings(following, last, uniform)
        if (char := characters[last]) == end:
            return
        yield char


def _uniforms(rng: np.random.Generator, count: int) -> Iterator[float]:
    """Yield so many uniform numbers."""
    for drawn in range(0, count, BLOCK):
        yield from rng.random(min(BLOCK, count - drawn)).tolist()


def _until(stop: str, characters: Iterator[str]) -> Iterator[str]:
    """Yield characters up to and including the first occurrence of `stop`."""
    tail = ""
    for char in characters:
        yield char
        tail = (tail + char)[-len(stop) :]
        if tail == stop:
            return


@dataclass(frozen=True)
class Sample:
    """A drawn text and how it came about."""

    text: str
    prime: str
    seed: int
    temp: float
    nats: float  # −Σ ln ŷ_t of what was drawn, at temp 1; includes the newline that ends a line


class Samples(Iterator[list[str | None]]):
    """Samples drawn side by side: a step gives the new character of each, None if it has ended."""

    def __init__(
        self, model: Model, config: SampleConfig, num: int, *, first: int = 0, nats: bool = True
    ) -> None:
        check("--num", num, least=1)
        self._last: int | Array
        sampler, self._last = _begin(model, config)
        self._sampler = sampler if num == 1 else sampler.spread(num)
        self.seed = fresh_seed() if config.seed is None else config.seed
        self.model, self.config = model, replace(config, seed=self.seed)
        self._vocabulary = model.vocabulary
        self._uniforms = _side_by_side([_generator(self.config, first + i) for i in range(num)])
        self.nats: Array = np.full(num, 0.0 if nats else np.nan)  # −Σ ln ŷ_t of each so far
        self.finished: Array = np.zeros(num, bool)  # by a newline or the stop text
        self._open, self._lengths, self._steps = np.ones(num, bool), np.zeros(num, np.intp), 0
        self._drawn = np.zeros((min(config.length, BLOCK), num), self._vocabulary.dtype)
        ends = model.of_lines and "\n" in self._vocabulary
        self._end = self._vocabulary.index("\n") if ends else -1
        self._stop = self._vocabulary.encode(config.stop or "")[:, None]

    def __len__(self) -> int:
        return len(self._open)

    @property
    def logits(self) -> Array:
        """What the last step drew from, (N,) for one sample, else (N, S)."""
        return self._sampler.logits

    def __next__(self) -> list[str | None]:
        if not self._open.any():
            raise StopIteration
        self._sampler.feed(self._last)
        indices = self._sampler.without_float_warnings(self._pick, next(self._uniforms))
        self._last = indices if len(self) > 1 else int(indices[0])
        self._keep(indices)
        characters = self._vocabulary.characters
        new: list[str | None] = [characters[index] for index in indices.tolist()]
        for i in np.flatnonzero(self._lengths < self._steps).tolist():
            new[i] = None
        return new

    def _pick(self, uniform: Array) -> Array:
        """Return an index for each stream, (S,); add −ln of its probability at temp 1 to `nats`."""
        y = np.array(np.atleast_2d(self.logits.T), np.float64, order="C")
        if np.isnan(self.nats[0]):
            return draw_rows(unnormalized_probabilities(y, self.config), uniform)
        indices = draw_rows(unnormalized_probabilities(y.copy(), self.config), uniform)
        y -= y.max(axis=-1, keepdims=True)
        chosen = y[np.arange(len(y)), indices]
        nats = np.log(np.exp(y, out=y).sum(axis=-1)) - chosen
        self.nats[self._open] += nats[self._open]
        return indices

    def _keep(self, indices: Array) -> None:
        """Add a character to each open sample, and close those that it ends."""
        if self._steps == len(self._drawn):
            self._drawn = np.concatenate([self._drawn, np.zeros_like(self._drawn)])
        self._drawn[self._steps] = indices
        self._steps += 1
        self._open &= indices != self._end
        self._lengths[self._open] = self._steps
        if 0 < len(self._stop) <= self._steps:
            tails = self._drawn[self._steps - len(self._stop) : self._steps]
            self._open &= (tails != self._stop).any(axis=0)
        self.finished = ~self._open
        self._open &= self._steps < self.config.length

    def text(self, i: int) -> str:
        """Return what has been drawn of sample i."""
        return self._vocabulary.decode(self._drawn[: self._lengths[i], i])

    def follow(self, i: int) -> Iterator[str]:
        """Yield the text of sample i in pieces: what it has already, then what is drawn."""
        yield self.text(i)
        while self._open[i]:
            yield next(self)[i] or ""

    def draw_all(self) -> list[Sample]:
        """Return all samples, drawn to their ends."""
        for _ in self:
            pass
        return self.samples()

    def samples(self) -> list[Sample]:
        """Return what has been drawn so far."""
        c = self.config
        return [
            Sample(self.text(i), c.prime, self.seed, c.temp, nats)
            for i, nats in enumerate(self.nats.tolist())
        ]


def _side_by_side(generators: list[np.random.Generator]) -> Iterator[Array]:
    """Yield a uniform number from each generator, (S,), forever."""
    while True:
        yield from np.stack([rng.random(BLOCK // 16) for rng in generators], axis=1)


def sample_many(
    model: Model,
    num: int,
    *,
    first: int = 0,
    nats: bool = True,
    **options: Unpack[SampleOptions],
) -> Samples:
    """Return an iterator that draws `num` independent samples side by side, numbered from `first`.

    The options are those of `sample`. Sample i has its own random numbers, whatever `num` is, and
    sample 0 those of `sample`. For num > 1 the products are matrix-matrix ones, whose rounding
    depends on num: with float32 weights that may change one draw in some 100,000. Without `nats`,
    which cost a twentieth of the time, they are NaN.
    """
    return Samples(model, SampleConfig(**options), num, first=first, nats=nats)
