"""Models on disk: one .npz with the arrays, the vocabulary and what is known of the run.

Key `meta` holds JSON, the parameters have their own names, `resume.…` holds what only going on with a run needs. A file may
come from a stranger: nothing in it is executed, and every key, shape and dtype is checked against what its meta says before
memory is set aside. A CheckpointError says in one line what is wrong, beginning with the file's name.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import __version__
from charrnn.checkpoint.atomic_write import FilePath, atomic_write
from charrnn.checkpoint.npz import Archive, Member, opened, write
from charrnn.config import CELLS, MOST_HIDDEN, MOST_LAYERS, ModelConfig
from charrnn.errors import CheckpointError, VocabularyError
from charrnn.network.parameters import Parameters, shapes
from charrnn.text.vocabulary import Vocabulary, printable

Array = NDArray[Any]
FORMAT = 1
RESUME = "resume."
RESUME_KINDS = ("<f4", "<f8", "<i8", "|u1", "|b1")
MAX_CHARACTERS = 1_114_112  # code points of Unicode
MAX_META = 60_000_000  # bytes: each code point once, escaped (12 characters of 4 bytes), and 6 MB for the rest
MAX_VALUES = 200_000  # commas in meta; a learning curve takes three a point
MAX_NESTED = 100_000  # lists and objects in meta
MAX_DEPTH = 32  # of lists and objects within each other
MAX_NUMBER = 301  # characters of a number in meta: an integer that long still has a float
FREE_BYTES, FREE_FACTOR = (
    32 << 20,
    4,
)  # arrays may take this and so many times the file in memory; deflate could give 1,000 times


@dataclass(frozen=True)
class Model:
    """A trained network with its vocabulary and what its checkpoint says of it."""

    config: ModelConfig
    vocabulary: Vocabulary
    parameters: Parameters
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def of_lines(self) -> bool:
        """Return whether every line was an item of its own in training, so that a newline ends what is drawn."""
        training = self.meta.get("training")
        return isinstance(training, dict) and bool(training.get("lines"))

    def __repr__(self) -> str:
        c, loss = self.config, self.meta.get("val_loss")
        known = f", {loss:.3f} nats per character on validation" if isinstance(loss, float) else ""
        return (
            f"<charrnn.Model: {c.cell}, {c.layers} layer{'s' * (c.layers > 1)} of {c.hidden}, {len(self.vocabulary)} characters, "
            f"{self.parameters.flat.size:,} parameters{known}>"
        )


def save(
    path: FilePath, model: Model, resume: Mapping[str, Array] | None = None, *, half: bool = False
) -> None:
    """Write `model`, and `resume` under `resume.…`, to `path`: all of it or, with a CheckpointError, nothing.

    Equal content gives equal bytes. `half`: parameters as float16, half the size. `model.meta` gives "training" and whatever
    else is known of the run; numbers in it that are not finite are written as null.
    """
    extra = {
        f"{RESUME}{name}": _little_endian(name, array) for name, array in (resume or {}).items()
    }
    with _named(path):
        text = json.dumps(_meta(model))
        _understood(text)  # what load would refuse is never written
        with atomic_write(path) as file:
            write(
                file,
                [
                    ("meta", np.array(text)),
                    *_narrow(model.parameters, "<f2" if half else "<f4"),
                    *extra.items(),
                ],
            )


def load(path: FilePath) -> Model:
    """The model at `path`, its parameters in float32; `resume.…` arrays are not read. Raises CheckpointError."""
    with _reading(path) as archive:
        return _model(archive)


def load_resume(path: FilePath) -> tuple[Model, dict[str, Array]]:
    """The model at `path` and its `resume.…` arrays by their names without that. Raises CheckpointError."""
    with _reading(path) as archive:
        model = _model(archive)
        return model, _resume(archive, model.parameters.flat.nbytes)


def shipped_model() -> Path | None:
    """The model that comes with charrnn, None while there is none."""
    return next(iter(sorted((Path(__file__).parents[1] / "models").glob("*.npz"))), None)


@contextmanager
def _named(path: FilePath) -> Iterator[None]:
    """Put the file's name before a CheckpointError's reason, unless it is there already."""
    name = printable(os.fspath(path))
    try:
        yield
    except CheckpointError as error:
        raise (
            error if str(error).startswith(f"{name}: ") else CheckpointError(f"{name}: {error}")
        ) from None


@contextmanager
def _reading(path: FilePath) -> Iterator[Archive]:
    with _named(path):
        try:
            with opened(path) as archive:
                yield archive
        except FileNotFoundError:
            raise CheckpointError("there is no such file; charrnn train makes one") from None
        except OSError as error:
            raise CheckpointError(
                f"cannot be read: {error.strerror or type(error).__name__}"
            ) from None
        except MemoryError:
            raise CheckpointError("there isn't enough memory for this model") from None


def _meta(model: Model) -> dict[str, Any]:
    """What is known of the run, under the keys that only the model itself can say."""
    own = {
        "format": FORMAT,
        "version": __version__,
        "model": asdict(model.config),
        "training": model.meta.get("training", {}),
        "vocabulary": model.vocabulary.characters,
    }
    meta: dict[str, Any] = _plain(own | model.meta | own)  # own first, in order, and own in the end
    return meta


def _plain(value: Any) -> Any:
    """`value` as JSON can say it: NumPy's numbers as Python's, tuples as lists, NaN and infinities as None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _little_endian(name: str, array: Array) -> Array:
    kind = array.dtype.newbyteorder("<")
    if kind.str not in RESUME_KINDS or not re.fullmatch("[A-Za-z0-9_.]+", name):
        raise ValueError(
            f"resume array {name!r} of {array.dtype} cannot be saved; expected {', '.join(RESUME_KINDS)}"
        )
    return array.astype(kind, copy=False)


