"""Replicas in processes of this machine: one shared block of memory for gradients, a pipe to each worker for the rest.

Nothing can be left behind, whatever kills whom. The block has no name: on POSIX an unlinked file that the workers
inherit, on Windows the page file's, which ends with its last holder. A worker reads its orders from a pipe that closes
when rank 0 dies, and rank 0 waits on pipes that close when a worker dies.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charrnn.blas import ONE_THREAD, blas_threads
from charrnn.config import TrainConfig
from charrnn.errors import TrainingError
from charrnn.text.batches import Batches
from charrnn.training.replica import Alone, Replica, Transport

Array = NDArray[Any]
WINDOWS = sys.platform == "win32"


class PeerGoneError(Exception):
    """The process at the other end of a pipe is gone."""


def send(pipe: IO[bytes], value: Any) -> None:
    """Write a pickled value with its length before it."""
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    try:
        pipe.write(struct.pack("<Q", len(data)) + data)
        pipe.flush()
    except (BrokenPipeError, OSError) as error:
        raise PeerGoneError from error


def receive(pipe: IO[bytes]) -> Any:
    """Read one value that `send` wrote; the other end is this program's own."""
    head = pipe.read(8)
    if len(head) < 8:
        raise PeerGoneError
    (size,) = struct.unpack("<Q", head)
    data = pipe.read(size)
    if len(data) < size:
        raise PeerGoneError
    return pickle.loads(data)


class Block:
    """Shared memory for `size` ranks: a slot of `length` numbers for each, and one for their sum."""

    def __init__(self, key: int | str, size: int, length: int, dtype: str) -> None:
        nbytes = (size + 1) * length * np.dtype(dtype).itemsize
        # mypy judges one platform at a time, and the two have different signatures
        self.map = (
            mmap.mmap(-1, nbytes, tagname=key) if isinstance(key, str) else mmap.mmap(key, nbytes)
        )  # type: ignore[call-arg]
        self.slots: Array = np.frombuffer(self.map, dtype).reshape(size + 1, length)


@contextmanager
def shared_memory(nbytes: int) -> Iterator[int | str]:
    """Yield the key of a new block of `nbytes`: a descriptor for workers to inherit, or a name on Windows."""
    if WINDOWS:
        yield f"charrnn-{uuid.uuid4().hex}"
        return
    with contextlib.ExitStack() as stack:
        for folder in (
            "/dev/shm",
            None,
        ):  # in memory where there is room, so that nothing is written to a disk
            try:
                file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
                os.truncate(file.fileno(), nbytes)
                if hasattr(
                    os, "posix_fallocate"
                ):  # a block that turns out too large later would be a bus error
                    os.posix_fallocate(file.fileno(), 0, nbytes)
            except OSError as error:
                failure = error
            else:
                yield file.fileno()
                return
        raise TrainingError(
            f"no room for {nbytes:,} bytes of shared memory ({failure}); train with --workers 1"
        )


