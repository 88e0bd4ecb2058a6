"""Drawing: the distribution beside brute force, the stepper beside the equations, samples."""

import dataclasses
import math
from itertools import islice
from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import example, given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from tiny_models import always

import charrnn.sampling.sampling as sampling
from charrnn.checkpoint.model import Model
from charrnn.config import CELLS, ModelConfig, SampleConfig, SampleOptions
from charrnn.errors import CharRNNError, UsageError, VocabularyError
from charrnn.network.parameters import Parameters
from charrnn.sampling import decoding
from charrnn.sampling.decoding import distribution, drawer, unnormalized_probabilities
from charrnn.sampling.sampling import Sample, sample, sample_many
from charrnn.sampling.stepping import Sampler
from charrnn.text.vocabulary import Vocabulary

LETTERS = "\n abcdef"
Array = np.ndarray[Any, Any]


def make(cell="lstm", layers=1, characters=LETTERS, dtype=np.float64, lines=False):
    """Return a model of 12 units with weights large enough that every gate matters."""
    config = ModelConfig(cell=cell, hidden=12, layers=layers)
    parameters = Parameters(config, len(characters), dtype)
    parameters.flat[:] = np.random.default_rng(layers).standard_normal(parameters.flat.size)
    return Model(config, Vocabulary(characters), parameters, {"training": {"lines": lines}})


def slow_logits(model, indices):
    """The oracle's U h + b_y after the characters."""
    *_, (_, logits) = oracle.steps(model.parameters, indices)
    return logits


def slow_distribution(logits, temp, top_k, top_p, min_p):
    """The definition, one number at a time."""
    peak = max(logits)
    p = [math.exp((y - peak) / temp) for y in logits]
    keep = sorted(range(len(p)), key=lambda i: (-logits[i], i))[:top_k]
    if top_p is not None:
        share = math.fsum(p[i] for i in keep) * top_p
        keep = next(
            keep[:n]
            for n in range(1, len(keep) + 1)
            if math.fsum(p[i] for i in keep[:n]) >= share - 1e-15
        )
    kept = [i for i in keep if p[i] >= (min_p or 0) * max(p)]
    total = math.fsum(p[i] for i in kept)
    return [p[i] / total if i in kept else 0.0 for i in range(len(p))]


extreme = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=1, max_dims=2, max_side=9),
    elements=st.floats(-1e4, 1e4, width=32),
)
configs = st.builds(
    SampleConfig,
    temp=st.sampled_from([0.0, 1e-6, 1e-3, 0.5, 1.0, 30.0, 1e6]) | st.floats(1e-6, 1e6),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.none() | st.floats(1e-6, 1),
    min_p=st.none() | st.floats(0, 1),
)


@given(extreme, configs)
def test_every_distribution_is_finite_and_sums_to_one(logits, config):
    before = logits.copy()
    p = distribution(logits, config)
    assert p.dtype == np.float64
    assert p.shape == logits.shape
    assert ((p >= 0) & (p <= 1)).all()
    assert np.abs(p.sum(axis=0) - 1).max() <= 1e-12
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("temp", [0, 1e-300, 1e-6, 1, 1e6])
@pytest.mark.parametrize("N", [1, 65_537])
def test_the_smallest_and_the_largest_vocabulary_are_right(N, temp):
    logits = np.linspace(-1e4, 1e4, N, dtype=np.float32)
    p = distribution(logits, SampleConfig(temp=temp))
    assert abs(p.sum() - 1) <= 1e-12
    assert p.argmax() == N - 1
    assert draw(p, 1 - 2**-53) == N - 1


@given(
    st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=1, max_size=9),
    st.sampled_from([0.3, 1.0, 4.0]),
    st.none() | st.integers(1, 12),
    st.none() | st.sampled_from([0.013, 0.31, 0.77, 0.999, 1.0]),
    st.none() | st.sampled_from([0.0, 0.011, 0.37, 1.0]),
)
def test_the_cuts_are_those_of_brute_force(logits, temp, top_k, top_p, min_p):
    found = distribution(
        np.array(logits), SampleConfig(temp=temp, top_k=top_k, top_p=top_p, min_p=min_p)
    )
    assert found == pytest.approx(slow_distribution(logits, temp, top_k, top_p, min_p), abs=1e-12)


