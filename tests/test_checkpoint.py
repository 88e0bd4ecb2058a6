"""Checkpoints: what is written is read again; all else is refused, the file's name first."""

import io
import json
import os
import pickle
import random
import re
import struct
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from fuzz_checkpoint import check, main, mutated, packed, parts, seeds
from hypothesis import given, settings, strategies as st
from tiny_models import tiny

from charrnn import __version__
from charrnn.checkpoint import npz
from charrnn.checkpoint.model import Model, load, load_resume, save
from charrnn.config import CELLS, ModelConfig
from charrnn.errors import CheckpointError
from charrnn.network.parameters import initialize
from charrnn.text.vocabulary import Vocabulary

CHARACTERS = '\n"a\u2028\U0001f600'
SHAPE = {"cell": "lstm", "hidden": 3, "layers": 1}
META = {"format": 1, "version": "9", "model": SHAPE, "training": {}, "vocabulary": CHARACTERS}
RESUME = {
    "m": np.linspace(-1, 1, 7),
    "V.x_1": np.zeros((2, 0, 3), np.float32),
    "step": np.array(2**40),
    "rng": np.arange(256, dtype=np.uint8),
    "nan": np.array([np.nan, -np.inf], np.float32),
}


def a_model(cell="lstm", layers=1, characters=CHARACTERS, meta=None):
    config, vocabulary = ModelConfig(cell, 3, layers), Vocabulary(characters)
    parameters = initialize(config, len(vocabulary), np.random.default_rng(5))
    return Model(config, vocabulary, parameters, meta or {})


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array))
    return file.getvalue()


