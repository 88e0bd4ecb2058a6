"""The members of a zip archive as bytes, read without trusting one of them.

zipfile is not asked: it takes in the whole list of members before one can count them, and warns about odd ones. What a
checkpoint needs of the format (APPNOTE.TXT 6.3.10) is little and is checked field by field: stored or deflated members, their
list behind them, the end record behind that. Refusals are CheckpointErrors with the reason alone.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, NamedTuple

from charrnn.errors import CheckpointError

MAX_MEMBERS = 1_000
MAX_DIRECTORY = 256 * MAX_MEMBERS  # bytes of the list of members; ours takes under 80 a member
PACKED_BLOCK = 1 << 16  # bytes inflated at once
STORED, DEFLATED = 0, 8
ZIP64 = 45  # the newest feature read, by the version that a member says it needs
ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # flag bits: encrypted, strongly, and with a masked list
HARMLESS = (
    0x0002 | 0x0004 | 0x0008 | 0x0800
)  # how hard deflate tried, sizes after the data, name in UTF-8
UNKNOWN = 0xFFFFFFFF  # "see the zip64 field"

END = struct.Struct(
    "<4s4H2LH"
)  # disk, first disk, members here, members, directory's size and offset, comment
LOCATOR = struct.Struct("<4sLQL")  # disk, offset of END64, disks
END64 = struct.Struct(
    "<4sQ2H2L4Q"
)  # own size, versions, disk, first disk, members here, members, directory's size and offset
ENTRY = struct.Struct(
    "<4s6H3L5H2L"
)  # versions, flags, method, time, date, crc, sizes, three lengths, disk, attributes, offset
LOCAL = struct.Struct("<4s5H3L2H")  # version, flags, method, time, date, crc, sizes, two lengths

FOREIGN = "not a charrnn checkpoint (.npz): "
DAMAGED = f"{FOREIGN}cut off or damaged"


class Entry(NamedTuple):
    """One member as the archive's directory describes it; sizes and offset in bytes."""

    name: bytes
    method: int
    crc: int
    packed: int
    size: int
    offset: int


class Content:
    """The bytes of one member in order, checked against its declared size and CRC and never more than that."""

    def __init__(self, file: BinaryIO, entry: Entry) -> None:
        self.entry = entry
        self.left = entry.size
        self._file = file
        self._position = self._start()
        self._packed = entry.packed
        self._crc = 0
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None

    def _start(self) -> int:
        self._file.seek(self.entry.offset)
        local = self._file.read(LOCAL.size + len(self.entry.name))
        if len(local) < LOCAL.size or local[LOCAL.size :] != self.entry.name:
            raise CheckpointError(DAMAGED)
        signature, _, flags, method, *_, name, extra = LOCAL.unpack_from(local)
        if (
            signature != b"PK\3\4"
            or flags & ENCRYPTED
            or method != self.entry.method
            or name != len(self.entry.name)
        ):
            raise CheckpointError(DAMAGED)
        return self.entry.offset + LOCAL.size + int(name) + int(extra)

    def take(self, count: int) -> bytes:
        """The next `count` bytes; the last of them only if CRC and end are as declared."""
        data = (
            b""
            if count > self.left
            else self._inflated(count)
            if self._inflate
            else self._stored(count)
        )
        if len(data) != count:
            raise CheckpointError(DAMAGED)
        self.left -= count
        self._crc = zlib.crc32(data, self._crc)
        if not self.left and (self._crc != self.entry.crc or self._goes_on()):
            raise CheckpointError(DAMAGED)
        return data

    def _stored(self, count: int) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(min(count, self._packed))
        self._position += len(data)
        self._packed -= len(data)
        return data

    def _inflated(self, count: int) -> bytes:
        assert self._inflate is not None
        data = bytearray()
        try:
            while len(data) < count and not self._inflate.eof:
                packed = self._inflate.unconsumed_tail or self._stored(PACKED_BLOCK)
                piece = self._inflate.decompress(packed, count - len(data))
                if not piece and not packed:
                    break
                data += piece
        except zlib.error:
            raise CheckpointError(DAMAGED) from None
        return bytes(data)

    def _goes_on(self) -> bool:
        """Whether more follows where the declared size ends."""
        if self._inflate is None:
            return self._packed > 0
        rest = self._inflated(1)
        return bool(rest or self._packed or not self._inflate.eof or self._inflate.unused_data)


def listed(file: BinaryIO, length: int) -> dict[bytes, Entry]:
    """The members of the archive of `length` bytes by name, in file order, none of them over another or over the list."""
    begin = file.read(4)
    if begin != b"PK\3\4":
        raise CheckpointError(f"{FOREIGN}it {'does not begin like one' if begin else 'is empty'}")
    offset, size, count = _directory(file, length)
    file.seek(offset)
    found = _entries(file.read(size), count)
    end = offset
    for entry in sorted(found.values(), key=lambda entry: entry.offset, reverse=True):
        if entry.offset + LOCAL.size + len(entry.name) + entry.packed > end:
            raise CheckpointError(f"{DAMAGED}: a member lies over another")
        end = entry.offset
    return found