@pytest.mark.parametrize(
    ("logits", "options", "expected"),
    [
        ([1, 2, 2, 2, 0], {"top_k": 2}, [0, 0.5, 0.5, 0, 0]),
        ([0, 0, 0, 0], {"top_p": 1e-9}, [1, 0, 0, 0]),
        ([1, 3, 3], {"temp": 0}, [0, 1, 0]),
        ([5, 5, 0], {"temp": 0}, [1, 0, 0]),
    ],
    ids=["exactly k are kept", "one is kept", "first of the last two", "first of the first two"],
)
def test_of_equal_logits_the_first_are_taken(logits, options, expected):
    found = distribution(np.array(logits, float), SampleConfig(**options))
    assert found.tolist() == expected


@pytest.mark.parametrize("kept", [1, 2, 3, 37, 64, 127, 128])
def test_top_p_stops_as_soon_as_the_share_is_reached_and_not_before(kept):
    for top_p, expected in (
        (kept / 128, kept),
        ((kept - 0.01) / 128, kept),
        ((kept - 0.99) / 128, kept),
    ):
        assert np.count_nonzero(distribution(np.zeros(128), SampleConfig(top_p=top_p))) == expected


def test_each_column_is_the_distribution_of_its_own_logits():
    logits = np.random.default_rng(0).standard_normal((6, 4))
    config = SampleConfig(temp=0.7, top_k=4, top_p=0.9, min_p=0.05)
    columns = [distribution(column, config) for column in logits.T]
    assert np.array_equal(distribution(logits, config), np.stack(columns, axis=1))


def draw(p, uniform):
    """Return what decoding.draw gives for a copy of p, which it overwrites."""
    return decoding.draw(np.array(p, np.float64, order="C"), uniform)


probabilities = hnp.arrays(
    np.float64, st.integers(1, 8), elements=st.sampled_from([0.0, 5e-324, 1e-17, 0.1, 1 / 3, 1.0])
)


@given(
    probabilities.filter(lambda p: p.sum() > 0),
    st.sampled_from([0.0, 5e-324, 0.5, 1 - 2**-53, 1.0]) | st.floats(0, 1),
)
def test_a_draw_is_in_range_and_possible(p, uniform):
    index = draw(p, uniform)
    assert 0 <= index < len(p)
    assert p[index] > 0


@given(hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(0.01, 1)), st.floats(0, 0.999))
def test_a_draw_is_where_the_sum_of_probabilities_passes_the_uniform_number(p, uniform):
    index, point = draw(p, uniform), uniform * math.fsum(p)
    assert math.fsum(p[:index]) <= point + 1e-12
    assert math.fsum(p[: index + 1]) > point - 1e-12


@given(st.integers(2, 300), st.integers(0, 2**32))
def test_float32_vectors_that_sum_to_a_little_more_than_one_are_drawn_from(N, seed):
    rng = np.random.default_rng(seed)
    p = rng.random(N, np.float32)
    p *= np.float32(1.0000001) / p.sum()
    assert p[draw(p, rng.random())] > 0
    assert draw(p, 1 - 2**-53) == N - 1


@given(
    extreme.filter(lambda y: y.ndim == 1),
    configs,
    st.sampled_from([0.0, 5e-324, 1 - 2**-53]) | st.floats(0, 1, exclude_max=True),
)
@example(np.array([-1e4, 0, 0, -1e4]), SampleConfig(), 0.0)
@example(np.array([0, -1e4, 0, -1e4]), SampleConfig(temp=1e-6), 0.5)
@example(np.array([1e4, 9999.0]), SampleConfig(), 0.9)
@example(np.array([-200, 560.0], np.float32), SampleConfig(), 0.0)
@example(np.array([-740, 590.0]), SampleConfig(), 0.0)
def test_the_drawer_of_a_single_stream_draws_what_draw_draws(logits, config, uniform):
    with np.errstate(over="ignore"):
        p = unnormalized_probabilities(logits, config)
        index = drawer(logits, config)(uniform)
    assert p[index] > 0
    assert index == draw(p, uniform)


def test_what_a_column_is_drawn_from_does_not_depend_on_its_neighbours():
    mild, wild = np.array([0.1, 0.7, -3.0]), np.array([700.0, 0.3, -700.0])
    with np.errstate(over="ignore"):
        beside = distribution(np.stack([mild, wild], axis=1), SampleConfig(temp=0.9))
    assert np.array_equal(beside[:, 0], distribution(mild, SampleConfig(temp=0.9)))
    assert np.array_equal(beside[:, 1], distribution(wild, SampleConfig(temp=0.9)))


