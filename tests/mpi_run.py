"""A run in ranks, for test_mpi.py: `mpiexec -n 3 python mpi_run.py CORPUS OUT OPTIONS`.

OPTIONS are a TrainConfig's, as JSON: the command has no float64. Rank 0 writes what it learned to
OUT, an .npz.
"""

import json
import os
import sys

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

import charrnn
from charrnn.cli.app import launched
from charrnn.training.events import Done, Step, Validated
from charrnn.training.mpi import MPIEnd


def main(corpus, out, options):
    """Follow, or train and keep losses, weights and where rank 0's text lies."""
    rank, size = launched()
    ranks = MPIEnd(rank, size) if size > 1 else None
    if ranks is not None and rank:
        ranks.follow()
    else:
        lead(corpus, out, json.loads(options), ranks)


def lead(corpus, out, options, ranks):
    """Train, and write the losses and weights."""
    events = list(charrnn.train([corpus], charrnn.TrainConfig(**options), ranks=ranks))
    done = events[-1]
    assert isinstance(done, Done)
    np.savez(
        out,
        losses=[event.loss for event in events if isinstance(event, Step)],
        validated=[event.val_loss for event in events if isinstance(event, Validated)],
        theta=done.model.parameters.flat,
        ranks=done.ranks,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
