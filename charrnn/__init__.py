"""charrnn: a character-level text generator built on recurrent networks in pure NumPy.

```python
import charrnn

for event in charrnn.train(["corpus.txt"], charrnn.TrainConfig(steps=1000)):
    print(event)
model = charrnn.load("model.npz")
print("".join(model.sample(prime="ROMEO:", length=200)))
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
_PUBLIC = {  # the public names of each module
    "checkpoint.model": "Model load save",
    "config": "ModelConfig SampleConfig TrainConfig",
    "errors": "CharRNNError",
    "network.gradcheck": "gradcheck",
    "sampling.sampling": "Sample likeliest sample sample_many",
    "sampling.scoring": "Score score",
    "text.vocabulary": "Vocabulary",
    "training.events": "Done Event Notice Sampled Saved Start Step Validated Validating",
    "training.loop": "train",
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names.split()}
__all__ = ["__version__", *_MODULES]

if TYPE_CHECKING:  # "X as X" marks a public name for type checkers
    from charrnn.checkpoint.model import Model as Model, load as load, save as save
    from charrnn.config import (
        ModelConfig as ModelConfig,
        SampleConfig as SampleConfig,
        TrainConfig as TrainConfig,
    )
    from charrnn.errors import CharRNNError as CharRNNError
    from charrnn.network.gradcheck import gradcheck as gradcheck
    from charrnn.sampling.sampling import (
        Sample as Sample,
        likeliest as likeliest,
        sample as sample,
        sample_many as sample_many,
    )
    from charrnn.sampling.scoring import Score as Score, score as score
    from charrnn.text.vocabulary import Vocabulary as Vocabulary
    from charrnn.training.events import (
        Done as Done,
        Event as Event,
        Notice as Notice,
        Sampled as Sampled,
        Saved as Saved,
        Start as Start,
        Step as Step,
        Validated as Validated,
        Validating as Validating,
    )
    from charrnn.training.loop import train as train


def __getattr__(name: str) -> Any:
    """Return a public name, imported on first use so that `--help` doesn't load NumPy."""
    if name not in _MODULES:
        raise AttributeError(f"module 'charrnn' has no attribute {name!r}")
    value = getattr(import_module(f"charrnn.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
