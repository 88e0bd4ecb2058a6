"""Files, folders, archives and standard input as streams of clean characters."""

from __future__ import annotations

import bz2
import codecs
import difflib
import encodings.aliases
import gzip
import io
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from charrnn.errors import CorpusError, UsageError
from charrnn.text.vocabulary import printable

CHUNK = 1 << 20  # bytes read and decoded at once
_HEAD = (
    1 << 16
)  # bytes of a folder's file that tell whether it is text; a NUL among the first 8 kB tells that it isn't
_NUL_WITHIN = 1 << 13
_NAMED = 5  # files of a folder that are named for the same note; the others are counted
_BROKEN = (EOFError, zlib.error, lzma.LZMAError)
_MARKS = {  # first bytes of files that are often taken for text in the wrong encoding, and what to do
    b"\xff\xfe": "it starts like UTF-16: give --encoding utf-16",
    b"\xfe\xff": "it starts like UTF-16: give --encoding utf-16",
    b"\x1f\x8b": "it is compressed by gzip: give it a name that ends in .gz, or pipe it through gunzip",
    b"BZh": "it is compressed by bzip2: give it a name that ends in .bz2, or pipe it through bunzip2",
    b"\xfd7zXZ": "it is compressed by xz: give it a name that ends in .xz, or pipe it through unxz",
}


class Notes:
    """What was changed or left out while reading, in order: one line a file, long lists of a folder's files shortened."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], list[str]] = {}

    def add(self, source: str, file: str, what: str) -> None:
        """Note `what` was done about `file`, which is `source` itself or within it; once for each."""
        files = self._files.setdefault((source, what), [])
        if file not in files[-1:]:
            files.append(file)

    def skipped(self, source: str) -> int:
        """How many files and folders of `source` were skipped."""
        return sum(
            len(files)
            for (of, what), files in self._files.items()
            if of == source and what.startswith("skipped, ")
        )

    def lines(self) -> tuple[str, ...]:
        """The notes."""
        result = []
        for (source, what), files in self._files.items():
            result += [f"{file}: {what}" for file in files[:_NAMED]]
            if len(files) > _NAMED:
                result.append(f"{source}: {what} ({len(files) - _NAMED} more files)")
        return tuple(result)


def check_encoding(name: str) -> None:
    """Raise UsageError unless `name` is an encoding of text that can be read piece by piece."""
    try:
        text = codecs.lookup(name).incrementaldecoder is not None
        "a".encode(
            name
        )  # a LookupError here: rot13, hex and the like turn text into text or bytes into bytes
    except UnicodeError:
        text = False
    except (LookupError, ValueError):
        known = sorted({*encodings.aliases.aliases.values(), "utf-8", "utf-16", "latin-1"})
        near = difflib.get_close_matches(name, known, 3) or ["utf-8", "latin-1", "utf-16"]
        raise UsageError(
            f"--encoding {printable(name)} isn't an encoding of text; try {', '.join(near)}"
        ) from None
    if not text or codecs.lookup(name).name in ("idna", "punycode", "undefined"):
        raise UsageError(
            f"--encoding {printable(name)} isn't an encoding of whole texts; try utf-8, latin-1 or utf-16"
        )


def read_source(
    source: str | Path,
    *,
    encoding: str,
    stdin: BinaryIO | None,
    notes: Notes,
    chunk_size: int = CHUNK,
) -> Generator[str, None, None]:
    """The characters of one source in pieces, line ends as \\n, without byte order mark. Raises CorpusError."""
    if str(source) == "-":
        pieces = _decoded(
            _Stream(stdin or _standard_input(), "standard input", chunk_size),
            encoding,
            notes,
            "standard input",
        )
        empty = "standard input has no characters; pipe a text into it"
    elif stat.S_ISDIR(_status(source).st_mode):
        pieces = _folder(Path(source), encoding, notes, chunk_size)
        empty = f"{printable(str(source))}: no {encoding} text with a character in it in this folder; give one that has some"
    else:
        pieces = _file(Path(source), encoding, notes, chunk_size)
        empty = f"{printable(str(source))}: the file has no characters; give one with text in it"
    nothing = True
    for piece in pieces:
        nothing = False
        yield piece
    if nothing:
        raise CorpusError(empty)


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise CorpusError("- is standard input, which is closed; give a file")
    return sys.stdin.buffer


def _status(source: str | Path) -> os.stat_result:
    """os.stat of what was named, which is a folder, a file or a pipe. Raises CorpusError for anything else."""
    name = printable(str(source))
    if not str(source):
        raise CorpusError("the name of a corpus is empty; give a file, a folder or -")
    try:
        status = Path(source).stat()
    except FileNotFoundError:
        raise CorpusError(f"{name}: no such file or folder{_similar(Path(source))}") from None
    except (OSError, ValueError) as error:
        raise CorpusError(
            f"{name}: cannot be read ({getattr(error, 'strerror', None) or error}); check the path"
        ) from error
    mode = status.st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise CorpusError(
            f"{name}: is a {_kind(mode)}, not a text; give a file, a folder, or - for standard input"
        )
    return status


def _kind(mode: int) -> str:
    return "socket" if stat.S_ISSOCK(mode) else "pipe" if stat.S_ISFIFO(mode) else "device"


def _similar(path: Path) -> str:
    """What to do about a path that isn't there."""
    try:
        near = difflib.get_close_matches(
            path.name, [sibling.name for sibling in path.parent.iterdir()], 1
        )
    except OSError:
        return f"; there is no folder {printable(str(path.parent))} either"
    return (
        f"; did you mean {printable(str(path.with_name(near[0])))}?" if near else "; check the path"
    )