def _narrow(parameters: Parameters, kind: str) -> Iterator[tuple[str, Array]]:
    """The parameters in `kind`; CheckpointError if one has a number that is not finite there."""
    for key, view in parameters.items():
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            array = view.astype(kind)
        if not np.isfinite(array).all():
            raise CheckpointError(
                f"not written, nothing there was changed: {key!r} isn't finite in {array.dtype}"
            )
        yield key, array


def _model(archive: Archive) -> Model:
    meta, config, vocabulary = _understood(_text(archive))
    expected = shapes(config, len(vocabulary))
    _check_keys(archive, expected, config)
    members = [archive.member(key) for key in expected]
    for member in members:
        member.require(("<f4", "<f2"), expected[member.key])
    _check_size(archive, 4 * sum(math.prod(shape) for shape in expected.values()))
    parameters = Parameters(config, len(vocabulary))
    for member in members:
        _fill(parameters[member.key].reshape(-1), member)
    return Model(config, vocabulary, parameters, meta)


def _check_keys(archive: Archive, expected: Mapping[str, Any], config: ModelConfig) -> None:
    for key in archive:
        if key != "meta" and key not in expected and not (key.startswith(RESUME) and key != RESUME):
            layers = f"{config.layers} layer{'s' * (config.layers > 1)}"
            raise CheckpointError(
                f"{key!r} does not belong to a {config.cell} of {layers}, which the meta says it is"
            )


def _check_size(archive: Archive, wanted: int) -> None:
    """Refuse more bytes of arrays than a file of this length can honestly hold."""
    allowed = FREE_BYTES + FREE_FACTOR * archive.length
    if wanted > allowed:
        raise CheckpointError(
            f"its arrays would take {wanted:,} bytes; a file of {archive.length:,} may have {allowed:,}"
        )


def _fill(flat: Array, member: Member) -> None:
    start = 0
    for block in member.blocks():
        numbers = np.frombuffer(block, member.kind)
        if not np.isfinite(numbers).all():
            raise CheckpointError(f"{member.key!r} has NaN or infinite numbers")
        flat[start : start + numbers.size] = numbers
        start += numbers.size


def _resume(archive: Archive, taken: int) -> dict[str, Array]:
    members = [archive.member(key) for key in archive if key.startswith(RESUME)]
    for member in members:
        member.require(RESUME_KINDS)
        taken += member.itemsize * math.prod(
            max(1, size) for size in member.shape
        )  # (0, 10**15) has no bytes, yet is absurd
    _check_size(archive, taken)
    return {member.key.removeprefix(RESUME): _array(member) for member in members}