def header(descr, shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def members(about=META, /, **changes):
    """A good checkpoint's members by key, with `changes` (None: left out) and this meta."""
    meta = npy(np.array(about if isinstance(about, str) else json.dumps(about)))
    found = {key: npy(view) for key, view in a_model().parameters.items()}
    found = {"meta": meta, **found, **changes}
    return {key: data for key, data in found.items() if data}


def archive(members, method=zipfile.ZIP_STORED):
    return packed([(f"{key}.npy", data, method) for key, data in members.items()])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.npz"


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(path):
    """What load says of a file, without its name."""
    with pytest.raises(CheckpointError) as error:
        load(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert text.isprintable()
    assert len(text) < 500
    return text.removeprefix(f"{path}: ")


def refusal_of(data, path):
    path.write_bytes(data)
    return refusal(path)


# ---- what is written is read again


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_model_is_read_as_it_was_written(path, cell, layers):
    model = a_model(
        cell, layers, meta={"training": {"lr": 0.5}, "step": 3, "curve": [[1, 2.5], [2, None]]}
    )
    save(path, model)
    found = load(path)
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


def test_numpy_alone_reads_what_the_contract_says(path):
    model = a_model("gru", 2)
    save(path, model, RESUME)
    with np.load(path, allow_pickle=False) as found:
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
def test_what_numpy_wrote_is_read(path, pack):
    model = a_model()
    pack(
        path,
        meta=np.array(json.dumps(META, ensure_ascii=False)),
        **dict(model.parameters.items()),
    )
    assert np.array_equal(load(path).parameters.flat, model.parameters.flat)


@pytest.mark.parametrize(
    "characters",
    [
        "\0",
        "a\0",
        "a\0b",
        "\u2028\u2029",
        "\"\\'",
        "\U0001f600\U0010ffff",
        "\ufeff",
        "e\u0301é",
        "\x1b[",
    ],
)
def test_every_vocabulary_comes_back(path, characters):
    save(path, a_model(characters=characters))
    assert load(path).vocabulary.characters == characters


def test_resume_arrays_come_back_and_a_plain_load_does_not_read_them(path):
    save(path, a_model(), RESUME)
    _, found = load_resume(path)
    assert {name: (array.dtype, array.shape, array.tobytes()) for name, array in found.items()} == {
        name: (array.dtype, array.shape, array.tobytes()) for name, array in RESUME.items()
    }
    data = archive(members(**{"resume.m": b"no array at all"}))
    path.write_bytes(data)
    assert load(path).config.hidden == 3
    with pytest.raises(CheckpointError, match=r"'resume\.m' is damaged, or not a plain"):
        load_resume(path)


def test_a_file_without_resume_arrays_is_a_valid_model(path):
    save(path, a_model())
    assert load_resume(path)[1] == {}


def test_half_precision_is_half_the_size_and_read_as_float32(path):
    model = a_model()
    save(path, model, half=True)
    found = load(path).parameters.flat
    assert found.dtype == np.float32
    assert np.array_equal(found, model.parameters.flat.astype(np.float16).astype(np.float32))
    with np.load(path) as arrays:
        assert arrays["U"].dtype.str == "<f2"


def test_float64_parameters_are_written_as_float32(path):
    model = a_model()
    save(
        path,
        Model(model.config, model.vocabulary, model.parameters.astype(np.float64)),
    )
    assert np.array_equal(load(path).parameters.flat, model.parameters.flat)


def test_equal_content_gives_equal_bytes(tmp_path):
    for name in "ab":
        save(tmp_path / name, a_model(meta={"step": 1}), RESUME)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    save(tmp_path / "c", load(tmp_path / "a"), load_resume(tmp_path / "a")[1])
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


def test_what_is_not_finite_in_meta_becomes_null(path):
    save(
        path,
        a_model(
            meta={
                "loss": np.float32(np.nan),
                "large": 10**400,
                "curve": [(1, -np.inf), (np.int64(2), np.float64(0.5))],
            }
        ),
    )
    meta = load(path).meta
    assert (meta["loss"], meta["large"], meta["curve"]) == (None, None, [[1, None], [2, 0.5]])


def test_a_meta_that_would_not_be_read_is_not_written(path, tmp_path):
    with pytest.raises(CheckpointError, match="its meta has more than 200,000 values"):
        save(path, a_model(meta={"curve": [0] * 200_001}))
    assert listed(tmp_path) == []


def test_lists_within_lists_come_back(path):
    deep = 1
    for _ in range(15):
        deep = [{"a": deep}]
    save(path, a_model(meta={"deep": deep}))
    assert load(path).meta["deep"] == deep


@pytest.mark.parametrize(("number", "half"), [(np.nan, False), (np.inf, False), (7e4, True)])
def test_numbers_that_would_not_be_read_are_not_written(path, tmp_path, number, half):
    save(path, a_model())
    before = path.read_bytes()
    model = a_model()
    model.parameters["U"][1, 1] = number
    with pytest.raises(
        CheckpointError, match=r"m\.npz: cannot be written, nothing.*: 'U' isn't finite in float"
    ):
        save(path, model, half=half)
    assert path.read_bytes() == before
    assert listed(tmp_path) == ["m.npz"]


def test_a_checkpoint_of_version_0_1_0_is_read(path):
    about = {
        "training": {"cell": "lstm", "hidden": 3, "layers": 1, "lr": 0.004, "lines": False},
        "corpus": {"characters": 900, "digest": "5e", "names": ["tales.txt"]},
        "step": 3,
        "steps": 3,
        "best_step": 2,
        "epochs": 0.5,
        "seconds": 1.25,
        "train_loss": 3.5,
        "val_loss": 3.25,
        "curve": [[2, None, 3.25], [3, 3.5, 3.5]],
        "floor_nats": 2.0,
        "floor_order": 4,
        "chars_per_second": 1000.0,
        "speeds": [900.0, 1000.0],
    }
    own = {"format": 1, "version": "0.1.0", "model": SHAPE}
    resume = {
        "resume.record": npy(np.frombuffer(b'{"settings": {}}', np.uint8)),
        "resume.theta": npy(np.zeros(7, np.float32)),
        "resume.best": npy(np.zeros(0, np.float32)),
    }
    text = json.dumps({**own, **about, "vocabulary": CHARACTERS})
    path.write_bytes(archive(members(text, **resume)))
    model, found = load_resume(path)
    assert np.array_equal(model.parameters.flat, a_model().parameters.flat)
    assert found.keys() == {"record", "theta", "best"}
    assert (model.version, model.step, model.val_loss) == ("0.1.0", 3, 3.25)
    assert model.corpus_names == ["tales.txt"]
    assert model.curve == [(2, None, 3.25), (3, 3.5, 3.5)]


# ---- what a model's file says of its run


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("val_loss", 2.5, 2.5),
        ("val_loss", 2, 2),
        ("val_loss", True, None),
        ("val_loss", "2.5", None),
        ("step", 7, 7),
        ("step", 7.0, None),
        ("step", False, None),
        ("floor_order", [], None),
        ("training", {"lr": 1}, {"lr": 1}),
        ("training", [1], {}),
        (
            "corpus",
            {"names": ["a", 3, None], "characters": 1.5},
            {"names": ["a", 3, None], "characters": 1.5},
        ),
        ("version", 3, None),
        ("speeds", [1, "2", 3.5], [1, 3.5]),
        ("speeds", {"a": 1}, []),
        (
            "curve",
            [[1, 2.5, None], (2, "x", 3), [True, 1, 1], [3, 1], "abc", 4],
            [(1, 2.5, None), (2, None, 3)],
        ),
        ("curve", "abc", []),
    ],
)
def test_a_model_says_what_its_meta_says_and_nothing_of_nonsense(name, said, expected):
    assert getattr(a_model(meta={name: said}), name) == expected