def test_columns_are_drawn_from_as_one_by_one():
    rng = np.random.default_rng(0)
    p, uniforms = rng.random((7, 40)), rng.random(40)
    one_by_one = [draw(column, u) for column, u in zip(p.T, uniforms, strict=True)]
    assert draw(p.T, uniforms).tolist() == one_by_one


def sample_all(model, num, **options):
    """Draw samples to their ends; return their texts."""
    return [each.text for each in sample_many(model, num, **options).samples()]


def chi_square_limit(degrees):
    """The quantile that chance passes once in 100,000 times (Wilson and Hilferty 1931)."""
    return degrees * (1 - 2 / (9 * degrees) + 4.2649 * math.sqrt(2 / (9 * degrees))) ** 3


def chi_square(counts, p):
    """Pearson's statistic and its degrees of freedom, cells of fewer than 5 expected merged."""
    expected = counts.sum() * p
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    used = expected > 0
    return float(((counts - expected)[used] ** 2 / expected[used]).sum()), max(
        1, int(used.sum()) - 1
    )


def memoryless(characters=LETTERS):
    """A model whose logits are b_y whatever it reads."""
    model = make(characters=characters, dtype=np.float32)
    model.parameters["U"][:] = 0
    return model


def misfit(model, indices, config):
    """Return the chi-square statistic of drawn indices over the limit of chance."""
    counts = np.bincount(indices, minlength=len(model.vocabulary))
    statistic, degrees = chi_square(counts, distribution(model.parameters["b_y"], config))
    return statistic / chi_square_limit(degrees)


@pytest.mark.parametrize("temp", [0.3, 1.0, 4.0])
def test_the_drawer_of_a_single_stream_has_the_frequencies_of_the_distribution(temp):
    model, config = memoryless(), SampleConfig(temp=temp)
    draw_one = drawer(model.parameters["b_y"], config)
    uniforms = np.random.default_rng(5).random(200_000).tolist()
    assert misfit(model, list(map(draw_one, uniforms)), config) < 1


@pytest.mark.parametrize(
    "options",
    [{"temp": 0.3}, {"temp": 1.0}, {"temp": 4.0}, {"top_k": 4, "min_p": 0.01, "temp": 2.0}],
)
def test_many_streams_draw_with_the_frequencies_of_the_distribution(options):
    model = memoryless()
    text = "".join(sample_all(model, 1000, length=200, seed=5, **options))
    assert misfit(model, model.vocabulary.encode(text), SampleConfig(**options)) < 1


def test_the_characters_of_one_sample_have_the_frequencies_of_the_distribution():
    model = memoryless()
    text = "".join(sample(model, length=20_000, seed=5))
    assert misfit(model, model.vocabulary.encode(text), SampleConfig()) < 1


