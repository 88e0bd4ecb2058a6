"""`mpiexec -n 64 charrnn train …`: rank 0 is the run that a person sees, and the others follow it in silence."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from charrnn.cli import app
from charrnn.errors import CharRNNError, TrainingError
from charrnn.training.launch import hold_signals, ignore_signals, keep

if TYPE_CHECKING:
    from charrnn.training.mpi import MPIEnd


def in_ranks(rank: int, size: int, lead: Callable[[MPIEnd], None], *, debug: bool) -> None:
    """Call `lead` on rank 0 and follow it on the others. Whatever fails on one of them ends all."""
    if rank:
        ignore_signals()
    keep(rank, size)
    end = _joined(rank, size)
    try:
        hold_signals(False)
        if rank:
            end.follow()
        else:
            lead(end)
            end.dismiss()
    except BaseException as error:
        named = _named(end.explained(error), rank, size)
        if rank == 0:
            end.dismiss()
        if end.over:
            raise named from None
        end.abort(app.fail(named, debug=debug))


def _joined(rank: int, size: int) -> MPIEnd:
    """Return this rank's end, with signals held: MPI cannot be left while it begins. Raises TrainingError on rank 0, for all."""
    from charrnn.training.mpi import join

    hold_signals(True)
    try:
        return join(rank, size)
    except TrainingError:
        if rank:
            raise typer.Exit(1) from None
        raise


def _named(error: BaseException, rank: int, size: int) -> BaseException:
    """Return the error with the rank that it happened on, where it isn't a user's mistake, which rank 0 says for all."""
    message, _ = app.explain(error)
    if not message or (rank == 0 and isinstance(error, CharRNNError)):
        return error
    named = TrainingError(f"rank {rank} of {size} on {platform.node()}: {message}")
    named.__cause__ = error
    return named
