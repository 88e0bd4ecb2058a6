"""What a run uses where nothing was asked for."""

import json
import math
import timeit
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from charrnn.config import OPTIMIZERS, OPTIONS, ModelConfig, TrainConfig
from charrnn.errors import UsageError
from charrnn.network.loss import BLOCK
from charrnn.network.parameters import parameter_count
from charrnn.training import defaults
from charrnn.training.defaults import (
    OPERATIONS,
    characters_per_second,
    chosen_dropout,
    chosen_hidden,
    chosen_rate,
    chosen_workers,
    memory_bytes,
    resolve,
)
from charrnn.training.optimizers import OPTIMIZER_CLASSES
from charrnn.training.setup import prepare


@pytest.fixture(autouse=True)
def known_machine(monkeypatch):
    monkeypatch.setattr(defaults, "measured_flops", lambda: 80e9)


def chosen(characters=1_000_000, *, validation=None, processors=2, item=None, **options):
    """Return the configuration of a run of which `options` are given."""
    validation = characters // 9 if validation is None else validation
    return resolve(
        TrainConfig(**{"workers": "auto"} | options),
        characters=characters,
        validation=validation,
        N=65,
        processors=processors,
        item=item,
    )


def test_at_a_given_number_of_steps_sizes_are_the_documented_ones():
    config = chosen(steps=1000)
    assert (config.hidden, config.layers, config.batch_size, config.seq_len) == (256, 1, 64, 64)
    assert config.steps == 1000
    assert config.budget is None


def test_no_length_at_all_is_three_minutes():
    assert chosen().budget == 180


def test_a_longer_budget_gives_a_wider_network_with_more_dropout():
    runs = [chosen(budget=seconds) for seconds in (30, 180, 900, 3600)]
    assert [run.hidden for run in runs] == sorted({run.hidden for run in runs})
    assert [run.dropout for run in runs] == sorted(run.dropout for run in runs)


@given(
    st.sampled_from(["hidden", "batch_size", "seq_len"]), st.integers(1, 700), st.floats(1, 10_000)
)
def test_what_was_asked_for_is_never_overridden(name, value, budget):
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
def test_other_options_are_never_overridden_either(name, value):
    assert getattr(chosen(budget=60, **{name: value}), name) == value


@given(st.floats(1e9, 1e20), st.floats(1e9, 1e20))
def test_more_operations_never_give_a_narrower_network(one, other):
    few, many = sorted((one, other))
    assert chosen_hidden(few, 10**9) <= chosen_hidden(many, 10**9)


@pytest.mark.parametrize(("characters", "width"), [(1, 32), (450, 32), (4_500, 96), (10**6, 256)])
def test_a_short_text_gets_a_narrow_network(characters, width):
    assert chosen_hidden(OPERATIONS, characters) == width


@pytest.mark.parametrize(
    ("characters", "decay"), [(100, 0.2), (1_000, 0.2), (10_000, 0.02), (10**9, 0.02)]
)
def test_weights_decay_more_on_a_short_text(characters, decay):
    assert chosen(characters, steps=1).weight_decay == decay
    assert chosen(characters, steps=1, optimizer="sgd").weight_decay == 0


AMOUNTS = st.integers(1, 10**8)


