"""Reading against bytes.decode and str.replace on the whole file at once."""

import bz2
import gc
import gzip
import lzma
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from charrnn.errors import CharRNNError, CorpusError, UsageError
from charrnn.text import corpus as corpus_module, sources as sources_module
from charrnn.text.corpus import Part, Store, default_corpus, read_corpus, read_text, training_share
from charrnn.text.vocabulary import Vocabulary

SHARED = Path(__file__).parents[2] / "shared" / "corpora"
COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
MIXED = "Ωmega\tжук\r\nзвук\rαβγ\n\r\n日本語 😀 e\u0301 é\0\x85\u2028\x0c\r"
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX files")


def text_of(corpus):
    return corpus.vocabulary.decode(corpus.store.read(0, corpus.characters))


def clean(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def chunks(size):
    """Within it, files are read in chunks of so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources_module, "CHUNK", size)
        yield


@contextmanager
def standard_input(data):
    """Within it, this is what stands on standard input."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", TextIOWrapper(BytesIO(data)))
        yield


def piped(data, encoding="utf-8", chunk_size=1 << 20, base=None):
    with chunks(chunk_size), standard_input(data):
        return read_corpus(["-"], encoding=encoding, base=base)


def written(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def file_of(folder, data, name="a"):
    return written(folder, {name: data}) / name


def refusal(*sources, kind=CorpusError, **options):
    with pytest.raises(kind) as raised:
        read_corpus(sources, **options)
    message = str(raised.value)
    assert "\n" not in message
    return message


# What is read


@given(st.text(st.sampled_from("ab\r\néж語😀\0"), min_size=2), st.integers(1, 9))
def test_indices_vocabulary_and_digest_do_not_depend_on_the_chunks(text, chunk_size):
    if len(clean(text)) < 2:
        return
    corpus, whole = piped(text.encode(), chunk_size=chunk_size), piped(text.encode())
    assert text_of(corpus) == clean(text)
    assert corpus.vocabulary == Vocabulary.of(clean(text))
    for name in ("vocabulary", "texts", "notes", "digest"):
        assert getattr(corpus, name) == getattr(whole, name)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32", "utf-7", "gb18030"])
def test_characters_and_line_ends_may_lie_across_chunks(encoding, chunk_size):
    corpus = piped(MIXED.encode(encoding), encoding, chunk_size)
    assert text_of(corpus) == clean(MIXED)
    assert corpus.digest == piped(MIXED.encode()).digest


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("latin-1", "café\n"), ("cp1251", "жук\n"), ("shift_jis", "日本\n"), ("UTF8", "é\n")],
)
def test_other_encodings_are_read_when_named(encoding, text):
    assert text_of(piped(text.encode(encoding), encoding, chunk_size=1)) == text


def test_line_ends_are_noted_once_a_source_and_nothing_else_is_changed():
    corpus = piped(MIXED.encode(), chunk_size=1)
    assert text_of(corpus) == clean(MIXED)
    assert corpus.notes == [r"standard input: line ends \r or \r\n changed to \n"]
    assert piped(b"a\nb\n").notes == []


def test_the_dtype_grows_with_the_symbols():
    for size, dtype in ((256, "u1"), (257, "u2"), (65_537, "u4")):
        text = "ba" * 5000 + "".join(map(chr, range(0x10000, 0x10000 + size - 2)))
        corpus = piped(text.encode(), chunk_size=8192)
        assert corpus.store.dtype == corpus.vocabulary.dtype == np.dtype(dtype)
        assert text_of(corpus) == text


def test_characters_of_a_base_keep_their_indices_and_new_ones_follow_in_order():
    corpus = piped("zebra ж".encode(), base=Vocabulary("zyxa"), chunk_size=2)
    assert corpus.vocabulary.characters == "zyxa berж"
    assert text_of(corpus) == "zebra ж"
    assert piped(b"azza", base=Vocabulary("za")).store.read(0, 4).tolist() == [1, 0, 0, 1]


def test_each_source_is_a_text_and_the_digest_tells_where_it_ends(tmp_path):
    written(tmp_path, {"1": b"ab", "2": b"cab", "3": b"abc", "4": b"ab"})
    one = read_corpus([tmp_path / "1", str(tmp_path / "2")])
    other = read_corpus([tmp_path / "3", tmp_path / "4"])
    assert text_of(one) == text_of(other) == "abcab"
    assert (one.characters, one.texts) == (5, [(0, 2), (2, 5)])
    assert one.digest != other.digest
    assert one.digest == read_corpus([tmp_path / "4", tmp_path / "2"]).digest


