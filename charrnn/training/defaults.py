"""What a run uses where nothing was asked for: sizes, rate, dropout, workers. Pure functions of what is known at the start."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from charrnn.blas import blas_threads, has_small_kernels
from charrnn.config import ModelConfig, TrainConfig
from charrnn.network.matmul import step_product
from charrnn.network.parameters import GATES, parameter_count
from charrnn.training.optimizers import OPTIMIZER_CLASSES

DEFAULT_BUDGET = 180.0  # seconds
# Under a budget B = T = 32: on 10 million characters of tinyshakespeare an lstm of 256 ended at 1.540 nats with B, T =
# 64, 64, at 1.519 with 32, 64 (or 64, 32) and at 1.512 with 32, 32. More and smaller steps are worth their overhead.
CHARACTERS = 1024  # in a step under a budget
HIDDEN, OPERATIONS = (
    256,
    2.9e13,
)  # the width for a run of so many operations, 3 minutes on 2 processors of 2021
EFFICIENCY = {
    "rnn": 0.3,
    "gru": 0.42,
    "lstm": 0.45,
}  # of the speed of a single product, over a whole step at B = T = 32
NO_PRESSURE = 800.0  # epochs · parameters / √characters up to which nothing is dropped
AVERAGING = 0.98  # share of the old average of the weights kept in a step
SAMPLED_CHARACTERS = 400_000  # read between two samples
VALIDATION_SHARE = 0.03  # of the time of training
COLUMNS = 8  # of a batch that a process should have: with fewer its products are slow
WORK = 1024  # H·B for each process, with less its messages take too long
SMALL_COLUMNS, SMALL_WORK = 2, 512  # the same where BLAS has kernels for small products
BASE_BYTES = 45 << 20  # of a process that has loaded Python and NumPy
RATE_OF_CELL = {"lstm": 1.0, "gru": 0.8, "rnn": 0.3}  # times the optimizer's rate


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
    save_every: float
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


def auto_workers(H: int, B: int, processors: int) -> int:
    """Return how many processes share a batch: one a processor, while each has columns, and work enough to pay for its messages."""
    columns, work = (SMALL_COLUMNS, SMALL_WORK) if has_small_kernels() else (COLUMNS, WORK)
    return max(1, min(processors, B // columns, H * B // work))


def measured_flops() -> float:
    """Return how many multiplications and additions a second one processor does in a step's typical product, in 0.1 s."""
    W, h = np.ones((1024, 256), np.float32), np.ones((256, 32), np.float32)
    seconds: list[float] = []
    with blas_threads(1):
        multiply_W = step_product(W, np.empty((1024, 32), np.float32))
        end = time.perf_counter() + 0.1
        while not seconds or time.perf_counter() < end:
            before = time.perf_counter()
            for _ in range(8):
                multiply_W(h)
            seconds.append((time.perf_counter() - before) / 8)
    return 2 * W.size * h.shape[1] / median(seconds)


def characters_per_second(model: ModelConfig, N: int, workers: int, flops: float) -> float:
    """Return a rough guess of the training speed: 6 operations a weight and character, at EFFICIENCY of `flops` a worker."""
    H = model.hidden
    weights = GATES[model.cell] * H * H * (2 * model.layers - 1) + N * H
    overhead = (
        GATES[model.cell] * H * 60
    )  # exponentials and other elementwise work, in operations of the same time
    return EFFICIENCY[model.cell] * flops * workers / (6 * weights + overhead)


def memory_bytes(settings: Settings, N: int, workers: int) -> int:
    """Return a rough guess of what training takes in memory: bytes of all processes together, Python and NumPy included.

    A replica has θ, its average, the gradient, the moments and four more twins of them (spare, scratch, masked weights,
    masks); rank 0 three more (best, good, as begun). A layer's tape and its temporaries hold `tape` numbers for each unit
    and position, of which validation touches the `forward` ones; the output layer N for each position of a block.
    """
    from charrnn.network.loss import BLOCK
    from charrnn.training.evaluation import CHUNK, VALIDATION_STREAMS

    H, L, P = settings.hidden, settings.layers, settings.batch_size * settings.seq_len
    forward = {"rnn": 2, "gru": 7, "lstm": 8}[settings.cell]
    tape = {"rnn": 2, "gru": 10, "lstm": 11}[settings.cell] + (4 if settings.dropout else 2)
    moments = 2 if settings.optimizer == "adam" else 1
    twins = (7 + moments) * workers + 3
    output = min(2 * N * P, 2 * workers * BLOCK)
    validation = (
        0
        if settings.batch_size == VALIDATION_STREAMS
        else forward * H * L * VALIDATION_STREAMS * CHUNK
    )
    numbers: int = (
        twins * parameter_count(settings.model, N) + tape * H * L * P + validation + output
    )
    return numbers * (8 if settings.dtype == "float64" else 4) + workers * BASE_BYTES


