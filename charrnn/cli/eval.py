"""`charrnn eval`: how well a model predicts texts, and where it is surprised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.checkpoint.atomic_write import check_writable, part_of
from charrnn.cli.options import (
    OUTPUT,
    Debug,
    Json,
    ModelPath,
    UnknownChoice,
    unknown_option,
)
from charrnn.cli.pictures import Heat, Painter
from charrnn.cli.scales import SURPRISE, Scale, activation
from charrnn.cli.scoring import (
    Figures,
    Line,
    Scored,
    floor_of,
    lines_of,
    read,
    score_text,
    total,
    unit_values,
)
from charrnn.cli.terminal import console, print_json, say, visible
from charrnn.config import check
from charrnn.errors import CharRNNError, UsageError

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model

READING, PICTURES = "How the text is read", "Pictures"


def _option(name: str, panel: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(name, help=text, rich_help_panel=panel, metavar=metavar)


Texts = Annotated[
    list[str],
    typer.Argument(
        metavar="TEXT", help="Files or folders to read; -: standard input.", show_default=False
    ),
]
NumStreams = Annotated[
    int,
    _option(
        "--streams", READING, "Cut each text into N streams, each from a zero state: faster.", "N"
    ),
]
Unknown = Annotated[UnknownChoice, unknown_option(READING)]
Encoding = Annotated[str, _option("--encoding", READING, "Of the texts.", "NAME")]
WithHeat = Annotated[
    bool, _option("--heat", PICTURES, "Colour each character by its surprise, in bits.")
]
Worst = Annotated[
    int | None,
    _option("--worst", PICTURES, "Show the N most surprising lines, the worst first.", "N"),
]
Unit = Annotated[
    int | None,
    _option(
        "--unit",
        PICTURES,
        "Colour by the activation of hidden unit K of the top layer instead.",
        "K",
    ),
]
Svg = Annotated[str | None, _option("--svg", PICTURES, "Save the picture as SVG.", "PATH")]
Html = Annotated[
    str | None,
    _option("--html", PICTURES, "Save the picture as a page with each character's value.", "PATH"),
]
WithValues = Annotated[
    bool, _option("--values", OUTPUT, "With --json: the value of each character too.")
]


def evaluate(
    model: ModelPath,
    texts: Texts,
    streams: NumStreams = 1,
    unknown: Unknown = "error",
    encoding: Encoding = "utf-8",
    heat: WithHeat = False,
    worst: Worst = None,
    unit: Unit = None,
    svg: Svg = None,
    html: Html = None,
    values: WithValues = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure how well a model predicts texts: nats, bits and perplexity per character.

    Example: charrnn eval model.npz hamlet.txt --heat
    """
    _check(streams, unknown, worst, values and not json, texts)
    _check_pictures(svg, html, (model, *texts))
    from charrnn.checkpoint.model import load

    opened = load(model)
    check("--unit", unit, least=0, most=opened.config.hidden - 1)
    scored = [
        score_text(opened, *read(path, encoding), streams=streams, unknown=unknown)
        for path in texts
    ]
    seen = Seen(opened, model, scored, unit, worst)
    if svg or html:
        _save(seen, svg, html)
    if json:
        print_json(seen.as_json(values))
    else:
        _show(seen, heat or (unit is not None and not (svg or html)))


def _check(
    streams: int, unknown: str, worst: int | None, values_alone: bool, texts: Sequence[str]
) -> None:
    check("--streams", streams, least=1)
    check("--worst", worst, least=1)
    if values_alone:
        raise UsageError("--values are part of the JSON; add --json")
    if texts.count("-") > 1:
        raise UsageError("- is given more than once, and standard input can be read only once")


def _check_pictures(svg: str | None, html: str | None, read: Sequence[str]) -> None:
    """Raise CharRNNError unless each picture can be written to a file of its own, apart from all that is read."""
    for path in filter(None, (svg, html)):
        if part_of(path, read) is not None:
            raise CharRNNError(
                f"{path}: the picture would be written over what is read; choose another name"
            )
        check_writable(path)
    if svg and html and part_of(svg, [html]) is not None:
        raise UsageError(f"--svg and --html are both {svg}; give them different names")


