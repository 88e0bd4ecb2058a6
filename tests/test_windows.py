"""What is done differently on Windows, tried elsewhere with the system's calls faked."""

import errno
import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from charrnn.checkpoint import atomic_write
from charrnn.cli import app
from charrnn.errors import CheckpointError
from charrnn.training import reproduce, workers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fakes what is there")
WINDOWS = SimpleNamespace(**{**vars(sys), "platform": "win32"})


class Locks:
    """msvcrt's locks: one holder for each open file's inode, until its descriptor is closed."""

    LK_NBLCK = 2

    def __init__(self, monkeypatch):
        self.held = {}
        close = atomic_write.os.close

        def closing(descriptor):
            self.held = {file: by for file, by in self.held.items() if by != descriptor}
            close(descriptor)

        monkeypatch.setattr("os.close", closing)

    def locking(self, descriptor, mode, count):
        assert (mode, count) == (self.LK_NBLCK, 1)
        file = atomic_write.os.fstat(descriptor).st_ino
        if file in self.held:
            raise PermissionError(errno.EACCES, "Permission denied")
        self.held[file] = descriptor


def test_a_checkpoint_is_locked_and_its_lock_is_closed_before_it_is_removed(tmp_path, monkeypatch):
    locks = Locks(monkeypatch)
    monkeypatch.setattr(atomic_write, "sys", WINDOWS)
    monkeypatch.setattr(atomic_write, "msvcrt", locks, raising=False)
    unlink = atomic_write.Path.unlink

    def removed(path, **options):
        assert not locks.held, "Windows removes no open file"
        unlink(path, **options)

    monkeypatch.setattr(atomic_write.Path, "unlink", removed)
    for _ in range(2):
        with atomic_write.exclusive_lock(tmp_path / "model.npz"):
            with (
                pytest.raises(CheckpointError, match="another run is writing it"),
                atomic_write.exclusive_lock(tmp_path / "model.npz"),
            ):
                pass
            assert locks.held
        assert list(tmp_path.iterdir()) == []


def test_replicas_find_the_same_memory_by_its_name(monkeypatch):
    memory = {}

    def mapped(descriptor, nbytes, *, tagname):
        assert descriptor == -1
        return memory.setdefault(tagname, bytearray(nbytes))

    monkeypatch.setattr(workers, "sys", WINDOWS)
    monkeypatch.setattr(workers, "mmap", SimpleNamespace(mmap=mapped))
    with workers._shared_memory(nbytes=48) as key:
        one, two = (workers.SharedMemory(rank, 2, [], key) for rank in (0, 1))
        for end in (one, two):
            gradient, theta = end.arrays([np.arange(4, dtype=np.float32)])
            gradient[:] = end.rank + 1
    assert one.gradients.tolist() == two.gradients.tolist() == [[1] * 4, [2] * 4]
    theta[0] = 7
    assert np.frombuffer(*memory.values(), np.float32)[8] == 7


def test_a_worker_inherits_no_descriptors_and_no_ctrl_c(monkeypatch):
    monkeypatch.setattr(workers, "sys", WINDOWS)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    monkeypatch.setattr(subprocess, "Popen", lambda words, **options: options)
    started = workers._start((3, 4))
    assert (started["pass_fds"], started["creationflags"]) == ((), 0x200)


def test_commands_are_quoted_for_its_shell(monkeypatch):
    monkeypatch.setattr(reproduce, "sys", WINDOWS)
    assert reproduce.joined(["charrnn", "train", "C:\\my texts\\a.txt"]) == (
        'charrnn train "C:\\my texts\\a.txt"'
    )


def test_what_is_redirected_is_utf_8(monkeypatch):
    monkeypatch.setattr(app, "os", SimpleNamespace(name="nt", environ={}))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    app._prepare_streams()
    print("Σ", end="", flush=True)
    assert stream.buffer.getvalue().decode("utf-8") == "Σ"
