"""Try to break every promise and print a Markdown table: python tests/promises/run.py [--full]
[--only 1 4]

Without --full a short form of some minutes, with it the full counts, which take about an hour on
two cores.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path[0] = str(
    Path(__file__).parents[1]
)  # not this folder: its files are modules of the package `promises`
sys.path.insert(0, str(Path(__file__).parents[2]))

from promises import (  # noqa: E402 - found only now
    exact_resume,
    extreme_numbers,
    long_load,
    odd_moments,
    same_again,
    strange_texts,
    supply_chain,
    whole_checkpoints,
)
from promises.trial import ROOT, Trial, environment, report  # noqa: E402


class Fuzzed:
    """Promise 3, which tests/fuzz_checkpoint.py tries."""

    @staticmethod
    def trials(full: bool) -> list[Trial]:
        """Return the trial of mutated checkpoints."""
        count = 200_000 if full else 2_000
        trial = Trial(
            "3. files from strangers",
            "checkpoints mutated by tests/fuzz_checkpoint.py: read rightly or refused",
            count,
        )
        words = [sys.executable, str(ROOT / "tests" / "fuzz_checkpoint.py"), "--count", str(count)]
        ended = subprocess.run(words, env=environment(), capture_output=True, text=True)
        if ended.returncode or not re.match(rf"{count:,} files: .* 0 failures", ended.stdout):
            trial.failures += ended.stderr.splitlines() or [ended.stdout]
        return [trial]


PROMISES = {
    1: exact_resume,
    2: whole_checkpoints,
    3: Fuzzed,
    4: strange_texts,
    5: extreme_numbers,
    6: same_again,
    7: long_load,
    8: supply_chain,
    9: odd_moments,
}


def main() -> int:
    """Return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the full counts")
    parser.add_argument(
        "--only",
        type=int,
        nargs="+",
        choices=sorted(PROMISES),
        default=sorted(PROMISES),
        help="numbers of promises",
    )
    options = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background ignores it, and so would what it starts
    trials: list[Trial] = []
    for number in options.only:
        began = time.perf_counter()
        found = PROMISES[number].trials(options.full)  # type: ignore[attr-defined]
        trials += found
        failed = sum(len(trial.failures) for trial in found)
        print(
            f"promise {number}: {failed} failures, {time.perf_counter() - began:.0f} s",
            file=sys.stderr,
        )
    return report(trials)


if __name__ == "__main__":
    sys.exit(main())
