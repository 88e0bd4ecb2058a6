"""Files that appear whole or not at all, the trial of their place, and the lock of a run."""

import errno
import os
import secrets
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

import charrnn
from charrnn.checkpoint.atomic_write import (
    RANDOM,
    atomic_write,
    check_writable,
    exclusive_lock,
    part_of,
)
from charrnn.config import TrainConfig
from charrnn.errors import CheckpointError

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX alone")
OLD, NEW = b"old" * 100, b"new" * 200_000


def write(path, data=NEW):
    with atomic_write(path) as file:
        file.write(data)


@pytest.fixture
def out(tmp_path):
    """A file that was there before, alone in its folder."""
    path = tmp_path / "folder" / "m.npz"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def only(path):
    """The file's bytes; it must be alone in its folder."""
    assert listed(path.parent) == [path.name]
    return path.read_bytes()


def lock(path):
    """Hold the lock of a run for a moment."""
    with exclusive_lock(path):
        pass


# ---- replaced whole or not at all


def test_a_file_is_replaced_and_keeps_its_permissions(out):
    out.chmod(0o640)
    write(out)
    assert only(out) == NEW
    assert out.stat().st_mode & 0o777 == 0o640 or os.name != "posix"


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_the_old_file_is_intact_when_the_system_refuses(out, monkeypatch, call, number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(CheckpointError) as error:
        write(out)
    monkeypatch.undo()
    assert only(out) == OLD
    assert str(error.value).startswith(
        f"{out}: cannot be written, nothing there was changed: {os.strerror(number)}; check its "
        "folder, the permissions and the space left, or choose another place"
    )


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError, CheckpointError])
def test_the_old_file_is_intact_when_the_writer_is_interrupted(out, stop):
    def write_half():
        with atomic_write(out) as file:
            file.write(NEW)
            raise stop

    with pytest.raises(stop):
        write_half()
    assert only(out) == OLD


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said_in_one_line(out):
    def write_to_a_full_disk():
        with atomic_write(out) as file, open("/dev/full", "wb") as full:
            os.dup2(full.fileno(), file.fileno())
            file.write(NEW)

    with pytest.raises(CheckpointError, match="No space left on device; check its folder"):
        write_to_a_full_disk()
    assert only(out) == OLD


def test_the_file_is_on_the_disk_before_it_has_its_name(out, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a))[1])
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("replace"), replace(*a))[1])
    write(out)
    assert calls == (["fsync", "replace", "fsync"] if os.name == "posix" else ["fsync", "replace"])


@POSIX
def test_a_symbolic_link_stays_and_its_target_is_replaced(out, tmp_path):
    link = tmp_path / "link.npz"
    link.symlink_to(Path("folder") / "m.npz")
    check_writable(link, overwrite=True)
    write(link)
    assert link.is_symlink()
    assert only(out) == NEW


@POSIX
def test_links_planted_under_the_names_beside_a_file_are_not_followed(out, tmp_path, monkeypatch):
    (tmp_path / "other").write_bytes(OLD)
    monkeypatch.setattr(secrets, "token_hex", lambda count: "ab" * count)
    for name in (temporary("m.npz"), ".m.npz.lock"):
        (out.parent / name).symlink_to(tmp_path / "other")
    with pytest.raises(CheckpointError, match="File exists"):
        write(out)
    with pytest.raises(CheckpointError, match="symbolic link"):
        lock(out)
    assert (tmp_path / "other").read_bytes() == OLD


# ---- tried before hours are spent


def refused(path, overwrite=True):
    with pytest.raises(CheckpointError) as error:
        check_writable(path, overwrite=overwrite)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_an_existing_file_needs_overwrite(out):
    assert refused(out, overwrite=False).endswith("this file exists; --overwrite replaces it")
    check_writable(out, overwrite=True)
    assert only(out) == OLD


def test_a_new_file_leaves_nothing_before_it_is_written(tmp_path):
    check_writable(tmp_path / "m.npz", overwrite=False)
    assert listed(tmp_path) == []


