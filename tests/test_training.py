"""A run from its first event to its last: what is learned, what is told, and that neither depends
on how it was run.
"""

import dataclasses
import io
import itertools
import math
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import charrnn
from charrnn.checkpoint.model import load_resume
from charrnn.config import CELLS, OPTIMIZERS, TrainConfig
from charrnn.errors import CheckpointError, CorpusError, TrainingError
from charrnn.network.network import Network, zero_state
from charrnn.text import batches
from charrnn.training import setup, workers
from charrnn.training.defaults import resolve
from charrnn.training.events import Done, Notice, Saved, Start, Step, Validated
from charrnn.training.loop import PATIENCE
from charrnn.training.optimizers import OPTIMIZER_CLASSES
from charrnn.training.progress import Progress
from charrnn.training.replica import AVERAGING, Replica
from charrnn.training.schedule import learning_rate
from charrnn.training.setup import prepare

CORPORA = Path(__file__).parents[1] / "corpora"
TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen jugs.\n" * 40
SMALL = {
    "hidden": 12,
    "steps": 12,
    "batch_size": 4,
    "seq_len": 8,
    "out": None,
    "val_every": 5,
    "sample_every": 0,
}
BUDGET = {"steps": None, "budget": 40.0, "val_every": 40, "lr": 1e-3}


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "m.npz"


def train(sources=(), *, clock=time.perf_counter, after=None, **options):
    """Return the events of a run; `after` so many steps of it, it is interrupted."""
    taken = itertools.count(1)
    return list(
        charrnn.train(
            sources,
            TrainConfig(**options),
            clock=clock,
            interrupted=lambda: next(taken) == after,
        )
    )


def run(sources, **options):
    """Return the events of a small run."""
    return train(sources, **SMALL | options)


def resume(out, sources=(), **options):
    return train(sources, out=out, resume=True, **options)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def done(events):
    assert isinstance(events[-1], Done)
    return events[-1]


def losses(events):
    return [event.loss for event in of(Step, events)]


def notices(events):
    return "\n".join(event.text for event in of(Notice, events))


def weights(events):
    return done(events).model.parameters.flat


@pytest.mark.parametrize("cell", CELLS)
def test_two_hundred_characters_are_memorised(cell, corpus):
    letters = np.random.default_rng(3).integers(0, 20, 200)
    corpus.write_text("".join(chr(97 + k) for k in letters))
    options = {"hidden": 64, "steps": 500, "batch_size": 1, "seq_len": 50, "lr": 1e-2}
    without = dict.fromkeys(("dropout", "weight_decay", "val_fraction"), 0.0)
    assert losses(run(corpus, cell=cell, **options, **without))[-1] < 0.05


def test_a_markov_source_is_learned_to_near_its_entropy_rate(markov):
    sizes = {"hidden": 64, "batch_size": 32, "seq_len": 32}
    options = {"steps": 300, "val_every": 300, "dropout": 0.0, "lr": 1e-2}
    val_loss = done(run(CORPORA / "markov.txt", **sizes, **options)).val_loss
    assert markov.entropy_rate() - 0.03 < val_loss < markov.entropy_rate() + 0.05
    assert val_loss < markov.order_one_rate() - 0.1


def test_events_come_in_order_and_end_with_done(corpus, out):
    events = [event for event in run(corpus, out=out) if not isinstance(event, Notice)]
    assert isinstance(events[0], Start)
    assert [event.step for event in of(Step, events)] == list(range(1, 13))
    assert [event.step for event in of(Validated, events)] == [5, 10, 12]
    assert isinstance(events[-2], Saved)
    assert (done(events).steps, done(events).stopped) == (12, "finished")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_and_optimizer_learns(corpus, cell, optimizer):
    rate = {"adam": 0.02, "rmsprop": 0.01, "adagrad": 0.1, "sgd": 0.2}[optimizer]
    options = {"steps": 150, "hidden": 24, "seq_len": 16, "dropout": 0.0, "lr": rate}
    history = losses(run(corpus, cell=cell, optimizer=optimizer, **options))
    assert np.mean(history[-10:]) < 0.8 * np.mean(history[:5])


