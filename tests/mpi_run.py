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
from charrnn.training.events import Step, Validated
from charrnn.training.mpi import MPIEnd


def learned(corpus, options, ranks=None):
    """Train, and return the losses and weights."""
    *events, done = charrnn.train([corpus], charrnn.TrainConfig(**options), ranks=ranks)
    return {
        "losses": [event.loss for event in events if isinstance(event, Step)],
        "validated": [event.val_loss for event in events if isinstance(event, Validated)],
        "theta": done.model.parameters.flat,
        "ranks": done.ranks,
    }


def main(corpus, out, options):
    """Follow, or lead and write what was learned."""
    ranks = MPIEnd(*launched())
    if ranks.rank:
        ranks.follow()
    else:
        np.savez(out, **learned(corpus, json.loads(options), ranks))


if __name__ == "__main__":
    main(*sys.argv[1:])
