"""Files that appear whole or not at all, and a lock that keeps two runs from writing the same one.

While `model.npz` is being written, `.model.npz.<random>.tmp` lies beside it; while a run holds it,
`.model.npz.lock` does. Both are removed afterwards, and the next run removes what a killed run left
behind. A symbolic link is kept: the file that it points to is replaced.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from charrnn.errors import CheckpointError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FilePath = str | os.PathLike[str]
TRIED = 1 << 16  # bytes written as a test before a run: an empty file fits even on a full disk
RANDOM = 8  # bytes that make a temporary file's name unique
UNCHANGED = "cannot be written, nothing there was changed"


@contextmanager
def explained(path: FilePath, what: str) -> Iterator[None]:
    """Put the file's name before a CheckpointError's reason; turn an OSError into one, too."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(
            f"{path}: {what}: {error.strerror or error}; check its folder, the permissions and the "
            "space left, or choose another place"
        ) from None


def regular_file(path: FilePath) -> tuple[Path, os.stat_result | None]:
    """Return the file that `path` refers to, links followed, and its status (None if missing).

    Raises CheckpointError for anything but a regular file, and OSError.
    """
    try:
        target = Path(os.path.realpath(path))
        status = target.stat()
    except (FileNotFoundError, NotADirectoryError):
        return target, None
    except ValueError:  # a NUL, or a character that the file system cannot encode
        raise CheckpointError("no file can have this name") from None
    if stat.S_ISDIR(status.st_mode):
        raise CheckpointError("this is a folder; name a file in it, such as model.npz")
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError("this is not a regular file; choose another place")
    return target, status


def part_of(path: FilePath, sources: Iterable[FilePath]) -> FilePath | None:
    """Return the file or folder among `sources` that `path` is or lies in, links followed."""
    target = Path(os.path.realpath(path))
    for source in sources:
        if source != "-" and Path(os.path.realpath(source)) in (target, *target.parents):
            return source
    return None


def check_writable(
    path: FilePath,
    used: Iterable[FilePath] = (),
    *,
    overwrite: bool,
    remedy: str = "--overwrite replaces it",
) -> None:
    """Raise CheckpointError unless `path` can be written, over an existing file only if allowed.

    To find out, write a temporary file beside it and remove it. It must not be one of the files
    that the command uses otherwise, or lie in one of the folders. `remedy` tells the user what to
    do about an existing file.
    """
    with explained(path, UNCHANGED):
        target, status = regular_file(path)
        if (changed := part_of(path, used)) is not None:
            raise CheckpointError(
                f"writing it would change {changed}, which this command uses; choose another place"
            )
        if status is not None and not overwrite:
            raise CheckpointError(f"this file exists; {remedy}")
        if status is not None and not (status.st_mode & 0o222 and os.access(target, os.W_OK)):
            raise CheckpointError("this file is read-only; choose another, or make it writable")
        with _beside(target) as (_, file):
            file.write(bytes(TRIED))
            _flush(file)


@contextmanager
def atomic_write(path: FilePath) -> Iterator[BinaryIO]:
    """Open a file to write. It appears at `path` if the block succeeds; otherwise nothing changes.

    Raises CheckpointError for any OSError, even one raised within the block.
    """
    with explained(path, UNCHANGED):
        target, status = regular_file(path)
        with _beside(target) as (temporary, file):
            yield file
            _flush(file)
            file.close()
            if status is not None:
                temporary.chmod(stat.S_IMODE(status.st_mode))
            temporary.replace(target)
    with suppress(OSError):  # sync the new name; Windows and some file systems cannot
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _beside(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield the path of a new temporary file beside `target`, and the file, open for writing.

    It is removed afterwards, unless it was renamed.
    """
    path = target.with_name(f".{target.name}.{secrets.token_hex(RANDOM)}.tmp")
    try:
        with path.open("xb") as file:
            yield path, file
    finally:
        with suppress(OSError):
            path.unlink()


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def exclusive_lock(path: FilePath) -> Iterator[None]:
    """Keep other runs from writing to `path` during the block. Raises CheckpointError if one does.

    The operating system's lock on `.model.npz.lock` belongs to the open file, so it also keeps
    threads apart, ends with the process, however that ends, and isn't inherited by programs that we
    start. The holder removes the file before releasing the lock; whoever then locks a file that no
    longer has a name tries again. Only a holder removes the temporary files of killed runs. On a
    file system without locks, nothing keeps runs apart.
    """
    with explained(path, UNCHANGED):
        target, _ = regular_file(path)
        lock = target.with_name(f".{target.name}.lock")
        descriptor = _locked(lock)
    owner = os.getpid()
    try:
        pattern = f".{glob.escape(target.name)}.{'[0-9a-f]' * 2 * RANDOM}.tmp"
        with suppress(OSError):  # a folder may be writable but not readable
            for left in target.parent.glob(pattern):
                left.unlink()
        yield
    finally:
        if os.getpid() == owner:  # a forked child may leave the block too
            _release(lock, descriptor)


def _locked(lock: Path) -> int:
    """Return a descriptor of the file `lock`, locked. Raises CheckpointError if it is held."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if sys.platform == "win32":
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                os.close(descriptor)
                message = "another run is writing it; wait for it, or choose another --out"
                raise CheckpointError(message) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        os.close(descriptor)


def _release(lock: Path, descriptor: int) -> None:
    if sys.platform == "win32":  # an open file cannot be removed there
        os.close(descriptor)
    with suppress(OSError):
        lock.unlink()
    if sys.platform != "win32":
        os.close(descriptor)
