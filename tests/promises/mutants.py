"""How good the tests are: change one small place of charrnn at a time; does a test fail?

    python tests/promises/mutants.py --count 400 --seed 1 [--only network]

Each mutant is one change of one expression or statement on a line that some test executes. First
all tests run once and say which lines they execute; a mutant then meets the tests that execute its
line, the quickest first, and if it survives them the rest of the tests of its package. It counts as
killed when a test fails or takes too long. Everything happens in copies of the tree. Left out are
docstrings, annotations, texts, what is raised, and what only another system executes.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).parents[2]
TREE = ("charrnn", "tests", "corpora", "pyproject.toml", "README.md")
# Of the mutants that are asked for, the share of each package; and the tests that concern it,
# which survivors meet as a whole.
PACKAGES = {
    "network": (0.28, "cells dropout gradcheck loss products matmul parameters network training"),
    "sampling": (0.19, "sampling cli_sample cli_eval decoding scoring reader"),
    "text": (0.19, "batches corpus ngram store vocabulary corpora sources"),
    "training": (0.24, "training defaults optimizers schedule workers cli_train setup"),
    "checkpoint": (0.10, "checkpoint atomic_write"),
}
SLOW = ("promises", "mpi", "readme", "ship", "export", "rooms", "exercise", "fading", "lecture")
LIMIT = 120.0  # seconds for the tests of a mutant

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

    def source(self) -> str:
        """Return the whole changed file."""
        Replace(self.node, self.changed).visit(self.tree)
        source = ast.unparse(ast.fix_missing_locations(self.tree))
        Replace(self.changed, self.node).visit(self.tree)
        return source


Change = Callable[[ast.AST], ast.AST]  # of a copy of a node, in place or not


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


def left_out(node: ast.AST) -> bool:
    """Whether a node and all within are no place for a mutant."""
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


def chosen(count: int, seed: int, only: list[str], traced: Traced) -> list[Mutant]:
    """Return so many mutants, drawn at random within each package."""
    rng, found = random.Random(seed), []
    shares = {package: PACKAGES[package][0] for package in only}
    for package, share in shares.items():
        files = sorted(path for path in (ROOT / "charrnn" / package).glob("*.py"))
        every = [m for path in files for m in mutants(path.relative_to(ROOT).as_posix(), traced)]
        number = min(len(every), round(count * share / sum(shares.values())))
        print(f"{package}: {number} of {len(every):,} mutants", file=sys.stderr)
        found += rng.sample(every, number)
    return found


def copied(folder: Path) -> Path:
    """Return a copy of the tree in a folder."""
    for name in TREE:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def pytest(tree: Path, tests: list[str], *options: str, limit: float) -> tuple[int, str]:
    """Return pytest's exit code, and the first test that failed; both told by a time-out."""
    listed = tree / "listed"
    listed.write_text("\n".join(tests))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    words += ["--hypothesis-seed=0", "--tb=no", "-rf", *options, f"@{listed}"]
    environment = os.environ | {"PYTHONPATH": f"{tree}{os.pathsep}{tree / 'tests'}"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "MUTANTS_ROOT": str(tree / "charrnn")}
    environment |= {"MUTANTS_OUT": str(tree / "traced.json"), "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            words, cwd=tree, env=environment, stdout=told, stderr=told, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return 1, "time limit"
        finally:
            _end_group(process)
        told.seek(0)
        said = told.read().decode(errors="replace")
    failed = [x.split(" ")[1] for x in said.splitlines() if x.startswith(("FAILED ", "ERROR "))]
    return code, failed[0] if failed else said[-300:]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def trace(tree: Path) -> Traced:
    """Return what all tests execute, from one run of them. Raises SystemExit if one fails."""
    (tree / "tracer.py").write_text(TRACER)
    files = sorted((tree / "tests").glob("test_*.py"))
    tests = [f"tests/{p.name}" for p in files if p.stem.removeprefix("test_") not in SLOW]
    code, failed = pytest(tree, tests, "-p", "tracer", limit=3600)
    if code:
        raise SystemExit(f"the tests fail without any mutant: {failed}")
    return Traced.read(tree / "traced.json", tree)


def judge(mutant: Mutant, source: str, tree: Path, traced: Traced) -> None:
    """Let the tests meet a mutant in a copy of the tree."""
    place = tree / mutant.file
    before = place.read_text(encoding="utf-8")
    place.write_text(source, encoding="utf-8")
    try:
        took, first = 0.0, []
        for test in mutant.tests:
            took += traced.took.get(test, 0.0)
            if took < LIMIT / 4 or not first:
                first.append(test)
        words = PACKAGES[mutant.package][1].split()
        files = [f"tests/test_{word}.py" for word in words]
        rest = [name for name in files if (tree / name).exists()]
        for tests, limit in ((first, LIMIT), (rest, 5 * LIMIT)):
            code, failed = pytest(tree, tests, "-x", limit=limit)
            if code:
                mutant.killer = failed
                return
    finally:
        place.write_text(before, encoding="utf-8")


def main() -> int:
    """Print a table of what was killed, and each survivor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=400, help="mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--traced", type=Path, help="where to keep what the tests execute")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="charrnn-mutants-") as folder:
        began, trees = time.perf_counter(), SimpleQueue[Path]()
        for job in range(options.jobs):
            (Path(folder) / str(job) / "tree").mkdir(parents=True)
            trees.put(copied(Path(folder).resolve() / str(job) / "tree"))
        first = trees.get()
        if options.traced and options.traced.exists():
            traced = Traced.read(options.traced, Path("/tree"))
        else:
            traced = trace(first)
            if options.traced:
                told = (first / "traced.json").read_text().replace(str(first), "/tree")
                options.traced.write_text(told)
        trees.put(first)
        found = chosen(options.count, options.seed, options.only, traced)

        def met(number: int, mutant: Mutant, source: str) -> None:
            tree = trees.get()
            judge(mutant, source, tree, traced)
            trees.put(tree)
            fate = f"killed by {mutant.killer}" if mutant.killer else "SURVIVED"
            print(f"{number}: {mutant.file}:{mutant.line}: {mutant.what}: {fate}", flush=True)

        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(met, range(len(found)), found, [m.source() for m in found]))
    report(found, time.perf_counter() - began)
    return 0


def report(found: list[Mutant], seconds: float) -> None:
    """Print the table of packages and the survivors."""
    every, killed = Counter(m.package for m in found), Counter(m.package for m in found if m.killer)
    print("\n| package | mutants | killed | |\n|---|---:|---:|---:|")
    for package in every:
        share = killed[package] / every[package]
        print(f"| {package} | {every[package]} | {killed[package]} | {share:.1%} |")
    share = killed.total() / max(1, every.total())
    print(f"| all | {every.total()} | {killed.total()} | {share:.1%} |")
    print(f"\n{seconds:.0f} s; the survivors:")
    for mutant in found:
        if not mutant.killer:
            print(f"- {mutant.file}:{mutant.line}: {mutant.what}")


if __name__ == "__main__":
    sys.exit(main())
