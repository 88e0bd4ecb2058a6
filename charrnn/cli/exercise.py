"""`charrnn gradcheck --exercise` and `--mine`: a backward pass to write, and its marks."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn.cli.terminal import console, print_json, say, visible
from charrnn.errors import CharRNNError

if TYPE_CHECKING:
    from charrnn.lecture.exercise import Verdict


def write(path: Path) -> None:
    """Write the exercise to a new file. Raises CharRNNError if there is one already."""
    from charrnn.checkpoint.atomic_write import atomic_write, check_writable
    from charrnn.lecture.exercise import template
    from charrnn.training.reproduce import joined

    if path.exists():
        raise CharRNNError(f"{path}: this file exists and is kept; choose another name")
    check_writable(path)
    with atomic_write(path) as file:
        file.write(template().replace("my_rnn.py", str(path)).encode())
    mark = joined(["charrnn", "gradcheck", "--mine", str(path)])
    say(f"Fill in backward in {path}, then: {mark}")


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

    calls = []
    for net in networks():
        h, y_hat = forward(net)
        calls.append({**vars(net), "h": h, "y_hat": y_hat})
    return calls


def marks_of(path: Path) -> Marks:
    """Return the marks of one file, which is run in a process of its own."""
    from charrnn.lecture.exercise import mark
    from charrnn.lecture.runner import run

    found = run(path, arguments())
    if "error" in found:
        return Marks(path, (), found["error"])
    if not found["forward"]:
        say(f"{path}: forward is changed; backward is marked with the lecture's h and y_hat")
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
        *lines, last = marks.error.splitlines()
        for line in lines:
            say(line)
        raise CharRNNError(f"{path}: {last}")
    result = f"{marks.right} of {SIX} gradients are right"
    if not json:
        _show_marks(marks, hints)
    if marks.right < SIX:
        raise CharRNNError(f"{path}: {result}")
    if not json:
        print(result)


def symbol(name: str) -> str:
    """Return a gradient as the lecture writes it."""
    return "∂L/∂h_{−1}" if name == "h_before" else f"∂L/∂{name}"


def _show_marks(marks: Marks, hints: bool) -> None:
    from rich.table import Table

    from charrnn.lecture.exercise import hint

    table = Table(box=None, pad_edge=False)
    for title in ("gradient", "", "distance"):
        table.add_column(title)
    for verdict in marks.verdicts:
        mark = "right" if verdict.right else "wrong"
        distance = "-" if verdict.distance is None else f"{verdict.distance:.1e}"
        table.add_row(symbol(verdict.name), mark, distance, style="" if verdict.right else "red")
    screen = console()
    screen.print(table)
    screen.print("distance: ‖yours − numeric‖ / ‖numeric‖, by differences of L; right up to 1e-5")
    for said, names in marks.causes.items():
        of = ", ".join(map(symbol, names))
        screen.print(f"{of}: {said.removeprefix(of).lstrip(': ')}")
    if hints and marks.causes:
        screen.print(f"Look at: {hint(marks.verdicts)}")


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
            error = "\n".join((marks.error or "").splitlines()[-2:])
            said = visible(error, lines=True) or "; ".join(marks.causes)
            table.add_row(marks.path.name, f"{marks.right} of {SIX}", said)
        screen = console()
        screen.print(table)
        common = Counter(said for marks in all_marks for said in marks.causes)
        for said, count in common.most_common(3):
            screen.print(f"{count} of {len(all_marks)} files: {said}")
    unfinished = sum(marks.right < SIX for marks in all_marks)
    if unfinished:
        raise CharRNNError(f"{folder}: {unfinished} of {len(all_marks)} files are not all right")
