"""Checkpoints: what is written is read again, and everything else is refused in one line that begins with the file's name."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import struct
import sys
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_checkpoint import check, main, mutated, packed, parts, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import __version__
from charrnn.checkpoint.model import Model, load, load_resume, save
from charrnn.config import CELLS, ModelConfig
from charrnn.errors import CheckpointError
from charrnn.network.parameters import initialize
from charrnn.text.vocabulary import Vocabulary

CHARACTERS = '\n"a\u2028\U0001f600'
SHAPE = {"cell": "lstm", "hidden": 3, "layers": 1}
META = {"format": 1, "version": "9", "model": SHAPE, "training": {}, "vocabulary": CHARACTERS}
RESUME: dict[str, Any] = {
    "m": np.linspace(-1, 1, 7),
    "V.x_1": np.zeros((2, 0, 3), np.float32),
    "step": np.array(2**40),
    "on": np.array([[True], [False]]),
    "rng": np.arange(256, dtype=np.uint8),
    "nan": np.array([np.nan, -np.inf], np.float32),
}


def a_model(
    cell: Any = "lstm",
    layers: int = 1,
    characters: str = CHARACTERS,
    meta: dict[str, Any] | None = None,
) -> Model:
    config, vocabulary = ModelConfig(cell, 3, layers), Vocabulary(characters)
    return Model(
        config,
        vocabulary,
        initialize(config, len(vocabulary), np.random.default_rng(5)),
        meta or {},
    )


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array))
    return file.getvalue()


def header(descr: Any, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def members(meta: object = META, /, **changes: bytes | None) -> dict[str, bytes]:
    """A good checkpoint's members by key, with `changes` (None: left out) and this meta, JSON unless it is text already."""
    found = {key: npy(view) for key, view in a_model().parameters.items()}
    found = {"meta": npy(np.array(meta if isinstance(meta, str) else json.dumps(meta))), **found}
    for key, data in changes.items():
        found[key.replace("__", ".")] = data or b""
    return {key: data for key, data in found.items() if data}


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    return packed([(f"{key}.npy", data, method) for key, data in members.items()])


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(path: Path) -> str:
    """What load says of a file, without its name."""
    with pytest.raises(CheckpointError) as error:
        load(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert text.isprintable()
    return text.removeprefix(f"{path}: ")


def refusal_of(data: bytes, folder: Path) -> str:
    path = folder / "m.npz"
    path.write_bytes(data)
    return refusal(path)


# ---- what is written is read again


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_model_is_read_as_it_was_written(tmp_path: Path, cell: str, layers: int) -> None:
    model = a_model(
        cell, layers, meta={"training": {"lr": 0.5}, "step": 3, "curve": [[1, 2.5], [2, None]]}
    )
    save(tmp_path / "m.npz", model)
    found = load(tmp_path / "m.npz")
    assert (found.config, found.vocabulary) == (model.config, model.vocabulary)
    assert found.parameters.flat.dtype == np.float32
    assert found.parameters.flat.tobytes() == model.parameters.flat.tobytes()
    own = {
        "format": 1,
        "version": __version__,
        "model": {"cell": cell, "hidden": 3, "layers": layers},
        "vocabulary": CHARACTERS,
    }
    assert found.meta == own | model.meta


def test_numpy_alone_reads_what_the_contract_says(tmp_path: Path) -> None:
    model = a_model("gru", 2)
    save(tmp_path / "m.npz", model, RESUME)
    with np.load(tmp_path / "m.npz", allow_pickle=False) as found:
        meta = json.loads(str(found["meta"]))
        assert found["meta"].shape == ()
        assert meta["vocabulary"] == CHARACTERS
        for name, view in model.parameters.items():
            assert found[name].dtype.str == "<f4"
            assert found[name].flags.c_contiguous
            assert np.array_equal(found[name], view)
        assert set(found.files) == {
            "meta",
            *dict(model.parameters.items()),
            *(f"resume.{name}" for name in RESUME),
        }


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_what_numpy_wrote_is_read(tmp_path: Path, pack: Any) -> None:
    model = a_model()
    pack(
        tmp_path / "m.npz",
        meta=np.array(json.dumps(META, ensure_ascii=False)),
        **dict(model.parameters.items()),
    )
    assert np.array_equal(load(tmp_path / "m.npz").parameters.flat, model.parameters.flat)


@pytest.mark.parametrize(
    "characters",
    [
        "\0",
        "a\0",
        "a\0\0b"[:2],
        "\u2028\u2029",
        "\"\\'",
        "\U0001f600\U0010ffff",
        "\ufeff",
        "e\u0301é",
        "\x1b[2J"[:2],
    ],
)
def test_every_vocabulary_comes_back(tmp_path: Path, characters: str) -> None:
    save(tmp_path / "m.npz", a_model(characters=characters))
    assert load(tmp_path / "m.npz").vocabulary.characters == characters


def test_resume_arrays_come_back_and_a_plain_load_does_not_read_them(tmp_path: Path) -> None:
    save(tmp_path / "m.npz", a_model(), RESUME)
    _, found = load_resume(tmp_path / "m.npz")
    assert {name: (array.dtype, array.shape, array.tobytes()) for name, array in found.items()} == {
        name: (array.dtype, array.shape, array.tobytes()) for name, array in RESUME.items()
    }
    data = archive(members(resume__m=b"no array at all"))
    (tmp_path / "m.npz").write_bytes(data)
    assert load(tmp_path / "m.npz").config.hidden == 3
    with pytest.raises(CheckpointError, match=r"'resume\.m' is no NumPy array"):
        load_resume(tmp_path / "m.npz")


def test_a_file_without_resume_arrays_is_a_valid_model(tmp_path: Path) -> None:
    save(tmp_path / "m.npz", a_model())
    assert load_resume(tmp_path / "m.npz")[1] == {}


def test_half_precision_is_half_the_size_and_read_as_float32(tmp_path: Path) -> None:
    model = a_model()
    save(tmp_path / "m.npz", model, half=True)
    found = load(tmp_path / "m.npz").parameters.flat
    assert found.dtype == np.float32
    assert np.array_equal(found, model.parameters.flat.astype(np.float16).astype(np.float32))
    with np.load(tmp_path / "m.npz") as arrays:
        assert arrays["U"].dtype.str == "<f2"


def test_float64_parameters_are_written_as_float32(tmp_path: Path) -> None:
    model = a_model()
    save(
        tmp_path / "m.npz",
        Model(model.config, model.vocabulary, model.parameters.astype(np.float64)),
    )
    assert np.array_equal(load(tmp_path / "m.npz").parameters.flat, model.parameters.flat)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / name, a_model(meta={"step": 1}), RESUME)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    save(tmp_path / "c", load(tmp_path / "a"), load_resume(tmp_path / "a")[1])
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


