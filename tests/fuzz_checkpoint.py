"""Changes real checkpoints and demands that each is read rightly or refused.

python tests/fuzz_checkpoint.py --count 200000

The reader must raise nothing but CheckpointError, never warn, take under a second and under 200 MB,
and agree, on what it does read, with np.load. A case is the same on every run: --seed S --start I
--count 1 repeats one.
"""

import argparse
import io
import itertools
import json
import random
import re
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path

if sys.platform != "win32":
    import resource

import numpy as np
from tiny_models import tiny

from charrnn.checkpoint.model import load, load_resume, save
from charrnn.config import CELLS
from charrnn.errors import CheckpointError
from charrnn.network.parameters import shapes

# Linux: files in memory, three times as many a second
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
Parts = list[tuple[str, bytes, int]]  # name, bytes of the .npy, compression
NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    20,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    1_000,
    1_001,
    32_767,
    32_768,
    65_535,
    65_536,
    10**6,
    10**9,
)
WIDE = (*NUMBERS, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
HEADER_TOKENS = (
    b"\xff",
    b"3L",
    b"'shape': ",
    b"'descr': ",
    b"<f4",
    b"<f2",
    b"<f8",
    b">f4",
    b"|O",
    b"|u1",
    b"|b1",
    b"<i8",
    b"<U4",
    b"<U99999999",
    b"|V8",
    b"True",
    b"False",
    b"(",
    b")",
    b"{",
    b"}",
    b"[",
    b"'",
    b",",
    b" ",
    b"\n",
    b"\0",
    b"\\d",
    b"()",
    b"(3,)",
    b"(12, 3)",
    b"-1",
    b"0",
    b"1",
    b"3",
    b"12",
    b"999999999999",
    b"9" * 20,
    b"__import__('os')",
    b"(" * 300,
    b"0or 1",
    b"lambda: 0",
)
JSON_TOKENS = (
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "2",
    "3",
    "1e999",
    "-0",
    "NaN",
    "Infinity",
    "1.5",
    "1" * 500,
    "1" * 5000,
    "9" * 20,
    '""',
    '"rnn"',
    '"gru"',
    '"lstm"',
    '"abc"',
    '"aa"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"format": 2',
    "[]",
    "{}",
    "[" * 2000,
    '{"a":' * 2000,
    ",",
    ":",
    '"',
    "\\",
    "\0",
    "\ufeff",
    "\U0001f600",
    " ",
    '{"cell": "rnn", "hidden": 3, "layers": 1}',
)
MEMBER_NAMES = (
    "../x.npy",
    "/x.npy",
    "a/b.npy",
    "C:\\x.npy",
    "meta",
    "meta.npy",
    "é.npy",
    ".npy",
    "resume..npy",
    "resume.q.npy",
    "U.npy.npy",
    "resume.npy",
    "layers.2.W.npy",
    "b_y.npy ",
)


def seeds():
    """Checkpoints of a few kB: each cell, one and two layers, with resume arrays or without; one in
    half precision, two deflated.
    """
    meta = {"training": {"lr": 4e-3}, "step": 7, "curve": [[1, 2.5, None]]}
    files = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.npz"
        for cell, layers in itertools.product(CELLS, (1, 2)):
            model = tiny('\n"aé\U0001f600', cell=cell, hidden=3, layers=layers, **meta)
            m, rng = model.parameters.flat, np.arange(8, dtype=np.uint8)
            resume = {"m": m, "step": np.int64(7), "rng": rng} if layers == 1 else None
            save(path, model, resume, half=(cell, layers) == ("gru", 2))
            files.append(path.read_bytes())
    return [*files, deflated(files[0]), deflated(files[4])]


def deflated(data):
    return packed([(name, array, zipfile.ZIP_DEFLATED) for name, array, _ in parts(data)])


def parts(data):
    """The members of an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [
            (info.filename, archive.read(info), info.compress_type) for info in archive.infolist()
        ]


def packed(members):
    """An archive of `members`, with right sizes and CRCs whatever they hold."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # of duplicate names
        for name, data, method in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def flip_bits(data, rng):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def splice(data, rng):
    """Cut out, double, or overwrite a stretch, or put random bytes between."""
    at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 16, 100, 1_000))
    stretch = data[at : at + size]
    new = rng.choice(
        (
            b"",
            stretch * 2,
            rng.randbytes(size),
            stretch + rng.randbytes(rng.randrange(1, 5)),
            bytes(len(stretch)),
        )
    )
    return data[:at] + new + data[at + size :]


