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

import numpy as np
import pytest

import charrnn
from charrnn.cli.app import launched
from charrnn.config import TrainConfig
from charrnn.errors import TrainingError, UsageError
from charrnn.text.batches import Streams
from charrnn.text.corpus import Part, Store
from charrnn.training import mpi
from charrnn.training.replica import share

HERE = Path(__file__).parent
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
EXACT = {**SMALL, "out": None, "dtype": "float64"}
WORDS = [
    "--hidden",
    "12",
    "--batch-size",
    "7",
    "--seq-len",
    "8",
    "--val-every",
    "20",
    "--sample-every",
    "0",
]
SECONDS = 300  # after which a run that should have ended has failed


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
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


def command(ranks, *words):
    assert MPIEXEC is not None
    return [MPIEXEC, "-n", str(ranks), sys.executable, *map(str, words)]


def in_ranks(ranks, *words, **options):
    """Return the ended `charrnn` with these words, as so many ranks."""
    line = command(ranks, "-m", "charrnn", *words)
    return subprocess.run(
        line,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        **options,
    )


def learned(ranks, corpus, **options):
    """Return what a run in ranks learned, under options that the command hasn't got."""
    out = corpus.with_name(f"learned-{ranks}.npz")
    line = command(ranks, HERE / "mpi_run.py", corpus, out, json.dumps({**EXACT, **options}))
    subprocess.run(line, env=environment(), timeout=SECONDS, check=True)
    with np.load(out) as archive:
        return dict(archive)


def kept(path):
    """Return the arrays of a checkpoint but for what tells the time."""
    with np.load(path) as archive:
        return {
            name: archive[name] for name in archive.files if name not in ("meta", "resume.sources")
        }


def assert_same(one, other):
    assert set(one) == set(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@with_mpi
@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"val_characters": 70}, {"lines": True}], ids=["text", "characters", "lines"]
)
def test_ranks_learn_what_one_process_learns_to_float_accuracy(corpus, options):
    if "lines" in options:
        corpus.write_text(
            "".join(f"{k * 7919 % 1009:o}{'ab' * (k % 5)}\n" for k in range(90)), encoding="utf-8"
        )
    alone = learned(1, corpus, **options)
    for ranks in (2, 3):
        shared = learned(ranks, corpus, **options)
        assert shared["ranks"] == ranks
        for name in ("losses", "validated", "theta"):
            np.testing.assert_allclose(shared[name], alone[name], rtol=0, atol=1e-11, err_msg=name)


@with_mpi
def test_one_rank_is_the_plain_run_to_the_last_bit(corpus, tmp_path):
    assert (
        in_ranks(
            1,
            "train",
            corpus,
            *WORDS,
            "--steps",
            "30",
            "--workers",
            "1",
            "--out",
            tmp_path / "one.npz",
        ).returncode
        == 0
    )
    list(
        charrnn.train(
            [corpus],
            TrainConfig(
                hidden=12,
                batch_size=7,
                seq_len=8,
                val_every=20,
                steps=30,
                out=tmp_path / "plain.npz",
            ),
        )
    )
    assert_same(kept(tmp_path / "one.npz"), kept(tmp_path / "plain.npz"))


@with_mpi
@pytest.mark.slow
def test_the_same_ranks_repeat_and_resume_themselves_to_the_last_bit(corpus, tmp_path):
    words = ["train", corpus, *WORDS, "--json", "--quiet", "--out"]
    told = in_ranks(3, *words, tmp_path / "a.npz", "--steps", "30").stdout
    in_ranks(3, *words, tmp_path / "b.npz", "--steps", "30")
    assert_same(kept(tmp_path / "a.npz"), kept(tmp_path / "b.npz"))
    events = [json.loads(line) for line in told.splitlines()]
    assert [event["event"] for event in events].count("start") == 1  # rank 0 alone speaks
    start = next(event for event in events if event["event"] == "start")
    assert (start["ranks"], start["workers"], events[-1]["ranks"]) == (3, 1, 3)
    assert events[-1]["command"].startswith("mpiexec -n 3 charrnn train ")
    in_ranks(3, "train", "--resume", "--steps", "40", "--out", tmp_path / "a.npz")
    in_ranks(3, "train", "--resume", "--steps", "40", "--out", tmp_path / "b.npz")
    assert_same(kept(tmp_path / "a.npz"), kept(tmp_path / "b.npz"))


