"""The gradient check passes on the code as it is, and fails on every bug planted in it."""

import inspect
from types import ModuleType

import numpy as np
import pytest

from charrnn.config import CELLS, ModelConfig
from charrnn.errors import UsageError
from charrnn.network import cells, gradcheck, loss, network as model
from charrnn.network.parameters import initialize

SOUND, BROKEN = 3e-7, 1e-3


def planted(module, old, new):
    """Return a copy of `module` in which the line of code `old` is `new`."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{source.count(old)} places in {module.__name__} read {old!r}"
    mutant = ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__file__ or "", "exec"), mutant.__dict__)
    return mutant


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dropout", [False, True])
def test_every_parameter_passes(cell, layers, dropout):
    check = gradcheck.check_network(cell, layers, dropout=dropout)
    assert check.error < SOUND
    sizes = {
        name: array.size
        for name, array in initialize(
            ModelConfig(cell, 5, layers), 4, np.random.default_rng(0)
        ).items()
    }
    assert {array.name: array.checked for array in check.arrays} == sizes


def test_the_gradient_of_V_passes_for_many_symbols(monkeypatch):
    monkeypatch.setattr(model, "FEW", 0)
    assert gradcheck.check_network("lstm", 2, dropout=True).error < SOUND


CELL_BUGS = {
    "missing transpose, rnn": (
        "rnn",
        "np.zeros_like(self.Wh)\n        multiply_WT = step_product(W.T, d)",
        "np.zeros_like(self.Wh)\n        multiply_WT = step_product(W, d)",
    ),
    "dropped carry, rnn": (
        "rnn",
        "(1 − h_t²)\n            self.dA[:, t] = dA\n            multiply_WT(dA)",
        "(1 − h_t²)\n            self.dA[:, t] = dA\n            d[:] = 0",
    ),
    "tanh's slope forgotten, rnn": ("rnn", "dA *= d  # dA_t", "dA[:] = d  # dA_t"),
    "slope at h_{t-1}, rnn": (
        "rnn",
        "tanh_derivative(h[t + 1], self.one, out=dA)",
        "tanh_derivative(h[t], self.one, out=dA)",
    ),
    "gate derivative of the wrong gate, lstm": ("lstm", "dA_g *= i", "dA_g *= f"),
    "cell state's carry lost, lstm": ("lstm", "dc *= f", "dc *= 0"),
    "cell state's carry through the wrong gate, lstm": ("lstm", "dc *= f", "dc *= i"),
    "forget gate paired with c_t, lstm": (
        "lstm",
        "np.multiply(dc, c_before, out=dA_f)",
        "np.multiply(dc, self.blocks[4][t + 1], out=dA_f)",
    ),
    "reset product forgotten, gru": (
        "gru",
        "np.multiply(dA_n, r, out=dC_n)",
        "np.multiply(dA_n, 1, out=dC_n)",
    ),
    "direct path to h_{t-1} lost, gru": ("gru", "d += u  #", "pass  #"),
    "update gate's sign, gru": (
        "gru",
        "np.subtract(before, n, out=dC_z)",
        "np.subtract(n, before, out=dC_z)",
    ),
    "reset gate's slope paired with h, gru": (
        "gru",
        "np.multiply(dA_n, q, out=dC_r)",
        "np.multiply(dA_n, before, out=dC_r)",
    ),
}


@pytest.mark.parametrize("bug", CELL_BUGS)
def test_a_bug_planted_in_a_cell_is_found(bug, monkeypatch):
    cell, old, new = CELL_BUGS[bug]
    monkeypatch.setattr(model, "CELL_CLASSES", planted(cells, old, new).CELL_CLASSES)
    assert gradcheck.check_network(cell, 1, dropout=False).error > BROKEN


MODEL_BUGS = {
    "repeats lost in dV": ("dV += part", "dV[:, x[positions]] = dA[:, positions]"),
    "repeats lost in dV of many symbols": (
        "np.add.reduceat(some, starts, axis=1)",
        "some[:, starts]",
    ),
    "dW paired with h_t": ("flat_columns(cell.h[:, :T])\n", "flat_columns(cell.h[:, 1 : T + 1])\n"),
    "mask forgotten on the way back": ("dh *= masks.h[layer]", "pass"),
    "mask of the weights forgotten": ("out[name][:] *= mask\n", "pass\n"),
    "layer below without its mask": (
        "hs[layer - 1], dV=",
        "self._cells(*x.shape)[layer - 1].h[:, 1 : T + 1], dV=",
    ),
    "no gradient to the layer below": ("np.matmul(V.T, dA, out=flat_columns(dx))", "dx[:] = 0"),
    "ends of streams ignored": ("weights *= np.arange(T)[:, None] < lengths", "pass"),
}


@pytest.mark.parametrize("bug", MODEL_BUGS)
def test_a_bug_planted_in_the_network_is_found(bug, monkeypatch):
    broken = planted(model, *MODEL_BUGS[bug])
    monkeypatch.setitem(broken.__dict__, "FEW", 0 if "many symbols" in bug else model.FEW)
    monkeypatch.setattr(gradcheck, "Network", broken.Network)
    assert gradcheck.check_network("lstm", 2, dropout=True).error > BROKEN


def test_the_gru_bias_taken_behind_the_reset_gate_is_found(monkeypatch):
    wrong = "out[b_h][:] = np.concatenate([dC[:, :T].sum(axis=(1, 2)) for _, dC in cell.dC])"
    broken = planted(model, "np.matmul(dA, np.ones(x.size, self.dtype), out=out[b_h])", wrong)
    monkeypatch.setattr(gradcheck, "Network", broken.Network)
    assert gradcheck.check_network("gru", 1, dropout=False).error > BROKEN


LOSS_BUGS = {
    "forgotten mean": ("D *= weight[s]", "pass"),
    "target not subtracted": ("D[y[s], np.arange(y[s].size)] -= 1", "pass"),
    "bias counted once": ("db_y += D.sum(axis=1)", "db_y += D[:, 0]"),
}


@pytest.mark.parametrize("bug", LOSS_BUGS)
def test_a_bug_planted_in_the_loss_is_found(bug, monkeypatch):
    monkeypatch.setattr(model, "losses_backward", planted(loss, *LOSS_BUGS[bug]).losses_backward)
    assert gradcheck.check_network("rnn", 1, dropout=False).error > BROKEN


def test_random_directions_alone_find_a_planted_bug(monkeypatch):
    monkeypatch.setattr(model, "CELL_CLASSES", planted(cells, "dc *= f", "dc *= 0").CELL_CLASSES)
    assert gradcheck.check_network("lstm", 1, dropout=False).direction_error > BROKEN


@pytest.mark.parametrize("cell", CELLS)
def test_trained_weights_are_checked_by_32_elements_of_each_array(cell):
    config = ModelConfig(cell, 12, 2)
    rng = np.random.default_rng(0)
    parameters = initialize(config, 8, rng)
    checked = gradcheck.check_trained(parameters)
    assert checked.error < 1e-6
    assert {array.name: array.checked for array in checked.arrays} == {
        name: min(32, a.size) for name, a in parameters.items()
    }


def test_a_gradient_that_is_not_a_number_never_passes():
    array = gradcheck.ArrayCheck("U", float("nan"), (0,), float("nan"), 0.0, 1)
    assert gradcheck.Check("rnn", 1, False, (array,), 0.0).error == np.inf


def test_a_text_too_short_to_show_bugs_is_refused():
    with pytest.raises(UsageError, match="--seq-len"):
        next(gradcheck.gradcheck(seq_len=2))


@pytest.mark.parametrize("name", ["hidden", "seq_len"])
def test_up_to_64_units_and_characters_are_checked(name, monkeypatch):
    asked = []
    monkeypatch.setattr(gradcheck, "check_network", lambda *_, **sizes: asked.append(sizes[name]))
    assert len([*gradcheck.gradcheck(["rnn"], **{name: 64})]) == 4
    assert asked == [64] * 4
    with pytest.raises(UsageError, match="at most 64"):
        next(gradcheck.gradcheck(**{name: 65}))


def test_a_short_text_repeats_a_symbol_among_its_first_three():
    for seed in range(20):
        x, y = gradcheck.random_text(np.random.default_rng(seed), 50, 8, 2)
        assert len(set(x[:3, 0].tolist())) == 1
        assert x.shape == y.shape == (8, 2)
    x, y = gradcheck.random_text(np.random.default_rng(0), 4, 50, 2)
    assert set(x.ravel().tolist()) == set(y.ravel().tolist()) == {0, 1, 2, 3}


def test_the_sizes_and_the_seed_that_are_documented_are_used():
    def same(**given):
        checks = gradcheck.gradcheck(["rnn"]), gradcheck.gradcheck(["rnn"], **given)
        return [*checks[0]] == [*checks[1]]

    assert same(hidden=5, seq_len=6, seed=0)
    assert not same(seed=1)
    assert gradcheck.check_network("rnn", 1, dropout=False) == gradcheck.check_network(
        "rnn", 1, dropout=False, hidden=5, seq_len=6, seed=0
    )


def test_trained_weights_are_checked_along_8_directions_over_8_characters_and_up_to_64(monkeypatch):
    parameters = initialize(ModelConfig("rnn", 3), 4, np.random.default_rng(0))
    expected = gradcheck.check_trained(parameters, seq_len=8, seed=0)
    assert gradcheck.check_trained(parameters) == expected
    asked = []
    monkeypatch.setattr(gradcheck, "check_direction", lambda *_: asked.append(0) or 0.0)
    gradcheck.check_trained(parameters, seq_len=64)
    assert len(asked) == 8
    with pytest.raises(UsageError, match="at most 64"):
        gradcheck.check_trained(parameters, seq_len=65)
