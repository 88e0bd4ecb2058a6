"""What several commands say about a network and its run: facts by label, and the learning curve."""

from __future__ import annotations

import math
from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING

from charrnn.cli.terminal import counted
from charrnn.pictures.heatmap import symbol
from charrnn.training.reproduce import command

if TYPE_CHECKING:
    from rich.console import Console

    from charrnn.checkpoint.model import Model
    from charrnn.config import ModelConfig
    from charrnn.training.events import Start

WIDEST, MARGIN = 100, 8  # most columns of the curve with its scale, and columns of the scale
LINES = ("╌ n-gram floor", "· training", "─ validation")  # of the curve, the last one on top
IN_ASCII = str.maketrans("─│·╌┤┴", "-|.=||")


def facts(model: Model, most: int = 60) -> dict[str, str]:
    """Return the facts about a model by label, with at most `most` columns of vocabulary."""
    characters = model.vocabulary.characters
    shown = _shortened("".join(map(symbol, characters[:most])), most)
    val, least = model.val_loss, model.floor_nats
    above = val is not None and least is not None and val > least
    found = {
        "network": [network(model.config, model.parameters.flat.size)],
        "characters": [f"{len(characters)}: {shown}"],
        "trained on": [
            _shortened(", ".join(model.corpus_names), 60),
            counted(model.corpus_characters, "character"),
            "each line an item" * model.of_lines,
        ],
        "made by": [command(model, model.corpus_names)],
        "validation": [loss(val), "above the floor: counting does better" * above],
        "n-gram floor": [floor(model)],
        "uniform": [f"{loss(math.log(len(characters)))} (guessing at random)"],
        "training": [loss(model.train_loss)],
        "time": [
            "" if model.seconds is None else duration(model.seconds),
            counted(model.step, "step"),
            counted(model.epochs, "epoch"),
            f"{model.chars_per_second:,.0f} characters/s" if model.chars_per_second else "",
        ],
    }
    return {label: ", ".join(filter(None, parts)) for label, parts in found.items()}


def beginning(start: Start) -> dict[str, str]:
    """Return the facts about a run at its start, by label."""
    parts = [
        network(start, start.params),
        counted(start.workers, "worker") * (start.workers > 1),
        counted(start.ranks, "rank") * (start.ranks > 1),
        f"from step {start.first_step:,} on" * (start.first_step > 0),
    ]
    characters = counted(start.corpus_characters, "character")
    return {
        "text": f"{characters}, {start.vocabulary_size:,} distinct",
        "network": ", ".join(filter(None, parts)),
        "n-gram floor": floor(start),
    }


def duration(seconds: float) -> str:
    """Return a duration as 01:15, 2:01:15 or 3 days, 2:01:15."""
    whole = timedelta(seconds=round(max(0.0, min(seconds, 1e13))))  # timedelta ends at 8.6e13 s
    return str(whole).removeprefix("0:")


def network(shape: ModelConfig | Start, params: int) -> str:
    """Return a network's shape: "lstm, 1 layer of 128 units, 99,999 parameters"."""
    layers, units = counted(shape.layers, "layer"), counted(shape.hidden, "unit")
    return f"{shape.cell}, {layers} of {units}, {counted(params, 'parameter')}"


def loss(nats: float | None) -> str:
    """Return a loss in nats and in bits, empty for None."""
    return "" if nats is None else f"{nats:.3f} nats = {nats / math.log(2):.3f} bits a character"


def floor(run: Model | Start) -> str:
    """Return the loss of the best n-gram model, empty if it wasn't counted."""
    known = run.floor_nats and run.floor_order
    return loss(run.floor_nats) + (f" (n-grams of order {run.floor_order})" if known else "")


def _shortened(text: str, most: int) -> str:
    return text if len(text) < most else f"{text[: most - 3]}..."


def curve(model: Model, height: int, screen: Console) -> str:
    """Return the learning curve as `height` lines, empty for fewer than two points or no losses."""
    import numpy as np

    points = sorted(model.curve, key=itemgetter(0))
    # step and the losses of LINES; None becomes NaN
    table = np.array([(step, model.floor_nats, *losses) for step, *losses in points], float)
    if len(points) < 2 or np.isnan(table[:, 2:]).all():
        return ""
    steps, losses = table[:, 0], table[:, 1:]
    top, bottom = np.nanmax(losses), np.nanmin(losses)
    columns, rows = max(10, min(screen.width - 1, WIDEST) - MARGIN), height - 3
    grid, names = np.full((rows, columns), " "), list[str]()
    for name, line in zip(LINES, losses.T, strict=True):
        known = ~np.isnan(line)
        if known.any():
            at = np.linspace(steps[0], steps[-1], columns)
            down = (top - np.interp(at, steps[known], line[known])) / (top - bottom or 1)
            grid[np.rint(down * (rows - 1)).astype(int), range(columns)] = name[0]
            names.insert(0, name)
    scale = zip(np.linspace(top, bottom, rows), grid, strict=True)
    width, left = MARGIN + columns, f"{'':{MARGIN}}{steps[0]:,.0f}"
    picture = [
        *(f"{loss:{MARGIN - 2}.2f} ┤{''.join(row).rstrip()}" for loss, row in scale),
        f"{'┴':>{MARGIN}}{'─' * columns}",
        left + f" step {steps[-1]:,.0f}".rjust(width - len(left)),
        f"{' '.join(names):>{width}.{width}}",
    ]
    return "\n".join(picture).translate(IN_ASCII if screen.options.ascii_only else {})
