"""Replicas in processes of this machine: gradients in shared memory, everything else in pipes.

Nothing is left behind, whichever process is killed. The memory has no name: on POSIX it is an
unlinked file that the workers inherit, on Windows a part of the page file that ends with its last
user. A worker reads its orders from a pipe that closes when rank 0 dies, and rank 0 reads from
pipes that close when a worker dies.
"""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.blas import ONE_THREAD, blas_threads
from charrnn.errors import TrainingError
from charrnn.training.optimizers import OPTIMIZER_CLASSES
from charrnn.training.replica import Alone, Parts, Replica, share

Array = NDArray[Any]
PATIENCE = 10.0  # seconds for a worker to end by itself
PACKAGE = str(Path(__file__).parents[2])  # the folder that has charrnn in it


class PeerGoneError(Exception):
    """The process at the other end of the pipes is gone; the argument is its rank."""


@dataclass(frozen=True)
class Peer:
    """The process at the other end of two pipes, which carry pickles."""

    rank: int
    incoming: Any
    outgoing: Any

    def send(self, value: Any) -> None:
        try:
            pickle.dump(value, self.outgoing)
            self.outgoing.flush()
        except OSError:
            raise PeerGoneError(self.rank) from None

    def receive(self) -> Any:
        try:
            return pickle.load(self.incoming)
        except (EOFError, pickle.UnpicklingError):  # it ended between two pickles or within one
            raise PeerGoneError(self.rank) from None


class SharedMemory:
    """The transport between processes of one machine.

    `peers` are on rank 0 all workers, in a worker rank 0 alone. `key` is that of the shared rows: a
    gradient for each rank, then the common arrays.
    """

    def __init__(self, rank: int, size: int, peers: list[Peer], key: int, parts: Parts) -> None:
        self.rank, self.size, self.peers = rank, size, peers
        count, n, dtype = _shared_rows(size, parts)
        nbytes = count * n * dtype.itemsize
        if sys.platform == "win32":
            memory = mmap.mmap(-1, nbytes, tagname=f"charrnn-{key}")
        else:
            memory = mmap.mmap(key, nbytes)
        rows: Array = np.frombuffer(memory, dtype).reshape(count, n)
        self.gradients, self.free = rows[:size], iter(rows[size:])
        self.own = share(n, rank, size)

    def gradient(self, n: int, dtype: Any) -> Array:
        own: Array = self.gradients[self.rank]
        return own

    def common(self, array: Array) -> Array:
        row: Array = next(self.free)
        row[:] = array
        return row

    def reduce_scatter(self) -> Array:
        self.broadcast(self.gather(None))  # every gradient is there
        total: Array = self.gradients[self.rank, self.own]
        for rank in range(self.size):
            if rank != self.rank:
                total += self.gradients[rank, self.own]
        return total

    def all_gather(self, common: Array) -> None:
        self.gather(None)  # rank 0 goes on when all have written, and the others when it says so

    def all_reduce(self, numbers: Array) -> Array:
        return np.asarray(self.broadcast(sum(self.gather(numbers))))

    def broadcast(self, order: Any) -> Any:
        if self.rank:
            return self.peers[0].receive()
        for peer in self.peers:
            peer.send(order)
        return order

    def gather(self, value: Any) -> list[Any]:
        if self.rank == 0:
            return [value, *(peer.receive() for peer in self.peers)]
        self.peers[0].send(value)
        return []


def _shared_rows(size: int, parts: Parts) -> tuple[int, int, np.dtype[Any]]:
    """Return how many rows `size` ranks share, the length of a row and its dtype."""
    config, *_, start = parts
    moments = len(OPTIMIZER_CLASSES[config.optimizer].names)
    return size + 2 + moments, start["theta"].size, start["theta"].dtype


@contextmanager
def replicas(count: int, parts: Parts, descriptors: tuple[int, ...]) -> Iterator[Replica]:
    """Yield rank 0's replica of `count`; the other processes have ended when the with block has.

    `descriptors` are the open files that the batches read, for workers to inherit.
    """
    if count == 1:
        yield Replica(Alone(), *parts)
        return
    rows, n, dtype = _shared_rows(count, parts)
    with blas_threads(1), _shared_memory(rows * n * dtype.itemsize) as key:
        try:
            with _processes(count - 1, (*descriptors, key)) as workers:
                peers = [Peer(rank, w.stdout, w.stdin) for rank, w in enumerate(workers, 1)]
                for peer in peers:
                    peer.send((peer.rank, count, key, parts))
                transport = SharedMemory(0, count, peers, key, parts)
                yield Replica(transport, *parts)
                transport.broadcast(())
        except PeerGoneError as gone:
            (rank,) = gone.args
            code = workers[rank - 1].returncode
            raise TrainingError(
                f"worker {rank} of {count} ended in the middle of the run ("
                + (f"killed by signal {-code}" if code < 0 else f"exit code {code}")
                + "); what was saved is whole: go on with --resume"
            ) from None


@contextmanager
def _shared_memory(nbytes: int) -> Iterator[int]:
    """Yield the key of new shared memory: an open file, or on Windows a part of its name.

    Raises TrainingError if there is no room.
    """
    if sys.platform == "win32":
        yield uuid.uuid4().int
        return
    with ExitStack() as stack:
        for folder in ("/dev/shm", None):  # in memory where there is room, so that no disk writes
            try:
                file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
                np.zeros(nbytes, np.uint8).tofile(file)  # later, no room would be a bus error
            except OSError as error:
                failure = error
            else:
                yield file.fileno()
                return
        raise TrainingError(
            f"no room for {nbytes:,} bytes of shared memory ({failure}); train with --workers 1"
        )


@contextmanager
def _processes(count: int, descriptors: tuple[int, ...]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Yield new workers; after the with block their pipes are closed and they have ended."""
    workers: list[subprocess.Popen[bytes]] = []
    try:
        workers.extend(_start(descriptors) for _ in range(count))  # keeps them if one fails
        yield workers
    finally:
        for worker in workers:
            try:
                worker.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.communicate()


def _start(descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Start a worker that finds this very package.

    It gets a session, on Windows a process group, of its own: Ctrl-C in the terminal does not reach
    it. -P keeps out the modules of the folder that we happen to be in.
    """
    path = os.pathsep.join(filter(None, [PACKAGE, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "charrnn.training.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
        pass_fds=() if sys.platform == "win32" else descriptors,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def main() -> None:
    """Be a worker: receive a replica, follow rank 0, and end quietly when it is gone."""
    leader = Peer(0, sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what prints to standard output must not land among the answers
    try:
        rank, size, key, parts = leader.receive()
        Replica(SharedMemory(rank, size, [leader], key, parts), *parts).follow()
    except PeerGoneError:
        sys.exit(1)


if __name__ == "__main__":
    main()
