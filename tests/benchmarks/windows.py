"""A model's validation loss in two ways: python tests/benchmarks/windows.py MODEL TEXT [--size 256]

The state is carried through the text, as charrnn reports it; or each window of `size` predictions
begins with a zero state, as programs report it whose networks see no further. TEXT is what MODEL
was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from charrnn.checkpoint.model import load
from charrnn.sampling.scoring import score
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
    training = model.training
    if model.of_lines:
        raise SystemExit(f"{asked.model}: its items begin with a zero state anyway")
    corpus = read_corpus([asked.text], encoding=training["encoding"], base=model.vocabulary)
    part = corpus.split(training["val_fraction"])[1]
    validation = model.vocabulary.decode(part.read(0, part.characters))
    counts = VALIDATION_STREAMS, max(1, len(validation) // (asked.size + 1))
    carried, cold = (score(model, validation, streams=streams).mean for streams in counts)
    windows = f"windows of {asked.size} from a zero state {cold:.4f}"
    print(f"carried state {carried:.4f}, {windows} nats per character")


if __name__ == "__main__":
    main()
