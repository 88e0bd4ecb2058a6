"""Replicas in processes of many machines: MPI carries their gradients, orders and texts.

Rank 0 alone reads the sources and makes all choices. Then every rank gets what it needs to begin and, of a running
text, the characters of its own columns and no more.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.blas import blas_threads
from charrnn.config import TrainConfig
from charrnn.errors import TrainingError
from charrnn.text.batches import Batches, Streams
from charrnn.text.corpus import Excerpt
from charrnn.text.store import Store
from charrnn.training.replica import Replica, share

Array = NDArray[Any]
CHUNK = 1 << 22  # bytes, or characters, in one message
ORDER_BYTES = 256  # of an order, pickled; one message instead of a length and then a message
PATIENCE = 3.0  # seconds for a keeper to say, and the launcher to act on it, that the rank is gone without which MPI fails
POLL = 0.005  # seconds between looks whether rank 0 has read the text: MPI itself would wait at full speed


def join(rank: int, size: int) -> MPIEnd:
    """Return this process's end, as the launcher numbered it. Raises TrainingError without mpi4py, or with that of another MPI."""
    os.environ.setdefault(
        "MPIR_CVAR_SUPPRESS_ABORT_MESSAGE", "1"
    )  # MPICH: what went wrong is said by whoever aborts
    try:
        from mpi4py import MPI
    except (
        ImportError,
        RuntimeError,
    ) as error:  # not installed; or installed, and no MPI library is found
        raise TrainingError(
            f"{size} ranks were launched, but mpi4py cannot be loaded ({error}): pip install mpi4py"
        ) from None
    if MPI.COMM_WORLD.size != size:
        raise TrainingError(
            f"{size} ranks were launched, but mpi4py sees {MPI.COMM_WORLD.size}: it uses another MPI ({_first_line(MPI)}) than the "
            "launcher; launch with that one's mpiexec, or install mpi4py for this one"
        )
    assert MPI.COMM_WORLD.rank == rank
    return MPIEnd(MPI)


def _first_line(MPI: Any) -> str:
    return str(MPI.Get_library_version()).split("\n")[0].strip().rstrip("\0")


class MPIEnd:
    """The transport over MPI, and what comes before: the text and the configuration from rank 0 to all."""

    def __init__(self, MPI: Any) -> None:
        self.world, self.in_place, self.failure = MPI.COMM_WORLD, MPI.IN_PLACE, MPI.Exception
        self.rank, self.size = int(self.world.rank), int(self.world.size)
        self.begun = self.over = (
            False  # whether the other ranks have what they need, and have been told to stop
        )
        self._order = np.zeros(ORDER_BYTES, np.uint8)

    def buffer(self, size: int, dtype: Any) -> Array:
        """Return the array (size,) that `all_reduce` sums."""
        self._buffer = np.zeros(size, dtype)
        return self._buffer

    def all_reduce(self) -> None:
        """Sum the buffers. MPI does it in the same order each time, and every rank gets the same bits."""
        self.world.Allreduce(self.in_place, self._buffer)

    def broadcast(self, order: tuple[Any, ...] | None) -> tuple[Any, ...]:
        """Return rank 0's order on every rank."""
        if order is not None:
            data = pickle.dumps(order)
            self._order[: len(data)] = np.frombuffer(data, np.uint8)
            self.over = not order
        self.world.Bcast(self._order)
        received: tuple[Any, ...] = pickle.loads(self._order.data)  # it knows where it ends
        return received

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value on rank 0, in the order of ranks; elsewhere an empty list."""
        return self.world.gather(value) or []

    def explained(self, error: BaseException) -> BaseException:
        """Return what to say about an error. MPI's own is most often the echo of another rank's end: then this doesn't return."""
        if not isinstance(error, self.failure):
            return error
        time.sleep(PATIENCE)
        stack = [line.strip() for line in str(error).splitlines() if line.strip()]
        return TrainingError(
            f"MPI failed in the middle of the run, as when a rank or the network is gone ({stack[-1]})"
        )

    def abort(self, code: int) -> None:
        """End all ranks at once with this exit code."""
        self.world.Abort(code)

    @contextmanager
    def lead(
        self,
        config: TrainConfig,
        N: int,
        training: Batches,
        validation: Batches | None,
        start: Mapping[str, Array],
    ) -> Iterator[Replica]:
        """Yield rank 0's replica, when the others have all they need; they have ended when the with block has."""
        self.begun = True
        self.world.Ibarrier().Wait()
        self._share_object((config, N, _described(training), _described(validation), start))
        for batches in (training, validation):
            if isinstance(batches, Streams):
                for rank in range(1, self.size):
                    self._send(batches, rank)
        with blas_threads(1):
            yield Replica(config, N, self, training, validation, start)
            self.broadcast(())

    def dismiss(self) -> None:
        """Let the other ranks end, if they still wait for a text."""
        if not self.begun:
            self.begun = self.over = True
            self.world.Ibarrier().Wait()
            self._share_object(None)

    def follow(self) -> None:
        """Be one of the other ranks, from the wait for the text until rank 0 says stop."""
        ready = self.world.Ibarrier()
        while not ready.Test():
            time.sleep(POLL)
        job = self._share_object(None)
        if job is None:
            return
        config, N, training, validation, start = job
        training, validation = self._received(training), self._received(validation)
        with blas_threads(1):
            Replica(config, N, self, training, validation, start).follow()

    def _share_object(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        data = (
            np.frombuffer(pickle.dumps(value), np.uint8)
            if self.rank == 0
            else np.zeros(0, np.uint8)
        )
        length = self.world.bcast(data.size)
        data = data if self.rank == 0 else np.empty(length, np.uint8)
        for start in range(0, length, CHUNK):
            self.world.Bcast(data[start : start + CHUNK])
        return value if self.rank == 0 else pickle.loads(data.data)

    def _send(self, streams: Streams, rank: int) -> None:
        """Send the characters of a rank's columns."""
        start, stop = streams.extent(share(streams.batch_size, rank, self.size))
        for at in range(start, stop, CHUNK):
            self.world.Send(
                np.ascontiguousarray(streams.part.read(at, min(at + CHUNK, stop))), rank
            )

    def _received(self, described: Any) -> Any:
        """Return batches as rank 0 described them; of a running text with the characters of this rank's columns alone."""
        if not isinstance(described, Described):
            return described
        store = Store(described.dtype)
        streams = Streams(
            Excerpt(store, 0, described.length), described.batch_size, described.seq_len
        )
        start, stop = streams.extent(share(streams.batch_size, self.rank, self.size))
        streams.part = Excerpt(store, start, described.length)
        for at in range(start, stop, CHUNK):
            piece = np.empty(min(CHUNK, stop - at), described.dtype)
            self.world.Recv(piece, 0)
            store.append(piece)
        return streams


class Described(NamedTuple):
    """Streams without their text."""

    length: int
    dtype: str
    batch_size: int
    seq_len: int


def _described(batches: Batches | None) -> Batches | Described | None:
    """Return what is sent to every rank of batches: of items all, since every epoch deals them out anew."""
    if not isinstance(batches, Streams):
        return batches
    return Described(
        len(batches.part), batches.part.store.dtype.str, batches.batch_size, batches.seq_len
    )
