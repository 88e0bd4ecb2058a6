"""The exercise: right files pass, each known mistake is named, a learner's file does no harm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn.cli import exercise as shown
from charrnn.cli.app import main
from charrnn.lecture import exercise, runner
from charrnn.lecture.exercise import MISTAKES, NAMES, TOLERANCE, mark, template
from charrnn.lecture.rnn import bptt, distance, forward, numeric_gradient, random_network

# What a learner writes for `pass`, in lines that the mistakes below change.
SOLUTION = """\
        g = y_hat[t].copy()  # dL_t/da_t
        g[targets[t]] -= 1
        dU += np.outer(g, h[t])
        db_y += g
        dh = U.T @ g + back  # of both ways
        dA = (1 - h[t] ** 2) * dh
        before = h[t - 1] if t > 0 else h_before
        dW += np.outer(dA, before)
        dV[:, x[t]] += dA
        db_h += dA
        back = W.T @ dA
    dh_before = back
"""
LOOP = """\
    back = np.zeros_like(h_before)
    for t in reversed(range(len(x))):
"""
SPLIT = template().index("    for t in reversed")
RIGHT = template()[:SPLIT] + LOOP + SOLUTION + template()[template().index('\n    return {"V"') :]

BATCHED = """
import numpy as np

def backward(x, targets, h_before, V, W, b_h, U, b_y, h, y_hat):
    T, N = y_hat.shape
    D = y_hat - np.eye(N)[targets]
    past = np.vstack([h_before, h[:-1]])
    dA, later = np.zeros_like(h), np.zeros_like(h_before)
    for t in range(T - 1, -1, -1):
        dA[t] = (D[t] @ U + later) * (1 - h[t] * h[t])
        later = dA[t] @ W
    dV, dW, dU = dA.T @ np.eye(N)[x], dA.T @ past, D.T @ h
    return dict(V=dV, W=dW, b_h=dA.sum(0), U=dU, b_y=D.sum(0), h_before=later)
"""
AUTOGRAD = """
import numpy as np

class Value:
    def __init__(self, data, parents=(), pull=None):
        self.data, self.parents, self.pull, self.grad = data, parents, pull, np.zeros_like(data)

def multiply(M, v):
    out = Value(M.data @ v.data, (M, v))
    def pull(g):
        M.grad += np.outer(g, v.data)
        v.grad += M.data.T @ g
    out.pull = pull
    return out

def add(*terms):
    def pull(g):
        for term in terms:
            term.grad += g
    return Value(sum(term.data for term in terms), terms, pull)

def tanh(a):
    out = Value(np.tanh(a.data), (a,))
    def pull(g):
        a.grad += g * (1 - out.data ** 2)
    out.pull = pull
    return out

def cross_entropy(a, k):
    e = np.exp(a.data - a.data.max())
    p = e / e.sum()
    def pull(g):
        a.grad += g * (p - np.eye(len(p))[k])
    return Value(-np.log(p[k]), (a,), pull)

def backward(x, targets, h_before, V, W, b_h, U, b_y, h, y_hat):
    leaves = {"V": V, "W": W, "b_h": b_h, "U": U, "b_y": b_y, "h_before": h_before}
    v = {name: Value(np.array(array)) for name, array in leaves.items()}
    state, losses = v["h_before"], []
    for t in range(len(x)):
        one = Value(np.eye(V.shape[1])[x[t]])
        state = tanh(add(multiply(v["V"], one), multiply(v["W"], state), v["b_h"]))
        losses.append(cross_entropy(add(multiply(v["U"], state), v["b_y"]), targets[t]))
    order, seen = [], set()
    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for parent in node.parents:
                visit(parent)
            order.append(node)
    total = add(*losses)
    visit(total)
    total.grad = np.ones_like(total.data)
    for node in reversed(order):
        if node.pull:
            node.pull(node.grad)
    return {name: value.grad for name, value in v.items()}
