"""Arrays in a zip archive (.npz): equal bytes for equal arrays; nothing is read unchecked.

We avoid np.load because it allocates whatever size a header claims. Sizes are checked here against
what the caller expects, and all of them together against the file's length. Refusals are
CheckpointErrors that begin with the file's name.
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint.atomic_write import FilePath, explained, regular_file
from charrnn.errors import CheckpointError

Array = NDArray[Any]
NAME = re.compile(r"[A-Za-z0-9_.]{1,200}\.npy")
BLOCK = 1 << 20  # bytes read at once
MAX_MEMBERS = 1_000
MAX_HEADER = 1_000  # bytes of an array's header; NumPy's own takes 118
# Arrays may take this much memory and so many times the file's length; deflate could give 1,000.
FREE_BYTES, FREE_FACTOR = 32 << 20, 4


def write(file: BinaryIO, arrays: Mapping[str, Array]) -> None:
    """Write `arrays`, little-endian and in C order, as an uncompressed .npz, and nothing else."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays.items():
            info = zipfile.ZipInfo(f"{key}.npy")  # dated 1980, the zip format's zero
            info.create_system, info.external_attr = 3, 0o600 << 16
            info.file_size = array.nbytes + MAX_HEADER  # decides on zip64; the true size follows
            with archive.open(info, "w") as member:
                array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


@contextmanager
def refused(reason: str) -> Iterator[None]:
    """Turn whatever zipfile and NumPy raise for a stranger's bytes into a CheckpointError.

    These are a dozen kinds of exceptions, from struct.error to TokenError.
    """
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except Exception:
        raise CheckpointError(reason) from None


class _Blocks(io.FileIO):
    """A file read at most BLOCK bytes at once; zipfile asks for the whole list of members."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next `size` bytes."""
        if size is not None and size > BLOCK:
            raise zipfile.BadZipFile
        return super().read(size)


@dataclass(frozen=True)
class Member:
    """One array of an archive: what its header says, and its data, which is yet to be read."""

    key: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stream: IO[bytes]

    @property
    def nbytes(self) -> int:
        """Bytes of data that the header asks for."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self) -> Array:
        """Read the data and return it in this machine's byte order."""
        with refused(f"{self.key!r} is damaged"):
            found = np.frombuffer(self._data(), self.dtype).reshape(self.shape)
            return found.astype(self.dtype.newbyteorder("="), copy=False)

    def _data(self) -> bytearray:
        """Read all bytes; zipfile compares their CRC at the end."""
        data = bytearray(self.nbytes)
        for start in range(0, len(data), BLOCK):
            memoryview(data)[start : start + BLOCK] = self.stream.read(
                min(BLOCK, len(data) - start)
            )
        return data


class Archive:
    """An open .npz whose members' names and sizes have been checked; iterate for the keys."""

    def __init__(self, file: BinaryIO) -> None:
        with refused("this is no charrnn checkpoint (.npz), or it is cut off or damaged"):
            if file.read(4) != b"PK\3\4":  # where np.load begins too; zipfile begins at the end
                raise zipfile.BadZipFile
            self._zip = zipfile.ZipFile(file)
        entries = self._zip.infolist()
        if len(entries) > MAX_MEMBERS:
            raise CheckpointError(f"it has {len(entries):,} members; a checkpoint has fewer")
        for entry in entries:
            if not NAME.fullmatch(entry.filename):
                raise CheckpointError(f"no checkpoint has a member called {entry.filename!r:.80}")
        self._entries = {entry.filename.removesuffix(".npy"): entry for entry in entries}
        if len(self._entries) < len(entries):
            raise CheckpointError("it has two members of the same name")
        total, length = sum(entry.file_size for entry in entries), file.seek(0, os.SEEK_END)
        allowed = FREE_BYTES + FREE_FACTOR * length
        if total > allowed:
            raise CheckpointError(
                f"its arrays would take {total:,} bytes; a file of {length:,} may have {allowed:,}"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def member(
        self, key: str, kinds: tuple[str, ...], shape: tuple[int, ...] | None = None
    ) -> Member:
        """Return the array called `key`, of one of the dtypes `kinds`, of `shape` if that is given.

        Raises CheckpointError unless it is there, so, in C order, and as long as its header says.
        """
        if key not in self._entries:
            raise CheckpointError(f"{key!r} is missing")
        entry = self._entries[key]
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(f"{key!r} is neither stored nor deflated")
        with (
            refused(f"{key!r} is damaged, or no plain array of NumPy"),
            warnings.catch_warnings(action="ignore"),  # NumPy and Python warn about odd headers
        ):
            stream = self._zip.open(entry)
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError
            found, fortran, dtype = np.lib.format.read_array_header_1_0(
                stream, max_header_size=MAX_HEADER
            )
        member = Member(key, dtype, found, stream)
        if not dtype.str.startswith(kinds):
            raise CheckpointError(
                f"{key!r} has dtype {dtype.str}; expected {' or '.join(kinds)} (< is little-endian)"
            )
        if shape not in (None, found):
            raise CheckpointError(
                f"{key!r} has shape {found!s:.80}; the model in its meta needs {shape}"
            )
        if fortran:
            raise CheckpointError(f"{key!r} is in Fortran order; expected C order")
        left = entry.file_size - stream.tell()
        if left != member.nbytes:
            raise CheckpointError(f"{key!r} has {left:,} bytes of data, not what its header says")
        return member


@contextmanager
def opened(path: FilePath) -> Iterator[Archive]:
    """An Archive of the regular file at `path`. Raises CheckpointError."""
    with explained(path, "cannot be read"):
        if regular_file(path)[1] is None:  # looked at first: to open a FIFO would block
            raise CheckpointError("there is no such file; charrnn train makes one")
        try:
            with _Blocks(path) as file:
                yield Archive(file)
        except MemoryError:
            raise CheckpointError("there isn't enough memory for this model") from None
