"""`charrnn sample --interactive`: one types a beginning and the model goes on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from charrnn.cli.drawn import Request, alone, show_probabilities, watch, write_texts
from charrnn.cli.flow import Flow
from charrnn.cli.models import known
from charrnn.cli.pictures import Painter
from charrnn.cli.scales import PROBABILITY
from charrnn.cli.terminal import console, say
from charrnn.config import SampleConfig, check
from charrnn.errors import CharRNNError, CorpusError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model

PROMPT = "> "


def converse(
    model: Model, config: SampleConfig, *, seed: int | None, echo: bool, unknown: str, probs: bool
) -> None:
    """Answer each line of standard input until it ends; Ctrl-C stops an answer, and at the prompt empties the line."""
    from charrnn.sampling.sampling import fresh_seed

    check("--seed", seed, least=0)
    with contextlib.suppress(ImportError):  # not on Windows
        import readline  # noqa: F401 - input() edits lines with it
    if sys.stdin is not None and sys.stdin.isatty():
        say("Type a beginning and press Enter; Ctrl-C stops a text, Ctrl-D leaves.")
    for line in _lines():
        try:
            start = known(model, line, unknown, "line")
            chosen = fresh_seed() if seed is None else seed
            if seed is None:
                say(f"seed: {chosen}")
            request = Request(model, config, start, chosen, echo)
            _write_probabilities(request) if probs else write_texts(request)
        except KeyboardInterrupt:
            continue
        except CharRNNError as error:
            for part in str(error).split("\n"):
                say(part)


def _lines() -> Iterator[str]:
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
                f"standard input: isn't {error.encoding} ({error.reason}); type or send text in that encoding"
            ) from None


def _write_probabilities(request: Request) -> None:
    from charrnn.lecture.quiz import YHatFacts

    painter, facts = Painter(PROBABILITY, console()), YHatFacts()
    with Flow() as flow:
        flow.raw(painter.legend())
        show_probabilities(
            flow, painter, request.opening, watch(request.model, alone(request), facts)
        )
    say(facts.sentence())