"""

TANH = "(1 - h[t] ** 2)"
# A learner's line and what stands there instead: in the order of the catalogue.
WRONG = [
    [("g[targets[t]] -= 1", "pass")],
    [("g[targets[t]] -= 1", "g[targets[t]] += 1")],
    [("        dU +=", "        g = -g\n        dU +=")],
    [("g[targets[t]] -= 1", "g[x[t]] -= 1")],
    [
        ("y_hat[t].copy()", "np.zeros(len(b_y))"),
        ("g[targets[t]] -= 1", "g[targets[t]] = -1 / y_hat[t][targets[t]]"),
    ],
    [
        ("y_hat[t].copy()", "np.zeros(len(b_y))"),
        ("g[targets[t]] -= 1", "g[targets[t]] = y_hat[t][targets[t]] - 1"),
    ],
    [("dU += np", "dU = np")],
    [("db_y += g", "db_y = g")],
    [("dW += np", "dW = np")],
    [("db_h += dA", "db_h = dA")],
    [("dV[:, x[t]] += dA", "dV[:, x[t]] = dA")],
    [("range(len(x))", "range(1, len(x))")],
    [("range(len(x))", "range(len(x) - 1)")],
    [("reversed(range(len(x)))", "range(len(x))")],
    [("U.T @ g + back", "U.T @ g")],
    [("        back = W.T @ dA\n", "")],
    [("U.T @ g + back", "(U.T @ g if t == len(x) - 1 else back)")],
    [("back = W.T @ dA", "back = back + W.T @ dA")],
    [("back = W.T @ dA", "back = W @ dA")],
    [("back = W.T @ dA", "back = W.T @ dh")],
    [("back = W.T @ dA", "back = dA")],
    [("back = W.T @ dA", "back = dh")],
    [(f"{TANH} * dh", "dh")],
    [(TANH, "(1 - h[t])")],
    [(TANH, "(1 + h[t] ** 2)")],
    [(TANH, "h[t] * (1 - h[t])")],
    [(TANH, "(1 - np.tanh(h[t]) ** 2)")],
    [(TANH, "(1 - (h[t - 1] if t else h_before) ** 2)")],
    [(TANH, "(1 - h[t] ** 2) * (1 - h[t] ** 2)")],
    [("np.outer(g, h[t])", "np.outer(g, h[t - 1] if t else h_before)")],
    [("np.outer(dA, before)", "np.outer(dA, h[t])")],
    [("np.outer(dA, before)", "np.outer(before, dA)")],
    [("h[t - 1] if t > 0 else h_before\n        dW", "h[t - 1]\n        dW")],
    [("if t > 0 else h_before\n        dW", "if t > 0 else np.zeros(len(b_h))\n        dW")],
    [("np.outer(dA, before)", "np.outer(dh, before)")],
    [("dV[:, x[t]] += dA", "dV[:, x[t]] += dh")],
    [("db_h += dA", "db_h += dh")],
    [("dV[:, x[t]] += dA", "dV[:, targets[t]] += dA")],
    [("db_h += dA", "db_h += (U.T @ g) * (1 - h[t] ** 2)")],
    [
        ("    for t in rev", "    sums = np.zeros_like(b_h)\n    for t in rev"),
        ("db_h += dA", "sums = sums + U.T @ g\n        db_h += sums * (1 - h[t] ** 2)"),
    ],
    [("dh_before = back", "dh_before = dA")],
    [("dh_before = back", "dh_before = dh")],
]


def calls() -> list[dict[str, Any]]:
    return shown.arguments()


def verdicts(source: str, folder: Path) -> dict[str, exercise.Verdict]:
    """Return the verdicts on a learner's file, run in this process to be quick."""
    path = folder / "mine.py"
    path.write_text(source, encoding="utf-8")
    found = runner.answers(str(path), [{n: np.asarray(v) for n, v in c.items()} for c in calls()])
    assert "error" not in found, found
    return {verdict.name: verdict for verdict in mark(found["answers"])}