def test_the_same_run_twice_is_the_same_to_the_last_bit(corpus):
    first, second = run(corpus, dropout=0.3), run(corpus, dropout=0.3)
    assert losses(first) == losses(second)
    np.testing.assert_array_equal(weights(first), weights(second))


def test_another_seed_is_another_run(corpus):
    assert losses(run(corpus, seed=0)) != losses(run(corpus, seed=1))


def test_watching_changes_nothing_that_is_learned(corpus, out):
    plain = run(corpus, val_every=100)
    watched = run(corpus, val_every=1, sample_every=1, save_every=1e-9, out=out)
    assert losses(plain) == losses(watched)


def long_lines(folder):
    """Return a text of short lines, and of some that are learned in pieces."""
    lines = [*TEXT[:60].split(), *(TEXT[i : i + 79] * 13 for i in range(5)), TEXT[:79] * 25]
    path = folder / "lines.txt"
    path.write_text("\n".join(line.replace("\n", "") for line in lines), encoding="utf-8")
    return path


def test_long_items_are_validated_from_end_to_end(tmp_path, monkeypatch):
    options = {"lines": True, "dtype": "float64", "val_fraction": 0.5, "steps": 1, "lr": 1e-30}
    in_pieces = run(long_lines(tmp_path), **options)
    monkeypatch.setattr(batches, "LONGEST", 10_000)
    whole = run(long_lines(tmp_path), **options)
    assert done(in_pieces).val_loss == pytest.approx(done(whole).val_loss, rel=1e-12)


@pytest.mark.parametrize("lines", ["", "short", "long"])
@pytest.mark.parametrize("size", [2, 3])
def test_replicas_agree_with_one_and_repeat_themselves(corpus, lines, size, tmp_path):
    if lines:
        corpus = CORPORA / "minerals.txt" if lines == "short" else long_lines(tmp_path)
    options = {"dtype": "float64", "dropout": 0.2, "batch_size": 7, "lines": bool(lines)}
    alone, together, again = (run(corpus, workers=n, **options) for n in (1, size, size))
    np.testing.assert_allclose(losses(together), losses(alone), rtol=1e-9)
    np.testing.assert_allclose(weights(together), weights(alone), rtol=1e-6, atol=1e-9)
    assert losses(together) == losses(again)
    np.testing.assert_array_equal(weights(together), weights(again))
    assert done(together).val_loss == pytest.approx(done(alone).val_loss, rel=1e-9)


def ticking(monkeypatch, seconds=lambda number: 0.05, validation=0.0):
    """Return a clock that only steps, by `seconds` of their numbers, and validations move on."""
    now, step, validate = [0.0], Replica.step, Replica.validate

    def timed_step(self, number, lr):
        now[0] += seconds(number)
        return step(self, number, lr)

    def timed_validation(self, averaged):
        now[0] += validation
        return validate(self, averaged)

    monkeypatch.setattr(Replica, "step", timed_step)
    monkeypatch.setattr(Replica, "validate", timed_validation)
    return lambda: now[0]


def test_speed_is_characters_by_the_seconds_of_a_step(corpus, monkeypatch):
    clock = ticking(monkeypatch, lambda number: 0.5, validation=100.0)
    events = run(corpus, batch_size=4, seq_len=10, steps=6, clock=clock)
    steps = of(Step, events)
    speeds = [event.chars_per_second for event in steps]
    assert speeds == pytest.approx([4 * 10 / 0.5] * 6, rel=0.02)
    assert [event.seconds_left for event in steps] == [2.5, 2.0, 1.5, 1.0, 0.5, 0.0]
    assert [event.progress for event in steps] == pytest.approx([n / 6 for n in range(1, 7)])
    assert done(events).chars_per_second == pytest.approx(80, rel=0.02)


def test_the_speed_of_a_run_is_the_median_of_its_steps():
    progress = Progress()
    for speed in (5.0, 1.0, 2.0):
        progress.add_step(1.0, speed)
    assert progress.speed() == 2.0


def test_the_end_says_the_loss_in_bits_too(corpus):
    end = done(run(corpus, steps=3))
    assert end.val_bpc == pytest.approx(end.val_loss / np.log(2))


