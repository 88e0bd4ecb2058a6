"""Anyone can read a checkpoint: a reader written with NumPy alone from the README's table agrees
with `eval`.
"""

import json
from itertools import pairwise

import numpy as np
import pytest

import charrnn
from charrnn.config import CELLS, TrainConfig
from charrnn.training.events import Done


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def read_and_score(path, text):
    """Return the mean nats per character; knows the file alone, nothing of the package."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {
            key: file[key].astype(float)
            for key in file.files
            if key != "meta" and not key.startswith("resume.")
        }
        meta = json.loads(str(file["meta"]))
    cell, H, L = meta["model"]["cell"], meta["model"]["hidden"], meta["model"]["layers"]
    index = {char: i for i, char in enumerate(meta["vocabulary"])}
    h, c, nats = np.zeros((L, H)), np.zeros((L, H)), 0.0
    for now, after in pairwise(text):
        for layer in range(L):
            V, W, b_h = (arrays[f"layers.{layer}.{name}"] for name in ("V", "W", "b_h"))
            x = V[:, index[now]] if layer == 0 else V @ h[layer - 1]
            a, Wh = x + b_h, W @ h[layer]
            if cell == "rnn":
                h[layer] = np.tanh(a + Wh)
            elif cell == "gru":
                r, z = sigmoid(a[:H] + Wh[:H]), sigmoid(a[H : 2 * H] + Wh[H : 2 * H])
                n = np.tanh(a[2 * H :] + r * Wh[2 * H :])
                h[layer] = (1 - z) * n + z * h[layer]
            else:
                i, f, o = (sigmoid((a + Wh)[k * H : (k + 1) * H]) for k in range(3))
                c[layer] = f * c[layer] + i * np.tanh((a + Wh)[3 * H :])
                h[layer] = o * np.tanh(c[layer])
        logits = arrays["U"] @ h[-1] + arrays["b_y"]
        y_hat = np.exp(logits - logits.max())
        nats -= float(np.log(y_hat[index[after]] / y_hat.sum()))
    return nats / (len(text) - 1)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_reader_of_ones_own_finds_the_same_loss(cell, layers, tmp_path):
    text = (
        "she sells sea shells by the sea shore; the shells she sells are sea shells, I'm sure.\n"
        * 20
    )
    corpus, out = tmp_path / "shells.txt", tmp_path / "m.npz"
    corpus.write_text(text, encoding="utf-8")
    config = TrainConfig(
        out=out, cell=cell, layers=layers, hidden=20, steps=60, batch_size=4, seq_len=16, lr=1e-2
    )
    events = list(charrnn.train([corpus], config))
    assert isinstance(events[-1], Done)
    score = charrnn.score(charrnn.load(out), text[:700])
    assert score.nats.shape == (699,)
    assert score.mean == pytest.approx(read_and_score(out, text[:700]), abs=1e-5)
    assert score.bpc == pytest.approx(score.mean / np.log(2))
    assert score.perplexity == pytest.approx(np.exp(score.mean))


def test_validation_loss_is_that_of_the_named_arrays_read_as_streams(tmp_path):
    text = "".join(chr(97 + k) for k in np.random.default_rng(0).integers(0, 7, 4000))
    corpus, out = tmp_path / "random.txt", tmp_path / "m.npz"
    corpus.write_text(text, encoding="utf-8")
    config = TrainConfig(out=out, hidden=16, steps=40, batch_size=8, seq_len=16, val_every=15)
    done = list(charrnn.train([corpus], config))[-1]
    assert isinstance(done, Done)
    model, validation = charrnn.load(out), text[3600:]
    n, streams = len(validation), min(64, len(validation) // 65)
    pieces = [validation[b * n // streams : (b + 1) * n // streams] for b in range(streams)]
    nats = np.concatenate([charrnn.score(model, piece).nats for piece in pieces])
    assert nats.size == n - streams
    assert done.val_loss == pytest.approx(float(nats.mean()), abs=1e-6)