def changed(*changes: tuple[str, str]) -> str:
    source = RIGHT
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def test_the_template_is_short_and_runs(tmp_path: Path) -> None:
    assert len(template().splitlines()) <= 80
    space: dict[str, Any] = {}
    exec(template(), space)
    for net in exercise.networks():
        h, y_hat = forward(net)
        _, found_h, found_y_hat = space["forward"](
            net.x, net.targets, net.h_before, net.V, net.W, net.b_h, net.U, net.b_y
        )
        np.testing.assert_allclose(found_h, h)
        np.testing.assert_allclose(found_y_hat, y_hat)
    assert {v.mistake for v in verdicts(template(), tmp_path).values()} == {"is still zero"}


@pytest.mark.parametrize("source", [RIGHT, BATCHED, AUTOGRAD], ids=["loops", "batched", "autograd"])
def test_a_right_file_in_any_style_passes(source: str, tmp_path: Path) -> None:
    assert all(verdict.right for verdict in verdicts(source, tmp_path).values())


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=lambda n: MISTAKES[n].said)
def test_each_known_mistake_is_named_as_the_one_cause(number: int, tmp_path: Path) -> None:
    found = verdicts(changed(*WRONG[number]), tmp_path)
    assert {v.mistake for v in found.values() if not v.right} == {MISTAKES[number].said}


def test_the_catalogue_has_a_learners_version_of_each_mistake() -> None:
    assert len(WRONG) == len(MISTAKES) >= 24
    assert len({mistake.said for mistake in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize(("one", "other"), [(14, 30), (22, 10), (0, 31), (18, 7), (29, 36)])
def test_two_mistakes_at_once_are_both_named(one: int, other: int, tmp_path: Path) -> None:
    found = verdicts(changed(*WRONG[one], *WRONG[other]), tmp_path)
    said = {part for v in found.values() if not v.right for part in str(v.mistake).split("; ")}
    assert said == {MISTAKES[one].said, MISTAKES[other].said}


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (("db_y += g", "db_y -= g"), "b_y", "has the wrong sign"),
        (("db_y += g", "db_y += g / len(x)"), "b_y", "is divided by T: L is the sum over t"),
        (("dU += np.outer(g, h[t])", "dU += 2 * np.outer(g, h[t])"), "U", "is twice too large"),
        (("dU += np.outer(g, h[t])", "pass"), "U", "is zero"),
        (("dU += np.outer(g, h[t])", "dU = dU + np.nan"), "U", "not finite"),
        (('"U": dU,', '"U": dU.T,'), "U", "the transpose; expected (3, 4)"),
        (('"W": dW, ', ""), "W", "is missing from the dict"),
    ],
)
def test_what_is_wrong_with_one_gradient_is_said_of_it_alone(
    change: tuple[str, str], name: str, said: str, tmp_path: Path
) -> None:
    found = verdicts(changed(change), tmp_path)
    assert [v.name for v in found.values() if not v.right] == [name]
    assert said in str(found[name].mistake)


def test_what_no_mistake_explains_is_wrong_without_a_name(tmp_path: Path) -> None:
    found = verdicts(changed(("db_y += g", "db_y += g ** 3")), tmp_path)
    assert (found["b_y"].right, found["b_y"].mistake) == (False, None)
    assert found["W"].right


def test_no_false_alarm_over_200_random_networks() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        H, T, N = (int(rng.integers(1, 5)) for _ in range(3))
        net = random_network(rng, H, T, max(2, N), gain=float(rng.uniform(0.5, 1.5)))
        found = bptt(net)
        for name in NAMES:
            assert distance(found[name], numeric_gradient(net, name)) < TOLERANCE, name


