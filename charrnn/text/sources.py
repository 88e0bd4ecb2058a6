"""Files, folders, archives and standard input as streams of clean characters."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from charrnn.errors import CorpusError, UsageError

CHUNK = 1 << 20  # bytes read at once; a folder's file that isn't text in the first is skipped
_NAMED = 5  # files of a folder that are named for the same note; the others are counted
_OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MARKS = {  # how files begin that are taken for text, and what to do
    b"\xff\xfe": "it starts like UTF-16: give --encoding utf-16",
    b"\xfe\xff": "it starts like UTF-16: give --encoding utf-16",
    b"\x1f\x8b": "it is compressed by gzip: give it a name in .gz, or pipe it through gunzip",
    b"BZh9": "it is compressed by bzip2: give it a name in .bz2, or pipe it through bunzip2",
    b"\xfd7zXZ": "it is compressed by xz: give it a name in .xz, or pipe it through unxz",
    b"PK\x03\x04": "it is a zip archive, or a document such as .docx that is one: give its text",
    b"%PDF-": "it is a PDF document: give its text",
    b"\x89PNG": "it is a PNG picture",
    b"\xff\xd8\xff": "it is a JPEG picture",
    b"\x7fELF": "it is a program",
}


_NUL = (
    "it has NUL characters, as archives, documents, programs and UTF-16 have: if it is text, give "
    "its encoding by name, such as --encoding utf-16-le"
)


def check_encoding(name: str) -> None:
    """Raise UsageError unless `name` is an encoding of text that can be read piece by piece."""
    try:
        known = codecs.lookup(name).name not in ("idna", "punycode")
        "a".encode(name)  # fails for rot13, hex and others that are no encodings of text
    except (LookupError, ValueError):
        known = False
    if not known:
        raise UsageError(
            f"--encoding {name} isn't an encoding of texts; try utf-8, utf-16, latin-1 or cp1251"
        )


class _NotTextError(CorpusError):
    """A file that cannot be read as text; within a folder it is skipped for this reason."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Source:
    """The characters of a file, a folder's text files or standard input, to be read once.

    Iterating yields them in pieces, line ends as \\n, without byte order marks; `notes` says then
    what was changed or left out. Raises CorpusError. Without an `encoding` by name it is UTF-8,
    and NUL characters are refused. With `lines` the files of a folder end with a newline each.
    """

    def __init__(
        self, source: str | Path, encoding: str | None = None, *, lines: bool = False
    ) -> None:
        self.encoding, self.guessed = "utf-8" if encoding is None else encoding, encoding is None
        check_encoding(self.encoding)
        self.is_stdin, self.path = str(source) == "-", Path(source)
        self.name = "standard input" if self.is_stdin else str(source)
        self._lines = lines
        self._notes: dict[str, dict[str, None]] = {}  # the files of each note, in order

    def __iter__(self) -> Iterator[str]:
        is_folder = not self.is_stdin and _checked(self.name) == "folder"
        pieces = self._folder() if is_folder else self._file(self.path, self.name)
        first = next(pieces, "")
        if not first:
            text = f"{self.encoding} text" if is_folder else "characters"
            raise CorpusError(f"{self.name}: has no {text} in it; give a text")
        yield from chain([first], pieces)

    @property
    def notes(self) -> list[str]:
        """What was changed or left out, a line for each file, the same for many files shortened."""
        lines = []
        for what, files in self._notes.items():
            lines += [f"{file}: {what}" for file in list(files)[:_NAMED]]
            if len(files) > _NAMED:
                lines.append(f"{self.name}: {what} ({len(files) - _NAMED} more files)")
        return lines

    def _note(self, file: str | Path, what: str) -> None:
        self._notes.setdefault(what, {})[str(file)] = None

    def _folder(self) -> Iterator[str]:
        """Yield the characters of the text files, one file after the other by path."""
        read = 0
        for path in self.files():
            pieces = self._file(path, str(path))
            try:
                piece = next(pieces, "")
            except _NotTextError as error:
                self._note(path, f"skipped, {error.reason}")
                continue
            read += 1
            while piece:
                yield piece
                end, piece = piece[-1], next(pieces, "")
                if self._lines and not piece and end != "\n":
                    yield "\n"
        skipped = sum(len(files) for what, files in self._notes.items() if what.startswith("skip"))
        if skipped:
            self._note(self.name, f"files read: {read}, skipped: {skipped}")

    def files(self) -> list[Path]:
        """Return the regular files of the folder that aren't hidden, by path; of a file itself."""
        return list(self._walk(self.path))

    def _walk(self, path: Path) -> Iterator[Path]:
        """Yield the files. Links to folders aren't followed, so that there are no loops."""
        try:
            kind, own = _kind(path.stat()), path == self.path
            if path.name.startswith(".") and not own:
                self._note(path, "skipped, hidden")
            elif kind == "folder" and (own or not path.is_symlink()):
                for child in sorted(path.iterdir()):
                    yield from self._walk(child)
            elif kind == "file":
                yield path
            else:
                self._note(path, f"skipped, a {'link to a ' * path.is_symlink()}{kind}")
        except OSError as error:
            self._note(path, f"skipped, cannot be read ({error.strerror})")

    def _file(self, path: Path, name: str) -> Iterator[str]:
        """Yield the clean characters of one file in pieces, none of them empty."""
        try:
            opened = _OPEN.get(path.suffix.lower(), open)
            with _standard_input() if self.is_stdin else opened(path, "rb") as file:
                yield from self._decoded(file, name)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            reason, advice = "a broken archive", "make or fetch it again"
            if isinstance(error, OSError) and error.errno:  # else gzip and bz2 mean their data
                reason, advice = "cannot be read", "check the file and its permissions"
            what = getattr(error, "strerror", None) or error
            raise _NotTextError(f"{name}: {reason} ({what}); {advice}", reason) from error

    def _decoded(self, file: Any, name: str) -> Iterator[str]:
        decode = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder(self.encoding)(), translate=True
        )
        # A pipe is read as it comes: a slow one has less than a chunk before its end.
        is_pipe = self.is_stdin or self.path.is_fifo()
        read, least = (file.read1, 1) if is_pipe else (file.read, CHUNK)
        head, offset, begun, ended, in_folder = b"", 0, False, False, name != self.name
        while not ended:
            chunk = read(CHUNK)
            head, offset, ended = head or chunk, offset + len(chunk), len(chunk) < least
            if self.guessed and chunk is head and (cause := _mark(head)):
                raise _NotTextError(f"{name}: isn't text; {cause}", f"not text ({cause})")
            failure, text = None, ""
            try:
                text = decode.decode(chunk, final=ended)
            except UnicodeError as error:
                failure = self._undecodable(name, head, offset, error)
                if isinstance(error, UnicodeDecodeError) and not in_folder:
                    with suppress(UnicodeError):  # the beginning may be wrong in another way
                        text = decode.decode(chunk[: error.start - len(error.object)])
            if "\0" in text and (self.guessed or in_folder):
                raise _NotTextError(
                    f"{name}: isn't text; {_NUL}", "not text (it has NUL characters)"
                )
            if text[:1] == "\ufeff" and not begun:
                self._note(name, "byte order mark at the start left out")
                text, begun = text[1:], True
            if text:
                begun = True
                yield text
            if failure:
                raise failure
        seen = decode.newlines or ()
        for end in (seen,) if isinstance(seen, str) else seen:
            if end != "\n":
                self._note(self.name, f"line ends {end!r} made '\\n'")

    def _undecodable(
        self, name: str, head: bytes, offset: int, error: UnicodeError
    ) -> _NotTextError:
        """Return what to say about bytes that aren't in the encoding; `offset` is behind them."""
        what, hint = f"isn't {self.encoding} ({error})", f"{self.encoding}-le"
        if isinstance(error, UnicodeDecodeError):  # else there was no byte order mark
            at = offset - len(error.object) + error.start  # some bytes of earlier chunks are left
            byte, reason = error.object[error.start], error.reason
            what = f"byte 0x{byte:02x} at offset {at} isn't {self.encoding} ({reason})"
            hint = "latin-1 or --encoding cp1251"
        cause = _mark(head) or f"give the encoding it was saved in, such as --encoding {hint}"
        cause = _NUL if self.guessed and b"\0" in head else cause
        return _NotTextError(f"{name}: {what}; {cause}", f"not {self.encoding} text")


def _mark(head: bytes) -> str:
    """Return what a file that begins so is, if not text, and what to do; else ""."""
    return next((cause for mark, cause in _MARKS.items() if head.startswith(mark)), "")


def _standard_input() -> AbstractContextManager[Any]:
    if sys.stdin is None:
        raise CorpusError("- is standard input, which is closed; give a file")
    return nullcontext(sys.stdin.buffer)


def _checked(source: str) -> str:
    """Return whether it is a folder, a file or a pipe. Raises CorpusError for anything else."""
    if not source:
        raise CorpusError("the name of a corpus is empty; give a file, a folder or -")
    try:
        kind = _kind(Path(source).stat())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"{source}: cannot be read ({reason}); check the path") from error
    if kind in ("socket", "device"):
        raise CorpusError(
            f"{source}: is a {kind}, not a text; give a file, a folder, or - for standard input"
        )
    return kind


def _kind(status: os.stat_result) -> str:
    kinds = {"d": "folder", "-": "file", "p": "pipe", "s": "socket"}
    return kinds.get(stat.filemode(status.st_mode)[0], "device")
