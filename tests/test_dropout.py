"""Dropout masks: how often they drop, what they scale by, and that a column's mask is its own."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from charrnn.config import TrainConfig
from charrnn.network.dropout import Masks, draw_masks
from charrnn.network.parameters import shapes


def config(cell="gru", hidden=5, layers=2, **more):
    options = {"dropout": 0.4, "seed": 1, "dtype": "float32", **more}
    return TrainConfig(cell=cell, hidden=hidden, layers=layers, **options)


def drawn(columns, step=2, **more):
    return draw_masks(config(**more), 7, step, 3, columns)


@settings(max_examples=60, deadline=None)
@given(B=st.integers(1, 70), cuts=st.lists(st.integers(1, 69), max_size=5), step=st.integers(0, 3))
def test_any_split_of_the_columns_gives_the_same_masks(B, cuts, step):
    whole = drawn(slice(0, B), step=step)
    ends = [0, *sorted({cut for cut in cuts if cut < B}), B]
    parts = [drawn(slice(start, stop), step=step) for start, stop in pairwise(ends)]
    for layer, mask in enumerate(whole.h):
        assert mask.shape == (5, 3, B)
        np.testing.assert_array_equal(np.concatenate([p.h[layer] for p in parts], axis=-1), mask)
    for part in parts:
        for name, mask in whole.weights.items():
            np.testing.assert_array_equal(part.weights[name], mask)


def test_w_and_each_v_that_reads_h_have_a_mask_on_their_entries():
    weights, sizes = drawn(slice(0, 4)).weights, shapes(config().model, 7)
    assert {name: mask.shape for name, mask in weights.items()} == {
        name: sizes[name] for name in ("layers.0.W", "layers.1.V", "layers.1.W")
    }


@pytest.mark.parametrize("p", [0.01, 0.3, 0.95])
def test_a_mask_drops_a_share_p_and_scales_the_rest_so_that_the_mean_is_1(p):
    masks = draw_masks(config("rnn", 128, 1, dropout=p), 7, 0, 64, slice(3, 67))
    for mask in (*masks.h, *masks.weights.values()):
        assert len(np.unique(mask)) == 2
        assert float((mask == 0).mean()) == pytest.approx(p, abs=0.01)
        assert float(mask.mean()) == pytest.approx(1, abs=0.05)
        assert mask.dtype == np.float32


def test_masks_differ_by_seed_step_layer_and_column():
    options = [{}, {"seed": 2}, {"step": 3}]
    masks = [mask for more in options for mask in drawn(slice(0, 24), **more).h]
    blocks = [mask[..., start : start + 8].tobytes() for mask in masks for start in (0, 8, 16)]
    assert len(set(blocks)) == len(blocks)


def test_without_masks_nothing_is_dropped():
    assert drawn(slice(0, 4), dropout=0.0) == Masks()


def test_every_mask_is_drawn_from_random_numbers_of_its_own():
    masks = draw_masks(config("rnn", 64, 3, dropout=0.5), 7, 2, 4, slice(0, 8))
    drawn = [mask.ravel()[: 64 * 4 * 8] for mask in (*masks.h, *masks.weights.values())]
    drawn += [mask[:, :, column].ravel() for mask in masks.h for column in (0, 1)]
    for one, other in combinations(drawn, 2):
        shared = min(one.size, other.size)
        assert 0.3 < np.mean(one[:shared] == other[:shared]) < 0.7
