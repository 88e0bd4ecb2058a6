"""The exercise: right files pass, each known mistake is named, a learner's file does no harm."""

import json
import re
from dataclasses import replace
from pathlib import Path

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

# What a learner writes instead of their own line, by what is said of it.
WRONG = {
    "∂L_t/∂a_t lacks the − onehot(target_t)": [("g[targets[t]] -= 1", "pass")],
    "∂L_t/∂a_t: yours has + onehot(target_t), not −": [
        ("g[targets[t]] -= 1", "g[targets[t]] += 1")
    ],
    "∂L_t/∂a_t: yours has the wrong sign, onehot − ŷ_t": [
        ("        dU +=", "        g = -g\n        dU +=")
    ],
    "∂L_t/∂a_t: yours uses x_t as the target": [("g[targets[t]] -= 1", "g[x[t]] -= 1")],
    "∂L_t/∂a_t: yours is set to −1 at the target (= instead of −=)": [
        ("g[targets[t]] -= 1", "g[targets[t]] = -1")
    ],
    "∂L_t/∂a_t: yours subtracts 1 from every number of ŷ_t": [("g[targets[t]] -= 1", "g -= 1")],
    "∂L_t/∂a_t: yours is ∂L_t/∂ŷ_t, without the softmax's Jacobian": [
        ("y_hat[t].copy()", "np.zeros(len(b_y))"),
        ("g[targets[t]] -= 1", "g[targets[t]] = -1 / y_hat[t][targets[t]]"),
    ],
    "∂L_t/∂a_t: yours has only the diagonal of the softmax's Jacobian": [
        ("y_hat[t].copy()", "np.zeros(len(b_y))"),
        ("g[targets[t]] -= 1", "g[targets[t]] = y_hat[t][targets[t]] - 1"),
    ],
    "the loop leaves out the first step": [("range(len(x))", "range(1, len(x))")],
    "the loop leaves out the last step": [("range(len(x))", "range(len(x) - 1)")],
    "the loop goes forwards in time": [("reversed(range(len(x)))", "range(len(x))")],
    "∂L/∂U is overwritten at each step (= instead of +=)": [("dU += np", "dU = np")],
    "∂L/∂b_y is overwritten at each step (= instead of +=)": [("db_y += g", "db_y = g")],
    "∂L/∂W is overwritten at each step (= instead of +=)": [("dW += np", "dW = np")],
    "∂L/∂b_h is overwritten at each step (= instead of +=)": [("db_h += dA", "db_h = dA")],
    "∂L/∂V loses repeats: column x_t is overwritten (= instead of +=)": [
        ("dV[:, x[t]] += dA", "dV[:, x[t]] = dA")
    ],
    "∂L/∂V lacks tanh'": [("dV[:, x[t]] += dA", "dV[:, x[t]] += dh")],
    "∂L/∂h_t lacks what comes back from step t + 1": [("U.T @ g + back", "U.T @ g")],
    "∂L/∂h_t has only the last step's loss: at the others nothing comes through a_t": [
        ("U.T @ g + back", "(U.T @ g if t == len(x) - 1 else back)")
    ],
    "tanh' is missing on the path through the carry": [
        ("(1 - h[t] ** 2) * dh", "(U.T @ g) * (1 - h[t] ** 2) + back")
    ],
    "tanh' is missing on the path through a_t": [
        ("(1 - h[t] ** 2) * dh", "U.T @ g + back * (1 - h[t] ** 2)")
    ],
    "the loop ends after one iteration: is there a return or break in it?": [
        ("        back = W.T @ dA\n", "        back = W.T @ dA\n        break\n")
    ],
    "the carry stays zero: nothing is passed on to h_{t−1}": [("        back = W.T @ dA\n", "")],
    "the carry is never reset: it adds up over all steps": [
        ("back = W.T @ dA", "back = back + W.T @ dA")
    ],
    "the carry: yours has W, not its transpose": [("back = W.T @ dA", "back = W @ dA")],
    "the carry has the wrong sign": [("back = W.T @ dA", "back = -W.T @ dA")],
    "the carry lacks tanh': yours is Wᵀ ∂L/∂h_t": [("back = W.T @ dA", "back = W.T @ dh")],
    "the carry lacks Wᵀ: yours is ∂L/∂A_t": [("back = W.T @ dA", "back = dA")],
    "the carry lacks tanh' and Wᵀ: yours is ∂L/∂h_t": [("back = W.T @ dA", "back = dh")],
    "the carry: yours has Wᵀ and tanh' in the wrong order": [
        ("back = W.T @ dA", "back = (1 - h[t] ** 2) * (W.T @ dh)")
    ],
    "tanh' is missing: yours has ∂L/∂A_t = ∂L/∂h_t": [("(1 - h[t] ** 2) * dh", "dh")],
    "tanh' lacks its square: yours has 1 − h_t": [("(1 - h[t] ** 2)", "(1 - h[t])")],
    "tanh': yours has 1 + h_t²": [("(1 - h[t] ** 2)", "(1 + h[t] ** 2)")],
    "tanh': yours is a sigmoid's, h_t (1 − h_t)": [("(1 - h[t] ** 2)", "h[t] * (1 - h[t])")],
    "tanh': yours takes tanh of h_t again": [("(1 - h[t] ** 2)", "(1 - np.tanh(h[t]) ** 2)")],
    "tanh': yours is taken at h_{t−1}": [
        ("(1 - h[t] ** 2)", "(1 - (h[t - 1] if t else h_before) ** 2)")
    ],
    "tanh' is multiplied in twice": [("(1 - h[t] ** 2)", "(1 - h[t] ** 2) * (1 - h[t] ** 2)")],
    "tanh' lacks its brackets": [("(1 - h[t] ** 2) * dh", "dh * 1 - h[t] ** 2")],
    "∂L/∂U: yours has h_{t−1} instead of h_t": [
        ("np.outer(g, h[t])", "np.outer(g, h[t - 1] if t else h_before)")
    ],
    "∂L/∂U lacks h_t: all its columns are equal": [("np.outer(g, h[t])", "g[:, None]")],
    "∂L/∂W: yours has h_t instead of h_{t−1}": [("np.outer(dA, before)", "np.outer(dA, h[t])")],
    "∂L/∂W is transposed": [("np.outer(dA, before)", "np.outer(before, dA)")],
    "∂L/∂W lacks tanh'": [("np.outer(dA, before)", "np.outer(dh, before)")],
    "∂L/∂W: all its rows are equal (* of two vectors)": [("np.outer(dA, before)", "dA * before")],
    "∂L/∂W: all its numbers are equal (@ of two vectors)": [
        ("np.outer(dA, before)", "dA @ before")
    ],
    "∂L/∂W: yours uses the last h as h_{−1}, h[t − 1] at t = 0": [
        ("h[t - 1] if t > 0 else h_before\n        dW", "h[t - 1]\n        dW")
    ],
    "∂L/∂W: yours uses zero as h_{−1}": [
        ("if t > 0 else h_before\n        dW", "if t > 0 else np.zeros(len(b_h))\n        dW")
    ],
    "∂L/∂b_h lacks tanh'": [("db_h += dA", "db_h += dh")],
    "∂L/∂b_h: all its numbers are equal (a sum)": [("db_h += dA", "db_h += dA.sum()")],
    "∂L/∂b_h counts only each step's own loss, as (2) of the quiz does": [
        ("db_h += dA", "db_h += (U.T @ g) * (1 - h[t] ** 2)")
    ],
    "∂L/∂b_h has the identity for each ∂h_i/∂h_{i−1}, as in (3) of the quiz": [
        ("    for t in rev", "    sums = np.zeros_like(b_h)\n    for t in rev"),
        ("db_h += dA", "sums = sums + U.T @ g\n        db_h += sums * (1 - h[t] ** 2)"),
    ],
    "∂L/∂V: yours has the column of the target": [("dV[:, x[t]] += dA", "dV[:, targets[t]] += dA")],
    "∂L/∂V: yours adds to every column, not only to that of x_t": [
        ("dV[:, x[t]] += dA", "dV += dA[:, None]")
    ],
    "∂L/∂h_{−1} lacks Wᵀ: yours is ∂L/∂A_0": [("dh_before = back", "dh_before = dA")],
    "∂L/∂h_{−1}: yours is ∂L/∂h_0": [("dh_before = back", "dh_before = dh")],
}
REPEATS, H_FOR_H_LAST = (
    "∂L/∂V loses repeats: column x_t is overwritten (= instead of +=)",
    "∂L/∂W: yours has h_t instead of h_{t−1}",
)


