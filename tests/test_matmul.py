"""Products in blocks are the products, whatever the sizes, and gradients don't depend on
the cuts.
"""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from test_gradcheck import BROKEN, SOUND, planted

from charrnn.config import CELLS
from charrnn.network import cells, gradcheck, loss, matmul as products

SIZES = st.integers(1, 40)


@given(
    R=SIZES,
    K=SIZES,
    P=st.integers(1, 200),
    small=st.integers(1, 20_000),
    narrow=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_cut_product_is_the_product(R, K, P, small, narrow, seed):
    rng = np.random.default_rng(seed)
    M = rng.integers(-9, 10, (R, K)).astype(np.float32, order="CF"[seed % 2])
    x = rng.integers(-9, 10, (K, P + 2)).astype(np.float32)[:, 1:-1]
    whole, out = (
        M @ x,
        np.full((R + 2, P + 3), np.nan, np.float32),
    )  # the result is part of a larger array, and stays in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "is_faster_in_blocks", lambda: True)
        patch.setattr(products, "SMALL", small)
        patch.setattr(products, "NARROW", 1 << 16 if narrow else 0)
        for multiply in (products.product, lambda M, x, out: products.step_product(M, out)(x)):
            out[:] = np.nan
            multiply(M, x, out[1:-1, 1:-2])
            assert np.array_equal(out[1:-1, 1:-2], whole)
            assert np.isnan(out).sum() == out.size - whole.size


@pytest.mark.parametrize("shape", [(64, 96, 50), (64, 40, 50), (64, 96, 600)])
def test_a_sum_of_outer_products_is_the_product(shape, monkeypatch):
    monkeypatch.setattr(products, "is_faster_in_blocks", lambda: True)
    (R, C, P), rng = shape, np.random.default_rng(0)
    a, b = (rng.integers(-9, 10, (n, P + 3)).astype(np.float32)[:, 2:-1] for n in (R, C))
    out = np.full((R, C), np.nan, np.float32)
    products.sum_of_outer_products(a, b, out)
    assert np.array_equal(out, a @ b.T)


@given(R=st.integers(1, 3000), K=st.integers(1, 3000), B=st.integers(1, 300))
def test_blocks_are_small_and_even(R, K, B):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "is_faster_in_blocks", lambda: True)
        rows = products._rows(R, K, B)
    most = products.SMALL // (K * B) // products.ROWS * products.ROWS
    if not most:
        assert rows == R
        return
    assert rows == R or rows % products.ROWS == 0
    assert rows <= most
    assert -(-R // rows) == -(-R // most)  # no more of them than needed
    assert rows < R / -(-R // rows) + products.ROWS  # and as even as whole kernels' rows allow


def test_products_are_cut_only_where_small_ones_are_best(monkeypatch):
    sizes = 1024, 256, 32
    monkeypatch.setattr(products, "is_faster_in_blocks", lambda: False)
    assert products._rows(*sizes) == 1024
    monkeypatch.setattr(products, "is_faster_in_blocks", lambda: True)
    assert products._rows(*sizes) == 116


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "small", [64, 256]
)  # cuts the rnn's products, and those of the wider cells, back as well as forth
def test_gradients_through_cut_products_pass(cell, small, monkeypatch):
    real, cuts = products._cuts, []
    monkeypatch.setattr(products, "is_faster_in_blocks", lambda: True)
    monkeypatch.setattr(products, "SMALL", small)
    monkeypatch.setattr(products, "COLUMNS", 4)
    monkeypatch.setattr(
        products, "_cuts", lambda *sizes: cuts.append(list(real(*sizes))) or cuts[-1]
    )
    assert gradcheck.check_network(cell, 2, dropout=False).error < SOUND
    assert any(len(parts) == 2 for parts in cuts)


BUGS = {
    "rest of the rows lost": ("in blocks:", "in blocks[:1]:"),
    "rest of the columns lost": (
        "for c, n in _cuts(P, COLUMNS):",
        "out[r] = 0\n        for c, n in list(_cuts(P, COLUMNS))[:1]:",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_planted_in_a_cut_is_found(bug, monkeypatch):
    broken = planted(products, *BUGS[bug])
    for name, value in {"is_faster_in_blocks": lambda: True, "SMALL": 64, "COLUMNS": 4}.items():
        monkeypatch.setitem(broken.__dict__, name, value)
    monkeypatch.setattr(cells, "step_product", broken.step_product)
    monkeypatch.setattr(loss, "product", broken.product)
    with np.errstate(all="ignore"):
        assert not gradcheck.check_network("rnn", 1, dropout=False).error < BROKEN
