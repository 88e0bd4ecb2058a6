"""Promise 8: the oldest versions that are allowed work, and what is built holds what it should and
nothing else.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

from promises.trial import ROOT, Trial, environment, folder

SOURCES = {".py", ".typed", ".npz", ".html", ".css", ".js", ".txt"}
TESTED = (
    "test_training.py",
    "test_sampling.py",
    "test_checkpoint.py",
    "test_cli.py",
    "test_cli_train.py",
    "test_gradcheck.py",
)


def project() -> dict[str, list[str]]:
    """Return what pyproject.toml says of the dependencies."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        found = tomllib.load(file)["project"]
    return {"dependencies": found["dependencies"], "test": found["optional-dependencies"]["test"]}


def lowest(requirement: str) -> str:
    """Return a requirement at its lowest version: numpy>=2.0 as numpy==2.0.*, of which pip takes
    the latest repair.
    """
    name, version = re.split(">=", requirement)
    return f"{name}=={version}.*" if version.count(".") < 2 else f"{name}=={version}"


def oldest() -> Trial:
    """Return the trial of the tests with the lowest versions; it fetches them from the package
    index.
    """
    names = [lowest(requirement) for requirement in project()["dependencies"]]
    trial = Trial(
        "8. the oldest versions work", f"{', '.join(names)}: the tests of {len(TESTED)} modules"
    )
    with folder() as home:
        python = home / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        tools = [
            requirement
            for requirement in project()["test"]
            if requirement.startswith(("pytest", "hypothesis"))
        ]
        files = [str(ROOT / "tests" / name) for name in TESTED]
        for what, words in (
            ("a virtual environment", [sys.executable, "-m", "venv", str(home / "venv")]),
            ("the lowest versions", [str(python), "-m", "pip", "install", "-q", *names, *tools]),
            (
                "the tests",
                [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", *files],
            ),
        ):
            ended = subprocess.run(
                words, cwd=ROOT, env=environment(), capture_output=True, text=True
            )
            if not trial.check(
                ended.returncode == 0, f"{what}: {(ended.stdout + ended.stderr)[-2000:]}"
            ):
                return trial
    return trial


def expected() -> set[str]:
    """Return the files of the package, from the source tree."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "charrnn").rglob("*")
        if path.suffix in SOURCES
    }
    return {name for name in found if "__pycache__" not in name}


def wheel() -> Trial:
    """Return the trial of the files in a wheel."""
    trial = Trial(
        "8. the wheel is right",
        "built, its files against the source tree's; py.typed, the corpus, the command, "
        "the licence",
    )
    with folder() as home:
        _build(trial, home, "wheel")
        for path in home.glob("*.whl"):
            with zipfile.ZipFile(path) as archive:
                names, info = set(archive.namelist()), path.name.rsplit("-", 3)[0]
                commands = archive.read(f"{info}.dist-info/entry_points.txt").decode()
            wanted = expected() | {"charrnn/corpora/tales.txt"}
            wanted |= {
                f"{info}.dist-info/{name}"
                for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
            }
            trial.check(
                names == wanted,
                f"the wheel has {sorted(names - wanted)} and lacks {sorted(wanted - names)}",
            )
            trial.check("charrnn/py.typed" in names, "py.typed is missing")
            trial.check("charrnn = charrnn.cli.app:main" in commands, f"the command is {commands}")
    return trial


def sdist() -> Trial:
    """Return the trial of the files in a source distribution."""
    trial = Trial(
        "8. the source distribution is right",
        "built, its files against the source tree's, tests and corpora included",
    )
    with folder() as home:
        _build(trial, home, "sdist")
        for path in home.glob("*.tar.gz"):
            with tarfile.open(path) as archive:
                names = {
                    member.name.split("/", 1)[1]
                    for member in archive.getmembers()
                    if member.isfile()
                }
            wanted = expected() | {
                "README.md",
                "charrnn/README.md",
                "LICENSE",
                "pyproject.toml",
                "PKG-INFO",
                ".gitignore",
            }
            wanted |= {
                file.relative_to(ROOT).as_posix()
                for top in (".github", "tests", "corpora")
                for file in (ROOT / top).rglob("*")
                if _kept(file)
            }
            trial.check(
                names == wanted,
                f"the sdist has {sorted(names - wanted)} and lacks {sorted(wanted - names)}",
            )
    return trial


def _kept(path: Path) -> bool:
    return (
        path.is_file()
        and "__pycache__" not in path.parts
        and not path.name.endswith((".pyc", ".npz", ".jsonl"))
    )


def _build(trial: Trial, home: Path, kind: str) -> None:
    """Build into a folder, without fetching anything."""
    words = ["-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(home), str(ROOT)]
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment(PYTHONPATH=None),
        capture_output=True,
        text=True,
    )
    trial.check(ended.returncode == 0, f"building: {(ended.stdout + ended.stderr)[-2000:]}")


def trials(full: bool) -> list[Trial]:
    """Return all trials of this promise."""
    return [wheel(), sdist(), *([oldest()] if full else [])]
