"""Values for options that weren't given, computed from what is known at the start of a run."""

from __future__ import annotations

import math
import timeit
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from charrnn.blas import blas_threads, has_small_kernels
from charrnn.config import LENGTHS, OPTIONS, ModelConfig, TrainConfig
from charrnn.network.cells import CELL_CLASSES
from charrnn.network.loss import BLOCK
from charrnn.network.matmul import step_product
from charrnn.network.parameters import parameter_count
from charrnn.training.optimizers import OPTIMIZER_CLASSES

DEFAULT_BUDGET = 180.0  # seconds
USUAL, TIMED = 64, 32  # B and T; under a budget, more and smaller steps learn more: see _sizes
MOST_STREAMS = 128  # most streams of running text under a budget, for any number of processes
CHARACTERS = 1024  # in a step of items, under a budget
HIDDEN, OPERATIONS = 256, 2.9e13  # this width suits a run of this many operations
NO_PRESSURE = 800.0  # epochs · parameters / √characters up to which nothing is dropped
SCANT = 10_000  # characters below which the weight decay grows
SAMPLED_CHARACTERS = 400_000  # characters read between two samples
VALIDATION_SHARE = 0.03  # of the training time
MOST_OF_BUDGET = 0.05  # share that one validation may take
VALIDATING = 3.0  # validation reads this many times as many characters/s as training
VALIDATION_STREAMS, VALIDATION_CHUNK = 64, 64  # B and T of validation, whatever those of training
COLUMNS, WORK = 8, 1024  # columns and H·B that a process needs: with fewer, communication dominates
SMALL_COLUMNS, SMALL_WORK = 2, 512  # the same if BLAS has kernels for small products
BASE_BYTES = 45 << 20  # memory of a process that has loaded Python and NumPy


class Traits(NamedTuple):
    """What the rules below need to know about a cell."""

    rate: float  # factor of the optimizer's learning rate
    decay: float  # weight decay for Adam
    efficiency: float  # speed of a whole step as a share of a single product's, at B = T = 32
    forward: int  # numbers on the tape per unit and position after the forward pass
    tape: int  # the same after the backward pass


TRAITS = {
    "rnn": Traits(rate=0.28, decay=0.01, efficiency=0.3, forward=2, tape=2),
    "gru": Traits(rate=0.8, decay=0.02, efficiency=0.42, forward=7, tape=10),
    "lstm": Traits(rate=1.0, decay=0.02, efficiency=0.45, forward=8, tape=11),
}


def measured_flops() -> float:
    """Return one processor's multiplications and additions per second in a typical product.

    Measuring takes a tenth of a second.
    """
    W, h = np.ones((1024, 256), np.float32), np.ones((256, 32), np.float32)
    with blas_threads(1):
        multiply_W = step_product(W, np.empty((1024, 32), np.float32))
        seconds = timeit.repeat(partial(multiply_W, h), number=8, repeat=50)
    return 2 * W.size * h.shape[1] * 8 / median(seconds)


def characters_per_second(model: ModelConfig, N: int, workers: int, flops: float) -> float:
    """Return a rough guess of the training speed.

    It assumes 6 operations per weight and character, at a worker's flops times the cell's
    efficiency.
    """
    H, G = model.hidden, len(CELL_CLASSES[model.cell].gates)
    weights = G * H * H * (2 * model.layers - 1) + N * H
    overhead = G * H * 60  # elementwise work, as operations that take as long
    return TRAITS[model.cell].efficiency * flops * workers / (6 * weights + overhead)


