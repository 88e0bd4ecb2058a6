"""Runs in ranks over MPI: what they learn, what each keeps of the text, how they end in trouble."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mpi_run import learned

import charrnn
from charrnn.cli.app import launched
from charrnn.config import TrainConfig
from charrnn.errors import TrainingError, UsageError
from charrnn.text.batches import Streams
from charrnn.text.corpus import Part, Store
from charrnn.training import mpi
from charrnn.training.replica import share
from charrnn.training.setup import prepare

HERE = Path(__file__).parent
CHARRNN = ("-m", "charrnn")
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
with_mpi = pytest.mark.skipif(
    MPIEXEC is None or find_spec("mpi4py") is None,
    reason="neither mpi4py nor mpiexec: the extra mpi has both",
)
TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen jugs.\n" * 40
SMALL = {
    "hidden": 12,
    "steps": 50,
    "batch_size": 7,
    "seq_len": 8,
    "val_every": 20,
    "sample_every": 0,
    "dropout": 0.1,
}
TRAIN = "train corpus.txt --hidden 12 --batch-size 7 --seq-len 8 --val-every 20 --sample-every 0"
SECONDS = 300  # after which a run that should have ended has failed


@pytest.fixture(autouse=True)
def corpus(tmp_path, monkeypatch):
    """A text, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    path = Path("corpus.txt")
    path.write_text(TEXT, encoding="utf-8")
    return path


def environment():
    """Return this environment without what a launcher may have set, and with this package."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PMI", "OMPI_", "MPI"))
    }
    return kept | {"PYTHONPATH": str(HERE.parent), "OPENBLAS_NUM_THREADS": "1"}


def words(ranks, command, program=CHARRNN):
    """Return the words that start a program with a command in so many ranks."""
    return [MPIEXEC, "-n", str(ranks), sys.executable, *program, *command.split()]


def ended(words, **variables):
    """Return a program that has ended."""
    return subprocess.run(
        words,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def in_ranks(ranks, command, program=CHARRNN):
    return ended(words(ranks, command, program))


def train(out, corpus=(), **options):
    """Return the last event of a run without ranks."""
    return list(charrnn.train(corpus, TrainConfig(out=out, **options)))[-1]


def kept(path):
    """Return the arrays of a checkpoint but for what tells the time."""
    with np.load(path) as archive:
        return {
            name: archive[name] for name in archive.files if name not in ("meta", "resume.sources")
        }


def assert_same(one, other):
    """Two checkpoints hold the same arrays."""
    arrays, expected = kept(one), kept(other)
    assert set(arrays) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


@with_mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "more"),
    [(2, {}), (3, {}), (3, {"val_characters": 70}), (3, {"lines": True})],
    ids=["2 ranks", "3 ranks", "characters", "lines"],
)
def test_ranks_learn_what_one_process_learns_to_float_accuracy(ranks, more, corpus):
    if "lines" in more:
        lines = [f"{k * 7919 % 1009:o}{'ab' * (k % 5)}\n" for k in range(90)]
        corpus.write_text("".join(lines), encoding="utf-8")
    options = {**SMALL, "out": None, "dtype": "float64", **more}
    program = (HERE / "mpi_run.py", corpus, "learned.npz", json.dumps(options))
    assert in_ranks(ranks, "", program).returncode == 0
    expected = learned(corpus, options)
    with np.load("learned.npz") as found:
        assert found["ranks"] == ranks
        for name in ("losses", "validated", "theta"):
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-11)


@with_mpi
def test_one_rank_is_the_plain_run_to_the_last_bit(corpus):
    assert in_ranks(1, f"{TRAIN} --steps 30 --workers 1 --out one.npz").returncode == 0
    train("plain.npz", corpus, hidden=12, batch_size=7, seq_len=8, val_every=20, steps=30)
    assert_same("one.npz", "plain.npz")


@with_mpi
@pytest.mark.slow
def test_the_same_ranks_repeat_and_resume_themselves_to_the_last_bit():
    told = in_ranks(2, f"{TRAIN} --steps 30 --json --quiet --out a.npz").stdout
    in_ranks(2, f"{TRAIN} --steps 30 --out b.npz")
    assert_same("a.npz", "b.npz")
    events = [json.loads(line) for line in told.splitlines()]
    (start,) = [event for event in events if event["event"] == "start"]  # rank 0 alone speaks
    assert (start["ranks"], start["workers"], events[-1]["ranks"]) == (2, 1, 2)
    assert events[-1]["command"].startswith("mpiexec -n 2 charrnn train ")
    for out in ("a.npz", "b.npz"):
        in_ranks(2, f"train --resume --steps 40 --out {out}")
    assert_same("a.npz", "b.npz")


@with_mpi
@pytest.mark.slow
def test_a_run_goes_from_workers_to_ranks_and_back(corpus):
    options = {**SMALL, "steps": 36, "lr": 1e-3}
    train("straight.npz", corpus, **options)
    begun = TrainConfig(**options, out="parts.npz", workers=2)
    list(charrnn.train(corpus, begun, interrupted=iter([False] * 11 + [True]).__next__))
    told = in_ranks(2, "train --resume --out parts.npz --json").stdout.splitlines()
    assert json.loads(told[0])["workers"] == 1
    assert json.loads(told[-1])["steps"] == 36
    last = train("parts.npz", resume=True, steps=40).as_dict()
    assert (last["ranks"], last["workers"], last["command"][:8]) == (1, 1, "charrnn ")
    train("straight.npz", resume=True, steps=40)
    found, expected = (charrnn.load(f"{name}.npz").parameters for name in ("parts", "straight"))
    np.testing.assert_allclose(found.flat, expected.flat, atol=1e-4)


def ranks_of(launcher):
    """Return the processes of the ranks under a launcher, in their order, from Linux's /proc."""
    children = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(folder.name))
    return sorted(rank for proxy in children[launcher] for rank in children[proxy])