class _Stream:
    """Bytes of one file in chunks, with errors that name it."""

    def __init__(self, file: BinaryIO, name: str, chunk_size: int) -> None:
        self.file, self.name, self.chunk_size = file, name, chunk_size
        self.offset = 0  # of the next chunk, in the decompressed bytes
        self.start = b""  # the first bytes

    def read(self, size: int | None = None) -> bytes:
        """The next chunk, b"" at the end. Raises CorpusError if the archive or the disk is broken."""
        try:
            chunk = self.file.read(size or self.chunk_size)
        except (OSError, *_BROKEN) as error:
            if (
                isinstance(error, OSError) and error.errno is not None
            ):  # else gzip and bz2 speak about their data
                raise CorpusError(
                    f"{self.name}: cannot be read ({error.strerror}); check the file and its permissions"
                ) from error
            raise CorpusError(
                f"{self.name}: broken archive ({error}); make or fetch it again"
            ) from error
        self.start = self.start or chunk[:8]
        self.offset += len(chunk)
        return chunk


def _open(path: Path) -> BinaryIO:
    """The file's bytes, decompressed if its name says so. Raises CorpusError."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        if suffix == ".bz2":
            return cast(BinaryIO, bz2.open(path, "rb"))
        if suffix == ".xz":
            return cast(BinaryIO, lzma.open(path, "rb"))
        return path.open("rb")
    except OSError as error:
        raise CorpusError(
            f"{printable(str(path))}: cannot be read ({error.strerror}); check the file and its permissions"
        ) from error


def _file(path: Path, encoding: str, notes: Notes, chunk_size: int) -> Iterator[str]:
    name = printable(str(path))
    with _open(path) as file:
        yield from _decoded(_Stream(file, name, chunk_size), encoding, notes, name)


def _decoded(
    stream: _Stream, encoding: str, notes: Notes, source: str, head: bytes = b""
) -> Iterator[str]:
    """The clean characters of a stream, whose first bytes `head` may have been read already; no piece is empty."""
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder(encoding)("strict"), translate=True
    )
    first, ended = True, False
    chunk = head or stream.read()
    while not ended:
        ended = not chunk
        try:
            text = decoder.decode(chunk, final=ended)
        except UnicodeError as error:
            raise _undecodable(stream, encoding, error) from error
        if first and text:
            first = False
            if text[0] == "\ufeff":
                notes.add(source, stream.name, "byte order mark at the start left out")
                text = text[1:]
        if text:
            yield text
        chunk = b"" if ended else stream.read()
    seen = decoder.newlines
    for end in (seen,) if isinstance(seen, str) else seen or ():
        if end != "\n":
            notes.add(source, source, f"line ends {end!r} made '\\n'")


def _undecodable(stream: _Stream, encoding: str, error: UnicodeError) -> CorpusError:
    """What to say about bytes that aren't in the encoding."""
    if not isinstance(error, UnicodeDecodeError):  # UTF-16 and UTF-32 without a byte order mark
        return CorpusError(
            f"{stream.name}: isn't {encoding} ({error}); give another --encoding, such as {encoding}-le"
        )
    at = (
        stream.offset - len(error.object) + error.start
    )  # error.object is what was left of earlier chunks and the last one
    hint = next((hint for mark, hint in _MARKS.items() if stream.start.startswith(mark)), "")
    hint = (
        hint or "give the encoding it was saved in, such as --encoding latin-1 or --encoding cp1251"
    )
    byte = error.object[error.start]
    return CorpusError(
        f"{stream.name}: byte 0x{byte:02x} at offset {at} isn't {encoding} ({error.reason}); {hint}"
    )


