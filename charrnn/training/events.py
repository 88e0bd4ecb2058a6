"""What a run tells as it goes: frozen records, one class a kind."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from charrnn.checkpoint.model import Model

OUTSIDE_JSON = {"json": False}
Stopped = Literal["finished", "interrupted", "early", "diverged"]


@dataclass(frozen=True)
class Event:
    """Something that happened in a run."""

    @property
    def name(self) -> str:
        """Return the contract's name of the event: Validated → validated."""
        return type(self).__name__.lower()

    def as_dict(self) -> dict[str, Any]:
        """Return the event as JSON has it."""
        shown = {
            f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("json", True)
        }
        return {"event": self.name, **shown}


@dataclass(frozen=True)
class Notice(Event):
    """Something worth saying: what was changed in a text, or chosen."""

    text: str


@dataclass(frozen=True)
class Start(Event):
    """The run begins, or goes on at step `first_step`."""

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
    first_step: int = field(metadata=OUTSIDE_JSON)


@dataclass(frozen=True)
class Step(Event):
    """One optimizer step; `step` counts those done. The JSON is thinned: only `shown` ones."""

    step: int
    steps: int | None
    epoch: float
    loss: float  # nats per character, of this step's batch
    grad_norm: float
    lr: float
    chars_per_second: float
    progress: float = field(metadata=OUTSIDE_JSON)  # of the whole run, 0 to 1
    seconds_left: float = field(metadata=OUTSIDE_JSON)
    shown: bool = field(metadata=OUTSIDE_JSON)


@dataclass(frozen=True)
class Validating(Event):
    """A validation begins; for the eye alone."""

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
    """A short text by the model as it is now."""

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
    repeatable: bool = field(metadata=OUTSIDE_JSON)  # whether `command` repeats the run bit for bit
    model: Model = field(metadata=OUTSIDE_JSON)
