"""A model's validation loss in both ways of reporting: python tests/benchmarks/windows.py MODEL TEXT [--size 256]

With the state carried through the text, as charrnn reports it, and averaged over windows of `size` predictions that
each begin with a zero state, as programs report it whose networks see no further. TEXT is what MODEL was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from charrnn.checkpoint.model import load
from charrnn.sampling.scoring import score_streams
from charrnn.text.corpus import read_corpus
from charrnn.training.defaults import VALIDATION_STREAMS


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--size", type=int, default=256, help="predictions in a window")
    asked = parser.parse_args()
    model = load(asked.model)
    training = model.meta["training"]
    if training["lines"]:
        raise SystemExit(f"{asked.model}: its items begin with a zero state anyway")
    corpus = read_corpus([asked.text], encoding=training["encoding"], base=model.vocabulary)
    part = corpus.split(training["val_fraction"])[1]
    validation = part.read(0, len(part))
    counts = VALIDATION_STREAMS, max(1, validation.size // (asked.size + 1))
    carried, cold = (np.nanmean(score_streams(model, validation, streams)) for streams in counts)
    print(
        f"carried state {carried:.4f}, windows of {asked.size} from a zero state {cold:.4f} nats per character"
    )


if __name__ == "__main__":
    main()
