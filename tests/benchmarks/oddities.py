"""How well odd lines are told from normal ones: python tests/benchmarks/oddities.py

Each task trains a network for --budget on normal lines, seed 0, and scores lines that it has not
seen, normal and odd, by nats per character, as `charrnn eval --each --unknown score` does. The
area under the ROC curve is the probability that an odd line scores higher than a normal one. The
same is done with an n-gram model of order 5 (Witten-Bell), counted on the same lines. Random
strings of the letters of names are odd only in their order, so for those there is a second row:
there the score of an n-gram model of order 1, which knows only the letters' frequencies, is
subtracted from both scores (SLOR, Pauls and Klein 2012).

The texts are made here, or come with charrnn and Python; --names and --words read others.
"""

from __future__ import annotations

import argparse
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from measure import machine, table
from numpy.typing import NDArray

from charrnn import Model, TrainConfig, train
from charrnn.sampling.scoring import score_lines

Array = NDArray[Any]
CORPORA = Path(__file__).parents[2] / "corpora"
ORDER = 5


class Task(NamedTuple):
    """Lines to learn, others like them, and odd ones by what they are."""

    name: str
    learn: list[str]
    normal: list[str]
    odd: dict[str, list[str]]
    less_letters: bool = False  # also scored with the letters' frequencies removed


class Grams:
    """The n-gram model of charrnn.text.ngram, which has its formula, for single lines."""

    def __init__(self, lines: Sequence[str], order: int = ORDER) -> None:
        self.order = order
        self.after: dict[str, Counter[str]] = defaultdict(Counter)
        for line in lines:
            for past, char in self._steps(line):
                for n in range(len(past) + 1):
                    self.after[past[len(past) - n :]][char] += 1
        self.unseen = math.log(self.after[""].total() + 1)

    def _steps(self, line: str) -> Iterator[tuple[str, str]]:
        text = f"\n{line}\n"
        return ((text[max(0, i - self.order + 1) : i], text[i]) for i in range(1, len(text)))

    def score(self, lines: Sequence[str]) -> Array:
        """Return the nats per character of each line with its newline."""
        return np.array(
            [
                np.mean([self._nats(past, char) for past, char in self._steps(line)])
                for line in lines
            ]
        )

    def _nats(self, past: str, char: str) -> float:
        if char not in self.after[""]:
            return self.unseen
        p = 1 / len(self.after[""])
        for n in range(len(past) + 1):
            seen = self.after.get(past[len(past) - n :])
            if seen is None:
                break
            p = (seen[char] + len(seen) * p) / (seen.total() + len(seen))
        return -math.log(p)


