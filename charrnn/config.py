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
HUGE = 1e300  # integers beyond it have no float
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
    value: float | None,
    *,
    least: float = -math.inf,
    most: float = HUGE,
    above: float = -math.inf,
) -> None:
    """Raise UsageError unless `value` is None or a number within the limits."""
    if value is None or (above < value and least <= value <= most):
        return
    limits = {"more than": above, "at least": least, "at most": most}
    bounds = [f"{words} {limit:.10g}" for words, limit in limits.items() if abs(limit) < HUGE]
    shown = "beyond all limits" if abs(value) > HUGE else f"{value:.10g}"
    raise UsageError(f"{name} is {shown}; it must be {' and '.join(bounds)}")


def check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is None or one of `choices`."""
    if value is not None and value not in choices:
        raise UsageError(f"{name} is {value!r}; choose one of {', '.join(choices)}")


def _option(default: Any = None, **about: Any) -> Any:
    """Return a field that is None until it is given; `default` fills it if nothing else does.

    What else must be known of it: its `choices`, or its limits as `check` takes them; `changes`: it
    may differ from one part of a run to the next; `repeat=False`: it is left out of the command
    that repeats a run; `before`: its value in runs from before the field existed.
    """
    return field(default=None, metadata={"default": default, **about})


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
    workers: int | Literal["auto"] = _option(least=1, most=1024, changes=True)  # processes
    encoding: str | None = _option()  # None: utf-8, and what seems to be no text is refused
    lines: bool = _option(False)  # every line is an item of its own
    sample_every: int = _option(least=0, changes=True)  # steps between samples; 0: none
    val_every: int = _option(least=1, changes=True)  # steps between validations
    val_characters: int | None = _option(least=2, before=None)  # read to validate; None: all
    save_every: float = _option(60.0, above=0, changes=True, repeat=False)  # seconds
    dtype: Dtype = _option("float32", choices=get_args(Dtype), repeat=False)

    def __post_init__(self) -> None:
        if isinstance(self.workers, str) and self.workers != "auto":
            raise UsageError(f"--workers is {self.workers!r}; give a number, or auto")
        for option in OPTIONS:
            name, value, about = flag(option.name), getattr(self, option.name), option.metadata
            limits = {key: about[key] for key in ("above", "least", "most") if key in about}
            if "choices" in about:
                check_choice(name, value, about["choices"])
            elif limits and value != "auto":
                check(name, value, **limits)
        lengths = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(lengths) > 1:
            first, second = map(flag, lengths[:2])
            raise UsageError(f"{first} and {second} both say how long to train; give one of them")
        if self.resume and self.overwrite:
            raise UsageError(
                "--resume goes on with a run and --overwrite starts afresh; give one of them"
            )
        if self.resume and self.out is None:
            raise UsageError("--resume needs --out, the checkpoint of the run to go on with")
        if self.resume and self.init_from is not None:
            raise UsageError(
                "--resume takes its weights from the run itself; --init-from is for a new run"
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
        lacking = [option for option in OPTIONS if option.name not in kept]
        return cls(**kept, **{option.name: option.metadata["before"] for option in lacking})


LENGTHS = ("budget", "epochs", "steps")  # how long a run is: one of them
OPTIONS = tuple(f for f in fields(TrainConfig) if f.metadata)  # of the run, not of one call


@dataclass(frozen=True)
class SampleConfig:
    """How a text begins and how its characters are drawn from ŷ_t."""

    temp: float = 1.0  # logits are divided by it; 0: the most probable character
    length: int = 500  # drawn characters; for models of lines only a cap
    top_k: int | None = None  # draw among the k most probable
    top_p: float | None = None  # draw among the fewest that hold this probability
    min_p: float | None = None  # draw among those with this share of the greatest probability
    stop: str | None = None  # end after this text has been drawn
    match: str | None = None  # a pattern that what is drawn, with the prime of a line, has to match
    prime: str = ""  # the text to go on from
    seed: int | None = None  # None: a fresh one

    def __post_init__(self) -> None:
        check("--temp", self.temp, least=0)
        check("--length", self.length, least=1)
        check("--top-k", self.top_k, least=1)
        check("--top-p", self.top_p, above=0, most=1)
        check("--min-p", self.min_p, least=0, most=1)
        check("--seed", self.seed, least=0)
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