def test_places_where_no_file_can_be_are_told_apart(out, tmp_path):
    assert "this is a folder; name a file in it" in refused(tmp_path)
    assert "this is not a regular file; choose another place" in refused(Path(os.devnull))
    missing = refused(tmp_path / "none" / "m.npz")
    assert "No such file or directory; check its folder" in missing
    assert "Not a directory; check its folder" in refused(out / "m.npz")
    assert "no file can have this name" in refused(tmp_path / "a\0b")
    assert "File name too long" in refused(tmp_path / ("m" * 250))
    assert only(out) == OLD


@POSIX
def test_a_fifo_and_a_loop_of_links_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refused(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be written" in refused(tmp_path / "loop")


@POSIX
def test_a_read_only_file_is_refused(out):
    out.chmod(0o444)
    assert "this file is read-only" in refused(out)
    assert only(out) == OLD


def test_a_folder_without_write_permission_is_refused(out, monkeypatch):
    def forbid(self, mode="r", *args):  # the tests may run as root, whom no permission stops
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", forbid)
    assert "Permission denied; check its folder, the permissions" in refused(out)
    with pytest.raises(CheckpointError, match="Permission denied"):
        write(out)
    monkeypatch.undo()
    assert only(out) == OLD


def temporary(name, digits="ab" * RANDOM):
    """A name of a temporary file for the file called `name`."""
    return f".{name}.{digits}.tmp"


def test_what_killed_runs_left_is_removed_by_the_holder_and_nothing_else(out):
    left = [temporary("m.npz"), temporary("m.npz", "01" * RANDOM)]
    kept = [
        temporary("other.npz"),
        temporary("m.npz.other.npz"),
        temporary("m.npz", "x"),
        temporary("m.npz")[1:],
        f"{temporary('m.npz')}.old",
    ]
    for name in left + kept:
        (out.parent / name).touch()
    check_writable(out, overwrite=True)
    write(out)
    assert set(left) < set(listed(out.parent))  # nobody but a holder knows that they are left
    lock(out)
    assert listed(out.parent) == sorted([*kept, "m.npz"])


@pytest.mark.parametrize("name", ["m[ab].npz", "m*.npz"])
def test_a_file_name_with_wildcards_removes_only_its_own_leftovers(tmp_path, name):
    (tmp_path / temporary(name)).touch()
    (tmp_path / temporary("ma.npz")).touch()
    lock(tmp_path / name)
    assert listed(tmp_path) == [temporary("ma.npz")]


def test_two_at_once_both_write_whole_files(out):
    with atomic_write(out) as first:
        first.write(NEW[: len(NEW) // 2])
        write(out, b"second")
        assert out.read_bytes() == b"second"
        first.write(NEW[len(NEW) // 2 :])
    assert only(out) == NEW


# ---- held by one run


HOLDER = """
import sys, time
from charrnn.checkpoint.atomic_write import exclusive_lock
with exclusive_lock(sys.argv[1]):
    print("held", flush=True)
    {more}
    sys.stdin.read()
"""


def holder(path, more="pass"):
    """A process that holds `path` until its standard input ends."""
    command = [sys.executable, "-c", HOLDER.format(more=more), str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_while_the_first_lives_and_not_after(out):
    with holder(out) as first:
        with pytest.raises(CheckpointError, match=r"m\.npz: another run is writing it"):
            lock(out)
        first.communicate("")
    lock(out)
    assert only(out) == OLD


def test_a_killed_run_holds_nothing_and_the_next_one_tidies_up(out):
    with holder(out) as first:
        first.kill()
        first.wait()
    lock(out)
    assert only(out) == OLD


@POSIX
def test_a_program_that_a_killed_run_started_holds_nothing(out):
    start = (
        "import subprocess; words = [sys.executable, '-c', 'import time; time.sleep(60)'];"
        "print(subprocess.Popen(words, stdout=subprocess.DEVNULL).pid, flush=True)"
    )
    with holder(out, more=start) as first:
        assert first.stdout is not None
        child = int(first.stdout.readline())
        first.kill()
        first.wait()
        try:
            lock(out)
        finally:
            os.kill(child, signal.SIGKILL)


@POSIX
def test_a_child_that_leaves_the_block_does_not_let_go(out):
    fork = (
        "import os; child = os.fork(); child or sys.exit();"
        "os.waitpid(child, 0); print('over', flush=True)"
    )
    with holder(out, more=fork) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "over\n"
        with pytest.raises(CheckpointError, match="is writing it"):
            lock(out)
        first.communicate("")


def test_two_runs_of_one_process_are_kept_apart_by_whatever_path(out, monkeypatch):
    monkeypatch.chdir(out.parent)
    with exclusive_lock(out):
        with pytest.raises(CheckpointError, match=r"^m\.npz: another run is writing it"):
            lock("m.npz")
        lock(out.with_name("other.npz"))
    lock("m.npz")
    assert only(out) == OLD


def test_the_place_is_free_after_an_error(out):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), exclusive_lock(out):
            raise ZeroDivisionError
    with pytest.raises(CheckpointError, match="No such file or directory; check its folder"):
        lock(out.parent / "none" / "m.npz")
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


def test_never_two_processes_are_inside_at_once(out):
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(out)], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [racer.communicate()[1] for racer in racers] == ["", "", ""]
    assert only(out) == OLD


def test_threads_are_kept_apart_too(out):
    found = []

    def second():
        try:
            with exclusive_lock(out):
                found.append("held")
        except CheckpointError as error:
            found.append(str(error))

    with exclusive_lock(out):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "another run is writing it" in found[0]


def test_a_second_thread_that_trains_to_the_same_file_does_the_first_no_harm(tmp_path, monkeypatch):
    text, out, found = tmp_path / "text.txt", tmp_path / "m.npz", []
    text.write_text("to be or not to be\n" * 20)
    config = TrainConfig(out=out, overwrite=True, hidden=4, steps=2, batch_size=2, seq_len=4)
    replace = os.replace

    def second():
        try:
            list(charrnn.train([text], config))
        except CheckpointError as error:
            found.append(str(error))

    def at_the_last_moment(*names):
        monkeypatch.setattr(os, "replace", replace)
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        replace(*names)

    monkeypatch.setattr(os, "replace", at_the_last_moment)
    list(charrnn.train([text], config))
    assert "is writing it" in found[0]
    assert charrnn.load(out).meta["step"] == 2
    assert listed(tmp_path) == ["m.npz", "text.txt"]


# ---- apart from what is read


def test_what_a_command_reads_is_not_written_over_nor_added_to(out, tmp_path):
    out.write_bytes(b"a text")
    for used in (out, tmp_path):
        with pytest.raises(CheckpointError, match=f"would change {used}, which this command uses"):
            check_writable(out, ["-", used], overwrite=True)
    check_writable(out, ["-", tmp_path / "other"], overwrite=True)


def test_a_path_is_part_of_a_file_or_folder_by_whatever_name(out, tmp_path):
    (tmp_path / "link").symlink_to(out.parent)
    for source in (out, str(out.parent), tmp_path, tmp_path / "link" / "m.npz"):
        assert part_of(tmp_path / "link" / "m.npz", ["-", source]) == source
    assert part_of("-", ["-"]) is None
    assert part_of(out, [tmp_path / "fold", out.parent / "other.npz"]) is None


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
@pytest.mark.parametrize(("number", "held"), [(errno.EAGAIN, True), (errno.ENOLCK, False)])
def test_where_a_file_system_has_no_locks_a_run_goes_on(number, held, tmp_path, monkeypatch):
    import fcntl

    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    refused = pytest.raises(CheckpointError, match="another run") if held else nullcontext()
    with refused, exclusive_lock(tmp_path / "m.npz"):
        pass


@POSIX
def test_other_users_may_take_the_lock(tmp_path):
    before = os.umask(0)
    try:
        with exclusive_lock(tmp_path / "m.npz"):
            (lock,) = tmp_path.iterdir()
            assert lock.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)
