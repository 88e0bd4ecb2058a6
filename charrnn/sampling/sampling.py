"""From a model to characters: one sample, or many side by side.

`decoding` draws an index from logits, `stepping` runs the network one character at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np

from charrnn.arrays import Array
from charrnn.checkpoint.model import Model
from charrnn.config import SampleConfig, SampleOptions, check
from charrnn.errors import UsageError, VocabularyError
from charrnn.sampling.decoding import distribution, draw, drawer, unnormalized_probabilities
from charrnn.sampling.matching import Matcher
from charrnn.sampling.stepping import Sampler
from charrnn.text.vocabulary import Vocabulary

BLOCK = 256  # uniform numbers drawn at a time for each sample; this doesn't affect their values


def _uniforms(seed: int, numbers: Iterable[int]) -> Iterator[Array]:
    """Yield uniform numbers (S,) forever, one for each sample number, independent of the others."""
    seeds = [np.random.SeedSequence(seed, spawn_key=(number,)) for number in numbers]
    generators = [np.random.default_rng(one) for one in seeds]
    while True:
        yield from np.stack([rng.random(BLOCK) for rng in generators], axis=1)


def _encoded(vocabulary: Vocabulary, text: str, what: str) -> list[int]:
    """Return the indices of `text`. Raises VocabularyError, which calls the text `what`."""
    try:
        return [*map(int, vocabulary.encode(text))]
    except VocabularyError as error:
        raise VocabularyError(f"{what}: {error}") from None


class Drawing:
    """What to draw from a model, checked: the opening, the pattern and the seed.

    The opening is the prime, preceded by a newline for a model of lines. Without a prime it is
    the newline or, if the vocabulary has none, the commonest character, which has the greatest b_y.
    `what` the prime is called in an error.
    Raises VocabularyError for an unknown character in the prime or the stop text, and UsageError
    for a pattern that isn't supported or that nothing can match.
    """

    def __init__(self, model: Model, config: SampleConfig, what: str = "prime") -> None:
        self.seed = secrets.randbits(32) if config.seed is None else config.seed
        self.model, self.config = model, replace(config, seed=self.seed)
        vocabulary = model.vocabulary
        _encoded(vocabulary, config.stop or "", "stop text")
        opening = _encoded(vocabulary, config.prime, what)
        if "\n" in vocabulary and (model.of_lines or not opening):
            opening.insert(0, vocabulary.index("\n"))
        *self._before, self.last = opening or [int(model.parameters["b_y"].argmax())]
        self.matcher: Matcher | None = None
        if config.match is not None:
            ends = {"prime": config.prime, "end": "\n"} if model.of_lines else {}
            self.matcher = Matcher(
                config.match, vocabulary.characters, stop=config.stop or "", **ends
            )
            if self.matcher.least > config.length:
                raise UsageError(
                    f"--match: {config.match!r} can't be matched by the model's characters within "
                    f"--length {config.length:,}"
                )

    def sampler(self) -> Sampler:
        """Return a sampler that has read the opening except its last character, `last`."""
        sampler = Sampler(self.model)
        for index in self._before:
            sampler.feed(index)
        return sampler

    def characters(self) -> Iterator[str]:
        """Yield the characters of sample 0; each is read only when the next is requested."""
        model, config, matcher, last = self.model, self.config, self.matcher, self.last
        sampler = self.sampler()
        read, index = sampler.read, drawer(sampler.logits, config)
        characters, end = model.vocabulary.characters, "\n" if model.of_lines else None
        stop, tail, state, left = config.stop, "", 0, config.length

        def following(drawn: int, uniform: float) -> int:
            read(drawn)
            if matcher:
                sampler.logits[~matcher.may_be_drawn(state, left)] = -np.inf
            return index(uniform)

        uniforms = _uniforms(self.seed, [0])
        for left, uniform in zip(range(config.length, 0, -1), uniforms, strict=False):
            if matcher and not matcher.goes_on(state, left):
                return
            last = sampler.without_float_warnings(following, last, uniform.item())
            if matcher:
                state = matcher.after(state, last)
            if (char := characters[last]) == end:
                return
            yield char
            if stop and (tail := (tail + char)[-len(stop) :]) == stop:
                return


def likeliest(model: Model, text: str, k: int) -> list[tuple[str, float]]:
    """Return the k likeliest characters after `text` with their probabilities, likeliest first."""
    drawing = Drawing(model, SampleConfig(prime=text), "text")
    sampler = drawing.sampler()
    sampler.feed(drawing.last)
    y_hat = distribution(sampler.logits, SampleConfig())
    best = (-y_hat).argsort(kind="stable")[:k].tolist()
    return [(model.vocabulary.characters[i], float(y_hat[i])) for i in best]


def sample(model: Model, **options: Unpack[SampleOptions]) -> Iterator[str]:
    """Yield drawn characters one at a time; the options are the fields of SampleConfig.

    The same seed gives the same characters. The network first reads the prime, which isn't yielded,
    or, without one, a newline or the commonest character. Drawing ends after `length` characters
    or once `stop` has been drawn; with a model of lines it ends at a newline, which isn't yielded.
    Raises UsageError and VocabularyError at once, not at the first character.
    """
    return Drawing(model, SampleConfig(**options)).characters()


@dataclass(frozen=True)
class Sample:
    """A drawn text, and what it was drawn with."""

    text: str
    prime: str
    seed: int
    temp: float
    nats: float  # −Σ ln ŷ_t of what was drawn, at temp 1; includes the newline that ends a line


class Samples(Iterator[list[str | None]]):
    """Samples drawn side by side. Each step yields a character per sample, None if it has ended."""

    def __init__(self, drawing: Drawing, num: int, *, first: int = 0) -> None:
        check("--num", num, least=1)
        self.model, self.config, self.seed = drawing.model, drawing.config, drawing.seed
        self._last: int | Array = drawing.last
        self._sampler = drawing.sampler()
        if num > 1:
            self._sampler = self._sampler.spread(num)
        self._uniforms = _uniforms(self.seed, range(first, first + num))
        self._matcher, self._states = drawing.matcher, np.zeros(num, np.intp)
        self._end = self.model.vocabulary.characters.find("\n") if self.model.of_lines else -1
        self._texts: list[list[str]] = [[] for _ in range(num)]
        self._open, self._left = np.ones(num, bool), self.config.length
        self.nats: Array = np.zeros(num)  # −Σ ln ŷ_t of each sample so far
        self._close()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def logits(self) -> Array:
        """The logits of the last step, (N,) for one sample, else (N, S)."""
        return self._sampler.logits

    def __next__(self) -> list[str | None]:
        if not self._open.any():
            raise StopIteration
        self._sampler.feed(self._last)
        uniform = next(self._uniforms)
        indices = self._sampler.without_float_warnings(self._pick, uniform)
        self._last = indices if len(self) > 1 else int(indices[0])
        self._left -= 1
        self._open &= indices != self._end
        characters, stop = self.model.vocabulary.characters, self.config.stop
        new: list[str | None] = []
        for index, is_open, text in zip(
            indices.tolist(), self._open.tolist(), self._texts, strict=True
        ):
            new.append(characters[index] if is_open else None)
            text += new[-1] or ""
        if stop:
            self._open &= ["".join(text[-len(stop) :]) != stop for text in self._texts]
        if self._matcher:
            self._states = self._matcher.after(self._states, indices)
        self._close()
        return new

    def _pick(self, uniform: Array) -> Array:
        """Return an index for each sample, (S,), and add its −ln ŷ_t to `nats`."""
        y = self.logits.reshape(-1, len(uniform))
        masked = y
        if self._matcher:
            allowed = self._matcher.may_be_drawn(self._states, self._left)
            masked = np.where(allowed.T | ~self._open, y, -np.inf)
        indices: Array = draw(unnormalized_probabilities(masked, self.config), uniform)
        y = y - y.max(axis=0)
        nats = np.log(np.exp(y).sum(axis=0)) - y[indices, np.arange(len(uniform))]
        np.add(self.nats, nats, out=self.nats, where=self._open)
        return indices

    def _close(self) -> None:
        """End the samples that have `length` characters or can't be continued to a match."""
        if self._matcher:
            self._open &= self._matcher.goes_on(self._states, self._left)
        self.finished: Array = ~self._open  # by a newline, the stop text or the match
        self._open &= self._left > 0

    def follow(self, i: int) -> Iterator[str]:
        """Yield what sample i has so far, then each new character."""
        yield "".join(self._texts[i])
        while self._open[i]:
            yield next(self)[i] or ""

    def sample(self, i: int) -> Sample:
        """Draw sample i to its end and return it."""
        while self._open[i]:
            next(self)
        c, nats = self.config, float(self.nats[i])
        return Sample("".join(self._texts[i]), c.prime, self.seed, c.temp, nats)

    def samples(self) -> list[Sample]:
        """Draw all samples to their ends and return them."""
        return [self.sample(i) for i in range(len(self))]


def sample_many(
    model: Model, num: int, *, first: int = 0, **options: Unpack[SampleOptions]
) -> Samples:
    """Return an iterator that draws `num` independent samples side by side, numbered from `first`.

    The options are those of `sample`. Sample i has its own random numbers, which don't depend on
    `num`; those of sample 0 are the ones that `sample` uses. With num > 1 the matrix products round
    differently, which with float32 weights may change about one draw in 100,000.
    """
    return Samples(Drawing(model, SampleConfig(**options)), num, first=first)