def test_two_characters_are_enough_to_validate(corpus):
    corpus.write_text(TEXT[:20])
    assert {event.val_characters for event in of(Validated, run(corpus, steps=2))} == {1}


@pytest.mark.parametrize("step", [0, 1, 7, 5000])
def test_the_average_forgets_the_first_weights_soon(step):
    k = max(AVERAGING, 9 / (step + 10))
    mine, average = np.array([1.0, 2.0]), np.array([5.0, -3.0])
    replica = SimpleNamespace(
        parameters=SimpleNamespace(flat=mine),
        arrays={"theta": mine, "average": average.copy(), "m": np.zeros(2)},
        config=TrainConfig(weight_decay=0.0),
        optimizer=OPTIMIZER_CLASSES["sgd"](1.0),
        _share=slice,
    )
    Replica._update(replica, np.zeros(2), step, 0.1)
    np.testing.assert_allclose(replica.arrays["average"], (1 - k) * average + k * mine)


def test_a_resumed_run_keeps_the_number_of_its_ranks(corpus, out):
    run(corpus, out=out, steps=2)
    begun = prepare([], TrainConfig(out=out, resume=True, steps=4, ranks=2))
    assert begun.config.ranks == 2
    assert not begun.progress.repeatable


def kept(path):
    """Return a checkpoint's arrays and what it says of its run, but for times and rates."""
    model, arrays = load_resume(path)
    told = {
        name: value
        for name, value in model.meta.items()
        if name not in ("seconds", "chars_per_second", "speeds")
    }
    return arrays | dict(model.parameters.items()), told


STATES = [*({"cell": cell} for cell in CELLS), *({"optimizer": name} for name in OPTIMIZERS)]
READINGS = [
    {"layers": 2, "dropout": 0.3},
    {"workers": 2, "dropout": 0.2},
    {"lines": True, "dropout": 0.2},
    {"lines": True, "dropout": 0.2, "batch_size": 3},
    {"val_fraction": 0.0},
]


@pytest.mark.parametrize(
    ("options", "stops"),
    [
        *((options, (7, 18)) for options in STATES),
        *itertools.product(READINGS, [(7, 18), (10, 20), (5, 30)]),
    ],
    ids=str,
)
def test_a_stopped_run_goes_on_to_the_very_same_end(options, stops, corpus, out, tmp_path):
    options = {"steps": 30, **options}
    if "lines" in options:
        short = "batch_size" not in options
        corpus = CORPORA / "minerals.txt" if short else long_lines(tmp_path)
    straight = run(corpus, **options, out=tmp_path / "straight.npz")
    parts = run(corpus, **options, out=out, after=stops[0])
    assert done(parts).stopped == "interrupted"
    parts += resume(out, after=stops[1] - stops[0])
    parts += resume(out)
    assert losses(parts) == losses(straight)
    assert of(Validated, parts) == of(Validated, straight)
    arrays, told = kept(out)
    expected, told_straight = kept(tmp_path / "straight.npz")
    assert told == told_straight
    assert set(arrays) == set(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array, err_msg=key)


@pytest.mark.parametrize("steps", [None, 5, 12])
def test_a_run_that_has_its_steps_has_nothing_left_to_do(steps, corpus, out):
    run(corpus, out=out)
    before = out.read_bytes()
    events = resume(out, steps=steps)
    assert not losses(events)
    assert done(events).steps == 12
    assert out.read_bytes() == before
    assert "the run already has 12 steps: nothing left to do" in notices(events)
    assert "rises again" not in notices(events)


def test_more_steps_extend_a_run(corpus, out):
    run(corpus, out=out)
    assert len(losses(resume(out, steps=20))) == 8


def test_resuming_with_another_text_or_model_is_refused_with_the_difference(corpus, out):
    run(corpus, out=out)
    corpus.write_text(TEXT + "more", encoding="utf-8")
    with pytest.raises(CheckpointError, match="3,164 characters in 1 text, .* had 3,160 in 1 "):
        resume(out, corpus)
    with pytest.raises(CheckpointError, match="--hidden 13 was asked for, but the run has 12"):
        resume(out, hidden=13)