def area(normal: Array, odd: Array) -> float:
    """Return the share of pairs in which the odd line scores higher, ties a half."""
    ordered = np.sort(normal)
    below, upto = (np.searchsorted(ordered, odd, side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(ordered))


def split(lines: Sequence[str], rng: random.Random) -> tuple[list[str], list[str]]:
    """Return distinct lines in two parts: nine tenths to learn, and the others."""
    distinct = sorted(set(lines))
    rng.shuffle(distinct)
    border = len(distinct) * 9 // 10
    return distinct[:border], distinct[border:]


def names(path: Path) -> Task:
    """Return names, and strings of as many letters, as frequent as in the names."""
    rng = random.Random(0)
    learn, normal = split(path.read_text(encoding="utf-8").split(), rng)
    letters = "".join(learn)
    odd = ["".join(rng.choices(letters, k=len(rng.choice(normal)))) for _ in range(2000)]
    return Task(path.stem, learn, normal, {"random strings": odd}, less_letters=True)


def words(path: Path | None) -> Task:
    """Return words of a dictionary, and domains as three families of malware generate them."""
    rng = random.Random(0)
    text = (path or CORPORA / "tales.txt").read_text(encoding="utf-8")
    text += "" if path else " ".join(topics.values())
    learn, normal = split(re.findall(r"\b[a-z]{4,}\b", text), rng)

    def ramnit() -> str:
        """8 to 19 letters from a to y, by the remainders of a linear congruential generator."""
        state = rng.randrange(1, 2**31 - 1)
        numbers = []
        for _ in range(20):
            state = 16807 * state % (2**31 - 1)
            numbers.append(state)
        length = 8 + numbers[0] % 12
        return "".join(chr(97 + number % 25) for number in numbers[1 : length + 1])

    def simda() -> str:
        """Seven letters, consonants and vowels by turns."""
        return "".join(rng.choice(("qwrtpsdfghjklzxcvbnm", "eyuioa")[i % 2]) for i in range(7))

    def suppobox() -> str:
        """Two words of a list, joined."""
        return rng.choice(learn) + rng.choice(learn)

    def made(family: Callable[[], str]) -> list[str]:
        return sorted({family() for _ in range(2000)} - {*learn, *normal})

    odd = {f"{family.__name__}'s domains": made(family) for family in (ramnit, simda, suppobox)}
    return Task("dictionary words", learn, normal, odd)


class Log:
    """A server's log: logins, sessions, requests, orders and jobs, with their own regularities."""

    users = (("deploy", 1001), ("alice", 1002), ("backup", 34), ("www-data", 33))
    files = (("png", "image/png"), ("css", "text/css"), ("js", "text/javascript"))
    jobs = (("root", "run-parts /etc/cron.hourly"), ("backup", "/usr/local/bin/dump --all"))

    def __init__(self) -> None:
        self.rng = random.Random(0)

    def digits(self, count: int) -> str:
        """Return a number of so many digits."""
        return str(self.rng.randrange(10 ** (count - 1), 10**count))

    def stamp(self) -> str:
        """Return a time of a day."""
        r = self.rng.randrange
        return f"Mar {r(10, 29)} {r(24):02}:{r(60):02}:{r(60):02} web{r(1, 4)}"

    def host(self) -> str:
        """Return an address."""
        return f"10.{self.rng.randrange(4)}.{self.rng.randrange(256)}.{self.rng.randrange(256)}"

    def normal(self) -> str:
        """Return a line as the server writes it."""
        r = self.rng
        user, uid = r.choice(self.users)
        end, kind = r.choice(self.files)
        owner, job = r.choice(self.jobs)
        page = r.choice(("index", "cart", "search", "account"))
        name = r.choice(("logo", "main", "menu", "shop"))
        what = r.choice(
            (
                f"sshd[{self.digits(4)}]: Accepted publickey for {user} from {self.host()}",
                f"sshd[{self.digits(4)}]: session opened for user {user}(uid={uid})",
                f"CRON[{self.digits(4)}]: ({owner}) CMD ({job})",
                f"nginx: {self.host()} GET /static/{name}.{end} 200 {kind} {self.digits(4)}",
                f"nginx: {self.host()} GET /{page}?id={self.digits(5)} 200 text/html",
                f"nginx: {self.host()} POST /{page} 302 text/html {self.digits(3)}",
                f"shop: INFO order {self.digits(5)} paid, total {self.digits(2)}.90 EUR",
                f"shop: WARN slow query took {self.digits(3)} ms: SELECT * FROM {page}",
            )
        )
        return f"{self.stamp()} {what}"

    def odd(self) -> str:
        """Return a line with something that the server never writes."""
        r = self.rng
        user, uid = r.choice(self.users)
        end, kind = r.choice(self.files)
        other = r.choice([k for _, k in self.files if k != kind])
        wrong = r.choice([u for _, u in self.users if u != uid])
        what = r.choice(
            (
                f"sshd[{self.digits(4)}]: Accepted password for root from {self.host()}",
                f"sshd[{self.digits(4)}]: session opened for user {user}(uid={wrong})",
                f"CRON[{self.digits(4)}]: ({user}) CMD (/tmp/.x/run)",
                f"nginx: {self.host()} GET /static/logo.{end} 200 {other} {self.digits(4)}",
                f"nginx: {self.host()} GET /search?id=1' OR '1'='1 200 text/html",
                f"nginx: {self.host()} GET /../../etc/passwd 200 text/html",
                f"shop: INFO order {self.digits(5)} paid, total -{self.digits(2)}.90 EUR",
                f"shop: WARN slow query took {self.digits(7)} ms: SELECT * FROM cart",
                self.normal()[21 : r.randrange(28, 38)],
            )
        )
        return f"{self.stamp()} {what}"


def log() -> Task:
    """Return a server's log, and lines planted in it."""
    made = Log()
    lines = [made.normal() for _ in range(12_000)]
    odd = {"planted lines": [made.odd() for _ in range(500)]}
    return Task("a server's log", lines[:10_000], lines[10_000:], odd)


def trained(lines: Sequence[str], budget: float) -> Model:
    """Return a network that has learned these lines."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lines.txt"
        path.write_text("\n".join(lines), encoding="utf-8")
        *_, done = train([path], TrainConfig(budget=budget, lines=True, out=None, workers="auto"))
    return done.model


def rows(task: Task, budget: float) -> Iterator[list[str]]:
    """Yield the lines of the table for a task."""
    model, grams = trained(task.learn, budget), Grams(task.learn)
    letters = Grams(task.learn, 1)

    def network(lines: list[str]) -> Array:
        _, nats, characters = score_lines(model, "\n".join(lines), "score").by_line()
        return nats / characters

    shape = f"{model.config.cell} {model.config.hidden}, {model.epochs:.0f} epochs"
    for name, odd in task.odd.items():
        for less in sorted({False, task.less_letters}):
            areas = [
                area(*(score(ls) - less * letters.score(ls) for ls in (task.normal, odd)))
                for score in (network, grams.score)
            ]
            label = f"{task.name}, {name}{', letter frequencies removed' * less}"
            yield [label, shape, *(f"{one:.4f}" for one in areas)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=60, help="seconds of training for each")
    parser.add_argument("--names", type=Path, default=CORPORA / "minerals.txt")
    parser.add_argument("--words", type=Path, help="a text with the words of a dictionary")
    options = parser.parse_args()
    tasks = names(options.names), log(), words(options.words)
    header = ["lines, odd ones among them", "network", "its area", "area of n-grams"]
    table(header, (row for task in tasks for row in rows(task, options.budget)))
    print(machine())


if __name__ == "__main__":
    main()