def memory_bytes(config: TrainConfig, N: int, workers: int) -> int:
    """Return a rough guess of the memory of all processes together in bytes, Python included.

    It is the sum of
    - θ, its average and the moments, which replicas share
    - in each replica, five arrays of the same size (gradient, masks, masked weights, initial θ and
      average), and in rank 0 also the best weights and a copy
    - `tape` numbers per layer, unit and position, and a few for temporaries; for validation,
      which has its own B and T, `forward` of them
    - N numbers per position of a block of the output layer
    """
    H, L, P = config.hidden, config.layers, config.batch_size * config.seq_len
    traits = TRAITS[config.cell]
    tape = traits.tape + (4 if config.dropout else 2)
    flats = 4 + len(OPTIMIZER_CLASSES[config.optimizer].names) + 5 * workers
    output = min(2 * N * P, 2 * workers * BLOCK)
    validation = traits.forward * H * L * VALIDATION_STREAMS * VALIDATION_CHUNK
    validation *= config.batch_size != VALIDATION_STREAMS
    numbers: int = flats * parameter_count(config.model, N) + tape * H * L * P + validation + output
    return numbers * np.dtype(config.dtype).itemsize + workers * BASE_BYTES


def chosen_hidden(operations: float, characters: int) -> int:
    """Return the width for a run with this many operations on a text with this many characters.

    It is HIDDEN for OPERATIONS and grows with the fourth root of the operations: twice the width
    costs four times as much per character and needs more characters. Fitted on budgets of 30 s to
    15 min. A short text gets at most 1.5 · √characters: more units would only memorize it.
    """
    width = HIDDEN * math.sqrt(math.sqrt(operations / OPERATIONS))
    width = min(1024, 1.5 * math.sqrt(characters), width)
    return max(32, 32 * round(width / 32))


def chosen_dropout(epochs: float, parameters: int, characters: int) -> float:
    """Return the dropout for a network of `parameters` that reads `characters` for `epochs`.

    A network memorizes more the more parameters and epochs it has and the shorter the text is, so
    dropout rises by 0.055 with each doubling of epochs · parameters / √characters. The form comes
    from runs on texts of 20 kB to 1 MB in two languages, the numbers from Shakespeare, where an
    lstm of 256 does best with 0.1 on 7 million characters. It is at most 0.7, because of these
    validation losses of an lstm of 288:

        dropout      0.5    0.6   0.68   0.75
        5 kB       2.078  2.016  1.981  1.948
        20 kB      1.979  1.931  1.938  never learned to spell
    """
    pressure = epochs * parameters / math.sqrt(max(characters, 1))
    return round(min(0.7, max(0.0, 0.055 * math.log2(max(pressure / NO_PRESSURE, 1)))), 2)


def chosen_rate(optimizer: str, cell: str, H: int, B: int = TIMED) -> float:
    """Return the peak rate: the optimizer's, scaled by cell (not for SGD) and, for Adam, by √B / H.

    Validation losses on Shakespeare, with the rate in brackets:

        lstm of 192, 3 million characters    1.520 (0.013)   1.496 (0.018)  1.503 (0.025)
        lstm of 288, 6 million characters    1.470 (0.0089)  1.462 (0.012)  1.459 (0.016)
        rnn of 192, 3 million characters     1.712 (0.006)   1.707 (0.01)   1.722 (0.015)
        rnn of 224, 20 million characters    1.603 (0.0034)  1.592 (0.005)  1.608 (0.0073)
        gru of 192, 3.8 million characters   1.538 (0.017)
    """
    rate = OPTIMIZER_CLASSES[optimizer].lr
    if optimizer != "sgd":
        rate *= TRAITS[cell].rate
    if optimizer == "adam":
        rate *= min(1.5, HIDDEN / H) * min(2, max(1, math.sqrt(B / TIMED)))
    return float(f"{rate:.2g}")


def chosen_decay(optimizer: str, cell: str, characters: int) -> float:
    """Return the weight decay: the cell's for Adam, more if the text is shorter than SCANT.

    An rnn of 224 on 20 million characters of Shakespeare had a validation loss of 1.600, 1.592 and
    1.604 with 0, 0.01 and 0.02.
    """
    if optimizer != "adam":
        return 0.0
    return float(f"{TRAITS[cell].decay * min(10, max(1, SCANT / characters)):.2g}")


