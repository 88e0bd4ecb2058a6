"""charrnn: a character-level text generator, a recurrent network in pure NumPy.

>>> import charrnn
>>> run = charrnn.train(["corpus.txt"], charrnn.TrainConfig(steps=1000))  # doctest: +SKIP
>>> "".join(charrnn.sample(charrnn.load("model.npz"), prime="ROMEO:", length=200))  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
_PUBLIC = {
    "CharRNNError": "errors",
    "ModelConfig": "config",
    "SampleConfig": "config",
    "TrainConfig": "config",
    "Model": "checkpoint.model",
    "Vocabulary": "text.vocabulary",
    "gradcheck": "network.gradcheck",
    "sample": "sampling.sampling",
    "train": "training.loop",
    "load": "checkpoint.model",
    "save": "checkpoint.model",
    "score": "sampling.scoring",
    "Score": "sampling.scoring",
}
__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from charrnn.checkpoint.model import Model, load, save
    from charrnn.config import ModelConfig, SampleConfig, TrainConfig
    from charrnn.errors import CharRNNError
    from charrnn.network.gradcheck import gradcheck
    from charrnn.sampling.sampling import sample
    from charrnn.sampling.scoring import Score, score
    from charrnn.text.vocabulary import Vocabulary
    from charrnn.training.loop import train


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for, so that `import charrnn` and `--help` don't
    load NumPy.
    """
    if name not in _PUBLIC:
        raise AttributeError(f"module 'charrnn' has no attribute {name!r}")
    value = getattr(import_module(f"charrnn.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
