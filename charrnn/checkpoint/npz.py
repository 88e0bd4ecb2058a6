"""Reading arrays from a zip archive (.npz) that np.savez wrote, with everything checked first.

We avoid np.load because it allocates whatever size a header claims. Here each size is checked
against what the caller expects, and their total against the file's length. If anything is wrong, we
raise a CheckpointError that begins with the file's name.
"""

from __future__ import annotations

import io
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from charrnn.arrays import Array
from charrnn.checkpoint.atomic_write import FilePath, explained, regular_file
from charrnn.errors import CheckpointError

MAX_LIST = 1 << 20  # bytes of a zip's list of members: enough for about ten thousand
MAX_HEADER = 1_000  # bytes of an array's header; NumPy's own takes 118
# Arrays may take FREE_BYTES plus FREE_FACTOR times the file's length; deflate could reach 1,000
# times.
FREE_BYTES, FREE_FACTOR = 32 << 20, 4


@contextmanager
def refused(reason: str) -> Iterator[None]:
    """Turn whatever zipfile and NumPy raise for untrusted bytes into a CheckpointError.

    They raise a dozen kinds of exceptions, from struct.error to TokenError.
    """
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except Exception:
        raise CheckpointError(reason) from None


class _File(io.FileIO):
    """A file that refuses to read more than `most` bytes at once."""

    most = MAX_LIST  # for now: zipfile reads the whole list of members at once

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next `size` bytes."""
        if size is not None and size > self.most:
            raise zipfile.BadZipFile
        return super().read(size)


class Archive:
    """An open .npz; `entries` are its members by key. Their total size has been checked."""

    def __init__(self, file: _File) -> None:
        with refused("this is not a charrnn checkpoint (.npz), or it is cut off or damaged"):
            if file.read(4) != b"PK\3\4":  # np.load looks at the start, zipfile at the end
                raise zipfile.BadZipFile
            self._zip = zipfile.ZipFile(file)
        file.most = sys.maxsize
        entries = self._zip.infolist()
        self.entries = {entry.filename.removesuffix(".npy"): entry for entry in entries}
        if len(self.entries) < len(entries):
            raise CheckpointError("it has two members of the same name")
        total, length = sum(entry.file_size for entry in entries), file.seek(0, os.SEEK_END)
        allowed = FREE_BYTES + FREE_FACTOR * length
        if total > allowed:
            raise CheckpointError(
                f"its arrays would take {total:,} bytes; a file of {length:,} may take {allowed:,}"
            )

    def array(
        self, key: str, kinds: tuple[str, ...], shape: tuple[int, ...] | None = None
    ) -> Array:
        """Return the array called `key`, which must have a dtype in `kinds` and, if given, `shape`.

        Raises CheckpointError unless it exists, has these, is in C order and is complete.
        """
        if key not in self.entries:
            raise CheckpointError(f"{key!r} is missing")
        entry = self.entries[key]
        with (
            refused(f"{key!r} is damaged, or not a plain NumPy array"),
            warnings.catch_warnings(action="ignore"),  # NumPy and Python warn about odd headers
        ):
            stream = self._zip.open(entry)
            bounded = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if not bounded or np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError
            found, fortran, dtype = np.lib.format.read_array_header_1_0(
                stream, max_header_size=MAX_HEADER
            )
        if not dtype.str.startswith(kinds) or shape not in (None, found) or fortran:
            raise CheckpointError(
                f"{key!r} is {dtype.str} {found!s:.80}{' in Fortran order' * fortran}; expected "
                f"{' or '.join(kinds)}{'' if shape is None else f' {shape}'} in C order"
            )
        left = entry.file_size - stream.tell()
        if left != math.prod(found) * dtype.itemsize:
            raise CheckpointError(f"{key!r} has {left:,} bytes of data, not what its header says")
        with refused(f"{key!r} is damaged"):  # zipfile compares the CRC at the end
            return np.frombuffer(bytearray(stream.read(left)), dtype).reshape(found)


@contextmanager
def opened(path: FilePath) -> Iterator[Archive]:
    """Yield an Archive of the regular file at `path`. Raises CheckpointError."""
    with explained(path, "cannot be read"):
        if regular_file(path)[1] is None:  # checked first, because opening a FIFO would block
            raise CheckpointError("there is no such file; charrnn train makes one")
        try:
            with _File(path) as file:
                yield Archive(file)
        except MemoryError:
            raise CheckpointError("there isn't enough memory for this model") from None
