"""All options, one field per line: default, limits, unit, reason.

This module doesn't import NumPy, so that `--help` starts at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from charrnn.errors import UsageError

CellName = Literal["rnn", "gru", "lstm"]
OptimizerName = Literal["adam", "rmsprop", "adagrad", "sgd"]
Dtype = Literal["float32", "float64"]
Unknown = Literal["error", "skip", "score"]  # what is done about unknown characters
HUGE = 1e300  # a larger integer may not fit in a float
LIMITS = ("choices", "least", "most", "above")  # the limits that `check` takes
MOST_HIDDEN, MOST_LAYERS = 1_000_000, 300  # far beyond what trains well
CELLS: tuple[CellName, ...] = get_args(CellName)
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)


class Stream(IntEnum):
    """Separate streams of random numbers, all derived from a run's seed."""

    WEIGHTS = 0
    DROPOUT = 1
    ORDER = 2  # the order of the items in an epoch


def flag(name: str) -> str:
    """Return a field's name as an option: batch_size → --batch-size."""
    return f"--{name.replace('_', '-')}"


def check(
    name: str,
    value: float | str | None,
    *,
    choices: tuple[str, ...] = (),
    least: float = -math.inf,
    most: float = HUGE,
    above: float = -math.inf,
) -> None:
    """Raise UsageError unless `value` is None, one of `choices` or a number within the limits."""
    if value is None or value in choices:
        return
    if isinstance(value, str):
        shown = repr(value)
    elif above < value and least <= value <= most:
        return
    else:
        shown = "out of range" if abs(value) > HUGE else f"{value:.10g}"
    limits = {"more than": above, "at least": least, "at most": most}
    bounds = [f"{words} {limit:.10g}" for words, limit in limits.items() if abs(limit) < HUGE]
    allowed = " or ".join(filter(None, (*choices, " and ".join(bounds))))
    raise UsageError(f"{name} is {shown}; it must be {allowed}")


def check_stdin_once(sources: Iterable[object]) -> None:
    """Raise UsageError if "-" is among the sources more than once."""
    if [*map(str, sources)].count("-") > 1:
        raise UsageError("- is given more than once, but standard input can be read only once")


def _check_fields(config: TrainConfig | SampleConfig) -> None:
    """Raise UsageError unless all fields are within their declared limits."""
    for f in fields(config):
        limits = {key: f.metadata[key] for key in LIMITS if key in f.metadata}
        if limits:
            check(flag(f.name), getattr(config, f.name), **limits)


def _limited(initial: Any, **about: Any) -> Any:
    """Return a field with the default `initial` and limits for `check`."""
    return field(default=initial, metadata=about)


def _option(default: Any = None, **about: Any) -> Any:
    """Return a field that is None unless given; `default` fills it in if nothing else does.

    `about` holds the limits for `check`, and:
    changes=True: a resumed run may change it.
    repeat=False: it is left out of the command that repeats a run.
    before: its value for runs that were saved before the field existed.
    """
    return _limited(None, default=default, **about)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a network; with the vocabulary size N, it determines every array's shape."""

    cell: CellName = "lstm"
    hidden: int = 256  # H, units in each layer
    layers: int = 1  # L

    def __post_init__(self) -> None:
        TrainConfig(cell=self.cell, hidden=self.hidden, layers=self.layers)