# Byte order marks and encodings


def test_a_byte_order_mark_is_left_out_at_the_start_alone(tmp_path):
    written(tmp_path, {"a": "\ufeffone\ufeff".encode()})
    with chunks(1):
        corpus = read_corpus([tmp_path / "a"])
    assert text_of(corpus) == "one\ufeff"
    assert corpus.notes == [f"{tmp_path / 'a'}: byte order mark at the start removed"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "utf-16-le"])
def test_a_mark_that_belongs_to_the_encoding_is_no_character(encoding):
    data = "ab".encode(encoding) if encoding != "utf-16-le" else b"\xff\xfe" + "ab".encode(encoding)
    assert text_of(piped(data, encoding)) == "ab"


@pytest.mark.parametrize(
    ("data", "encoding", "good"),
    [
        ("\ufeffabc".encode() + b"\xe9d", "utf-8", "abc"),
        ("\ufeffabc".encode("utf-16") + b"d", "utf-16", "abc"),
        ("\ufeff".encode() + b"\xe9d", "utf-8", ""),
        (b"\xe9d", "utf-8", ""),
        (b"abcd\0", "utf-16", ""),
    ],
)
def test_what_is_good_before_a_broken_byte_is_read(data, encoding, good, tmp_path):
    (tmp_path / "t").write_bytes(data)
    pieces = []
    with pytest.raises(CorpusError):
        pieces.extend(sources_module.Source(tmp_path / "t", encoding))
    assert "".join(pieces) == good


@pytest.mark.parametrize("chunk_size", [1, 4, 1 << 20])
@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (b"abc\xe9d", "utf-8", r"isn't utf-8 text: byte 0xe9 at offset 3 .*--encoding latin-1"),
        (
            "жук".encode() + b"\xd0",
            "utf-8",
            r"isn't utf-8 text: byte 0xd0 at offset 6 \(unexpected end of data\)",
        ),
        ("ж".encode(), "ascii", r"isn't ascii text: byte 0xd0 at offset 0"),
        (b"ok\xed\xa0\x80", "utf-8", r"byte 0xed at offset 2"),
        (b"\xff\xfea\0\x00\xd8b\0", "utf-16", r"isn't utf-16 text: byte 0x00 at offset 4"),
        (b"ab\x81", "gb18030", r"isn't gb18030 text: byte 0x81 at offset 2"),
        (
            "ab".encode("utf-16-be"),
            "utf-16",
            r"isn't utf-16 text: .* such as --encoding .*utf-16-le",
        ),
        ("ab".encode("utf-16"), "utf-8", r"byte 0xff at offset 0"),
        (b"+2AA-", "utf-7", r"U\+D800\) is half of a UTF-16 pair"),
    ],
)
def test_undecodable_bytes_are_named_with_their_offset(data, encoding, message, chunk_size):
    with pytest.raises(CharRNNError, match=message):
        piped(data, encoding, chunk_size)


@pytest.mark.parametrize(
    "encoding", ["rot13", "hex", "base64", "zlib", "nonsense", "", "a\0b", "undefined"]
)
def test_what_is_not_an_encoding_of_text_is_refused(encoding):
    assert "--encoding" in refusal("-", kind=UsageError, encoding=encoding)


# Files


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".GZ"])
def test_archives_are_read_as_what_they_hold(tmp_path, suffix):
    file = file_of(tmp_path, COMPRESS[suffix.lower()](MIXED.encode()), "a" + suffix)
    with chunks(5):
        corpus = read_corpus([file], encoding="utf-8")
    assert text_of(corpus) == clean(MIXED)
    assert corpus.digest == piped(MIXED.encode()).digest