def test_numeric_gradients_do_not_come_from_the_reference_pass() -> None:
    net = exercise.networks()[0]
    moved = replace(net, W=net.W + 0.1)
    assert distance(numeric_gradient(moved, "W"), numeric_gradient(net, "W")) > 1e-3


def write(path: Path, source: str) -> Path:
    path.write_text(source, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("db_y += g", "db_y += q"), "line 49, in backward: db_y += q\nNameError"),
        (("        g = y_hat[t].copy()", "        raise SystemExit(0)"), "SystemExit: 0"),
        (("        g = y_hat[t].copy()", "        g = ("), "was never closed"),
        (("def backward(", "def forwards("), "it has no function called backward"),
        (("        g = y_hat[t].copy()", "        W *= 2\n        g = y_hat[t]"), "argument W"),
        (('return {"V": dV', 'return dV; {"V": dV'), "returns ndarray; expected a dict"),
        (("        g = y_hat[t].copy()", "        import os; os._exit(3)"), "exit code 3"),
    ],
)
def test_a_file_that_cannot_be_marked_says_why(
    change: tuple[str, str], said: str, tmp_path: Path
) -> None:
    marks = shown.marks_of(write(tmp_path / "mine.py", changed(change)))
    assert said in str(marks.error)
    assert "runner" not in str(marks.error)


def test_a_loop_without_end_is_stopped(tmp_path: Path) -> None:
    source = changed(("        g = y_hat[t].copy()", "        while True: pass"))
    found = runner.run(write(tmp_path / "mine.py", source), calls(), seconds=2)
    assert "stopped after 2 s" in found["error"]


def test_what_a_file_prints_is_not_among_the_marks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = changed(("        g = y_hat[t].copy()", "        print('here'); g = y_hat[t].copy()"))
    path = write(tmp_path / "mine.py", source)
    assert main(["gradcheck", "--mine", str(path), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["right"] == 6
    assert "here" in err


def test_the_commands_write_mark_and_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["gradcheck", "--exercise", "my_rnn.py"]) == 0
    assert "charrnn gradcheck --mine my_rnn.py" in capsys.readouterr().out
    before = Path("my_rnn.py").read_bytes()
    assert main(["gradcheck", "--exercise", "my_rnn.py"]) == 1
    assert Path("my_rnn.py").read_bytes() == before
    write(Path("my_rnn.py"), changed(*WRONG[30]))
    assert main(["gradcheck", "--mine", "my_rnn.py", "--hint"]) == 1
    out, err = capsys.readouterr()
    assert "∂L/∂W: ∂L/∂W has h_t for h_{t−1}" in out
    assert "what does W multiply at step t" in out
    assert "5 of 6 gradients are right" in err
    write(Path("my_rnn.py"), RIGHT)
    assert main(["gradcheck", "--mine", "my_rnn.py"]) == 0
    assert main(["gradcheck", "--mine", "nothing.py"]) == 1
    assert "--exercise nothing.py writes it" in capsys.readouterr().err


def test_a_hint_never_has_the_answer() -> None:
    hints = [*exercise.HINTS.values(), *exercise.COMMON_HINTS]
    for answer in ("(1 − h", "1 - h", "Wᵀ", "Uᵀ", "onehot", "outer"):
        assert not any(answer in hint for hint in hints)


def test_a_folder_is_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, source in (
        ("ada", RIGHT),
        ("bob", changed(*WRONG[10])),
        ("cleo", changed(*WRONG[10], *WRONG[30])),
        ("dan", "raise ValueError('no idea')"),
    ):
        write(tmp_path / f"{name}.py", source)
    assert main(["gradcheck", "--mine", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "ada.py" in out
    assert "6 of 6" in out
    assert f"2 of 4: {MISTAKES[10].said}" in out
    assert "ValueError: no idea" in out
    assert "3 of 4 files are not all right" in err
    assert main(["gradcheck", "--mine", str(tmp_path), "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["file"], line["right"]) for line in lines[:2]] == [("ada.py", 6), ("bob.py", 5)]
