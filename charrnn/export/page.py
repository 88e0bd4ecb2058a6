"""A model's page: page.html with the style, script, weights and facts about the model filled in.

The script computes what `network.cells` does, in JavaScript. The page's own content security policy
allows only the style and the script, by their hashes: no other code, and no request.
What comes from a checkpoint is data in the page, never markup.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import asdict
from hashlib import sha256
from importlib.resources import files
from string import Template

import numpy as np

from charrnn import __version__
from charrnn.checkpoint.model import Model
from charrnn.config import SampleConfig
from charrnn.errors import CheckpointError
from charrnn.sampling.sampling import Drawing


def page(model: Model, *, title: str, prime: str = "", temp: float = 1.0) -> str:
    """Return the page as HTML. It opens with this title, beginning and temperature.

    Raises VocabularyError for a prime with an unknown character, UsageError for a temperature
    below 0, and CheckpointError if a weight is too large for half precision.
    """
    Drawing(model, SampleConfig(prime=prime, temp=temp))  # raises for invalid ones
    frame, style, script = (
        (files(__package__) / f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    facts = {
        "title": title,
        "prime": prime,
        "temp": temp,
        "lines": model.of_lines,
        **asdict(model.config),
        "parameters": model.parameters.flat.size,
        "version": __version__,
        "vocabulary": list(model.vocabulary.characters),
    }
    return Template(frame).substitute(
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        data=json.dumps(facts).replace("<", "\\u003c"),  # so that no tag can end the element
        weights=_weights(model),
    )


def _hash(code: str) -> str:
    """Return the expression by which a content security policy allows this inline code."""
    return f"'sha256-{b64encode(sha256(code.encode()).digest()).decode()}'"


def _weights(model: Model) -> str:
    """Return all parameters, in the order of the flat array, as float16 in base64."""
    with np.errstate(over="ignore", under="ignore"):
        half = model.parameters.flat.astype("<f2")
    if not np.isfinite(half).all():
        raise CheckpointError(
            "a page stores weights in half precision, and one of the model's exceeds its ±65,504"
        )
    return b64encode(half.tobytes()).decode("ascii")
