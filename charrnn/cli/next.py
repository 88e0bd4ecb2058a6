"""`charrnn next`: what the model thinks comes next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from charrnn.cli.models import known, open_model, unknown_option
from charrnn.cli.options import Debug, Json, complete_checkpoint
from charrnn.cli.terminal import console, is_ascii, print_json
from charrnn.config import SampleConfig, check
from charrnn.errors import UsageError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model


Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[MODEL] TEXT",
        help="What has been read, behind a checkpoint; default: model.npz here, else the one that ships.",
        autocompletion=complete_checkpoint,
        show_default=False,
    ),
]
Count = Annotated[int, typer.Option("-k", help="Characters to show.", metavar="N")]
Unknown = Annotated[str, unknown_option(None)]


def next_characters(
    words: Words,
    k: Count = 10,
    unknown: Unknown = "error",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the likeliest next characters after TEXT, with their probabilities as bars.

    Example: charrnn next model.npz "ROM"
    """
    check("-k", k, least=1)
    if len(words) > 2:
        raise UsageError(
            f"{len(words)} arguments were given; give a model and a text in quotation marks, or a text alone"
        )
    path, text = (words[0], words[1]) if len(words) == 2 else (None, words[0])
    model = open_model(path)
    text = known(model, text, unknown, "text")
    likely = likeliest(model, text, k)
    if json:
        print_json(
            {"text": text, "next": [{"character": char, "probability": p} for char, p in likely]}
        )
    else:
        print_bars(likely)


def likeliest(model: Model, text: str, k: int) -> list[tuple[str, float]]:
    """Return the k likeliest characters after `text` with their probabilities, the likeliest first."""
    from charrnn.sampling.sampling import distribution, sample_many

    y_hat = distribution(sample_many(model, 1, prime=text, length=1).logits, SampleConfig())
    best = (-y_hat).argsort(kind="stable")[:k].tolist()
    return [(model.vocabulary.characters[i], float(y_hat[i])) for i in best]


def print_bars(likely: list[tuple[str, float]]) -> None:
    """Print each character with its probability and a bar: a full one is certain."""
    from rich.text import Text

    from charrnn.cli.pictures import symbol, width_of
    from charrnn.cli.terminal import bar

    screen = console()
    names = ["space" if char == " " else symbol(char, screen.encoding) for char, _ in likely]
    widths = [sum(map(width_of, name)) for name in names]
    room = max(10, min(60, screen.width - max(widths) - 12))
    for name, width, (_, p) in zip(names, widths, likely, strict=True):
        line = Text(
            f"{' ' * (max(widths) - width)}{name}  {p:8.4%}  "
            if p >= 1e-4
            else f"{' ' * (max(widths) - width)}{name}  {p:8.1e}  "
        )
        line.append(bar(p, room, ascii=is_ascii(sys.stdout)), style="cyan")
        screen.print(line, soft_wrap=True)
