"""Promise 5: too large numbers stop a run, which says so and keeps the last good weights."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from promises.exact_resume import CELLS, OPTIMIZERS
from promises.trial import Trial, a_text, charrnn, folder

SIZES = ("--hidden", "16", "--batch-size", "8", "--seq-len", "16", "--workers", "1", "--quiet")
SHORT = [
    ("lstm", "adam", "1", "25"),
    ("rnn", "sgd", "0", "1000"),
]  # cell, optimizer, clip, validation


def diverging(cases: list[tuple[str, ...]]) -> Trial:
    """Return the trial of runs with a rate of 100."""
    trial = Trial(
        "5. a run that blows up says so",
        "--lr 100 for cells and optimizers, clipped or not: exit 1, a line, sound weights",
    )
    with folder() as home:
        text, out = a_text(home / "text.txt"), home / "m.npz"
        for cell, optimizer, clip, val_every in cases:
            options = [
                "--cell",
                cell,
                "--optimizer",
                optimizer,
                "--clip",
                clip,
                "--val-every",
                val_every,
                "--lr",
                "100",
            ]
            ended = charrnn(
                "train", text, *SIZES, *options, "--steps", "300", "--out", out, "--overwrite"
            )
            said = (
                ended.err.startswith("charrnn: the run diverged after step ")
                and ended.err.count("\n") == 1
            )
            trial.check(ended.code == 1 and said, f"{options}: {ended}")
            trial.check(_sound(out), f"{options}: the checkpoint isn't sound")
            drawn = charrnn("sample", out, "--length", "50", "--seed", "1")
            trial.check(drawn.code == 0 and not drawn.err, f"{options}: sample: {drawn}")
    return trial


def _sound(path: Path) -> bool:
    """Return whether a model's weights are finite and predict."""
    import charrnn as package

    model, text = package.load(path), "the end of the road"
    with np.errstate(all="raise", under="ignore"):
        nats = package.score(model, text).nats  # without those that are NaN
    finite = np.isfinite(model.parameters.flat).all() and np.isfinite(nats).all()
    return bool(finite and nats.size == len(text) - 1)


def trials(full: bool) -> list[Trial]:
    """Return all trials of this promise."""
    return [
        diverging(list(product(CELLS, OPTIMIZERS, ("0", "1"), ("25", "1000"))) if full else SHORT)
    ]
