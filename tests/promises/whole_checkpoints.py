"""Promise 2: what lies at --out is whole whatever happens, and a bad place is refused at once."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from promises.exact_resume import events
from promises.trial import (
    LINUX,
    POSIX,
    ROOT,
    Ended,
    Trial,
    a_text,
    begin,
    charrnn,
    command,
    fill,
    folder,
    small_disk,
    wait_for,
)

TINY = (
    "--hidden",
    "24",
    "--batch-size",
    "4",
    "--seq-len",
    "8",
    "--workers",
    "1",
    "--sample-every",
    "0",
    "--quiet",
)
OFTEN = ("--save-every", "0.001s", "--val-every", "1", "--steps", "1000000")


def leftovers(folder: Path) -> list[str]:
    """Return the temporary and lock files in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".tmp", ".lock"))


def killing(count: int, seed: int = 0) -> list[Trial]:
    """Return the trials of `count` runs that save all the time and are killed."""
    how = "kill -9 at random moments while training saves after each step, then load it"
    loads = Trial("2. a checkpoint is always whole", how)
    tidy = Trial(
        "2. nothing is left of a killed run", "temporary and lock files after the next run"
    )
    rng, hit, step = random.Random(seed), 0, 0
    with folder() as home:
        out, log = home / "m.npz", home / "run.jsonl"
        begun = [str(a_text(home / "text.txt")), *TINY, *OFTEN, "--overwrite"]
        for number in range(count if POSIX else 0):
            before = leftovers(home)
            saved = _kill_one(
                [
                    *(begun if not number else ["--resume", *OFTEN, "--quiet"]),
                    "--out",
                    str(out),
                    "--log",
                    str(log),
                ],
                out,
                rng,
            )
            hit += any(name.endswith(".tmp") for name in leftovers(home))
            step = _look(loads, out, log, f"kill {number}", step)
            if saved:  # else it may have been killed before it could tidy up
                tidy.check(
                    not set(before) & set(leftovers(home)) - {".m.npz.lock"},
                    f"kill {number}: {before} are still there",
                )
        if count and POSIX:
            step = _step(out)
            ended = charrnn("train", "--resume", "--steps", step + 1, "--out", out, "--quiet")
            tidy.check(
                ended.code == 0 and not leftovers(home),
                f"after a run that ended: {ended} {leftovers(home)}",
            )
    loads.how += f" ({hit} were in the middle of writing it)"
    return [loads, tidy]


def _kill_one(options: list[str], out: Path, rng: random.Random) -> bool:
    """Start a run and kill it some time after its first save, one in eight even before.

    Return whether it had saved.
    """
    process = begin(command("train", *options))
    before = out.stat().st_mtime_ns if out.exists() else None
    if before is None or rng.randrange(8):
        wait_for(
            lambda: (
                process.poll() is not None or (out.exists() and out.stat().st_mtime_ns != before)
            ),
            pause=0.001,
        )
        time.sleep(rng.random() * 0.05)
    else:
        time.sleep(rng.random() * 0.5)
    assert process.poll() is None, f"the run ended by itself: {options}"
    process.kill()
    process.wait()
    return out.exists() and out.stat().st_mtime_ns != before


def _look(trial: Trial, out: Path, log: Path, what: str, before: int) -> int:
    """Check that a checkpoint loads with all that resuming needs, and return its step.

    That is the last that is known of, or the one after: a kill between saving and telling leaves
    the log without that step. `before`: its step before the run that was killed.
    """
    from charrnn.checkpoint.model import load_resume
    from charrnn.errors import CheckpointError

    told = max((event["step"] for event in events(log) if event["event"] == "saved"), default=0)
    known = max(told, before)
    try:
        model, resume = load_resume(out)
    except CheckpointError as error:
        trial.check(False, f"{what}: {error}")
        return before
    step: int = model.meta["step"]
    trial.check(
        "theta" in resume and known <= step <= known + 1,
        f"{what}: step {step}, but {known} was saved before",
    )
    return step


def _step(out: Path) -> int:
    from charrnn.checkpoint.model import load

    return int(load(out).meta["step"])


class Places:
    """Commands whose --out cannot be written: each is refused in one line, and nothing is lost."""

    def __init__(self) -> None:
        self.trial = Trial(
            "2. bad places are refused at once",
            "full disk, read-only disk, folder and file, folders, links, devices, a pipe",
        )

    def refused(self, out: Path, message: str, *options: str, **more: Any) -> None:
        """Train to `out`; nothing there may change, and one line must say why."""
        before = out.read_bytes() if out.is_file() else None
        ended = charrnn(
            "train", *TINY, "--steps", "3", "--out", out, "--overwrite", *options, **more
        )
        self.checked(ended, out, message)
        self.trial.check(
            before == (out.read_bytes() if out.is_file() else None), f"{out} has changed"
        )

    def checked(self, ended: Ended, out: Path, message: str) -> None:
        """Check how a command that was refused ended."""
        one_line = (
            ended.err.startswith("charrnn: ")
            and ended.err.count("\n") == 1
            and message in ended.err
        )
        self.trial.check(
            ended.code == 1 and one_line and not ended.out, f"{out}: {ended}, expected {message!r}"
        )