def calls():
    return [*map(exercise.arguments, exercise.networks())]


def verdicts(source, folder):
    """Return the verdicts on a learner's file, run in this process to be quick."""
    path = folder / "mine.py"
    path.write_text(source, encoding="utf-8")
    found = runner.answers(str(path), [{n: np.asarray(v) for n, v in c.items()} for c in calls()])
    assert "error" not in found, found
    return {verdict.name: verdict for verdict in mark(found["answers"])}


def changed(*changes):
    source = RIGHT
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def test_the_template_is_short_and_runs(tmp_path):
    assert len(template().splitlines()) <= 80
    space = {}
    exec(template(), space)
    for net in exercise.networks():
        _, h, y_hat = forward(net)
        _, found_h, found_y_hat = space["forward"](
            net.x, net.targets, net.h_before, net.V, net.W, net.b_h, net.U, net.b_y
        )
        np.testing.assert_allclose(found_h, h)
        np.testing.assert_allclose(found_y_hat, y_hat)
    assert {v.mistake for v in verdicts(template(), tmp_path).values()} == {exercise.STILL_ZERO}


@pytest.mark.parametrize("source", [RIGHT, BATCHED, AUTOGRAD], ids=["loops", "batched", "autograd"])
def test_a_right_file_in_any_style_passes(source, tmp_path):
    assert all(verdict.right for verdict in verdicts(source, tmp_path).values())