def cut_or_overwritten(data):
    return data[:-9], data[: len(data) // 2], b"plain text", data[:500] + b"oops" + data[504:]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_truncated_or_corrupt_archive_is_refused(tmp_path, suffix):
    letters = np.random.default_rng(0).integers(97, 123, 5000).astype(np.uint8).tobytes()
    for broken in cut_or_overwritten(COMPRESS[suffix](letters)):
        file = file_of(tmp_path, broken, "a" + suffix)
        assert str(file) in refusal(file)


def packed(name):
    """An archive of a text, in memory."""
    out, text = BytesIO(), b"a text " * 20
    if name == "tar":
        with tarfile.open(fileobj=out, mode="w") as tar:
            entry = tarfile.TarInfo("a.txt")
            entry.size = len(text)
            tar.addfile(entry, BytesIO(text))
    else:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a.txt", text)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ("a text\n".encode("utf-16-le"), "and UTF-16 do: .* --encoding utf-16-le"),
        ("a text\n".encode("utf-16-be"), "and UTF-16 do: .* --encoding utf-16-le"),
        ("жук и звук\n".encode("utf-16-le") * 9, "and UTF-16 do"),
        ("天地玄黃 1 宇宙洪荒 2\n".encode("utf-16-le") * 9, "such as --encoding .*utf-16-le"),
        ("a text".encode("utf-16"), "starts like UTF-16: give --encoding utf-16"),
        (packed("tar"), "NUL characters, as archives"),
        (packed("zip"), "a zip archive"),
        (b"%PDF-1.7\nall of it ASCII", "a PDF document"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a PNG image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
        (b"\x7fELF\2\1\1\0", "a program"),
        (gzip.compress(b"abc", mtime=0), "compressed by gzip"),
        (bz2.compress(b"abc"), "compressed by bzip2"),
        (lzma.compress(b"abc"), "compressed by xz"),
        (b"a\0b", "NUL characters, as archives, documents, programs .* name its encoding"),
        (b"x" * (1 << 20) + b"a\0b", "NUL characters"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:4].hex(),
)
def test_what_is_no_text_is_refused_with_the_likely_cause(data, cause, tmp_path):
    with pytest.raises(CorpusError, match=f"^standard input: .*{cause}"):
        piped(data, None)
    path = file_of(tmp_path, data)
    with pytest.raises(CorpusError, match=cause):
        read_corpus([path])
    with pytest.raises(CorpusError, match=cause):
        read_text(path)
    if len(data) < 1 << 20:
        written(tmp_path, {"b": b"text"})
        assert text_of(read_corpus([tmp_path])) == "text"


def test_nul_characters_are_read_if_the_encoding_is_named(tmp_path):
    path = file_of(tmp_path, b"a\0b")
    assert text_of(read_corpus([path], encoding="utf-8")) == "a\0b"
    assert read_text(path, encoding="ascii") == ("a\0b", [])
    assert text_of(piped(packed("tar"), "latin-1")).startswith("a.txt\0")


def test_file_signatures_are_ignored_if_the_encoding_is_named():
    assert text_of(piped(b"%PDF-1.7 ", "ascii")) == "%PDF-1.7 "


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "no utf-8 text"), (b"\xef\xbb\xbf", "no utf-8 text"), (b"x", "nothing to predict")],
)
def test_too_short_texts_are_refused(tmp_path, data, message):
    assert message in refusal(file_of(tmp_path, data))
    with pytest.raises(CorpusError, match=message):
        piped(data)


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    assert "or is empty" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_an_empty_archive_has_no_text(suffix, tmp_path):
    assert "no utf-8 text" in refusal(file_of(tmp_path, COMPRESS[suffix](b""), "a" + suffix))


def test_one_character_in_each_of_two_texts_is_enough(tmp_path):
    written(tmp_path, {"a": b"x", "b": b"y"})
    assert read_corpus([tmp_path / "a", tmp_path / "b"]).characters == 2


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "x", tmp_path / "x" / "y"):
        assert refusal(path).startswith(
            f"{path}: cannot be read (No such file or directory); check the path"
        )


def test_names_that_cannot_be_files_are_refused(tmp_path):
    assert "an empty name: cannot be read" in refusal("")
    assert "a\0b: cannot be read" in refusal("a\0b")
    assert "nothing to predict" in refusal()
    assert "only once" in refusal("-", "-", kind=UsageError)


@posix
def test_sockets_empty_devices_and_link_loops_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        assert "cannot be read" in refusal("socket")
    assert "no utf-8 text" in refusal(os.devnull)
    assert "NUL characters" in refusal("/dev/zero")
    Path("loop").symlink_to("loop")
    assert "cannot be read" in refusal("loop")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused_by_name(tmp_path):
    file = file_of(tmp_path, b"ab")
    file.chmod(0)
    assert "Permission denied" in refusal(file)


