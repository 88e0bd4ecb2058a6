"""What a run reports as it goes: a frozen dataclass for each kind of event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from charrnn.checkpoint.model import Model

Stopped = Literal["finished", "interrupted", "early", "diverged"]


@dataclass(frozen=True)
class Event:
    """Something that happened in a run."""

    not_in_json: ClassVar[tuple[str, ...]] = ()  # fields only for the display and Python

    @property
    def name(self) -> str:
        """The name of the event in JSON: that of Validated is "validated"."""
        return type(self).__name__.lower()

    def as_dict(self) -> dict[str, Any]:
        """Return the event as an object for JSON."""
        told = {name: v for name, v in vars(self).items() if name not in self.not_in_json}
        return {"event": self.name, **told}


@dataclass(frozen=True)
class Notice(Event):
    """Something the user should know, such as what was changed in a text, or what was chosen."""

    text: str


@dataclass(frozen=True)
class Start(Event):
    """The run begins, or continues after `first_step` steps."""

    not_in_json = ("first_step",)
    corpus_characters: int
    vocabulary_size: int
    params: int
    cell: str
    hidden: int
    layers: int
    batch_size: int
    seq_len: int
    workers: int
    ranks: int
    seed: int
    floor_nats: float | None
    floor_order: int | None
    first_step: int


@dataclass(frozen=True)
class Step(Event):
    """One optimizer step; `step` counts those done so far. JSON and logs have only `shown` ones."""

    not_in_json = ("progress", "seconds_left", "shown")
    step: int
    steps: int | None
    epoch: float
    loss: float  # nats per character, of this step's batch
    grad_norm: float
    lr: float
    chars_per_second: float
    progress: float  # of the whole run, 0 to 1
    seconds_left: float
    shown: bool


@dataclass(frozen=True)
class Validating(Event):
    """A validation begins; JSON and logs leave it out."""

    shown: ClassVar[bool] = False


@dataclass(frozen=True)
class Validated(Event):
    """The loss on the validation part, in nats per character."""

    step: int
    val_loss: float
    best: bool
    val_characters: int  # predicted


@dataclass(frozen=True)
class Sampled(Event):
    """A short text by the current model."""

    step: int
    text: str


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint was written."""

    step: int
    checkpoint: str


@dataclass(frozen=True)
class Done(Event):
    """The end of the run. `model` is what the checkpoint holds."""

    not_in_json = ("repeatable", "model")
    steps: int
    epochs: float
    seconds: float
    train_loss: float | None
    val_loss: float | None
    val_bpc: float | None
    val_characters: int | None
    floor_nats: float | None
    chars_per_second: float | None
    params: int
    workers: int
    ranks: int
    checkpoint: str | None
    stopped: Stopped
    command: str
    repeatable: bool  # whether `command` repeats the run bit for bit
    model: Model
