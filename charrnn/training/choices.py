"""What a run uses where nothing was asked for: sizes, rate, dropout, workers. Pure functions of what is known at the start."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import Any

from charrnn.config import ModelConfig, TrainConfig
from charrnn.network.parameters import GATES
from charrnn.training.optimizers import OPTIMIZER_CLASSES

DEFAULT_BUDGET = 180.0  # seconds
RATE_OF_CELL = {"lstm": 1.0, "gru": 0.75, "rnn": 0.5}  # times the optimizer's rate


@dataclass(frozen=True)
class Settings:
    """A run with everything chosen; it is kept in the checkpoint, and `train` again with it repeats the run."""

    cell: str
    hidden: int
    layers: int
    dropout: float
    averaging: float
    batch_size: int
    seq_len: int
    lr: float
    optimizer: str
    clip: float
    val_fraction: float
    seed: int
    workers: int
    encoding: str
    lines: bool
    val_every: int
    sample_every: int
    dtype: str
    steps: int | None  # None: not known yet
    epochs: float | None
    budget: float | None

    @property
    def model(self) -> ModelConfig:
        """Return the network's shape."""
        return ModelConfig(self.cell, self.hidden, self.layers)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON keeps them."""
        return asdict(self)


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def auto_workers(H: int, B: int, processors: int) -> int:
    """Return how many processes share a batch: one a processor, while each has streams and work enough to pay for its messages."""
    return max(1, min(processors, B // 8)) if H >= 64 else 1


def characters_per_second(model: ModelConfig, N: int, workers: int) -> float:
    """Return a rough guess of the training speed, from 6 operations a weight and character at 40 GFLOP/s a processor."""
    H = model.hidden
    weights = GATES[model.cell] * H * H * (2 * model.layers - 1) + N * H
    return 40e9 * workers / (6 * weights + 20_000)


def chosen_dropout(epochs: float) -> float:
    """Return the dropout for a text that is read `epochs` times: none for the first few, more for each doubling."""
    return round(min(0.6, max(0.0, 0.1 * math.log2(max(epochs, 1) / 4))), 2)


def choose(config: TrainConfig, *, characters: int, validation: int, N: int, processors: int) -> Settings:
    """Return the settings of a run on a training part of `characters` and a validation part of `validation` characters."""
    H, L = config.hidden or 256, config.layers or 1
    model = ModelConfig(config.cell, H, L)
    B, T = config.batch_size or 64, config.seq_len or 64
    workers = auto_workers(H, B, processors) if config.workers == "auto" else config.workers
    budget = config.budget
    if (config.steps, config.epochs, budget) == (None, None, None):
        budget = DEFAULT_BUDGET
    if config.steps is not None:
        epochs = config.steps * B * T / max(characters, 1)
    else:
        epochs = config.epochs or characters_per_second(model, N, workers) * (budget or 0) / max(characters, 1)
    val_every = config.val_every or max(25, math.ceil(validation / (3 * 0.03 * B * T)))
    return Settings(
        cell=config.cell, hidden=H, layers=L, batch_size=B, seq_len=T, workers=workers,
        dropout=chosen_dropout(epochs) if config.dropout is None else config.dropout,
        averaging=0.98,
        lr=config.lr or OPTIMIZER_CLASSES[config.optimizer].lr * (RATE_OF_CELL[config.cell] if config.optimizer != "sgd" else 1),
        optimizer=config.optimizer, clip=config.clip, val_fraction=config.val_fraction, seed=config.seed,
        encoding=config.encoding, lines=config.lines, dtype=config.dtype, val_every=val_every,
        sample_every=val_every if config.sample_every is None else config.sample_every,
        steps=config.steps, epochs=config.epochs, budget=budget,
    )  # fmt: skip
