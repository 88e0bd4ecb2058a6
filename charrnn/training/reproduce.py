"""The command that repeats a run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from charrnn.training.preparation import Prepared

OPTIONS = (
    "cell",
    "hidden",
    "layers",
    "dropout",
    "batch_size",
    "seq_len",
    "lr",
    "optimizer",
    "clip",
    "val_fraction",
    "seed",
    "workers",
    "encoding",
    "val_every",
    "sample_every",
)


def command(run: Prepared, steps: int | None, out: str | Path | None) -> str:
    """Return the complete command that repeats a run of `steps` bit for bit, to a checkpoint of another name than `out`.

    While the steps of a budget aren't known it names the budget, which a repetition turns into steps of its own.
    """
    settings, path = run.settings, Path(out or "model.npz")
    words = ["mpiexec", "-n", str(run.ranks)] if run.ranks > 1 else []
    words += [
        "charrnn",
        "train",
        *(f"./{source}" if re.match("-.", str(source)) else str(source) for source in run.sources),
    ]
    for name in OPTIONS:
        words += [f"--{name.replace('_', '-')}", str(getattr(settings, name))]
    words += ["--budget", f"{settings.budget:.10g}s"] if steps is None else ["--steps", str(steps)]
    words += ["--lines"] if settings.lines else []
    words += ["--init-from", str(run.init_from)] if run.init_from is not None else []
    words += ["--out", str(path.with_stem(f"{path.stem}-again"))]
    return joined(words)


def joined(words: Sequence[str]) -> str:
    """Return words as a shell of this system takes them, quoted where they must be."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