def test_a_model_without_a_word_on_its_run_says_nothing():
    model = a_model()
    assert (model.step, model.train_loss, model.curve, model.corpus_names) == (None, None, [], [])
    assert not model.of_lines
    assert repr(model).endswith("parameters>")
    assert a_model(meta={"training": {"lines": True}}).of_lines
    assert a_model(meta={"corpus": {"names": ["a", 3]}}).corpus_names == ["a"]
    assert a_model(meta={"corpus": ["a"]}).corpus_characters is None
    assert repr(a_model(meta={"val_loss": 2})).endswith("2.000 nats per character on validation>")


# ---- files that are no checkpoint


def test_a_folder_a_missing_file_and_a_device_are_told_apart(path, tmp_path):
    assert refusal(tmp_path) == "this is a folder; name a file in it, such as model.npz"
    assert refusal(path) == "there is no such file; charrnn train makes one"
    assert refusal(Path(os.devnull)) == "this is not a regular file; choose another place"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_refused_without_waiting_for_a_writer(path):
    os.mkfifo(path)
    assert "not a regular file" in refusal(path)


def test_an_impossible_name_and_one_with_a_line_break_stand_in_the_message_as_they_are(tmp_path):
    with pytest.raises(CheckpointError, match="^a\0b: no file can have this name$"):
        load("a\0b")
    with pytest.raises(CheckpointError, match="a\nb.npz: there is no such file"):
        load(tmp_path / "a\nb.npz")


FOREIGN = "this is not a charrnn checkpoint (.npz), or it is cut off or damaged"
STRANGE = "'meta' is missing"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", FOREIGN),
        (b"P", FOREIGN),
        (b"To be, or not to be", FOREIGN),
        (npy(np.zeros(3)), FOREIGN),
        (pickle.dumps({"U": 1}), FOREIGN),
        (b"PK\5\6" + bytes(18), FOREIGN),
        (b"PK\3\4" + bytes(200), FOREIGN),
        (b"PK\3\4", FOREIGN),
        (archive(members())[4:], FOREIGN),
        (packed([("../U.npy", b"", 0)]), STRANGE),
        (packed([("/etc/passwd.npy", b"", 0)]), STRANGE),
        (packed([("a/U.npy", b"", 0)]), STRANGE),
        (packed([("\x1b[2J\n.npy", b"", 0)]), STRANGE),
        (packed([("U", b"", 0)]), STRANGE),
        (packed([("word/document.xml", b"", 0)]), STRANGE),
    ],
    ids=str,
)
def test_what_is_no_checkpoint_is_said_to_be_none(path, data, message):
    assert refusal_of(data, path) == message


@pytest.mark.parametrize("whole", [archive(members()), archive(members(), zipfile.ZIP_DEFLATED)])
def test_a_file_cut_off_at_every_tenth_byte_is_refused(path, whole):
    for length in range(0, len(whole), 10):
        assert refusal_of(whole[:length], path) == FOREIGN


def test_bytes_after_an_archive_do_no_harm(path):
    path.write_bytes(archive(members()) + b"behind")
    assert check(path)
    assert refusal_of(b"before" + archive(members()), path) == FOREIGN


