"""How good the tests are: change one small place of charrnn at a time; does a test fail?

    python tests/promises/mutants.py --count 400 --seed 1 [--only network]

Each mutant is one change of one expression or statement on a line that some test executes. First
all tests run once and say which lines they execute; a mutant then meets the tests that execute its
line, the quickest first. It counts as killed when a test fails or takes too long. Everything
happens in copies of the tree. Left out are docstrings, annotations, texts, what is raised,
constants of a module (sizes and limits), and what only another system executes.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).parents[2]
TREE = ("charrnn", "tests", "corpora", "pyproject.toml", "README.md")
PACKAGES = {  # the share of each among the mutants
    "network": 0.28,
    "sampling": 0.19,
    "text": 0.19,
    "training": 0.24,
    "checkpoint": 0.10,
}
SLOW = ("promises", "mpi", "readme", "ship", "export", "rooms", "exercise", "fading", "lecture")
COMMUTATIVE = ("multiply", "add", "max", "min", "maximum", "minimum", "gcd")
LIMIT = 120.0  # seconds, traced ones, of the tests that a mutant meets

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult, ast.Mod),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}

# Forks a pytest for each line of its input: its words and its limit in seconds. The child's output
# goes to a file; its exit code is written.
FORKER = """
import json, os, sys, time
import hypothesis.strategies, numpy.testing, pytest, rich.console, rich.table, tqdm, typer.main
for line in sys.stdin:
    words, limit = json.loads(line)
    if not (pid := os.fork()):
        os.setsid()
        told, null = os.open("told", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.open(os.devnull, 0)
        for number, descriptor in enumerate((null, told, told)):
            os.dup2(descriptor, number)
        os._exit(int(pytest.main(words)))
    end, done = time.monotonic() + limit, 0
    while not done and time.monotonic() < end:
        time.sleep(0.02)
        done, status = os.waitpid(pid, os.WNOHANG)
    try:
        os.killpg(pid, 9)
    except ProcessLookupError:
        pass
    if not done:
        os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status) if done else "none: too slow", flush=True)
