"""`mpiexec -n 64 charrnn train …`: rank 0 is the run that a person sees, and the others follow it in silence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import typer

from charrnn.cli import app
from charrnn.config import TrainConfig
from charrnn.errors import CharRNNError, TrainingError, UsageError
from charrnn.training.launch import ignore_signals, keep

if TYPE_CHECKING:
    from charrnn.training.mpi import MPIEnd


def one_worker(config: TrainConfig, size: int) -> TrainConfig:
    """Return the options of a run of `size` ranks, each of them one process. Raises UsageError if more were asked for."""
    if config.workers not in (1, "auto"):
        raise UsageError(f"--workers {config.workers} in each of {size} ranks; leave it out and launch a rank for each core")
    return replace(config, workers=1, explicit=config.explicit | {"workers"})


def in_ranks(rank: int, size: int, lead: Callable[[MPIEnd], None], *, debug: bool) -> None:
    """Call `lead` on rank 0 and follow it on the others. Whatever fails on one of them ends all."""
    if rank:
        ignore_signals()
    if find_spec("mpi4py") is None:
        if rank:  # rank 0 says it for all
            raise typer.Exit(1)
        raise TrainingError(f"{size} ranks were launched, but there is no mpi4py to connect them: pip install 'charrnn[mpi]'")
    keep(rank, size)
    from charrnn.training.mpi import join

    end = join(rank, size)
    try:
        if rank:
            end.follow()
        else:
            lead(end)
            end.dismiss()
    except BaseException as error:
        if not end.waited_for:
            raise
        end.abort(_fail(error, rank, size, debug=debug))


def _fail(error: BaseException, rank: int, size: int, *, debug: bool) -> int:
    """Return the exit code of `error`, after saying it; and on which rank, where it isn't the user's mistake."""
    message, code = app.explain(error)
    if message and (rank or not isinstance(error, CharRNNError)):
        named = TrainingError(f"rank {rank} of {size} on {os.uname().nodename}: {message}")
        named.__cause__ = error
        error = named
    app.fail(error, debug=debug)
    sys.stdout.flush()
    return code
