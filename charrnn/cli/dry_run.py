"""`charrnn train --dry-run`: what would be done, on stdout, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from charrnn.cli.facts import beginning
from charrnn.cli.log import Log
from charrnn.cli.terminal import clock_time, console, counted, labelled, print_json, say
from charrnn.config import TrainConfig
from charrnn.training.defaults import characters_per_second, measured_flops
from charrnn.training.setup import Run, prepare


def show(
    sources: Sequence[str], config: TrainConfig, log: Path | None, *, json: bool, ranks: int
) -> None:
    """Print what `charrnn train` would do. Raises what it would raise before the first step."""
    if log is not None:
        Log(log, sources, config)
    run = prepare(sources, replace(config, ranks=ranks))
    for note in run.notes:
        say(note)
    start, plan = run.start_event(), planned(run) | {"out": str(config.out)}
    if json:
        print_json(vars(start) | plan)
    else:
        console().print(labelled(beginning(start) | _rows(plan)), soft_wrap=True)


def planned(run: Run) -> dict[str, Any]:
    """Return the configuration, its steps, memory in bytes and the expected time in seconds.

    While a budget decides, the steps are a guess.
    """
    config, progress, training = run.config, run.progress, run.training
    processes = run.workers * config.ranks
    speed = characters_per_second(config.model, len(run.vocabulary), processes, measured_flops())
    speed *= training.steps_per_epoch / training.predictions  # steps a second
    steps, seconds = progress.steps, max(0.0, (config.budget or 0.0) - progress.seconds)
    if steps is None:
        steps = progress.step + max(1, round(seconds * speed))
    else:
        seconds = max(0, steps - progress.step) / speed
    return {
        "steps": steps,
        "steps_fixed": progress.steps is not None,
        "steps_per_epoch": training.steps_per_epoch,
        "epochs": steps / training.steps_per_epoch,
        "seconds": seconds,
        "memory_bytes": run.memory,
        "settings": config.as_dict(),
    }


def _rows(plan: dict[str, Any]) -> dict[str, str]:
    """Return what is planned, by its label."""
    about = "" if plan["steps_fixed"] else "about "
    epochs = f"{plan['steps_per_epoch']:,} an epoch, {about}{counted(plan['epochs'], 'epoch')}"
    settings = {
        name.replace("_", "-"): str(value)
        for name, value in plan["settings"].items()
        if value is not None and name != "steps"
    }
    return {
        "steps": f"{about}{plan['steps']:,} ({epochs})",
        "time": f"about {clock_time(plan['seconds'])}",
        "memory": f"about {plan['memory_bytes'] / 1e6:,.0f} MB",
        "checkpoint": plan["out"],
        **settings,
    }