def test_what_is_not_finite_in_meta_becomes_null(tmp_path: Path) -> None:
    save(
        tmp_path / "m.npz",
        a_model(
            meta={
                "loss": np.float32(np.nan),
                "curve": [(1, -np.inf), (np.int64(2), np.float64(0.5))],
            }
        ),
    )
    meta = load(tmp_path / "m.npz").meta
    assert (meta["loss"], meta["curve"]) == (None, [[1, None], [2, 0.5]])


@pytest.mark.parametrize(("number", "half"), [(np.nan, False), (np.inf, False), (7e4, True)])
def test_numbers_that_would_not_be_read_are_not_written(
    tmp_path: Path, number: float, half: bool
) -> None:
    save(tmp_path / "m.npz", a_model())
    before = (tmp_path / "m.npz").read_bytes()
    model = a_model()
    model.parameters["U"][1, 1] = number
    with pytest.raises(CheckpointError, match=r"m\.npz: not written.*'U' isn't finite in float"):
        save(tmp_path / "m.npz", model, half=half)
    assert (tmp_path / "m.npz").read_bytes() == before
    assert listed(tmp_path) == ["m.npz"]


@pytest.mark.parametrize(
    ("name", "array"),
    [("a b", np.zeros(1)), ("", np.zeros(1)), ("c", np.zeros(1, complex)), ("s", np.array("text"))],
)
def test_resume_arrays_that_would_not_be_read_are_a_programmers_error(
    tmp_path: Path, name: str, array: Any
) -> None:
    with pytest.raises(ValueError, match="cannot be saved"):
        save(tmp_path / "m.npz", a_model(), {name: array})
    assert listed(tmp_path) == []


# ---- files that are no checkpoint