class SharedMemory:
    """The transport between processes of one machine; a subclass for each end knows how to wait for the others."""

    def __init__(self, rank: int, size: int, block: Block) -> None:
        self.rank, self.size, self.block = rank, size, block
        length = block.slots.shape[1]
        self._own = slice(rank * length // size, (rank + 1) * length // size)

    def buffer(self, size: int, dtype: Any) -> Array:
        """Return this rank's slot."""
        assert self.block.slots.shape[1] == size
        assert self.block.slots.dtype == np.dtype(dtype)
        slot: Array = self.block.slots[self.rank]
        return slot

    def all_reduce(self) -> None:
        """Sum the slots: each rank its share of the numbers, in the order of ranks, then all take the whole sum."""
        slots, own = self.block.slots, self._own
        self.wait()
        total = slots[-1, own]
        np.add(slots[0, own], slots[1, own], out=total)
        for rank in range(2, self.size):
            total += slots[rank, own]
        self.wait()
        slots[self.rank] = slots[-1]

    def wait(self) -> None:
        """Return when every rank has called this."""
        raise NotImplementedError


class WorkerEnd(SharedMemory):
    """The transport in a worker: its standard input and output lead to rank 0."""

    def __init__(
        self, rank: int, size: int, block: Block, orders: IO[bytes], answers: IO[bytes]
    ) -> None:
        super().__init__(rank, size, block)
        self.orders, self.answers = orders, answers

    def wait(self) -> None:
        self.gather(None)
        self.broadcast(None)

    def broadcast(self, order: tuple[Any, ...] | None) -> tuple[Any, ...]:
        received: tuple[Any, ...] = receive(self.orders)
        return received

    def gather(self, value: Any) -> list[Any]:
        send(self.answers, value)
        return []


class LeaderEnd(SharedMemory):
    """The transport in rank 0, which has a pipe to and from each worker."""

    def __init__(self, size: int, block: Block, workers: list[subprocess.Popen[bytes]]) -> None:
        super().__init__(0, size, block)
        self.workers = workers

    def wait(self) -> None:
        self.gather(None)
        self.broadcast(())

    def broadcast(self, order: tuple[Any, ...] | None) -> tuple[Any, ...]:
        assert order is not None
        for rank, worker in enumerate(self.workers, 1):
            assert worker.stdin is not None
            with self._alive(rank):
                send(worker.stdin, order)
        return order

    def gather(self, value: Any) -> list[Any]:
        values = [value]
        for rank, worker in enumerate(self.workers, 1):
            assert worker.stdout is not None
            with self._alive(rank):
                values.append(receive(worker.stdout))
        return values

    @contextmanager
    def _alive(self, rank: int) -> Iterator[None]:
        try:
            yield
        except PeerGoneError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.workers[rank - 1].wait(timeout=10)
            code = self.workers[rank - 1].returncode
            how = (
                "its pipe is closed"
                if code is None
                else f"killed by signal {-code}"
                if code < 0
                else f"exit code {code}"
            )
            raise TrainingError(
                f"worker {rank} of {self.size} ended in the middle of the run ({how}); what was saved is whole: go on with --resume"
            ) from None


@dataclass(frozen=True)
class Job:
    """All that a worker needs to begin."""

    rank: int
    size: int
    key: int | str
    length: int
    config: TrainConfig
    N: int
    training: Batches
    validation: Batches | None
    start: Mapping[str, Array]


@contextmanager
def replicas(
    count: int,
    config: TrainConfig,
    N: int,
    training: Batches,
    validation: Batches | None,
    start: Mapping[str, Array],
    descriptors: tuple[int, ...],
) -> Iterator[Replica]:
    """Yield rank 0's replica of `count`; the others run in processes that have ended when the with block has.

    `descriptors` are the open files that the batches read, for workers to inherit.
    """
    if count == 1:
        yield Replica(config, N, Alone(), training, validation, start)
        return
    length = start["theta"].size + 1
    with contextlib.ExitStack() as stack:
        stack.enter_context(blas_threads(1))
        key = stack.enter_context(
            shared_memory((count + 1) * length * np.dtype(config.dtype).itemsize)
        )
        block = Block(key, count, length, config.dtype)
        inherited = descriptors if isinstance(key, str) else (*descriptors, key)
        workers: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, workers)
        workers.extend(
            _start(inherited) for _ in range(1, count)
        )  # one by one: if one can't start, those before it are ended
        transport = LeaderEnd(count, block, workers)
        for rank, worker in enumerate(workers, 1):
            assert worker.stdin is not None
            with transport._alive(rank):
                send(
                    worker.stdin,
                    Job(rank, count, key, length, config, N, training, validation, start),
                )
        replica = Replica(config, N, transport, training, validation, start)
        yield replica
        transport.broadcast(())


def _start(descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Start a worker that finds this very package, in a session of its own so that the terminal's Ctrl-C passes it by."""
    environment = {**os.environ, **ONE_THREAD}
    package = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [package, environment.get("PYTHONPATH")])
    )
    options: dict[str, Any] = (
        {"creationflags": 0x200}
        if WINDOWS
        else {"pass_fds": descriptors, "start_new_session": True}
    )
    command = [
        sys.executable,
        "-P",
        "-m",
        "charrnn.training.workers",
    ]  # -P: no module of the folder that we happen to be in
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, **options
    )


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    """Close the pipes, which ends the workers, and wait for them; one that doesn't listen is killed."""
    for worker in workers:
        for pipe in (worker.stdin, worker.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
    for worker in workers:
        try:
            worker.wait(timeout=10)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def main() -> None:
    """Be a worker: read the job, follow rank 0, and end quietly when it is gone."""
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints to standard output mustn't land among the answers
    try:
        job: Job = receive(orders)
        transport: Transport = WorkerEnd(
            job.rank,
            job.size,
            Block(job.key, job.size, job.length, job.config.dtype),
            orders,
            answers,
        )
        Replica(job.config, job.N, transport, job.training, job.validation, job.start).follow()
    except PeerGoneError:
        sys.exit(1)


if __name__ == "__main__":
    main()