def _folder(folder: Path, encoding: str, notes: Notes, chunk_size: int) -> Iterator[str]:
    """The characters of a folder's text files, one after the other in the order of their paths; skipped ones are noted and counted."""
    source, read = printable(str(folder)), 0
    for path in _walk(folder, notes):
        name = printable(str(path))
        try:
            file = _open(path)
        except CorpusError:
            notes.add(source, name, "skipped, cannot be read")
            continue
        with file:
            stream = _Stream(file, name, chunk_size)
            try:
                head = stream.read(_HEAD)
            except CorpusError:
                notes.add(source, name, "skipped, a broken archive")
                continue
            reason = _why_not_text(head, encoding)
            if reason:
                notes.add(source, name, f"skipped, {reason}")
                continue
            read += 1
            yield from _decoded(stream, encoding, notes, source, head)
    if skipped := notes.skipped(source):
        notes.add(source, source, f"files read: {read}, skipped: {skipped}")


def _why_not_text(head: bytes, encoding: str) -> str:
    """Why the first bytes of a file aren't text; empty if they are."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        if "\0" in decoder.decode(head[:_NUL_WITHIN]):
            return "not text (it has NUL characters)"
        decoder.decode(head[_NUL_WITHIN:], final=len(head) < _HEAD)
    except UnicodeError:
        return f"not {encoding} text"
    return ""


def _walk(folder: Path, notes: Notes) -> list[Path]:
    """The regular files below `folder` that aren't hidden, sorted by the parts of their paths.

    Links are followed after everything that is really there, and only to what hasn't been met: no loops, nothing twice.
    """
    source, found, met = printable(str(folder)), list[Path](), set[tuple[int, int]]()
    pending, links = [folder], list[Path]()
    while pending or links:
        path = pending.pop() if pending else links.pop(0)
        try:
            status = path.stat()
            identity, mode = (status.st_dev, status.st_ino), status.st_mode
            if identity in met and (stat.S_ISDIR(mode) or path.is_symlink()):
                notes.add(source, printable(str(path)), "skipped, a link to what is read already")
            elif stat.S_ISDIR(mode):
                for child in _visible(path, source, notes):
                    (links if child.is_symlink() else pending).append(child)
            elif stat.S_ISREG(mode):
                found.append(path)
            else:
                notes.add(source, printable(str(path)), f"skipped, a {_kind(mode)}")
            met.add(identity)
        except OSError as error:
            notes.add(source, printable(str(path)), f"skipped, cannot be read ({error.strerror})")
    return sorted(found, key=lambda path: path.parts)


def _visible(folder: Path, source: str, notes: Notes) -> list[Path]:
    """What is directly in a folder and not hidden, sorted."""
    children = sorted(folder.iterdir(), key=lambda path: path.parts)
    for hidden in (child for child in children if child.name.startswith(".")):
        notes.add(source, printable(str(hidden)), "skipped, hidden")
    return [child for child in children if not child.name.startswith(".")]