def bad_places() -> Trial:
    """Return the trial of all kinds of places that cannot be written."""
    places = Places()
    with folder() as home:
        trained = home / "trained.npz"
        assert charrnn("train", *TINY, "--steps", "3", "--out", trained).code == 0
        good = trained.read_bytes()
        places.refused(home, "this is a folder")
        places.refused(home / "nowhere" / "m.npz", "No such file or directory; check its folder")
        places.refused(trained / "m.npz", "Not a directory; check its folder")
        if POSIX:
            _links_and_devices(places, home, good)
        for attempt in (
            (_full_disk, _read_only_disk, _folder_that_goes, _without_permission) if LINUX else ()
        ):
            attempt(places, good)
    return places.trial


def _links_and_devices(places: Places, home: Path, good: bytes) -> None:
    os.mkfifo(home / "pipe")
    for out in (Path(os.devnull), home / "pipe"):
        places.refused(out, "this is not a regular file")
    (home / "to-folder").symlink_to(home, target_is_directory=True)
    places.refused(home / "to-folder", "this is a folder")
    (home / "real").mkdir()
    target, link = home / "real" / "target.npz", home / "link.npz"
    for content in (good, None):  # a link to a file, and one to nothing yet
        target.unlink(missing_ok=True)
        if content is not None:
            target.write_bytes(content)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        ended = charrnn("train", *TINY, "--steps", "4", "--out", link, "--overwrite")
        places.trial.check(
            ended.code == 0 and link.is_symlink() and _step(target) == 4,
            f"a symbolic link: {ended}",
        )
        places.trial.check(
            not leftovers(home) + leftovers(target.parent), "leftovers beside a symbolic link"
        )


def _full_disk(places: Places, good: bytes) -> None:
    """A disk that is full at once, and one that fills up in the middle of a run."""
    with small_disk(1 << 20) as disk:
        if disk is None:
            return
        out = disk / "m.npz"
        out.write_bytes(good)
        filler = fill(disk)
        places.refused(
            out, "No space left on device; check its folder, the permissions and the space left"
        )
        places.trial.check(leftovers(disk) == [], f"a full disk leaves {leftovers(disk)}")
        filler.unlink()
        with (disk.parent / f"{disk.name}.err").open("w+") as err:
            process = begin(
                command("train", *TINY, *OFTEN, "--out", out, "--overwrite"), stderr=err
            )
            before = out.stat().st_mtime_ns
            wait_for(lambda: process.poll() is not None or out.stat().st_mtime_ns != before)
            fill(disk)
            code = process.wait()
            err.seek(0)
            places.checked(Ended(code, b"", err.read(), 0), out, "No space left on device")
        Path(err.name).unlink()
        places.trial.check(
            _step(out) >= 1 and leftovers(disk) == [],
            f"a disk that fills up leaves {leftovers(disk)}",
        )


def _read_only_disk(places: Places, good: bytes) -> None:
    with small_disk(1 << 20) as disk:
        if disk is not None:
            (disk / "m.npz").write_bytes(good)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            places.refused(disk / "m.npz", "Read-only file system; check its folder")
            places.refused(disk / "new.npz", "Read-only file system; check its folder")


def _folder_that_goes(places: Places, good: bytes) -> None:
    """The folder is taken away in the middle of a run."""
    with folder() as home, (home / "err").open("w+") as err:
        out = home / "here" / "m.npz"
        out.parent.mkdir()
        process = begin(command("train", *TINY, *OFTEN, "--out", out), stderr=err)
        wait_for(lambda: process.poll() is not None or out.exists())
        out.parent.rename(home / "there")
        code = process.wait()
        err.seek(0)
        places.checked(
            Ended(code, b"", err.read(), 0), out, "cannot be written, nothing there was changed"
        )
        places.trial.check(
            _step(home / "there" / "m.npz") >= 1, "the checkpoint in a folder that went away"
        )


def _without_permission(places: Places, good: bytes) -> None:
    """A read-only file and folders without permission, as somebody who isn't root."""
    if os.geteuid() == 0 and not _nobody_can_run():
        return
    nobody: dict[str, Any] = (
        {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    )
    with folder() as home:
        home.chmod(0o777)
        read_only = home / "m.npz"
        read_only.write_bytes(good)
        read_only.chmod(0o444)
        places.refused(read_only, "this file is read-only", cwd=home, **nobody)
        closed = home / "closed"
        closed.mkdir()
        for mode in (0o555, 0o000):
            closed.chmod(mode)
            ended = charrnn(
                "train", *TINY, "--steps", "3", "--out", closed / "m.npz", cwd=home, **nobody
            )
            places.checked(ended, closed, "Permission denied; check its folder, the permissions")
        closed.chmod(stat.S_IRWXU)


def _nobody_can_run() -> bool:
    try:
        words = [sys.executable, "-c", "import numpy"]
        process = subprocess.run(
            words, user=65534, group=65534, extra_groups=[], cwd=ROOT, capture_output=True
        )
    except OSError:
        return False
    return process.returncode == 0


def trials(full: bool) -> list[Trial]:
    """Return all trials of this promise."""
    return [*killing(300 if full else 12), bad_places()]