@pytest.mark.parametrize("said", WRONG)
def test_each_known_mistake_is_named_as_the_one_cause(said, tmp_path):
    found = verdicts(changed(*WRONG[said]), tmp_path)
    assert {v.mistake for v in found.values() if not v.right} == {said}


def test_the_catalogue_has_a_learners_version_of_each_mistake():
    assert {*WRONG} == {*MISTAKES}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "∂L/∂h_t lacks what comes back from step t + 1",
            "∂L/∂W: yours has h_t instead of h_{t−1}",
        ),
        (
            "tanh' is missing: yours has ∂L/∂A_t = ∂L/∂h_t",
            "∂L/∂V loses repeats: column x_t is overwritten (= instead of +=)",
        ),
        ("∂L_t/∂a_t lacks the − onehot(target_t)", "∂L/∂W is transposed"),
        (
            "the carry: yours has W, not its transpose",
            "∂L/∂b_y is overwritten at each step (= instead of +=)",
        ),
        ("∂L/∂U: yours has h_{t−1} instead of h_t", "∂L/∂b_h lacks tanh'"),
    ],
)
def test_two_mistakes_at_once_are_both_named(one, other, tmp_path):
    found = verdicts(changed(*WRONG[one], *WRONG[other]), tmp_path)
    said = {part for v in found.values() if not v.right for part in str(v.mistake).split("; ")}
    assert said == {one, other}


def test_a_gradient_has_only_the_mistakes_that_it_takes(tmp_path):
    lost = "∂L/∂h_t lacks what comes back from step t + 1"
    turned = "the carry: yours has W, not its transpose"
    found = verdicts(changed(("U.T @ g + back", "U.T @ g"), ("W.T @ dA", "W @ dA")), tmp_path)
    for name in ("V", "W", "b_h"):  # they don't read the carry
        assert found[name].mistake == lost
    assert found["h_before"].mistake == f"{turned}; {lost}"


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (("db_y += g", "db_y -= g"), "b_y", "wrong sign"),
        (("db_y += g", "db_y += g / len(x)"), "b_y", "divided by T, but L is the sum over t"),
        (
            ("dU += np.outer(g, h[t])", "dU += 2 * np.outer(g, h[t])"),
            "U",
            "2 times the right gradient",
        ),
        (("dU += np.outer(g, h[t])", "dU += np.outer(g, h[t]) / np.log(2)"), "U", "1.443 times"),
        (("dU += np.outer(g, h[t])", "pass"), "U", "still zero"),
        (("dU += np.outer(g, h[t])", "dU = dU + np.nan"), "U", "not finite"),
        (('"U": dU,', '"U": dU.T,'), "U", "the transpose, instead of (3, 4)"),
        (('"W": dW, ', ""), "W", "missing from the dict"),
    ],
)
def test_what_is_wrong_with_one_gradient_is_said_of_it_alone(change, name, said, tmp_path):
    found = verdicts(changed(change), tmp_path)
    assert [v.name for v in found.values() if not v.right] == [name]
    assert said in str(found[name].mistake)


def test_what_no_mistake_explains_is_wrong_without_a_name(tmp_path):
    found = verdicts(changed(("db_y += g", "db_y += g ** 3")), tmp_path)
    assert (found["b_y"].right, found["b_y"].mistake) == (False, None)
    assert found["W"].right


def test_no_false_alarm_over_200_random_networks():
    rng = np.random.default_rng(5)
    for _ in range(200):
        H, T, N = (int(rng.integers(1, 5)) for _ in range(3))
        net = random_network(rng, H, T, max(2, N))
        net.W[:] *= rng.uniform(0.5, 1.5)
        found = bptt(net)
        for name in NAMES:
            assert distance(found[name], numeric_gradient(net, name)) < TOLERANCE, name