@dataclass(frozen=True)
class TrainConfig:
    """The options of a training run, as `charrnn train` takes them.

    A field that was not given is None until `training.defaults.resolve` fills it in. The resolved
    configuration is stored in the checkpoint, sent to every replica, and written out as the command
    that repeats the run. The field types are those of a resolved configuration.
    """

    # Options of this call alone: what it writes. They are not stored.
    out: str | Path | None = "model.npz"  # None: the model stays in memory (Done.model)
    resume: bool = False  # continue the run in `out`
    overwrite: bool = False  # start a new run that replaces `out`
    # Options of the run.
    init_from: str | Path | None = _option()  # start from the weights of another checkpoint
    cell: CellName = _option("lstm", choices=CELLS)  # rnn is the lecture's; lstm learns best
    hidden: int = _option(least=1, most=MOST_HIDDEN)  # H, units in each layer
    layers: int = _option(1, least=1, most=MOST_LAYERS)  # L
    dropout: float = _option(least=0, most=0.95)  # probability of dropping; 0: off
    budget: float | None = _option(above=0, changes=True)  # seconds for the whole command
    epochs: float | None = _option(above=0, most=1e9, changes=True)  # passes over the training part
    steps: int | None = _option(least=1, changes=True)  # optimizer steps
    batch_size: int = _option(least=1)  # B, parallel streams, or items with `lines`
    seq_len: int = _option(least=1)  # T, characters of truncated BPTT
    lr: float = _option(above=0)  # peak learning rate
    optimizer: OptimizerName = _option("adam", choices=OPTIMIZERS)
    weight_decay: float = _option(least=0, most=1, before=0.0)  # decoupled; 0: off
    clip: float = _option(1.0, least=0)  # largest global gradient norm; 0: off
    val_fraction: float = _option(0.1, least=0, most=0.9)  # of each text, at its end
    seed: int = _option(0, least=0)  # all random numbers derive from it
    # processes that share each batch
    workers: int | Literal["auto"] = _option(1, choices=("auto",), least=1, most=1024, changes=True)
    ranks: int = _option(1, changes=True, repeat=False, before=1)  # MPI ranks; set by train
    encoding: str | None = _option()  # None: UTF-8, and binary files are refused
    lines: bool = _option(False)  # every line is a separate item
    sample_every: int = _option(least=0, changes=True)  # steps between samples; 0: none
    val_every: int = _option(least=1, changes=True)  # steps between validations
    val_characters: int | None = _option(least=2, before=None)  # per validation; None: all
    save_every: float = _option(60.0, above=0, changes=True, repeat=False)  # seconds
    dtype: Dtype = _option("float32", choices=get_args(Dtype), repeat=False)

    def __post_init__(self) -> None:
        _check_fields(self)
        lengths = [flag(name) for name in LENGTHS if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise UsageError(f"{' and '.join(lengths)} set how long to train; give only one")
        if self.resume and (self.overwrite or self.init_from is not None or self.out is None):
            raise UsageError(
                "--resume continues the run in --out; --overwrite and --init-from are for a new run"
            )

    @property
    def model(self) -> ModelConfig:
        """The shape of the network."""
        return ModelConfig(self.cell, self.hidden, self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Return the run's options as a checkpoint stores them, without those of a single call."""
        kept = {f.name: getattr(self, f.name) for f in OPTIONS}
        return kept | {"init_from": self.init_from and str(Path(self.init_from).absolute())}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration from what `as_dict` returned, perhaps in an older charrnn.

        Raises KeyError, TypeError or UsageError if these aren't the values of a valid run.
        """
        before = {f.name: f.metadata["before"] for f in OPTIONS if f.name not in kept}
        return cls(**kept, **before)


LENGTHS = ("budget", "epochs", "steps")  # how long a run lasts; at most one is set
OPTIONS = tuple(f for f in fields(TrainConfig) if f.metadata)  # of the run, not of a single call


@dataclass(frozen=True)
class SampleConfig:
    """How a text begins and how its characters are drawn from ŷ_t."""

    temp: float = _limited(1.0, least=0)  # logits are divided by it; 0: the likeliest character
    length: int = _limited(500, least=1)  # characters to draw; for models of lines, only a cap
    top_k: int | None = _limited(None, least=1)  # draw only from the k most probable
    top_p: float | None = _limited(None, above=0, most=1)  # from the fewest with this total
    min_p: float | None = _limited(None, least=0, most=1)  # least share of the highest probability
    stop: str | None = None  # end after this text has been drawn
    match: str | None = None  # a pattern that the drawn text must match; for lines, prime included
    prime: str = ""  # the text to continue
    seed: int | None = _limited(None, least=0)  # None: a new one each time

    def __post_init__(self) -> None:
        _check_fields(self)
        if self.stop == "":
            raise UsageError("--stop is empty; give the text to stop after")


class SampleOptions(TypedDict, total=False):
    """The fields of SampleConfig as keyword arguments."""

    temp: float
    length: int
    top_k: int | None
    top_p: float | None
    min_p: float | None
    stop: str | None
    match: str | None
    prime: str
    seed: int | None