def _directory(file: BinaryIO, length: int) -> tuple[int, int, int]:
    """Offset, bytes and number of members of the list, from the end record; refused if there is too much to read."""
    tail = _last(file, length, END.size + LOCATOR.size + END64.size)
    signature, *disks, here, count, size, offset, comment = END.unpack(tail[-END.size :])
    if signature != b"PK\5\6":
        raise CheckpointError(f"{DAMAGED}: it has no end")
    end = length - END.size
    if tail[END64.size :].startswith(b"PK\6\7"):
        end = length - len(tail)
        here, count, size, offset = _zip64_end(tail, end, (here, count, size, offset))
    if count > MAX_MEMBERS or size > MAX_DIRECTORY:
        raise CheckpointError(
            f"{FOREIGN}it lists {count:,} members in {size:,} bytes; at most {MAX_MEMBERS:,} are read"
        )
    if any(disks) or here != count or comment or offset + size != end:
        raise CheckpointError(f"{DAMAGED}: its end does not fit")
    return offset, size, count


def _last(file: BinaryIO, length: int, count: int) -> bytes:
    """The file's last `count` bytes, with zeros before them if it is shorter."""
    file.seek(max(0, length - count))
    return file.read(count).rjust(count, b"\0")


def _zip64_end(tail: bytes, start: int, short: tuple[int, ...]) -> tuple[int, ...]:
    """The four fields of the zip64 end record at offset `start`; the short record must hold the same or its "see zip64"."""
    signature, own, _, _, *disks, here, count, size, offset = END64.unpack_from(tail)
    _, disk, where, total = LOCATOR.unpack_from(tail, END64.size)
    long = (here, count, size, offset)
    fits = all(
        value in (wide, most)
        for value, wide, most in zip(short, long, (0xFFFF, 0xFFFF, UNKNOWN, UNKNOWN), strict=True)
    )
    if (
        signature != b"PK\6\6"
        or own != END64.size - 12
        or any(disks)
        or disk
        or total != 1
        or where != start
        or not fits
    ):
        raise CheckpointError(f"{DAMAGED}: its end does not fit")
    return long


def _entries(directory: bytes, count: int) -> dict[bytes, Entry]:
    """The members by name, as the list has them."""
    found: dict[bytes, Entry] = {}
    position = 0
    for _ in range(count):
        entry, position = _entry(directory, position)
        if entry.name in found:
            raise CheckpointError(
                f"it has two members called {entry.name[:80].decode('latin-1')!r}"
            )
        found[entry.name] = entry
    if position != len(directory):
        raise CheckpointError(f"{DAMAGED}: its list of members does not fit")
    return found


def _entry(directory: bytes, position: int) -> tuple[Entry, int]:
    """The member described at `position` and the position after it."""
    if position + ENTRY.size > len(directory):
        raise CheckpointError(f"{DAMAGED}: its list of members is cut off")
    fields = ENTRY.unpack_from(directory, position)
    (
        signature,
        _,
        needed,
        flags,
        method,
        _,
        _,
        crc,
        packed,
        size,
        named,
        extra,
        comment,
        disk,
        _,
        _,
        offset,
    ) = fields
    after = position + ENTRY.size + named
    name = directory[position + ENTRY.size : after]
    size, packed, offset = _zip64_sizes(directory[after : after + extra], [size, packed, offset])
    if signature != b"PK\1\2" or disk:
        raise CheckpointError(f"{DAMAGED}: its list of members does not fit")
    if flags & ENCRYPTED:
        raise CheckpointError("it is encrypted; a checkpoint is not")
    if method not in (STORED, DEFLATED) or flags & ~HARMLESS or needed > ZIP64:
        raise CheckpointError(
            f"a member has compression {method}, flags {flags:#x}; expected it stored or plainly deflated"
        )
    if method == STORED and packed != size:
        raise CheckpointError(f"{DAMAGED}: a member's sizes do not fit")
    return Entry(name, method, crc, packed, size, offset), after + extra + comment


def _zip64_sizes(extra: bytes, values: list[int]) -> list[int]:
    """`values` (size, packed, offset) with those too large for 32 bits taken from the zip64 extra field."""
    while UNKNOWN in values and len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = (
                int.from_bytes(extra[at : at + 8], "little")
                for at in range(4, min(4 + length, len(extra)) - 7, 8)
            )
            return [next(wide, value) if value == UNKNOWN else value for value in values]
        extra = extra[4 + length :]
    return values
