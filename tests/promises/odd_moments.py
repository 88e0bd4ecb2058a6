"""Promise 9: whatever happens at whatever moment, a command ends in its own words and leaves whole
files: signals, disks that fill, files that change under it, texts that are damaged.
"""

from __future__ import annotations

import codecs
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from promises.trial import (
    LINES,
    LINUX,
    PATIENCE,
    POSIX,
    TALES,
    Ended,
    Trial,
    a_text,
    begin,
    charrnn,
    command,
    fill,
    folder,
    small_disk,
)

TINY = ("--hidden", "8", "--workers", "1", "--sample-every", "0")
MODEL_FILES = ("m.npz", "old.npz")


def in_its_words(ended: Ended, *codes: int) -> bool:
    """Return whether a command ended with one of the codes, and a failure in one line."""
    words = [line for line in ended.err.splitlines() if line.startswith("charrnn: ")]
    surprise = "Traceback" in ended.err or "internal error" in ended.err
    return ended.code in codes and not surprise and len(words) == (ended.code == 1)


def made(home: Path) -> tuple[Path, Path]:
    """Return a text and a model of it in a folder."""
    text, model = a_text(home / "text.txt"), home / "model.npz"
    words = ("train", text, *TINY, "--steps", "3", "--quiet", "--out", model)
    assert charrnn(*words).code == 0
    return text, model


def whole(folder: Path) -> bool:
    """Return whether all checkpoints of a folder load, and nothing half-written lies there."""
    models = [folder / name for name in MODEL_FILES if (folder / name).exists()]
    odd = [name for name in os.listdir(folder) if ".npz" in name and name not in MODEL_FILES]
    return not odd and all(charrnn("info", model).code == 0 for model in models)


def signals(count: int, seed: int = 0) -> Trial:
    """Return the trial of signals at random moments, from the first import to the last line."""
    trial = Trial("9. signals", "SIGINT, SIGTERM, once or twice, at random moments of 6 commands")
    rng = random.Random(seed)
    with folder() as home:
        text, model = made(home)
        out = home / "out"
        train = ("train", text, *TINY, "--out", out / "m.npz", "--save-every", "1ms")
        commands = [
            (*train, "--steps", "40", "--val-every", "3"),
            (*train, "--budget", "1s", "--log", out / "run.jsonl"),
            ("sample", model, "--num", "100000"),
            ("eval", model, text, "--heat"),
            ("gradcheck",),
            ("export", model, "-o", out / "page.html"),
        ]
        for _ in range(count):
            out.mkdir()
            words, number = rng.choice(commands), rng.choice([signal.SIGINT, signal.SIGTERM])
            pauses = [rng.uniform(0.3, 2.5), *([rng.uniform(0, 0.2)] if rng.random() < 0.5 else [])]
            ended = _signalled(words, number, pauses)
            good = in_its_words(ended, 128 + number, -number, 0)
            # before charrnn's first line Python itself ends, with its traceback
            good = good or ("charrnn/cli/app.py" not in ended.err and ended.code == -number)
            trial.check(good and whole(out), f"{words} {number!r} after {pauses}: {ended}")
            shutil.rmtree(out)
    return trial


def _signalled(words: tuple[object, ...], number: int, pauses: list[float]) -> Ended:
    """Return how a command ended that got a signal after each pause."""
    process = begin(command(*words), stderr=subprocess.PIPE)
    for pause in pauses:
        time.sleep(pause)
        with suppress(ProcessLookupError):
            process.send_signal(number)
    told = process.communicate()[1].decode(errors="replace")
    return Ended(process.returncode, b"", told, 0)


def terminals(count: int, seed: int = 0) -> Trial:
    """Return the trial of terminals that change their size all the time, and of some that go."""
    trial = Trial("9. terminals", "other sizes all the time; closed at random moments")
    rng = random.Random(seed)
    with folder() as home:
        text, model = made(home)
        out = home / "out"
        train = ("train", text, *TINY[:4], "--out", out / "m.npz", "--val-every", "20")
        commands = [
            (*train, "--steps", "400", "--sample-every", "20"),
            (*train, "--budget", "2s"),
            ("sample", model, "--num", "100", "--show-probs"),
            ("eval", model, text, "--heat"),
            ("info", model),
        ]
        for _ in range(count):
            out.mkdir()
            words, closes = rng.choice(commands), rng.choice([PATIENCE, rng.uniform(0.3, 3)])
            code, said = _on_changing_terminal(words, closes, rng)
            ends = (0,) if closes == PATIENCE else (0, 1, -signal.SIGHUP, 128 + signal.SIGHUP)
            surprise = "Traceback" in said or "internal error" in said
            good = code in ends and not surprise and whole(out)
            trial.check(good, f"{words}, closed after {closes}: {code}, {said[-500:]}")
            shutil.rmtree(out)
    return trial


