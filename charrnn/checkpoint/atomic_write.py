"""The place a checkpoint is written to: tried before hours are spent, held by one run at a time, replaced whole or not at all.

Beside `model.npz` there may lie `.model.npz.<process>.tmp`, while it is being written, and `.model.npz.lock`, while a run holds
it. Both are gone afterwards; what a killed run leaves of them the next one removes. A symbolic link stays: what it points to
is replaced.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from charrnn.errors import CheckpointError
from charrnn.text.vocabulary import printable

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FilePath = str | os.PathLike[str]
BLOCK = 1 << 16  # bytes that must find room before a run begins
_held: set[Path] = (
    set()
)  # targets held by this process; the operating system's lock only keeps other processes out
_guard = threading.Lock()
_REMEDIES = {
    errno.ENOSPC: "; make room on the disk, or choose another place",
    errno.EDQUOT: "; make room on the disk, or choose another place",
    errno.EACCES: "; change its permissions, or choose another place",
    errno.EPERM: "; change its permissions, or choose another place",
    errno.EROFS: "; choose another place",
    errno.ENAMETOOLONG: "; choose a shorter name",
}


@contextmanager
def _explained(path: FilePath, what: str) -> Iterator[None]:
    """Turn an OSError into a CheckpointError of one line."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or type(error).__name__) + _REMEDIES.get(error.errno or 0, "")
        raise _refuse(path, f"{what}: {reason}") from None


def _refuse(path: FilePath, reason: str) -> CheckpointError:
    return CheckpointError(f"{printable(os.fspath(path))}: {reason}")


def _target(path: FilePath) -> tuple[Path, os.stat_result | None]:
    """The file that `path` means, all links followed, and its status if it is there; refused unless regular or absent."""
    with _explained(path, "cannot be written"):
        try:
            target = Path(os.path.realpath(path))
            status = target.stat()
        except (FileNotFoundError, NotADirectoryError):
            return target, None
        except ValueError:  # a NUL, a character that the file system has no bytes for
            raise _refuse(path, "no file can have this name") from None
    if stat.S_ISDIR(status.st_mode):
        raise _refuse(path, "this is a folder; name the file to write, such as model.npz")
    if not stat.S_ISREG(status.st_mode):
        raise _refuse(path, "this is no regular file and is not replaced; choose another name")
    return target, status


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def is_read(path: FilePath, sources: Iterable[FilePath]) -> bool:
    """Return whether `path` is one of the files that are read, by whatever name."""
    return os.path.realpath(path) in {
        os.path.realpath(source) for source in sources if source != "-"
    }


def check_writable(path: FilePath, *, overwrite: bool) -> None:
    """Raise CheckpointError unless a checkpoint can be written at `path`; `overwrite`: an existing one may be replaced.

    Tried by writing and removing a temporary file there.
    """
    target, status = _target(path)
    if status is not None and not overwrite:
        raise _refuse(
            path,
            "this file exists; --resume goes on with its run, --overwrite starts afresh over it",
        )
    if status is not None and not (status.st_mode & 0o222 and os.access(target, os.W_OK)):
        raise _refuse(path, "this file is read-only; choose another name or make it writable")
    with _explained(path, "cannot be written"):
        if not target.parent.is_dir():
            wrong = (
                "is no folder"
                if target.parent.exists()
                else "does not exist; make that folder first"
            )
            raise _refuse(path, f"cannot be written: {printable(str(target.parent))} {wrong}")
        _try_to_write(_temporary(target))


def _try_to_write(temporary: Path) -> None:
    """Raise OSError unless a block of bytes finds room in a new file, which is gone afterwards; an empty one fits on a full disk."""
    try:
        with _created(temporary) as file:
            file.write(bytes(BLOCK))
            file.flush()
            os.fsync(file.fileno())
    finally:
        with suppress(OSError):
            temporary.unlink()


def _remove_leftovers(target: Path) -> None:
    """Remove the target's temporary files whose processes are gone."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"([1-9][0-9]{0,9})\.tmp")
    with suppress(OSError):  # a folder may be writable but not readable
        for beside in target.parent.iterdir():
            found = pattern.fullmatch(beside.name)
            if found and not _writing(int(found[1])):
                beside.unlink(missing_ok=True)


def _writing(pid: int) -> bool:
    """Whether a process of this number lives, and so may be writing."""
    if sys.platform == "win32":
        return False  # it refuses by itself to remove an open file, and its os.kill would end the process
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _created(temporary: Path) -> BinaryIO:
    """A new file open for writing, in place of one that an earlier process of the same number left; never through a link."""
    temporary.unlink(missing_ok=True)
    return temporary.open("xb")


@contextmanager
def atomic_write(path: FilePath) -> Iterator[BinaryIO]:
    """A file to write; when the block ends well it is on the disk at `path`, else nothing there has changed."""
    target, status = _target(path)
    temporary = _temporary(target)
    try:
        with _explained(path, "cannot be written, nothing there was changed"):
            with _created(temporary) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if status is not None:
                temporary.chmod(stat.S_IMODE(status.st_mode))
            temporary.replace(target)
    except BaseException:  # Ctrl-C as well
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Put the new name on the disk as well; some file systems cannot, and the file is in place in any case."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def exclusive_lock(path: FilePath) -> Iterator[None]:
    """Keep other runs from writing to `path` while the block lasts; CheckpointError if one holds it already.

    The operating system's lock on `.model.npz.lock` beside the target ends with the process, however that ends, and belongs
    to it alone, so that no child keeps it (fcntl.lockf, unlike flock, is not inherited by fork). The file is removed by its
    holder before letting go; whoever then gets a lock on a file that no longer has the name tries again. On a file system
    without locks only the runs of one process are kept apart. Temporary files of dead runs for the same target are removed.
    """
    target, _ = _target(path)
    with _guard:
        if target in _held:
            raise _refuse(path, "another run in this process is writing it; choose another --out")
        _held.add(target)
    owner = os.getpid()
    try:
        with _explained(path, "cannot be locked"):
            lock = target.with_name(f".{target.name}.lock")
            descriptor = _locked(path, lock)
        try:
            _remove_leftovers(target)
            yield
        finally:
            if os.getpid() == owner:  # not in a child that leaves the block too
                _release(lock, descriptor)
    finally:
        with _guard:
            _held.discard(target)


def _locked(path: FilePath, lock: Path) -> int:
    """A descriptor of the locked file called `lock`."""
    while True:
        descriptor = os.open(
            lock,
            os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0),
            0o666,
        )
        try:
            if not _lock(descriptor):
                raise _refuse(
                    path,
                    f"another charrnn{_holder(descriptor)} is writing it; wait for it, or choose another --out",
                )
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), lock.stat()):
                    with suppress(
                        OSError
                    ):  # a full disk: the number is but for the others' message
                        os.ftruncate(descriptor, 0)
                        os.write(descriptor, f"{os.getpid()}\n".encode())
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the file could be locked; False if another process has it."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the text, which others may read
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


def _holder(descriptor: int) -> str:
    """The holder's process number as the lock's text has it, for the message."""
    found = re.match(rb"[1-9][0-9]{0,9}\n", os.read(descriptor, 12))
    return f" (process {int(found[0])})" if found else ""


def _release(lock: Path, descriptor: int) -> None:
    if sys.platform == "win32":  # an open file cannot be removed there
        os.close(descriptor)
        with suppress(OSError):
            lock.unlink()
        return
    with suppress(OSError):
        lock.unlink()
    os.close(descriptor)
