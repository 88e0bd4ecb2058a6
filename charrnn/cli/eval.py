"""`charrnn eval`: how well a model predicts texts, and where it is surprised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from charrnn.checkpoint.atomic_write import atomic_write, check_writable, part_of
from charrnn.cli.options import (
    OUTPUT,
    Debug,
    Json,
    ModelPath,
    option,
    switch,
    unknown_option,
)
from charrnn.cli.stream import Stream
from charrnn.cli.terminal import console, print_json, say, visible
from charrnn.config import check
from charrnn.errors import CharRNNError, CorpusError, UsageError, VocabularyError
from charrnn.pictures import heatmap
from charrnn.pictures.colormap import SURPRISE, Colormap, activation
from charrnn.pictures.heatmap import Heat, Painter

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.sampling.scoring import Score, Unknown

READING, LINES, PICTURES = "How the text is read", "Line by line", "Pictures"
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
    each: Annotated[
        bool, switch("--each", LINES, "Score each line as it is read: nats, a tab, the line.")
    ] = False,
    above: Annotated[
        float | None,
        option("--above", LINES, "With --each: only lines with more nats per character.", "X"),
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
    if above is not None and not each:
        raise UsageError("--above is for single lines; add --each")
    others = {"--heat": heat, "--worst": worst, "--svg": svg, "--html": html, "--values": values}
    clash = next((name for name, given in others.items() if given), None)
    if each and (clash or unit is not None or streams > 1):
        raise UsageError(f"--each writes lines; leave out {clash or '--unit and --streams'}")
    _check_pictures(svg, html, (model, *texts))
    from charrnn.checkpoint.model import load

    opened = load(model)
    if each:
        from charrnn.cli.each import write_each

        for path in texts:
            write_each(opened, path, encoding, unknown, above, json=json)
        return
    check("--unit", unit, least=0, most=opened.config.hidden - 1)
    seen = Evaluation(opened, unit, worst or 0)
    for path in texts:
        name = "standard input" if path == "-" else path
        seen.add(name, _score(opened, name, path, encoding, streams, unknown))
    if svg or html:
        names = ", ".join(Path(text.facts["text"]).name for text in seen.texts)
        seen.save(svg, html, visible(f"{Path(model).name} reads {names}"))
    if json:
        print_json(seen.as_json(values))
    else:
        if heat or (unit is not None and not (svg or html)):
            seen.show_heat()
        elif worst:
            seen.show_lines()
        seen.show_table()


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


def _score(
    model: Model, name: str, path: str, encoding: str | None, streams: int, unknown: Unknown
) -> Score:
    """Return the score of the text at a path. What was changed while reading is said."""
    from charrnn.blas import blas_threads
    from charrnn.sampling.scoring import score
    from charrnn.text.corpus import read_text

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
            return score(model, text, streams=streams, unknown=unknown)
    except (CorpusError, VocabularyError) as error:
        raise type(error)(f"{name}: {error}") from None


class Passage(NamedTuple):
    """A text, or one of its lines: what the JSON says of it, and its picture."""

    facts: dict[str, Any]
    heat: Heat


@dataclass(eq=False)
class Evaluation:
    """What was measured of some texts, and what of it is to be shown."""

    model: Model
    unit: int | None
    worst: int  # lines
    scores: list[Score] = field(default_factory=list)
    texts: list[Passage] = field(default_factory=list)
    lines: list[Passage] = field(default_factory=list)  # the most surprising, the worst first

    def add(self, name: str, score: Score) -> None:
        """Take a text, and its most surprising lines."""
        from charrnn.sampling.scoring import Score, activations

        values = score.surprise[: len(score.text)]
        if self.unit is not None:
            values = activations(self.model, score.text, self.unit)
        self.scores.append(score)
        heat = Heat(name, score.text, values, score.summary)
        self.texts.append(Passage({"text": name, **_figures(score)}, heat))
        for number, part in score.worst(self.worst) if self.worst else ():
            line = Score(score.text[part], score.surprise[part])
            content = line.text.rstrip("\n")
            facts = {"text": name, "line": number, "bpc": line.bpc, "content": content}
            summary = f"{line.bpc:.2f} bits per character"
            heat = Heat(f"{name}, line {number}", line.text, values[part], summary)
            self.lines.append(Passage(facts, heat))
        self.lines = sorted(self.lines, key=lambda line: -line.facts["bpc"])[: self.worst]

    @cached_property
    def total(self) -> Score:
        """All texts together."""
        import numpy as np

        from charrnn.sampling.scoring import Score

        if len(self.scores) == 1:
            return self.scores[0]
        nats = np.concatenate([score.nats for score in self.scores])
        return Score("", nats, sum(score.unknown for score in self.scores))

    @property
    def colormap(self) -> Colormap:
        """What is coloured."""
        return SURPRISE if self.unit is None else activation(self.unit)

    def as_json(self, values: bool) -> dict[str, Any]:
        """Return all figures; values: those of each character too."""
        texts = [
            {**text.facts, "values": text.heat.values} if values else text.facts
            for text in self.texts
        ]
        floor = {"floor_nats": self.model.floor_nats, "floor_order": self.model.floor_order}
        result = {**_figures(self.total), **floor, "texts": texts}
        return {**result, "worst": [line.facts for line in self.lines]} if self.worst else result

    def save(self, svg: str | None, html: str | None, title: str) -> None:
        """Write the pictures that were asked for."""
        total = self.total.summary if len(self.scores) > 1 else ""
        about = [line for line in (total, _floor(self.model)) if line]
        heats = [passage.heat for passage in self.lines + self.texts]
        for path, drawn in ((svg, heatmap.svg), (html, heatmap.html)):
            if path:
                with atomic_write(path) as file:
                    for piece in drawn(heats, self.colormap, title=title, about=about):
                        file.write(piece.encode("utf-8", "backslashreplace"))
                say(f"wrote {path}")

    def show_heat(self) -> None:
        """Print the lines, or the texts, in colours."""
        painter = Painter(self.colormap, console())
        with Stream() as stream:
            stream.raw(painter.legend() + "\n")
            for _, heat in self.lines or self.texts:
                if self.lines or len(self.texts) > 1:
                    stream.raw(f"{visible(heat.name)}\n{heat.summary}\n")
                for row in painter.paint(heat.text, heat.values):
                    stream.raw(row)
                stream.raw("\n")

    def show_lines(self) -> None:
        """Print the lines."""
        for facts, heat in self.lines:
            print(f"{visible(heat.name)}, {heat.summary}\n    {visible(facts['content'])}")
        print()

    def show_table(self) -> None:
        """Print the figures of each text and of all."""
        from rich.table import Column, Table

        names = ("characters", "unknown", "nats", "bits", "perplexity")
        numbers = [Column(name, justify="right", no_wrap=True) for name in names]
        table = Table(Column("text", overflow="fold"), *numbers, box=None, pad_edge=False)
        total = {"text": "total", **_figures(self.total)}
        rows = [text.facts for text in self.texts]
        for f in [*rows, total] if len(rows) > 1 else rows:
            counts = f"{f['characters']:,}", f"{f['unknown']:,}"
            means = f"{f['nats']:.4f}", f"{f['bpc']:.4f}", f"{f['perplexity']:.3f}"
            table.add_row(visible(f["text"]), *counts, *means)
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
