"""Replicas in processes of many machines: MPI carries their gradients, orders and texts.

Rank 0 alone reads the sources and makes all choices. Then every rank gets what it needs to begin:
of a running text the characters of its own columns, and no more.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.blas import blas_threads
from charrnn.errors import TrainingError
from charrnn.text.batches import Streams
from charrnn.text.corpus import Part, Store
from charrnn.training.replica import Parts, Replica, share

Array = NDArray[Any]
CHUNK = 1 << 22  # characters in one message
POLL = 0.005  # seconds between looks whether rank 0 has read the text: MPI itself would spin
PATIENCE = 3.0  # seconds for the launcher to end this rank because another one died
SIGNALS = {
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
}


class MPIEnd:
    """One rank's transport over MPI, and what comes before: rank 0 hands out the text."""

    running: bool | None = None  # None: the other ranks wait for rank 0 to read the text

    def __init__(self, rank: int, size: int) -> None:
        """Join the ranks as the launcher numbered them.

        Raises TrainingError without mpi4py, or with one for another MPI.
        """
        # MPICH would report an abort, but whoever aborts has said why.
        os.environ.setdefault("MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1")
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # not installed, or without an MPI library
            raise TrainingError(
                f"{size} ranks were launched, but mpi4py cannot be loaded ({error}): "
                "pip install mpi4py"
            ) from None
        self.MPI, self.world, self.rank, self.size = MPI, MPI.COMM_WORLD, rank, size
        if self.world.size != size:
            library = MPI.Get_library_version().partition("\n")[0].strip("\0 ")
            raise TrainingError(
                f"{size} ranks were launched, but mpi4py sees {self.world.size}: it uses another "
                f"MPI ({library}) than the launcher; launch with that one's mpiexec, or install "
                "mpi4py for this one"
            )

    def gradient(self, n: int, dtype: Any) -> Array:
        shares = [share(n, rank, self.size) for rank in range(self.size)]
        self.counts = [own.stop - own.start for own in shares]
        self._gradient: Array = np.zeros(n, dtype)
        self._sum: Array = np.zeros(self.counts[self.rank], dtype)
        return self._gradient

    def common(self, array: Array) -> Array:
        return array

    def reduce_scatter(self) -> Array:
        self.world.Reduce_scatter(self._gradient, self._sum, self.counts)
        return self._sum

    def all_gather(self, common: Array) -> None:
        self.world.Allgatherv(self.MPI.IN_PLACE, [common, self.counts])

    def all_reduce(self, numbers: Array) -> Array:
        self.world.Allreduce(self.MPI.IN_PLACE, numbers)
        return numbers

    def broadcast(self, order: Any) -> Any:
        """Return rank 0's order on every rank; the empty one is the last."""
        order = self.world.bcast(order)
        self.running = bool(order)
        return order

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value on rank 0, in the order of ranks; elsewhere an empty list."""
        return self.world.gather(value) or []

    @contextmanager
    def lead(self, parts: Parts) -> Iterator[Replica]:
        """Yield rank 0's replica; the others follow it, and have ended when the with block has."""
        self._begin(len(parts))
        for part in parts:
            self._deal(part)
        with blas_threads(1):
            yield Replica(self, *parts)
            self.broadcast(())

    def follow(self) -> None:
        """Be one of the other ranks, from the wait for the text to rank 0's last order."""
        if count := self._begin():
            parts = [self._deal() for _ in range(count)]
            with blas_threads(1):
                Replica(self, *parts).follow()

    def _begin(self, count: int = 0) -> int:
        """Return on every rank how many parts rank 0 has to deal; the others sleep until then."""
        ready = self.world.Ibarrier()
        while not ready.Test():
            time.sleep(POLL)
        return int(self.broadcast(count))

    def _deal(self, part: Any = None) -> Any:
        """Return rank 0's part on every rank; of streams of text it has the rank's own alone."""
        sent = part
        if isinstance(part, Streams):
            text, textless = part.part, copy(part)
            del textless.part  # its store is of this machine
            sent = textless, text.characters, text.store.dtype.str
        sent = self.world.bcast(sent)
        if not isinstance(sent, tuple):
            return sent
        streams, length, dtype = sent
        spans = [streams.extent(share(streams.batch_size, r, self.size)) for r in range(self.size)]
        if self.rank == 0:
            for rank, (start, stop) in enumerate(spans[1:], 1):
                for at in range(start, stop, CHUNK):
                    self.world.send(text.read(at, min(at + CHUNK, stop)), rank)
            return part
        start, stop = spans[self.rank]
        store = Store(dtype)
        for _ in range(start, stop, CHUNK):
            store.append(self.world.recv())
        streams.part = Part(store, [(-start, length - start)])
        return streams


@contextmanager
def joined(rank: int, size: int, fail: Callable[[BaseException], int]) -> Iterator[MPIEnd]:
    """Yield this rank's end of `size`. An error in the with block of one rank ends them all.

    `fail` tells the user of an error and returns the exit code. Signals, which a launcher sends to
    every process, are for rank 0 to act on; they wait until MPI has begun. Raises TrainingError.
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
                "MPI failed in the middle of the run, as when a rank or the network is gone "
                f"({str(error).strip().splitlines()[-1].strip()})"
            )
        end.world.Abort(fail(error))
    finally:
        if end.running is None:
            end._begin()