def test_a_folder_a_missing_file_and_a_device_are_told_apart(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "this is a folder; a checkpoint is one .npz file"
    assert refusal(tmp_path / "m.npz") == "there is no such file; charrnn train makes one"
    assert refusal(Path(os.devnull)) == "this is no regular file; a checkpoint is one .npz file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.npz")
    assert "no regular file" in refusal(tmp_path / "m.npz")


def test_an_impossible_name_and_one_with_a_line_break_give_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^a\\x00b: no file can have this name$"):
        load("a\0b")
    with pytest.raises(CheckpointError, match=r"a\\nb\\x1b.npz: there is no such file"):
        load(tmp_path / "a\nb\x1b.npz")


FOREIGN = r"^not a charrnn checkpoint \(\.npz\): "


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty$"),
        (b"P", "it does not begin like one$"),
        (b"To be, or not to be", "it does not begin like one$"),
        (npy(np.zeros(3)), "it does not begin like one$"),
        (pickle.dumps({"U": 1}), "it does not begin like one$"),
        (b"PK\5\6" + bytes(18), "it does not begin like one$"),
        (b"PK\3\4" + bytes(200), "cut off or damaged: it has no end$"),
        (b"PK\3\4", "cut off or damaged: it has no end$"),
        (archive(members())[4:], "it does not begin like one$"),
        (archive(members()) + b"\n", "cut off or damaged: it has no end$"),
        (packed([("../U.npy", b"", 0)]), "it has a member called '../U.npy'$"),
        (packed([("/etc/passwd.npy", b"", 0)]), "it has a member called '/etc/passwd.npy'$"),
        (packed([("a/U.npy", b"", 0)]), "it has a member called 'a/U.npy'$"),
        (packed([("\x1b[2J\n.npy", b"", 0)]), r"it has a member called '\\x1b\[2J\\n\.npy'$"),
        (packed([("word/document.xml", b"", 0)]), "it has a member called 'word/document.xml'$"),
    ],
    ids=str,
)
def test_what_is_no_npz_is_said_to_be_none(tmp_path: Path, data: bytes, message: str) -> None:
    assert re.search(FOREIGN + message, refusal_of(data, tmp_path))


def test_a_file_cut_off_at_every_tenth_byte_is_refused(tmp_path: Path) -> None:
    for data in (archive(members()), archive(members(), zipfile.ZIP_DEFLATED)):
        for length in range(0, len(data), 10):
            assert re.search(FOREIGN, refusal_of(data[:length], tmp_path))


def test_a_million_members_are_refused_from_the_end_record(tmp_path: Path) -> None:
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 10**6, 10**6, 62 * 10**6, 4)
    end64 += struct.pack("<4sLQL", b"PK\6\7", 0, 4, 1) + struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 62 * 10**6, 4, 0
    )
    assert re.search(
        FOREIGN + r"it lists 1,000,000 members in 62,000,000 bytes; at most 1,000",
        refusal_of(b"PK\3\4" + end64, tmp_path),
    )


def test_a_thousand_and_one_members_are_too_many(tmp_path: Path) -> None:
    data = packed([(f"resume.{number}.npy", b"", 0) for number in range(1_001)])
    assert "it lists 1,001 members" in refusal_of(data, tmp_path)


def patched(data: bytes, signature: bytes, offset: int, value: int, width: int = 2) -> bytes:
    at = data.index(signature) + offset
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


@pytest.mark.parametrize(
    ("signature", "offset", "value", "message"),
    [
        (b"PK\1\2", 8, 1, "it is encrypted; a checkpoint is not"),
        (b"PK\1\2", 8, 1 << 6, "it is encrypted; a checkpoint is not"),
        (b"PK\1\2", 8, 1 << 5, "compression 0, flags 0x20; expected it stored or plainly deflated"),
        (b"PK\1\2", 10, 12, "compression 12, flags 0x0; expected it stored or plainly deflated"),
        (b"PK\1\2", 6, 63, "compression 0"),
        (b"PK\1\2", 20, 7, "cut off or damaged: a member's sizes do not fit"),
        (b"PK\1\2", 42, 50_000, "cut off or damaged: a member lies over another"),
        (b"PK\1\2", 28, 60_000, "cut off or damaged: its list of members"),
        (b"PK\1\2", 30, 60_000, "cut off or damaged: its list of members"),
        (b"PK\1\2", 16, 7, "cut off or damaged"),
        (b"PK\3\4", 6, 1, "cut off or damaged"),
        (b"PK\3\4", 8, 8, "cut off or damaged"),
        (b"PK\3\4", 26, 3, "cut off or damaged"),
        (b"PK\5\6", 4, 1, "cut off or damaged: its end does not fit"),
        (b"PK\5\6", 8, 3, "cut off or damaged: its end does not fit"),
        (b"PK\5\6", 12, 3, "cut off or damaged: its end does not fit"),
        (b"PK\5\6", 16, 3, "cut off or damaged: its end does not fit"),
        (b"PK\5\6", 20, 3, "cut off or damaged: its end does not fit"),
    ],
)
def test_each_wrong_field_of_the_archive_is_refused(
    tmp_path: Path, signature: bytes, offset: int, value: int, message: str
) -> None:
    assert message in refusal_of(patched(archive(members()), signature, offset, value), tmp_path)


