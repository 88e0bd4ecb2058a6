"""Make the model that ships out of a trained one: python tests/benchmarks/ship.py TRAINED TEXT
[--out SHIPPED]

TRAINED is the checkpoint of a run that has ended, TEXT what it was trained on. Its weights are
written in half precision, without what only resuming needs, and with the run's recipe in the meta.
Refused if that costs 0.001 nats or takes over 2 MB.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import charrnn
from charrnn.checkpoint.model import Model, load, save
from charrnn.config import TrainConfig
from charrnn.network.network import Network
from charrnn.training.events import Done
from charrnn.training.progress import Progress
from charrnn.training.replica import total_nats
from charrnn.training.setup import Run, Text

SHIPPED = Path(charrnn.__file__).parent / "models" / "shakespeare.npz"
MOST_BYTES, MOST_NATS = 2_000_000, 1e-3
SPLIT = ("encoding", "lines", "val_fraction", "batch_size", "seq_len")  # of the validation part


def command(trained: Path, text: Path) -> str:
    """Return the command that repeats a run that has ended, with the text's name for its path and
    without --out.
    """
    meta = load(trained).meta
    if meta["step"] != meta["steps"] or meta["val_loss"] is None:
        raise SystemExit(
            f"{trained}: this run hasn't ended, or has no validation; "
            "charrnn train --resume goes on with it"
        )
    *_, done = charrnn.train(
        [text], charrnn.TrainConfig(out=trained, resume=True)
    )  # nothing is left to do
    if not isinstance(done, Done) or not done.repeatable:
        raise SystemExit(f"{trained}: no single command repeats this run; train afresh")
    words = [Path(word).name if word == str(text) else word for word in shlex.split(done.command)]
    return shlex.join(words[: words.index("--out")])


def halved(model: Model) -> Model:
    """Return the model as it is read again from half precision."""
    parameters = model.parameters.astype(np.float16).astype(np.float32)
    return replace(model, parameters=parameters)


def validation_loss(model: Model, text: Path) -> float:
    """Return the model's nats per character on the validation part of its own run."""
    config = TrainConfig(**{name: model.training[name] for name in SPLIT})
    batches = Run(config, Text((text,), config, model), Progress(), model, {}, []).validation
    assert batches is not None
    network = Network(model.config)
    return total_nats(network, model.parameters, batches) / batches.predictions


def ship(trained: Path, text: Path, out: Path) -> str:
    """Write the model in half precision to `out` and return what was done. Raises SystemExit if it
    costs too much.
    """
    recipe, model = command(trained, text), load(trained)
    half = halved(model)
    loss, before = validation_loss(half, text), model.meta["val_loss"]
    made = {
        "command": recipe,
        "seed": model.meta["training"]["seed"],
        "seconds": model.meta["seconds"],
        "val_loss": before,
    }
    new = out.with_stem(f"{out.stem}-new")
    meta = {name: value for name, value in model.meta.items() if name != "speeds"}
    save(new, replace(half, meta=meta | {"val_loss": loss, "recipe": made}), half=True)
    size, cost = new.stat().st_size, loss - before
    if cost >= MOST_NATS or size > MOST_BYTES:
        new.unlink()
        allowed = f"at most {MOST_NATS} and {MOST_BYTES:,}"
        raise SystemExit(
            f"{trained}: half precision costs {cost:.5f} nats and takes {size:,} bytes; {allowed}"
        )
    new.replace(out)
    return f"{out}: {size:,} bytes, {loss:.4f} nats, {cost:+.6f} by half precision\n{recipe}"


def main(words: list[str]) -> None:
    """Read the arguments, ship, and print what was done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trained", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    asked = parser.parse_args(words)
    print(ship(asked.trained, asked.text, asked.out))


if __name__ == "__main__":
    main(sys.argv[1:])
