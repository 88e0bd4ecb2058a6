"""The type of an array whose dtype is known only when the program runs."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