def test_what_a_run_takes_is_said_before_its_weights_are_made(corpus, monkeypatch, cli):
    def minutes(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "initialize", minutes)
    monkeypatch.setattr(setup, "free_memory", lambda: 1e9)
    assert "1,000 MB are free" in cli("train corpus.txt --hidden 8000 --dry-run").err
    events = charrnn.train([corpus], TrainConfig(hidden=8000, steps=1, out=None))
    told = next(event for event in events if not isinstance(event, Notice) or "MB" in event.text)
    assert isinstance(told, Notice)
    start = next(events)
    assert isinstance(start, Start)
    assert start.params > 4 * 8000**2
    with pytest.raises(KeyboardInterrupt):
        next(events)


@pytest.mark.parametrize("fraction", [1e-9, 1e-300])
def test_a_fraction_that_leaves_nothing_to_validate_is_not_taken_in_silence(fraction, corpus):
    events = run(corpus, steps=1, val_fraction=fraction)
    told = "the validation part is too short to predict anything: no validation"
    assert told in notices(events)
    assert done(events).val_loss is None


@pytest.mark.parametrize(("steps", "rises"), [(38, False), (80, True)])
def test_a_rate_that_had_begun_to_fall_rises_only_for_a_longer_run(steps, rises, corpus, out):
    run(corpus, steps=40, out=out, after=37)
    events = resume(out, steps=steps)
    assert ("rises again" in notices(events)) == rises
    assert done(events).steps == steps
    assert not done(events).repeatable  # 38 steps fall otherwise than the first 37 of 40


def test_a_budget_ends_early_after_eight_validations_without_a_new_best(corpus, monkeypatch):
    clock = ticking(monkeypatch)
    told = itertools.chain([2.0, 3.0, 3.0, 1.5], itertools.repeat(1.6))
    monkeypatch.setattr(Replica, "validate", lambda self, averaged: next(told))
    events = run(corpus, **BUDGET | {"budget": 1000.0, "val_every": 2}, clock=clock)
    fixed = next(event.step for event in of(Step, events) if event.steps)
    assert fixed == 2 * (4 + PATIENCE) + 1
    left = [event.seconds_left for event in of(Step, events) if event.steps is None]
    assert left == pytest.approx([1000 - 0.05 * (n + 1) for n in range(fixed - 1)])
    assert PATIENCE == 8
    assert done(events).stopped == "early"
    assert done(events).val_loss == 1.5


def test_without_validation_the_curve_has_the_training_loss(corpus):
    curve = done(run(corpus, val_fraction=0.0)).model.curve
    assert [(step, val) for step, _, val in curve] == [(5, None), (10, None), (12, None)]
    assert all(loss > 0 for _, loss, _ in curve)


def test_the_first_step_may_be_validated(corpus):
    events = run(corpus, steps=3, val_every=1)
    assert [event.step for event in of(Validated, events)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["-text.txt", "a text", "-"])
def test_the_command_names_the_text_as_a_shell_takes_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(TEXT)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    words = shlex.split(done(run(name, steps=1)).command)
    assert words[:3] == ["charrnn", "train", "./-text.txt" if name == "-text.txt" else name]


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_running_text_carries_the_state_on_and_items_begin_from_zero(cell, lines, corpus):
    corpus.write_text("".join(f"{word}\n" for word in TEXT.split()[:17]))
    options = {"cell": cell, "lines": lines, "batch_size": 1, "val_fraction": 0.0, "dropout": 0.0}
    options |= {"steps": 9, "lr": 1e-12}  # weights stay
    begun = prepare([corpus], TrainConfig(**SMALL | options))
    network = Network(begun.config.model)
    zero = state = zero_state(begun.config.model, 1, "float32")
    expected = []
    for step in range(9):
        batch = begun.training.batch(step, slice(0, 1))
        nats, state = network.losses(begun.best, batch.x, batch.y, zero if lines else state)
        expected.append(nats.mean())
    assert np.ptp(expected) > 1e-3
    assert losses(run(corpus, **options)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("longer", "steps"), [({"steps": 50}, 50), ({"budget": 0.5}, None)])
