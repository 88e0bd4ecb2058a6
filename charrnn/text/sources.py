"""Files, folders, archives and standard input as streams of clean characters."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from charrnn.errors import CorpusError, UsageError

CHUNK = 1 << 20  # bytes read at once
_NAMED = 5  # files that are listed for each kind of note; the others are counted
_OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_MARKS = {  # first bytes of files that are mistaken for text, and what to do
    b"\xff\xfe": "it starts like UTF-16: give --encoding utf-16",
    b"\xfe\xff": "it starts like UTF-16: give --encoding utf-16",
    b"\x1f\x8b": "it is compressed by gzip: rename it to end in .gz, or pipe it through gunzip",
    b"BZh9": "it is compressed by bzip2: rename it to end in .bz2, or pipe it through bunzip2",
    b"\xfd7zXZ": "it is compressed by xz: rename it to end in .xz, or pipe it through unxz",
    b"PK\x03\x04": "it is a zip archive, or a document in one, such as .docx: extract its text",
    b"%PDF-": "it is a PDF document: extract its text",
    b"\x89PNG": "it is a PNG image",
    b"\xff\xd8\xff": "it is a JPEG image",
    b"\x7fELF": "it is a program",
}


class _NotTextError(Exception):
    """A file isn't text. `args`: the reason, and the advice that only an error message adds."""


class Source:
    """The characters of a file, a folder's text files or standard input, to be read once.

    Iterating yields them in pieces, with \\n as line ends and without byte order marks; afterwards
    `notes` says what was changed or left out. Raises CorpusError. Without an `encoding` the text is
    read as UTF-8. NUL characters are refused, except in a single text with an `encoding`. A file in
    a folder is skipped if its first CHUNK isn't text. With `lines`, a file in a folder always ends
    with a newline, added if missing.
    """

    def __init__(
        self, source: str | Path, encoding: str | None = None, *, lines: bool = False
    ) -> None:
        self.encoding, self.guessed = "utf-8" if encoding is None else encoding, encoding is None
        try:
            # fails for rot13, hex and other codecs that don't encode text
            "a".encode(self.encoding)
        except (LookupError, ValueError):
            raise UsageError(
                f"--encoding {encoding} isn't a text encoding; try utf-8, utf-16, latin-1 or cp1251"
            ) from None
        self.path, self.is_stdin = Path(source), str(source) == "-"
        self.is_folder = bool(source) and not self.is_stdin and self.path.is_dir()
        self.name = "standard input" if self.is_stdin else str(source) or "an empty name"
        self._lines = lines
        self._notes: dict[str, dict[str, None]] = {}  # the files of each note, in order

    def __iter__(self) -> Iterator[str]:
        is_empty = True
        for path in self.files() if self.is_folder else [self.path]:
            for piece in self._file(path, str(path) if self.is_folder else self.name):
                yield piece
                is_empty = False
        if is_empty:
            raise CorpusError(
                f"{self.name}: has no {self.encoding} text in it, or is empty; give a text"
            )

    @property
    def notes(self) -> list[str]:
        """What was changed or left out: one line per file, or one for many with the same note."""
        lines = []
        for what, files in self._notes.items():
            lines += [f"{file}: {what}" for file in list(files)[:_NAMED]]
            if len(files) > _NAMED:
                lines.append(f"{self.name}: {what} ({len(files) - _NAMED} more files)")
        return lines

    def _note(self, file: str | Path, what: str) -> None:
        self._notes.setdefault(what, {})[str(file)] = None

    def files(self) -> list[Path]:
        """Return a folder's regular, unhidden files, sorted by path; for a file, just itself."""
        return list(self._walk(self.path)) if self.is_folder else [self.path] * self.path.is_file()

    def _walk(self, folder: Path) -> Iterator[Path]:
        """Yield the files; links to folders aren't followed, because they may form loops."""
        try:
            for path in sorted(folder.iterdir()):
                if path.name.startswith("."):
                    self._note(path, "skipped, hidden")
                elif path.is_file():
                    yield path
                elif path.is_dir() and not path.is_symlink():
                    yield from self._walk(path)
                else:
                    self._note(path, "skipped, a link to a folder or not a regular file")
        except OSError as error:
            self._note(folder, f"skipped, cannot be read ({error.strerror})")

    def _file(self, path: Path, name: str) -> Iterator[str]:
        """Yield the clean characters of one file in pieces, none of them empty."""
        end = ""
        try:
            for piece in self._decoded(path):
                is_first, end = not end, piece[-1]
                if is_first and piece[0] == "\ufeff":
                    self._note(name, "byte order mark at the start removed")
                    piece = piece[1:]
                if piece:
                    yield piece
            if self._lines and self.is_folder and end not in ("", "\n"):
                yield "\n"
            return
        except _NotTextError as error:
            reason, more = error.args
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
            more = "; check the path, its permissions and that the file is complete"
        if end or not self.is_folder:
            raise CorpusError(f"{name}: {reason}{more}")
        self._note(name, f"skipped, {reason}")

    def _decoded(self, path: Path) -> Iterator[str]:
        decode = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder(self.encoding)(), translate=True
        )
        offset, ended = 0, False
        with self._opened(path) as file:
            # A pipe may return less than a chunk before its end, so only an empty read ends it.
            is_pipe = self.is_stdin or path.is_fifo()
            read, least = (file.read1, 1) if is_pipe else (file.read, CHUNK)
            while not ended:
                chunk = read(CHUNK)
                for mark, cause in _MARKS.items():
                    if self.guessed and not offset and chunk.startswith(mark):
                        raise _NotTextError(f"isn't text; {cause}", "")
                offset, ended = offset + len(chunk), len(chunk) < least
                failure = text = ""
                try:
                    text = decode.decode(chunk, final=ended)
                except UnicodeDecodeError as error:
                    at = error.start - len(error.object)  # from the end of what was read
                    byte = error.object[at]
                    failure = f"byte 0x{byte:02x} at offset {offset + at} ({error.reason})"
                    if not self.is_folder:
                        with suppress(UnicodeError):  # the bytes before it may be invalid too
                            text = decode.decode(chunk[:at])
                except UnicodeError as error:  # no byte order mark
                    failure = str(error)
                if "\0" in text and (self.guessed or self.is_folder):
                    raise _NotTextError(
                        "isn't text; it has NUL characters",
                        ", as archives, documents, programs and UTF-16 do: if it is text, name "
                        "its encoding, such as --encoding utf-16-le",
                    )
                if text:
                    yield text
                if failure:
                    raise _NotTextError(
                        f"isn't {self.encoding} text",
                        f": {failure}; give the encoding it was saved in, such as --encoding "
                        "latin-1, cp1251 or utf-16-le",
                    )
        if decode.newlines not in (None, "\n"):
            self._note(self.name, r"line ends \r or \r\n changed to \n")

    def _opened(self, path: Path) -> Any:
        if not self.is_stdin:
            return _OPEN.get(path.suffix.lower(), open)(path, "rb")
        if sys.stdin is None:
            raise OSError("it is closed")
        return nullcontext(sys.stdin.buffer)
