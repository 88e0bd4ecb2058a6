"""What can be chosen, one line a field: default, unit, why. No NumPy here, so that `--help` starts at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from charrnn.errors import UsageError

CellName = Literal["rnn", "gru", "lstm"]
OptimizerName = Literal["adam", "rmsprop", "adagrad", "sgd"]
HUGE = 1e300  # beyond it an integer has no float
MOST_HIDDEN, MOST_LAYERS = 1_000_000, 300  # three arrays a layer, in an archive of at most 1,000
CELLS: tuple[str, ...] = get_args(CellName)
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)


def check(
    name: str,
    value: float | None,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
) -> None:
    """Raise UsageError unless `value` is None or a finite number with above < value, least <= value <= most."""
    if value is None or (abs(value) < HUGE and above < value and least <= value <= most):
        return
    limits = {"more than": above, "at least": least, "at most": most}
    bounds = [f"{words} {limit:.10g}" for words, limit in limits.items() if math.isfinite(limit)]
    if isinstance(value, int) and abs(value) >= HUGE:
        raise UsageError(
            f"{name} has {len(str(abs(value)))} digits; it must be {' and '.join([*bounds, 'shorter'])}"
        )
    raise UsageError(f"{name} is {value:.10g}; it must be {' and '.join(bounds) or 'finite'}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is one of `choices`."""
    if value not in choices:
        raise UsageError(f"{name} is {value!r}; choose one of {', '.join(choices)}")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a network; with the vocabulary's size N it fixes every array."""

    cell: CellName = "lstm"  # rnn is the lecture's; lstm learns best for the minutes given
    hidden: int = 256  # H, units in each layer
    layers: int = 1  # L

    def __post_init__(self) -> None:
        check_choice("--cell", self.cell, CELLS)
        check("--hidden", self.hidden, least=1, most=MOST_HIDDEN)
        check("--layers", self.layers, least=1, most=MOST_LAYERS)


@dataclass(frozen=True)
class TrainConfig:
    """A training run, as `charrnn train` takes it; None: chosen for this model, text and budget."""

    out: str | Path | None = (
        "model.npz"  # checkpoint to write; None: keep the model in memory only (Done.model)
    )
    resume: bool = False  # go on with the run in `out`
    overwrite: bool = False  # start afresh over `out`
    init_from: str | Path | None = None  # start from another checkpoint's weights
    cell: CellName = "lstm"
    hidden: int | None = None  # H
    layers: int | None = None  # L
    dropout: float | None = None  # probability of dropping, 0 switches it off
    budget: float | None = (
        None  # seconds of wall time for the whole command; 180 if none of the three is given
    )
    epochs: float | None = None  # passes over the training part
    steps: int | None = None  # optimizer steps
    batch_size: int | None = None  # B, parallel streams (with lines: items)
    seq_len: int | None = None  # T, characters of truncated BPTT
    lr: float | None = None  # peak learning rate
    optimizer: OptimizerName = "adam"
    clip: float = 1.0  # largest global gradient norm, 0: off
    val_fraction: float = 0.1  # the last part of each text validates
    seed: int = 0  # everything random comes from it
    workers: int | Literal["auto"] = (
        1  # processes that share each batch; the command line's default is auto
    )
    encoding: str = "utf-8"
    lines: bool = False  # every line is an item of its own
    sample_every: int | None = None  # steps between samples, 0: none
    val_every: int | None = None  # steps between validations
    save_every: float = 60.0  # seconds between saves, beside those at every new best
    dtype: Literal["float32", "float64"] = "float32"  # float64 is for checks
    explicit: frozenset[str] = (
        frozenset()
    )  # options that were named, though they may equal the defaults

    def __post_init__(self) -> None:
        ModelConfig(
            self.cell,
            1 if self.hidden is None else self.hidden,
            1 if self.layers is None else self.layers,
        )
        check_choice("--optimizer", self.optimizer, OPTIMIZERS)
        for name, least in (
            ("batch_size", 1),
            ("seq_len", 1),
            ("steps", 1),
            ("sample_every", 0),
            ("val_every", 1),
            ("seed", 0),
        ):
            check(f"--{name.replace('_', '-')}", getattr(self, name), least=least)
        check("--dropout", self.dropout, least=0, most=0.95)
        check("--budget", self.budget, above=0)
        check("--epochs", self.epochs, above=0, most=1e9)
        check("--lr", self.lr, above=0)
        check("--clip", self.clip, least=0)
        check("--val-fraction", self.val_fraction, least=0, most=0.9)
        check("--save-every", self.save_every, above=0)
        if isinstance(self.workers, str):
            if self.workers != "auto":
                raise UsageError(f"--workers is {self.workers!r}; give a number, or auto")
        else:
            check("--workers", self.workers, least=1, most=1024)
        given = [name for name in ("budget", "epochs", "steps") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(
                f"--{given[0]} and --{given[1]} both say how long to train; give one of them"
            )
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


@dataclass(frozen=True)
class SampleConfig:
    """How characters are drawn from ŷ_t."""

    temp: float = 1.0  # logits are divided by it; 0: the most probable character
    length: int = 500  # drawn characters; for models of lines only a cap
    top_k: int | None = None  # draw among the k most probable
    top_p: float | None = None  # draw among the fewest that hold this probability
    min_p: float | None = (
        None  # draw among those with at least this share of the greatest probability
    )
    stop: str | None = None  # end after this text has been drawn

    def __post_init__(self) -> None:
        check("--temp", self.temp, least=0)
        check("--length", self.length, least=1)
        check("--top-k", self.top_k, least=1)
        check("--top-p", self.top_p, above=0, most=1)
        check("--min-p", self.min_p, least=0, most=1)
        if self.stop == "":
            raise UsageError("--stop is empty; give the text to stop after")
