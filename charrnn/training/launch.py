"""Whether this process is one of several that an MPI launcher started, read from the environment that the launcher sets.

A rank that is killed can't say so, and the launcher, which can, knows a process and no rank. So under a launcher the
process that it started only waits, as the keeper of its child, which is the rank. The keeper says what became of the
rank before the launcher learns of it, and the rank ends when its keeper is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress

# MPICH, Intel MPI, MS-MPI, Cray and srun --mpi=pmi2; Open MPI; MVAPICH; srun --mpi=pmix. The first that is set counts.
VARIABLES = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
)
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return (rank, ranks) as a launcher set them, (0, 1) for a process that none started."""
    for rank, size in VARIABLES:
        with suppress(KeyError, ValueError):
            return int(environment[rank]), int(environment[size])
    return 0, 1


def ignore_signals() -> None:
    """Leave signals to others: a launcher sends them to every process, and it is for rank 0 to act on them."""
    for name in SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def hold_signals(held: bool) -> None:
    """Let signals wait from now on, or come, those that have waited at once."""
    if hasattr(signal, "pthread_sigmask"):
        how = signal.SIG_BLOCK if held else signal.SIG_UNBLOCK
        signal.pthread_sigmask(how, [getattr(signal, name) for name in SIGNALS])


def keep(rank: int, size: int) -> None:
    """Return in a child of this process, which itself becomes its keeper. Call it before any thread is started."""
    if not hasattr(os, "fork"):
        return
    alive, held = os.pipe()  # nothing is written: the reading end learns when the other is closed
    keeper, child = os.getpid(), os.fork()
    if child:
        os.close(alive)
        os.set_inheritable(held, True)
        ignore_signals()
        os.execv(
            sys.executable, [sys.executable, "-ISs", __file__, str(child), str(rank), str(size)]
        )
    os.close(held)
    threading.Thread(target=_end_with, args=(keeper, alive, rank, size), daemon=True).start()


def _end_with(keeper: int, alive: int, rank: int, size: int) -> None:
    """Wait until the keeper is gone, which no launcher need notice while this process lives, and end it."""
    os.read(alive, 1)
    _say(
        f"rank {rank} of {size} on {os.uname().nodename} lost its keeper (process {keeper} was killed)"
    )
    os.kill(os.getpid(), signal.SIGKILL)


def _say(what: str) -> None:
    os.write(2, f"charrnn: {what}; what was saved is whole: go on with --resume\n".encode())


def main(child: int, rank: int, size: int) -> int:
    """Return the exit code of the child, after saying so if it was killed."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= 0:
        return code
    if signal.Signals(-code).name not in SIGNALS:  # else it was asked to end
        _say(
            f"rank {rank} of {size} on {os.uname().nodename} (process {child}) was killed by signal {-code}"
        )
    return 128 - code


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