def test_an_unreadable_file_is_refused_by_name(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    file = file_of(tmp_path, b"ab")
    monkeypatch.setattr("builtins.open", denied)
    assert refusal(file) == (
        f"{file}: cannot be read (Permission denied); check the path, its permissions and that the "
        "file is complete"
    )


@posix
def test_a_pipe_given_by_its_path_is_read(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"piped")
    os.close(writing)
    try:
        assert text_of(read_corpus([f"/dev/fd/{reading}"])) == "piped"
    finally:
        os.close(reading)


# Folders


def test_a_folder_is_one_text_in_the_order_of_paths(tmp_path):
    files = {"b.txt": b"4", "a/z": b"1", "a/y/x": b"0", "a-b/x": b"2", "a.txt": b"3"}
    corpus = read_corpus([written(tmp_path, files)])
    expected = "".join(
        path.read_text()
        for path in sorted(tmp_path.rglob("*"), key=lambda p: p.parts)
        if path.is_file()
    )
    assert text_of(corpus) == expected == "01234"
    assert corpus.texts == [(0, 5)]
    assert corpus.notes == []


def test_what_is_hidden_or_no_text_is_skipped_and_reported(tmp_path):
    files = {
        "a.txt": b"text",
        ".git/config": b"hidden",
        ".x": b"hidden",
        "image": b"GIF\0",
        "latin": b"caf\xe9",
        "empty": b"",
        "b.gz": gzip.compress(b"more", mtime=0),
        "broken.gz": b"oops",
        "c.gz": gzip.compress(b"\0", mtime=0),
    }
    corpus = read_corpus([written(tmp_path, files)])
    assert text_of(corpus) == "textmore"
    why = dict(note.removeprefix(f"{tmp_path}{os.sep}").split(": ", 1) for note in corpus.notes)
    assert why == {
        ".git": "skipped, hidden",
        ".x": "skipped, hidden",
        "image": "skipped, isn't text; it has NUL characters",
        "c.gz": "skipped, isn't text; it has NUL characters",
        "latin": "skipped, isn't utf-8 text",
        "broken.gz": "skipped, cannot be read (Not a gzipped file (b'oo'))",
    }


def test_a_folder_is_read_in_the_encoding_given(tmp_path):
    written(tmp_path, {"a": "жук".encode("utf-16"), "b": "é\r\n".encode("utf-16"), "c": b"plain"})
    corpus = read_corpus([tmp_path], encoding="utf-16")
    assert text_of(corpus) == "жукé\n"
    assert [note.split(": ", 1)[1] for note in corpus.notes] == [
        r"line ends \r or \r\n changed to \n",
        "skipped, isn't utf-16 text",
    ]


def test_a_late_wrong_byte_in_a_folder_is_an_error(tmp_path):
    for wrong in (b"\xe9", b"\xd0"):
        data = b"x" * sources_module.CHUNK + wrong
        written(tmp_path, {"a": b"ab", "b": data})
        said = f"b: .* byte {wrong[0]:#x} at offset {len(data) - 1}"
        with pytest.raises(CorpusError, match=said):
            read_corpus([tmp_path])


def test_a_character_across_the_head_of_a_file_is_read(tmp_path):
    for shift in range(3):
        text = "x" * (sources_module.CHUNK - shift) + "語" * sources_module.CHUNK
        assert text_of(read_corpus([written(tmp_path, {"a": text.encode()})])) == text


def test_with_lines_the_end_of_a_file_ends_a_line(tmp_path):
    files = {"a": b"anna\nbob", "b": b"clara\n", "c": b"", "d": b"dora", "e": b"x\r", "f": b"\n"}
    folder = written(tmp_path / "in", files)
    corpus = read_corpus([folder], lines=True)
    assert text_of(corpus) == "anna\nbob\nclara\ndora\nx\n\n"
    assert text_of(read_corpus([folder])) == "anna\nbobclara\ndorax\n\n"
    assert text_of(read_corpus([folder / "a"], lines=True)) == "anna\nbob"
    with chunks(1):
        assert read_corpus([folder], lines=True).digest == corpus.digest


def test_a_line_end_does_not_reach_over_two_files(tmp_path):
    assert text_of(read_corpus([written(tmp_path, {"a": b"x\r", "b": b"\ny"})])) == "x\n\ny"


def test_each_files_byte_order_mark_is_left_out(tmp_path):
    corpus = read_corpus([written(tmp_path, {f"{i}": b"\xef\xbb\xbfx" for i in range(8)})])
    assert text_of(corpus) == "x" * 8
    assert len(corpus.notes) == 6
    assert corpus.notes[-1] == f"{tmp_path}: byte order mark at the start removed (3 more files)"


@pytest.mark.parametrize("files", [{}, {"a": b""}, {".a": b"ab"}, {"a": b"\0"}])
def test_a_folder_without_text_is_refused(tmp_path, files):
    assert "no utf-8 text" in refusal(written(tmp_path, files))


@posix
def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path):
    folder = written(tmp_path / "in", {"a": b"a", "d/b": b"b"})
    written(tmp_path / "out", {"c": b"c"})
    (folder / "d" / "up").symlink_to("..")
    (folder / "e").symlink_to("../out/c")
    (folder / "loop").symlink_to("loop")
    (folder / "nowhere").symlink_to("gone")
    (folder / "out").symlink_to("../out")
    (folder / "zero").symlink_to("/dev/zero")
    corpus = read_corpus([folder])
    assert text_of(corpus) == "abc"
    said = dict(note.removeprefix(f"{folder}/").split(": ", 1) for note in corpus.notes)
    assert said == dict.fromkeys(
        ("d/up", "loop", "nowhere", "out", "zero"),
        "skipped, a link to a folder or not a regular file",
    )
    (tmp_path / "link").symlink_to("out")
    assert read_text(tmp_path / "link")[0] == "c"