@dataclass(frozen=True, eq=False)
class Seen:
    """All that was measured, and what of it is to be coloured."""

    model: Model
    path: str
    scored: Sequence[Scored]
    unit: int | None
    worst: int | None

    @property
    def total(self) -> Figures:
        """Return the figures of all texts together."""
        return total([text.figures for text in self.scored])

    @property
    def scale(self) -> Scale:
        """Return what is coloured."""
        return SURPRISE if self.unit is None else activation(self.unit)

    def values(self, text: Scored) -> list[float | None]:
        """Return what colours each character of a text."""
        return text.bits if self.unit is None else unit_values(self.model, text, self.unit)

    def worst_lines(self) -> list[Line]:
        """Return the lines that were asked for, the most surprising first."""
        lines = [line for text in self.scored for line in lines_of(text)]
        return sorted(lines, key=lambda line: -line.bits)[: self.worst] if self.worst else []

    def heats(self) -> list[Heat]:
        """Return each text with its values."""
        return [
            Heat(text.name, text.text, self.values(text), in_words(text.figures))
            for text in self.scored
        ]

    def worst_heats(self, heats: Sequence[Heat]) -> list[Heat]:
        """Return the worst lines, cut out of the texts."""
        whole = {heat.name: heat for heat in heats}
        return [
            Heat(
                f"{name}, line {number}",
                whole[name].text[start:stop],
                whole[name].values[start:stop],
                f"{bits:.2f} bits per character",
            )
            for name, number, bits, start, stop in self.worst_lines()
        ]

    def as_json(self, values: bool) -> dict[str, Any]:
        """Return all figures; values: those of each character too, in nats, or a unit's activation."""
        nats, order = floor_of(self.model)
        texts = []
        for text in self.scored:
            own: dict[str, Any] = {"text": text.name, **text.figures.as_json()}
            if values:
                own["values"] = text.nats if self.unit is None else self.values(text)
            texts.append(own)
        result = {**self.total.as_json(), "floor_nats": nats, "floor_order": order, "texts": texts}
        if self.worst:
            lines = {text.name: text.text for text in self.scored}
            result["worst"] = [
                {
                    "text": line.text,
                    "line": line.line,
                    "bpc": line.bits,
                    "content": lines[line.text][line.start : line.stop].rstrip("\n"),
                }
                for line in self.worst_lines()
            ]
        return result


def in_words(figures: Figures) -> str:
    """Return figures as a line."""
    f = figures.as_json()
    return f"{f['nats']:.4f} nats, {f['bpc']:.4f} bits, perplexity {f['perplexity']:.3f} per character over {f['characters']:,} characters"


def floor_in_words(model: Model) -> str:
    """Return the training run's floor as a line; empty if it isn't known."""
    nats, order = floor_of(model)
    if nats is None:
        return ""
    of_order = f" (order {order})" if order else ""
    f = Figures(nats, 1, 0).as_json()
    measures = f"{nats:.4f} nats, {f['bpc']:.4f} bits, perplexity {f['perplexity']:.3f}"
    return f"{measures}: the training run's n-gram floor{of_order}, on its own validation text"


def _save(seen: Seen, svg: str | None, html: str | None) -> None:
    """Write the pictures that were asked for."""
    from charrnn.checkpoint.atomic_write import atomic_write
    from charrnn.cli import documents

    heats = seen.heats()
    heats = seen.worst_heats(heats) + heats
    title = (
        f"{Path(seen.path).name} reads {', '.join(Path(text.name).name for text in seen.scored)}"
    )
    about = [
        line
        for line in (
            in_words(seen.total) if len(seen.scored) > 1 else "",
            floor_in_words(seen.model),
        )
        if line
    ]
    for path, pieces in ((svg, documents.svg), (html, documents.html)):
        if path:
            with atomic_write(path) as file:
                drawn = pieces(heats, seen.scale, title=visible(title), about=about)
                file.writelines(piece.encode("utf-8", "backslashreplace") for piece in drawn)
            say(f"wrote {path}")


def _show(seen: Seen, heat: bool) -> None:
    """Print the table, and the pictures or the worst lines, on stdout."""
    from charrnn.cli.stream import Stream

    if heat:
        painter = Painter(seen.scale, console())
        with Stream() as stream:
            for piece in _painted(seen, painter):
                stream.raw(piece)
    elif seen.worst:
        for heated in seen.worst_heats(seen.heats()):
            print(f"{visible(heated.name)}, {heated.summary}")
            print(f"    {visible(heated.text.rstrip(chr(10)))}")
        print()
    _table(seen)


def _painted(seen: Seen, painter: Painter) -> Iterator[str]:
    yield painter.legend() + "\n"
    heats = seen.heats()
    chosen = seen.worst_heats(heats) if seen.worst else heats
    for heat in chosen:
        if len(chosen) > 1 or seen.worst:
            yield f"{visible(heat.name)}\n{heat.summary}\n"
        yield from painter.paint(heat.text, heat.values)
        yield "\n"


def _table(seen: Seen) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("text", overflow="fold")
    for name in ("characters", "unknown", "nats", "bits", "perplexity"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [(text.name, text.figures) for text in seen.scored]
    for name, figures in [*rows, *([("total", seen.total)] if len(rows) > 1 else [])]:
        f = figures.as_json()
        table.add_row(
            Text(visible(name)),
            f"{f['characters']:,}",
            f"{f['unknown']:,}",
            f"{f['nats']:.4f}",
            f"{f['bpc']:.4f}",
            f"{f['perplexity']:.3f}",
        )
    screen = console()
    screen.print(table)
    words = floor_in_words(seen.model)
    if words:
        screen.print(words, style="dim")
