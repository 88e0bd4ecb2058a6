"""Step time against the number of ranks here, and a model that predicts efficiency on a cluster.

`python tests/benchmarks/scaling.py`, with the extra `mpi` installed. Every figure is a lower
quartile, so that other programs disturb it little; still, measure on an idle machine, with no more
ranks than cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from charrnn.arrays import Array
from charrnn.blas import cores
from charrnn.cli.app import launched
from charrnn.config import ModelConfig, TrainConfig
from charrnn.network.network import zero_state
from charrnn.network.parameters import initialize, parameter_count
from charrnn.text.batches import Streams
from charrnn.text.corpus import Part, Store
from charrnn.training.mpi import MPIEnd
from charrnn.training.optimizers import clip, sum_of_squares
from charrnn.training.replica import Replica, Transport, share

N, CHARACTERS = 65, 1_000_000
RANKS = [2**k for k in range(1, 11)]


def options() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument(
        "--batch-size",
        type=int,
        default=64,
        help="streams of all ranks together, for the measurement here",
    )
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=30, help="steps in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[1, 2], help="ranks to measure here"
    )
    parser.add_argument(
        "--weak",
        type=int,
        default=32,
        help="streams of each rank in the prediction where the batch grows",
    )
    parser.add_argument(
        "--strong",
        type=int,
        default=1024,
        help="streams of all ranks in the prediction where it doesn't",
    )
    parser.add_argument(
        "--latency", type=float, default=5.0, help="of the network's messages, in microseconds"
    )
    parser.add_argument(
        "--bandwidth",
        type=float,
        nargs="+",
        default=[10.0, 100.0],
        help="of the network, in Gbit/s",
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def quartile(seconds: list[float]) -> float:
    """Return the lower quartile."""
    return float(np.quantile(seconds, 0.25))


def timed(act: Callable[[int], object], count: int) -> float:
    """Return the lower quartile of the seconds that `act` takes."""
    seconds = []
    for k in range(count):
        before = time.perf_counter()
        act(k)
        seconds.append(time.perf_counter() - before)
    return quartile(seconds)


def replica(o: argparse.Namespace, B: int, transport: Transport) -> Replica:
    """Return a replica that has its share of B streams of random text."""
    config = TrainConfig(
        cell=o.cell,
        hidden=o.hidden,
        layers=1,
        dropout=o.dropout,
        optimizer="adam",
        weight_decay=0.02,
        clip=1.0,
        seed=0,
        dtype="float32",
    )
    store = Store(np.uint8)
    store.append(np.random.default_rng(0).integers(0, N, max(CHARACTERS, 2 * B * o.seq_len)))
    streams = Streams(Part(store, [(0, store.length)]), B, o.seq_len)
    theta = initialize(config.model, N, np.random.default_rng(0), np.ones(N), "float32").flat
    state = zero_state(config.model, B, "float32")
    start = {"theta": theta, "average": theta.copy(), "state": state}
    return Replica(transport, config, N, streams, None, start)


class Silent(Transport):
    """One of several ranks, without the others."""

    def reduce_scatter(self, gradient: Array) -> Array:
        return gradient[share(gradient.size, self.rank, self.size)]


def exchange(whole: Replica) -> None:
    """Send what goes between the ranks in a step, but for the order."""
    whole.transport.reduce_scatter(whole.gradient.flat)
    whole.transport.all_reduce(np.zeros(2))
    whole.transport.all_gather(whole.parameters.flat)


def worker(o: argparse.Namespace) -> None:
    """Measure steps with and without what goes between the ranks; print them as JSON on rank 0."""
    end = MPIEnd(*launched())
    whole = replica(o, o.batch_size, end)
    alone = replica(o, o.batch_size, Silent(end.rank, end.size))
    rounds: dict[str, list[float]] = {
        name: [] for name in ("step", "compute", "messages", "order", "small")
    }
    small = np.zeros(2, np.float32)
    for k in range(o.rounds + 1):
        end.world.Barrier()
        found = {
            "compute": timed(lambda k: alone.step(k, 1e-4), o.steps)
        }  # all ranks at once, as they do in a step
        if end.rank == 0:
            found["step"] = timed(lambda k: whole.lead(whole.step, k, 1e-4), o.steps)
            end.broadcast(())
        else:
            whole.follow()
        found["messages"] = timed(lambda k: exchange(whole), 3 * o.steps)
        found["order"] = timed(
            lambda k: end.broadcast(("step", 1, 0.1) if end.rank == 0 else None), 3 * o.steps
        )
        found["small"] = timed(lambda k: end.world.Allreduce(end.MPI.IN_PLACE, small), 3 * o.steps)
        if k:  # the first round warms up
            for name, value in found.items():
                rounds[name].append(value)
    if end.rank == 0:
        print(json.dumps({name: min(values) for name, values in rounds.items()}))


def measured(ranks: int) -> dict[str, float]:
    """Return the seconds of a step and its parts with so many ranks on this machine."""
    mpiexec = Path(sys.executable).parent / "mpiexec"
    words = [
        str(mpiexec if mpiexec.exists() else "mpiexec"),
        "-n",
        str(ranks),
        sys.executable,
        *sys.argv,
        "--worker",
    ]
    found: dict[str, float] = json.loads(
        subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
    )
    return found


def show_updates(o: argparse.Namespace) -> None:
    """Print what clipping, the optimizer and the average take of a step, by the number of ranks.

    One rank works alone, as one of so many, so that this needs no more than one core. All figures
    are medians, the share's too, since a step and its update are slowed down together.
    """
    names = "columns", "parameters", "step", "update", "share"
    print("\nclip, optimizer and average of one rank (ms)\n")
    print(f"{'ranks':>6}", *(f"{name:>11}" for name in names))
    for ranks in (1, 2, 4, 8):
        alone = replica(o, o.batch_size, Silent(0, ranks))
        updates, steps = list[float](), list[float]()

        def timed_update(*arguments: Any, one: Replica = alone, to: list[float] = updates) -> None:
            g = one.transport.reduce_scatter(one.gradient.flat)
            before = time.perf_counter()
            clip(g, math.sqrt(sum_of_squares(g)), one.config.clip)  # the step has done both before
            Replica._update(one, *arguments)
            to.append(time.perf_counter() - before)

        alone._update = timed_update  # type: ignore[method-assign]
        for k in range(o.rounds * o.steps):
            before = time.perf_counter()
            alone.step(k, 1e-4)
            steps.append(time.perf_counter() - before)
        update, step = np.median(updates), np.median(steps)
        own = share(alone.parameters.flat.size, 0, ranks)
        print(
            f"{ranks:>6} {alone.state.shape[-1]:>11} {own.stop:>11,} {1e3 * step:>11.3f} "
            f"{1e3 * update:>11.3f} {np.median(np.divide(updates, steps)):>11.1%}"
        )


class Computing:
    """Seconds of a step of one rank by its columns: measured at powers of two, interpolated.

    The rank updates half of the parameters, as each of two does.
    """

    def __init__(self, o: argparse.Namespace) -> None:
        self.columns = [2**k for k in range(int(math.log2(max(o.weak, o.batch_size, 32))) + 1)]
        self.seconds = []
        for B in self.columns:
            alone = replica(o, 2 * B, Silent(0, 2))
            timed(lambda k, one=alone: one.step(k, 1e-4), 3)
            self.seconds.append(
                min(
                    timed(lambda k, one=alone: one.step(k, 1e-4), o.steps // 2)
                    for _ in range(o.rounds)
                )
            )

    def __call__(self, columns: float) -> float:
        if columns > self.columns[-1]:
            return self.seconds[-1] * columns / self.columns[-1]
        return float(np.interp(columns, self.columns, self.seconds))


def between(ranks: int, nbytes: int, latency: float, bandwidth: float) -> float:
    """Return the seconds of a step's messages; bandwidth in bytes/s.

    An order, which sends its length, then itself; a reduce-scatter, a small all-reduce and an
    all-gather.
    """
    rounds = math.ceil(math.log2(ranks)) if ranks > 1 else 0
    return 2 * (ranks - 1) / ranks * nbytes / bandwidth + 6 * rounds * latency


def predict(o: argparse.Namespace, computing: Computing, nbytes: int) -> None:
    """Print the predicted efficiency, and the share of a step that goes into messages.

    Hiding the messages behind the work could save no more than this share.
    """
    for gigabits in o.bandwidth:
        speed = gigabits * 1e9 / 8
        print(f"\n{gigabits:g} Gbit/s, {o.latency:g} µs: efficiency, and the messages' share")
        heads = f"weak, {o.weak} streams a rank", f"strong, {o.strong} streams in all"
        print(f"{'ranks':>6}  {heads[0]:>28}  {heads[1]:>28}")
        for ranks in RANKS:
            talk = between(ranks, nbytes, o.latency * 1e-6, speed)
            weak = computing(o.weak) + talk
            row = f"{ranks:>6}  {computing(o.weak) / weak:>19.1%} {talk / weak:>8.1%}"
            if ranks <= o.strong:
                strong = computing(math.ceil(o.strong / ranks)) + talk
                row += f"  {computing(o.strong) / ranks / strong:>19.1%} {talk / strong:>8.1%}"
            print(row)


def show(o: argparse.Namespace, found: dict[int, dict[str, float]], nbytes: int) -> None:
    """Print what was measured here, and the model's step beside it."""
    names = "step", "compute", "messages", "order", "predicted"
    print(f"{'ranks':>6}", *(f"{name:>11}" for name in names), f"{'efficiency':>11}   (ms)")
    for ranks, one in found.items():
        talk = 0.0
        if ranks > 1:  # the machine's own latency and bandwidth, from a small and the whole message
            latency = one["small"] / (2 * math.ceil(math.log2(ranks)))
            speed = 2 * (ranks - 1) / ranks * nbytes / max(one["messages"] - 2 * one["small"], 1e-9)
            talk = between(ranks, nbytes, latency, speed)
        predicted = one["compute"] + talk
        row = one["step"], one["compute"], one["messages"], one["order"], predicted
        efficiency = next(iter(found.values()))["step"] * min(found) / ranks / one["step"]
        print(
            f"{ranks:>6}",
            *(f"{1e3 * seconds:>11.3f}" for seconds in row),
            f"{efficiency:>11.1%}   predicted/measured {predicted / one['step']:.3f}",
        )


def main() -> None:
    """Measure, predict, print."""
    o = options()
    if o.worker:
        worker(o)
        return
    nbytes = 4 * parameter_count(ModelConfig(o.cell, o.hidden, 1), N)
    print(
        f"{o.cell} of {o.hidden}, B = {o.batch_size}, T = {o.seq_len}, N = {N}, dropout "
        f"{o.dropout:g}: {nbytes:,} bytes of gradient; {cores()} cores"
    )
    show(o, {ranks: measured(ranks) for ranks in o.ranks}, nbytes)
    show_updates(o)
    computing = Computing(o)
    pairs = zip(computing.columns, computing.seconds, strict=True)
    print(
        "\ncomputing, ms by columns: "
        + ", ".join(f"{columns}: {1e3 * seconds:.2f}" for columns, seconds in pairs)
    )
    predict(o, computing, nbytes)


if __name__ == "__main__":
    main()