def _sizes(
    config: TrainConfig, flops: float, *, characters: int, processors: int, item: float | None
) -> dict[str, int]:
    """Return H, B and T, with at least COLUMNS columns for each rank.

    Under a budget, running text gets B = T = 32; with more than 4 workers, B is COLUMNS for each,
    up to MOST_STREAMS. A step of short items has about CHARACTERS characters. Smaller steps learn
    more: on 10 million characters of Shakespeare, the validation loss of an lstm of 256 was 1.540
    nats with B, T = 64, 64, 1.519 with 32, 64 (or 64, 32) and 1.512 with 32, 32.
    """
    H, B, T, ranks = HIDDEN, USUAL, USUAL, config.ranks
    if config.budget is not None:
        used = min(8, processors if ranks == 1 else ranks)
        H = chosen_hidden(flops * used * config.budget, characters)
        B = T = TIMED
        if item is None:
            workers = processors if config.workers == "auto" else config.workers
            B = max(B, min(MOST_STREAMS, COLUMNS * workers))
        else:
            B = max(B, min(256, 32 * round(CHARACTERS / item / 32)))
    return {"hidden": H, "batch_size": max(B, COLUMNS * ranks), "seq_len": T}


def chosen_workers(config: TrainConfig, processors: int) -> int:
    """Return how many processes share a batch; an MPI rank counts as one.

    "auto" gives one per processor, as long as each has enough columns, and enough work to outweigh
    communication.
    """
    if config.ranks > 1:
        return 1
    if config.workers != "auto":
        return config.workers
    small, B = has_small_kernels(), config.batch_size
    columns, work = (SMALL_COLUMNS, SMALL_WORK) if small else (COLUMNS, WORK)
    return max(1, min(processors, B // columns, config.hidden * B // work))


def resolve(
    config: TrainConfig,
    *,
    characters: int,
    validation: int,
    N: int,
    processors: int,
    item: float | None = None,
) -> TrainConfig:
    """Return the configuration with every option filled in; those that were given stay as they are.

    characters: of the training part, newlines included. validation: characters to predict in the
    validation part. item: mean length of a line with its newline, None for running text.

    Under a budget, what is chosen depends on the speed of this machine, measured now.
    """
    c = with_defaults(config)
    if all(getattr(c, name) is None for name in LENGTHS):
        c = replace(c, budget=DEFAULT_BUDGET)
    flops = 0.0 if c.budget is None else measured_flops()
    c = _filled(c, **_sizes(c, flops, characters=characters, processors=processors, item=item))
    c = replace(c, workers=(workers := chosen_workers(c, processors)))
    step = min(c.batch_size * (item or c.seq_len), characters)  # characters per step
    read = (c.steps or 0) * step + (c.epochs or 0) * characters  # in the whole run
    if c.budget is not None:
        read = c.budget * characters_per_second(c.model, N, workers * c.ranks, flops)
        most = max(1000, int(MOST_OF_BUDGET * VALIDATING * read))
        if most < validation:
            c = _filled(c, val_characters=most)
    streams = c.batch_size if c.budget is not None and item is None else TIMED
    parameters = parameter_count(c.model, N)
    validation = min(validation, c.val_characters or validation)
    return _filled(
        c,
        dropout=chosen_dropout(read / characters, parameters, characters),
        lr=chosen_rate(c.optimizer, c.cell, c.hidden, streams),
        weight_decay=chosen_decay(c.optimizer, c.cell, characters),
        val_every=max(25, math.ceil(validation / (VALIDATING * VALIDATION_SHARE * step))),
        sample_every=math.ceil(SAMPLED_CHARACTERS / step),
    )


def with_defaults(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the constant defaults filled in."""
    return _filled(config, **{f.name: f.metadata["default"] for f in OPTIONS})


def _filled(config: TrainConfig, **values: Any) -> TrainConfig:
    """Return the configuration with `values` for the fields that are None."""
    return replace(config, **{k: v for k, v in values.items() if getattr(config, k) is None})