@given(st.floats(0, 1e6), st.floats(0, 1e6), AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_reading_more_often_with_more_parameters_or_in_a_shorter_text_never_gives_less_dropout(
    one, other, few, many, short, long
):
    few, many = sorted((few, many))
    short, long = sorted((short, long))
    less = chosen_dropout(min(one, other), few, long)
    more = chosen_dropout(max(one, other), many, short)
    assert 0 <= less <= more <= 0.7


def auto_workers(H, B, processors):
    config = TrainConfig(hidden=H, batch_size=B, workers="auto", ranks=1)
    return chosen_workers(config, processors)


@given(st.integers(1, 1024), st.integers(1, 1024), st.integers(1, 128))
def test_workers_are_no_more_than_processors_and_streams(H, B, processors):
    assert 1 <= auto_workers(H, B, processors) <= min(processors, B)


@pytest.mark.parametrize(("small", "workers"), [(False, [1, 1, 1, 2]), (True, [1, 2, 2, 2])])
def test_fewer_columns_make_two_workers_where_the_blas_has_kernels_for_them(
    small, workers, monkeypatch
):
    monkeypatch.setattr(defaults, "has_small_kernels", lambda: small)
    assert [auto_workers(512, B, 2) for B in (3, 4, 15, 16)] == workers
    assert [auto_workers(32, B, 2) for B in (16, 32, 48, 64)] == (
        [1, 2, 2, 2] if small else [1, 1, 1, 2]
    )


@pytest.mark.parametrize(("name", "most"), [("hidden", 1_000_000), ("layers", 300)])
def test_a_model_larger_than_a_checkpoint_may_claim_is_refused_at_once(name, most):
    assert getattr(ModelConfig(**{name: most}), name) == most
    for config in (ModelConfig, TrainConfig):
        with pytest.raises(UsageError, match=f"--{name} is .*at most {most}"):
            config(**{name: most + 1})


def test_nothing_is_left_to_choose_but_the_length():
    for options in ({}, {"steps": 7}, {"epochs": 0.5}):
        config = chosen(**options)
        open_fields = {f.name for f in OPTIONS if getattr(config, f.name) is None}
        assert open_fields <= {
            "init_from",
            "encoding",
            "budget",
            "epochs",
            "steps",
            "val_characters",
        }
        assert len({"budget", "epochs", "steps"} - open_fields) == 1


def test_a_kept_configuration_comes_back_as_it_was():
    config = chosen(budget=60)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_a_field_that_an_older_checkpoint_lacks_takes_the_value_that_keeps_its_behaviour(
    monkeypatch,
):
    kept = chosen(steps=5).as_dict()
    del kept["clip"]
    with pytest.raises(KeyError):
        TrainConfig.from_dict(kept)
    option = next(f for f in OPTIONS if f.name == "clip")
    monkeypatch.setattr(option, "metadata", {**option.metadata, "before": 0.25})
    assert TrainConfig.from_dict(kept).clip == 0.25


@pytest.mark.parametrize("wrong", [{"new": 1}, {"hidden": "wide"}, {"hidden": 0}, {"cell": "x"}])
def test_a_kept_configuration_that_no_run_can_have_is_refused(wrong):
    with pytest.raises((KeyError, TypeError, UsageError)):
        TrainConfig.from_dict(chosen(steps=5).as_dict() | wrong)


@pytest.mark.parametrize("batch_size", [33, 64, 256])
def test_dropout_sees_the_streams_that_a_short_text_gets(batch_size):
    alike = [chosen(20_000, hidden=128, steps=500, batch_size=b).dropout for b in (307, 1000)]
    assert alike[0] == alike[1]
    assert chosen(20_000, hidden=128, steps=500, batch_size=batch_size).dropout <= alike[0]


def test_steps_on_a_tiny_text_are_as_many_epochs_as_they_read():
    parameters = parameter_count(ModelConfig("lstm", 128, 1), 65)
    expected = chosen_dropout(20, parameters, 11)
    assert chosen(11, hidden=128, steps=20).dropout == pytest.approx(expected, abs=0.011)


@pytest.mark.parametrize("workers", [None, 1, "auto"])
def test_ranks_of_mpi_have_one_worker_each_and_may_be_asked_for_it(workers):
    assert chosen(steps=1, workers=workers, ranks=4).workers == 1
    with pytest.raises(UsageError, match="--workers 2 cannot be used with 4 ranks"):
        prepare([], TrainConfig(steps=1, workers=2, ranks=4))


def test_every_option_that_older_checkpoints_lack_says_what_their_runs_did():
    """An option added after 0.2.0 needs `before`; without it older runs could not be resumed."""
    first = {
        *("init_from", "cell", "hidden", "layers", "dropout", "budget", "epochs", "steps"),
        *("batch_size", "seq_len", "lr", "optimizer", "clip", "val_fraction", "seed", "workers"),
        *("encoding", "lines", "sample_every", "val_every", "val_characters", "save_every"),
        "dtype",
    }
    assert [f.name for f in OPTIONS if f.name not in first and "before" not in f.metadata] == []


@pytest.mark.parametrize(("cell", "share"), [("rnn", 0.28), ("gru", 0.8), ("lstm", 1.0)])
def test_the_rate_is_the_optimizers_by_cell_and_adams_falls_with_the_width(cell, share):
    rates = {name: OPTIMIZER_CLASSES[name].lr for name in OPTIMIZERS}
    assert chosen_rate("sgd", cell, 512) == rates["sgd"]
    for name in ("rmsprop", "adagrad"):
        assert chosen_rate(name, cell, 512) == pytest.approx(share * rates[name], rel=0.05)
    for H, factor in ((64, 1.5), (256, 1.0), (512, 0.5), (2048, 0.125)):
        expected = factor * share * rates["adam"]
        assert chosen_rate("adam", cell, H) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("optimizer", "moments"), [("adam", 2), ("sgd", 1), ("rmsprop", 1)])
@pytest.mark.parametrize("workers", [1, 3])
def test_memory_counts_every_twin_of_the_parameters(optimizer, moments, workers):
    def needed(hidden):
        config = chosen(steps=1, hidden=hidden, optimizer=optimizer, dropout=0, seq_len=1)
        return memory_bytes(config, 65, workers)

    def parameters(hidden):
        return parameter_count(ModelConfig("lstm", hidden), 65)

    growth = 4 * (5 * workers + 4 + moments) * (parameters(4000) - parameters(2000))
    assert needed(4000) - needed(2000) == pytest.approx(growth, rel=0.01)


