"""`charrnn sample`: text from a model, written as it is drawn."""

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
    check_together,
    model_path,
    of_field,
    option,
    read,
    switch,
    unknown_option,
    with_options,
    without_unknown,
)
from charrnn.cli.terminal import say
from charrnn.config import SampleConfig, check, check_stdin_once
from charrnn.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model

ANY = 1 << 30  # a length within which any pattern fits
BEGINNING, SHOWING = "How a text begins", "What is shown"
CLASHES = {
    "prime": ("prime_file",),
    "show_probs": ("novel", "copied"),
    "interactive": ("prime", "prime_file", "novel", "copied", "json", "num"),
}
DRAWN = partial(of_field, SampleConfig, "How characters are drawn")


@with_options(
    DRAWN(
        "--temp --temperature",
        "Divides the logits; 0: always the most probable character.",
        "X",
    ),
    DRAWN("--length", "Characters to draw; for a model of lines, at most this many per item.", "N"),
    DRAWN("--top-k", "Draw only from the N most probable characters.", "N"),
    DRAWN("--top-p", "Draw only from the fewest characters that together have probability P.", "P"),
    DRAWN(
        "--min-p",
        "Draw only characters at least P times as probable as the most probable one.",
        "P",
    ),
    DRAWN("--seed", "The same seed gives the same text.", "N", "random, and printed"),
    DRAWN("--stop", "Stop once this text has been drawn.", "TEXT"),
    DRAWN(
        "--match",
        "Draw only characters that can still lead to a match of the whole text; "
        "this differs from drawing texts until one matches.",
        "REGEX",
    ),
    of_field(SampleConfig, BEGINNING, "--prime", "Text to continue.", "TEXT"),
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
            "File with the text to continue; - for standard input.",
            "PATH",
        ),
    ] = None,
    unknown: Annotated[UnknownChoice, unknown_option(BEGINNING)] = "error",
    encoding: Annotated[
        str | None,
        option(
            "--encoding",
            BEGINNING,
            r"Encoding of --prime-file, --novel and --copied. \[default: utf-8]",
            "NAME",
            show_default=False,
        ),
    ] = None,
    num: Annotated[int, option("--num", SHOWING, "Number of independent samples.", "N")] = 1,
    novel: Annotated[
        str | None,
        option(
            "--novel", SHOWING, "For models of lines: only items that aren't lines of FILE.", "FILE"
        ),
    ] = None,
    copied: Annotated[
        str | None,
        option(
            "--copied",
            SHOWING,
            "Report afterwards how much of the text is copied verbatim from FILE.",
            "FILE",
        ),
    ] = None,
    show_probs: Annotated[
        bool, switch("--show-probs", SHOWING, "Colour each character by its probability.")
    ] = False,
    interactive: Annotated[
        bool,
        switch(
            "--interactive -i",
            SHOWING,
            "Type beginnings to continue; Ctrl-C stops a text, Ctrl-D quits.",
        ),
    ] = False,
    no_prime: Annotated[
        bool, switch("--no-prime", SHOWING, "Leave the prime out of the output.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> None:
    """Generate text with a model.

    Example: charrnn sample model.npz --prime "ROMEO:" --temp 0.7 --length 300
    """
    check("--num", num, least=1)
    check_together(context, CLASHES)
    check_stdin_once([prime_file, novel, copied])
    config = SampleConfig(**options)
    from charrnn.cli.samples import Request, converse, write
    from charrnn.sampling.sampling import Drawing

    opened = _open(model)
    if novel is not None and not opened.of_lines:
        raise UsageError("--novel is for models of lines, which charrnn train --lines makes")
    prime = config.prime
    if prime_file is not None:
        prime = read(prime_file, encoding)
        prime = prime.removesuffix("\n") if opened.of_lines else prime
    prime = without_unknown(opened, prime, unknown, "prime")
    stop = config.stop and without_unknown(opened, config.stop, unknown, "stop text")
    config = replace(config, prime=prime, stop=stop)
    # for an item, --length limits what is drawn after the typed beginning, which is unknown here
    length = ANY if interactive and opened.of_lines else config.length
    drawing = Drawing(opened, replace(config, length=length))
    request = Request(
        drawing,
        echo=not no_prime,
        num=num,
        novel_to=None if novel is None else frozenset(read(novel, encoding).split("\n")),
        source=None if copied is None else read(copied, encoding),
    )
    if config.seed is None:
        say(f"seed: {drawing.seed}{' for the first text, then 1 higher each time' * interactive}")
    if interactive:
        converse(request, config, unknown, probs=show_probs)
        return
    if "-" not in (prime_file, novel, copied) and _input_is_waiting():
        say("standard input is not read; add --prime-file - to continue from it")
    write(request, json=json, probs=show_probs)


def _open(path: str | None) -> Model:
    from charrnn.checkpoint.model import load

    if path is not None and not (path.endswith(".npz") or Path(path).exists()):
        raise CheckpointError(
            f"{path}: there is no such checkpoint; use --prime to give a text to continue"
        )
    return load(model_path(path))


def _input_is_waiting() -> bool:
    """Whether standard input is a pipe that holds something. Never blocks."""
    try:
        if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
            return False  # a file may be a list that a shell loop is reading
        poll = select.poll()
        poll.register(sys.stdin, select.POLLIN)
        return any(event & select.POLLIN for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no standard input, or no poll on this system
        return False