def test_numeric_gradients_do_not_come_from_the_reference_pass():
    net = exercise.networks()[0]
    moved = replace(net, W=net.W + 0.1)
    assert distance(numeric_gradient(moved, "W"), numeric_gradient(net, "W")) > 1e-3


def first(n):
    """Return a file with the first n lines of the solution."""
    return RIGHT.replace(SOLUTION, "\n".join(SOLUTION.splitlines()[:n]) + "\n")


@pytest.mark.parametrize(
    ("source", "zero"),
    [
        (first(4), {"V", "W", "b_h", "h_before"}),
        (changed(("        dW += np.outer(dA, before)\n", "")), {"W"}),
        (changed(("U.T @ g + back", "back")), {"V", "W", "b_h", "h_before"}),
    ],
)
def test_what_is_still_zero_is_no_mistake(source, zero, tmp_path):
    found = verdicts(source, tmp_path)
    said = {name: v.mistake for name, v in found.items() if not v.right}
    assert said == dict.fromkeys(zero, exercise.STILL_ZERO)


@pytest.mark.parametrize(
    ("change", "equation"),
    [
        (("g[targets[t]] -= 1", "g[targets[t]] -= 0.5"), "work out ∂L_t/∂a_t for N = 2"),
        (("db_y += g", "db_y += g / len(x)"), "how often does each L_t count"),
        (("db_y += g", "db_y = g"), "What is ∂a_t/∂b_y"),
        (("dU += np.outer(g, h[t])", "dU += 2 * np.outer(g, h[t])"), "does U multiply"),
        (("range(len(x))", "range(1, len(x))"), "which t does the loop visit"),
        (("back = W.T @ dA", "back = W @ dA"), "what does ∂L/∂A_{t+1} say about h_t"),
        (('"W": dW, ', ""), "V, W, b_h, U, b_y, h_before"),
        (('"U": dU,', '"U": dU.T,'), "print the shapes"),
        (("db_y += g", "db_y += np.nan"), "first nan"),
        (("(1 - h[t] ** 2)", "(1 - h[t] ** 3)"), "h_t is read twice"),
    ],
)
def test_the_hint_is_of_what_is_wrong(change, equation, tmp_path):
    assert equation in str(exercise.hint([*verdicts(changed(change), tmp_path).values()]))


def write(path, source):
    path.write_text(source, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("db_y += g", "db_y += q"), "line 52, in backward: db_y += q\nNameError"),
        (("        g = y_hat[t].copy()", "        raise SystemExit(0)"), "SystemExit: 0"),
        (("        g = y_hat[t].copy()", "        g = ("), "was never closed"),
        (("def backward(", "def forwards("), "it has no function called backward"),
        (("        g = y_hat[t].copy()", "        W *= 2\n        g = y_hat[t]"), "argument W"),
        (('return {"V": dV', 'return dV; {"V": dV'), "returns ndarray, not a dict"),
        (("        g = y_hat[t].copy()", "        import os; os._exit(3)"), "exit code 3"),
    ],
)
def test_a_file_that_cannot_be_marked_says_why(change, said, tmp_path):
    marks = shown.marks_of(write(tmp_path / "mine.py", changed(change)))
    assert said in str(marks.error)
    assert "runner" not in str(marks.error)


@pytest.mark.parametrize(
    "loop",
    ["while True: pass", "while True:\n            try: 1 / 0\n            except Exception: pass"],
)
def test_a_loop_without_end_is_stopped_and_its_line_is_named(loop, tmp_path):
    source = changed(("        g = y_hat[t].copy()", f"        {loop}"))
    found = runner.run(write(tmp_path / "mine.py", source), calls(), seconds=1)
    line, end = found["error"].splitlines()
    assert re.match(r"line \d\d, in backward: ", line)
    assert end == "it was stopped after 1 s; does this loop ever end?"


def test_what_takes_no_notice_is_ended(tmp_path):
    source = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)"
    found = runner.run(write(tmp_path / "mine.py", source), calls(), seconds=0.5)
    assert found["error"] == "it was still running after 1 s"


