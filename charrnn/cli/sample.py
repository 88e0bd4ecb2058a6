"""`charrnn sample`: text by a model, written as it is drawn."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from charrnn.cli.models import UNKNOWN, MaybeModel, known, open_model, unknown_option
from charrnn.cli.options import Debug, Json
from charrnn.cli.terminal import say, visible
from charrnn.config import SampleConfig, check, check_choice
from charrnn.errors import CheckpointError, CorpusError, UsageError

LONGEST_PRIME, LONGEST_NOVEL = (
    1_000_000,
    100_000_000,
)  # characters; a small archive may hold any number of them
DRAWING, BEGINNING, SHOWING = "How characters are drawn", "How a text begins", "What is shown"


def _option(names: str, panel: str, text: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(*names.split(), help=text, rich_help_panel=panel, metavar=metavar, **more)


Temp = Annotated[
    float,
    _option(
        "--temp --temperature",
        DRAWING,
        "Logits are divided by it; 0: the most probable character.",
        "X",
    ),
]
Length = Annotated[
    int, _option("--length", DRAWING, "Characters to draw; models of lines end by themselves.", "N")
]
TopK = Annotated[int | None, _option("--top-k", DRAWING, "Draw among the N most probable.", "N")]
TopP = Annotated[
    float | None,
    _option("--top-p", DRAWING, "Draw among the fewest that hold this probability.", "P"),
]
MinP = Annotated[
    float | None,
    _option(
        "--min-p", DRAWING, "Draw among those with at least P times the greatest probability.", "P"
    ),
]
Seed = Annotated[
    int | None,
    _option(
        "--seed",
        DRAWING,
        "The same one gives the same text.",
        "N",
        show_default="a fresh one, which is said",
    ),
]
Stop = Annotated[str | None, _option("--stop", DRAWING, "End after this text.", "TEXT")]
Prime = Annotated[str | None, _option("--prime", BEGINNING, "Text to go on from.", "TEXT")]
PrimeFile = Annotated[
    str | None,
    _option(
        "--prime-file", BEGINNING, "File with the text to go on from; -: standard input.", "PATH"
    ),
]
Unknown = Annotated[str, unknown_option(BEGINNING)]
Encoding = Annotated[str, _option("--encoding", BEGINNING, "Of --prime-file and --novel.", "NAME")]
Num = Annotated[int, _option("--num", SHOWING, "Independent samples.", "N")]
Novel = Annotated[
    str | None,
    _option("--novel", SHOWING, "Models of lines: only items that are not lines of FILE.", "FILE"),
]
ShowProbs = Annotated[
    bool, _option("--show-probs", SHOWING, "Colour each character by its probability.")
]
Interactive = Annotated[
    bool,
    _option("--interactive -i", SHOWING, "Type beginnings; Ctrl-C stops a text, Ctrl-D leaves."),
]
NoPrime = Annotated[bool, _option("--no-prime", SHOWING, "Leave the prime out of the output.")]


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
    encoding: Encoding = "utf-8",
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
    config = SampleConfig(temp, length, top_k, top_p, min_p, stop)
    _check(num, unknown, prime, prime_file, novel, interactive, show_probs, json)
    from charrnn.cli.drawn import Request, write

    if model is not None and not (model.endswith(".npz") or os.path.exists(model)):
        raise CheckpointError(
            f"{visible(model)}: there is no such checkpoint; a text to go on from is given with --prime"
        )
    opened = open_model(model)
    lines = opened.of_lines
    if novel is not None and not lines:
        raise UsageError(
            "--novel is for models of lines (charrnn train --lines), and this one was trained on running text"
        )
    if interactive:
        from charrnn.cli.interactive import converse

        converse(opened, config, seed=seed, echo=not no_prime, unknown=unknown, probs=show_probs)
        return
    start = known(opened, _beginning(prime, prime_file, lines, encoding), unknown, "prime")
    items = None if novel is None else _lines_of(novel, encoding)
    write(
        Request(opened, config, start, _seed(seed), not no_prime, num),
        json=json,
        probs=show_probs,
        but=items,
    )


def _check(
    num: int,
    unknown: str,
    prime: str | None,
    prime_file: str | None,
    novel: str | None,
    interactive: bool,
    show_probs: bool,
    json: bool,
) -> None:
    """Raise UsageError for options that don't go together."""
    check("--num", num, least=1)
    check_choice("--unknown", unknown, UNKNOWN)
    if prime is not None and prime_file is not None:
        raise UsageError("--prime and --prime-file both say how the text begins; give one of them")
    if prime_file == novel == "-":
        raise UsageError(
            "--prime-file - and --novel - would both read standard input; give a file for one of them"
        )
    if novel is not None and show_probs:
        raise UsageError("--novel and --show-probs don't go together; give one of them")
    refused = {
        "--prime": prime,
        "--prime-file": prime_file,
        "--novel": novel,
        "--json": json,
        "--num": num > 1,
    }
    clash = next((name for name, value in refused.items() if value), None)
    if interactive and clash:
        raise UsageError(
            f"--interactive asks for beginnings and answers one at a time; leave out {clash}"
        )


def _beginning(prime: str | None, prime_file: str | None, lines: bool, encoding: str) -> str:
    """Return the prime; of one from a file, for a model of lines, without the newline at its end."""
    if prime_file is None:
        return prime or ""
    text = _read(prime_file, LONGEST_PRIME, encoding)
    return text.removesuffix("\n") if lines else text


def _read(path: str, most: int, encoding: str) -> str:
    """Return the text of a file. Raises CorpusError, also if it has more than `most` characters."""
    from charrnn.text.corpus import read_text

    text, notes = read_text(path, encoding=encoding, limit=most + 1)
    if len(text) > most:
        raise CorpusError(
            f"{path}: has more than {most:,} characters, which is more than is read here; give a shorter text"
        )
    for note in notes:
        say(note)
    return text


def _lines_of(path: str, encoding: str) -> frozenset[str]:
    return frozenset(_read(path, LONGEST_NOVEL, encoding).split("\n"))


def _seed(given: int | None) -> int:
    """Return the seed; one that nobody chose is said, so that the text can be had again."""
    from charrnn.sampling.sampling import fresh_seed

    if given is not None:
        return given
    seed = fresh_seed()
    say(f"seed: {seed}")
    return seed
