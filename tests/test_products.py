"""Products in blocks are the products, whatever the sizes, and the network's gradients don't depend on the cuts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gradcheck import BROKEN, SOUND, planted

from charrnn import blas
from charrnn.config import CELLS
from charrnn.network import cells, gradcheck, loss, products

SIZES = st.integers(1, 40)


@given(R=SIZES, K=SIZES, P=st.integers(1, 200), small=st.integers(1, 20_000), narrow=st.booleans(), seed=st.integers(0, 99))
def test_a_cut_product_is_the_product(R: int, K: int, P: int, small: int, narrow: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    M, x = rng.integers(-9, 10, (K, R)).astype(np.float32).T, rng.integers(-9, 10, (K, P + 2)).astype(np.float32)[:, 1:-1]
    whole, out = M @ x, np.full((R + 2, P + 3), np.nan, np.float32)  # the result is part of a larger array, and stays in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "multiplies_small_ones_best", lambda: True)
        patch.setattr(products, "SMALL", small)
        patch.setattr(products, "NARROW", 1 << 16 if narrow else 0)
        for multiply in (products.product, lambda M, x, out: products.step_product(M, out)(x)):
            out[:] = np.nan
            multiply(M, x, out[1:-1, 1:-2])
            assert np.array_equal(out[1:-1, 1:-2], whole)
            assert np.isnan(out).sum() == out.size - whole.size


@given(R=st.integers(1, 3000), K=st.integers(1, 3000), B=st.integers(1, 300))
def test_blocks_are_small_and_even(R: int, K: int, B: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "multiplies_small_ones_best", lambda: True)
        rows = products._rows(R, K, B)
    if rows == 0:
        assert products.ROWS * K * B > products.SMALL
        return
    assert rows * K * B <= products.SMALL or rows == R < products.ROWS
    assert rows == R or rows % products.ROWS == 0
    assert -(-R // rows) <= -(-R // (products.SMALL // (K * B) // products.ROWS * products.ROWS))  # no more of them than needed


def test_products_are_cut_only_where_small_ones_are_best(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = 1024, 256, 32
    monkeypatch.setattr(products, "multiplies_small_ones_best", lambda: False)
    assert products._rows(*sizes) == 0
    monkeypatch.setattr(products, "multiplies_small_ones_best", lambda: True)
    assert products._rows(*sizes) == 116


@pytest.mark.parametrize(
    ("kernels", "threads", "best"), [("SkylakeX", 1, True), ("SkylakeX", 2, False), ("Haswell", 1, False), ("", 1, False)]
)
def test_small_products_are_best_with_the_kernels_for_avx512_on_one_thread(
    kernels: str, threads: int, best: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blas, "_controls", lambda: (lambda: threads, lambda count: None, kernels))
    assert blas.multiplies_small_ones_best() is best
    monkeypatch.setattr(blas, "_controls", lambda: None)
    assert not blas.multiplies_small_ones_best()


def test_the_number_of_threads_is_put_back() -> None:
    controls = blas._controls()
    if controls is None:
        pytest.skip("this BLAS has no known way to set its threads")
    before = controls[0]()
    with blas.blas_threads(1):
        assert controls[0]() == 1
    assert controls[0]() == before


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_through_cut_products_pass(cell: str, layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "multiplies_small_ones_best", lambda: True)
    monkeypatch.setattr(products, "SMALL", 64)
    monkeypatch.setattr(products, "COLUMNS", 3)
    assert gradcheck.check_network(cell, layers, dropout=False).error < SOUND  # type: ignore[arg-type]


BUGS = {
    "rest of the rows lost": ("(np.matmul(M_blocks, x, out=out_blocks), np.matmul(M_rest, x, out=out_rest))", "M_rest @ x"),
    "rest of the columns lost": ("for c, n in _cuts(P, COLUMNS):", "for c, n in _cuts(P, COLUMNS)[:1]:"),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_planted_in_a_cut_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = planted(products, *BUGS[bug])
    for name, value in {"multiplies_small_ones_best": lambda: True, "SMALL": 64, "COLUMNS": 4}.items():
        monkeypatch.setitem(broken.__dict__, name, value)
    monkeypatch.setattr(cells, "step_product", broken.step_product)
    monkeypatch.setattr(loss, "product", broken.product)
    with np.errstate(all="ignore"):
        assert not gradcheck.check_network("rnn", 1, dropout=False).error < BROKEN