def test_a_list_longer_than_its_count_is_refused(tmp_path: Path) -> None:
    data = patched(patched(archive(members()), b"PK\5\6", 8, 2), b"PK\5\6", 10, 2)
    assert "cut off or damaged: its list of members does not fit" in refusal_of(data, tmp_path)


def test_a_member_that_reaches_into_the_next_is_refused(tmp_path: Path) -> None:
    size = len(members()["meta"]) + 20
    data = patched(patched(archive(members()), b"PK\1\2", 20, size, 4), b"PK\1\2", 24, size, 4)
    assert "cut off or damaged: a member lies over another" in refusal_of(data, tmp_path)


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    data = packed(
        [(f"{key}.npy", array, 0) for key, array in [*members().items(), ("U", members()["U"])]]
    )
    assert refusal_of(data, tmp_path) == "it has two members called 'U.npy'"


# ---- arrays that are not what the meta says


U = np.zeros((5, 3), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"U": None}, "'U' is missing"),
        ({"meta": None}, "'meta' is missing"),
        ({"layers__0__W": None}, "'layers.0.W' is missing"),
        (
            {"layers__1__W": npy(U)},
            "'layers.1.W' does not belong to a lstm of 1 layer, which the meta says it is",
        ),
        ({"resume__": npy(U)}, "'resume.' does not belong to"),
        (
            {"U": npy(np.zeros((4, 3), np.float32))},
            "'U' has shape (4, 3); the model in its meta needs (5, 3)",
        ),
        ({"U": npy(U.T.copy())}, "'U' has shape (3, 5); the model in its meta needs (5, 3)"),
        (
            {"U": header("<f4", (10**6, 10**6))},
            "'U' has shape (1000000, 1000000); the model in its meta needs (5, 3)",
        ),
        (
            {"U": header("<f4", (10**12,))},
            "'U' has shape (1000000000000,); the model in its meta needs (5, 3)",
        ),
        ({"U": npy(np.asfortranarray(U))}, "'U' is in Fortran order; expected C order"),
        (
            {"U": npy(U.astype(">f4"))},
            "'U' has dtype >f4; expected <f4 or <f2 (< is little-endian)",
        ),
        ({"U": npy(U.astype(float))}, "'U' has dtype <f8; expected <f4 or <f2"),
        ({"U": npy(U.astype(np.int32))}, "'U' has dtype <i4; expected <f4 or <f2"),
        ({"U": npy(U.astype(object))}, "'U' has dtype |O; expected <f4 or <f2"),
        ({"U": npy(np.zeros((5, 3), "f4,f4"))}, "the header of 'U' is not that of a plain array"),
        ({"U": npy(U + np.float32(np.nan))}, "'U' has NaN or infinite numbers"),
        ({"U": npy(U + np.float32(np.inf))}, "'U' has NaN or infinite numbers"),
        (
            {"U": npy((U - np.float32(np.inf)).astype(np.float16))},
            "'U' has NaN or infinite numbers",
        ),
        ({"U": npy(U)[:-1]}, "'U' has 59 bytes of data; its header says 60"),
        ({"U": npy(U) + b"\0"}, "'U' has 61 bytes of data; its header says 60"),
        ({"U": b"\x93NUMPY"}, "'U' is no NumPy array"),
        ({"U": b"\x93NUMPY\1\0"}, "the header of 'U' is not that of a plain array"),
        ({"U": b"\x93NUMPY\3\0" + npy(U)[8:]}, "'U' is no NumPy array"),
        (
            {"U": b"\x93NUMPY\2\0" + struct.pack("<L", 2**31) + npy(U)[10:]},
            "the header of 'U' is not that of a plain array",
        ),
        (
            {
                "U": b"\x93NUMPY\2\0"
                + struct.pack("<L", 20_000)
                + npy(U)[10:127].ljust(20_000)
                + npy(U)[128:]
            },
            "the header of 'U' is",
        ),
        (
            {"U": npy(U).replace(b"(5, 3)", b"(-5,3)")},
            "the header of 'U' is not that of a plain array",
        ),
        (
            {"U": npy(U).replace(b"(5, 3)", b"5 *  3")},
            "the header of 'U' is not that of a plain array",
        ),
        (
            {"U": npy(U).replace(b"False", b"exit(")},
            "the header of 'U' is not that of a plain array",
        ),
        (
            {"U": npy(U).replace(b"(5, 3)", b"((((((")},
            "the header of 'U' is not that of a plain array",
        ),
    ],
    ids=str,
)
def test_each_wrong_array_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert message in refusal_of(archive(members(**changes)), tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            npy(np.zeros(3, np.complex64)),
            "'resume.x' has dtype <c8; expected <f4 or <f8 or <i8 or |u1 or |b1",
        ),
        (
            header("<f8", (10**14,)),
            "'resume.x' has 0 bytes of data; its header says 800,000,000,000,000",
        ),
        (header("<f8", (0, 10**14)), "its arrays would take 800,000,000,000,"),
        (header("|b1", (2,)) + b"\1\2", "'resume.x' has truth values that are neither 0 nor 1"),
    ],
)
def test_each_wrong_resume_array_is_refused_by_name(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "m.npz").write_bytes(archive(members(resume__x=data)))
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_resume(tmp_path / "m.npz")


