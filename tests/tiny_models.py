"""Small models with random weights, for tests of what is done with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from charrnn.checkpoint.model import Model, save
from charrnn.config import CellName, ModelConfig
from charrnn.network.parameters import initialize
from charrnn.text.vocabulary import Vocabulary


def tiny(
    text: str,
    *,
    cell: CellName = "lstm",
    hidden: int = 6,
    layers: int = 1,
    spread: float = 1.0,
    **meta: Any,
) -> Model:
    """Return a model that knows the characters of `text`; `spread`: how far its weights are from
    those it would start with.
    """
    config, vocabulary = ModelConfig(cell, hidden, layers), Vocabulary.of(text)
    rng = np.random.default_rng(7)
    parameters = initialize(config, len(vocabulary), rng)
    parameters.flat += (spread * rng.standard_normal(parameters.flat.size)).astype(np.float32)
    return Model(config, vocabulary, parameters, meta)


def always(char: str, others: str = "ab\n", **meta: Any) -> Model:
    """Return a model that as good as always draws `char`."""
    model = tiny(others + char, **meta)
    model.parameters["U"][:] = 0
    model.parameters["b_y"][:] = 0
    model.parameters["b_y"][model.vocabulary.index(char)] = 100
    return model


def saved(model: Model, folder: Path, name: str = "tiny.npz") -> str:
    """Return the path of `model` in a folder, where it is written."""
    save(folder / name, model)
    return str(folder / name)