def test_a_longer_run_has_all_its_patience_again(longer, steps, corpus, out, monkeypatch):
    monkeypatch.setattr(Replica, "validate", lambda self, averaged: 1.0)
    run(corpus, steps=30, out=out)
    resumed = TrainConfig(out=out, resume=True)
    assert prepare([], resumed).progress.without_best > 0
    progress = prepare([], dataclasses.replace(resumed, **longer)).progress
    assert (progress.steps, progress.without_best, progress.ending) == (steps, 0, "finished")


def test_the_training_loss_is_the_mean_since_the_last_validation(corpus):
    events = run(corpus)
    told = losses(events)
    means = [np.mean(told[:5]), np.mean(told[5:10]), np.mean(told[10:])]
    assert [loss for _, loss, _ in done(events).model.curve] == pytest.approx(means)
    assert done(events).train_loss == pytest.approx(means[-1])


@pytest.mark.parametrize(("epochs", "share"), [(1e-9, 0.0), (1.0, 1.0), (1.5, 1.5), (2.0, 2.0)])
def test_epochs_are_steps_rounded_up_and_one_at_least(epochs, share, corpus):
    begun = prepare([corpus], TrainConfig(**SMALL | {"steps": None, "epochs": epochs}))
    assert begun.progress.steps == max(1, math.ceil(share * begun.training.steps_per_epoch))


def test_epochs_count_passes_over_the_training_part(corpus):
    assert done(run(corpus, steps=None, epochs=1.5)).epochs == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("count", [2, 20])
def test_texts_of_a_word_each_are_not_validated_by_their_last_characters(count, tmp_path):
    texts = [tmp_path / f"{number}.txt" for number in range(count)]
    for text, word in zip(texts, TEXT.split(), strict=False):
        text.write_text(f"{word}\n")
    events = run(texts, steps=2)
    assert "give them as a folder, or as a file with --lines" in notices(events)
    assert done(events).val_loss is None


def test_a_folder_of_texts_of_a_word_each_is_validated(tmp_path):
    for number, word in enumerate(TEXT.split()[:20]):
        (tmp_path / f"{number}.txt").write_text(f"{word}\n")
    assert done(run(tmp_path, steps=2)).val_loss is not None


def test_the_hint_for_a_text_that_has_moved_can_be_copied(corpus, tmp_path, cli):
    out = tmp_path / "my model.npz"
    run(corpus, out=out, steps=2)
    corpus.rename("moved")
    with pytest.raises(CorpusError, match="no longer here") as error:
        resume(out, steps=4)
    hint = str(error.value).rpartition("new place: charrnn ")[2]
    assert shlex.split(hint) == ["train", "PATH", "--resume", "--out", str(out)]
    cli(hint.replace("PATH", "moved"))