def truncate(data, rng):
    return data[: rng.randrange(len(data))]


def edit_field(data, rng):
    """Another number in one field of one zip record."""
    signature, length = rng.choice(((b"PK\1\2", 46), (b"PK\3\4", 30), (b"PK\5\6", 22)))
    starts = [found.start() for found in re.finditer(re.escape(signature), data)]
    width, at = rng.choice((1, 2, 4)), rng.choice(starts or [0]) + rng.randrange(4, length)
    return (
        data[:at] + (rng.choice(WIDE) % 256**width).to_bytes(width, "little") + data[at + width :]
    )


def edit_header(data, rng):
    """Another token in the header of one array, its length made right again at times."""
    members = parts(data)
    at = rng.randrange(len(members))
    name, array, method = members[at]
    start, end = rng.randrange(10, 128), rng.randrange(1, 12)
    header = array[10:start] + rng.choice(HEADER_TOKENS) + array[min(start + end, 128) : 128]
    length = rng.choice((len(header), len(header), 118, rng.choice(NUMBERS))) % 65_536
    members[at] = (
        name,
        array[: rng.choice((6, 8, 8, 8))].ljust(8, b"\2")
        + struct.pack("<H", length)
        + header
        + array[128:],
        method,
    )
    return packed(members)


def edit_dtype_or_shape(data, rng):
    """One array in another dtype, order or shape, written as NumPy writes it."""
    members = parts(data)
    at = rng.randrange(len(members))
    name, array, method = members[at]
    descr = rng.choice(
        ("<f4", "<f2", "<f8", ">f4", "|O", "|b1", "|u1", "<i8", "<U3", "<c8", "<M8[s]", "|V3")
    )
    shape = tuple(rng.choice((0, 1, 3, 5, 9, 12, 10**6, 10**12)) for _ in range(rng.randrange(4)))
    header = {"descr": descr, "fortran_order": rng.random() < 0.3, "shape": shape}
    file = io.BytesIO()
    rng.choice((np.lib.format.write_array_header_1_0, np.lib.format.write_array_header_2_0))(
        file, header
    )
    members[at] = (name, file.getvalue() + array[128:], method)
    return packed(members)


def edit_numbers(data, rng):
    """Other data in one array, its CRC right: NaN, infinity, subnormal, more or fewer of them."""
    members = parts(data)
    at = rng.randrange(1, len(members))
    name, array, method = members[at]
    start = rng.randrange(128, max(129, len(array)))
    number = rng.choice(
        (
            b"\0\0\xc0\x7f",
            b"\1\0\x80\x7f",
            b"\0\0\x80\xff",
            b"\1\0\0\0",
            b"\1\x7c",
            b"",
            rng.randbytes(4),
            b"\2",
        )
    )
    members[at] = (
        name,
        array[:start] + number + array[start + rng.choice((len(number), 4)) :],
        method,
    )
    return packed(members)


def with_meta(members, text):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array(text))
    return [(members[0][0], file.getvalue(), members[0][2]), *members[1:]]


def edit_meta(data, rng):
    """Another token somewhere in the JSON of meta."""
    members = parts(data)
    text = str(np.load(io.BytesIO(members[0][1])))
    stops = [at for at, char in enumerate(text) if char in ' ,:{}[]"'] + [0, len(text)]
    start = rng.choice(stops)
    stop = rng.choice(
        [start, min([at for at in stops if at > start], default=start), rng.choice(stops)]
    )
    return packed(with_meta(members, text[:start] + rng.choice(JSON_TOKENS) + text[stop:]))


def edit_config(data, rng):
    """Another model in meta than the arrays are of."""
    members = parts(data)
    meta = json.loads(str(np.load(io.BytesIO(members[0][1]))))
    value = rng.choice(
        (
            0,
            1,
            -1,
            2,
            3,
            6,
            True,
            None,
            "3",
            3.0,
            [],
            {},
            10**6,
            10**6 + 1,
            10**30,
            "rnn",
            "gru",
            "lstm",
        )
    )
    if rng.random() < 0.7:
        meta["model"][rng.choice(("cell", "hidden", "layers", "more"))] = value
    else:
        meta[rng.choice(("format", "version", "vocabulary", "training", "model"))] = value
    return packed(with_meta(members, json.dumps(meta)))


