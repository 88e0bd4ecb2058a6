"""The machine under NumPy: BLAS threads and kernels, processors, free memory.

It doesn't import NumPy, which reads ONE_THREAD only when it is loaded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Environment variables that limit any BLAS in a new process to one thread. Our products are small:
# more threads gain little, and wait busily for each other. Where other programs run, steps then
# take 20 times as long.
ONE_THREAD = dict.fromkeys(
    (
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OMP_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "BLIS_NUM_THREADS",
    ),
    "1",
)
# OpenBLAS's functions as NumPy's wheels, Linux distributions and conda name them, then MKL's.
FUNCTIONS = (
    (
        "scipy_openblas_get_num_threads64_",
        "scipy_openblas_set_num_threads64_",
        "scipy_openblas_get_corename64_",
    ),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_", "openblas_get_corename64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads", "openblas_get_corename"),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
)
AVX512 = ("skylakex", "cooperlake", "sapphirerapids")  # OpenBLAS kernels, also for Zen 4 and newer
CGROUPS, PROC = Path("/sys/fs/cgroup"), Path("/proc")


class Controls(NamedTuple):
    """What a program can query and set in its BLAS."""

    get_threads: Callable[[], int]
    set_threads: Callable[[int], object]
    kernels: str  # the processor that its kernels were written for; "": unknown


UNKNOWN = Controls(lambda: 0, lambda count: None, "")


@cache
def _controls() -> Controls:
    """Return the controls of NumPy's BLAS, or UNKNOWN if it has none of FUNCTIONS.

    We find the BLAS through NumPy's extension module, which is linked to it, or in NumPy's wheel.
    """
    import ctypes

    import numpy as np

    numpy, text = Path(np.__file__).parent, ctypes.CFUNCTYPE(ctypes.c_char_p)
    for path in (
        *numpy.glob("_core/_multiarray_umath*.*"),
        *numpy.parent.glob("numpy.libs/*blas*"),
        *numpy.glob(".dylibs/*blas*"),
    ):
        for get, put, *kernels in FUNCTIONS:
            with suppress(OSError, AttributeError):  # not a library, or one without these functions
                library = ctypes.CDLL(str(path))
                names = [(text((name, library))() or b"").decode() for name in kernels]
                return Controls(getattr(library, get), getattr(library, put), "".join(names))
    return UNKNOWN


def has_small_kernels() -> bool:
    """Return whether BLAS has special kernels for products of up to a million multiplications."""
    return _controls().kernels.lower() in AVX512


def is_faster_in_blocks() -> bool:
    """Return whether BLAS uses one thread and is faster if we cut a large product into blocks."""
    return has_small_kernels() and _controls().get_threads() == 1


_threads: list[int] = []  # the number of each open with block, the latest first, and the original


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let BLAS use `count` threads inside the with block, then restore the previous number.

    Blocks may end in any order, as those in generators do.
    """
    if not _threads:
        _threads.append(_controls().get_threads())
    _threads.insert(0, count)
    _controls().set_threads(count)
    try:
        yield
    finally:
        _threads.remove(count)
        _controls().set_threads(_threads[0])
        if len(_threads) == 1:
            _threads.clear()


def cores() -> int:
    """Return how many processors this process may use; a container's quota is rounded up."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    for group in _control_groups():
        for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # in v2 and in v1
            with suppress(OSError, ValueError):  # no such file, or "max"
                text = " ".join((group / name).read_text() for name in files)
                quota, period = map(int, text.split())
                if quota > 0:
                    count = min(count, math.ceil(quota / period))
    return count


def free_memory() -> int | None:
    """Return the bytes of memory available without swapping, or None if unknown."""
    with suppress(OSError, ValueError):
        words = (PROC / "meminfo").read_text().split()
        return 1024 * int(words[words.index("MemAvailable:") + 1])
    return None


def _control_groups() -> Iterator[Path]:
    """Yield the folders of this process's control groups (Linux) and of all their parents."""
    with suppress(OSError):
        for line in (PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            group = CGROUPS / controllers / path.lstrip("/")
            yield from (group, *group.parents)