@with_mpi
@pytest.mark.slow
def test_a_run_goes_from_workers_to_ranks_and_back(corpus, tmp_path):
    straight, parts = tmp_path / "straight.npz", tmp_path / "parts.npz"
    options = {**SMALL, "steps": 36, "lr": 1e-3}
    list(charrnn.train([corpus], TrainConfig(**{**options, "out": straight})))
    list(
        charrnn.train(
            [corpus],
            TrainConfig(**{**options, "out": parts, "workers": 2}),
            interrupted=iter([False] * 11 + [True]).__next__,
        )
    )
    middle = subprocess.Popen(
        command(2, "-m", "charrnn", "train", "--resume", "--out", parts, "--json"),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    told = middle.communicate(timeout=SECONDS)[0].splitlines()
    assert json.loads(told[0])["workers"] == 1
    assert json.loads(told[-1])["steps"] == 36
    more = TrainConfig(out=parts, resume=True, steps=40)
    last = list(charrnn.train([], more))[-1].as_dict()
    assert (last["ranks"], last["workers"], last["command"][:8]) == (1, 1, "charrnn ")
    list(charrnn.train([], TrainConfig(out=straight, resume=True, steps=40)))
    np.testing.assert_allclose(
        charrnn.load(parts).parameters.flat, charrnn.load(straight).parameters.flat, atol=1e-4
    )


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


def stopped_by(act, out, corpus):
    """Return the exit code and stderr of a run of 2 ranks that would take hours.

    `act` is called with the launcher's process when the run has saved once.
    """
    line = command(
        2,
        "-m",
        "charrnn",
        "train",
        corpus,
        *WORDS,
        "--steps",
        "100000000",
        "--save-every",
        "1ms",
        "--json",
        "--out",
        out,
    )
    run = subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    for told in run.stdout:
        if '"saved"' in told:
            break
    act(run.pid)
    _, errors = run.communicate(timeout=SECONDS)
    return run.returncode, errors


@with_mpi
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all(rank, corpus, tmp_path):
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

    code, _ = stopped_by(kill, tmp_path / "m.npz", corpus)
    assert code != 0
    assert ended == [True, True]
    assert charrnn.load(tmp_path / "m.npz").config.hidden == 12
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
def test_a_signal_to_the_launcher_saves_and_ends_all(number, code, corpus, tmp_path):
    ended, _ = stopped_by(lambda launcher: os.kill(launcher, number), tmp_path / "m.npz", corpus)
    assert ended == code
    assert charrnn.load(tmp_path / "m.npz").meta["step"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"m.npz", "corpus.txt"}


@with_mpi
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.txt"], 1, "nowhere.txt: cannot be read"),
        (["--workers", "2"], 2, "leave it out and launch a rank for each core"),
        (["--no-such-option"], 2, "No such option"),
        (["corpus.txt", "--batch-size", "1"], 2, "2 ranks share a batch of 1 streams"),
        (
            [
                "corpus.txt",
                "--lr",
                "100",
                "--optimizer",
                "sgd",
                "--clip",
                "0",
                "--steps",
                "99",
                "--hidden",
                "8",
            ],
            1,
            "diverged",
        ),
    ],
    ids=["file", "workers", "option", "columns", "diverged"],
)
def test_what_is_wrong_is_said_once(words, code, message, corpus, tmp_path):
    ended = in_ranks(2, "train", *words, "--quiet", cwd=tmp_path)
    assert ended.returncode == code
    assert len(ended.stderr.splitlines()) == 1
    assert message in ended.stderr