def test_what_a_folder_left_out_is_left_out_again(tmp_path, out):
    """Files that seem to be no text are skipped where no encoding was given by name."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    (folder / "b.pdf").write_text("%PDF-1.4\n" + TEXT, encoding="utf-8")
    assert "--encoding" not in done(run(folder, out=out)).command
    assert len(losses(resume(out, steps=14))) == 2


def test_resuming_a_folder_by_its_files_says_that_a_folder_is_one_text(tmp_path, out):
    folder = tmp_path / "folder"
    folder.mkdir()
    files = [folder / "a.txt", folder / "b.txt"]
    for file in files:
        file.write_text(TEXT, encoding="utf-8")
    run(folder, out=out)
    with pytest.raises(CheckpointError, match=r"in 2 texts, .* in 1 \(folder\)"):
        resume(out, files)


def test_starting_from_other_weights_keeps_them_and_adds_characters(corpus, out):
    start = done(run(corpus, out=out)).model
    corpus.write_text("ÄÖ the end\n" * 50, encoding="utf-8")
    model = done(run(corpus, hidden=None, steps=1, lr=1e-12, init_from=out)).model
    assert model.vocabulary.characters == start.vocabulary.characters + "ÄÖ"
    U, W = model.parameters["U"][: len(start.vocabulary)], model.parameters["layers.0.W"]
    np.testing.assert_allclose(U, start.parameters["U"], atol=1e-6)
    np.testing.assert_allclose(W, start.parameters["layers.0.W"], atol=1e-6)


def test_a_text_of_one_repeated_character_trains(corpus):
    corpus.write_text("a" * 300)
    assert done(run(corpus)).val_loss == pytest.approx(0, abs=1e-6)


def test_a_text_shorter_than_a_batch_trains_and_says_so(corpus):
    corpus.write_text("to be or not to be")
    events = run(corpus, batch_size=64, seq_len=64)
    assert "the text is short" in notices(events)
    assert done(events).steps == 12


@pytest.mark.parametrize("to_a_file", [True, False])
def test_a_run_that_blows_up_stops_and_says_so(to_a_file, corpus, out):
    options = {"lr": 1e4, "optimizer": "sgd", "clip": 0.0, "val_fraction": 0.0, "steps": 500}
    events = run(corpus, out=out if to_a_file else None, **options)
    assert done(events).stopped == "diverged"
    assert np.abs(weights(events)).max() < 10
    if to_a_file:
        np.testing.assert_array_equal(charrnn.load(out).parameters.flat, weights(events))


@pytest.mark.parametrize(
    ("blown_up", "good"), [(40, 25), (25, 0)], ids=["the last saved", "those no loss has tried"]
)
def test_weights_from_before_the_loss_blew_up_are_those_that_are_kept(
    blown_up, good, corpus, monkeypatch
):
    step = Replica.step

    def blow_up(self, number, lr):
        return (math.nan, 1.0) if number == blown_up else step(self, number, 0.01)

    monkeypatch.setattr(Replica, "step", blow_up)
    events = run(corpus, steps=500, val_fraction=0.0)
    assert done(events).stopped == "diverged"
    if good:
        expected = weights(run(corpus, steps=good, val_fraction=0.0))
    else:
        expected = prepare([corpus], TrainConfig(**SMALL | {"val_fraction": 0.0})).best.flat
    np.testing.assert_array_equal(weights(events), expected)


def test_nothing_is_written_before_the_first_step(corpus, out):
    corpus.write_text("")
    with pytest.raises(CorpusError):
        run(corpus, out=out)
    assert list(corpus.parent.iterdir()) == [corpus]


def test_a_budget_becomes_a_total_that_repeats_the_run(corpus, monkeypatch):
    options = {"dropout": 0.1, "lr": 1e-3}
    timed = run(corpus, steps=None, budget=12.0, **options, clock=ticking(monkeypatch))
    counted = run(corpus, steps=done(timed).steps, **options)
    assert losses(timed) == losses(counted)
    assert done(timed).seconds == pytest.approx(12.0, rel=0.05)


@pytest.fixture
def started(monkeypatch):
    """The worker processes that were started."""
    started, start = [], workers._start
    monkeypatch.setattr(workers, "_start", lambda fds: started.append(start(fds)) or started[-1])
    return started


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_a_worker_that_dies_ends_the_run_with_an_error_and_leaves_no_process(corpus, out, started):
    options = {"steps": 10_000, "workers": 2, "out": out, "save_every": 1e-9}
    events = charrnn.train([corpus], TrainConfig(**SMALL | options))
    next(event for event in events if isinstance(event, Step) and event.step == 5)
    os.kill(started[0].pid, signal.SIGKILL)
    said = "worker 1 of 2 ended in the middle of the run .killed by signal 9"
    with pytest.raises(TrainingError, match=said):
        list(events)
    assert started[0].poll() is not None
    assert charrnn.load(out).config.hidden == 12


def test_a_caller_that_stops_listening_leaves_no_process(corpus, started):
    events = charrnn.train([corpus], TrainConfig(**SMALL | {"steps": 10_000, "workers": 2}))
    next(event for event in events if isinstance(event, Step))
    events.close()
    assert started[0].poll() is not None


def test_a_longer_budget_after_decay_takes_no_longer_than_it_says(corpus, out, monkeypatch):
    clock = ticking(monkeypatch)
    run(corpus, steps=None, budget=12.0, out=out, clock=clock)
    events = resume(out, budget=15.0, clock=clock)
    assert done(events).seconds == pytest.approx(15.0, rel=0.06)
    assert not done(events).repeatable
    assert "rises again" in notices(events)


def test_a_budget_interrupted_where_a_validation_is_due_goes_on_to_its_end(
    corpus, out, monkeypatch
):
    clock = ticking(monkeypatch, validation=1.0)
    run(corpus, **BUDGET | {"budget": 30.0}, out=out, clock=clock, after=40)
    assert done(resume(out, clock=clock)).seconds == pytest.approx(30.0, rel=0.1)


@pytest.mark.parametrize(("workers", "repeatable"), [(2, True), (1, False)])
def test_no_command_is_said_to_repeat_a_run_that_other_workers_went_on_with(
    workers, repeatable, corpus, out
):
    run(corpus, workers=2, out=out, after=4)
    assert done(resume(out, workers=workers)).repeatable == repeatable


def test_a_longer_run_from_the_last_step_before_the_decay_is_repeatable(corpus, out):
    run(corpus, out=out, after=6)
    events = resume(out, steps=24)
    assert done(events).repeatable
    assert losses(events) == losses(run(corpus, steps=24))[6:]


def test_time_lost_to_a_stall_shortens_the_run(corpus, monkeypatch):
    clock = ticking(monkeypatch, lambda number: 8.0 if number == 60 else 0.05)
    events = run(corpus, steps=None, budget=12.0, clock=clock)
    assert done(events).seconds < 12.6
    assert not done(events).repeatable


def test_the_command_of_a_resumed_run_names_the_weights_it_began_with(corpus, out, tmp_path):
    first = tmp_path / "first.npz"
    run(corpus, out=first)
    run(corpus, hidden=None, init_from=first, out=out, after=4)
    command = done(resume(out)).command
    assert f"--init-from {first}" in command
    assert command.endswith(f"--out {tmp_path / 'm-again.npz'}")


def test_workers_are_not_misled_by_files_of_the_folder_they_start_in(corpus, tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise SystemExit('not the random of Python')")
    monkeypatch.chdir(tmp_path)
    assert done(run(corpus, workers=2)).steps == 12


@pytest.mark.parametrize("spoil", ["theta", "state", "sources", "training", "m"])
def test_resuming_from_damaged_data_is_refused(spoil, corpus, out):
    run(corpus, out=out)
    model, arrays = load_resume(out)
    if spoil == "training":
        model = dataclasses.replace(model, meta=model.meta | {"training": {"new": 1}})
    else:
        arrays[spoil] = np.zeros(3, np.float32)
    charrnn.save(out, model, arrays)
    said = "what resuming needs is missing, damaged or from another charrnn"
    with pytest.raises(CheckpointError, match=said):
        resume(out)


def test_an_older_run_cannot_be_resumed_and_says_so(corpus, out):
    run(corpus, out=out)
    model, arrays = load_resume(out)
    arrays["record"] = arrays.pop("sources")
    charrnn.save(out, dataclasses.replace(model, meta={**model.meta, "version": "0.1.0"}), arrays)
    assert charrnn.load(out).config.hidden == 12
    with pytest.raises(CheckpointError, match="what resuming needs is missing.*--init-from"):
        resume(out)


def test_a_text_is_never_overwritten_by_its_model(corpus):
    with pytest.raises(CheckpointError, match="which this command uses"):
        run(corpus, out=corpus, overwrite=True)
    assert corpus.read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("kind", [str, Path])
def test_one_path_alone_is_a_text(kind, corpus):
    assert done(run(kind(corpus))).steps == 12


def test_lines_have_a_floor_that_depends_on_their_distinct_lines_alone(corpus):
    beginnings, ends = ("an", "ber", "cor", "do"), ("na", "ta", "lia", "ris", "nes", "")
    names = [beginning + end for beginning in beginnings for end in ends]
    floors = []
    for lines in (names, [*reversed(names), *names]):
        corpus.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        (start,) = of(Start, run(corpus, lines=True, val_fraction=0.25))
        floors.append((start.floor_nats, start.floor_order))
    assert floors[0] == floors[1]
    # the best order knows the six endings; letters alone have 2.5 nats
    assert 0 < floors[0][0] < 1.5


def test_more_memory_than_is_free_is_said_before_the_first_step(corpus, monkeypatch):
    monkeypatch.setattr(setup, "free_memory", lambda: 10**6)
    assert "but only 1 MB are free; a smaller --hidden" in notices(run(corpus, steps=1))
    monkeypatch.setattr(setup, "free_memory", lambda: None)
    assert "free" not in notices(run(corpus, steps=1))


@pytest.mark.parametrize("told", [[math.nan, 2.0, 1.0], [2.0, math.nan, 1.0]])
def test_a_validation_loss_of_nan_is_never_the_best(told, corpus, monkeypatch):
    told = iter([*told, 1.0])
    monkeypatch.setattr(Replica, "validate", lambda self, averaged: next(told))
    events = run(corpus, steps=15)
    assert of(Validated, events)[-1].best
    assert done(events).val_loss == 1.0


def test_no_command_is_said_to_repeat_a_run_whose_beginning_is_overwritten(corpus, out, tmp_path):
    run(corpus, out=out)
    again = {"hidden": None, "init_from": out, "overwrite": True}
    assert not done(run(corpus, **again, out=out)).repeatable
    assert done(run(corpus, **again, out=tmp_path / "other.npz")).repeatable


def test_no_command_is_said_to_repeat_a_run_in_double_precision(corpus):
    assert not done(run(corpus, dtype="float64")).repeatable


@pytest.mark.parametrize("seconds", [-1e6, 1e6])
@pytest.mark.parametrize("folder", [False, True])
def test_no_command_is_said_to_repeat_a_run_whose_text_was_replaced(corpus, folder, seconds):
    """The clock of whoever wrote the text may be wrong, and an older file may replace it."""
    at = time.time() + seconds
    os.utime(corpus, (at, at))
    source = corpus.parent if folder else corpus
    assert done(run(source)).repeatable
    events = charrnn.train(source, TrainConfig(**SMALL))
    first = next(events)
    os.utime(corpus, (at - 1, at - 1))
    assert not done([first, *events]).repeatable


def test_validation_reads_no_more_characters_than_were_asked_for(corpus, out):
    events = run(corpus, out=out, val_characters=100)
    (read,) = {event.val_characters for event in of(Validated, events)}
    assert 50 <= read <= 100
    assert done(events).val_characters == read
    assert "--val-characters 100" in done(events).command
    assert done(resume(out, steps=20)).val_characters == read


def test_validation_of_lines_can_be_cut_too():
    events = run(CORPORA / "minerals.txt", lines=True, val_characters=300)
    assert 250 < done(events).val_characters <= 300


def test_a_validation_that_would_take_a_budgets_time_is_cut():
    facts = {"characters": 30_000_000, "validation": 3_000_000, "N": 65, "processors": 2}
    assert 1_000 <= resolve(TrainConfig(budget=10.0), **facts).val_characters < 300_000
    assert resolve(TrainConfig(steps=10), **facts).val_characters is None
    assert resolve(TrainConfig(budget=1e6), **facts).val_characters is None
    assert resolve(TrainConfig(budget=10.0, val_characters=7), **facts).val_characters == 7


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_shrinks_parameters_by_its_share_of_the_rate(optimizer, corpus):
    options = {"optimizer": optimizer, "steps": 1, "lr": 0.01, "dropout": 0.0, "val_fraction": 0.0}
    plain, decayed = (weights(run(corpus, weight_decay=decay, **options)) for decay in (0.0, 0.5))
    begun = prepare([corpus], TrainConfig(**SMALL | {"val_fraction": 0.0})).best.flat
    lost = learning_rate(0, 0.01, 1) * 0.5 * begun
    np.testing.assert_allclose(decayed, plain - lost, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("slow", "late"), [(0.05, False), (0.1, True)])
def test_a_run_that_ends_late_since_the_machine_became_slower_says_so(
    slow, late, corpus, monkeypatch
):
    clock = ticking(monkeypatch, lambda step: slow if step > 640 else 0.05, validation=0.1)
    assert ("after the budget" in notices(run(corpus, **BUDGET, clock=clock))) == late


@pytest.mark.parametrize("slow", [range(150), range(300, 315)])
def test_a_budget_is_used_up_although_the_machine_was_slower_for_a_while(slow, corpus, monkeypatch):
    clock = ticking(monkeypatch, lambda step: 0.08 if step in slow else 0.05, validation=0.1)
    assert done(run(corpus, **BUDGET, clock=clock)).seconds == pytest.approx(40.0, rel=0.03)
