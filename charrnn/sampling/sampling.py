"""From a model to characters: one sample, or many side by side.

How an index is drawn from logits is in `drawing`, the network one character at a time in `stepping`.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint.model import Model
from charrnn.config import SampleConfig, check
from charrnn.errors import VocabularyError
from charrnn.sampling.decoding import distribution, draw, draw_rows, drawer, weights
from charrnn.sampling.stepping import Sampler
from charrnn.text.vocabulary import printable

__all__ = [
    "Sample",
    "Sampler",
    "Samples",
    "distribution",
    "draw",
    "fresh_seed",
    "sample",
    "sample_many",
]

Array = NDArray[Any]
BLOCK = 1024  # uniforms drawn at a time; a generator gives the same ones in blocks of any size


def fresh_seed() -> int:
    """Return a seed that nobody chose, below 2³²."""
    return secrets.randbits(32)


def _generator(seed: int, stream: int) -> np.random.Generator:
    """Return the random stream of one sample, the same however many others there are."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))


def _width(text: str) -> int:
    """Return how many columns a terminal gives to printable text."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def check_prime(model: Model, prime: str) -> None:
    """Raise VocabularyError for a character that the model doesn't know: what, where and the nearest known, then a caret under it."""
    unknown = model.vocabulary.find_unknown(prime)
    if not unknown:
        return
    at = unknown[0][0]
    near = ", ".join(repr(char) for char in model.vocabulary.nearest(prime[at]))
    before, after = printable(prime[max(0, at - 30) : at]), printable(prime[at : at + 30])
    raise VocabularyError(
        f"character {at + 1} of the prime, {prime[at]!a} (U+{ord(prime[at]):04X}), isn't among the "
        f"{len(model.vocabulary)} that the model knows; the nearest: {near}; replace it, or leave it out with --unknown skip\n"
        f"  {before}{after}\n  {' ' * _width(before)}^"
    )


def _opening(model: Model, prime: str) -> list[int]:
    """Return the indices to feed before the first draw: the prime, after a newline if the model is one of lines.

    Without a prime: the newline, or, where the vocabulary has none, the commonest character, which has the greatest b_y.
    Raises VocabularyError for a prime with an unknown character.
    """
    check_prime(model, prime)
    vocabulary = model.vocabulary
    first = [vocabulary.index("\n")] if "\n" in vocabulary else []
    if not prime:
        return first or [int(model.parameters["b_y"].argmax())]
    return (first if model.of_lines else []) + [int(i) for i in vocabulary.encode(prime)]


def _after(model: Model, opening: list[int]) -> Sampler:
    """Return one stream that has read each index of `opening` once."""
    sampler = Sampler(model)
    for index in opening:
        sampler.feed(index)
    return sampler


def sample(
    model: Model,
    *,
    prime: str = "",
    length: int = 500,
    temp: float = 1.0,
    seed: int | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: str | None = None,
) -> Iterator[str]:
    """Yield drawn characters one at a time, at most `length`; the same for the same seed (None: a fresh one).

    The state before the first draw is that after the prime, which isn't yielded; without a prime that after a newline,
    or the commonest character. Ends once `stop` has been drawn. A model of lines ends at a newline, which isn't yielded.
    Raises UsageError and VocabularyError at once, not at the first character.
    """
    config = SampleConfig(
        temp=temp, length=length, top_k=top_k, top_p=top_p, min_p=min_p, stop=stop
    )
    check("--seed", seed, least=0)
    rng = _generator(fresh_seed() if seed is None else seed, 0)
    drawn = _drawn(model, _opening(model, prime), config, rng)
    return drawn if stop is None else _until(stop, drawn)


def _drawn(
    model: Model, opening: list[int], config: SampleConfig, rng: np.random.Generator
) -> Iterator[str]:
    """Yield what is drawn after `opening`: a character is fed when the next one is asked for."""
    sampler = _after(model, opening)
    read, index = sampler.read, drawer(sampler.logits, config)
    characters, end = model.vocabulary.characters, "\n" if model.of_lines else None

    def following(drawn: int, uniform: float) -> int:
        read(drawn)
        return index(uniform)

    uniforms = _uniforms(rng, config.length)
    drawn = sampler.without_float_warnings(index, next(uniforms))
    while (char := characters[drawn]) != end:
        yield char
        uniform = next(uniforms, None)
        if uniform is None:
            return
        drawn = sampler.without_float_warnings(following, drawn, uniform)


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
    """A drawn text and how it came about; `nats` is −Σ ln ŷ_t over what was drawn, at temp 1 (a line's newline included)."""

    text: str
    prime: str
    seed: int
    temp: float
    nats: float