def test_a_million_members_are_refused_before_they_are_taken_in(path, peak_memory):
    said = []
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[20] * 2, *[0] * 14)
    start = b"PK\3\4"
    count = 10**6
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, 46 * count, 4)
    end64 += struct.pack("<4sLQL", b"PK\6\7", 0, 4 + 46 * count, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 46 * count, 4, 0)
    path.write_bytes(start + entry * count + end64 + end)
    assert peak_memory(lambda: said.append(refusal(path))) < 2_000_000
    assert said == [FOREIGN]


def patched(data, signature, offset, value, width=2):
    at = data.index(signature) + offset
    return data[:at] + value.to_bytes(width, "little") + data[at + width :]


@pytest.mark.parametrize(
    ("signature", "offset", "value", "harmless"),
    [
        (b"PK\1\2", 8, 1, False),  # encrypted
        (b"PK\1\2", 8, 1 << 6, False),  # strongly
        (b"PK\1\2", 8, 1 << 5, False),  # patched data
        (b"PK\1\2", 10, 12, False),  # bzip2
        (b"PK\1\2", 10, 14, False),  # LZMA
        (b"PK\1\2", 10, 99, False),
        (b"PK\1\2", 6, 64, False),  # a newer zip
        (b"PK\1\2", 20, 7, False),
        (b"PK\1\2", 24, 7, False),
        (b"PK\1\2", 42, 50_000, False),
        (b"PK\1\2", 28, 60_000, False),
        (b"PK\1\2", 30, 60_000, False),
        (b"PK\1\2", 16, 7, False),
        (b"PK\3\4", 6, 1, True),  # zipfile goes by the list of members
        (b"PK\3\4", 8, 8, True),
        (b"PK\3\4", 26, 3, False),
        (b"PK\5\6", 4, 1, True),
        (b"PK\5\6", 8, 3, True),
        (b"PK\5\6", 12, 3, False),
        (b"PK\5\6", 16, 3, False),
        (b"PK\5\6", 20, 3, True),
    ],
)
def test_each_wrong_field_of_the_archive_is_refused_or_does_no_harm(
    path, signature, offset, value, harmless
):
    path.write_bytes(patched(archive(members()), signature, offset, value))
    assert check(path) == harmless


def test_a_member_that_is_there_twice_is_refused(path):
    data = packed(
        [(f"{key}.npy", array, 0) for key, array in [*members().items(), ("U", members()["U"])]]
    )
    assert refusal_of(data, path) == "it has two members of the same name"


# ---- arrays that are not what the meta says