class Planted:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (str(Path(tempfile.gettempdir()) / "charrnn-was-tricked"),)


def test_nothing_in_a_pickled_member_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = npy(np.array([Planted()], object))
    for changes in ({"U": data}, {"meta": data}, {"b_y": pickle.dumps(Planted())}):
        assert re.search("dtype|no NumPy array", refusal_of(archive(members(**changes)), tmp_path))
    assert listed(tmp_path) == ["m.npz"]


# ---- meta that says what cannot be


def meta(**changes: Any) -> dict[str, Any]:
    return META | changes


def shape(**changes: Any) -> dict[str, Any]:
    return META | {"model": SHAPE | changes}


WHOLE = "expected a whole number from 1 to"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("", "its meta is not valid JSON: Expecting value"),
        ("not json", "its meta is not valid JSON: Expecting value"),
        (json.dumps(META)[:-1], "its meta is not valid JSON"),
        ("[]", "its meta is not a JSON object"),
        ("null", "its meta is not a JSON object"),
        ("[" * 90_000, "its meta is nested too deeply"),
        (
            json.dumps(META)[:-1] + ', "x": ' + "[" * 33 + "]" * 33 + "}",
            "its meta is nested too deeply",
        ),
        ('{"a":' * 33 + "1" + "}" * 33, "its meta is nested too deeply"),
        ("[" + "[]," * 100_000 + "1]", "its meta is too large"),
        ("[" + "1," * 200_001 + "1]", "its meta is too large"),
        ('{"x": ' + "1" * 401 + "}", "its meta is not valid JSON: a number of 401 digits"),
        ('{"x": ' + "1" * 5_000 + "}", "its meta is not valid JSON: a number of 5,000 digits"),
        ('{"x": 1e999}', "its meta is not valid JSON: 1e999 is not a finite number"),
        ('{"x": NaN}', "its meta is not valid JSON: NaN is not a finite number"),
        ('{"x": -Infinity}', "its meta is not valid JSON: -Infinity is not a finite number"),
        (meta(format=None), 'its meta has no "format" number'),
        (meta(format=True), 'its meta has no "format" number'),
        (meta(format=1.0), 'its meta has no "format" number'),
        (meta(format=0), 'its meta has no "format" number'),
        (meta(version=3), 'its meta has no "format" number'),
        (
            meta(format=2),
            "made by a newer charrnn ('9', format 2); this one reads format 1: update it",
        ),
        (
            meta(format=10**300),
            "made by a newer charrnn ('9', format 1000000000000000000000000000000000000000…)",
        ),
        (meta(training=[]), '"training" in its meta is not an object'),
        (meta(model=None), '"model" in its meta is not an object of "cell", "hidden" and "layers"'),
        (meta(model=[3]), '"model" in its meta is not an object of "cell", "hidden" and "layers"'),
        (
            meta(model={"cell": "rnn", "hidden": 3}),
            '"model" in its meta is not an object of "cell", "hidden" and "layers"',
        ),
        (
            shape(bidirectional=True),
            '"model" in its meta is not an object of "cell", "hidden" and "layers"',
        ),
        (shape(cell="elman"), "the cell in its meta is 'elman'; expected one of rnn, gru, lstm"),
        (shape(cell="\x1b[2J" * 99), r"the cell in its meta is '\x1b[2J\x1b[2J"),
        (shape(cell=["lstm"]), "the cell in its meta is a list; expected one of rnn, gru, lstm"),
        (shape(hidden=0), f'"hidden" in its meta is 0; {WHOLE} 1,000,000'),
        (shape(hidden=-3), f'"hidden" in its meta is -3; {WHOLE}'),
        (shape(hidden=True), f'"hidden" in its meta is True; {WHOLE}'),
        (shape(hidden=3.0), f'"hidden" in its meta is 3.0; {WHOLE}'),
        (shape(hidden="3"), f"\"hidden\" in its meta is '3'; {WHOLE}"),
        (shape(hidden=10**12), f'"hidden" in its meta is 1000000000000; {WHOLE}'),
        (
            shape(hidden=10**6),
            "'layers.0.V' has shape (12, 5); the model in its meta needs (4000000, 5)",
        ),
        (shape(layers=0), f'"layers" in its meta is 0; {WHOLE} 300'),
        (shape(layers=None), f'"layers" in its meta is None; {WHOLE} 300'),
        (shape(layers=10**12), f'"layers" in its meta is 1000000000000; {WHOLE} 300'),
        (shape(layers=2), "'layers.1.V' is missing"),
        (shape(cell="rnn"), "'layers.0.V' has shape (12, 5); the model in its meta needs (3, 5)"),
        (
            meta(vocabulary=None),
            "the vocabulary in its meta is not a string of 1 to 1,114,112 characters",
        ),
        (
            meta(vocabulary=list(CHARACTERS)),
            "the vocabulary in its meta is not a string of 1 to 1,114,112 characters",
        ),
        (
            meta(vocabulary=""),
            "the vocabulary in its meta is not a string of 1 to 1,114,112 characters",
        ),
        (
            meta(vocabulary="a" * 1_114_113),
            "the vocabulary in its meta is not a string of 1 to 1,114,112 characters",
        ),
        (
            meta(vocabulary="abcda"),
            "the vocabulary in its meta: a vocabulary has each character once, and 'a' (U+0061)",
        ),
        (
            meta(vocabulary="abcd\ud800"),
            "the vocabulary in its meta: '\\ud800' (U+D800) is half of a UTF-16 pair",
        ),
        (
            meta(vocabulary="abcd"),
            "'layers.0.V' has shape (12, 5); the model in its meta needs (12, 4)",
        ),
        (
            meta(vocabulary="abcdef"),
            "'layers.0.V' has shape (12, 5); the model in its meta needs (12, 6)",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_each_wrong_meta_is_refused(tmp_path: Path, changed: object, message: str) -> None:
    assert message in refusal_of(archive(members(changed)), tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            npy(np.array([json.dumps(META)])),
            "'meta' has shape (1,); the model in its meta needs ()",
        ),
        (npy(np.array(json.dumps(META), "S")), "'meta' has dtype |S"),
        (npy(np.array(json.dumps(META)).astype(">U400")), "'meta' has dtype >U"),
        (header("<U20000000", ()), "'meta' has 0 bytes of data; its header says 80,000,000"),
        (header("<U2", ()) + b"\0\xd8\0\0" * 2, "its meta is not Unicode text"),
        (header("<U1", ()) + b"\xff" * 4, "its meta is not Unicode text"),
        (npy(np.array("")), "its meta is not valid JSON"),
    ],
)
def test_meta_that_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refusal_of(archive(members(meta=data)), tmp_path)