def _array(member: Member) -> Array:
    data = np.empty(member.nbytes, np.uint8)
    start = 0
    for block in member.blocks():
        data[start : start + len(block)] = np.frombuffer(block, np.uint8)
        start += len(block)
    if member.kind == "|b1" and data.size and data.max() > 1:
        raise CheckpointError(f"{member.key!r} has truth values that are neither 0 nor 1")
    kind = np.dtype(member.kind)
    return data.view(kind).reshape(member.shape).astype(kind.newbyteorder("="), copy=False)


def _text(archive: Archive) -> str:
    """The JSON of meta."""
    member = archive.member("meta")
    member.require(("<U",), ())
    if member.nbytes > MAX_META:
        raise CheckpointError(
            f"its meta has {member.nbytes:,} bytes; at most {MAX_META:,} are read"
        )
    _check_size(archive, member.nbytes)
    try:
        return "".join(block.decode("utf-32-le") for block in member.blocks()).rstrip("\0")
    except UnicodeDecodeError:
        raise CheckpointError("its meta is not Unicode text") from None


def _understood(text: str) -> tuple[dict[str, Any], ModelConfig, Vocabulary]:
    """What the JSON of `meta` says, and the model's configuration and vocabulary in it; CheckpointError unless as ours."""
    meta = _json(text)
    if _deep(meta):
        raise CheckpointError("its meta is nested too deeply")
    if not isinstance(meta, dict):
        raise CheckpointError("its meta is not a JSON object")
    number, version = meta.get("format"), meta.get("version")
    if type(number) is not int or number < 1 or not isinstance(version, str):
        raise CheckpointError('its meta has no "format" number with a "version" of charrnn')
    if number > FORMAT:
        newer = f"made by a newer charrnn ({_shown(version)}, format {_shown(number)})"
        raise CheckpointError(f"{newer}; this one reads format {FORMAT}: update it")
    if not isinstance(meta.get("training"), dict):
        raise CheckpointError('"training" in its meta is not an object')
    return meta, _config(meta.get("model")), _vocabulary(meta.get("vocabulary"))


def _json(text: str) -> Any:
    if (
        len(text) * 4 > MAX_META
        or text.count(",") > MAX_VALUES
        or text.count("[") + text.count("{") > MAX_NESTED
    ):
        raise CheckpointError(
            f"its meta is too large ({len(text):,} characters, {text.count(','):,} commas)"
        )
    try:
        return json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_number)
    except ValueError as error:
        raise CheckpointError(f"its meta is not valid JSON: {error}") from None
    except RecursionError:
        raise CheckpointError("its meta is nested too deeply") from None


def _deep(value: object, left: int = MAX_DEPTH) -> bool:
    """Whether lists and objects lie within each other more than `left` times."""
    if not isinstance(value, list | dict):
        return False
    return left == 0 or any(
        _deep(item, left - 1) for item in (value.values() if isinstance(value, dict) else value)
    )


def _shown(value: object) -> str:
    """A value out of meta for a message: short, on one line."""
    text = (
        repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    )
    return text if len(text) <= 40 else f"{text[:40]}…"


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _number(text: str) -> float:
    number = float(text) if len(text) <= MAX_NUMBER else math.inf
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _config(model: object) -> ModelConfig:
    if not isinstance(model, dict) or model.keys() != {"cell", "hidden", "layers"}:
        raise CheckpointError(
            '"model" in its meta is not an object of "cell", "hidden" and "layers"'
        )
    if not isinstance(model["cell"], str) or model["cell"] not in CELLS:
        raise CheckpointError(
            f"the cell in its meta is {_shown(model['cell'])}; expected one of {', '.join(CELLS)}"
        )
    for name, most in (("hidden", MOST_HIDDEN), ("layers", MOST_LAYERS)):
        if type(model[name]) is not int or not 1 <= model[name] <= most:
            raise CheckpointError(
                f'"{name}" in its meta is {_shown(model[name])}; expected a whole number from 1 to {most:,}'
            )
    return ModelConfig(**model)


def _vocabulary(characters: object) -> Vocabulary:
    if not isinstance(characters, str) or not 1 <= len(characters) <= MAX_CHARACTERS:
        raise CheckpointError(
            f"the vocabulary in its meta is not a string of 1 to {MAX_CHARACTERS:,} characters"
        )
    try:
        return Vocabulary(characters)
    except VocabularyError as error:
        raise CheckpointError(f"the vocabulary in its meta: {error}") from None
