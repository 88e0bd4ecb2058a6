"""Every pair of values of all options of `train` and of `sample`, each at least once, in tiny runs.

The options are read from the commands themselves. A switch is covered by itself; an option with a
value needs a line in TRAIN or SAMPLE below, and a test says which one is missing.
"""

import gzip
import io
import itertools
import json
import math
import sys
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
from tiny_models import saved, tiny
from typer.main import get_command

import charrnn
from charrnn.cli import app
from charrnn.training import loop

TEXT = "the quick brown fox\njumps over\nthe lazy dog\nand sleeps\n" * 8
UNKNOWN = "ж"

# The values of each option, besides its absence. A value that ends with !1 or !2 makes the command
# end with that exit code.
TRAIN = {
    "CORPUS": "text.txt - folder text.gz text.txt,short.txt nowhere.txt!1",
    "--cell": "rnn gru tree!2",
    "--hidden": "4 1 0!2",
    "--layers": "2 301!2",
    "--dropout": "0 0.95 1!2",
    "--budget": "1m 3x!2",
    "--epochs": "0.1 1e-9 0!2",
    "--steps": "3 1 0!2",
    "--batch-size": "1 7 0!2",
    "--seq-len": "1 9 0!2",
    "--lr": "0.01 1e-9 0!2",
    "--optimizer": "rmsprop adagrad sgd newton!2",
    "--clip": "0 1e-9 -1!2",
    "--weight-decay": "0 0.02 -1!2",
    "--seed": "0 9223372036854775808 -1!2",
    "--workers": "1 2 0!2",
    "--val-fraction": "0 0.5 1!2",
    "--encoding": "latin-1 morse!2",
    "--out": "m.npz nowhere/m.npz!1",
    "--init-from": "base.npz nowhere.npz!1",
    "--save-every": "1ms 0!2",
    "--sample-every": "0 2 -1!2",
    "--val-every": "1 0!2",
    "--log": "run.jsonl nowhere/run.jsonl!1",
    "--val-characters": "2 1!2",
}
SAMPLE = {
    "MODEL": "text.npz lines.npz nowhere.npz!1",
    "--temp": "0 0.5 1e9 -1!2",
    "--length": "1 40 0!2",
    "--top-k": "1 1000 0!2",
    "--top-p": "1 1e-9 0!2",
    "--min-p": "0 1 2!2",
    "--seed": "0 9223372036854775808 -1!2",
    "--stop": f"e {UNKNOWN}e!1",
    "--prime": f"the {UNKNOWN}the!1",
    "--prime-file": "prime.txt - nowhere.txt!1",
    "--unknown": "error skip guess!2",
    "--encoding": "latin-1 morse!2",
    "--num": "2 3 0!2",
    "--novel": "known.txt nowhere.txt!1",
    "--copied": "known.txt nowhere.txt!1",
    "--match": "(?i)[^~]* (!2",
}
TABLES = {"train": TRAIN, "sample": SAMPLE}
LENGTHS = ("--budget", "--epochs", "--steps")
# Options, or values of options, that exclude each other: exit code 2.
CLASHES = {
    "train": [*combinations(LENGTHS, 2), ("--resume", "--overwrite"), ("--resume", "--init-from")],
    "sample": [
        ("--prime", "--prime-file"),
        ("--novel", "--show-probs"),
        ("--copied", "--show-probs"),
        ("--interactive", "--prime"),
        ("--interactive", "--prime-file"),
        ("--interactive", "--novel"),
        ("--interactive", "--copied"),
        ("--interactive", "--json"),
        ("--interactive", "--num"),
        ("--novel", "MODEL=text.npz"),
        ("--novel", "MODEL=None"),
    ],
}
# Those that don't fit the files here: exit code 1. base.npz has 4 hidden units.
MISFITS = {
    "train": [
        ("--init-from", "--cell"),
        ("--init-from", "--hidden=1"),
        ("--init-from", "--layers"),
    ],
    "sample": [],
}


@dataclass(frozen=True)
class Value:
    """A value of an option; code: the exit code that it alone leads to."""

    option: str
    text: str | None  # None: the option is absent; empty: a switch is given
    code: int = 0

    @classmethod
    def of(cls, option, text):
        value, mark, code = text.partition("!")
        return cls(option, value, int(code) if mark else 0)

    @property
    def names(self):
        """What CLASHES and MISFITS may call it."""
        exact = f"{self.option}={self.text}"
        return {exact} if self.text is None else {exact, self.option}


class Row(dict[str, Value]):
    """A command line: a value for every option."""

    def given(self, option):
        """What was given for an option, None if it is absent."""
        return self[option].text if option in self else None

    def has(self, option):
        return self.given(option) is not None

    def meets(self, pairs):
        """Whether both of one of the pairs are given."""
        names = set().union(*(value.names for value in self.values()))
        return any(names.issuperset(pair) for pair in pairs)

    def words(self, **changes):
        """The row as it is typed; changes: other values of options, None leaves one out."""
        words = []
        for option, value in self.items():
            text = changes.get(option, value.text)
            if text is None:
                continue
            words += text.split(",") if option.isupper() else [option, text] if text else [option]
        return words

    def __str__(self):
        return " ".join(self.words()) or "nothing"


