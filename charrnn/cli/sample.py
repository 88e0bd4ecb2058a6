"""`charrnn sample`: text by a model, written as it is drawn."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from charrnn.cli.options import (
    Debug,
    Json,
    MaybeModel,
    UnknownChoice,
    known,
    open_model,
    option,
    switch,
    unknown_option,
)
from charrnn.cli.terminal import say
from charrnn.config import SampleConfig, check
from charrnn.errors import CheckpointError, CorpusError, UsageError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model

LONGEST_PRIME, LONGEST_NOVEL = 1_000_000, 100_000_000  # characters: a small .gz may hold any number
DRAWING, BEGINNING, SHOWING = "How characters are drawn", "How a text begins", "What is shown"
CLASHES = (
    ("--prime", "--prime-file"),
    ("--novel", "--show-probs"),
    ("--interactive", "--prime"),
    ("--interactive", "--prime-file"),
    ("--interactive", "--novel"),
    ("--interactive", "--json"),
    ("--interactive", "--num"),
)

Temp = Annotated[
    float,
    option(
        "--temp --temperature",
        DRAWING,
        "Logits are divided by it; 0: the most probable character.",
        "X",
    ),
]
Length = Annotated[
    int, option("--length", DRAWING, "Characters to draw; models of lines end by themselves.", "N")
]
TopK = Annotated[int | None, option("--top-k", DRAWING, "Draw among the N most probable.", "N")]
TopP = Annotated[
    float | None,
    option("--top-p", DRAWING, "Draw among the fewest that hold this probability.", "P"),
]
MinP = Annotated[
    float | None,
    option(
        "--min-p", DRAWING, "Draw among those with at least P times the greatest probability.", "P"
    ),
]
Seed = Annotated[
    int | None,
    option(
        "--seed",
        DRAWING,
        "The same one gives the same text.",
        "N",
        show_default="a fresh one, which is said",
    ),
]
Stop = Annotated[str | None, option("--stop", DRAWING, "End after this text.", "TEXT")]
Prime = Annotated[str | None, option("--prime", BEGINNING, "Text to go on from.", "TEXT")]
PrimeFile = Annotated[
    str | None,
    option(
        "--prime-file", BEGINNING, "File with the text to go on from; -: standard input.", "PATH"
    ),
]
Unknown = Annotated[UnknownChoice, unknown_option(BEGINNING)]
Encoding = Annotated[
    str | None,
    option("--encoding", BEGINNING, "Of --prime-file and --novel.", "NAME", show_default="utf-8"),
]
Num = Annotated[int, option("--num", SHOWING, "Independent samples.", "N")]
Novel = Annotated[
    str | None,
    option("--novel", SHOWING, "Models of lines: only items that are not lines of FILE.", "FILE"),
]
ShowProbs = Annotated[
    bool, switch("--show-probs", SHOWING, "Colour each character by its probability.")
]
Interactive = Annotated[
    bool,
    switch("--interactive -i", SHOWING, "Type beginnings; Ctrl-C stops a text, Ctrl-D leaves."),
]
NoPrime = Annotated[bool, switch("--no-prime", SHOWING, "Leave the prime out of the output.")]


def sample(
    model: MaybeModel = None,
    temp: Temp = SampleConfig.temp,
    length: Length = SampleConfig.length,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    seed: Seed = None,
    stop: Stop = None,
    prime: Prime = None,
    prime_file: PrimeFile = None,
    unknown: Unknown = "error",
    encoding: Encoding = None,
    num: Num = 1,
    novel: Novel = None,
    show_probs: ShowProbs = False,
    interactive: Interactive = False,
    no_prime: NoPrime = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write text with a model.

    Example: charrnn sample model.npz --prime "ROMEO:" --temp 0.7 --length 300
    """
    check("--num", num, least=1)
    files = {"--prime-file": prime_file, "--novel": novel}
    flags = {"--show-probs": show_probs, "--interactive": interactive, "--json": json}
    _check_together({"--prime": prime, **files, **flags, "--num": num > 1})
    config = SampleConfig(temp, length, top_k, top_p, min_p, stop, seed=seed)
    from charrnn.cli.samples import Request, converse, write

    opened = _open(model)
    if stop is not None:
        config = replace(config, stop=known(opened, stop, unknown, "stop text"))
    request = Request(opened, config, echo=not no_prime, num=num)
    if interactive:
        converse(request, unknown, probs=show_probs)
        return
    if prime is None:
        prime = _beginning(prime_file, opened.of_lines, encoding)
    request = request.after(known(opened, prime, unknown, "prime"))
    if novel is not None:
        request = replace(request, novel_to=_lines(novel, opened.of_lines, encoding))
    if "-" not in files.values() and _input_is_waiting():
        say("standard input is not read; to go on from it, add --prime-file -")
    write(request, json=json, probs=show_probs)


def _check_together(given: Mapping[str, object]) -> None:
    """Raise UsageError for options that don't go together; None and False are not given."""
    names = {name for name, value in given.items() if value not in (None, False)}
    for pair in CLASHES:
        if names.issuperset(pair):
            raise UsageError(f"{' and '.join(pair)} don't go together; leave out one of them")
    if given["--prime-file"] == given["--novel"] == "-":
        raise UsageError(
            "--prime-file - and --novel - would both read standard input; give a file for one"
        )


def _open(path: str | None) -> Model:
    if path is not None and not (path.endswith(".npz") or Path(path).exists()):
        raise CheckpointError(
            f"{path}: there is no such checkpoint; a text to go on from is given with --prime"
        )
    return open_model(path)


def _beginning(prime_file: str | None, lines: bool, encoding: str | None) -> str:
    """Return the text of --prime-file; for a model of lines without the newline at its end."""
    if prime_file is None:
        return ""
    text = _read(prime_file, LONGEST_PRIME, encoding)
    return text.removesuffix("\n") if lines else text


def _lines(novel: str, lines: bool, encoding: str | None) -> frozenset[str]:
    """Return the lines of the file --novel. Raises UsageError if the model isn't one of lines."""
    if not lines:
        raise UsageError(
            "--novel is for models of lines (charrnn train --lines), "
            "and this one was trained on running text"
        )
    return frozenset(_read(novel, LONGEST_NOVEL, encoding).split("\n"))


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
