"""How training begins: each array's spread, orthogonal W, the forget gate."""

import numpy as np
import pytest

from charrnn.config import CELLS, ModelConfig
from charrnn.network.cells import CELL_CLASSES
from charrnn.network.parameters import initialize

H, N = 64, 200


@pytest.mark.parametrize("cell", CELLS)
def test_weights_have_the_spread_that_their_layer_needs(cell):
    config = ModelConfig(cell, H, 3)
    parameters = initialize(config, N, np.random.default_rng(0))
    spread = {"layers.0.V": 0.1, "layers.1.V": H**-0.5, "layers.2.V": H**-0.5}
    spread["U"] = 0.02 * (128 / H) ** 0.5
    for name, expected in spread.items():
        assert parameters[name].std() == pytest.approx(expected, rel=0.05), name
        assert abs(parameters[name].mean()) < 0.05 * expected, name


@pytest.mark.parametrize("cell", CELLS)
def test_w_is_orthogonal_gate_by_gate_and_only_the_forget_gate_is_open(cell):
    config = ModelConfig(cell, H, 2)
    parameters = initialize(config, N, np.random.default_rng(0), dtype=np.float64)
    for layer in range(2):
        blocks = parameters[f"layers.{layer}.W"].reshape(-1, H, H)
        np.testing.assert_allclose(
            blocks @ blocks.mT, np.tile(np.eye(H), (len(blocks), 1, 1)), atol=1e-12
        )
        b_h = parameters[f"layers.{layer}.b_h"].reshape(-1, H)
        assert [set(gate) for gate in b_h.tolist()] == [
            {float(g == "f")} for g in CELL_CLASSES[config.cell].gates
        ]
    assert not parameters["b_y"].any()
