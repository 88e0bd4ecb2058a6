"""`charrnn gradcheck --exercise` and `--mine`: a backward pass to write, and its marks."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn.cli.terminal import console, print_json
from charrnn.errors import CharRNNError

if TYPE_CHECKING:
    from charrnn.lecture.exercise import Verdict


def write(path: Path) -> None:
    """Write the exercise to a new file. Raises CharRNNError if there is one already."""
    from charrnn.checkpoint.atomic_write import atomic_write, check_writable
    from charrnn.lecture.exercise import template

    if path.exists():
        raise CharRNNError(f"{path}: this file exists and is kept; choose another name")
    check_writable(path)
    with atomic_write(path) as file:
        file.write(template().replace("my_rnn.py", str(path)).encode())
    print(f"Fill in backward in {path}, then: charrnn gradcheck --mine {path}")


@dataclass(frozen=True)
class Marks:
    """What a learner's file is worth; `error`: it could not be run."""

    path: Path
    verdicts: tuple[Verdict, ...]
    error: str | None = None

    @property
    def right(self) -> int:
        """How many gradients are right."""
        return sum(verdict.right for verdict in self.verdicts)

    @property
    def causes(self) -> dict[str, list[str]]:
        """The gradients that each mistake has made wrong, by what is said of it."""
        found: dict[str, list[str]] = {}
        for verdict in self.verdicts:
            if not verdict.right:
                for said in (verdict.mistake or "differs from all known mistakes").split("; "):
                    found.setdefault(said, []).append(verdict.name)
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the marks as JSON has them."""
        arrays = [asdict(verdict) for verdict in self.verdicts]
        return {"arrays": arrays, "right": self.right, "of": SIX, "error": self.error}


SIX = 6  # gradients


def arguments() -> list[dict[str, Any]]:
    """Return the arguments of `backward` for each network, by name."""
    from charrnn.lecture.exercise import networks
    from charrnn.lecture.rnn import forward
    from charrnn.lecture.runner import ORDER

    calls = []
    for net in networks():
        h, y_hat = forward(net)
        known = {"h": h, "y_hat": y_hat}
        calls.append({n: known[n] if n in known else getattr(net, n) for n in ORDER})
    return calls


def marks_of(path: Path) -> Marks:
    """Return the marks of one file, which is run in a process of its own."""
    from charrnn.lecture.exercise import mark
    from charrnn.lecture.runner import run

    found = run(path, arguments())
    if "error" in found:
        return Marks(path, (), found["error"])
    return Marks(path, mark(found["answers"]))


def show(path: Path, *, hints: bool, json: bool) -> None:
    """Print the marks of a file, or of a folder's. Raises CharRNNError unless all are right."""
    if not path.exists():
        raise CharRNNError(f"{path}: no such file; charrnn gradcheck --exercise {path} writes it")
    if path.is_dir():
        _show_class([marks_of(file) for file in sorted(path.glob("*.py"))], path, json=json)
        return
    marks = marks_of(path)
    if json:
        print_json(marks.as_json())
    if marks.error is not None:
        raise CharRNNError(f"{path}: {marks.error}")
    if not json:
        _show_marks(marks)
    if marks.right < SIX:
        from charrnn.lecture.exercise import hint

        if hints and not json:
            print(f"Look at: {hint(marks.verdicts)}")
        raise CharRNNError(f"{path}: {marks.right} of {SIX} gradients are right")


def symbol(name: str) -> str:
    """Return a gradient as the lecture writes it."""
    return "∂L/∂h_{−1}" if name == "h_before" else f"∂L/∂{name}"


def _show_marks(marks: Marks) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("gradient", "", "distance"):
        table.add_column(title)
    for verdict in marks.verdicts:
        mark = "right" if verdict.right else "wrong"
        distance = "-" if verdict.distance is None else f"{verdict.distance:.1e}"
        table.add_row(symbol(verdict.name), mark, distance, style="" if verdict.right else "red")
    screen = console()
    screen.print(table)
    for said, names in marks.causes.items():
        screen.print(f"{', '.join(map(symbol, names))}: {said}", soft_wrap=True)


def _show_class(all_marks: list[Marks], folder: Path, *, json: bool) -> None:
    """Print a row for each file of a folder, and which mistakes were commonest."""
    from rich.table import Table

    if not all_marks:
        raise CharRNNError(f"{folder}: there is no .py file in this folder")
    if json:
        for marks in all_marks:
            print_json({"file": marks.path.name, **marks.as_json()})
    else:
        table = Table(box=None, pad_edge=False)
        for title in ("file", "right", "mistakes"):
            table.add_column(title, overflow="fold")
        for marks in all_marks:
            said = marks.error.splitlines()[-1] if marks.error else "; ".join(marks.causes)
            table.add_row(marks.path.name, f"{marks.right} of {SIX}", said)
        screen = console()
        screen.print(table)
        common = Counter(said for marks in all_marks for said in marks.causes)
        for said, count in common.most_common(3):
            screen.print(f"{count} of {len(all_marks)}: {said}", soft_wrap=True)
    unfinished = sum(marks.right < SIX for marks in all_marks)
    if unfinished:
        raise CharRNNError(f"{folder}: {unfinished} of {len(all_marks)} files are not all right")
