"""A store gives back what was appended, in memory, in a file and in another process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

from charrnn.errors import CorpusError
from charrnn.text import store as store_module
from charrnn.text.store import Store

IN_MEMORY, IN_A_FILE = 1 << 20, 0


def filled(memory: int, dtype: str = "u1", size: int = 1000) -> Store:
    store = Store(dtype, memory)
    for start in range(0, size, 300):
        store.append(np.arange(start, min(start + 300, size)) % 250)
    return store


@pytest.fixture(params=[True, False], ids=["as on POSIX", "as on Windows"])
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not hasattr(os, "pread"):
        pytest.skip("needs os.pread")
    monkeypatch.setattr(store_module, "_POSITIONAL", request.param)
    return bool(request.param)


@pytest.mark.parametrize("memory", [IN_MEMORY, 1200, IN_A_FILE])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_any_range_reads_what_was_appended(anywhere: bool, memory: int, dtype: str) -> None:
    store = filled(memory, dtype)
    assert len(store) == 1000
    for start, stop in ((0, 1000), (0, 0), (1000, 1000), (299, 301), (7, 990)):
        read = store.read(start, stop)
        assert read.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(read, np.arange(start, stop) % 250)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (4, 3), (0, 1001)])
def test_a_range_outside_is_refused(start: int, stop: int) -> None:
    with pytest.raises(IndexError):
        filled(IN_MEMORY).read(start, stop)


@pytest.mark.parametrize("memory", [IN_MEMORY, IN_A_FILE])
@pytest.mark.parametrize("to", ["u1", "u2", "u4"])
def test_recoding_applies_the_table_to_every_index(
    monkeypatch: pytest.MonkeyPatch, memory: int, to: str
) -> None:
    monkeypatch.setattr(store_module, "_BLOCK", 77)
    table = np.random.default_rng(0).permutation(250).astype(to)
    recoded = filled(memory).recode(table)
    assert recoded.dtype == np.dtype(to)
    np.testing.assert_array_equal(recoded.read(0, 1000), table[np.arange(1000) % 250])


def test_appending_goes_on_after_reading_and_recoding() -> None:
    store = filled(IN_MEMORY)
    kept = store.read(0, 10)
    store.append(np.array([5, 6]))
    store = store.recode(np.arange(250, dtype=np.uint16))
    store.append(np.array([249]))
    assert store.read(998, 1003).tolist() == [248, 249, 5, 6, 249]
    assert kept.tolist() == list(range(10))


def test_several_threads_may_read(anywhere: bool) -> None:
    store = filled(IN_A_FILE)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda at: store.read(at, at + 3).tolist(), range(240)))
    assert read == [[at, at + 1, at + 2] for at in range(240)]


@pytest.mark.parametrize("memory", [IN_MEMORY, IN_A_FILE])
def test_an_attached_store_reads_the_same(anywhere: bool, memory: int) -> None:
    store = filled(memory, "u2")
    descriptors, description = store.share()
    attached = Store.attach(description)
    assert len(descriptors) == anywhere
    np.testing.assert_array_equal(attached.read(0, 1000), store.read(0, 1000))
    del store
    assert attached.read(5, 6).tolist() == [5]


@pytest.mark.skipif(os.name == "nt", reason="descriptors are not handed over on Windows")
def test_a_child_process_reads_the_same() -> None:
    store = filled(IN_MEMORY)
    descriptors, description = store.share()
    code = f"from charrnn.text.store import Store; print(Store.attach({description!r}).read(248, 252).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == "[248, 249, 0, 1]"


def test_nothing_stays_on_disk(
    anywhere: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = filled(IN_A_FILE)
    attached = Store.attach(store.share()[1])
    assert list(tmp_path.iterdir()) == [] or not anywhere
    del store, attached
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(CorpusError, match=r"no temporary file can be made .* set TMPDIR"):
        filled(IN_A_FILE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_corpus_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_temporary", lambda: FileIO("/dev/full", "r+b"))
    with pytest.raises(
        CorpusError, match=r"cannot take the corpus \(No space left on device\); set TMPDIR"
    ):
        filled(IN_A_FILE)


def test_short_writes_and_reads_are_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Stutter(FileIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            return super().write(data[:7])

    whole = Store._read_some
    monkeypatch.setattr(store_module, "_temporary", lambda: Stutter(tmp_path / "file", "w+b"))
    monkeypatch.setattr(
        Store, "_read_some", lambda self, offset, count: whole(self, offset, min(count, 5))
    )
    np.testing.assert_array_equal(filled(IN_A_FILE, "u2").read(3, 990), np.arange(3, 990) % 250)
