"""`charrnn train --dry-run`: what would be done, on stdout, without doing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn.cli.summary import floor, labelled
from charrnn.cli.terminal import console, print_json, say
from charrnn.cli.wording import clock_time, counted
from charrnn.config import TrainConfig

if TYPE_CHECKING:
    from charrnn.training.setup import Run


def show_plan(
    sources: tuple[str, ...], config: TrainConfig, log: Path | None, *, json: bool, ranks: int = 1
) -> None:
    """Print what `charrnn train` would do with this. Raises all that it would raise before the first step."""
    from charrnn.cli.log import Log
    from charrnn.training.loop import check_out
    from charrnn.training.setup import prepare

    check_out(sources, config)
    if log is not None:
        Log(log, sources, config)
    prepared = prepare(sources, config, default_workers="auto", ranks=ranks)
    for note in prepared.notes:
        say(note)
    plan = planned(prepared) | {"out": str(config.out)}
    if json:
        print_json(plan)
    else:
        _print_rows(plan)


def planned(prepared: Run) -> dict[str, Any]:
    """Return sizes, settings, memory in bytes and expected time in seconds; steps are a guess while a budget decides."""
    from charrnn.training.defaults import characters_per_second, measured_flops, memory_bytes

    settings, record, N = prepared.config, prepared.progress, len(prepared.corpus.vocabulary)
    characters = prepared.training.predictions / prepared.training.steps_per_epoch
    processes = prepared.workers * prepared.ranks
    speed = characters_per_second(settings.model, N, processes, measured_flops())
    steps = record.steps or record.step + max(
        1, round(((settings.budget or 0) - record.seconds) * speed / characters)
    )
    left = max(0, steps - record.step) * characters / speed
    cut = replace(
        settings, batch_size=prepared.training.batch_size, seq_len=prepared.training.seq_len
    )  # to a short text, to items
    return {
        "corpus_characters": prepared.corpus.characters,
        "vocabulary_size": N,
        "params": prepared.best.flat.size,
        "floor_nats": prepared.floor_nats,
        "floor_order": prepared.floor_order,
        "first_step": record.step,
        "steps": steps,
        "steps_fixed": record.steps is not None,
        "steps_per_epoch": prepared.training.steps_per_epoch,
        "epochs": steps / prepared.training.steps_per_epoch,
        "seconds": left
        if record.steps is not None
        else max(0.0, (settings.budget or 0) - record.seconds),
        "memory_bytes": memory_bytes(cut, N, processes),
        "settings": settings.as_dict(),
    }


def _print_rows(plan: dict[str, Any]) -> None:
    about = "" if plan["steps_fixed"] else "about "
    of = f", from step {plan['first_step']:,} on" if plan["first_step"] else ""
    rows = {
        "text": f"{plan['corpus_characters']:,} characters, {plan['vocabulary_size']:,} distinct",
        "parameters": f"{plan['params']:,}",
        "steps": f"{about}{plan['steps']:,} ({plan['steps_per_epoch']:,} an epoch, {about}{counted(plan['epochs'], 'epoch')}{of})",
        "time": f"about {clock_time(plan['seconds'])}"
        if plan["steps_fixed"]
        else clock_time(plan["seconds"]),
        "memory": f"about {plan['memory_bytes'] / 1e6:,.0f} MB",
        "n-gram floor": "not counted"
        if plan["floor_nats"] is None
        else floor(plan["floor_nats"], plan["floor_order"]),
        "checkpoint": plan["out"],
    }
    rows |= {
        name.replace("_", "-"): str(value)
        for name, value in plan["settings"].items()
        if value is not None and name != "steps"
    }
    shown = console()
    for name, value in rows.items():
        shown.print(labelled(name, value), soft_wrap=True)