U = np.zeros((5, 3), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"U": None}, "'U' is missing"),
        ({"meta": None}, "'meta' is missing"),
        ({"layers.0.W": None}, "'layers.0.W' is missing"),
        (
            {"layers.1.W": npy(U)},
            "'layers.1.W' does not belong to the model that its meta describes",
        ),
        ({"U": npy(np.zeros((4, 3), np.float32))}, "'U' is <f4 (4, 3); expected <f4 or <f2 (5, 3)"),
        ({"U": npy(U.T.copy())}, "'U' is <f4 (3, 5); expected <f4 or <f2 (5, 3)"),
        (
            {"U": header("<f4", (10**6, 10**6))},
            "'U' is <f4 (1000000, 1000000); expected <f4 or <f2 (5, 3)",
        ),
        (
            {"U": header("<f4", (10**12,))},
            "'U' is <f4 (1000000000000,); expected <f4 or <f2 (5, 3)",
        ),
        (
            {"U": npy(np.asfortranarray(U))},
            "'U' is <f4 (5, 3) in Fortran order; expected <f4 or <f2 (5, 3) in C",
        ),
        ({"U": npy(U.astype(">f4"))}, "'U' is >f4 (5, 3); expected <f4 or <f2"),
        ({"U": npy(U.astype(float))}, "'U' is <f8 (5, 3); expected <f4 or <f2"),
        ({"U": npy(U.astype(np.int32))}, "'U' is <i4 (5, 3); expected <f4 or <f2"),
        ({"U": npy(U.astype(object))}, "'U' is |O (5, 3); expected <f4 or <f2"),
        ({"U": npy(np.zeros((5, 3), "f4,f4"))}, "'U' is |V8 (5, 3); expected <f4 or <f2"),
        ({"U": npy(U + np.float32(np.nan))}, "'U' has NaN or infinite numbers"),
        ({"U": npy(U + np.float32(np.inf))}, "'U' has NaN or infinite numbers"),
        (
            {"U": npy((U - np.float32(np.inf)).astype(np.float16))},
            "'U' has NaN or infinite numbers",
        ),
        ({"U": npy(U)[:-1]}, "'U' has 59 bytes of data, not what its header says"),
        ({"U": npy(U) + b"\0"}, "'U' has 61 bytes of data, not what its header says"),
        ({"U": b"\x93NUMPY"}, "'U' is damaged, or not a plain NumPy array"),
        ({"U": b"\x93NUMPY\1\0"}, "'U' is damaged, or not a plain NumPy array"),
        ({"U": b"\x93NUMPY\3\0" + npy(U)[8:]}, "'U' is damaged, or not a plain NumPy array"),
        (
            {"U": b"\x93NUMPY\2\0" + struct.pack("<L", 2**31) + npy(U)[10:]},
            "'U' is damaged, or not a plain NumPy array",
        ),
        (
            {
                "U": b"\x93NUMPY\2\0"
                + struct.pack("<L", 20_000)
                + npy(U)[10:127].ljust(20_000)
                + npy(U)[128:]
            },
            "'U' is damaged, or not a plain NumPy array",
        ),
        (
            {"U": npy(U).replace(b"(5, 3)", b"(-5,3)")},
            "'U' is <f4 (-5, 3); expected <f4 or <f2 (5, 3)",
        ),
        ({"U": npy(U).replace(b"(5, 3)", b"5 *  3")}, "'U' is damaged, or not a plain NumPy array"),
        ({"U": npy(U).replace(b"False", b"exit(")}, "'U' is damaged, or not a plain NumPy array"),
        ({"U": npy(U).replace(b"(5, 3)", b"((((((")}, "'U' is damaged, or not a plain NumPy array"),
    ],
    ids=str,
)
def test_each_wrong_array_is_refused_by_name(path, changes, message):
    assert message in refusal_of(archive(members(**changes)), path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            npy(np.zeros(3, np.complex64)),
            "'resume.x' is <c8 (3,); expected <f4 or <f8 or <i8 or |u1 in C order",
        ),
        (header("<f8", (10**14,)), "'resume.x' has 0 bytes of data, not what its header says"),
        (header("<f8", (-1, -1)) + bytes(8), "'resume.x' is damaged"),
        (header("<f8", (0, 10**30)), "'resume.x' is damaged"),
        (header("|b1", (2,)) + b"\1\2", "'resume.x' is |b1"),
    ],
)
def test_each_wrong_resume_array_is_refused_by_name(path, data, message):
    path.write_bytes(archive(members(**{"resume.x": data})))
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_resume(path)


class Planted:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (str(Path(tempfile.gettempdir()) / "charrnn-was-tricked"),)