def declared(command):
    """The options of a command by their first long names, and whether each is a switch."""
    parameters = get_command(app.program()).commands[command].params
    for parameter in parameters:
        long = [name for name in parameter.opts if name.startswith("--")]
        if long:
            yield long[0], parameter.is_flag


def values(command):
    """The values of each option that has some, absence first."""
    switches = {option: "" for option, switch in declared(command) if switch}
    return [
        [Value(option, None), *(Value.of(option, word) for word in text.split() or [""])]
        for option, text in {**TABLES[command], **switches}.items()
    ]


def covering(options, clashes=()):
    """Rows in which every pair of values occurs, without pairs of options that clash.

    Greedy: each row begins with a pair that is missing, and takes for each further option the
    value that adds most missing pairs.
    """

    def fit(*pair):
        return not Row({value.option: value for value in pair}).meets(clashes)

    missing = {
        frozenset(pair): None
        for first, second in combinations(options, 2)
        for pair in itertools.product(first, second)
        if fit(*pair)
    }
    rows = []
    while missing:
        row = Row({value.option: value for value in sorted(next(iter(missing)), key=str)})
        for choices in options:
            if choices[0].option not in row:
                fitting = [c for c in choices if not Row({**row, c.option: c}).meets(clashes)]
                gain = {c: sum(frozenset((c, o)) in missing for o in row.values()) for c in fitting}
                row[choices[0].option] = max(fitting, key=gain.__getitem__)
        for pair in combinations(row.values(), 2):
            missing.pop(frozenset(pair), None)
        rows.append(Row({choices[0].option: row[choices[0].option] for choices in options}))
    return rows


def right_rows(command):
    """Rows of right values, in which every pair of them occurs."""
    right = [[v for v in option if not v.code] for option in values(command)]
    return covering(right, CLASHES[command] + MISFITS[command])


def cases(command):
    """Right rows, and then rows in which all pairs of any values occur."""
    rows = [*right_rows(command), *covering(values(command))]
    return pytest.mark.parametrize("row", [pytest.param(r, id=f"{i}") for i, r in enumerate(rows)])


@pytest.mark.parametrize("command", TABLES)
def test_every_option_has_values_here(command):
    options, table = dict(declared(command)), TABLES[command]
    unnamed = [option for option, switch in options.items() if not switch and option not in table]
    assert not unnamed, f"give values for {unnamed} in the table of {command} in this file"
    assert not [option for option in table if option.startswith("--") and option not in options]


SIZES = {"a": 2, "b": 3, "c": 4, "d": 1, "e": 2}


def test_every_pair_of_values_occurs():
    options = [[Value(n, None), *(Value(n, str(i)) for i in range(k))] for n, k in SIZES.items()]
    found = covering(options, [("a", "b")])
    seen = {pair for row in found for pair in combinations(row.values(), 2)}
    wanted = {
        pair
        for first, second in combinations(options, 2)
        for pair in itertools.product(first, second)
    }
    assert len(found) < 30
    assert wanted - seen == {(a, b) for a in options[0][1:] for b in options[1][1:]}


def expected(command, row):
    """The exit code that the contract has for a row."""
    codes = {value.code for value in row.values()}
    if row.given("--unknown") == "skip":
        codes = {v.code for v in row.values() if v.option not in ("--stop", "--prime")}
    if 2 in codes or row.meets(CLASHES[command]):
        return 2
    return int(1 in codes or row.meets(MISFITS[command]))


@pytest.mark.parametrize("command", TABLES)
def test_rows_of_right_values_are_expected_to_succeed(command):
    assert not any(expected(command, row) for row in right_rows(command))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with texts and models."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    Path("short.txt").write_text(TEXT[:200])
    Path("text.gz").write_bytes(gzip.compress(TEXT.encode()))
    Path("folder").mkdir()
    Path("folder/a.txt").write_text(TEXT)
    Path("prime.txt").write_text("the")
    Path("known.txt").write_text("the quick brown fox\njumps over\n")
    saved(tiny(TEXT, hidden=4), tmp_path, "base.npz")
    saved(tiny(TEXT), tmp_path, "text.npz")
    saved(tiny(TEXT, training={"lines": True}), tmp_path, "lines.npz")
    return tmp_path


def ended(words, monkeypatch, given=""):
    """The exit code of a command, and what it wrote to stdout and to stderr."""
    streams = io.StringIO(), io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        patched.setattr(sys, "stdout", streams[0])
        patched.setattr(sys, "stderr", streams[1])
        code = app.main(words)
    out, err = (stream.getvalue() for stream in streams)
    assert "internal error" not in err, f"{words}: {err}"
    assert "--debug" in words or "Traceback" not in err, f"{words}: {err}"
    if code and "--debug" not in words and "--interactive" not in words:
        last = err.splitlines()[-1] if err else ""
        assert last.startswith("charrnn: "), f"{words}: {err}"
    return code, out, err