def _on_changing_terminal(
    words: tuple[object, ...], closes: float, rng: random.Random
) -> tuple[int, str]:
    """Return how a command ended, and what it said, on a terminal that closes after some time."""
    import fcntl
    import pty
    import termios

    master, slave = pty.openpty()
    own = partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0)  # the terminal of the session
    streams: dict[str, Any] = {"stdin": slave, "stdout": slave, "stderr": slave}
    process = begin(command(*words), **streams, start_new_session=True, preexec_fn=own)
    os.close(slave)
    said, end = b"", time.monotonic() + closes
    with suppress(OSError):  # the command has ended
        while time.monotonic() < end:
            size = struct.pack("4H", rng.choice([2, 24]), rng.choice([0, 3, 80, 999]), 0, 0)
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)
            said += os.read(master, 500)
    os.close(master)
    return process.wait(), said.decode(errors="replace")


def filling_disks(levels: list[int]) -> Trial:
    """Return the trial of disks on which so many bytes are left, under all that is written."""
    trial = Trial("9. disks that fill", "so many bytes left under checkpoint, log, page, pictures")
    with folder() as home:
        text, model = made(home)
        train = ("train", text, *TINY, "--steps", "40", "--val-every", "5", "--save-every", "1ms")
        for left in levels:
            writes: dict[str, Callable[[Path], tuple[object, ...]]] = {
                "m.npz": lambda disk: (*train, "--out", disk / "m.npz"),
                "old.npz": lambda disk: (*train, "--out", disk / "old.npz", "--overwrite"),
                "run.jsonl": lambda disk: (
                    *(*train, "--out", home / "m.npz", "--overwrite"),
                    *("--log", disk / "run.jsonl"),
                ),
                "page.html": lambda disk: ("export", model, "-o", disk / "page.html"),
                "heat.svg": lambda disk: ("eval", model, text, "--svg", disk / "heat.svg"),
                "my.py": lambda disk: ("gradcheck", "--exercise", disk / "my.py"),
            }
            for name, words in writes.items():
                with small_disk(1 << 19) as disk:
                    if disk is None:
                        return trial
                    shutil.copy(model, disk / "old.npz")
                    filler = fill(disk)
                    os.truncate(filler, max(0, filler.stat().st_size - left))
                    ended = charrnn(*words(disk))
                    half = ended.code and (disk / name).exists() and name.endswith(("l", "g", "y"))
                    good = in_its_words(ended, 0, 1) and whole(disk) and not half
                    trial.check(good, f"{name}, {left} bytes left: {ended} {os.listdir(disk)}")
    return trial


def changing(count: int, seed: int = 0) -> Trial:
    """Return the trial of texts that change, vanish or are replaced while a command reads them."""
    trial = Trial("9. files that change", "cut, longer, other bytes, gone, a folder: while read")
    rng = random.Random(seed)
    changes: dict[str, Callable[[Path], object]] = {
        "cut": lambda path: os.truncate(path, rng.randrange(1_000_000)),
        "longer": lambda path: path.open("ab").write(b"abc\n" * 100_000),
        "other": lambda path: path.write_bytes(rng.randbytes(1_000_000)),
        "gone": lambda path: path.unlink(),
        "a folder": lambda path: (path.unlink(), path.mkdir()),
    }
    with folder() as home:
        _, model = made(home)
        text, many, out = home / "long.txt", home / "many", home / "m.npz"
        many.mkdir()
        for _ in range(count):
            for path in (text, many / "a.txt", many / "b.txt"):
                path.write_bytes(LINES.read_bytes() * 60)
            train = (*TINY, "--steps", "2", "--quiet", "--overwrite", "--out", out)
            words = rng.choice(
                [
                    ("train", text, *train),
                    ("train", many, *train),
                    ("train", many, "--lines", *train),
                    ("eval", model, text, "--unknown", "skip", "--streams", "64"),
                ]
            )
            name, path = rng.choice(list(changes)), rng.choice([text, many / "b.txt"])
            process = begin(command(*words), stderr=subprocess.PIPE)
            time.sleep(rng.uniform(0.2, 2))
            changes[name](path)
            told = process.communicate()[1].decode(errors="replace")
            ended = Ended(process.returncode, b"", told, 0)
            trial.check(in_its_words(ended, 0, 1), f"{words}, {path.name} {name}: {ended}")
            for path in (text, many / "b.txt"):
                if path.is_dir():
                    path.rmdir()
    return trial


