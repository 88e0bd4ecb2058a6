"""Arrays in a zip archive (.npz): written with equal bytes for equal arrays, read without trusting a byte.

np.load is not asked: it evaluates an array's header as Python, warns about odd ones, and sets aside whatever memory they
name. One regular expression reads the header here (the npy format is NumPy Enhancement Proposal 1). Refusals are
CheckpointErrors with the reason alone; the caller puts the file's name before it.
"""

from __future__ import annotations

import math
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint.zipped import FOREIGN, Content, listed
from charrnn.errors import CheckpointError

MAX_HEADER = 10_000  # bytes of an array's header; NumPy's own takes 118
BLOCK = 1 << 20  # bytes of data at once, a multiple of every itemsize
HEADER = re.compile(
    rb"\{'descr': '([<>|][A-Za-z])([0-9]{0,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,15}, ?){0,8}(?:[0-9]{1,15})?)\),? ?\} *\n?"
)


def write(file: BinaryIO, arrays: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Write `arrays` as an uncompressed .npz; no time, system or user of this machine goes into the bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays:
            info = zipfile.ZipInfo(f"{key}.npy")  # dated 1980, the zip format's zero
            info.create_system, info.external_attr = 3, 0o600 << 16
            info.file_size = (
                array.nbytes + MAX_HEADER
            )  # what zip64 is decided by; the true size replaces it
            with archive.open(info, "w") as member:
                np.lib.format.write_array(
                    member, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False
                )


class Member:
    """One array of the archive: what its header says, and its data block by block."""

    def __init__(self, key: str, content: Content) -> None:
        self.key = key
        self._content = content
        start = content.take(min(content.left, 8))
        lengths = {b"\x93NUMPY\1\0": 2, b"\x93NUMPY\2\0": 4}
        if start not in lengths:
            raise CheckpointError(f"{key!r} is no NumPy array")
        length = int.from_bytes(content.take(min(content.left, lengths[start])), "little")
        found = (
            HEADER.fullmatch(content.take(length))
            if length <= min(MAX_HEADER, content.left)
            else None
        )
        if found is None:
            raise CheckpointError(f"the header of {key!r} is not that of a plain array")
        kind, width, fortran, shape = (part.decode("ascii") for part in found.groups())
        self.fortran = fortran == "True"
        self.shape = tuple(int(size) for size in shape.replace(",", " ").split())
        self.kind = (
            kind if kind[1] == "U" else kind + width
        )  # "<f4", "|b1", "<U" whatever its width
        self.itemsize = int(width or 0) * (4 if kind[1] == "U" else 1)

    def require(self, kinds: Sequence[str], shape: tuple[int, ...] | None = None) -> None:
        """Raise CheckpointError unless the array is one of `kinds`, of `shape` if given, C-ordered, and as long as it says."""
        if self.kind not in kinds:
            raise CheckpointError(
                f"{self.key!r} has dtype {self.kind}; expected {' or '.join(kinds)} (< is little-endian)"
            )
        if shape is not None and self.shape != shape:
            raise CheckpointError(
                f"{self.key!r} has shape {self.shape}; the model in its meta needs {shape}"
            )
        if self.fortran:
            raise CheckpointError(f"{self.key!r} is in Fortran order; expected C order")
        if self._content.left != self.nbytes:
            raise CheckpointError(
                f"{self.key!r} has {self._content.left:,} bytes of data; its header says {self.nbytes:,}"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of data that the header asks for."""
        return math.prod(self.shape) * self.itemsize

    def blocks(self) -> Iterator[bytes]:
        """The data, at most BLOCK bytes at once."""
        while self._content.left:
            yield self._content.take(min(BLOCK, self._content.left))


class Archive:
    """An open .npz of `length` bytes whose list of members has been checked; data is read only when asked for."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self.length = length
        self._file = file
        self._entries = {_key(name): entry for name, entry in listed(file, length).items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def member(self, key: str) -> Member:
        """The array called `key`, its header read; CheckpointError if there is none."""
        if key not in self._entries:
            raise CheckpointError(f"{key!r} is missing")
        return Member(key, Content(self._file, self._entries[key]))


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Archive]:
    """An Archive of the regular file at `path`."""
    try:
        _check_regular(
            Path(path).stat().st_mode
        )  # before opening: a FIFO would block and a device may act
    except ValueError:
        raise CheckpointError("no file can have this name") from None
    with Path(path).open("rb") as file:
        status = os.fstat(file.fileno())
        _check_regular(status.st_mode)
        yield Archive(file, status.st_size)


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise CheckpointError("this is a folder; a checkpoint is one .npz file")
    if not stat.S_ISREG(mode):
        raise CheckpointError("this is no regular file; a checkpoint is one .npz file")


def _key(name: bytes) -> str:
    """The array's key for a member's name; only plain ones such as layers.0.V.npy are read."""
    if not re.fullmatch(rb"[A-Za-z0-9_.]{1,200}\.npy", name):
        raise CheckpointError(f"{FOREIGN}it has a member called {name[:80].decode('latin-1')!r}")
    return name[:-4].decode("ascii")
