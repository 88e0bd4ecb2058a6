"""How many threads the BLAS under NumPy uses: several workers with one thread each beat one with several."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

ENVIRONMENT = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")
# OpenBLAS under the names that NumPy's wheels, Linux distributions and conda give it, then MKL.
SYMBOLS = (
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
)


def _libraries() -> Iterator[Path]:
    """Yield NumPy's own extension module, through which its BLAS is found, and the libraries that its wheel carries."""
    package = Path(np.__file__).parent
    yield from sorted(package.glob("_core/_multiarray_umath*.*"))
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        yield from sorted(folder.glob("*blas*"))


@cache
def _controls() -> tuple[Callable[[], int], Callable[[int], object]] | None:
    """Return BLAS's own functions that get and set the number of threads, None where none is known."""
    for library in _libraries():
        try:
            loaded = ctypes.CDLL(str(library))
        except OSError:
            continue
        for get, put in SYMBOLS:
            if hasattr(loaded, get) and hasattr(loaded, put):
                return getattr(loaded, get), getattr(loaded, put)
    return None


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let BLAS use `count` threads inside the with block, and put its number back after it."""
    controls = _controls()
    if controls is None:
        yield
        return
    get, put = controls
    before = get()
    put(count)
    try:
        yield
    finally:
        put(before)


def one_thread_environment() -> dict[str, str]:
    """Return this process's environment with one BLAS thread, for a worker to be started in."""
    return {**os.environ, **dict.fromkeys(ENVIRONMENT, "1")}