ENCODINGS = "utf-8 utf-8 utf-8 utf-8-sig utf-16 utf-16-le utf-16-be utf-32 latin-1 cp1251 koi8-r"
ENCODINGS += " gb18030 shift_jis big5 iso2022_jp utf-7 cp037 hz"
INSERTED = ("\ufeff", "\0", "\x1a", "\x0c", "\U0001f600", "e\u0301", "\u202e", "\r", "\ufffe", "ж")


def mutated_texts(count: int, seed: int = 0) -> Trial:
    """Return the trial of texts with other line ends, marks, encodings, and damaged bytes.

    What is read must be what Python decodes in one go, without a mark at the start and with \\n
    for every line end, however the pieces fall that are read at once.
    """
    from charrnn.errors import CharRNNError
    from charrnn.text import sources
    from charrnn.text.corpus import read_text

    trial = Trial("9. damaged texts", "line ends, marks, encodings, bytes at random; any pieces")
    rng, text = random.Random(seed), TALES.read_text(encoding="utf-8")
    before = sources.CHUNK
    try:
        with folder() as home:
            for _ in range(count):
                data, encoding = _mutated(rng, text)
                (home / "t.txt").write_bytes(data)
                sources.CHUNK = rng.choice([300, 500, 1 << 20])
                expected, refused = _decoded(data, encoding), ""
                try:
                    found, _ = read_text(home / "t.txt", encoding=encoding)
                except CharRNNError as error:
                    found, refused = "", str(error)
                asked = (encoding is None and "isn't text" in refused) or "BOM" in refused
                good = found == expected or asked
                what = f"{encoding}: {data[:40]!r}… {found[:40]!r} for {expected[:40]!r}, {refused}"
                trial.check(good and "\n" not in refused, what)
    finally:
        sources.CHUNK = before
    return trial


def _mutated(rng: random.Random, text: str) -> tuple[bytes, str | None]:
    """Return a damaged piece of a text, and the encoding to be given with it, None for none."""
    start, length = rng.randrange(len(text)), rng.choice([0, 1, 2, 3, 10, 100, 1000])
    piece = text[start : start + length]
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(piece) + 1)
        piece = rng.choice(
            [
                piece.replace("\n", rng.choice(["\r\n", "\r", "\x85", "\u2028", "\r\r\n", ""])),
                piece[:at] + rng.choice(INSERTED) + piece[at:],
                "\ufeff" * rng.randrange(3) + piece + rng.choice(["", "\r", "\0"]),
            ]
        )
    own, other = (rng.choice(ENCODINGS.split()) for _ in range(2))
    data = piece.encode(own, "ignore")
    for _ in range(rng.choice([0, 0, 1, 2])):
        at = rng.randrange(len(data) + 1)
        data = rng.choice(
            [data[:at], data[:at] + rng.randbytes(1) + data[at:], data[:at] + data[at + 1 :]]
        )
    return data, rng.choice([None, None, own, own, other])


def _decoded(data: bytes, encoding: str | None) -> str:
    """Return what is to be read, empty if it is to be refused."""
    try:
        text = codecs.decode(data, encoding or "utf-8")
    except UnicodeError:
        return ""
    text = re.sub("\r\n|\r", "\n", text.removeprefix("\ufeff"))
    refused = re.search("[\ud800-\udfff]", text) or (encoding is None and "\0" in text)
    return "" if refused else text


def trials(full: bool) -> list[Trial]:
    """Return all trials of this promise."""
    found = [mutated_texts(20_000 if full else 500)]
    if POSIX:
        found += [signals(200 if full else 10), changing(100 if full else 6)]
        found += [terminals(60 if full else 6)]
    if LINUX:
        levels = [0, 1, 100, *range(4096, 70_000, 4096), 100_000, 200_000]
        found += [filling_disks(levels if full else [0, 4096, 32768])]
    return found
