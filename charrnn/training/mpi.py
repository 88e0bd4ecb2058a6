"""Replicas in processes on many machines: MPI carries their gradients, commands and texts.

Only rank 0 reads the sources and makes decisions. Then every rank gets what it needs to begin: of a
running text, only the characters of its own columns.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np

from charrnn.arrays import Array
from charrnn.blas import blas_threads
from charrnn.errors import TrainingError
from charrnn.text.batches import Streams
from charrnn.text.corpus import Part, Store
from charrnn.training.replica import Parts, Replica, Transport, share

CHUNK = 1 << 22  # characters in one message
POLL = 0.005  # seconds between checks whether rank 0 has read the text; MPI itself would spin
PATIENCE = 3.0  # seconds that the launcher has to end this rank after another one has died
SIGNALS = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}


class MPIEnd(Transport):
    """One rank's transport over MPI; before the first step, rank 0 hands out the text."""

    running: bool | None = None  # None: the other ranks wait for rank 0 to read the text

    def __init__(self, rank: int, size: int) -> None:
        """Join the ranks as the launcher numbered them.

        Raises TrainingError if mpi4py is missing or was built for another MPI.
        """
        # Keep MPICH from reporting an abort: the rank that aborts has already said why.
        os.environ.setdefault("MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1")
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # not installed, or without an MPI library
            raise TrainingError(
                f"{size} ranks were launched, but mpi4py cannot be loaded ({error}): "
                "pip install mpi4py"
            ) from None
        super().__init__(rank, size)
        self.MPI, self.world = MPI, MPI.COMM_WORLD
        if self.world.size != size:
            library = MPI.Get_library_version().partition("\n")[0].strip("\0 ")
            raise TrainingError(
                f"{size} ranks were launched, but mpi4py sees {self.world.size}: its MPI "
                f"({library}) isn't the launcher's; launch with that MPI's mpiexec, or install "
                "mpi4py for the launcher's MPI"
            )

    def _counts(self, n: int) -> list[int]:
        """Return how many of n parameters each rank updates."""
        shares = [share(n, rank, self.size) for rank in range(self.size)]
        return [own.stop - own.start for own in shares]

    def reduce_scatter(self, gradient: Array) -> Array:
        counts = self._counts(gradient.size)
        # reducing in place would need no array, but MPICH aborts if the gradient is large
        total = np.empty(counts[self.rank], gradient.dtype)
        self.world.Reduce_scatter(gradient, total, counts)
        return total

    def all_gather(self, twin: Array) -> None:
        self.world.Allgatherv(self.MPI.IN_PLACE, [twin, self._counts(twin.size)])

    def all_reduce(self, numbers: Array) -> Array:
        self.world.Allreduce(self.MPI.IN_PLACE, numbers)
        return numbers

    def broadcast(self, value: Any) -> Any:
        value = self.world.bcast(value)
        self.running = bool(value)  # the last command is empty
        return value

    def gather(self, value: Any) -> list[Any]:
        return self.world.gather(value) or []

    @contextmanager
    def lead(self, parts: Parts) -> Iterator[Replica]:
        """Yield rank 0's replica; the others follow it and end with the with block."""
        self._begin([_textless(part) for part in parts])
        for part in parts:
            if isinstance(part, Streams):
                self._send_text(part)
        with blas_threads(1):
            yield Replica(self, *parts)
            self.broadcast(())

    def follow(self) -> None:
        """Act as one of the other ranks, from waiting for the text to rank 0's last command."""
        if parts := self._begin():
            for part in parts:
                if isinstance(part, Streams):
                    self._receive_text(part)
            with blas_threads(1):
                Replica(self, *parts).follow()

    def _begin(self, parts: Sequence[Any] = ()) -> Any:
        """Return rank 0's parts on every rank, nothing if it failed. The others wait asleep."""
        ready = self.world.Ibarrier()
        while not ready.Test():
            time.sleep(POLL)
        return self.broadcast(parts)

    def _send_text(self, streams: Streams) -> None:
        """Send each of the other ranks what its own streams read."""
        text = streams.part
        for rank in range(1, self.size):
            self.world.send(text.store.dtype, rank)
            start, stop = streams.extent(share(streams.batch_size, rank, self.size))
            for at in range(start, stop, CHUNK):
                self.world.send(text.read(at, min(at + CHUNK, stop)), rank)

    def _receive_text(self, streams: Streams) -> None:
        """Receive from rank 0 the text that these streams read."""
        store, (_, end) = Store(self.world.recv()), streams.extent(slice(None))
        start, stop = streams.extent(share(streams.batch_size, self.rank, self.size))
        for _ in range(start, stop, CHUNK):
            store.append(self.world.recv())
        streams.part = Part(store, [(-start, end - start)])


def _textless(part: Any) -> Any:
    """Return the part; of Streams, a copy without the text, which only this machine has."""
    if isinstance(part, Streams):
        part = copy(part)
        del part.part
    return part


@contextmanager
def joined(rank: int, size: int, fail: Callable[[BaseException], int]) -> Iterator[MPIEnd]:
    """Yield the transport of this rank of `size`. An error in one rank's with block ends them all.

    `fail` tells the user of an error and returns the exit code. A launcher sends signals to every
    process; only rank 0 acts on them, and not before MPI has started. Raises TrainingError.
    """
    if rank:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    end = MPIEnd(rank, size)
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        yield end
    except BaseException as error:
        if not end.running:
            raise
        if isinstance(error, end.MPI.Exception):
            time.sleep(PATIENCE)  # usually a side effect of another rank dying
            error = TrainingError(
                "MPI failed in the middle of the run; perhaps a rank or the network is gone "
                f"({str(error).strip().splitlines()[-1].strip()})"
            )
        end.world.Abort(fail(error))
    finally:
        if end.running is None:
            end._begin()
