"""Declaring options, and what several commands have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from charrnn.cli.terminal import counted, say
from charrnn.config import flag
from charrnn.errors import UsageError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model

Command = Callable[..., None]

DEFAULT = Path("model.npz")
DEFAULT_MODEL = f"{DEFAULT} in this folder, else the model that ships with charrnn."
UnknownChoice = Literal["error", "skip"]
OUTPUT = "Output"  # the help's last panel


def option(
    flags: str, panel: str | None, help: str, metavar: str | None = None, **more: Any
) -> Any:
    """Return the declaration of an option, such as "-o --out", in a panel of the help.

    metavar: what the help shows for the value; None: the choices of a Literal. `more` goes to
    typer.Option. `help` is rich markup, so an opening square bracket must be escaped.
    """
    return typer.Option(*flags.split(), help=help, rich_help_panel=panel, metavar=metavar, **more)


def switch(flags: str, panel: str | None, help: str, **more: Any) -> Any:
    """Return the declaration of an option without a value."""
    return option(flags, panel, help, "", **more)


def of_field(
    config: Any,
    panel: str,
    flags: str,
    help: str,
    metavar: str | None = None,
    shown: str = "",
    **more: Any,
) -> inspect.Parameter:
    """Return a command's parameter for a field of `config`, found by its first long flag.

    shown: the default for the help, if the field's own doesn't say it.
    """
    name = flags.split("--")[1].strip().replace("-", "_")
    field = config.__dataclass_fields__[name]
    default = shown or field.metadata.get("default", field.default)
    if str(default) not in ("None", "False", ""):
        help = rf"{help} \[default: {default}]"
    declared = option(flags, panel, help, metavar, show_default=False, **more)
    kind: Any = Any if "parser" in more else get_type_hints(config)[name] | None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=Annotated[kind, declared],
    )


def with_options(*options: inspect.Parameter) -> Callable[[Command], Command]:
    """Return a decorator that puts these options before a command's own keyword arguments.

    The command takes their values as **options.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        *own, _ = signature.parameters.values()  # without **options
        ordered = sorted([*options, *own], key=lambda one: one.kind)
        command.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
        return command

    return decorate


def check_together(context: typer.Context, clashes: Mapping[str, Iterable[str]]) -> None:
    """Raise UsageError if an option was given together with one that it clashes with."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    for one, others in clashes.items():
        for other in others:
            if {one, other} <= given:
                raise UsageError(f"{flag(one)} and {flag(other)} don't go together; leave one out")


def complete_checkpoint(incomplete: str) -> list[str]:
    """Return the checkpoints (*.npz) and folders whose paths begin like this."""
    folder, slash, start = incomplete.rpartition("/")
    return [
        f"{folder}{slash}{path.name}{'/' * path.is_dir()}"
        for path in sorted(Path(folder + slash or ".").glob(f"{start}*"))
        if path.suffix == ".npz" or path.is_dir()
    ]


Json = Annotated[bool, switch("--json", OUTPUT, "Print JSON on stdout, one object per line.")]
Debug = Annotated[bool, switch("--debug", OUTPUT, "Show the traceback of an error.")]
ModelPath = Annotated[
    str, typer.Argument(metavar="MODEL", help="Checkpoint.", autocompletion=complete_checkpoint)
]
MaybeModel = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help=f"Checkpoint. Default: {DEFAULT_MODEL}",
        autocompletion=complete_checkpoint,
        show_default=False,
    ),
]


def unknown_option(panel: str | None) -> Any:
    """Return the declaration of --unknown in a panel of the help."""
    return option("--unknown", panel, "What to do about characters that the model doesn't know.")


def model_path(path: str | None) -> str:
    """Return `path` or, for None, the path of the default model, which is printed on stderr."""
    from charrnn.checkpoint.model import SHIPPED

    if path is not None:
        return path
    if DEFAULT.exists():
        say(f"model: {DEFAULT}")
        return str(DEFAULT)
    say(f"model: {SHIPPED.stem}, which ships with charrnn; there is no {DEFAULT} here")
    return str(SHIPPED)


def read(path: str, encoding: str | None) -> str:
    """Return the text of a file, "-" for standard input; notes on changes to it are printed."""
    from charrnn.text.corpus import read_text

    text, notes = read_text(path, encoding=encoding)
    for note in notes:
        say(note)
    return text


def without_unknown(model: Model, text: str, unknown: UnknownChoice, what: str) -> str:
    """Return `text`; if unknown is "skip", without the characters that the model doesn't know.

    Prints how many were left out; the message calls the text `what`.
    """
    if unknown == "error":  # whoever uses the text raises VocabularyError
        return text
    missing = model.vocabulary.missing(text)
    kept = text.translate(dict.fromkeys(map(ord, missing)))
    if len(kept) < len(text):
        say(f"{what}: {counted(len(text) - len(kept), 'unknown character')} left out")
    return kept
