"""`charrnn sample`: text by a model, written as it is drawn."""

from __future__ import annotations

import os
import select
import stat
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli.options import (
    Debug,
    Json,
    MaybeModel,
    UnknownChoice,
    given,
    known,
    model_path,
    of_field,
    option,
    switch,
    unknown_option,
    with_options,
)
from charrnn.cli.terminal import say
from charrnn.config import SampleConfig, check, flag
from charrnn.errors import CheckpointError, CorpusError, UsageError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model

LONGEST_PRIME, LONGEST_SOURCE = 1_000_000, 100_000_000  # a small .gz may hold any number
BEGINNING, SHOWING = "How a text begins", "What is shown"
CLASHES = (
    ("prime", "prime_file"),
    *(("show_probs", other) for other in ("novel", "copied")),
    *(
        ("interactive", other)
        for other in ("prime", "prime_file", "novel", "copied", "json", "num")
    ),
)


DRAWN = partial(of_field, SampleConfig, "How characters are drawn")


@with_options(
    DRAWN(
        "--temp --temperature",
        "Logits are divided by it; 0: the most probable character.",
        "X",
    ),
    DRAWN("--length", "Characters to draw; models of lines end by themselves.", "N"),
    DRAWN("--top-k", "Draw among the N most probable.", "N"),
    DRAWN("--top-p", "Draw among the fewest that hold this probability.", "P"),
    DRAWN("--min-p", "Draw among those with at least P times the greatest probability.", "P"),
    DRAWN("--seed", "The same one gives the same text.", "N", "a fresh one, which is said"),
    DRAWN("--stop", "End after this text.", "TEXT"),
    DRAWN(
        "--match",
        "Draw only what can still match, whole; not the same as drawing until one does.",
        "REGEX",
    ),
    of_field(SampleConfig, BEGINNING, "--prime", "Text to go on from.", "TEXT"),
)
def sample(
    context: typer.Context,
    model: MaybeModel = None,
    *,
    prime_file: Annotated[
        str | None,
        option(
            "--prime-file",
            BEGINNING,
            "File with the text to go on from; -: standard input.",
            "PATH",
        ),
    ] = None,
    unknown: Annotated[UnknownChoice, unknown_option(BEGINNING)] = "error",
    encoding: Annotated[
        str | None,
        option(
            "--encoding",
            BEGINNING,
            "Of --prime-file, --novel and --copied.",
            "NAME",
            show_default="utf-8",
        ),
    ] = None,
    num: Annotated[int, option("--num", SHOWING, "Independent samples.", "N")] = 1,
    novel: Annotated[
        str | None,
        option(
            "--novel", SHOWING, "Models of lines: only items that are not lines of FILE.", "FILE"
        ),
    ] = None,
    copied: Annotated[
        str | None,
        option(
            "--copied",
            SHOWING,
            "Say after the text how much of it stands verbatim in FILE.",
            "FILE",
        ),
    ] = None,
    show_probs: Annotated[
        bool, switch("--show-probs", SHOWING, "Colour each character by its probability.")
    ] = False,
    interactive: Annotated[
        bool,
        switch("--interactive -i", SHOWING, "Type beginnings; Ctrl-C stops a text, Ctrl-D leaves."),
    ] = False,
    no_prime: Annotated[
        bool, switch("--no-prime", SHOWING, "Leave the prime out of the output.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> None:
    """Write text with a model.

    Example: charrnn sample model.npz --prime "ROMEO:" --temp 0.7 --length 300
    """
    check("--num", num, least=1)
    _check_together(context)
    config = SampleConfig(**options)
    from charrnn.cli.samples import Request, converse, write

    opened = _open(model)
    if config.stop is not None:
        config = replace(config, stop=known(opened, config.stop, unknown, "stop text"))
    request = Request(opened, config, echo=not no_prime, num=num)
    if interactive:
        converse(request, unknown, probs=show_probs)
        return
    prime = config.prime
    if prime_file is not None:
        prime = _read(prime_file, LONGEST_PRIME, encoding)
        prime = prime.removesuffix("\n") if opened.of_lines else prime
    request = request.after(known(opened, prime, unknown, "prime"))
    if novel is not None:
        if not opened.of_lines:
            raise UsageError("--novel is for models of lines, which charrnn train --lines makes")
        lines = _read(novel, LONGEST_SOURCE, encoding).split("\n")
        request = replace(request, novel_to=frozenset(lines))
    if copied is not None:
        request = replace(request, source=_read(copied, LONGEST_SOURCE, encoding))
    if "-" not in (prime_file, novel, copied) and _input_is_waiting():
        say("standard input is not read; to go on from it, add --prime-file -")
    write(request, json=json, probs=show_probs)


def _check_together(context: typer.Context) -> None:
    """Raise UsageError for options that were given and don't go together."""
    for one, other in CLASHES:
        if given(context, one) and given(context, other):
            raise UsageError(f"{flag(one)} and {flag(other)} don't go together; leave out one")
    reading = [name for name in ("prime_file", "novel", "copied") if context.params[name] == "-"]
    if len(reading) > 1:
        names = " - and ".join(map(flag, reading))
        raise UsageError(f"{names} - would both read standard input; give a file for one")


def _open(path: str | None) -> Model:
    from charrnn.checkpoint.model import load

    if path is not None and not (path.endswith(".npz") or Path(path).exists()):
        raise CheckpointError(
            f"{path}: there is no such checkpoint; a text to go on from is given with --prime"
        )
    return load(model_path(path))


def _read(path: str, most: int, encoding: str | None) -> str:
    """Return the text of a file. Raises CorpusError, also if it has more than `most` characters."""
    from charrnn.text.corpus import read_text

    text, notes = read_text(path, encoding=encoding, limit=most + 1)
    if len(text) > most:
        raise CorpusError(f"{path}: has more than {most:,} characters; give a shorter text")
    for note in notes:
        say(note)
    return text


def _input_is_waiting() -> bool:
    """Whether standard input is a pipe that holds something. Never blocks."""
    try:
        if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
            return False  # a file may be the list that a shell's loop reads
        poll = select.poll()
        poll.register(sys.stdin, select.POLLIN)
        return any(event & select.POLLIN for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no standard input, or no poll on this system
        return False
