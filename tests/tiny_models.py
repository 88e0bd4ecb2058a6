"""Small models with random weights, for tests of what is done with a model."""

import numpy as np

from charrnn.checkpoint.model import Model, save
from charrnn.config import ModelConfig
from charrnn.network.parameters import initialize
from charrnn.text.vocabulary import Vocabulary


def tiny(text, *, cell="lstm", hidden=6, layers=1, spread=1.0, **meta):
    """Return a model that knows the characters of `text`; `spread`: how far its weights are from
    those it would start with.
    """
    config, vocabulary = ModelConfig(cell, hidden, layers), Vocabulary.of(text)
    rng = np.random.default_rng(7)
    parameters = initialize(config, len(vocabulary), rng)
    parameters.flat += (spread * rng.standard_normal(parameters.flat.size)).astype(np.float32)
    return Model(config, vocabulary, parameters, meta)


def always(char, others="ab\n", **meta):
    """Return a model that as good as always draws `char`."""
    model = tiny(others + char, **meta)
    model.parameters["U"][:] = 0
    model.parameters["b_y"][:] = 0
    model.parameters["b_y"][model.vocabulary.index(char)] = 100
    return model


def saved(model, folder, name="tiny.npz"):
    """Return the path of `model` in a folder, where it is written."""
    save(folder / name, model)
    return str(folder / name)
