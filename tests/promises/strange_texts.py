"""Promise 4: any text is read as it is or refused in one line, in bounded memory, and none of it
reaches a terminal raw.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

from promises.trial import (
    LINUX,
    PATIENCE,
    POSIX,
    Trial,
    a_text,
    begin,
    charrnn,
    command,
    environment,
    folder,
    wait_for,
)

QUICK = (
    "--hidden",
    "4",
    "--batch-size",
    "2",
    "--seq-len",
    "8",
    "--steps",
    "2",
    "--workers",
    "1",
    "--quiet",
)
MEMORY = 400_000_000  # bytes; Python with NumPy alone takes some 45 million
TEXTS = {
    "NUL": "a\0b\0\0c",
    "line and paragraph separators": "one\u2028two\u2029three\x85four\x0bfive\x0csix\x1cseven",
    "right to left": "שלום עולם\u200f مرحبا \u202e reversed \u202c\u2067 isolated \u2069",
    "emoji sequences": "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👍🏽 🇩🇪 1️⃣ ❤️",
    "astral alone": "𐍈𝔘𝔫𝔦𝔠𝔬𝔡𝔢𠀀🜁\U0010fffd",
    "NFC": "é ñ å ö 각",
    "NFD": "e\u0301 n\u0303 a\u030a o\u0308 \u1100\u1161\u11a8",
    "both forms": "é e\u0301 Å \u212b A\u030a ﬁ fi",
    "combining alone": "\u0301\u0302\u0303\u20dd",
    "marks inside": "a\ufeffb\ufeff\u200b\u2060c",
    "no characters": "a\uffffb\ufdd0c\U0010ffffd\ufffd",
    "markup": "[bold red]x[/] :smile: {0} %s \\n <b>&amp;</b>",
    "escapes": "\x1b[31337mred\x1b]0;title\x07\x1bP+q\x1b\\\x9b31337m\x08\x7f",
}
BROKEN: dict[str, tuple[bytes, str]] = {
    "half a pair in UTF-16": (
        "a".encode("utf-16-le") + b"\x00\xd8" + "b".encode("utf-16-le"),
        "utf-16-le",
    ),
    "half a pair at the end": ("ab".encode("utf-16") + b"\x00\xd8", "utf-16"),
    "second half first": (
        "a".encode("utf-16-be") + b"\xdc\x00" + "b".encode("utf-16-be"),
        "utf-16-be",
    ),
    "half a character": ("abc".encode("utf-16-le") + b"a", "utf-16-le"),
    "surrogates in UTF-8": (b"ab\xed\xa0\x80\xed\xb0\x80", "utf-8"),
    "surrogates in UTF-7": (b"ab+2AA-c", "utf-7"),
    "escaped surrogates": (b"ab\\ud800c", "unicode_escape"),
    "overlong": (b"ab\xc0\xaf", "utf-8"),
    "beyond Unicode": (b"ab\xf4\x90\x80\x80", "utf-8"),
}


def one_line(err: str, words: str = "") -> bool:
    """Return whether stderr is one line that is no surprise to charrnn."""
    return (
        err.startswith("charrnn: ")
        and err.count("\n") == 1
        and "internal error" not in err
        and words in err
    )


def as_they_are(names: list[str]) -> Trial:
    """Return the trial of texts that are trained on, evaluated, and given as a prime, character by
    character.
    """
    trial = Trial(
        "4. no text is changed", "train, info, eval, and sample --prime-file with each Unicode edge"
    )
    with folder() as home:
        for name in names:
            path, out = home / "text.txt", home / "m.npz"
            path.write_bytes(TEXTS[name].encode("utf-8") * 5)
            named = ["--encoding", "utf-8"] if name == "NUL" else []
            ended = charrnn("train", path, *QUICK, *named, "--out", out, "--overwrite")
            trial.check(ended.code == 0, f"{name}: {ended.err}")
            known = json.loads(charrnn("info", out, "--json").out)["vocabulary"]
            trial.check(
                known == "".join(sorted(set(TEXTS[name]))), f"{name}: the vocabulary is {known!a}"
            )
            read = json.loads(charrnn("eval", out, path, *named, "--json").out)
            trial.check(
                (read["characters"], read["unknown"]) == (5 * len(TEXTS[name]) - 1, 0),
                f"{name}: {read}",
            )
            ended = charrnn(
                "sample",
                out,
                "--prime-file",
                path,
                *named,
                "--length",
                "1",
                "--seed",
                "1",
                changes={"PYTHONUTF8": "1"},
            )
            trial.check(
                ended.out.startswith(path.read_bytes()), f"{name}: the prime became {ended.out!r}"
            )
    return trial


def broken(names: list[str]) -> Trial:
    """Return the trial of bytes that are no text in the encoding that was named."""
    trial = Trial(
        "4. what is no text is refused",
        "half pairs, overlong and cut-off characters: one line, exit 1, nothing written",
    )
    with folder() as home:
        for name in names:
            path = home / "text.txt"
            path.write_bytes(BROKEN[name][0])
            ended = charrnn(
                "train", path, *QUICK, "--encoding", BROKEN[name][1], "--out", home / "m.npz"
            )
            good = ended.code == 1 and one_line(ended.err) and os.listdir(home) == ["text.txt"]
            trial.check(good, f"{name}: {ended} {os.listdir(home)}")
    return trial


def bomb(path: Path, characters: int, char: bytes) -> Path:
    """Return a small .gz that unfolds to so many characters: members of 2²⁴, one after the
    other.
    """
    member = gzip.compress(char * (1 << 24), 9)
    path.write_bytes(member * (characters >> 24))
    return path


def bombs(size: int) -> Trial:
    """Return the trial of archives of a few MB that hold `size` characters."""
    trial = Trial(
        "4. bombs stay small",
        f"{size / 1e9:.1f} GB of zeros or known characters in a .gz: eval, --prime-file, --novel",
    )
    with folder() as home:
        out, lines = home / "m.npz", home / "lines.npz"
        assert charrnn("train", a_text(home / "text.txt"), *QUICK, "--out", out).code == 0
        assert charrnn("train", home / "text.txt", *QUICK, "--lines", "--out", lines).code == 0
        known, zeros = bomb(home / "known.gz", size, b"a"), bomb(home / "zeros.gz", size, b"\0")
        for path in (zeros, known):
            for words in (
                ("eval", out, path),
                ("eval", lines, path),
                ("sample", out, "--prime-file", path, "--seed", "1"),
            ):
                ended = charrnn(*words)
                what = f"{words}: {ended.code} {ended.err} {ended.peak / 1e6:.0f} MB"
                trial.check(ended.code == 1 and one_line(ended.err) and ended.peak < MEMORY, what)
        ended = charrnn("eval", out, zeros, "--unknown", "skip")
        trial.check(
            ended.code == 1 and ended.peak < MEMORY,
            f"eval, zeros skipped: {ended} {ended.peak / 1e6:.0f} MB",
        )
        ended = charrnn("sample", lines, "--novel", known, "--seed", "1")
        trial.check(
            ended.code == 1 and one_line(ended.err) and ended.peak < MEMORY, f"--novel: {ended}"
        )
    return trial


def odd_files() -> Trial:
    """Return the trial of loops, sockets, devices, pipes and unreadable files, named and within a
    folder.
    """
    trial = Trial(
        "4. odd files",
        "loops of links, sockets, devices, pipes, unreadable and hidden files: named, and within a "
        "folder",
    )
    with folder() as home:
        corpus, odd = home / "corpus", home / "odd"
        corpus.mkdir()
        odd.mkdir()
        a_text(corpus / "text.txt")
        (corpus / "loop").symlink_to(corpus, target_is_directory=True)
        (corpus / "zero").symlink_to("/dev/zero")
        (corpus / "self").symlink_to("self")
        os.mkfifo(corpus / "pipe")
        with socket.socket(socket.AF_UNIX) as listening, chdir(corpus):
            listening.bind("socket")
            ended = charrnn("train", corpus, *QUICK[:-1], "--out", home / "m.npz")
            trial.check(ended.code == 0, f"a folder of odd files: {ended.err}")
            for name in ("loop", "zero", "self", "pipe", "socket"):
                trial.check(
                    f"corpus/{name}: skipped" in ended.err,
                    f"{name} isn't said to be skipped: {ended.err}",
                )
            for path in (corpus / "socket", "/dev/zero", corpus / "self", odd):
                ended = charrnn("train", path, *QUICK, "--out", odd.parent / "new.npz")
                trial.check(ended.code == 1 and one_line(ended.err), f"{path}: {ended}")
    return trial


def changing_files() -> Trial:
    """Return the trial of a corpus that shrinks while it is read, and of one that is overwritten
    while it is trained on.
    """
    trial = Trial(
        "4. files that change",
        "a text cut off while it is read, and one overwritten during training and before a resume",
    )
    _cut_while_read(trial)
    with folder() as home:
        path, out, log = a_text(home / "text.txt"), home / "m.npz", home / "run.jsonl"
        options = [
            *QUICK[:6],
            "--workers",
            "2",
            "--quiet",
            "--steps",
            "400",
            "--val-every",
            "5",
            "--sample-every",
            "0",
        ]
        assert charrnn("train", path, *options, "--out", home / "still.npz").code == 0
        process = begin(command("train", path, *options, "--out", out, "--log", log))
        wait_for(lambda: process.poll() is not None or (log.exists() and log.stat().st_size))
        path.write_bytes(b"")
        trial.check(process.wait() == 0, "a corpus that is emptied during training")
        a, b = ((home / name).read_bytes() for name in ("still.npz", "m.npz"))
        trial.check(
            _weights(home / "still.npz") == _weights(out) and a != b,
            "the weights know of the corpus that changed",
        )
        path.write_text("another text, and a rather short one")
        ended = charrnn("train", "--resume", "--steps", "500", "--out", out)
        refused = ended.code == 1 and one_line(
            ended.err,
            "not the one of this run: it has 36 characters in 1 text, the run's had 6,000 in 1",
        )
        trial.check(refused, f"resuming with another text: {ended}")
    return trial


def _weights(path: Path) -> bytes:
    from charrnn.checkpoint.model import load

    return load(path).parameters.flat.tobytes()


def _cut_while_read(trial: Trial) -> None:
    """Cut a text off between two reads: what was read is what counts, to the character."""
    from charrnn.text.sources import CHUNK, Source

    with folder() as home:
        for kept in (0, CHUNK, 3 * CHUNK, 3 * CHUNK + 1):
            path = home / "text.txt"
            path.write_bytes(b"abcdefgh" * CHUNK)
            pieces = iter(Source(path))
            read = next(pieces)
            os.truncate(path, kept)
            read += "".join(pieces)
            trial.check(
                len(read) == max(kept, CHUNK),
                f"cut to {kept:,} bytes: {len(read):,} characters were read",
            )


STRANGE = "\x1b[31337mX\x1b]0;pwned\x07\x1b[2J\x9b31337m\u202eevil\x1bP1$r\x1b\\\x1b_x\x1b\\"
ALLOWED = re.compile(r"\x1b\[(?:[0-9]{1,3}(?:;[0-9]{1,3})*)?m|\x1b\[[AK]|\x1b\[\?25[lh]|[\r\n\t]")
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def leaks(shown: str) -> list[str]:
    """Return what in a terminal's input isn't text, a colour, or the movement of one line."""
    rest = ALLOWED.sub("", shown)
    return [
        rest[max(0, found.start() - 20) : found.end() + 20] for found in FORBIDDEN.finditer(rest)
    ]


def on_terminal(words: list[str], keys: Sequence[bytes] = (), **changes: str) -> str:
    """Return all that a command writes to a terminal of its own; each of `keys` is typed when it
    has nothing more to say.
    """
    import pty
    import select

    master, slave = pty.openpty()
    process = begin(
        words,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(TERM="xterm-256color", **changes),
    )
    os.close(slave)
    shown, typed, end = b"", list(keys), time.monotonic() + PATIENCE
    with suppress(OSError):  # Linux's way to say that nobody writes any more
        while time.monotonic() < end:
            if select.select([master], [], [], 0.5)[0]:
                piece = os.read(master, 1 << 16)
                shown += piece
                if not piece:
                    break
            elif shown and typed:
                os.write(master, typed.pop(0))
    if process.poll() is None and time.monotonic() > end:
        process.kill()
    process.wait()
    os.close(master)
    return shown.decode("utf-8", "replace")


def terminals(few: bool) -> Trial:
    """Return the trial of every command on a pseudo-terminal, with escape sequences in all that it
    is given.
    """
    trial = Trial(
        "4. nothing raw on a terminal",
        "escape sequences in text, vocabulary, names, prime, meta and samples, "
        "on a pseudo-terminal",
    )
    with folder() as home:
        corpus = home / f"a{STRANGE.replace('/', '')}b.txt"
        corpus.write_text((STRANGE + "\nan ordinary line\n") * 40, encoding="utf-8")
        out, lines, poisoned = home / "m\x1b[31337m.npz", home / "lines.npz", home / "poisoned.npz"
        train = [
            "train",
            corpus,
            *QUICK[:6],
            "--steps",
            "60",
            "--val-every",
            "20",
            "--sample-every",
            "2",
            "--workers",
            "1",
        ]
        for words in ([*train, "--out", out], [*train, "--lines", "--out", lines]):
            _seen(trial, words)
        _poison(out, poisoned)
        trial.check(
            leaks(on_terminal(["cat", str(corpus)])),
            "escape sequences are not even found in the text itself",
        )
        commands = list(_showing(home, corpus, out, lines, poisoned))
        for words, keys in commands[::3] if few else commands:
            _seen(trial, words, keys)
            if not few:
                _seen(trial, [*words, "--debug"], keys)
                _seen(trial, words, keys, LC_ALL="C", NO_COLOR="1")
    return trial


def _showing(
    home: Path, corpus: Path, out: Path, lines: Path, poisoned: Path
) -> Iterator[tuple[list[Any], Sequence[bytes]]]:
    """Yield commands that show what they were given, with the keys to type."""
    yield ["sample", out, "--prime", STRANGE, "--length", "300", "--seed", "1", "--temp", "3"], ()
    yield ["sample", out, "--prime", STRANGE, "--length", "50", "--seed", "1", "--show-probs"], ()
    yield ["sample", lines, "--num", "20", "--seed", "1", "--temp", "3"], ()
    yield ["sample", out, "--num", "2", "--length", "50", "--seed", "1", "--temp", "3"], ()
    yield ["sample", out, "--interactive", "--length", "30", "--seed", "1"], [b"an ordi\n", b"\x04"]
    yield ["sample", out, "--prime", "unknown \x1b[31337m\u0416"], ()
    yield ["sample", f"{home}/missing\x1b[31337m\x9b.npz"], ()
    yield ["eval", out, corpus, "--heat"], ()
    yield ["eval", out, corpus, "--worst", "3"], ()
    yield ["eval", out, corpus, "--unit", "1"], ()
    yield ["eval", out, f"{home}/missing\x1b[31337m.txt"], ()
    yield ["next", out, STRANGE], ()
    yield ["info", out], ()
    yield ["info", poisoned], ()
    yield ["info", poisoned, out], ()
    yield ["eval", poisoned, corpus], ()
    yield ["train", corpus, "--resume", "--out", poisoned], ()
    yield ["train", corpus, "--out", out], ()
    yield ["train", f"{home}/\x1b[31337m", "--out", home / "new.npz"], ()
    yield ["train", corpus, "--encoding", "\x1b[31337m"], ()
    yield ["train", corpus, "--cell", "\x1b[31337m"], ()
    yield ["train", corpus, "--steps", "\x1b[31337m"], ()
    yield ["\x1b[31337m"], ()


def _seen(trial: Trial, words: list[Any], keys: Sequence[bytes] = (), **changes: str) -> None:
    shown = on_terminal(command(*words), keys, **changes)
    found = leaks(shown)
    trial.check(
        shown and not found,
        f"{words} {changes}: {found[:3]}" if shown else f"{words} {changes} shows nothing",
    )


def _poison(good: Path, path: Path) -> None:
    """Write a model whose meta has escape sequences wherever a string may be."""
    from dataclasses import replace

    from charrnn.checkpoint.model import load, save

    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                (STRANGE if key == "more" else key): poisoned(item)
                for key, item in {**value, "more": 1}.items()
            }
        if isinstance(value, list):
            return [poisoned(item) for item in value]
        return STRANGE if isinstance(value, str) else value

    model = load(good)
    save(path, replace(model, meta=poisoned(model.meta)))


def trials(full: bool) -> list[Trial]:
    """Return all trials of this promise."""
    found = [
        as_they_are(list(TEXTS) if full else ["NUL", "both forms", "escapes"]),
        broken(list(BROKEN) if full else list(BROKEN)[:3]),
    ]
    tried: list[Callable[[], Trial]] = [changing_files]
    tried += [odd_files, lambda: terminals(not full)] if POSIX else []
    tried += [lambda: bombs((2 << 30) if full else (1 << 28))] if LINUX else []
    return [*found, *(attempt() for attempt in tried)]