@with_mpi
def test_an_error_on_one_rank_ends_all_and_names_it(corpus, tmp_path):
    code = (
        "import os, sys\nfrom charrnn.cli.app import main\n"
        "from charrnn.training.replica import Replica\n"
        "if os.environ['PMI_RANK'] == '1':\n    Replica.step = lambda *_: 1 / 0\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    line = command(
        2,
        "-c",
        code,
        "train",
        corpus,
        *WORDS,
        "--steps",
        "9",
        "--quiet",
        "--out",
        tmp_path / "m.npz",
    )
    ended = subprocess.run(
        line, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert ended.returncode == 1
    said = [line for line in ended.stderr.splitlines() if line.startswith("charrnn: ")]
    assert len(said) == 1
    assert said[0].startswith("charrnn: rank 1 of 2 on ")
    assert "ZeroDivisionError" in said[0]


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("3", 0)])
def test_without_mpi4py_rank_0_says_so_and_nothing_is_written(rank, lines, corpus, tmp_path):
    code = (
        "import sys; sys.modules['mpi4py'] = None\n"
        "from charrnn.cli.app import main\nsys.exit(main(sys.argv[1:]))"
    )
    words = [
        sys.executable,
        "-c",
        code,
        "train",
        str(corpus),
        "--quiet",
        "--out",
        str(tmp_path / "m.npz"),
    ]
    launcher = {"PMI_RANK": rank, "PMI_SIZE": "4"}
    ended = subprocess.run(
        words,
        env=environment() | launcher,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("pip install mpi4py") == len(ended.stderr.splitlines()) == lines
    assert not (tmp_path / "m.npz").exists()


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
    class World:
        rank, size = 0, 1

    class Other:
        COMM_WORLD = World

        @staticmethod
        def Get_library_version():
            return "Other MPI 1.0\0"

    monkeypatch.setitem(sys.modules, "mpi4py", type("mpi4py", (), {"MPI": Other}))
    with pytest.raises(
        TrainingError, match=r"4 ranks were launched, but mpi4py sees 1: .*\(Other MPI 1.0\)"
    ):
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
    from charrnn.training.setup import prepare

    with pytest.raises(UsageError, match="3 ranks share a batch of 2 streams"):
        prepare([corpus], TrainConfig(steps=1, batch_size=2, ranks=3))
    config = TrainConfig(steps=1, seq_len=4, ranks=20)
    assert prepare([corpus], config).training.batch_size == 160


@with_mpi
def test_an_order_may_have_any_size():
    code = (
        "import sys\nfrom charrnn.cli.app import launched\n"
        "from charrnn.training.mpi import MPIEnd\n"
        "end, order = MPIEnd(*launched()), ('step', 'x' * 100_000)\n"
        "sys.exit(end.broadcast(None if end.rank else order) != order)"
    )
    line = command(2, "-c", code)
    assert subprocess.run(line, env=environment(), timeout=SECONDS, check=False).returncode == 0


@with_mpi
def test_a_large_gradient_is_summed_and_shared():
    code = (
        "import numpy as np\nfrom charrnn.cli.app import launched\n"
        "from charrnn.training.mpi import MPIEnd\n"
        "end, n = MPIEnd(*launched()), 210_691\n"
        "share = np.split(np.arange(n, dtype='f'), [n // 2])[end.rank]\n"
        "own = end.reduce_scatter(np.arange(n, dtype='f') * (end.rank + 1))\n"
        "assert np.array_equal(own, 3 * share)\n"
        "twin = np.zeros(n, 'f')\n"
        "(twin[n // 2 :] if end.rank else twin[: n // 2])[:] = share\n"
        "end.all_gather(twin)\n"
        "assert np.array_equal(twin, np.arange(n, dtype='f'))"
    )
    line = command(2, "-c", code)
    assert subprocess.run(line, env=environment(), timeout=SECONDS, check=False).returncode == 0
