"""The indices of a whole corpus outside of memory, read by range from any number of processes."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from io import FileIO
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from charrnn.errors import CorpusError

MEMORY = 32 << 20  # bytes a store may hold in memory before it moves to a temporary file
_BLOCK = 4 << 20  # elements handled at once when all of them are rewritten
_POSITIONAL = hasattr(
    os, "pread"
)  # POSIX: reading at an offset without moving the offset that processes share


def _temporary() -> BinaryIO:
    """A new temporary file that vanishes with its last handle: unlinked at once on POSIX, deleted on close on Windows."""
    make = tempfile.TemporaryFile if _POSITIONAL else tempfile.NamedTemporaryFile
    return cast(BinaryIO, make(buffering=0, prefix="charrnn-"))


def _open_again(place: int | str) -> BinaryIO:
    """Another handle of the file that share() named by descriptor or, on Windows, by path."""
    if isinstance(place, int):
        return cast(BinaryIO, FileIO(os.dup(place), "rb"))
    deleting: int = getattr(
        os, "O_TEMPORARY", 0
    )  # Windows refuses a second handle that doesn't agree to deletion
    return cast(
        BinaryIO, FileIO(place, "rb", opener=lambda path, flags: os.open(path, flags | deleting))
    )


class Store:
    """A sequence of indices that is appended to, then read by range: in memory while small, else in a temporary file."""

    def __init__(self, dtype: npt.DTypeLike, memory: int = MEMORY) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._length = 0
        self._limit = memory
        self._memory: bytearray | None = bytearray()
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._length

    def append(self, indices: npt.NDArray[Any]) -> None:
        """Add `indices`, which fit the dtype, at the end. Raises CorpusError if the temporary folder is full."""
        data = indices.astype(self.dtype, copy=False).tobytes()
        if self._memory is not None and len(self._memory) + len(data) <= self._limit:
            self._memory += data
        else:
            self._spill()
            self._write(self._length * self.dtype.itemsize, data)
        self._length += len(indices)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The indices start … stop−1, (stop − start,) of `dtype`. Safe from several threads."""
        if not 0 <= start <= stop <= self._length:
            raise IndexError(f"{start}:{stop} isn't within the store's 0:{self._length}")
        size = self.dtype.itemsize
        if self._memory is not None:
            return np.frombuffer(self._memory[start * size : stop * size], self.dtype)
        return np.frombuffer(self._read(start * size, (stop - start) * size), self.dtype)

    def recode(self, table: npt.NDArray[Any]) -> Store:
        """A store of table[i] for each index i, of the table's dtype; of equal width it is this one, rewritten in place."""
        if np.array_equal(table, np.arange(len(table))) and table.dtype == self.dtype:
            return self
        target = self if table.dtype == self.dtype else Store(table.dtype, self._limit)
        for start in range(0, self._length, _BLOCK):
            block = self.read(start, min(start + _BLOCK, self._length))
            if (
                table.dtype == self.dtype == np.uint8
            ):  # bytes.translate is several times faster than an array lookup
                block = np.frombuffer(
                    block.tobytes().translate(table.tobytes().ljust(256, b"\0")), np.uint8
                )
            else:
                block = table[block]
            target._replace(start, block)
        return target

    def _replace(self, start: int, indices: npt.NDArray[Any]) -> None:
        """Write `indices` at `start`, which is the end or within what is there."""
        if start == self._length:
            self.append(indices)
        elif self._memory is not None:
            size = self.dtype.itemsize
            self._memory[start * size : (start + len(indices)) * size] = indices.tobytes()
        else:
            self._write(start * self.dtype.itemsize, indices.tobytes())

    def share(self) -> tuple[tuple[int, ...], tuple[int | str, str, int]]:
        """(descriptors to hand to a child through Popen(pass_fds=…), a picklable description for Store.attach there)."""
        file = self._spill()
        place: int | str = file.fileno() if _POSITIONAL else file.name
        return ((place,) if isinstance(place, int) else ()), (place, self.dtype.str, self._length)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as what share() describes, for a process that has the descriptors."""
        return Store.attach, (self.share()[1],)

    @classmethod
    def attach(cls, description: tuple[int | str, str, int]) -> Store:
        """The store that another process described by share(), for reading."""
        place, dtype, length = description
        store = cls(dtype)
        store._memory, store._length = None, length
        store._adopt(_open_again(place))
        return store

    def _adopt(self, file: BinaryIO) -> BinaryIO:
        """`file`, kept open for as long as this store lives."""
        self._file = file
        weakref.finalize(self, file.close)
        return file

    def _spill(self) -> BinaryIO:
        """The temporary file, into which everything moves the first time."""
        if self._file is not None:
            return self._file
        try:
            file = self._adopt(_temporary())
        except OSError as error:
            raise CorpusError(
                f"no temporary file can be made ({error.strerror}); set TMPDIR to a folder with space"
            ) from error
        self._write(0, self._memory or b"")
        self._memory = None
        return file

    def _write(self, offset: int, data: bytes | bytearray) -> None:
        assert self._file is not None
        view = memoryview(data)
        try:
            with self._lock:
                self._file.seek(offset)
                while view:
                    view = view[self._file.write(view) :]
        except OSError as error:
            where = f"the temporary folder {tempfile.gettempdir()}"
            raise CorpusError(
                f"{where} cannot take the corpus ({error.strerror}); set TMPDIR to a folder with space"
            ) from error

    def _read(self, offset: int, count: int) -> bytes | bytearray:
        piece = self._read_some(offset, count)
        if len(piece) == count:
            return piece
        data = bytearray(piece)  # one call reads at most 2 GB
        while len(data) < count:
            piece = self._read_some(offset + len(data), count - len(data))
            if not piece:
                raise CorpusError(
                    f"the corpus's temporary file ends at byte {offset + len(data)}; start again"
                )
            data += piece
        return data

    def _read_some(self, offset: int, count: int) -> bytes:
        assert self._file is not None
        if _POSITIONAL:
            return os.pread(self._file.fileno(), count, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(count)
