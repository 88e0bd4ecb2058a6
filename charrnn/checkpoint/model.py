"""Models on disk: one .npz with the arrays, the vocabulary and what is known about the run.

`meta` holds JSON, the parameters have their own names, and `resume.…` holds what only resuming
needs. A file may come from a stranger: nothing in it is executed, and every key, shape and dtype is
checked against its meta before memory is allocated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, Unpack

import numpy as np

import charrnn
from charrnn.arrays import Array
from charrnn.checkpoint.atomic_write import UNCHANGED, FilePath, atomic_write
from charrnn.checkpoint.npz import Archive, opened, refused
from charrnn.config import ModelConfig, SampleOptions
from charrnn.errors import CharRNNError, CheckpointError
from charrnn.network.parameters import Parameters, shapes
from charrnn.text.vocabulary import Vocabulary

Point = tuple[int, float | None, float | None]  # step, training loss, validation loss
Value = TypeVar("Value")
FORMAT = 1
RESUME = "resume."
RESUME_KINDS = ("<f4", "<f8", "<i8", "|u1")
MAX_VALUES = 200_000  # commas, lists and objects in meta; a learning curve has four per point
LARGEST = 1e300  # numbers in meta must be below it, which NaN isn't
META = {"format": int, "version": str, "model": dict, "training": dict, "vocabulary": str}
SHAPE = {"cell": str, "hidden": int, "layers": int}  # what is in "model"
SHIPPED = Path(__file__).parents[1] / "models" / "shakespeare.npz"  # comes with charrnn


# Readers of values in meta: a value of the wrong type becomes None, or an empty list or object.


def _of(*kinds: type[Value]) -> Callable[[Any], Value | None]:
    """Return a reader of values of exactly these types: True doesn't count as an int."""
    return lambda value: value if type(value) in kinds else None


_number, _count, _text = _of(int, float), _of(int), _of(str)