def test_nothing_in_a_pickled_member_runs(path, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = npy(np.array([Planted()], object))
    for changes in ({"U": data}, {"meta": data}, {"b_y": pickle.dumps(Planted())}):
        assert re.search(
            "expected|not a plain NumPy array", refusal_of(archive(members(**changes)), path)
        )
    assert listed(tmp_path) == ["m.npz"]


# ---- meta that says what cannot be


def meta(**changes):
    return META | changes


def shape(**changes):
    return META | {"model": SHAPE | changes}


NEEDS = (
    "its meta must have format, version, model, training, vocabulary, with the types that "
    "charrnn writes"
)
LACKS = "its meta describes a model that charrnn doesn't know"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("", "its meta is not valid JSON: Expecting value"),
        ("not json", "its meta is not valid JSON: Expecting value"),
        (json.dumps(META)[:-1], "its meta is not valid JSON"),
        ("[]", "its meta is not a JSON object, or has numbers that are not finite"),
        ("null", "its meta is not a JSON object, or has numbers that are not finite"),
        ("[" * 90_000, "its meta is not valid JSON: maximum recursion depth exceeded"),
        (
            json.dumps(META)[:-1] + ', "x": ' + "[" * 900 + "]" * 900 + "}",
            "its meta is not valid JSON: maximum recursion depth exceeded",
        ),
        ("[" + "[]," * 100_000 + "1]", "its meta has more than 200,000 values"),
        ("[" + "1," * 200_001 + "1]", "its meta has more than 200,000 values"),
        ('{"x": ' + "1" * 5_000 + "}", "its meta is not valid JSON: Exceeds the limit"),
        ('{"x": 1e999}', "its meta is not a JSON object, or has numbers that are not finite"),
        (
            '{"x": 1' + "0" * 400 + "}",
            "its meta is not a JSON object, or has numbers that are not finite",
        ),
        ('{"x": NaN}', "its meta is not a JSON object, or has numbers that are not finite"),
        ('{"x": -Infinity}', "its meta is not a JSON object, or has numbers that are not finite"),
        (meta(format=None), "charrnn '9' wrote it in format None; this version reads format 1"),
        (meta(format=True), NEEDS),
        (meta(format=1.0), NEEDS),
        (meta(format=0), "charrnn '9' wrote it in format 0; this version reads format 1"),
        (meta(version=3), NEEDS),
        (
            meta(format=2),
            "charrnn '9' wrote it in format 2; this version reads format 1: update charrnn",
        ),
        (
            meta(format=10**300),
            "charrnn '9' wrote it in format 1000000000000000000000000000000000000000; this",
        ),
        (meta(training=[]), NEEDS),
        (meta(model=None), NEEDS),
        (meta(model=[3]), NEEDS),
        (meta(model={"cell": "rnn", "hidden": 3}), LACKS),
        (shape(bidirectional=True), LACKS),
        (shape(cell="elman"), "its meta cannot be used: --cell is 'elman'"),
        (shape(cell="\x1b[2J" * 99), r"its meta cannot be used: --cell is '\x1b[2J\x1b[2J"),
        (shape(cell=["lstm"]), LACKS),
        (shape(hidden=0), "its meta cannot be used: --hidden is 0; it must be"),
        (shape(hidden=-3), "its meta cannot be used: --hidden is -3; it must be"),
        (shape(hidden=True), LACKS),
        (shape(hidden=3.0), LACKS),
        (shape(hidden="3"), LACKS),
        (shape(hidden=10**12), "its meta cannot be used: --hidden is 1e+12; it must be"),
        (shape(hidden=10**6), "'layers.0.V' is <f4 (12, 5); expected <f4 or <f2 (4000000, 5)"),
        (shape(layers=0), "its meta cannot be used: --layers is 0; it must be"),
        (shape(layers=None), LACKS),
        (shape(layers=10**12), "its meta cannot be used: --layers is 1e+12; it must be"),
        (shape(layers=2), "'layers.1.V' is missing"),
        (shape(cell="rnn"), "'layers.0.V' is <f4 (12, 5); expected <f4 or <f2 (3, 5)"),
        (meta(vocabulary=None), NEEDS),
        (meta(vocabulary=["a", "b"]), NEEDS),
        (meta(vocabulary=""), "its meta cannot be used: a vocabulary needs at least one character"),
        (
            meta(vocabulary="a" * 1_114_113),
            "its meta cannot be used: a vocabulary needs at least one character, and none twice",
        ),
        (
            meta(vocabulary="abcda"),
            "its meta cannot be used: a vocabulary needs at least one character, and none twice",
        ),
        (
            meta(vocabulary="abcd\ud800"),
            "its meta cannot be used: '\\ud800' (U+D800) is half of a UTF-16 pair",
        ),
        (meta(vocabulary="abcd"), "'layers.0.V' is <f4 (12, 5); expected <f4 or <f2 (12, 4)"),
        (meta(vocabulary="abcdef"), "'layers.0.V' is <f4 (12, 5); expected <f4 or <f2 (12, 6)"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_each_wrong_meta_is_refused(path, changed, message):
    assert message in refusal_of(archive(members(changed)), path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(np.array([json.dumps(META)])), "(1,); expected <U () in C order"),
        (npy(np.array(json.dumps(META), "S")), "'meta' is |S"),
        (npy(np.array(json.dumps(META)).astype(">U400")), "'meta' is >U"),
        (header("<U20000000", ()), "'meta' has 0 bytes of data, not what its header says"),
        (header("<U2", ()) + b"\0\xd8\0\0" * 2, "its meta is not valid JSON"),
        (header("<U1", ()) + b"\xff" * 4, "its meta is not Unicode text"),
        (npy(np.array("")), "its meta is not valid JSON"),
    ],
)
def test_meta_that_is_no_text_is_refused(path, data, message):
    assert message in refusal_of(archive(members(meta=data)), path)