def stopped_by(act):
    """Return the exit code of a run of 2 ranks that would take hours.

    `act` is called with the launcher's process when the run has saved once.
    """
    command = f"{TRAIN} --steps 100000000 --save-every 1ms --json --out m.npz"
    run = subprocess.Popen(
        words(2, command),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    next(line for line in run.stdout if '"saved"' in line)
    act(run.pid)
    run.communicate(timeout=SECONDS)
    return run.returncode


@with_mpi
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all(rank, tmp_path):
    ends = []  # of each rank, a descriptor that is readable when it has ended
    ended = []  # whether each has, within 10 seconds

    def kill(launcher):
        processes = ranks_of(launcher)
        ends.extend(map(os.pidfd_open, processes))
        os.kill(processes[rank], signal.SIGKILL)
        deadline = time.monotonic() + 10
        for end in ends:
            ready, _, _ = select.select([end], [], [], max(0, deadline - time.monotonic()))
            ended.append(bool(ready))
            os.close(end)

    assert stopped_by(kill) != 0
    assert ended == [True, True]
    assert charrnn.load("m.npz").config.hidden == 12
    # rank 0 may have been ended in the middle of saving: the next run takes away what it left
    left = {
        path.name
        for path in tmp_path.iterdir()
        if not (path.name.startswith(".m.npz.") and path.suffix == ".tmp")
    }
    assert left <= {"m.npz", ".m.npz.lock", "corpus.txt"}


@with_mpi
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_launcher_saves_and_ends_all(number, code, tmp_path):
    assert stopped_by(lambda launcher: os.kill(launcher, number)) == code
    assert charrnn.load("m.npz").meta["step"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"m.npz", "corpus.txt"}


@with_mpi
@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("nowhere.txt", 1, "nowhere.txt: cannot be read"),
        ("--workers 2", 2, "leave it out and launch a rank for each core"),
        ("--no-such-option", 2, "No such option"),
        ("corpus.txt --batch-size 1", 2, "2 ranks cannot share a batch of 1 streams"),
        ("corpus.txt --lr 100 --optimizer sgd --clip 0 --steps 99 --hidden 8", 1, "diverged"),
    ],
    ids=["file", "workers", "option", "columns", "diverged"],
)
def test_what_is_wrong_is_said_once(options, code, message):
    run = in_ranks(2, f"train {options} --quiet")
    assert run.returncode == code
    assert len(run.stderr.splitlines()) == 1
    assert message in run.stderr


MAIN = "; from charrnn.cli.app import main; sys.exit(main(sys.argv[1:]))"


