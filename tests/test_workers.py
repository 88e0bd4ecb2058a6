"""Processes that share a batch: their pipes and memory, and that none outlives a run."""

import io
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from charrnn.errors import TrainingError
from charrnn.training import workers

TEXT = "the quick brown fox jumps over the lazy dog\n" * 40


def test_a_peer_that_ends_between_or_within_two_messages_is_gone():
    order = ("step", 7, 0.01, np.arange(5000.0))
    data = pickle.dumps(order)
    whole = workers.Peer(3, io.BytesIO(data + data), io.BytesIO())
    for _ in range(2):
        assert whole.receive()[:3] == order[:3]
    for length in (0, 1, 2, 3, 50, 1000, len(data) - 1):
        with pytest.raises(workers.PeerGoneError) as gone:
            workers.Peer(3, io.BytesIO(data[:length]), io.BytesIO()).receive()
        assert gone.value.args == (3,)


@pytest.mark.skipif(os.name == "nt", reason="the memory is part of the page file")
def test_shared_memory_has_no_name_and_its_room_is_taken_at_once():
    with workers._shared_memory(10_000) as key:
        assert os.fstat(key).st_nlink == 0
        assert os.fstat(key).st_blocks * 512 >= 10_000
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(key)


@pytest.mark.skipif(os.name == "nt", reason="the memory is part of the page file")
def test_where_memory_is_full_the_temporary_folder_is_taken(tmp_path, monkeypatch):
    make = tempfile.TemporaryFile

    def only(*folders):
        def choose(dir):
            return make(dir=tmp_path if dir in folders else tmp_path / "missing")

        monkeypatch.setattr(tempfile, "TemporaryFile", choose)

    only(None)
    with workers._shared_memory(1000) as key:
        assert os.fstat(key).st_size == 1000
    only()
    said = "no room for 1,000 bytes of shared memory .*train with --workers 1"
    with pytest.raises(TrainingError, match=said), workers._shared_memory(1000):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_rank_0_whatever_ends_it(number, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    words = ["train", text, "--hidden", "8", "--batch-size", "6", "--steps", "100000000"]
    words += ["--workers", "3", "--save-every", "1ms", "--json", "--out", tmp_path / "m.npz"]
    run = subprocess.Popen(
        [sys.executable, "-m", "charrnn", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with run:
        assert run.stdout is not None
        next(line for line in run.stdout if '"saved"' in line)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        ends = [os.pidfd_open(int(child)) for child in children]
        os.kill(run.pid, number)
        assert len(ends) == 2
        for end in ends:
            assert select.select([end], [], [], 10)[0]
            os.close(end)
        run.stdout.read()