def chosen_hidden(operations: float) -> int:
    """Return the width for a run of so many operations: HIDDEN at OPERATIONS, growing with their fourth root.

    Twice the width costs four times as much a character and wants more of them; fitted on budgets of 30 s to 15 min.
    """
    return min(
        1024, max(32, 32 * round(HIDDEN * math.sqrt(math.sqrt(operations / OPERATIONS)) / 32))
    )


def chosen_batch(item: float) -> int:
    """Return how many items of about `item` characters, the newline included, make a step of about CHARACTERS."""
    return min(256, max(32, 32 * round(CHARACTERS / item / 32)))


def chosen_dropout(epochs: float, parameters: int, characters: int) -> float:
    """Return the dropout for `parameters` that read a text of `characters` `epochs` times.

    The more of either, the more they learn by heart, and the shorter the text, the less is left to learn besides: 0.055
    for each doubling of epochs · parameters / √characters. The form is from runs on texts of 20 kB to 1 MB in two
    languages; its numbers from Shakespeare, where an lstm of 256 does best with 0.1 on 7 million characters. On 5 kB one
    of 288 ended at 2.078, 2.016, 1.981 and 1.948 nats with 0.5, 0.6, 0.68 and 0.75, on 20 kB at 1.979, 1.931 and 1.938
    with the first three, but with 0.75 it never learned to spell: hence at most 0.7.
    """
    pressure = epochs * parameters / math.sqrt(max(characters, 1))
    return round(min(0.7, max(0.0, 0.055 * math.log2(max(pressure / NO_PRESSURE, 1)))), 2)


def chosen_rate(optimizer: str, cell: str, H: int) -> float:
    """Return the peak rate: the optimizer's own, by cell, and for Adam in proportion to 1/H, as wide layers sum more.

    On 3.1 million characters of Shakespeare an lstm of 128 ended at 1.694, 1.658, 1.604, 1.574 and 1.570 nats with rates
    of 0.003, 0.004, 0.006, 0.008 and 0.012; on 6.7 million one of 256 at 1.488 with 0.01 and 1.491 with 0.015, a gru of
    256 at 1.534 with 0.005 and 1.526 with 0.008; on 10 million an rnn of 256 at 1.617 with 0.003, and no rate above does
    it any good: with 0.005 it was at 1.745 half-way, with 0.003 at 1.696.
    """
    rate = OPTIMIZER_CLASSES[optimizer].lr
    if optimizer == "sgd":
        return rate
    return rate * RATE_OF_CELL[cell] * (min(1.5, HIDDEN / H) if optimizer == "adam" else 1.0)


def choose(
    config: TrainConfig,
    *,
    characters: int,
    validation: int,
    N: int,
    processors: int,
    ranks: int = 1,
    item: float | None = None,
) -> Settings:
    """Return the settings of a run on a training part of `characters` and a validation part of `validation` characters.

    `item`: the mean length of an item, where lines are items: then T plays no part.
    What was asked for is never changed. Under a budget the rest depends on the speed of this machine, measured now.
    """
    budget = config.budget
    if (config.steps, config.epochs, budget) == (None, None, None):
        budget = DEFAULT_BUDGET
    usual = 64 if budget is None else 32
    B, T = config.batch_size or max(usual, COLUMNS * ranks), config.seq_len or usual
    if item is not None and budget is not None and config.batch_size is None:
        B = max(B, chosen_batch(item))
    a_step = B * (T if item is None else item)  # characters
    L = config.layers or 1
    flops = measured_flops() if budget is not None else 0.0
    H = config.hidden or (
        256 if budget is None else chosen_hidden(flops * min(processors, 8) * budget)
    )
    model = ModelConfig(config.cell, H, L)
    workers = auto_workers(H, B, processors) if config.workers == "auto" else config.workers
    if config.steps is not None:
        epochs = config.steps * a_step / max(characters, 1)
    else:
        epochs = config.epochs or characters_per_second(model, N, workers * ranks, flops) * (
            budget or 0
        ) / max(characters, 1)
    val_every = config.val_every or max(25, math.ceil(validation / (3 * VALIDATION_SHARE * a_step)))
    return Settings(
        cell=config.cell,
        hidden=H,
        layers=L,
        batch_size=B,
        seq_len=T,
        workers=workers,
        dropout=chosen_dropout(epochs, parameter_count(model, N), characters)
        if config.dropout is None
        else config.dropout,
        averaging=AVERAGING,
        lr=config.lr or float(f"{chosen_rate(config.optimizer, config.cell, H):.2g}"),
        optimizer=config.optimizer,
        clip=config.clip,
        val_fraction=config.val_fraction,
        seed=config.seed,
        encoding=config.encoding,
        lines=config.lines,
        dtype=config.dtype,
        val_every=val_every,
        save_every=config.save_every,
        sample_every=math.ceil(SAMPLED_CHARACTERS / a_step)
        if config.sample_every is None
        else config.sample_every,
        steps=config.steps,
        epochs=config.epochs,
        budget=budget,
    )
