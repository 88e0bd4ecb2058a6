"""`charrnn eval`: how well a model predicts texts, and where it is surprised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from charrnn.cli.options import (
    OUTPUT,
    Debug,
    Json,
    ModelPath,
    check_together,
    option,
    read,
    switch,
    unknown_option,
)
from charrnn.cli.terminal import Stream, console, print_json, say, visible
from charrnn.config import Unknown, check, check_stdin_once
from charrnn.errors import CorpusError, UsageError, VocabularyError
from charrnn.pictures.colormap import SURPRISE, activation

if TYPE_CHECKING:
    from charrnn.arrays import Array
    from charrnn.checkpoint.model import Model
    from charrnn.pictures.heatmap import Heat
    from charrnn.sampling.scoring import Score

READING, LINES, PICTURES = "How the text is read", "Line by line", "Pictures"
CLASHES = {"each": ("heat", "worst", "unit", "streams", "svg", "html", "values")}
SLOW = 200_000  # characters above which one stream takes some time


def evaluate(
    context: typer.Context,
    model: ModelPath,
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT",
            help="Files or folders to read, or - for standard input.",
            show_default=False,
        ),
    ],
    streams: Annotated[
        int,
        option("--streams", READING, "Read each text as N parallel streams, which is faster.", "N"),
    ] = 1,
    unknown: Annotated[Unknown, unknown_option(READING)] = "error",
    encoding: Annotated[
        str | None,
        option(
            "--encoding",
            READING,
            r"Encoding of the texts. \[default: utf-8]",
            "NAME",
            show_default=False,
        ),
    ] = None,
    each: Annotated[
        bool, switch("--each", LINES, "Score each line as it is read: nats, a tab, the line.")
    ] = False,
    above: Annotated[
        float | None,
        option("--above", LINES, "With --each: show only lines above X nats per character.", "X"),
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
        option("--unit", PICTURES, "Colour by hidden unit K of the top layer, not surprise.", "K"),
    ] = None,
    svg: Annotated[
        str | None, option("--svg", PICTURES, "Save the picture as SVG.", "PATH")
    ] = None,
    html: Annotated[
        str | None,
        option("--html", PICTURES, "Save the picture as an HTML page with all values.", "PATH"),
    ] = None,
    overwrite: Annotated[
        bool, switch("--overwrite", PICTURES, "Replace the files of --svg and --html.")
    ] = False,
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
    check_together(context, CLASHES)
    check_stdin_once(texts)
    if values and not json:
        raise UsageError("--values go into the JSON; add --json")
    if above is not None and not each:
        raise UsageError("--above is for single lines; add --each")
    from charrnn.checkpoint.atomic_write import check_writable
    from charrnn.checkpoint.model import load

    used = [model, *texts]
    for picture in filter(None, (svg, html)):
        check_writable(picture, used, overwrite=overwrite)
        used.append(picture)
    opened = load(model)
    if each:
        from charrnn.cli.each import write_each

        for path in texts:
            write_each(opened, path, encoding, unknown, above, json=json)
        return
    check("--unit", unit, least=0, most=opened.config.hidden - 1)
    seen = Evaluation(opened, unit, worst or 0)
    for path in texts:
        seen.add(path, encoding, streams, unknown)
    if svg or html:
        names = ", ".join(Path(passage.name).name for passage in seen.texts)
        seen.save(svg, html, f"{Path(model).name} reads {names}")
    if json:
        print_json(seen.as_json(values))
        return
    if heat or (unit is not None and not (svg or html)):
        seen.show_heat()
    elif worst:
        seen.show_lines()
    seen.show_table()


class Passage(NamedTuple):
    """A text or one of its lines, with a value to show for each character."""

    name: str  # of the text
    line: int  # its number, 0 for the whole text
    score: Score
    values: Array

    @property
    def heat(self) -> Heat:
        """The picture of the passage."""
        from charrnn.pictures.heatmap import Heat

        name = f"{self.name}, line {self.line}" if self.line else self.name
        return Heat(name, self.score.text, self.values, self.score.summary)


class Evaluation:
    """The scores of some texts, and the ways to show them."""

    def __init__(self, model: Model, unit: int | None, worst: int) -> None:
        self.model, self.unit, self.worst = model, unit, worst
        self.colormap = SURPRISE if unit is None else activation(unit)
        self.texts: list[Passage] = []
        self.lines: list[Passage] = []  # the most surprising, the worst first

    def add(self, path: str, encoding: str | None, streams: int, unknown: Unknown) -> None:
        """Read a text, score it, and keep its most surprising lines."""
        from charrnn.sampling.scoring import Score, activations, score

        name, text = "standard input" if path == "-" else path, read(path, encoding)
        if len(text) > SLOW and streams == 1 and not self.model.of_lines:
            say(
                f"reading {len(text):,} characters as one stream; --streams 64 is much faster and "
                "costs next to no accuracy"
            )
        try:
            found = score(self.model, text, streams=streams, unknown=unknown)
        except (CorpusError, VocabularyError) as error:
            raise type(error)(f"{name}: {error}") from None
        values = found.surprise[: len(text)]
        if self.unit is not None:
            values = activations(self.model, text, self.unit)
        self.texts.append(Passage(name, 0, found, values))
        for number, place in found.worst(self.worst):
            line = Score(text[place], found.surprise[place])
            self.lines.append(Passage(name, number, line, values[place]))
        self.lines = sorted(self.lines, key=lambda line: -line.score.mean)[: self.worst]

    @property
    def total(self) -> Score:
        """The score of all texts together."""
        import numpy as np

        from charrnn.sampling.scoring import Score

        scores = [passage.score for passage in self.texts]
        surprise = np.concatenate([score.surprise for score in scores])
        return Score("", surprise, sum(score.unknown for score in scores))

    def as_json(self, values: bool) -> dict[str, Any]:
        """Return all figures; values: also the value of each character."""
        facts = self.total.as_dict() | {
            "floor_nats": self.model.floor_nats,
            "floor_order": self.model.floor_order,
            "texts": [
                {"text": name, **score.as_dict(), **({"values": shown} if values else {})}
                for name, _, score, shown in self.texts
            ],
        }
        if self.worst:
            facts["worst"] = [
                {"text": name, "line": line, "bpc": score.bpc, "content": score.text.rstrip("\n")}
                for name, line, score, _ in self.lines
            ]
        return facts

    def save(self, svg: str | None, html: str | None, title: str) -> None:
        """Write the pictures that were asked for."""
        from charrnn.checkpoint.atomic_write import atomic_write
        from charrnn.pictures import heatmap

        about = [self.total.summary] if len(self.texts) > 1 else []
        heats = [passage.heat for passage in self.lines + self.texts]
        for path, drawn in ((svg, heatmap.svg), (html, heatmap.html)):
            if path:
                pieces = drawn(heats, self.colormap, title=title, about=about + _floor(self.model))
                with atomic_write(path) as file:
                    file.writelines(piece.encode("utf-8", "backslashreplace") for piece in pieces)
                say(f"wrote {path}")

    def show_heat(self) -> None:
        """Print the most surprising lines, or else the texts, in colours."""
        from charrnn.pictures.heatmap import Painter

        painter = Painter(self.colormap, console())
        with Stream() as stream:
            stream.raw(painter.legend() + "\n")
            for passage in self.lines or self.texts:
                heat = passage.heat
                if self.lines or len(self.texts) > 1:
                    stream.raw(f"{visible(heat.name)}\n{heat.summary}\n")
                for row in painter.paint(heat.text, heat.values):
                    stream.raw(row)
                stream.raw("\n")

    def show_lines(self) -> None:
        """Print the most surprising lines."""
        for line in self.lines:
            heat = line.heat
            content = visible(heat.text.rstrip("\n"))
            print(f"{visible(heat.name)}, {heat.summary}\n    {content}")
        print()

    def show_table(self) -> None:
        """Print the figures of each text, and of all together."""
        print("  characters   unknown      nats      bits  perplexity  text")
        rows = [(name, score) for name, _, score, _ in self.texts]
        if len(rows) > 1:
            rows.append(("total", self.total))
        for name, score in rows:
            counts = f"{score.characters:12,}{score.unknown:10,}"
            means = f"{score.mean:10.4f}{score.bpc:10.4f}{score.perplexity:12.3f}"
            print(f"{counts}{means}  {visible(name)}")
        for floor in _floor(self.model):
            print(floor)


def _floor(model: Model) -> list[str]:
    """Return a line about the training run's n-gram floor, if the model records it."""
    from charrnn.cli.facts import floor

    reached = floor(model)
    what = "for comparison, the n-gram floor on the training run's validation text"
    return [f"{what}: {reached}"] if reached else []
