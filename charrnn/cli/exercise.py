"""`charrnn gradcheck --exercise` and `--mine`: a backward pass to write, and its marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn.cli.terminal import console, print_json, say, visible
from charrnn.errors import CharRNNError, UsageError

if TYPE_CHECKING:
    from charrnn.lecture.exercise import Verdict

SIX = 6  # gradients


def write(path: Path) -> None:
    """Write the exercise to a new file. Raises CharRNNError if there is one already."""
    from charrnn.checkpoint.atomic_write import atomic_write, check_writable
    from charrnn.lecture.exercise import template
    from charrnn.training.reproduce import joined

    check_writable(path, overwrite=False, remedy="choose another name")
    mark = joined(["charrnn", "gradcheck", "--mine", str(path)])
    with atomic_write(path) as file:
        file.write(template().replace("charrnn gradcheck --mine my_rnn.py", mark).encode())
    say(f"Fill in backward in {path}, then: {mark}")


@dataclass(frozen=True)
class Marks:
    """The marks of a learner's file, with the fields that --json prints."""

    file: str
    arrays: Sequence[Verdict] = ()
    hint: str | None = None  # what to look at
    error: str | None = None  # why it could not be run

    @property
    def right(self) -> int:
        """How many gradients are right."""
        return sum(verdict.right for verdict in self.arrays)

    @property
    def causes(self) -> dict[str, list[str]]:
        """For each mistake's message, the gradients that the mistake makes wrong."""
        found: dict[str, list[str]] = {}
        for verdict in self.arrays:
            if not verdict.right:
                for said in (verdict.mistake or "no known mistake").split("; "):
                    found.setdefault(said, []).append(symbol(verdict.name))
        return found

    @property
    def result(self) -> str:
        """The marks in one line."""
        return (self.error or f"{self.right} of {SIX} gradients are right").splitlines()[-1]


def marks_of(path: Path) -> Marks:
    """Return the marks of one file, which is run in a separate process."""
    from charrnn.lecture.exercise import arguments, hint, mark, networks
    from charrnn.lecture.runner import run

    found = run(path, [*map(arguments, networks())])
    if "error" in found:
        return Marks(path.name, error=found["error"])
    verdicts = mark(found["answers"])
    return Marks(path.name, verdicts, hint(verdicts))


def show(path: Path, *, hints: bool, json: bool) -> None:
    """Print the marks of a file or a folder's files. Raises CharRNNError unless all are right."""
    if not path.exists():
        raise CharRNNError(f"{path}: no such file; charrnn gradcheck --exercise {path} writes it")
    of_class = path.is_dir()
    if hints and of_class:
        raise UsageError("--hint is for a single file; give one instead of a folder")
    files = sorted(path.glob("*.py")) if of_class else [path]
    if not files:
        raise CharRNNError(f"{path}: there is no .py file in this folder")
    all_marks = [*map(marks_of, files)]
    finished = sum(marks.right == SIX for marks in all_marks)
    result = all_marks[0].result
    if of_class:
        result = f"{finished} of {len(files)} files have all {SIX} gradients right"
    if json:
        for marks in all_marks:
            print_json(asdict(marks) | {"right": marks.right, "of": SIX})
    elif of_class:
        _show_class(all_marks)
    else:
        _show_marks(all_marks[0], hints)
    if finished < len(files):
        raise CharRNNError(f"{path}: {result}")
    if not json:
        print(result)


def symbol(name: str) -> str:
    """Return a gradient as the lecture writes it."""
    return "∂L/∂h_{−1}" if name == "h_before" else f"∂L/∂{name}"


def _show_marks(marks: Marks, hints: bool) -> None:
    """Print a row for each gradient, what is wrong, and where to look."""
    from rich.table import Table

    if marks.error:
        for line in marks.error.splitlines()[:-1]:
            say(line)
        return
    table = Table("gradient", "", "distance", box=None, pad_edge=False)
    for verdict in marks.arrays:
        mark, style = ("right", "") if verdict.right else ("wrong", "red")
        distance = "-" if verdict.distance is None else f"{verdict.distance:.1e}"
        table.add_row(symbol(verdict.name), mark, distance, style=style)
    screen = console()
    screen.print(table)
    screen.print("distance: ‖yours − numeric‖ / ‖numeric‖, numeric: by central differences")
    for said, names in marks.causes.items():
        of = ", ".join(names)
        screen.print(f"{of}: {said.removeprefix(of).lstrip(': ')}")
    if hints and marks.hint:
        screen.print(f"Look at: {marks.hint}")


def _show_class(all_marks: Sequence[Marks]) -> None:
    """Print a row for each file, and the commonest mistakes."""
    from rich.table import Table

    table = Table("file", "right", "mistakes", box=None, pad_edge=False)
    for marks in all_marks:
        said = "\n".join(marks.error.splitlines()[-2:]) if marks.error else "; ".join(marks.causes)
        table.add_row(marks.file, f"{marks.right} of {SIX}", visible(said, lines=True))
    screen = console()
    screen.print(table)
    common = Counter(said for marks in all_marks for said in marks.causes)
    for said, count in common.most_common(3):
        screen.print(f"{count} of {len(all_marks)} files: {said}")
