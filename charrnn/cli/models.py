"""Which model a command uses, and how that model was trained to read a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli.options import complete_checkpoint
from charrnn.cli.terminal import counted, say
from charrnn.config import check_choice
from charrnn.errors import CheckpointError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model

DEFAULT = Path("model.npz")
UNKNOWN = ("error", "skip")

ModelPath = Annotated[
    str, typer.Argument(metavar="MODEL", help="Checkpoint.", autocompletion=complete_checkpoint)
]
MaybeModel = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Checkpoint; default: model.npz here, else the one that ships.",
        autocompletion=complete_checkpoint,
        show_default=False,
    ),
]


def _complete_unknown(incomplete: str) -> list[str]:
    return [word for word in UNKNOWN if word.startswith(incomplete)]


def unknown_option(panel: str | None) -> Any:
    """Return the declaration of --unknown for a panel of the help."""
    return typer.Option(
        "--unknown",
        metavar="error|skip",
        help="What to do about characters that the model doesn't know.",
        autocompletion=_complete_unknown,
        rich_help_panel=panel,
    )


def open_model(path: str | None) -> Model:
    """Return the model at `path`, or the default one. Raises CheckpointError."""
    from charrnn.checkpoint.model import load

    return open_default()[1] if path is None else load(path)


def open_default() -> tuple[str, Model]:
    """Return the model that is used where none is given, and its path, which is said on stderr. Raises CheckpointError."""
    from charrnn.checkpoint.model import load, shipped_model

    if DEFAULT.exists():
        say(f"model: {DEFAULT}")
        return str(DEFAULT), load(DEFAULT)
    shipped = shipped_model()
    if shipped is None:
        raise CheckpointError(
            "no model was given and there is no model.npz here; name one, or make one with charrnn train"
        )
    say(f"model: there is no {DEFAULT} here, so the one that ships with charrnn: {shipped}")
    return str(shipped), load(shipped)


def known(model: Model, text: str, unknown: str, what: str) -> str:
    """Return `text`, with unknown="skip" without the characters that the model doesn't know, whose number is said.

    Raises VocabularyError if there are such characters and they are not to be skipped.
    """
    from charrnn.sampling.sampling import check_prime

    check_choice("--unknown", unknown, UNKNOWN)
    if unknown == "error":
        check_prime(model, text)
        return text
    strange = model.vocabulary.find_unknown(text)
    if not strange:
        return text
    say(f"{what}: {counted(len(strange), 'unknown character')} left out")
    places = {at for at, _ in strange}
    return "".join(char for at, char in enumerate(text) if at not in places)