# ---- files that would take much memory


def test_a_deflated_model_of_zeros_may_not_unfold_far_beyond_its_file(tmp_path: Path) -> None:
    big = {
        "layers.0.V": (8_000, 5),
        "layers.0.W": (8_000, 2_000),
        "layers.0.b_h": (8_000,),
        "U": (5, 2_000),
        "b_y": (5,),
    }
    with zipfile.ZipFile(tmp_path / "m.npz", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("meta.npy", npy(np.array(json.dumps(shape(hidden=2_000)))))
        for name, size in big.items():
            bomb.writestr(f"{name}.npy", npy(np.zeros(size, np.float32)))
    tracemalloc.start()
    try:
        assert "its arrays would take 64,232,020 bytes; a file of " in refusal(tmp_path / "m.npz")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_meta_of_a_hundred_megabytes_of_zeros_is_refused_by_its_header(tmp_path: Path) -> None:
    for characters, message in (
        (25, "its meta has 100,000,000 bytes; at most 60,000,000 are read"),
        (10, "would take 40,000,000 bytes"),
    ):
        with (
            zipfile.ZipFile(tmp_path / "m.npz", "w", zipfile.ZIP_DEFLATED) as bomb,
            bomb.open("meta.npy", "w") as file,
        ):
            file.write(header(f"<U{characters}000000", ()))
            for _ in range(characters):
                file.write(bytes(4_000_000))
        assert message in refusal(tmp_path / "m.npz")


@pytest.mark.parametrize("size", [b"\x3c\0\0\0", b"\xbb\0\0\0", b"\xbd\0\0\0", b"\0\0\0\x10"])
def test_a_deflated_member_must_have_the_size_that_it_declares(tmp_path: Path, size: bytes) -> None:
    data = archive(members(), zipfile.ZIP_DEFLATED)
    at = data.index(b"U.npy", data.index(b"PK\1\2")) - 46 + 24
    assert data[at : at + 4] == struct.pack("<L", 188)
    assert re.search(
        "'U' has|cut off or damaged|header of 'U'",
        refusal_of(data[:at] + size + data[at + 4 :], tmp_path),
    )


@pytest.mark.parametrize("more", [b"\0", bytes(100_000)])
def test_a_deflated_member_must_end_where_it_declares(tmp_path: Path, more: bytes) -> None:
    data = npy(U)
    stream = zlib.compress(data + more, wbits=-15)
    whole = packed(
        [
            ("U.npy", stream, 0),
            *((f"{key}.npy", array, 0) for key, array in members(U=None).items()),
        ]
    )
    for signature, method, crc, size in ((b"PK\3\4", 8, 14, 22), (b"PK\1\2", 10, 16, 24)):
        whole = patched(whole, signature, method, 8)
        whole = patched(
            patched(whole, signature, crc, zlib.crc32(data), 4), signature, size, len(data), 4
        )
    assert re.search(FOREIGN + "cut off or damaged$", refusal_of(whole, tmp_path))


# ---- whatever else a stranger may send


ORIGINALS = seeds()


def test_the_fuzzers_originals_are_good(tmp_path: Path) -> None:
    for data in ORIGINALS:
        (tmp_path / "m.npz").write_bytes(data)
        assert check(tmp_path / "m.npz")
        assert packed(parts(data)) != b""


@settings(max_examples=150, deadline=None)
@given(original=st.sampled_from(ORIGINALS), number=st.integers(0, 2**32))
def test_a_mutated_file_is_read_rightly_or_refused(original: bytes, number: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.npz"
        path.write_bytes(mutated(original, random.Random(number))[0])
        check(path)


@settings(max_examples=150, deadline=None)
@given(
    original=st.sampled_from(ORIGINALS),
    edits=st.lists(
        st.tuples(st.integers(0, 5_000), st.integers(0, 40), st.binary(max_size=40)),
        min_size=1,
        max_size=4,
    ),
)
def test_bytes_cut_out_and_put_in_anywhere_are_read_rightly_or_refused(
    original: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    for at, length, new in edits:
        original = (
            original[: at % (len(original) + 1)]
            + new
            + original[at % (len(original) + 1) + length :]
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.npz"
        path.write_bytes(original)
        check(path)


def test_the_fuzzer_counts_its_cases(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz_checkpoint.py", "--count", "60"])
    assert main() == 0
    assert re.match(
        r"60 files: \d+ refused, \d+ read rightly, 0 failures; ", capsys.readouterr().out
    )