def test_the_frequencies_of_a_temperature_that_is_off_by_a_fiftieth_are_told_apart():
    model = memoryless()
    text = "".join(sample_all(model, 1000, length=200, seed=5))
    assert misfit(model, model.vocabulary.encode(text), SampleConfig(temp=1.02)) > 1


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-3)])
def test_the_logits_are_those_of_the_equations(cell, layers, dtype, tolerance):
    model, indices = make(cell, layers, dtype=dtype), [3, 1, 1, 0, 7, 3]
    sampler = Sampler(model)
    for n, index in enumerate(indices, 1):
        sampler.feed(index)
        assert sampler.logits == pytest.approx(
            slow_logits(model, indices[:n]), rel=tolerance, abs=tolerance
        )


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_streams_side_by_side_are_those_of_one_each(cell, layers):
    model, texts = make(cell, layers), np.random.default_rng(0).integers(0, len(LETTERS), (6, 5))
    sampler = Sampler(model, 5)
    for step in texts:
        sampler.feed(step)
    expected = [slow_logits(model, text.tolist()) for text in texts.T]
    found = sampler.logits.T
    assert found == pytest.approx(np.array(expected), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("cell", CELLS)
def test_a_state_spread_over_streams_continues_as_the_single_stream_did(cell):
    model, one = make(cell, 2), Sampler(make(cell, 2))
    for index in (2, 5, 1):
        one.feed(index)
    many = one.spread(3)
    assert np.array_equal(many.logits, np.repeat(one.logits[:, None], 3, axis=1))
    many.feed(np.array([0, 4, 6]))
    assert many.logits[:, 1] == pytest.approx(slow_logits(model, [2, 5, 1, 4]), rel=1e-11)


def test_one_index_for_many_streams_is_read_by_each():
    model, sampler = make(), Sampler(make(), 3)
    sampler.feed(4)
    found = sampler.logits.T
    assert found == pytest.approx(np.array([slow_logits(model, [4])] * 3), rel=1e-11)


@pytest.mark.parametrize("cell", CELLS)
def test_saturated_gates_neither_warn_nor_fail(cell):
    model = make(cell, 2, dtype=np.float32)
    model.parameters.flat[:] *= 1e4
    assert len("".join(sample(model, length=50, seed=0))) == 50


def test_weights_too_large_to_compute_with_are_a_clear_error():
    model = make("rnn", dtype=np.float32)
    model.parameters["U"][:] = 3e38
    with pytest.raises(CharRNNError, match="logits are not finite"):
        "".join(sample(model, length=50, seed=0))
    with pytest.raises(CharRNNError, match="logits are not finite"):
        list(sample_many(model, 3, length=50, seed=0))


def slow_sample(model, opening, seed, config):
    """Draw by the definition: distribution and draw on the oracle's logits."""
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    text = list(opening)
    for _ in range(config.length):
        text.append(draw(distribution(slow_logits(model, text), config), rng.random()))
    return model.vocabulary.decode(text[len(opening) :])


@pytest.mark.parametrize(
    "options",
    [{}, {"temp": 0.5}, {"temp": 0}, {"top_k": 3}, {"top_p": 0.7, "temp": 2}, {"min_p": 0.3}],
)
@pytest.mark.parametrize("cell", CELLS)
def test_a_sample_is_what_the_definition_gives(cell, options):
    model, config = make(cell), SampleConfig(length=30, **options)
    expected = slow_sample(model, model.vocabulary.encode("bad").tolist(), 3, config)
    assert "".join(sample(model, prime="bad", length=30, seed=3, **options)) == expected
    assert sample_all(model, 1, prime="bad", length=30, seed=3, **options) == [expected]
    assert sample_all(model, 4, prime="bad", length=30, seed=3, **options)[0] == expected


@pytest.mark.parametrize("block", [16, 48, 4096])
def test_the_size_of_the_blocks_of_random_numbers_changes_nothing(block, monkeypatch):
    model = make()
    one, many = "".join(sample(model, length=99, seed=1)), sample_all(model, 3, length=99, seed=1)
    monkeypatch.setattr(sampling, "BLOCK", block)
    assert "".join(sample(model, length=99, seed=1)) == one
    assert sample_all(model, 3, length=99, seed=1) == many


def test_a_sample_depends_neither_on_how_many_others_there_are_nor_on_its_length():
    model = make()
    seven = sample_all(model, 7, length=40, seed=9)
    assert len(set(seven)) == 7
    assert sample_all(model, 3, length=40, seed=9) == seven[:3]
    assert sample_all(model, 2, length=25, seed=9, first=4) == [text[:25] for text in seven[4:6]]
    assert "".join(sample(model, length=40, seed=9)) == seven[0]


def test_seeds_repeat_and_differ_and_0_is_a_seed():
    model = make()
    texts = ["".join(sample(model, length=60, seed=seed)) for seed in (0, 0, 1, None, None)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 4


def feeds(monkeypatch):
    """Return a list that records every index fed."""
    fed = []
    reader = Sampler._reader

    def spied(self):
        read = reader(self)
        return lambda indices: (fed.append(indices), read(indices))[1]

    monkeypatch.setattr(Sampler, "_reader", spied)
    return fed


def test_each_character_of_the_prime_is_fed_once_and_so_is_each_drawn_one(monkeypatch):
    model, fed = make(), feeds(monkeypatch)
    drawn = "".join(sample(model, prime="abba", length=4, seed=2))
    assert model.vocabulary.decode(fed) == "abba" + drawn[:-1]


@pytest.mark.parametrize(
    ("characters", "lines", "prime", "opening"),
    [
        (LETTERS, False, "", "\n"),
        (LETTERS, False, "fa", "fa"),
        (LETTERS, True, "", "\n"),
        (LETTERS, True, "fa", "\nfa"),
        ("abcd", False, "", "c"),
        ("abcd", True, "d", "d"),
    ],
)
def test_what_is_read_before_the_first_draw(characters, lines, prime, opening, monkeypatch):
    model = make(characters=characters, lines=lines)
    model.parameters["b_y"][:] = 0
    model.parameters["b_y"][2] = 1
    fed = feeds(monkeypatch)
    next(sample_many(model, 2, prime=prime, seed=0))
    assert model.vocabulary.decode(fed) == opening


def test_a_sample_of_a_model_of_lines_ends_at_the_newline_which_is_not_yielded():
    free, model = make(), make(lines=True)
    texts = sample_all(free, 20, length=200, seed=4)
    assert all("\n" in text for text in texts)
    assert sample_all(model, 20, length=200, seed=4) == [text.partition("\n")[0] for text in texts]
    assert "".join(sample(model, length=200, seed=4)) == texts[0].partition("\n")[0]
    short = [text[:3].partition("\n")[0] for text in texts]
    assert sample_all(model, 20, length=3, seed=4) == short


@pytest.mark.parametrize("stop", ["a", "ab", "aa", "\n", "dc", "ffffffff"])
def test_a_sample_ends_with_the_first_stop_text_that_was_drawn(stop):
    model = make()
    texts = sample_all(model, 12, length=300, seed=6, prime="a")
    expected = [text[: text.find(stop) + len(stop)] if stop in text else text for text in texts]
    assert sample_all(model, 12, length=300, seed=6, prime="a", stop=stop) == expected
    assert "".join(sample(model, length=300, seed=6, prime="a", stop=stop)) == expected[0]


def test_the_steps_of_many_samples_spell_them_and_end_with_the_last():
    steps = list(sample_many(make(lines=True), 9, length=60, seed=4))
    drawn = sample_many(make(lines=True), 9, length=60, seed=4)
    assert list(drawn) == steps
    for column, one in zip(zip(*steps, strict=True), drawn.samples(), strict=True):
        end = column.index(None) if None in column else len(column)
        assert "".join(column[:end]) == one.text
        assert set(column[end:]) <= {None}


@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize("options", [{}, {"temp": 0.4}, {"top_k": 2}, {"temp": 0}])
def test_nats_are_those_of_the_drawn_characters_at_temp_1(num, options):
    model = make("gru", 2)
    drawn = sample_many(model, num, prime="fed", length=20, seed=8, **options)
    steps = np.diff([np.zeros(num), *(drawn.nats.copy() for _ in drawn)], axis=0)
    for i, found in enumerate(drawn.samples()):
        nats = oracle.nats(model, "fed" + found.text)[2:]
        total = pytest.approx(nats.sum(), rel=1e-9)
        assert found == Sample(found.text, "fed", 8, options.get("temp", 1.0), total)
        assert [step[i] for step in steps] == pytest.approx(nats, rel=1e-9)


def test_certain_characters_cost_0_nats_however_large_the_logits():
    model = always("b", "ab")
    model.parameters["b_y"][:] *= 100  # beyond what exp can take
    samples = sample_many(model, 2, length=9, seed=1)
    for _ in samples:
        pass
    assert samples.nats.tolist() == [0, 0]


def test_the_nats_of_a_line_are_its_probability_as_an_item_newline_included():
    drawn = sample_many(make(lines=True), 4, length=400, seed=1)
    list(drawn)
    for found in drawn.samples():
        expected = oracle.nats(make(), f"\n{found.text}\n").sum()
        assert found.nats == pytest.approx(expected, rel=1e-9)


def test_an_unknown_character_of_the_prime_is_named_with_its_place():
    with pytest.raises(VocabularyError) as caught:
        sample(make(), prime="ab\té")
    assert str(caught.value) == (
        r"prime: line 1, column 3: '\t' (U+0009) isn't among the 8 characters the model knows "
        "(one of 2 unknown); replace it, for example by ' ', or use --unknown skip"
    )


@pytest.mark.parametrize("start", [sample, lambda model, **o: sample_many(model, 2, **o)])
@pytest.mark.parametrize("stop", ["#", "ab#", "a\\n", "\u2028"])
def test_a_stop_text_that_can_never_be_drawn_is_refused(start, stop):
    with pytest.raises(VocabularyError, match="^stop text: line "):
        start(make(), stop=stop)


@pytest.mark.parametrize("escape", [r"\n", r"\t", r"\r"])
@pytest.mark.parametrize("option", ["prime", "stop"])
def test_an_escape_that_stands_literally_is_shown_as_the_shell_writes_it(option, escape):
    with pytest.raises(VocabularyError) as caught:
        sample(make(), **{option: f"a{escape}"})
    assert f"$'{escape}'" in str(caught.value)
    assert "nearest" not in str(caught.value)
    assert sample(make(characters=LETTERS + "\\nrt"), **{option: f"a{escape}"})


@given(st.text(st.characters(), max_size=120))
@settings(max_examples=300)
def test_what_is_said_of_an_unknown_character_is_one_printable_line(prime):
    prime += "é"
    with pytest.raises(VocabularyError) as caught:
        sample(make(), prime=prime)
    at = next(at for at, char in enumerate(prime) if char not in LETTERS)
    assert str(caught.value).isprintable()
    line, column = prime[:at].count("\n") + 1, at - prime[:at].rfind("\n")
    assert f"prime: line {line}, column {column}: {prime[at]!r}" in str(caught.value)


def test_the_options_of_sample_are_the_fields_of_its_configuration():
    fields = {field.name: field.type for field in dataclasses.fields(SampleConfig)}
    assert {
        name: ref.__forward_arg__ for name, ref in SampleOptions.__annotations__.items()
    } == fields


@pytest.mark.parametrize(
    "start", [lambda **o: sample(make(), **o), lambda **o: sample_many(make(), 2, **o)]
)
@pytest.mark.parametrize(
    "options",
    [
        {"temp": -1},
        {"temp": math.nan},
        {"temp": math.inf},
        {"length": 0},
        {"top_k": 0},
        {"top_p": 0},
        {"top_p": 1.5},
        {"min_p": -1},
        {"stop": ""},
        {"seed": -1},
    ],
)
def test_wrong_arguments_are_refused_at_the_call(start, options):
    with pytest.raises(UsageError):
        start(**options)


def test_zero_samples_are_refused():
    with pytest.raises(UsageError, match="--num is 0"):
        sample_many(make(), 0)


def test_two_samples_drawn_in_turns_do_not_disturb_each_other():
    model = make()
    alone = ["".join(sample(model, length=30, seed=seed)) for seed in (1, 2)]
    one, two = sample(model, length=30, seed=1), sample(model, length=30, seed=2)
    pairs = [(next(one), next(two)) for _ in range(30)]
    assert ["".join(chars) for chars in zip(*pairs, strict=True)] == alone


def test_sampling_leaves_the_model_as_it_was():
    model = make()
    before = model.parameters.flat.copy()
    "".join(sample(model, length=20, seed=0))
    list(sample_many(model, 3, length=20, seed=0))
    assert np.array_equal(model.parameters.flat, before)


def test_the_handling_of_floating_point_errors_outside_is_left_alone():
    drawn = sample(make(), length=20, seed=0)
    next(drawn)
    assert np.geterr() == {
        "divide": "raise",
        "over": "raise",
        "under": "ignore",
        "invalid": "raise",
    }


def test_characters_come_as_they_are_drawn():
    assert len("".join(islice(sample(make(), length=10**18, seed=0), 5))) == 5


@pytest.mark.parametrize("num", [1, 4])
def test_a_vocabulary_of_one_character_can_only_be_repeated(num):
    drawn = sample_many(make(characters="z"), num, length=4, seed=0)
    list(drawn)
    assert {(each.text, abs(each.nats)) for each in drawn.samples()} == {("zzzz", 0.0)}


@settings(max_examples=60)
@given(
    cell=st.sampled_from(CELLS),
    scale=st.sampled_from([0.0, 1.0, 1e2, 1e4]),
    temp=st.sampled_from([0.0, 1e-6, 0.5, 1.0, 3.0, 1e6]),
    N=st.integers(1, 40),
    streams=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_y_hat_of_every_cell_is_a_distribution_whatever_the_weights_and_the_temperature(
    cell, scale, temp, N, streams, seed
):
    rng = np.random.default_rng(seed)
    config = ModelConfig(cell, 6, 1)
    parameters = Parameters(config, N)
    parameters.flat[:] = rng.standard_normal(parameters.flat.size) * scale
    sampler = Sampler(
        Model(config, Vocabulary("".join(chr(97 + k) for k in range(N))), parameters), streams
    )
    for index in rng.integers(0, N, 4):
        sampler.feed(int(index))
        y_hat = distribution(sampler.logits, SampleConfig(temp=temp))
        assert y_hat.shape[0] == N
        assert ((y_hat >= 0) & (y_hat <= 1)).all()
        np.testing.assert_allclose(y_hat.sum(axis=0), 1, rtol=0, atol=1e-12)
