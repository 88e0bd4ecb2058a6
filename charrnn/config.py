"""What can be chosen, one line a field: default, limits, unit, reason.

No NumPy here, so that `--help` starts at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from charrnn.errors import UsageError

CellName = Literal["rnn", "gru", "lstm"]
OptimizerName = Literal["adam", "rmsprop", "adagrad", "sgd"]
Dtype = Literal["float32", "float64"]
HUGE = 1e300  # a larger integer may have no float
LIMITS = ("choices", "least", "most", "above")  # what `check` takes
MOST_HIDDEN, MOST_LAYERS = 1_000_000, 300  # three arrays a layer, in an archive of at most 1,000
CELLS: tuple[str, ...] = get_args(CellName)
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)


class Stream(IntEnum):
    """The streams of random numbers under a run's seed, so that one never disturbs another."""

    WEIGHTS = 0
    DROPOUT = 1
    ORDER = 2  # of the items in an epoch


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
        shown = "beyond all limits" if abs(value) > HUGE else f"{value:.10g}"
    limits = {"more than": above, "at least": least, "at most": most}
    bounds = [f"{words} {limit:.10g}" for words, limit in limits.items() if abs(limit) < HUGE]
    allowed = " or ".join(filter(None, (*choices, " and ".join(bounds))))
    raise UsageError(f"{name} is {shown}; it must be {allowed}")


def _check_fields(config: TrainConfig | SampleConfig) -> None:
    """Raise UsageError unless all fields are within the limits that they were declared with."""
    for f in fields(config):
        limits = {key: f.metadata[key] for key in LIMITS if key in f.metadata}
        if limits:
            check(flag(f.name), getattr(config, f.name), **limits)


def _limited(initial: Any, **about: Any) -> Any:
    """Return a field that is `initial` if not given, with limits as `check` takes them."""
    return field(default=initial, metadata=about)


def _option(default: Any = None, **about: Any) -> Any:
    """Return a field that is None until it is given; `default` fills it if nothing else does.

    `about` has its limits, as `check` takes them, and:
    changes=True: a resumed run may change it.
    repeat=False: it is left out of the command that repeats a run.
    before: its value in runs from before the field existed.
    """
    return _limited(None, default=default, **about)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a network; with the size N of the vocabulary it fixes the shape of every
    array.
    """

    cell: CellName = "lstm"
    hidden: int = 256  # H, units in each layer
    layers: int = 1  # L

    def __post_init__(self) -> None:
        TrainConfig(cell=self.cell, hidden=self.hidden, layers=self.layers)


@dataclass(frozen=True)
class TrainConfig:
    """A training run, as `charrnn train` takes it.

    A field that was not given is None; `training.defaults.resolve` fills it. The resolved
    configuration is what a checkpoint keeps, what every replica gets and what the command that
    repeats a run is made of. The types are those of a resolved configuration.
    """

    # of one call: where it writes; not kept
    out: str | Path | None = "model.npz"  # None: the model stays in memory (Done.model)
    resume: bool = False  # go on with the run in `out`
    overwrite: bool = False  # start afresh over `out`
    # of the run
    init_from: str | Path | None = _option()  # start from the weights of another checkpoint
    cell: CellName = _option("lstm", choices=CELLS)  # rnn is the lecture's; lstm learns best
    hidden: int = _option(least=1, most=MOST_HIDDEN)  # H, units in each layer
    layers: int = _option(1, least=1, most=MOST_LAYERS)  # L
    dropout: float = _option(least=0, most=0.95)  # probability of dropping; 0: off
    budget: float | None = _option(above=0, changes=True)  # seconds, of the whole command
    epochs: float | None = _option(above=0, most=1e9, changes=True)  # passes over the training part
    steps: int | None = _option(least=1, changes=True)  # optimizer steps
    batch_size: int = _option(least=1)  # B, parallel streams; with lines: items
    seq_len: int = _option(least=1)  # T, characters of truncated BPTT
    lr: float = _option(above=0)  # peak learning rate
    optimizer: OptimizerName = _option("adam", choices=OPTIMIZERS)
    weight_decay: float = _option(least=0, most=1, before=0.0)  # decoupled; 0: off
    clip: float = _option(1.0, least=0)  # largest global gradient norm; 0: off
    val_fraction: float = _option(0.1, least=0, most=0.9)  # the last part of each text validates
    seed: int = _option(0, least=0)  # everything random comes from it
    workers: int | Literal["auto"] = _option(
        1, choices=("auto",), least=1, most=1024, changes=True
    )  # processes that share each batch
    ranks: int = _option(1, changes=True, repeat=False, before=1)  # of MPI; train sets it
    encoding: str | None = _option()  # None: utf-8, and what seems to be no text is refused
    lines: bool = _option(False)  # every line is an item of its own
    sample_every: int = _option(least=0, changes=True)  # steps between samples; 0: none
    val_every: int = _option(least=1, changes=True)  # steps between validations
    val_characters: int | None = _option(least=2, before=None)  # read to validate; None: all
    save_every: float = _option(60.0, above=0, changes=True, repeat=False)  # seconds
    dtype: Dtype = _option("float32", choices=get_args(Dtype), repeat=False)

    def __post_init__(self) -> None:
        _check_fields(self)
        lengths = [flag(name) for name in LENGTHS if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise UsageError(f"{' and '.join(lengths)} say how long to train; give one of them")
        if self.resume and (self.overwrite or self.init_from is not None or self.out is None):
            raise UsageError(
                "--resume continues the run in --out; --overwrite and --init-from are for a new run"
            )

    @property
    def model(self) -> ModelConfig:
        """The shape of the network."""
        return ModelConfig(self.cell, self.hidden, self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Return the options of the run as a checkpoint keeps them, without those of the call."""
        kept = {f.name: getattr(self, f.name) for f in OPTIONS}
        return kept | {"init_from": self.init_from and str(Path(self.init_from).absolute())}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration that `as_dict` gave, perhaps to an older charrnn.

        Raises KeyError, TypeError or UsageError for what no run can have.
        """
        before = {f.name: f.metadata["before"] for f in OPTIONS if f.name not in kept}
        return cls(**kept, **before)


LENGTHS = ("budget", "epochs", "steps")  # how long a run is: one of them
OPTIONS = tuple(f for f in fields(TrainConfig) if f.metadata)  # of the run, not of one call


@dataclass(frozen=True)
class SampleConfig:
    """How a text begins and how its characters are drawn from ŷ_t."""

    temp: float = _limited(1.0, least=0)  # logits are divided by it; 0: the likeliest character
    length: int = _limited(500, least=1)  # drawn characters; for models of lines only a cap
    top_k: int | None = _limited(None, least=1)  # draw among the k most probable
    top_p: float | None = _limited(None, above=0, most=1)  # among the fewest with this probability
    min_p: float | None = _limited(None, least=0, most=1)  # share of the greatest probability
    stop: str | None = None  # end after this text has been drawn
    match: str | None = None  # a pattern that what is drawn, with the prime of a line, has to match
    prime: str = ""  # the text to go on from
    seed: int | None = _limited(None, least=0)  # None: a fresh one

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
