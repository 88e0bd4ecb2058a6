"""Where a checkpoint is written: tried first, held by one run, replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from charrnn.checkpoint.atomic_write import atomic_write, check_writable, exclusive_lock
from charrnn.errors import CheckpointError

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX alone")
OLD, NEW = b"old" * 100, b"new" * 200_000


def write(path: Path, data: bytes = NEW) -> None:
    with atomic_write(path) as file:
        file.write(data)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A file that was there before, alone in its folder."""
    path = tmp_path / "folder" / "m.npz"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def only(path: Path) -> bytes:
    """The file's bytes; it must be alone in its folder."""
    assert listed(path.parent) == [path.name]
    return path.read_bytes()


# ---- replaced whole or not at all


def test_a_file_is_replaced_and_keeps_its_permissions(out: Path) -> None:
    out.chmod(0o640)
    write(out)
    assert only(out) == NEW
    assert out.stat().st_mode & 0o777 == 0o640 or os.name != "posix"


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_the_old_file_is_intact_when_the_system_refuses(
    out: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(CheckpointError) as error:
        write(out)
    monkeypatch.undo()
    assert only(out) == OLD
    assert str(error.value).startswith(
        f"{out}: cannot be written, nothing there was changed: {os.strerror(number)}"
    )
    assert ("make room on the disk" in str(error.value)) == (number == errno.ENOSPC)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError, CheckpointError])
def test_the_old_file_is_intact_when_the_writer_is_interrupted(
    out: Path, stop: type[BaseException]
) -> None:
    with pytest.raises(stop), atomic_write(out) as file:
        file.write(NEW)
        raise stop
    assert only(out) == OLD


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said_in_one_line(out: Path) -> None:
    with (
        pytest.raises(CheckpointError, match=r"No space left on device; make room on the disk"),
        atomic_write(out) as file,
    ):
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fileno())
        os.close(full)
        file.write(NEW)
    assert only(out) == OLD


def test_the_file_is_on_the_disk_before_it_has_its_name(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a))[1])
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("replace"), replace(*a))[1])
    write(out)
    assert calls == (["fsync", "replace", "fsync"] if os.name == "posix" else ["fsync", "replace"])


