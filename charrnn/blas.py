"""The BLAS under NumPy: how many threads it uses, since several workers with one each beat one with several, and its kernels."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

ENVIRONMENT = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)
# OpenBLAS under the names that NumPy's wheels, Linux distributions and conda give it, then MKL.
SYMBOLS = (
    (
        "scipy_openblas_get_num_threads64_",
        "scipy_openblas_set_num_threads64_",
        "scipy_openblas_get_corename64_",
    ),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_", "openblas_get_corename64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads", "openblas_get_corename"),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads", None),
)
AVX512 = (
    "skylakex",
    "cooperlake",
    "sapphirerapids",
)  # kernels of OpenBLAS's, for Zen 4 and later too


def _libraries() -> Iterator[Path]:
    """Yield NumPy's own extension module, through which its BLAS is found, and the libraries that its wheel carries."""
    package = Path(np.__file__).parent
    yield from sorted(package.glob("_core/_multiarray_umath*.*"))
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        yield from sorted(folder.glob("*blas*"))


@cache
def _controls() -> tuple[Callable[[], int], Callable[[int], object], str] | None:
    """Return BLAS's own functions that get and set the number of threads and its kernels' name, None where none is known."""
    for library in _libraries():
        try:
            loaded = ctypes.CDLL(str(library))
        except OSError:
            continue
        for get, put, kernels in SYMBOLS:
            if hasattr(loaded, get) and hasattr(loaded, put):
                return getattr(loaded, get), getattr(loaded, put), _called(loaded, kernels)
    return None


def _called(library: ctypes.CDLL, name: str | None) -> str:
    """Return what the library's function answers with, a text; "" where it has no such function."""
    if name is None or not hasattr(library, name):
        return ""
    function = getattr(library, name)
    function.restype = ctypes.c_char_p
    return (function() or b"").decode()


def has_small_kernels() -> bool:
    """Return whether products of up to a million multiplications have kernels of their own: with OpenBLAS's for AVX-512."""
    controls = _controls()
    return controls is not None and controls[2].lower() in AVX512


def multiplies_small_ones_best() -> bool:
    """Return whether a large product is done sooner in small parts: these use one thread, whatever their number."""
    controls = _controls()
    return controls is not None and has_small_kernels() and controls[0]() == 1


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let BLAS use `count` threads inside the with block, and put its number back after it."""
    controls = _controls()
    if controls is None:
        yield
        return
    get, put, _ = controls
    before = get()
    put(count)
    try:
        yield
    finally:
        put(before)


def one_thread_environment() -> dict[str, str]:
    """Return this process's environment with one BLAS thread, for a worker to be started in."""
    return {**os.environ, **dict.fromkeys(ENVIRONMENT, "1")}