def test_memory_counts_the_moments_that_an_optimizer_names(monkeypatch):
    def needed(optimizer):
        return memory_bytes(chosen(steps=1, hidden=500, optimizer=optimizer), 65, 1)

    monkeypatch.setattr(OPTIMIZER_CLASSES["sgd"], "names", "mv")
    assert needed("sgd") == needed("adam")


@pytest.mark.parametrize("workers", [1, 3])
def test_memory_counts_a_block_of_probabilities_for_each_worker(workers):
    def needed(batch_size):
        config = chosen(steps=1, hidden=1, seq_len=1, batch_size=batch_size)
        return memory_bytes(config, 100_000, workers)

    assert needed(1000) - needed(1) == pytest.approx(4 * 2 * (workers * BLOCK - 1e5), rel=0.01)


def test_the_machine_is_measured_by_multiplications_and_additions_a_second(monkeypatch):
    monkeypatch.undo()  # measured_flops itself
    monkeypatch.setattr(timeit, "repeat", lambda multiply, number, repeat: [1.0] * repeat)
    assert defaults.measured_flops() == 2 * 1024 * 256 * 32 * 8  # 8 products took a second


def test_speed_is_guessed_from_operations_a_character():
    model, flops = ModelConfig("rnn", 100, 3), 1e9
    operations = 6 * (100 * 100 * 5 + 65 * 100) + 60 * 100
    speed = characters_per_second(model, 65, 2, flops)
    assert speed == pytest.approx(0.3 * flops * 2 / operations)


@pytest.mark.parametrize(
    ("item", "expected"), [(1000.0, 32), (33.0, 32), (20.0, 64), (8.0, 128), (4.0, 256), (1.5, 256)]
)
def test_short_items_make_steps_of_about_1024_characters(item, expected):
    assert chosen(item=item, budget=60.0).batch_size == expected
    assert chosen(item=item, steps=100).batch_size == 64


@pytest.mark.parametrize(
    ("processors", "B", "rate"),
    [(1, 32, 1), (4, 32, 1), (8, 64, 2**0.5), (16, 128, 2), (64, 128, 2)],
)
def test_more_processors_share_more_streams_at_a_higher_rate_under_a_budget(processors, B, rate):
    lr = OPTIMIZER_CLASSES["adam"].lr
    config = chosen(processors=processors, budget=60.0, hidden=256)
    assert config.batch_size == B
    assert config.lr == pytest.approx(rate * lr, rel=0.05)
    few = chosen(processors=processors, budget=60.0, hidden=256, workers=2)
    assert (few.batch_size, few.workers) == (32, 2)
    steps = chosen(processors=processors, steps=9, hidden=256)
    assert (steps.batch_size, steps.lr) == (64, lr)


@pytest.mark.parametrize("ranks", [1, 8, 20])
def test_each_rank_of_mpi_has_eight_columns(ranks):
    assert chosen(steps=100, ranks=ranks).batch_size == max(64, 8 * ranks)
    assert chosen(budget=60.0, ranks=ranks).batch_size == max(32, 8 * ranks)


def test_dropout_grows_with_the_times_that_a_parameter_sees_a_character():
    little = chosen_dropout(1.0, 1_000, 1_000_000)
    assert little == 0
    grown = [chosen_dropout(2.0**k, 100_000, 100_000) for k in range(2, 12)]
    steps = [b - a for a, b in pairwise(grown)]
    assert steps == pytest.approx([0.055] * len(steps), abs=0.011)
    assert chosen_dropout(1e9, 1_000_000, 10) == 0.7


def test_validation_takes_three_hundredths_of_the_time_and_is_three_times_as_fast():
    for validation in (1_000_000, 10_000_000):
        config = chosen(10 * validation, validation=validation, steps=10**6)
        assert config.val_every == pytest.approx(validation / (0.03 * 3 * 64 * 64), abs=1)
    assert chosen(9_000, validation=1_000, steps=10).val_every == 25


def test_eight_processors_and_no_more_make_a_network_wider():
    widths = [chosen(10**7, processors=n, budget=600.0).hidden for n in (1, 2, 8, 64)]
    assert widths[0] < widths[1] < widths[2] == widths[3]


def test_the_same_budget_gives_a_shorter_text_more_dropout():
    dropouts = [chosen(characters=10**n, budget=600.0, hidden=256).dropout for n in (5, 6, 7)]
    assert dropouts == sorted(set(dropouts), reverse=True)


@pytest.mark.parametrize(
    ("characters", "item", "expected"),
    [
        (10**6, None, 64 * 64),
        (10**6, 8.0, 64 * 8),
        (100, 8.0, 100),
        (1300, None, 1300),
        (65, None, 65),
    ],
)
def test_a_step_reads_what_the_text_has(characters, item, expected):
    config = chosen(characters, validation=0, item=item, steps=1, batch_size=64, seq_len=64)
    assert config.sample_every == math.ceil(400_000 / expected)