# ---- files that would take much memory


def test_a_deflated_model_of_zeros_may_not_unfold_far_beyond_its_file(path, peak_memory):
    said = []
    big = {
        "layers.0.V": (8_000, 5),
        "layers.0.W": (8_000, 2_000),
        "layers.0.b_h": (8_000,),
        "U": (5, 2_000),
        "b_y": (5,),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("meta.npy", npy(np.array(json.dumps(shape(hidden=2_000)))))
        for name, size in big.items():
            bomb.writestr(f"{name}.npy", npy(np.zeros(size, np.float32)))
    assert peak_memory(lambda: said.append(refusal(path))) < 2_000_000
    assert "its arrays would take 64,233,356 bytes; a file of " in said[0]


def test_a_meta_of_a_hundred_megabytes_of_zeros_is_refused_by_its_size(path):
    for characters, message in (
        (25, "its arrays would take 100,000,128 bytes"),
        (10, "its arrays would take 40,000,128 bytes"),
    ):
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
            bomb.open("meta.npy", "w") as file,
        ):
            file.write(header(f"<U{characters}000000", ()))
            for _ in range(characters):
                file.write(bytes(4_000_000))
        assert message in refusal(path)


@pytest.mark.parametrize("size", [b"\x3c\0\0\0", b"\xbb\0\0\0", b"\xbd\0\0\0", b"\0\0\0\x10"])
def test_a_deflated_member_must_have_the_size_that_it_declares(path, size):
    data = archive(members(), zipfile.ZIP_DEFLATED)
    at = data.index(b"U.npy", data.index(b"PK\1\2")) - 46 + 24
    assert data[at : at + 4] == struct.pack("<L", 188)
    assert re.search(
        "'U' has|'U' is damaged|its arrays would take",
        refusal_of(data[:at] + size + data[at + 4 :], path),
    )


@pytest.mark.parametrize("more", [b"\0", bytes(100_000)])
def test_what_follows_a_members_declared_end_is_not_read(path, more):
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
    path.write_bytes(whole)
    assert check(path)


# ---- whatever else a stranger may send


ORIGINALS = seeds()


def test_the_fuzzers_originals_are_good(path):
    for data in ORIGINALS:
        for same in (data, packed(parts(data))):
            path.write_bytes(same)
            assert check(path)


@settings(max_examples=150, deadline=None)
@given(original=st.sampled_from(ORIGINALS), number=st.integers(0, 2**32))
def test_a_mutated_file_is_read_rightly_or_refused(original, number):
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
def test_bytes_cut_out_and_put_in_anywhere_are_read_rightly_or_refused(original, edits):
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


def test_the_fuzzer_counts_its_cases(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz_checkpoint.py", "--count", "60"])
    assert main() == 0
    assert re.match(
        r"60 files: \d+ refused, \d+ read rightly, 0 failures; ", capsys.readouterr().out
    )


def test_members_are_dated_1980_and_private_to_their_owner(path):
    save(path, tiny("ab"))
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert (info.create_system, info.external_attr >> 16) == (3, 0o600)


def test_arrays_may_take_a_few_times_their_file_and_no_more(path, tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "FREE_BYTES", 0)
    save(path, tiny("ab", hidden=200))
    with np.load(path) as file:
        arrays = dict(file)
    arrays["U"] = np.zeros_like(arrays["U"])
    np.savez_compressed(tmp_path / "some.npz", **arrays)
    size = sum(array.nbytes for array in arrays.values())
    assert size > (tmp_path / "some.npz").stat().st_size
    load(tmp_path / "some.npz")
    arrays = {k: a if k == "meta" else np.zeros_like(a) for k, a in arrays.items()}
    np.savez_compressed(tmp_path / "zeros.npz", **arrays)
    with pytest.raises(CheckpointError, match="would take"):
        load(tmp_path / "zeros.npz")