def objects(text):
    """The objects of JSON lines, none of which has a NaN or an infinity."""

    def refuse(token):
        raise AssertionError(token)

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


# train


def make_checkpoint(row, out, monkeypatch):
    """Write a checkpoint over which to train, or for --resume the same run after two steps."""
    if row.has("--resume") and not expected("train", row):
        asks = {"--resume": None, "--dry-run": None, **dict.fromkeys(LENGTHS), "--log": None}
        words = ["train", *row.words(**asks), "--steps", "2", "--quiet"]
        code, _, err = ended(words, monkeypatch, TEXT)
        assert code == 0, f"{words}: {err}"
    elif row.has("--resume") or row.has("--overwrite"):
        out.write_bytes(Path("base.npz").read_bytes())


@pytest.mark.slow
@cases("train")
def test_train_does_what_the_contract_says(row, files, monkeypatch):
    ticks = itertools.count(time.perf_counter(), 5.0)  # so that a budget has some ten steps
    out, log = files / (row.given("--out") or "model.npz"), files / (row.given("--log") or "")
    if out.parent.exists():
        make_checkpoint(row, out, monkeypatch)
    monkeypatch.setitem(loop.train.__kwdefaults__, "clock", lambda: next(ticks))
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    code, written, err = ended(["train", *row.words()], monkeypatch, TEXT)
    assert code == expected("train", row), f"{row}: {err}"
    after = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    if code or row.has("--dry-run"):
        assert after == before
    else:
        new = {out, log} if row.has("--log") else {out}
        left = "--resume" in row.words() and not log.exists()  # nothing was left to do
        assert after.keys() == before.keys() | new - ({log} if left else set())
        check_model(row, out)
    check_output(row, code, written, err)
    if row.has("--log") and log in after and not code and not row.has("--dry-run"):
        assert objects(log.read_text())[-1]["event"] == "done"


def check_model(row, out):
    """Check that the checkpoint loads, and has the shape that was asked for."""
    model = charrnn.load(out)
    for option, has in (("--cell", model.config.cell), ("--hidden", str(model.config.hidden))):
        if row.has(option):
            assert row.given(option) == has
    assert all(math.isfinite(x) for x in model.parameters.flat.tolist())


def check_output(row, code, out, err):
    """Check that stdout has what was asked for and nothing else."""
    if code:
        assert out == ""
    elif row.has("--json"):
        events = objects(out)
        if row.has("--dry-run"):
            assert len(events) == 1
        else:
            assert events[-1]["event"] == "done"
    else:
        assert bool(out) == row.has("--dry-run")
    if row.has("--quiet") and not code and not row.has("--dry-run"):
        assert err == ""


# sample


@pytest.mark.slow
@cases("sample")
def test_sample_does_what_the_contract_says(row, files, monkeypatch):
    (files / "model.npz").write_bytes((files / "text.npz").read_bytes())
    lines = row.given("MODEL") == "lines.npz"
    code, out, err = ended(["sample", *row.words()], monkeypatch, "the")
    if code != 1 or not row.has("--novel"):  # there may be no new ones
        assert code == expected("sample", row), f"{row}: {err}"
    if code:
        assert out == "" or row.has("--novel")
        return
    seed = row.given("--seed")
    if seed is None:
        seed = err.split("seed: ")[1].split()[0]
    assert ended(["sample", *row.words(**{"--seed": seed})], monkeypatch, "the")[1] == out
    if row.has("--json"):
        check_objects(row, objects(out), seed, lines)
    elif not row.has("--interactive") and not row.has("--show-probs"):
        check_text(row, out, lines)


def prime_of(row):
    prime = (row.given("--prime") or "").replace(UNKNOWN, "")
    return prime + "the" * row.has("--prime-file")


def check_objects(row, found, seed, lines):
    """Check the samples as JSON."""
    prime, length = prime_of(row), int(row.given("--length") or 500)
    assert len(found) == int(row.given("--num") or 1)
    for sample in found:
        shown = "" if row.has("--no-prime") else prime
        assert sample["prime"] == prime
        assert sample["text"].startswith(shown)
        assert sample["seed"] == int(seed)
        drawn = len(sample["text"]) - len(shown)
        assert drawn == length or (drawn < length and (lines or row.has("--stop")))


def check_text(row, out, lines):
    """Check the samples as text."""
    prime = "" if row.has("--no-prime") else prime_of(row)
    num, length = int(row.given("--num") or 1), int(row.given("--length") or 500)
    assert out.endswith("\n")
    if lines:
        assert out.count("\n") == num
        assert all(line.startswith(prime) for line in out.splitlines())
    elif num > 1:
        assert out.count(f" of {num} ----\n") == num
    else:
        assert out.startswith(prime)
        drawn = len(out) - len(prime)
        assert drawn - 1 <= length, row
        assert drawn >= length or row.has("--stop"), row
