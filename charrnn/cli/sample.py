"""`charrnn sample`: text by a model, written as it is drawn."""

from __future__ import annotations

from typing import Annotated

import typer

from charrnn.cli.models import MaybeModel, is_of_lines, known, open_model, unknown_option
from charrnn.cli.options import Debug, Json
from charrnn.cli.terminal import say
from charrnn.config import SampleConfig
from charrnn.errors import UsageError

_DEFAULT = SampleConfig()
DRAWING, BEGINNING, SHOWING = "How characters are drawn", "How a text begins", "What is shown"


def sample(
    model: MaybeModel = None,
    temp: Annotated[
        float,
        typer.Option("--temp", "--temperature", help="Logits are divided by it; 0: the most probable character.", rich_help_panel=DRAWING),
    ] = _DEFAULT.temp,
    length: Annotated[
        int, typer.Option(help="Characters to draw; models of lines end by themselves.", rich_help_panel=DRAWING)
    ] = _DEFAULT.length,
    top_k: Annotated[int | None, typer.Option(help="Draw among the N most probable.", metavar="N", rich_help_panel=DRAWING)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the fewest that hold this probability.", metavar="P", rich_help_panel=DRAWING)
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="Draw among those with at least P times the greatest probability.", metavar="P", rich_help_panel=DRAWING),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="The same seed gives the same text; default: a fresh one, which is said.", show_default=False, rich_help_panel=DRAWING
        ),
    ] = None,
    stop: Annotated[str | None, typer.Option(help="End after this text.", metavar="TEXT", rich_help_panel=DRAWING)] = None,
    prime: Annotated[str | None, typer.Option(help="Text to go on from.", metavar="TEXT", rich_help_panel=BEGINNING)] = None,
    prime_file: Annotated[
        str | None, typer.Option(help="File with the text to go on from; -: standard input.", metavar="PATH", rich_help_panel=BEGINNING)
    ] = None,
    unknown: Annotated[str, unknown_option(BEGINNING)] = "error",
    num: Annotated[int, typer.Option(help="Independent samples.", rich_help_panel=SHOWING)] = 1,
    novel: Annotated[
        str | None, typer.Option(help="Models of lines: only items that are not lines of FILE.", metavar="FILE", rich_help_panel=SHOWING)
    ] = None,
    show_probs: Annotated[
        bool, typer.Option("--show-probs", help="Colour each character by its probability.", rich_help_panel=SHOWING)
    ] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Type beginnings; Ctrl-C stops a text, Ctrl-D leaves.", rich_help_panel=SHOWING)
    ] = False,
    no_prime: Annotated[bool, typer.Option("--no-prime", help="Leave the prime out of the output.", rich_help_panel=SHOWING)] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write text with a model.

    Example: charrnn sample model.npz --prime "ROMEO:" --temp 0.7 --length 300
    """  # fmt: skip
    config = SampleConfig(temp, length, top_k, top_p, min_p, stop)
    _check(num, prime, prime_file, novel, interactive, show_probs, json)
    from charrnn.cli.drawn import Request, write_items, write_json, write_novel_json, write_probs, write_texts

    opened = open_model(model)
    lines = is_of_lines(opened)
    if novel is not None and not lines:
        raise UsageError("--novel is for models of lines (charrnn train --lines), and this one was trained on running text")
    if interactive:
        from charrnn.cli.interactive import converse

        converse(opened, config, seed=seed, echo=not no_prime, unknown=unknown, probs=show_probs)
        return
    start = known(opened, _beginning(prime, prime_file, lines), unknown, "prime")
    request = Request(opened, config, start, _seed(seed), not no_prime, num)
    items = None if novel is None else _lines_of(novel)
    if json:
        write_json(request, show_probs) if items is None else write_novel_json(request, items)
    elif show_probs:
        write_probs(request)
    elif items is not None:
        write_items(request, items)
    else:
        write_texts(request)


def _check(num: int, prime: str | None, prime_file: str | None, novel: str | None, interactive: bool, show_probs: bool, json: bool) -> None:
    """Raise UsageError for options that don't go together."""
    from charrnn.config import check

    check("--num", num, least=1)
    if prime is not None and prime_file is not None:
        raise UsageError("--prime and --prime-file both say how the text begins; give one of them")
    if prime_file == novel == "-":
        raise UsageError("--prime-file - and --novel - would both read standard input; give a file for one of them")
    if novel is not None and show_probs:
        raise UsageError("--novel and --show-probs don't go together; give one of them")
    refused = {"--prime": prime, "--prime-file": prime_file, "--novel": novel, "--json": json, "--num": num > 1}
    clash = next((name for name, value in refused.items() if value), None)
    if interactive and clash:
        raise UsageError(f"--interactive asks for beginnings and answers one at a time; leave out {clash}")


def _beginning(prime: str | None, prime_file: str | None, lines: bool) -> str:
    """Return the prime; of one from a file, for a model of lines, without the newline at its end."""
    if prime_file is None:
        return prime or ""
    text = _read(prime_file)
    return text.removesuffix("\n") if lines else text


def _read(path: str) -> str:
    from charrnn.text.corpus import read_text

    text, notes = read_text(path)
    for note in notes:
        say(note)
    return text


def _lines_of(path: str) -> frozenset[str]:
    return frozenset(_read(path).split("\n"))


def _seed(given: int | None) -> int:
    """Return the seed; one that nobody chose is said, so that the text can be had again."""
    from charrnn.sampling import fresh_seed

    if given is not None:
        return given
    seed = fresh_seed()
    say(f"seed: {seed}")
    return seed
