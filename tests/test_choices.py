"""What a run uses where nothing was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config import ModelConfig, TrainConfig
from charrnn.errors import UsageError
from charrnn.training import defaults as choices
from charrnn.training.defaults import Settings, auto_workers, choose, chosen_dropout, chosen_hidden


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "measured_flops", lambda: 80e9)


def chosen(characters: int = 1_000_000, item: float | None = None, **options: Any) -> Settings:
    config = TrainConfig(workers="auto", **options)
    return choose(
        config, characters=characters, validation=characters // 9, N=65, processors=2, item=item
    )


def test_at_a_given_number_of_steps_sizes_are_the_documented_ones() -> None:
    settings = chosen(steps=1000)
    assert (settings.hidden, settings.layers, settings.batch_size, settings.seq_len) == (
        256,
        1,
        64,
        64,
    )
    assert settings.steps == 1000
    assert settings.budget is None


def test_no_length_at_all_is_three_minutes() -> None:
    assert chosen().budget == 180


def test_a_longer_budget_gives_a_wider_network_with_more_dropout() -> None:
    runs = [chosen(budget=seconds) for seconds in (30, 180, 900, 3600)]
    assert [run.hidden for run in runs] == sorted({run.hidden for run in runs})
    assert [run.dropout for run in runs] == sorted(run.dropout for run in runs)


@given(
    st.sampled_from(["hidden", "batch_size", "seq_len"]), st.integers(1, 700), st.floats(1, 10_000)
)
def test_what_was_asked_for_is_never_overridden(name: str, value: int, budget: float) -> None:
    assert getattr(chosen(budget=budget, **{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dropout", 0.0),
        ("lr", 1e-5),
        ("clip", 0.0),
        ("seed", 7),
        ("val_every", 3),
        ("sample_every", 0),
    ],
)
def test_other_options_are_never_overridden_either(name: str, value: float) -> None:
    assert getattr(chosen(budget=60, **{name: value}), name) == value


@given(st.floats(1e9, 1e20), st.floats(1e9, 1e20))
def test_more_operations_never_give_a_narrower_network(one: float, other: float) -> None:
    assert chosen_hidden(min(one, other)) <= chosen_hidden(max(one, other))


AMOUNTS = st.integers(1, 10**8)


@given(st.floats(0, 1e6), st.floats(0, 1e6), AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_reading_more_often_with_more_parameters_or_in_a_shorter_text_never_gives_less_dropout(
    one: float, other: float, few: int, many: int, short: int, long: int
) -> None:
    few, many = sorted((few, many))
    short, long = sorted((short, long))
    assert (
        0
        <= chosen_dropout(min(one, other), few, long)
        <= chosen_dropout(max(one, other), many, short)
        <= 0.7
    )


@given(st.integers(1, 1024), st.integers(1, 1024), st.integers(1, 128))
def test_workers_are_no_more_than_processors_and_streams(H: int, B: int, processors: int) -> None:
    assert 1 <= auto_workers(H, B, processors) <= min(processors, B)


@pytest.mark.parametrize(("small", "workers"), [(False, [1, 1, 1, 2]), (True, [1, 2, 2, 2])])
def test_fewer_columns_make_two_workers_where_the_blas_has_kernels_for_them(
    small: bool, workers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "has_small_kernels", lambda: small)
    assert [auto_workers(512, B, 2) for B in (3, 4, 15, 16)] == workers
    assert [auto_workers(32, B, 2) for B in (16, 32, 48, 64)] == (
        [1, 2, 2, 2] if small else [1, 1, 1, 2]
    )


@pytest.mark.parametrize(("name", "most"), [("hidden", 1_000_000), ("layers", 300)])
def test_a_model_larger_than_a_checkpoint_may_claim_is_refused_at_once(
    name: str, most: int
) -> None:
    assert getattr(ModelConfig(**{name: most}), name) == most
    for config in (ModelConfig, TrainConfig):
        with pytest.raises(UsageError, match=f"--{name} is .*at most {most}"):
            config(**{name: most + 1})