"""

TRACER = '''
"""Writes which lines of charrnn each test executes."""
import json, os, sys, threading, time
import pytest
seen, took, now, ROOT = {}, {}, ["import"], os.environ["MUTANTS_ROOT"]
def local(frame, event, arg):
    if event == "line":
        seen.setdefault(now[0], {}).setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
    return local
def trace(frame, event, arg):
    if not frame.f_code.co_filename.startswith(ROOT):
        return None
    return local(frame, "line", arg)
sys.settrace(trace)
threading.settrace(trace)
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    now[0], began = item.nodeid, time.perf_counter()
    sys.settrace(trace)
    yield
    took[item.nodeid], now[0] = time.perf_counter() - began, "import"
def pytest_sessionfinish():
    sys.settrace(None)
    lines = {t: {f: sorted(at) for f, at in of.items()} for t, of in seen.items()}
    with open(os.environ["MUTANTS_OUT"], "w") as file:
        json.dump({"lines": lines, "took": took}, file)
'''


@dataclass
class Traced:
    """What the tests execute: by file and line the names of tests, and how long each takes."""

    tests: dict[str, dict[int, set[str]]]
    took: dict[str, float]

    @classmethod
    def read(cls, path: Path, tree: Path) -> Traced:
        told = json.loads(path.read_text())
        tests: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for test, files in told["lines"].items():
            for file, lines in files.items():
                name = Path(file).relative_to(tree).as_posix()
                for line in lines:
                    tests[name][line].add(test)
        return cls(tests, told["took"])

    def of(self, file: str, lines: range) -> set[str]:
        """The tests that execute one of the lines; of what an import executes, all of the file."""
        found = set().union(*(self.tests[file].get(line, ()) for line in lines))
        if found == {"import"}:
            found = set().union(*self.tests[file].values())
        return found - {"import"}


@dataclass
class Mutant:
    """A change in a file, and what became of it."""

    file: str
    line: int
    what: str
    node: ast.AST
    changed: ast.AST
    tree: ast.Module  # that the node is of
    tests: list[str] = field(default_factory=list)
    killer: str = ""  # the test that failed; empty: it survived

    @property
    def package(self) -> str:
        return self.file.split("/")[1]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"

    def source(self) -> str:
        """Return the whole changed file."""
        Replace(self.node, self.changed).visit(self.tree)
        source = ast.unparse(ast.fix_missing_locations(self.tree))
        Replace(self.changed, self.node).visit(self.tree)
        return source


class Sites(ast.NodeVisitor):
    """All places where a module can be changed: (node, what is changed, the changed node)."""

    def __init__(self) -> None:
        self.found: list[tuple[ast.AST, str, ast.AST]] = []

    def offer(self, node: ast.AST, changed: ast.AST) -> None:
        before, after = ast.unparse(node), ast.unparse(changed)
        if before != after:
            self.found.append((node, f"{shortened(before)} → {shortened(after)}", changed))

    def visit(self, node: ast.AST) -> None:
        for changed in changes(node):
            self.offer(node, changed)
        super().visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_params", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not left_out(child):
                    self.visit(child)


def constants(target: ast.AST) -> Iterator[bool]:
    """Yield of each name that is assigned to whether it is that of a constant."""
    for part in target.elts if isinstance(target, ast.Tuple) else [target]:
        yield isinstance(part, ast.Name) and len(part.id) > 1 and part.id.isupper()


def left_out(node: ast.AST) -> bool:
    """Whether a node and all within are no place for a mutant."""
    match node:
        case ast.Assign(targets=[target]) if not set(constants(target)) - {True}:
            return True  # a size or a limit that was measured or agreed upon
    if isinstance(node, ast.If):
        text = ast.unparse(node.test)
        return any(word in text for word in ("TYPE_CHECKING", "sys.platform", "os.name"))
    return isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert)


def shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield changed copies of a node."""
    changed: Any = copy.deepcopy(node)
    match node:
        case ast.Compare(ops=[op]):
            for other in COMPARISONS[type(op)]:
                changed.ops = [other()]
                yield copy.deepcopy(changed)
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            for operator in ARITHMETIC.get(type(op), ()):
                changed.op = operator()
                yield copy.deepcopy(changed)
            if isinstance(node, ast.AugAssign):
                yield ast.Pass()
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield ast.Constant(node.value + 1)
            yield ast.Constant(node.value - 1)
        case ast.Constant(value=float()):
            yield ast.Constant(node.value * 1.5 + (node.value == 0))
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.BoolOp(op=op):
            changed.op = ast.And() if isinstance(op, ast.Or) else ast.Or()
            yield changed
        case ast.If() | ast.IfExp() | ast.While():
            changed.test = ast.UnaryOp(ast.Not(), changed.test)
            yield changed
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Call(args=[_, _, *_]) if not any(isinstance(a, ast.Starred) for a in node.args):
            if len(node.args) < 3 and ast.unparse(node.func).endswith(COMMUTATIVE):
                return
            at = len(ast.unparse(node)) % (len(node.args) - 1)
            changed.args[at : at + 2] = changed.args[at : at + 2][::-1]
            yield changed


def mutants(file: str, traced: Traced) -> Iterator[Mutant]:
    """Yield all mutants of a file whose lines some test executes."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    sites = Sites()
    sites.visit(tree)
    for node, what, changed in sites.found:
        at: Any = node
        tests = traced.of(file, range(at.lineno, at.end_lineno + 1))
        if isinstance(node, ast.stmt):
            tests = traced.of(file, range(at.lineno, at.lineno + 1)) or tests
        if tests:
            quickest = sorted(tests, key=lambda test: traced.took.get(test, 0.0))
            yield Mutant(file, at.lineno, what, node, changed, tree, quickest)


class Replace(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else super().visit(node)


def every(package: str, traced: Traced) -> list[Mutant]:
    """Return all mutants of a package."""
    files = sorted((ROOT / "charrnn" / package).glob("*.py"))
    return [m for path in files for m in mutants(path.relative_to(ROOT).as_posix(), traced)]


def chosen(count: int, seed: int, only: list[str], traced: Traced) -> list[Mutant]:
    """Return so many mutants, drawn at random within each package."""
    rng, found = random.Random(seed), []
    shares = {package: PACKAGES[package] for package in only}
    for package, share in shares.items():
        among = every(package, traced)
        number = min(len(among), round(count * share / sum(shares.values())))
        print(f"{package}: {number} of {len(among):,} mutants", file=sys.stderr)
        found += rng.sample(among, number)
    return found


class Tree:
    """A copy of the tree, and a process that forks a pytest in it: its imports are made once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        for name in TREE:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.so")
                shutil.copytree(ROOT / name, folder / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, folder / name)
        (folder / "tracer.py").write_text(TRACER)
        environment = os.environ | {
            "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'tests'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MUTANTS_ROOT": str(folder / "charrnn"),
            "MUTANTS_OUT": str(folder / "traced.json"),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKER],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self.process.communicate()

    def pytest(self, tests: Sequence[str], *options: str, limit: float) -> str:
        """Return the first test that failed, or what else went wrong; empty if all passed."""
        (self.path / "listed").write_text("\n".join(tests))
        words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
        words += ["--tb=no", "-rf", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        words += [*options, "@listed"]
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([words, limit]) + "\n")
        self.process.stdin.flush()
        code = self.process.stdout.readline().strip()
        said = (self.path / "told").read_text(errors="replace").splitlines()
        failed = [line.split(" ")[1] for line in said if line.startswith("FAILED ")]
        return "" if code == "0" else (failed or [f"exit code {code}"])[0]


