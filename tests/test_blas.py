"""What is known of the machine: its BLAS, the processors that may be used and the free memory."""

import os
import subprocess
import sys

import numpy as np
import pytest

from charrnn import blas
from charrnn.config import TrainConfig
from charrnn.training.loop import train


@pytest.mark.parametrize(
    ("kernels", "threads", "best"),
    [("SkylakeX", 1, True), ("SkylakeX", 2, False), ("Haswell", 1, False), ("", 1, False)],
)
def test_small_products_are_best_with_the_kernels_for_avx512_on_one_thread(
    kernels, threads, best, monkeypatch
):
    controls = blas.Controls(lambda: threads, lambda count: None, kernels)
    monkeypatch.setattr(blas, "_controls", lambda: controls)
    assert blas.is_faster_in_blocks() is best
    monkeypatch.setattr(blas, "_controls", lambda: blas.UNKNOWN)
    assert not blas.is_faster_in_blocks()


def test_the_number_of_threads_is_put_back_whatever_happens(monkeypatch):
    count = [3]
    controls = blas.Controls(lambda: count[0], lambda n: count.__setitem__(0, n), "")
    monkeypatch.setattr(blas, "_controls", lambda: controls)
    with blas.blas_threads(1):
        assert count == [1]
    assert count == [3]
    with pytest.raises(KeyError), blas.blas_threads(2):
        raise KeyError
    assert count == [3]


def test_blocks_that_end_in_any_order_leave_the_number_that_was(monkeypatch):
    count = [3]
    controls = blas.Controls(lambda: count[0], lambda n: count.__setitem__(0, n), "")
    monkeypatch.setattr(blas, "_controls", lambda: controls)
    first, second = blas.blas_threads(1), blas.blas_threads(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert count == [1]
    second.__exit__(None, None, None)
    assert count == [3]


@pytest.fixture
def controls():
    """The controls of the BLAS that is here."""
    if blas._controls() is blas.UNKNOWN:
        pytest.skip("this BLAS has no known way to set its threads")
    return blas._controls()


def test_the_threads_of_the_blas_that_is_here_can_be_set(controls):
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    if "MAX_THREADS" not in built.get("openblas configuration", ""):
        pytest.skip("this BLAS may have been built without threads")
    before = controls.get_threads()
    try:
        for count in (1, 2, 1):
            controls.set_threads(count)
            assert controls.get_threads() == count
    finally:
        controls.set_threads(before)


def test_blas_uses_one_thread_inside_the_block(controls):
    with blas.blas_threads(2), blas.blas_threads(1):
        assert controls.get_threads() == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_has_one_thread_in_each_process(workers, controls, tmp_path):
    """More threads wait busily: beside other programs, a step took 20 times as long."""
    text = tmp_path / "text"
    text.write_text("the cat sat on the mat\n" * 20, encoding="utf-8")
    config = TrainConfig(steps=2, hidden=4, batch_size=4, seq_len=4, workers=workers, out=None)
    with blas.blas_threads(2):
        events = [(event.name, controls.get_threads()) for event in train([text], config)]
        assert {count for name, count in events if name == "step"} == {1}
        assert controls.get_threads() == 2


@pytest.mark.parametrize(("chosen", "threads"), [(None, 1), ("2", 2)])
def test_the_program_has_one_thread_unless_the_user_chose_more(chosen, threads, controls):
    shown = "from charrnn.blas import _controls; print(_controls().get_threads())"
    code = f"from charrnn.cli.app import main; main(['info']); {shown}"
    environment = {k: v for k, v in os.environ.items() if k not in blas.ONE_THREAD}
    if chosen:
        environment["OPENBLAS_NUM_THREADS"] = chosen
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(ended.stdout.split()[-1]) == min(threads, blas.cores())


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder whose /proc and /sys/fs/cgroup stand for the machine's; it has 8 processors."""
    monkeypatch.setattr(blas, "PROC", tmp_path / "proc")
    monkeypatch.setattr(blas, "CGROUPS", tmp_path / "sys/fs/cgroup")
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    return tmp_path


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


V2, NESTED = "0::/", "0::/system.slice/run.service"
V1 = "7:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f\n1:name=systemd:/docker/1f"


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        (V2, {"cpu.max": "200000 100000"}, 2),
        (V2, {"cpu.max": "50000 100000"}, 1),
        (V2, {"cpu.max": "150000 100000"}, 2),
        (V2, {"cpu.max": "9900000 100000"}, 8),
        (V2, {"cpu.max": "max 100000"}, 8),
        (V2, {}, 8),
        (NESTED, {"system.slice/run.service/cpu.max": "300000 100000"}, 3),
        (
            NESTED,
            {
                "system.slice/cpu.max": "200000 100000",
                "system.slice/run.service/cpu.max": "max 100000",
            },
            2,
        ),
        (
            V1,
            {
                "cpu,cpuacct/docker/1f/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/docker/1f/cpu.cfs_period_us": "50000",
            },
            5,
        ),
        (  # inside a container the group that is its own lies at the top
            V1,
            {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "50000"},
            2,
        ),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_a_containers_processors_are_counted_by_its_quota(group, files, expected, machine):
    write(machine / "proc", {"self/cgroup": group})
    write(machine / "sys/fs/cgroup", files)
    assert blas.cores() == expected


def test_without_control_groups_the_processors_are_those_of_the_affinity(machine, monkeypatch):
    assert blas.cores() == 8
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    assert blas.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert blas.cores() == 1


MEMINFO = "MemTotal:  9000 kB\nMemFree:  1000 kB\nMemAvailable:    5000 kB\nHugePages_Total:  0"


def test_the_free_memory_is_what_the_system_says_is_available(machine):
    write(machine / "proc", {"meminfo": MEMINFO})
    assert blas.free_memory() == 5_120_000


def test_the_free_memory_of_an_unknown_system_is_unknown(machine):
    assert blas.free_memory() is None