def edit_members(data, rng):
    """Members dropped, doubled, renamed, swapped, compressed in another way."""
    members = parts(data)
    at = rng.randrange(len(members))
    name, array, method = members[at]
    members[at : at + 1] = rng.choice(
        (
            [],
            [members[at]] * 2,
            [(rng.choice(MEMBER_NAMES), array, method)],
            [(name, rng.choice(members)[1], method)],
            [(name, array, rng.choice((0, 8, 12, 14)))],
            [members[at], (name.upper(), array, method)],
            [(name, array + b"\0", method)],
            [(name, b"", method)],
        )
    )
    return packed(members)


def repair_crcs(data, rng):
    """Random edits inside the members' bytes, with the CRCs of stored ones made right again."""
    changed = bytearray(flip_bits(data, rng))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        listed = [found.start() for found in re.finditer(b"PK\1\2", data)]
        for info, at in zip(archive.infolist(), listed, strict=False):
            start = info.header_offset + 30 + len(info.filename)
            crc = struct.pack("<L", zlib.crc32(changed[start : start + info.compress_size]))
            changed[info.header_offset + 14 : info.header_offset + 18] = changed[
                at + 16 : at + 20
            ] = crc
    return bytes(changed)


MUTATIONS = (
    flip_bits,
    splice,
    truncate,
    edit_field,
    edit_field,
    edit_header,
    edit_dtype_or_shape,
    edit_numbers,
    edit_meta,
    edit_meta,
    edit_config,
    edit_members,
    repair_crcs,
)


def mutated(data, rng):
    """A changed `data` and what was done to it: one mutation, at times byte-level ones after it."""
    done = [rng.choice(MUTATIONS)]
    data = done[0](data, rng)
    while data and rng.random() < 0.2:
        done.append(rng.choice((flip_bits, splice, edit_field)))
        data = done[-1](data, rng)
    return data, ", ".join(mutation.__name__ for mutation in done)


def check(path):
    """Whether the file at `path` is read. AssertionError: wrongly; all else: the reader failed."""
    try:
        model, resume = load_resume(path)
    except CheckpointError as error:
        text = str(error)
        assert text.startswith(f"{path}: "), text
        assert text.isprintable(), text
        assert len(text) < 500, text
        assert "memory" not in text, text
        return False
    expected = shapes(model.config, len(model.vocabulary))
    with warnings.catch_warnings(action="ignore"), np.load(path, allow_pickle=False) as oracle:
        found = {name: oracle[name] for name in oracle.files}  # it warns about odd headers
    assert set(found) == {"meta", *expected, *(f"resume.{name}" for name in resume)}
    assert json.loads(str(found["meta"])) == model.meta
    for name, view in model.parameters.items():
        assert view.shape == expected[name]
        assert view.dtype == np.float32
        assert np.isfinite(view).all()
        assert np.array_equal(view, found[name].astype(np.float32))
    for name, array in resume.items():
        assert array.dtype == found[f"resume.{name}"].dtype
        assert array.tobytes() == found[f"resume.{name}"].tobytes()
    assert load(path).config == model.config
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="files to try")
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    originals, tally, slowest, failures = seeds(), Counter(), 0.0, 0
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        (Path(folder) / "m.npz").open("wb", buffering=0) as file,
    ):
        for case in range(options.start, options.start + options.count):
            rng = random.Random(f"{options.seed}:{case}")
            data, done = mutated(rng.choice(originals), rng)
            file.seek(0)
            file.truncate()
            file.write(data)
            start = time.perf_counter()
            try:
                tally["read" if check(Path(file.name)) else "refused"] += 1
                slowest = max(slowest, time.perf_counter() - start)
                assert time.perf_counter() - start < 1, "took a second"
            except Exception as error:
                failures += 1
                print(f"case {case} ({done}): {type(error).__name__}: {error}", file=sys.stderr)
    seconds = time.perf_counter() - began
    print(
        f"{options.count:,} files: {tally['refused']:,} refused, "
        f"{tally['read']:,} read rightly, {failures:,} failures; "
        f"{options.count / seconds:,.0f} files/s, the slowest {slowest:.3f} s"
    )
    return 1 if failures else 0


def limit_memory(megabytes):
    """Let this process take so much more than it has now; Linux alone."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(
            resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 10**6,) * 2
        )


if __name__ == "__main__":
    warnings.simplefilter("error")
    limit_memory(200)
    sys.exit(main())
