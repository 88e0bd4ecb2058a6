"""Replicas in processes on this machine: large arrays in shared memory, the rest in pipes.

Nothing is left behind, whichever process is killed. The memory needs no cleanup: on POSIX it is an
unlinked file that the workers inherit, on Windows a part of the page file that is freed with its
last user. A worker reads its commands from a pipe that closes when rank 0 dies, and rank 0 reads
from pipes that close when a worker dies.
"""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charrnn.arrays import Array
from charrnn.blas import ONE_THREAD, blas_threads
from charrnn.errors import TrainingError
from charrnn.training.replica import Parts, Replica, Transport, share, twins

PATIENCE = 10.0  # seconds that a worker has to end by itself
PACKAGE = str(Path(__file__).parents[2])  # the folder that contains charrnn


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


class SharedMemory(Transport):
    """The transport between processes on one machine.

    On rank 0, `peers` are all workers; in a worker, only rank 0. `key` identifies the shared
    memory; its rows are a gradient for each rank, then the twins.
    """

    def __init__(self, rank: int, size: int, peers: list[Peer], key: int) -> None:
        super().__init__(rank, size)
        self.peers, self.key = peers, key

    def arrays(self, twins: Sequence[Array]) -> Sequence[Array]:
        nbytes = (self.size + len(twins)) * twins[0].nbytes
        if sys.platform == "win32":
            memory = mmap.mmap(-1, nbytes, tagname=f"charrnn-{self.key}")
        else:
            memory = mmap.mmap(self.key, nbytes)
        rows: Array = np.frombuffer(memory, twins[0].dtype).reshape(-1, twins[0].size)
        rows[self.size :] = twins
        self.gradients = rows[: self.size]
        return [rows[self.rank], *rows[self.size :]]

    def reduce_scatter(self, gradient: Array) -> Array:
        self.broadcast(self.gather(None))  # wait until every gradient is there
        own: Array = self.gradients[:, share(gradient.size, self.rank, self.size)]
        return np.asarray(own.sum(axis=0))

    def broadcast(self, value: Any) -> Any:
        if self.rank:
            return self.peers[0].receive()
        for peer in self.peers:
            peer.send(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        if self.rank == 0:
            return [value, *(peer.receive() for peer in self.peers)]
        self.peers[0].send(value)
        return []


@contextmanager
def replicas(count: int, parts: Parts, descriptors: tuple[int, ...]) -> Iterator[Replica]:
    """Yield rank 0's replica of `count`; the other processes end with the with block.

    `descriptors` are the open files that the batches read, for workers to inherit.
    """
    if count == 1:
        with blas_threads(1):
            yield Replica(Transport(), *parts)
        return
    config, *_, start = parts
    nbytes = (count + len(twins(config))) * start["theta"].nbytes
    with blas_threads(1), _shared_memory(nbytes) as key:
        try:
            with _processes(count - 1, (*descriptors, key)) as workers:
                peers = [Peer(rank, w.stdout, w.stdin) for rank, w in enumerate(workers, 1)]
                for peer in peers:
                    peer.send((peer.rank, count, key, parts))
                transport = SharedMemory(0, count, peers, key)
                yield Replica(transport, *parts)
                transport.broadcast(())
        except PeerGoneError as gone:
            (rank,) = gone.args
            code = workers[rank - 1].returncode
            raise TrainingError(
                f"worker {rank} of {count} ended in the middle of the run ("
                + (f"killed by signal {-code}" if code < 0 else f"exit code {code}")
                + "); what was saved is intact: continue with --resume"
            ) from None


@contextmanager
def _shared_memory(nbytes: int) -> Iterator[int]:
    """Yield the key of new shared memory: an open file's descriptor, or on Windows part of a name.

    Raises TrainingError if there is no room.
    """
    if sys.platform == "win32":
        yield uuid.uuid4().int
        return
    with ExitStack() as stack:
        for folder in ("/dev/shm", None):  # in memory if there is room, to avoid disk writes
            try:
                file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
                # running out of room later would be a bus error
                np.zeros(nbytes, np.uint8).tofile(file)
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
        # extend() keeps those that were started before one that fails to start
        workers.extend(_start(descriptors) for _ in range(count))
        yield workers
    finally:
        for worker in workers:
            try:
                worker.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.communicate()


def _start(descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Start a worker, which imports the same charrnn as this process.

    It gets its own session (on Windows, its own process group), so that Ctrl-C in the terminal does
    not reach it. -P keeps modules in the current folder from being imported.
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
    """Act as a worker: receive a replica, follow rank 0, and end quietly when rank 0 is gone."""
    leader = Peer(0, sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # anything printed to standard output must not mix with the answers
    try:
        rank, size, key, parts = leader.receive()
        Replica(SharedMemory(rank, size, [leader], key), *parts).follow()
    except PeerGoneError:
        sys.exit(1)


if __name__ == "__main__":
    main()