@POSIX
def test_a_symbolic_link_stays_and_its_target_is_replaced(out: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.npz"
    link.symlink_to(Path("folder") / "m.npz")
    check_writable(link, overwrite=True)
    write(link)
    assert link.is_symlink()
    assert only(out) == NEW


@POSIX
def test_a_link_planted_under_the_temporary_name_is_not_followed(out: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(OLD)
    (out.parent / f".m.npz.{os.getpid()}.tmp").symlink_to(tmp_path / "other")
    write(out)
    assert only(out) == NEW
    assert (tmp_path / "other").read_bytes() == OLD


# ---- tried before hours are spent


def refused(path: Path, overwrite: bool = True) -> str:
    with pytest.raises(CheckpointError) as error:
        check_writable(path, overwrite=overwrite)
    text = str(error.value)
    assert text.startswith(f"{path}: ".encode("unicode_escape").decode()) or "\0" in str(path)
    assert text.isprintable()
    return text


def test_an_existing_file_needs_resume_or_overwrite(out: Path) -> None:
    assert refused(out, overwrite=False).endswith(
        "exists; --resume goes on with its run, --overwrite starts afresh over it"
    )
    check_writable(out, overwrite=True)
    assert only(out) == OLD


def test_a_new_file_leaves_nothing_before_it_is_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "m.npz", overwrite=False)
    assert listed(tmp_path) == []


def test_places_where_no_file_can_be_are_told_apart(out: Path, tmp_path: Path) -> None:
    assert "this is a folder; name the file to write" in refused(tmp_path)
    assert "this is no regular file and is not replaced" in refused(Path(os.devnull))
    assert (
        f"cannot be written: {tmp_path / 'none'} does not exist; make that folder first"
        in refused(tmp_path / "none" / "m.npz")
    )
    assert f"cannot be written: {out} is no folder" in refused(out / "m.npz")
    assert "no file can have this name" in refused(tmp_path / "a\0b")
    assert "choose a shorter name" in refused(tmp_path / ("m" * 250))
    assert only(out) == OLD


@POSIX
def test_a_fifo_and_a_loop_of_links_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "no regular file" in refused(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be written" in refused(tmp_path / "loop")


@POSIX
def test_a_read_only_file_is_refused(out: Path) -> None:
    out.chmod(0o444)
    assert "this file is read-only" in refused(out)
    assert only(out) == OLD


def test_a_folder_without_write_permission_is_refused(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(
        self: Path, mode: str = "r", *args: Any
    ) -> None:  # the tests may run as root, whom no permission stops
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", forbid)
    assert (
        "cannot be written: Permission denied; change its permissions, or choose another place"
        in refused(out)
    )
    with pytest.raises(CheckpointError, match="Permission denied"):
        write(out)
    monkeypatch.undo()
    assert only(out) == OLD


def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.wait() * 0 + process.pid


def test_what_dead_runs_left_is_removed_and_nothing_else(out: Path) -> None:
    left = [f".m.npz.{dead()}.tmp", f".m.npz.{os.getpid()}.tmp", ".m.npz.9999999999.tmp"]
    kept = [
        f".m.npz.{os.getppid()}.tmp",
        f".other.npz.{dead()}.tmp",
        ".m.npz.x.tmp",
        f"m.npz.{dead()}.tmp",
        ".m.npz.0.tmp",
    ]
    for name in left + kept:
        (out.parent / name).touch()
    check_writable(out, overwrite=True)
    assert left[0] in listed(out.parent)  # only who holds the place may know whose they are
    with exclusive_lock(out):
        pass
    assert listed(out.parent) == sorted([*kept, "m.npz"])


# ---- held by one run


HOLDER = """
import sys, time
from charrnn.checkpoint.atomic_write import exclusive_lock
with exclusive_lock(sys.argv[1]):
    print("held", flush=True)
    {more}
    sys.stdin.read()
"""


def holder(path: Path, more: str = "pass") -> subprocess.Popen[str]:
    """A process that holds `path` until its standard input ends."""
    command = [sys.executable, "-c", HOLDER.format(more=more), str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_while_the_first_lives_and_not_after(out: Path) -> None:
    with holder(out) as first:
        with (
            pytest.raises(
                CheckpointError,
                match=rf"m\.npz: another charrnn \(process {first.pid}\) is writing it",
            ),
            exclusive_lock(out),
        ):
            pass
        first.communicate("")
    with exclusive_lock(out):
        pass
    assert only(out) == OLD


def test_a_killed_run_holds_nothing_and_the_next_one_tidies_up(out: Path) -> None:
    with holder(out) as first:
        first.kill()
        first.wait()
    with exclusive_lock(out):
        pass
    assert only(out) == OLD


@POSIX
def test_a_child_of_a_killed_run_holds_nothing(out: Path) -> None:
    fork = "import os; child = os.fork() or time.sleep(60); print(child, flush=True)"
    with holder(out, more=fork) as first:
        assert first.stdout is not None
        child = int(first.stdout.readline())
        first.kill()
        first.wait()
        try:
            with exclusive_lock(out):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


@POSIX
def test_a_child_that_leaves_the_block_does_not_let_go(out: Path) -> None:
    fork = "import os; child = os.fork(); child or sys.exit(); os.waitpid(child, 0); print('over', flush=True)"
    with holder(out, more=fork) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "over\n"
        with pytest.raises(CheckpointError, match="is writing it"), exclusive_lock(out):
            pass
        first.communicate("")


def test_two_runs_of_one_process_are_kept_apart_by_whatever_path(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out.parent)
    with exclusive_lock(out):
        with (
            pytest.raises(
                CheckpointError, match=r"^m\.npz: another run in this process is writing it"
            ),
            exclusive_lock("m.npz"),
        ):
            pass
        with exclusive_lock(out.with_name("other.npz")):
            pass
    with exclusive_lock("m.npz"):
        pass
    assert only(out) == OLD


def test_the_place_is_free_after_an_error(out: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), exclusive_lock(out):
            raise ZeroDivisionError
    with (
        pytest.raises(CheckpointError, match="cannot be locked: No such file"),
        exclusive_lock(out.parent / "none" / "m.npz"),
    ):
        pass
    assert only(out) == OLD


RACER = """
import sys, os
from charrnn.errors import CheckpointError
from charrnn.checkpoint.atomic_write import exclusive_lock
for _ in range(300):
    try:
        with exclusive_lock(sys.argv[1]):
            descriptor = os.open(sys.argv[1] + ".inside", os.O_CREAT | os.O_EXCL)
            os.close(descriptor)
            os.unlink(sys.argv[1] + ".inside")
    except CheckpointError:
        pass
"""


def test_never_two_processes_are_inside_at_once(out: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(out)], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [racer.communicate()[1] for racer in racers] == ["", "", ""]
    assert only(out) == OLD


def test_threads_are_kept_apart_too(out: Path) -> None:
    found: list[str] = []

    def second() -> None:
        try:
            with exclusive_lock(out):
                found.append("held")
        except CheckpointError as error:
            found.append(str(error))

    with exclusive_lock(out):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another run in this process" in found[0]