@with_mpi
def test_an_error_on_one_rank_ends_all_and_names_it():
    code = (
        "import os, sys; from charrnn.training.replica import Replica; "
        "Replica.step = (lambda *_: 1 / 0) if os.environ['PMI_RANK'] == '1' else Replica.step"
    )
    run = in_ranks(2, f"{TRAIN} --steps 9 --quiet --out m.npz", ("-c", code + MAIN))
    assert run.returncode == 1
    (said,) = [line for line in run.stderr.splitlines() if line.startswith("charrnn: ")]
    assert said.startswith("charrnn: rank 1 of 2 on ")
    assert "ZeroDivisionError" in said


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("3", 0)])
def test_without_mpi4py_rank_0_says_so_and_nothing_is_written(rank, lines):
    code = "import sys; sys.modules['mpi4py'] = None" + MAIN
    command = "train corpus.txt --quiet --out m.npz"
    run = ended([sys.executable, "-c", code, *command.split()], PMI_RANK=rank, PMI_SIZE="4")
    assert run.returncode == 1
    assert run.stderr.count("pip install mpi4py") == len(run.stderr.splitlines()) == lines
    assert not Path("m.npz").exists()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"PMI_RANK": "3", "PMI_SIZE": "64"}, (3, 64)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1"}, (1, 2)),
        ({"PMIX_RANK": "5", "SLURM_STEP_NUM_TASKS": "8"}, (5, 8)),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, (0, 1)),
        ({"SLURM_NTASKS": "64", "SLURM_PROCID": "0"}, (0, 1)),  # a batch script, before any srun
        ({"PMI_RANK": "no number", "PMI_SIZE": "2"}, (0, 1)),
    ],
)
def test_launchers_are_known_by_what_they_set(variables, expected):
    assert launched(variables) == expected


def test_an_mpi_that_sees_another_number_of_ranks_is_refused(monkeypatch):
    other = SimpleNamespace(
        COMM_WORLD=SimpleNamespace(rank=0, size=1),
        Get_library_version=lambda: "Other MPI 1.0\0",
    )
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=other))
    said = r"4 ranks were launched, but mpi4py sees 1: .*\(Other MPI 1.0\)"
    with pytest.raises(TrainingError, match=said):
        mpi.MPIEnd(0, 4)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_a_rank_needs_no_character_but_its_own(ranks):
    rng = np.random.default_rng(1)
    whole, columns = Store(np.uint8), 5
    whole.append(rng.integers(0, 9, 203))
    streams = Streams(Part(whole, [(0, 90), (93, 203)]), columns, 7)
    total = 0
    for rank in range(ranks):
        own = share(columns, rank, ranks)
        start, stop = streams.extent(own)
        excerpt = Store(np.uint8)
        excerpt.append(streams.part.read(start, stop))
        total, n = total + excerpt.length, streams.part.characters
        part = Streams(Part(excerpt, [(-start, n - start)]), columns, 7)
        for step in range(2 * streams.steps_per_epoch):
            expected, found = streams.batch(step, own), part.batch(step, own)
            np.testing.assert_array_equal(found.x, expected.x)
            np.testing.assert_array_equal(found.y, expected.y)
            assert found.predictions == expected.predictions
    assert total == streams.part.characters


def test_more_ranks_than_streams_are_refused_and_the_batch_grows_with_them(corpus):
    with pytest.raises(UsageError, match="3 ranks cannot share a batch of 2 streams"):
        prepare([corpus], TrainConfig(steps=1, batch_size=2, ranks=3))
    config = TrainConfig(steps=1, seq_len=4, ranks=20)
    assert prepare([corpus], config).training.batch_size == 160


END = """
import numpy as np
from charrnn.cli.app import launched
from charrnn.training.mpi import MPIEnd
end = MPIEnd(*launched())
"""


@with_mpi
def test_an_order_may_have_any_size():
    code = """
order = "step", "x" * 100_000
assert end.broadcast(None if end.rank else order) == order
"""
    assert in_ranks(2, "", ("-m", "mpi4py", "-c", END + code)).returncode == 0


@with_mpi
def test_a_large_gradient_is_summed_and_shared():
    code = """
n = 210_691
share = np.split(np.arange(n, dtype="f"), [n // 2])[end.rank]
own = end.reduce_scatter(np.arange(n, dtype="f") * (end.rank + 1))
assert np.array_equal(own, 3 * share)
twin = np.zeros(n, "f")
(twin[n // 2 :] if end.rank else twin[: n // 2])[:] = share
end.all_gather(twin)
assert np.array_equal(twin, np.arange(n, dtype="f"))
"""
    assert in_ranks(2, "", ("-m", "mpi4py", "-c", END + code)).returncode == 0
