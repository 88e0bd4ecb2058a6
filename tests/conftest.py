"""What all tests share: commands run as they are typed, floating-point errors raise, and nothing
opens a socket.
"""

import importlib.util
import json
import os
import shlex
import socket
import tracemalloc
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # tests run side by side, and before NumPy reads it

import numpy as np
import pytest
from hypothesis import settings

from charrnn.cli.app import main

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


class Cli:
    """Runs commands as they are typed."""

    def __init__(self, capsys):
        self.capsys = capsys

    def __call__(self, command, code=0):
        """Return stdout and stderr of a command that ends with this exit code."""
        assert main(shlex.split(command)) == code
        return self.capsys.readouterr()

    def json(self, command, code=0):
        """Return the objects that a command prints with --json; none may have a NaN."""
        lines = self(f"{command} --json", code).out.splitlines()
        return [json.loads(line, parse_constant=pytest.fail) for line in lines]

    def refusal(self, command, code=1):
        """Return the one line with which a command fails; it must print nothing else."""
        out, err = self(command, code)
        assert out == ""
        assert err.startswith("charrnn: ")
        assert err.count("\n") == 1
        return err.removeprefix("charrnn: ").rstrip("\n")


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run commands in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return Cli(capsys)


@pytest.fixture
def peak_memory():
    """Measure how many bytes Python holds at most while a function runs."""

    def peak(function):
        tracemalloc.start()
        try:
            function()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return peak


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
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
