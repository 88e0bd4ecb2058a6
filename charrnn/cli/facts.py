"""What is said of a network and of its run, by each command that says it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from charrnn.cli.terminal import clock_time, counted
from charrnn.pictures.heatmap import symbol

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model
    from charrnn.config import ModelConfig
    from charrnn.training.events import Start


def facts(model: Model, most: int = 60) -> dict[str, str]:
    """Return what there is to say by its label; at most so many columns of the vocabulary."""
    characters = model.vocabulary.characters
    found = {
        "network": [network(model.config, model.parameters.flat.size)],
        "characters": [
            f"{len(characters)}: {_shortened(''.join(map(symbol, characters[:most])), most)}"
        ],
        "trained on": [
            _shortened(", ".join(model.corpus_names), 60),
            _said("{:,} characters".format, model.corpus_characters),
            "each line an item" * model.of_lines,
        ],
        "made by": [model.command or ""],
        "validation": [_said(loss, model.val_loss)],
        "n-gram floor": [floor(model.floor_nats, model.floor_order)],
        "uniform": [f"{loss(math.log(len(characters)))} (knowing nothing)"],
        "training": [_said(loss, model.train_loss)],
        "time": [
            _said(clock_time, model.seconds),
            _said(counted, model.step, "step"),
            _said(counted, model.epochs, "epoch"),
            _said("{:,.0f} characters/s".format, model.chars_per_second or None),
        ],
    }
    return {label: ", ".join(filter(None, parts)) for label, parts in found.items()}


def beginning(start: Start) -> dict[str, str]:
    """Return what is trained on what, by its label."""
    text = counted(start.corpus_characters, "character")
    parts = [network(start, start.params)]
    parts += [counted(start.workers, "worker")] if start.workers > 1 else []
    parts += [counted(start.ranks, "rank")] if start.ranks > 1 else []
    parts += [f"from step {start.first_step:,} on"] if start.first_step else []
    return {
        "text": f"{text}, {start.vocabulary_size:,} distinct",
        "network": ", ".join(parts),
        "n-gram floor": floor(start.floor_nats, start.floor_order),
    }


def network(shape: ModelConfig | Start, params: int) -> str:
    """Return a network's shape: "lstm, 1 layer of 128 units, 99,999 parameters"."""
    layers, units = counted(shape.layers, "layer"), counted(shape.hidden, "unit")
    return f"{shape.cell}, {layers} of {units}, {counted(params, 'parameter')}"


def loss(nats: float) -> str:
    """Return a loss in nats and in bits."""
    return f"{nats:.3f} nats = {nats / math.log(2):.3f} bits a character"


def floor(nats: float | None, order: int | None) -> str:
    """Return what the best n-gram model reaches, nothing if that wasn't counted."""
    of_order = f" (n-grams of order {order})" if order else ""
    return "" if nats is None else f"{loss(nats)}{of_order}"


def _said(words: Callable[..., str], value: object, *more: object) -> str:
    """Return `words(value, *more)`, or nothing where nothing is known."""
    return "" if value is None else words(value, *more)


def _shortened(text: str, most: int) -> str:
    return text if len(text) < most else f"{text[: most - 3]}..."