@posix
def test_pipes_and_sockets_in_a_folder_are_skipped(tmp_path, monkeypatch):
    monkeypatch.chdir(written(tmp_path, {"a": b"ab"}))
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        corpus = read_corpus(["."])
    assert text_of(corpus) == "ab"
    assert corpus.notes == [
        "pipe: skipped, a link to a folder or not a regular file",
        "socket: skipped, a link to a folder or not a regular file",
    ]


# One text for eval


def test_read_text_gives_the_clean_text_and_notes(tmp_path):
    file = file_of(tmp_path, "\ufeffé\r\nb".encode())
    text, notes = read_text(file)
    assert text == "é\nb"
    assert len(notes) == 2
    with standard_input(b"caf\xe9"):
        assert read_text("-", encoding="latin-1") == ("café", [])
    assert read_text(file, limit=3)[0] == text
    with pytest.raises(CorpusError, match="has more than 2 characters"):
        read_text(file, limit=2)
    with pytest.raises(UsageError):
        read_text(file, encoding="rot13")


# The store


def filled(dtype="u1"):
    """A store of 1,000 indices."""
    store = Store(dtype)
    for start in range(0, 1000, 300):
        store.append(np.arange(start, min(start + 300, 1000)) % 250)
    return store


@pytest.fixture(params=[True, False], ids=["as on POSIX", "as on Windows"])
def unnamed(request, monkeypatch):
    """Whether temporary files have no name, as on POSIX; on Windows they have one."""
    if request.param and os.name == "nt":
        pytest.skip("needs POSIX files")
    if not request.param:
        monkeypatch.setattr(tempfile, "TemporaryFile", tempfile.NamedTemporaryFile)
        monkeypatch.delattr(os, "pread", raising=False)
    return bool(request.param)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_any_range_reads_what_was_appended(unnamed, dtype):
    store = filled(dtype)
    assert store.length == 1000
    for start, stop in ((0, 1000), (0, 0), (1000, 1000), (299, 301), (7, 990)):
        read = store.read(start, stop)
        assert read.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(read, np.arange(start, stop) % 250)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (4, 3), (0, 1001)])
def test_a_range_outside_is_refused(start, stop):
    with pytest.raises(IndexError):
        filled().read(start, stop)


def test_a_table_stands_for_every_index_here_and_in_other_processes(unnamed):
    store = filled()
    store.table = np.random.default_rng(0).permutation(250).astype("u1")
    for reader in (store, pickle.loads(pickle.dumps(store))):
        np.testing.assert_array_equal(reader.read(0, 1000), store.table[np.arange(1000) % 250])
        assert reader.read(0, 1).dtype == np.uint8


@pytest.mark.parametrize("to", ["u2", "u4"])
def test_a_wider_store_has_the_same_indices_and_takes_more(unnamed, monkeypatch, to):
    monkeypatch.setattr(corpus_module, "_BLOCK", 77)
    store = filled()
    kept = store.read(0, 10)
    store.append(np.array([5, 6]))
    wider = store.widened(to)
    wider.append(np.array([60_000]))
    assert wider.dtype == np.dtype(to)
    assert wider.read(998, 1003).tolist() == [248, 249, 5, 6, 60_000]
    np.testing.assert_array_equal(wider.read(0, 1000), np.arange(1000) % 250)
    assert kept.tolist() == list(range(10))


