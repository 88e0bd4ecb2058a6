"""PyTorch's own layers at charrnn's work, for `pytorch.py`: needs torch alone. Prints one JSON
object.

train: characters per second, the median over the steps of forward, backward, clip and a fused Adam
step. sample: characters per second of one stream, the fastest of the layer and the cell on one
thread and on all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# torch is not among what charrnn needs, so types stay unknown here
# mypy: disable-error-code="import-not-found,misc,untyped-decorator"

LAYERS = {"rnn": (nn.RNN, nn.RNNCell), "gru": (nn.GRU, nn.GRUCell), "lstm": (nn.LSTM, nn.LSTMCell)}


class Network(nn.Module):
    """One-hot characters through a recurrent layer to logits; x (T, B)."""

    def __init__(self, cell: str, H: int, N: int) -> None:
        super().__init__()
        self.register_buffer("onehot", torch.eye(N))
        self.recurrent = LAYERS[cell][0](N, H)
        self.output = nn.Linear(H, N)

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        h, state = self.recurrent(self.onehot[x], state)
        return self.output(h), state


def detach(state: Any) -> Any:
    """Return the state cut off from the chunk before."""
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def train(cell: str, H: int, N: int, B: int, T: int, steps: int) -> float:
    """Return characters per second."""
    network = Network(cell, H, N)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, fused=True)
    text = torch.randint(N, (T + 1, B))
    state, seconds = None, []
    for _ in range(steps + 5):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        logits, state = network(text[:-1], state)
        state = detach(state)
        nn.functional.cross_entropy(logits.reshape(-1, N), text[1:].reshape(-1)).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return T * B / statistics.median(seconds[5:])


def drawers(cell: str, H: int, N: int) -> list[Callable[[int], None]]:
    """Return two functions that draw n characters one by one: with the layer, and with the cell."""
    whole, single, output, onehot = (
        LAYERS[cell][0](N, H),
        LAYERS[cell][1](N, H),
        nn.Linear(H, N),
        torch.eye(N),
    )

    def draw(h: torch.Tensor) -> int:
        return int(torch.multinomial(torch.softmax(output(h).view(-1) / 0.8, 0), 1))

    def with_layer(n: int) -> None:
        index, state = 0, None
        for _ in range(n):
            h, state = whole(onehot[index].view(1, 1, N), state)
            index = draw(h)

    def with_cell(n: int) -> None:
        index, state = 0, None
        for _ in range(n):
            state = single(onehot[index].view(1, N), state)
            index = draw(state[0] if isinstance(state, tuple) else state)

    return [with_layer, with_cell]


@torch.inference_mode()
def sample(cell: str, H: int, N: int, length: int) -> float:
    """Return characters per second, by the faster way and number of threads."""
    least = float("inf")
    for threads in {1, torch.get_num_threads()}:
        torch.set_num_threads(threads)
        for draw in drawers(cell, H, N):
            draw(50)
            start = time.perf_counter()
            draw(length)
            least = min(least, time.perf_counter() - start)
    return length / least


def main() -> None:
    """Do the work that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["train", "sample"])
    parser.add_argument("--cell", choices=list(LAYERS), default="lstm")
    for name, value in (
        ("hidden", 256),
        ("symbols", 65),
        ("batch-size", 64),
        ("seq-len", 64),
        ("steps", 40),
        ("length", 4000),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if a.work == "train":
        speed = train(a.cell, a.hidden, a.symbols, a.batch_size, a.seq_len, a.steps)
    else:
        speed = sample(a.cell, a.hidden, a.symbols, a.length)
    print(json.dumps({"chars_per_second": speed, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
