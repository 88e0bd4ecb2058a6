"""`charrnn eval`: how well a model predicts texts, and where it is surprised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from charrnn.checkpoint.atomic_write import check_writable, part_of
from charrnn.cli.options import (
    OUTPUT,
    Debug,
    Json,
    ModelPath,
    option,
    switch,
    unknown_option,
)
from charrnn.cli.terminal import console, print_json, say, visible
from charrnn.config import check
from charrnn.errors import CharRNNError, CorpusError, UsageError, VocabularyError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from charrnn.checkpoint.model import Model
    from charrnn.pictures.colormap import Colormap
    from charrnn.pictures.heatmap import Heat
    from charrnn.sampling.scoring import Score, Unknown

READING, PICTURES = "How the text is read", "Pictures"
MOST = 100_000_000  # characters of one text; a small archive may hold any number of them
SLOW = 200_000  # characters above which one stream takes some time


def evaluate(
    model: ModelPath,
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT", help="Files or folders to read; -: standard input.", show_default=False
        ),
    ],
    streams: Annotated[
        int,
        option("--streams", READING, "Cut each text into N streams from zero states: faster.", "N"),
    ] = 1,
    unknown: Annotated[Literal["error", "skip", "score"], unknown_option(READING)] = "error",
    encoding: Annotated[
        str | None,
        option("--encoding", READING, "Of the texts.", "NAME", show_default="utf-8"),
    ] = None,
    heat: Annotated[
        bool, switch("--heat", PICTURES, "Colour each character by its surprise, in bits.")
    ] = False,
    worst: Annotated[
        int | None,
        option("--worst", PICTURES, "Show the N most surprising lines, the worst first.", "N"),
    ] = None,
    unit: Annotated[
        int | None,
        option("--unit", PICTURES, "Colour by hidden unit K of the top layer instead.", "K"),
    ] = None,
    svg: Annotated[
        str | None, option("--svg", PICTURES, "Save the picture as SVG.", "PATH")
    ] = None,
    html: Annotated[
        str | None,
        option("--html", PICTURES, "Save the picture as a page that shows all values.", "PATH"),
    ] = None,
    values: Annotated[
        bool, switch("--values", OUTPUT, "With --json: the value of each character too.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure how well a model predicts texts: nats, bits and perplexity per character.

    Example: charrnn eval model.npz hamlet.txt --heat
    """
    check("--streams", streams, least=1)
    check("--worst", worst, least=1)
    if values and not json:
        raise UsageError("--values are part of the JSON; add --json")
    if texts.count("-") > 1:
        raise UsageError("- is given more than once, and standard input can be read only once")
    _check_pictures(svg, html, (model, *texts))
    from charrnn.checkpoint.model import load
    from charrnn.pictures.colormap import SURPRISE, activation

    opened = load(model)
    check("--unit", unit, least=0, most=opened.config.hidden - 1)
    read = [_read(opened, path, unit, encoding, streams, unknown) for path in texts]
    colormap = SURPRISE if unit is None else activation(unit)
    seen = Evaluation(opened, colormap, read, worst or 0)
    if svg or html:
        names = ", ".join(Path(text.name).name for text in read)
        seen.save(svg, html, visible(f"{Path(model).name} reads {names}"))
    if json:
        print_json(seen.as_json(values))
    else:
        seen.show(heat or (unit is not None and not (svg or html)))


def _check_pictures(svg: str | None, html: str | None, read: Sequence[str]) -> None:
    """Raise CharRNNError unless each picture has a place apart from all that is read."""
    for path in filter(None, (svg, html)):
        if part_of(path, read) is not None:
            raise CharRNNError(
                f"{path}: the picture would be written over what is read; choose another name"
            )
        check_writable(path)
    if svg and html and part_of(svg, [html]) is not None:
        raise UsageError(f"--svg and --html are both {svg}; give them different names")


class Text(NamedTuple):
    """A text, or one of its lines, and what colours its characters: nats, or activations."""

    name: str
    score: Score
    values: NDArray[Any]
    line: int | None = None

    @property
    def heat(self) -> Heat:
        """What a picture shows of it."""
        from charrnn.pictures.heatmap import Heat

        if self.line is None:
            return Heat(self.name, self.score.text, self.values, self.score.summary)
        summary = f"{self.score.bpc:.2f} bits per character"
        return Heat(f"{self.name}, line {self.line}", self.score.text, self.values, summary)


