"""Where pictures and logs go: tried before the work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from charrnn.cli.terminal import visible
from charrnn.errors import CharRNNError


def part_of(path: str | Path, sources: Iterable[str]) -> str | None:
    """Return the file or folder among `sources` that `path` is, or lies in; None if it is apart from all."""
    target = Path(os.path.realpath(path))  # unlike resolve(), no error for a loop of links
    return next(
        (s for s in sources if s != "-" and Path(os.path.realpath(s)) in (target, *target.parents)),
        None,
    )


def check_output(path: Path) -> None:
    """Raise CharRNNError if a file cannot be written to `path`; nothing is changed there."""
    name = visible(str(path))
    try:
        path.stat()
        writable = os.access(path, os.W_OK)
    except FileNotFoundError:
        writable = os.access(path.parent, os.W_OK | os.X_OK)
    except OSError as error:
        raise CharRNNError(
            f"{name}: cannot be written ({error.strerror}); choose another place"
        ) from None
    if path.is_dir():
        raise CharRNNError(f"{name}: this is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise CharRNNError(
            f"{name}: the folder {visible(str(path.parent))} does not exist; make it first, or choose another place"
        )
    if not writable:
        raise CharRNNError(
            f"{name}: cannot be written; change the permissions, or choose another place"
        )