def _record(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _point(value: object) -> Point | None:
    match value:
        case [step, train, val] if (count := _count(step)) is not None:
            return count, _number(train), _number(val)
    return None


def _each(read: Callable[[object], Value | None]) -> Callable[[object], list[Value]]:
    """Return a reader of lists whose items are read by `read`."""
    return lambda value: [
        item for item in map(read, value if isinstance(value, list) else ()) if item is not None
    ]


class MetaField(Generic[Value]):
    """An attribute read from a model's meta at a path of keys, by default the attribute's name.

    `read` is one of the readers above.
    """

    def __init__(self, read: Callable[[object], Value], *path: str) -> None:
        self.read, self.path = read, path

    def __set_name__(self, owner: type, name: str) -> None:
        self.path = self.path or (name,)

    def __get__(self, model: Model, owner: type) -> Value:
        value: object = model.meta
        for key in self.path:
            value = _record(value).get(key)
        return self.read(value)


@dataclass(frozen=True)
class Model:
    """A trained network with its vocabulary and what its checkpoint says about its run."""

    config: ModelConfig
    vocabulary: Vocabulary
    parameters: Parameters
    meta: dict[str, Any] = field(default_factory=dict)

    version = MetaField(_text)  # the charrnn version that wrote it
    training = MetaField(_record)  # the resolved TrainConfig
    corpus = MetaField(_record)
    corpus_digest = MetaField(_text, "corpus", "digest")
    corpus_names = MetaField(_each(_text), "corpus", "names")
    corpus_characters = MetaField(_count, "corpus", "characters")
    training_characters = MetaField(_count, "corpus", "training_characters")
    step = MetaField(_count)
    steps = MetaField(_count)  # of the whole run
    best_step = MetaField(_count)  # the step of the parameters saved here
    epochs = MetaField(_number)
    seconds = MetaField(_number)  # wall time of the whole run
    chars_per_second = MetaField(_number)
    speeds = MetaField(_each(_number))  # in characters/s, at a sample of the steps
    train_loss = MetaField(_number)  # nats per character, like all losses
    val_loss = MetaField(_number)
    floor_nats = MetaField(_number)  # loss of the best n-gram model on the validation part
    floor_order = MetaField(_count)
    curve = MetaField(_each(_point))

    @property
    def of_lines(self) -> bool:
        """Whether each line was an item in training, so that a newline ends a sample."""
        return bool(self.training.get("lines"))

    def sample(self, **options: Unpack[SampleOptions]) -> Iterator[str]:
        """Yield drawn characters: `charrnn.sample`."""
        return charrnn.sample(self, **options)

    def score(self, text: str, **options: Any) -> charrnn.Score:
        """Return how surprising a text is: `charrnn.score`."""
        return charrnn.score(self, text, **options)

    def next(self, text: str, k: int = 10) -> list[tuple[str, float]]:
        """Return the k likeliest characters after a text, with their probabilities."""
        return charrnn.likeliest(self, text, k)

    def __repr__(self) -> str:
        c, loss = self.config, self.val_loss
        known = "" if loss is None else f", {loss:.3f} nats per character on validation"
        return (
            f"<charrnn.Model: {c.cell}, {c.layers} layer{'s' * (c.layers > 1)} of {c.hidden}, "
            f"{len(self.vocabulary)} characters, {self.parameters.flat.size:,} parameters{known}>"
        )


def save(
    path: FilePath, model: Model, resume: Mapping[str, Array] | None = None, *, half: bool = False
) -> None:
    """Write `model`, and `resume` under `resume.…`, to `path`: all of it or nothing.

    Equal content gives equal bytes. half: parameters as float16, half the size. `model.meta`
    provides "training" and whatever else is known about the run; its numbers that aren't finite are
    written as null. Raises CheckpointError.
    """
    own = {
        "format": FORMAT,
        "version": charrnn.__version__,
        "model": asdict(model.config),
        "training": model.training,
        "vocabulary": model.vocabulary.characters,
    }
    text = json.dumps(finite_json(own | model.meta | own))  # own keys come first and win
    arrays: dict[str, Any] = {"meta": np.array(text)}
    with atomic_write(path) as file:
        _understood(text)  # never write what load would refuse
        for key, view in model.parameters.items():
            with np.errstate(all="ignore"):
                arrays[key] = view.astype("<f2" if half else "<f4", copy=False)
            if not np.isfinite(arrays[key]).all():
                raise CheckpointError(f"{UNCHANGED}: {key!r} isn't finite in {arrays[key].dtype}")
        for name, array in (resume or {}).items():
            arrays[f"{RESUME}{name}"] = np.asarray(array, order="C")
        np.savez(file, **arrays)


def load(path: FilePath) -> Model:
    """Return the model at `path`, its parameters in float32; `resume.…` arrays are not read.

    Raises CheckpointError.
    """
    with opened(path) as archive:
        return _model(archive)


def load_resume(path: FilePath) -> tuple[Model, dict[str, Array]]:
    """Return the model at `path` and its `resume.…` arrays by the rest of their names.

    Raises CheckpointError.
    """
    with opened(path) as archive:
        keys = [key for key in archive.entries if key.startswith(RESUME)]
        arrays = {key.removeprefix(RESUME): archive.array(key, RESUME_KINDS) for key in keys}
        return _model(archive), arrays


def finite_json(value: Any) -> Any:
    """Return `value` as JSON can hold it: arrays as lists, NaN and numbers too large as None."""
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {key: finite_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(item) for item in value]
    return None if isinstance(value, int | float) and not abs(value) < LARGEST else value


def _model(archive: Archive) -> Model:
    with refused("its meta is not Unicode text"):
        text = str(archive.array("meta", ("<U",), ()))
    meta, config, vocabulary = _understood(text)
    expected = shapes(config, len(vocabulary))
    for key in archive.entries:
        if key != "meta" and key not in expected and not key.startswith(RESUME):
            raise CheckpointError(
                f"{key!r:.80} does not belong to the model that its meta describes"
            )
    arrays = {key: archive.array(key, ("<f4", "<f2"), shape) for key, shape in expected.items()}
    parameters = Parameters(config, len(vocabulary))
    for key, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{key!r} has NaN or infinite numbers")
        parameters[key][:] = array
    return Model(config, vocabulary, parameters, meta)


def _understood(text: str) -> tuple[dict[str, Any], ModelConfig, Vocabulary]:
    """Return the object in meta's JSON, its model and its vocabulary. Raises CheckpointError."""
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise CheckpointError(f"its meta has more than {MAX_VALUES:,} values")
    try:
        meta = json.loads(text)
        is_finite = meta == finite_json(meta)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its meta is not valid JSON: {error}") from None
    if not isinstance(meta, dict) or not is_finite:
        raise CheckpointError("its meta is not a JSON object, or has numbers that are not finite")
    wrote, format_ = meta.get("version"), meta.get("format")
    if format_ != FORMAT:
        raise CheckpointError(
            f"charrnn {wrote!r:.40} wrote it in format {format_!r:.40}; this version reads format "
            f"{FORMAT}: update charrnn"
        )
    if {key: type(meta.get(key)) for key in META} != META:
        raise CheckpointError(
            f"its meta must have {', '.join(META)}, with the types that charrnn writes"
        )
    if {key: type(value) for key, value in meta["model"].items()} != SHAPE:
        raise CheckpointError("its meta describes a model that charrnn doesn't know")
    try:
        return meta, ModelConfig(**meta["model"]), Vocabulary(meta["vocabulary"])
    except CharRNNError as error:
        raise CheckpointError(f"its meta cannot be used: {error!s:.200}") from None