def test_what_a_file_prints_is_not_among_the_marks(tmp_path, capfd):
    source = changed(("        g = y_hat[t].copy()", "        print('here'); g = y_hat[t].copy()"))
    path = write(tmp_path / "mine.py", source)
    assert main(["gradcheck", "--mine", str(path), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["right"] == 6
    assert "here" in err


def test_the_commands_write_mark_and_hint(cli):
    file = Path("my_rnn.py")
    out, err = cli("gradcheck --exercise my_rnn.py")
    assert out == ""
    assert "charrnn gradcheck --mine my_rnn.py" in err
    err = cli("gradcheck --exercise 'my copy.py' --json").err
    for said in (err, Path("my copy.py").read_text(encoding="utf-8")):
        assert "charrnn gradcheck --mine 'my copy.py'" in said
    before = file.read_bytes()
    cli("gradcheck --exercise my_rnn.py", 1)
    assert file.read_bytes() == before
    write(file, changed(*WRONG[H_FOR_H_LAST]))
    out, err = cli("gradcheck --mine my_rnn.py --hint", 1)
    assert H_FOR_H_LAST in out
    assert "what does W multiply at step t" in out
    assert "5 of 6 gradients are right" in err
    write(file, RIGHT)
    out = cli("gradcheck --mine my_rnn.py").out
    assert "distance: ‖yours − numeric‖ / ‖numeric‖" in out
    assert out.endswith("6 of 6 gradients are right\n")
    assert "--exercise nothing.py writes it" in cli.refusal("gradcheck --mine nothing.py")


def test_a_hint_never_has_the_answer():
    hints = exercise.HINTS.values()
    for answer in ("(1 − h", "1 - h", "Wᵀ", "Uᵀ", "onehot", "outer"):
        assert not any(answer in hint for hint in hints)


def test_a_folder_is_a_class(cli):
    for name, source in (
        ("ada", RIGHT),
        ("bob", changed(*WRONG[REPEATS])),
        ("cleo", changed(*WRONG[REPEATS], *WRONG[H_FOR_H_LAST])),
        ("dan", "raise ValueError('no idea')"),
    ):
        write(Path(f"{name}.py"), source)
    out, err = cli("gradcheck --mine .", 1)
    for said in ("ada.py", "6 of 6", f"2 of 4 files: {REPEATS}", "ValueError: no idea"):
        assert said in out
    assert "1 of 4 files have all 6 gradients right" in err
    found = [
        (one["file"], one["right"], one["hint"] is None)
        for one in cli.json("gradcheck --mine .", 1)
    ]
    assert found[:2] == [("ada.py", 6, True), ("bob.py", 5, False)]


def test_a_class_that_has_it_all_right_is_told_so(cli):
    for name in ("ada", "bob"):
        write(Path(f"{name}.py"), RIGHT)
    assert cli("gradcheck --mine .").out.endswith("2 of 2 files have all 6 gradients right\n")


def test_an_exception_shows_the_lines_that_led_to_it_and_then_one_of_the_error(cli):
    write(Path("mine.py"), changed(("db_y += g", "db_y += q")))
    first, last = cli("gradcheck --mine mine.py", 1).err.splitlines()
    assert first.endswith(", in backward: db_y += q")
    assert last.startswith("charrnn: mine.py: NameError: name 'q'")
    assert ", in backward: db_y += q" in " ".join(cli("gradcheck --mine .", 1).out.split())


def test_a_long_traceback_is_cut(tmp_path):
    call = "backward(x, targets, h_before, V, W, b_h, U, b_y, h, y_hat)"
    error = str(shown.marks_of(write(tmp_path / "mine.py", changed(("db_y += g", call)))).error)
    assert len(error) <= 2000
    assert len(error.splitlines()) <= 20
    assert "RecursionError" in error


@pytest.mark.parametrize("end", ["", "while True: print('stuck')", "raise ValueError"])
def test_prints_are_capped_and_a_newline_ends_them(end, tmp_path, capfd):
    start = "        g = y_hat[t].copy()"
    source = changed((start, f"        print('here', end='')\n        {end}\n{start}"))
    main(["gradcheck", "--mine", str(write(tmp_path / "mine.py", source)), "--json"])
    err = capfd.readouterr().err
    assert len(err) < 31_000
    assert err.startswith("here")
    assert not end or err.splitlines()[-1].startswith("charrnn: ")
    assert err.endswith("\n")


@pytest.mark.parametrize(
    "words", ["--tolerance 1e-5", "--seed 0", "--hidden 3", "--cell rnn", "--model m", "--lecture"]
)
@pytest.mark.parametrize("command", ["--mine", "--exercise"])
def test_options_of_other_checks_are_refused(words, command, cli):
    said = f"{command} and {words.split()[0]} don't go together"
    assert said in cli.refusal(f"gradcheck {command} mine.py {words}", 2)
    assert not Path("mine.py").exists()


def test_a_verdict_wraps_between_words(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    write(Path("mine.py"), changed(("back = W.T @ dA", "back = W @ dA")))
    out, _ = cli("gradcheck --mine mine.py --hint", 1)
    assert max(map(len, out.splitlines())) <= 60