def _read(
    model: Model, path: str, unit: int | None, encoding: str | None, streams: int, unknown: Unknown
) -> Text:
    """Return the text at a path, read by the model. What was changed while reading is said."""
    from charrnn.blas import blas_threads
    from charrnn.sampling.scoring import activations, score
    from charrnn.text.corpus import read_text

    name = "standard input" if path == "-" else path
    text, notes = read_text(path, encoding=encoding, limit=MOST + 1)
    if len(text) > MOST:
        raise CorpusError(
            f"{name}: has more than {MOST:,} characters, which is more than is read at once; "
            "give it in pieces"
        )
    for note in notes:
        say(note)
    if len(text) > SLOW and streams == 1 and not model.of_lines:
        say(
            f"reading {len(text):,} characters as one stream; --streams 64 is much faster and "
            "costs next to no accuracy"
        )
    try:
        with blas_threads(1):  # steps are too short for several: they would only spin
            scored = score(model, text, streams=streams, unknown=unknown)
            if unit is not None:
                return Text(name, scored, activations(model, text, unit))
    except (CorpusError, VocabularyError) as error:
        raise type(error)(f"{name}: {error}") from None
    return Text(name, scored, scored.surprise[: len(text)])


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured, and what of it is to be shown."""

    model: Model
    colormap: Colormap
    texts: Sequence[Text]
    worst: int  # the number of lines

    @cached_property
    def lines(self) -> list[Text]:
        """The most surprising lines of all texts, the worst first."""
        from charrnn.sampling.scoring import Score

        lines = []
        for name, score, values, _ in self.texts if self.worst else ():
            for number, part in score.worst(self.worst):
                line = Score(score.text[part], score.surprise[part])
                lines.append(Text(name, line, values[part], number))
        return sorted(lines, key=lambda line: -line.score.mean)[: self.worst]

    @cached_property
    def total(self) -> Score:
        """All texts together."""
        import numpy as np

        from charrnn.sampling.scoring import Score

        scores = [text.score for text in self.texts]
        if len(scores) == 1:
            return scores[0]
        nats = np.concatenate([score.nats for score in scores])
        return Score("", nats, sum(score.unknown for score in scores))

    def as_json(self, values: bool) -> dict[str, Any]:
        """Return all figures; values: those of each character too."""
        floor = {"floor_nats": self.model.floor_nats, "floor_order": self.model.floor_order}
        texts = [
            {
                "text": text.name,
                **_figures(text.score),
                **({"values": text.values} if values else {}),
            }
            for text in self.texts
        ]
        lines = [
            {
                "text": line.name,
                "line": line.line,
                "bpc": line.score.bpc,
                "content": line.score.text.rstrip("\n"),
            }
            for line in self.lines
        ]
        result = {**_figures(self.total), **floor, "texts": texts}
        return {**result, "worst": lines} if self.worst else result

    def save(self, svg: str | None, html: str | None, title: str) -> None:
        """Write the pictures that were asked for."""
        from charrnn.checkpoint.atomic_write import atomic_write
        from charrnn.pictures import heatmap

        total = self.total.summary if len(self.texts) > 1 else ""
        about = [line for line in (total, _floor(self.model)) if line]
        heats = [text.heat for text in (*self.lines, *self.texts)]
        for path, drawn in ((svg, heatmap.svg), (html, heatmap.html)):
            if path:
                with atomic_write(path) as file:
                    for piece in drawn(heats, self.colormap, title=title, about=about):
                        file.write(piece.encode("utf-8", "backslashreplace"))
                say(f"wrote {path}")

    def show(self, heat: bool) -> None:
        """Print the pictures or the most surprising lines, and a table of all figures."""
        if heat:
            self._show_heat()
        elif self.worst:
            for line in self.lines:
                print(f"{visible(line.heat.name)}, {line.heat.summary}")
                print(f"    {visible(line.score.text.rstrip(chr(10)))}")
            print()
        self._show_table()

    def _show_heat(self) -> None:
        from charrnn.cli.stream import Stream
        from charrnn.pictures.heatmap import Painter

        painter = Painter(self.colormap, console())
        with Stream() as stream:
            stream.raw(painter.legend() + "\n")
            for text in self.lines or self.texts:
                if self.worst or len(self.texts) > 1:
                    stream.raw(f"{visible(text.heat.name)}\n{text.heat.summary}\n")
                for row in painter.paint(text.score.text, text.values):
                    stream.raw(row)
                stream.raw("\n")

    def _show_table(self) -> None:
        from rich.table import Column, Table

        names = ("characters", "unknown", "nats", "bits", "perplexity")
        numbers = [Column(name, justify="right", no_wrap=True) for name in names]
        table = Table(Column("text", overflow="fold"), *numbers, box=None, pad_edge=False)
        rows = [(text.name, text.score) for text in self.texts]
        for name, score in [*rows, ("total", self.total)] if len(rows) > 1 else rows:
            counts = f"{score.characters:,}", f"{score.unknown:,}"
            means = f"{score.mean:.4f}", f"{score.bpc:.4f}", f"{score.perplexity:.3f}"
            table.add_row(visible(name), *counts, *means)
        screen = console()
        screen.print(table)
        if floor := _floor(self.model):
            screen.print(floor, style="dim")


def _figures(score: Score) -> dict[str, Any]:
    """Return what was measured under the contract's names."""
    return {
        "nats": score.mean,
        "bpc": score.bpc,
        "perplexity": score.perplexity,
        "characters": score.characters,
        "unknown": score.unknown,
    }


def _floor(model: Model) -> str:
    """Return the training run's floor as a line; empty if it isn't known."""
    import numpy as np

    from charrnn.sampling.scoring import Score

    if model.floor_nats is None:
        return ""
    floor = Score("", np.array([model.floor_nats]))
    of_order = f" (order {model.floor_order})" if model.floor_order else ""
    return f"{floor}: the training run's n-gram floor{of_order}, on its own validation text"
