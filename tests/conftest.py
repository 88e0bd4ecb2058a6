"""What all tests share: floating-point errors raise, and nothing opens a socket."""

import importlib.util
import os
import socket
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # tests run side by side, and before NumPy reads it

import numpy as np
import pytest
from hypothesis import settings

for name in ("COLUMNS", "LINES"):  # workers of pytest-xdist inherit the terminal's size
    os.environ.pop(name, None)

settings.register_profile("charrnn", deadline=None)  # a slow machine is no failure
settings.load_profile("charrnn")

CORPORA = Path(__file__).parents[1] / "corpora"
SHARED = Path(__file__).parents[2] / "shared" / "corpora"


@pytest.fixture(autouse=True)
def strict_floats():
    """Raise on overflow, division by zero and invalid operations; underflow to zero is meant."""
    with np.errstate(all="raise", under="ignore"):
        yield


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Forbid sockets to the outside: charrnn never needs the network."""

    def refuse(*args, **kwargs):
        raise AssertionError("charrnn opened a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def shakespeare():
    """Return the shared Shakespeare text, or skip where it is absent."""
    path = SHARED / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("the shared corpora are not here")
    return path


@pytest.fixture(scope="session")
def markov():
    """Return the script corpora/markov.py as a module."""
    spec = importlib.util.spec_from_file_location("markov", CORPORA / "markov.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
