"""Promise 6: the same seed and options give the same bytes, wherever and however often it
is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promises.exact_resume import contents, differences
from promises.trial import Ended, Trial, a_text, charrnn, folder

SIZES = (
    "--hidden",
    "8",
    "--batch-size",
    "8",
    "--seq-len",
    "16",
    "--dropout",
    "0.2",
    "--steps",
    "40",
    "--workers",
    "2",
    "--val-every",
    "10",
)
PLACES: dict[str, Mapping[str, str | None]] = {
    "twice": {},
    "hash seed 1": {"PYTHONHASHSEED": "1"},
    "hash seed 4242": {"PYTHONHASHSEED": "4242"},
    "locale C": {"LC_ALL": "C", "LANG": "C"},
    "locale C without UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "locale C.UTF-8": {"LC_ALL": "C.UTF-8"},
    "no locale": {"LC_ALL": None, "LANG": None},
    "time zone": {"TZ": "Pacific/Kiritimati"},
    "20 columns": {"COLUMNS": "20", "LINES": "5"},
    "400 columns": {"COLUMNS": "400"},
    "coloured": {"FORCE_COLOR": "1"},
    "optimised": {"PYTHONOPTIMIZE": "1"},
}
WATCHING: tuple[tuple[str, ...], ...] = (
    ("--sample-every", "0"),
    ("--sample-every", "1"),
    ("--sample-every", "7"),
    ("--log", "run.jsonl"),
    ("--json",),
    ("--quiet",),
    ("--save-every", "0.001s"),
    ("--log", "run.jsonl", "--json", "--sample-every", "3", "--save-every", "0.001s"),
)
CLOCK = ("seconds", "chars_per_second", "speeds", "command", "checkpoint", "seconds_per_check")


def figures(ended: Ended) -> list[Any]:
    """Return the objects that a command printed, without times, rates and paths."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items() if key not in CLOCK}
        return [clean(item) for item in value] if isinstance(value, list) else value

    return [ended.code, *(clean(json.loads(line)) for line in ended.out.splitlines())]


def anywhere(names: list[str]) -> Trial:
    """Return the trial of all commands in different environments and working directories."""
    trial = Trial(
        "6. the same again",
        "train, sample, gradcheck, eval, next, info with another hash seed, locale, time zone, "
        "folder, width",
    )
    with folder() as home:
        text, model = a_text(home / "text.txt"), home / "model.npz"
        assert charrnn("train", text, *SIZES, "--quiet", "--out", model).code == 0
        first = _all(text, model, home / "first.npz", {}, home)
        for number, name in enumerate(names):
            elsewhere = home / f"folder {number}"
            elsewhere.mkdir()
            found = _all(text, model, home / "again.npz", PLACES[name], elsewhere)
            for what, value in first.items():
                trial.check(
                    value == found[what],
                    f"{name}: {what} differs: {str(value)[:300]} … {str(found[what])[:300]}",
                )
    return trial


def _all(
    text: Path, model: Path, out: Path, changes: Mapping[str, str | None], cwd: Path
) -> dict[str, Any]:
    """Return what each command gives."""
    options: dict[str, Any] = {"changes": changes, "cwd": cwd}
    trained = charrnn("train", text, *SIZES, "--json", "--out", out, "--overwrite", **options)
    return {
        "train": figures(trained),
        "the checkpoint": {
            name: value.tobytes() if hasattr(value, "tobytes") else value
            for name, value in contents(out).items()
        },
        "sample": charrnn("sample", model, "--seed", "3", "--length", "300", **options).out,
        "five samples": charrnn(
            "sample", model, "--seed", "3", "--num", "5", "--json", **options
        ).out,
        "gradcheck": figures(charrnn("gradcheck", "--cell", "gru", "--json", **options)),
        "eval": charrnn("eval", model, text, "--json", **options).out,
        "next": charrnn("next", model, "the ", "--json", **options).out,
        "info": charrnn("info", model, "--json", **options).out,
    }


def watched(ways: tuple[tuple[str, ...], ...]) -> Trial:
    """Return the trial of runs that are watched, logged and saved in different ways."""
    trial = Trial(
        "6. watching changes nothing",
        "--sample-every, --log, --json, --quiet, --save-every: all arrays; "
        "--val-every: the path of the weights",
    )
    with folder() as home:
        text = a_text(home / "text.txt")
        plain = home / "plain.npz"
        assert charrnn("train", text, *SIZES, "--out", plain).code == 0
        expected = contents(plain)
        for options in (*ways, ("--val-every", "3"), ("--val-every", "1000")):
            path = home / "watched.npz"
            ended = charrnn("train", text, *SIZES, *options, "--out", path, "--overwrite", cwd=home)
            found = contents(path)
            names = [
                name
                for name in expected
                if name.startswith("resume.") or "--val-every" not in options
            ]
            other = set(differences(expected, found)) & set(names) - {"config", "meta.training"}
            trial.check(ended.code == 0 and not other, f"{options}: {other} differ")
    return trial


def trials(full: bool) -> list[Trial]:
    """Return all trials of this promise."""
    short = ["hash seed 1", "locale C without UTF-8"]
    return [anywhere(list(PLACES) if full else short), watched(WATCHING if full else WATCHING[-1:])]