def trace(tree: Tree) -> Traced:
    """Return what all tests execute, from one run of them. Raises SystemExit if one fails."""
    files = sorted((tree.path / "tests").glob("test_*.py"))
    tests = [f"tests/{p.name}" for p in files if p.stem.removeprefix("test_") not in SLOW]
    if failed := tree.pytest(tests, "-p", "tracer", limit=3600):
        raise SystemExit(f"the tests fail without any mutant: {failed}")
    return Traced.read(tree.path / "traced.json", tree.path)


def judge(mutant: Mutant, source: str, tree: Tree, traced: Traced) -> None:
    """Let the tests that execute its line meet a mutant in a copy of the tree."""
    place = tree.path / mutant.file
    before = place.read_text(encoding="utf-8")
    place.write_text(source, encoding="utf-8")
    try:
        ends = list(accumulate(traced.took.get(test, 0.0) for test in mutant.tests))
        first = max(1, bisect(ends, LIMIT / 10))
        for tests in (mutant.tests[:first], mutant.tests[first : bisect(ends, LIMIT)]):
            if tests and not mutant.killer:
                took = sum(traced.took.get(test, 0.0) for test in tests)
                mutant.killer = tree.pytest(tests, "-x", limit=30 + 8 * took)
    finally:
        place.write_text(before, encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=400, help="mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--again", type=Path, help="a report: only the survivors that it lists")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--traced", type=Path, help="where to keep what the tests execute")
    return parser.parse_args()


def traced_once(tree: Tree, kept: Path | None) -> Traced:
    """Return what the tests execute, perhaps kept from an earlier run. Raises SystemExit."""
    if kept and kept.exists():
        traced = Traced.read(kept, Path("/tree"))
    else:
        traced = trace(tree)
        if kept:
            told = (tree.path / "traced.json").read_text()
            kept.write_text(told.replace(str(tree.path), "/tree"))
    few = sorted(traced.took, key=traced.took.__getitem__)[:200]
    if failed := tree.pytest(few, limit=600):
        raise SystemExit(f"a test fails without any mutant: {failed}")
    return traced


def main() -> int:
    """Print a table of what was killed, and each survivor."""
    options = arguments()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    with tempfile.TemporaryDirectory(prefix="charrnn-mutants-") as folder, ExitStack() as stack:
        began, trees = time.perf_counter(), SimpleQueue[Tree]()
        for job in range(options.jobs):
            first = stack.enter_context(closing(Tree(Path(folder).resolve() / f"{job}" / "tree")))
            trees.put(first)
        traced = traced_once(first, options.traced)
        if options.again:
            listed = options.again.read_text().splitlines()
            found = [
                m for package in PACKAGES for m in every(package, traced) if f"- {m}" in listed
            ]
        else:
            found = chosen(options.count, options.seed, options.only, traced)

        def met(number: int, mutant: Mutant, source: str) -> None:
            tree = trees.get()
            judge(mutant, source, tree, traced)
            trees.put(tree)
            fate = f"killed by {mutant.killer}" if mutant.killer else "SURVIVED"
            print(f"{number}: {mutant}: {fate}", flush=True)

        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(met, range(len(found)), found, [m.source() for m in found]))
    report(found, time.perf_counter() - began)
    return 0


def report(found: list[Mutant], seconds: float) -> None:
    """Print the table of packages and the survivors."""
    tried, killed = Counter(m.package for m in found), Counter(m.package for m in found if m.killer)
    print("\n| package | mutants | killed | |\n|---|---:|---:|---:|")
    for package in tried:
        share = killed[package] / tried[package]
        print(f"| {package} | {tried[package]} | {killed[package]} | {share:.1%} |")
    share = killed.total() / max(1, tried.total())
    print(f"| all | {tried.total()} | {killed.total()} | {share:.1%} |")
    print(f"\n{seconds:.0f} s; the survivors:")
    for mutant in found:
        if not mutant.killer:
            print(f"- {mutant}")


if __name__ == "__main__":
    sys.exit(main())