class Samples(Iterator[list[str | None]]):
    """Samples being drawn side by side. Each step gives a list with the new character of each, None where one has ended."""

    def __init__(
        self, sampler: Sampler, prime: str, config: SampleConfig, seed: int, first: int, nats: bool
    ) -> None:
        num, self._vocabulary = sampler.streams, sampler.model.vocabulary
        self.prime, self.config, self.seed = prime, config, seed
        self.nats: Array = np.zeros(num)  # −Σ ln ŷ_t of each so far
        self.last_nats: Array = np.full(
            num, 0 if nats else np.nan
        )  # −ln ŷ_t of what the last step drew
        self._sampler = sampler
        self._uniforms = _side_by_side([_generator(seed, first + i) for i in range(num)])
        self._open, self._lengths, self._steps = np.ones(num, bool), np.zeros(num, np.intp), 0
        self._drawn = np.zeros((min(config.length, BLOCK), num), self._vocabulary.dtype)
        self._end = (
            self._vocabulary.index("\n")
            if sampler.model.of_lines and "\n" in self._vocabulary
            else None
        )
        last = (config.stop or "")[-1:]
        self._stop_end = self._vocabulary.index(last) if last in self._vocabulary else None

    @property
    def logits(self) -> Array:
        """Return what the last step drew from, (N,) for one sample, else (N, num); before the first step, what it will."""
        return self._sampler.logits

    def __next__(self) -> list[str | None]:
        if not self._open.any():
            raise StopIteration
        if self._steps:
            before = self._drawn[self._steps - 1]
            self._sampler.feed(before if len(before) > 1 else int(before[0]))
        indices = self._sampler.without_float_warnings(self._pick, next(self._uniforms))
        self.nats[self._open] += self.last_nats[self._open]
        self._keep(indices)
        characters = self._vocabulary.characters
        new: list[str | None] = [characters[index] for index in indices.tolist()]
        for i in np.flatnonzero(self._lengths < self._steps).tolist():
            new[i] = None
        return new

    def _pick(self, uniform: Array) -> Array:
        """Return an index for each stream, (S,); `last_nats` becomes −ln of its probability at temp 1, unless it is NaN."""
        y = np.array(np.atleast_2d(self._sampler.logits.T), np.float64, order="C")
        if np.isnan(self.last_nats[0]):
            return draw_rows(weights(y, self.config), uniform)
        indices = draw_rows(weights(y.copy(), self.config), uniform)
        y -= y.max(axis=-1, keepdims=True)
        chosen = y[np.arange(len(y)), indices]
        self.last_nats = np.log(np.exp(y, out=y).sum(axis=-1)) - chosen
        return indices

    def _keep(self, indices: Array) -> None:
        """Add a character to each sample that is open, and close those that it ends."""
        if self._steps == len(self._drawn):
            self._drawn = np.concatenate([self._drawn, np.zeros_like(self._drawn)])
        self._drawn[self._steps] = indices
        self._steps += 1
        if self._end is not None:
            self._open &= indices != self._end
        self._lengths[self._open] = self._steps
        if self._stop_end is not None:
            for i in np.flatnonzero(self._open & (indices == self._stop_end)).tolist():
                self._open[i] = not self._text(i, len(self.config.stop or "")).endswith(
                    self.config.stop or ""
                )
        self._open &= self._steps < self.config.length

    def _text(self, i: int, most: int | None = None) -> str:
        """Return the last `most` characters of sample i, or all."""
        length = int(self._lengths[i])
        return self._vocabulary.decode(self._drawn[max(0, length - (most or length)) : length, i])

    def samples(self) -> list[Sample]:
        """Return what has been drawn so far."""
        return [
            Sample(self._text(i), self.prime, self.seed, self.config.temp, float(nats))
            for i, nats in enumerate(self.nats)
        ]


def _side_by_side(generators: list[np.random.Generator]) -> Iterator[Array]:
    """Yield a uniform number from each generator, (S,), for ever."""
    while True:
        yield from np.stack([rng.random(BLOCK // 16) for rng in generators], axis=1)


def sample_many(
    model: Model,
    num: int,
    *,
    prime: str = "",
    length: int = 500,
    temp: float = 1.0,
    seed: int | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: str | None = None,
    first: int = 0,
    nats: bool = True,
) -> Samples:
    """Return an iterator that draws `num` independent samples side by side, numbered from `first` on; options as in `sample`.

    Sample i has random numbers of its own, whatever `num` is, and sample 0 those of `sample`. For num > 1 the products are
    matrix-matrix ones, whose rounding depends on num: with float32 weights that may tip one draw in some 100,000.
    Without `nats`, which cost a twentieth of the time, they are NaN.
    """
    config = SampleConfig(
        temp=temp, length=length, top_k=top_k, top_p=top_p, min_p=min_p, stop=stop
    )
    check("--num", num, least=1)
    check("--seed", seed, least=0)
    sampler = _after(model, _opening(model, prime))
    return Samples(
        sampler if num == 1 else sampler.spread(num),
        prime,
        config,
        fresh_seed() if seed is None else seed,
        first,
        nats,
    )