def test_several_threads_may_read(unnamed):
    store = filled()
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda at: store.read(at, at + 3).tolist(), range(240)))
    assert read == [[at, at + 1, at + 2] for at in range(240)]


def test_an_attached_store_reads_the_same(unnamed):
    store = filled("u2")
    attached = pickle.loads(pickle.dumps(store))
    assert len(store.descriptors) == unnamed
    np.testing.assert_array_equal(attached.read(0, 1000), store.read(0, 1000))
    del store
    assert attached.read(5, 6).tolist() == [5]


@pytest.mark.skipif(os.name == "nt", reason="descriptors are not handed over on Windows")
def test_a_child_process_reads_the_same():
    store = filled()
    code = f"import pickle; print(pickle.loads({pickle.dumps(store)!r}).read(248, 252).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        pass_fds=store.descriptors,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == "[248, 249, 0, 1]"


def test_nothing_stays_on_disk(unnamed, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = filled()
    attached = pickle.loads(pickle.dumps(store))
    assert list(tmp_path.iterdir()) == [] or not unnamed
    del store, attached
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_that_cannot_be_used_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(CorpusError, match=r"cannot store the corpus .* set TMPDIR"):
        piped(b"text")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_corpus_error(monkeypatch):
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
    with pytest.raises(
        CorpusError,
        match=r"store the corpus in a temporary file \(No space left on device\); set TMPDIR",
    ):
        piped(b"text")
    gc.collect()


# The split


@given(st.integers(0, 10**12), st.decimals(0, "0.9", places=4))
def test_the_training_share_is_exact(n, fraction):
    F = float(str(fraction))
    assert training_share(n, F) == n * (10_000 - round(F * 10_000)) // 10_000


def test_the_split_of_ten_characters_leaves_nine():
    assert [training_share(n, 0.1) for n in (1, 9, 10, 1_115_394)] == [0, 8, 9, 1_003_854]
    assert training_share(10, 0.9) == 1  # 1 - 0.9 as a float is less than a tenth
    assert training_share(1000, 1e-05) == 999
    assert training_share(7, 0) == 7


def test_each_text_is_split_by_itself(tmp_path):
    written(tmp_path, {"1": b"abcdefghij", "2": b"k", "3": b"lmno"})
    corpus = read_corpus([tmp_path / name for name in "123"])
    training, validation = corpus.split(0.25)
    for part, text in ((training, "abcdefglmn"), (validation, "hijko")):
        assert corpus.vocabulary.decode(part.read(0, part.characters)) == text


def test_without_validation_everything_trains():
    training, validation = piped(b"abcd").split(0)
    assert (training.characters, validation.characters) == (4, 0)
    assert validation.read(0, 0).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=6), st.data())
def test_a_part_reads_as_its_extents_joined(extents, data):
    store = Store(np.uint8)
    store.append(np.arange(40))
    part = Part(store, [(start, start + length) for start, length in extents])
    whole = [p for start, length in extents for p in range(start, start + length)]
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert part.characters == len(whole)
    assert part.read(start, stop).tolist() == whole[start:stop]
    with pytest.raises(IndexError):
        part.read(0, len(whole) + 1)


# The texts that ship and the shared ones


def test_the_default_corpus_is_in_the_package_or_beside_it_in_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(corpus_module, "__file__", str(tmp_path / "charrnn/text/corpus.py"))
    assert "tales.txt: cannot be read" in refusal(default_corpus())
    for folder in (".", "charrnn"):
        path = written(tmp_path / folder, {"corpora/tales.txt": b"Once"}) / "corpora/tales.txt"
        assert default_corpus() == path


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared corpora")
@pytest.mark.parametrize(
    ("name", "characters", "distinct"),
    [
        ("tinyshakespeare", 1_115_394, 65),
        ("names", 228_145, 27),
        ("tang300_zh", 31_164, 2_657),
        ("vazov_bg", 111_747, 104),
    ],
)
def test_the_shared_corpora_have_their_published_sizes(name, characters, distinct):
    file = SHARED / f"{name}.txt"
    with chunks(9999):
        corpus = read_corpus([file])
    assert (corpus.characters, len(corpus.vocabulary), corpus.notes) == (characters, distinct, [])
    assert text_of(corpus) == file.read_bytes().decode()


def test_the_published_split_of_tinyshakespeare(shakespeare):
    training, validation = read_corpus([shakespeare]).split(0.1)
    assert (training.characters, validation.characters) == (1_003_854, 111_540)
