"""A run from its first event to its last: what is learned, what is told, and that neither depends
on how it was run.
"""

import dataclasses
import io
import json
import math
import os
import re
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
from charrnn.cli import app
from charrnn.config import CELLS, OPTIMIZERS, TrainConfig
from charrnn.errors import CheckpointError, CorpusError, TrainingError, UsageError
from charrnn.network.network import Network, zero_state
from charrnn.text import batches
from charrnn.training import setup, workers
from charrnn.training.defaults import Facts, resolve
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


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(corpus, **options):
    return list(charrnn.train([corpus], TrainConfig(**{**SMALL, **options})))


def done(events):
    last = events[-1]
    assert isinstance(last, Done)
    return last


def losses(events):
    return [event.loss for event in events if isinstance(event, Step)]


def weights(events):
    return done(events).model.parameters.flat


@pytest.mark.parametrize("cell", CELLS)
def test_two_hundred_characters_are_memorised(cell, tmp_path):
    rng = np.random.default_rng(3)
    path = tmp_path / "short.txt"
    path.write_text("".join(chr(97 + k) for k in rng.integers(0, 20, 200)), encoding="utf-8")
    options = {
        "hidden": 64,
        "steps": 500,
        "batch_size": 1,
        "seq_len": 50,
        "dropout": 0.0,
        "weight_decay": 0.0,
        "val_fraction": 0.0,
        "lr": 1e-2,
    }
    assert losses(run(path, cell=cell, **options))[-1] < 0.05


def test_a_markov_source_is_learned_to_near_its_entropy_rate(markov):
    options = {
        "hidden": 64,
        "steps": 300,
        "batch_size": 32,
        "seq_len": 32,
        "val_every": 300,
        "dropout": 0.0,
        "lr": 1e-2,
    }
    val_loss = done(run(CORPORA / "markov.txt", **options)).val_loss
    assert val_loss is not None
    assert markov.entropy_rate() - 0.03 < val_loss < markov.entropy_rate() + 0.05
    assert val_loss < markov.order_one_rate() - 0.1


def test_events_come_in_order_and_end_with_done(corpus, tmp_path):
    events = [
        event for event in run(corpus, out=tmp_path / "m.npz") if not isinstance(event, Notice)
    ]
    assert isinstance(events[0], Start)
    assert [event.step for event in events if isinstance(event, Step)] == list(range(1, 13))
    assert [event.step for event in events if isinstance(event, Validated)] == [5, 10, 12]
    assert isinstance(events[-2], Saved)
    assert done(events).steps == 12
    assert done(events).stopped == "finished"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_and_optimizer_learns(corpus, cell, optimizer):
    rate = {"adam": 0.02, "rmsprop": 0.01, "adagrad": 0.1, "sgd": 0.2}[optimizer]
    history = losses(
        run(
            corpus,
            cell=cell,
            optimizer=optimizer,
            steps=150,
            hidden=24,
            seq_len=16,
            dropout=0.0,
            lr=rate,
        )
    )
    assert np.mean(history[-10:]) < 0.8 * np.mean(history[:5])


def test_the_same_run_twice_is_the_same_to_the_last_bit(corpus):
    first, second = run(corpus, dropout=0.3), run(corpus, dropout=0.3)
    assert losses(first) == losses(second)
    np.testing.assert_array_equal(weights(first), weights(second))


def test_another_seed_is_another_run(corpus):
    assert losses(run(corpus, seed=0)) != losses(run(corpus, seed=1))


def test_watching_changes_nothing_that_is_learned(corpus, tmp_path):
    plain = run(corpus, val_every=100)
    watched = run(corpus, val_every=1, sample_every=1, save_every=1e-9, out=tmp_path / "m.npz")
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
    options = {
        "dtype": "float64",
        "dropout": 0.2,
        "batch_size": 7,
        "steps": 20,
        "lines": bool(lines),
    }
    alone, together, again = (run(corpus, workers=n, **options) for n in (1, size, size))
    np.testing.assert_allclose(losses(together), losses(alone), rtol=1e-9)
    np.testing.assert_allclose(weights(together), weights(alone), rtol=1e-6, atol=1e-9)
    assert losses(together) == losses(again)
    np.testing.assert_array_equal(weights(together), weights(again))
    assert done(together).val_loss == pytest.approx(done(alone).val_loss, rel=1e-9)


def stopper(after):
    calls = iter(range(1, 10_000))
    return lambda: next(calls) >= after


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
    config = TrainConfig(**{**SMALL, "batch_size": 4, "seq_len": 10, "steps": 6})
    events = list(charrnn.train([corpus], config, clock=clock))
    steps = [event for event in events if isinstance(event, Step)]
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
    assert end.val_loss is not None
    assert end.val_bpc == pytest.approx(end.val_loss / np.log(2))


def test_two_characters_are_enough_to_validate(tmp_path):
    text = tmp_path / "text"
    text.write_text(TEXT[:20])
    events = run(text, steps=2)
    assert {e.val_characters for e in events if isinstance(e, Validated)} == {1}


@pytest.mark.parametrize("step", [0, 1, 7, 5000])
def test_the_average_forgets_the_first_weights_soon(step):
    k = min(AVERAGING, (step + 1) / (step + 10))
    mine, average = np.array([1.0, 2.0]), np.array([5.0, -3.0])
    replica = SimpleNamespace(
        parameters=SimpleNamespace(flat=mine),
        arrays={"theta": mine, "average": average.copy(), "m": np.zeros(2)},
        config=TrainConfig(weight_decay=0.0),
        optimizer=OPTIMIZER_CLASSES["sgd"](1.0),
        _share=slice,
    )
    Replica._update(replica, np.zeros(2), step, 0.1)
    np.testing.assert_allclose(replica.arrays["average"], k * average + (1 - k) * mine)


def test_a_resumed_run_keeps_the_number_of_its_ranks(corpus, tmp_path):
    run(corpus, out=tmp_path / "m.npz", steps=2)
    asked = TrainConfig(out=tmp_path / "m.npz", resume=True, steps=4, ranks=2)
    begun = prepare([], asked)
    assert begun.config.ranks == 2
    assert not begun.progress.repeatable


def kept(path):
    """Return a checkpoint's arrays and what it says of its run, but for times and rates."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files if key != "meta"}
        told = json.loads(str(file["meta"]))
    for name in ("seconds", "chars_per_second", "speeds"):
        del told[name]
    return arrays, told


@pytest.mark.parametrize("stops", [(7, 18), (10, 20), (5, 30)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        *({"cell": cell} for cell in CELLS),
        *({"optimizer": name} for name in OPTIMIZERS),
        {"layers": 2, "dropout": 0.3},
        {"workers": 2, "dropout": 0.2},
        {"lines": True, "dropout": 0.2},
        {"lines": True, "dropout": 0.2, "batch_size": 3},
        {"val_fraction": 0.0},
    ],
    ids=str,
)
def test_a_stopped_run_goes_on_to_the_very_same_end(options, stops, corpus, tmp_path):
    options = {**SMALL, "steps": 30, **options}
    if "lines" in options:
        corpus = CORPORA / "minerals.txt" if options["batch_size"] == 4 else long_lines(tmp_path)
    straight = list(
        charrnn.train([corpus], TrainConfig(**{**options, "out": tmp_path / "straight.npz"}))
    )
    config = TrainConfig(**{**options, "out": tmp_path / "stopped.npz"})
    parts = list(charrnn.train([corpus], config, interrupted=stopper(stops[0])))
    assert done(parts).stopped == "interrupted"
    parts += charrnn.train(
        [], TrainConfig(out=config.out, resume=True), interrupted=stopper(stops[1] - stops[0])
    )
    parts += charrnn.train([], TrainConfig(out=config.out, resume=True))
    assert losses(parts) == losses(straight)
    assert [e for e in parts if isinstance(e, Validated)] == [
        e for e in straight if isinstance(e, Validated)
    ]
    arrays, told = kept(tmp_path / "stopped.npz")
    expected, told_straight = kept(tmp_path / "straight.npz")
    assert told == told_straight
    assert set(arrays) == set(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array, err_msg=key)


def test_a_finished_run_has_nothing_left_to_do(corpus, tmp_path):
    run(corpus, out=tmp_path / "m.npz")
    before = (tmp_path / "m.npz").read_bytes()
    events = list(charrnn.train([], TrainConfig(out=tmp_path / "m.npz", resume=True)))
    assert not losses(events)
    assert done(events).steps == 12
    assert (tmp_path / "m.npz").read_bytes() == before


def test_more_steps_extend_a_run(corpus, tmp_path):
    run(corpus, out=tmp_path / "m.npz")
    events = list(charrnn.train([], TrainConfig(out=tmp_path / "m.npz", resume=True, steps=20)))
    assert len(losses(events)) == 8


def test_resuming_with_another_text_or_model_is_refused_with_the_difference(corpus, tmp_path):
    run(corpus, out=tmp_path / "m.npz")
    other = tmp_path / "other.txt"
    other.write_text(TEXT + "more", encoding="utf-8")
    with pytest.raises(CheckpointError, match="3,164 characters in 1 text now, 3,160 in 1 then"):
        list(charrnn.train([other], TrainConfig(out=tmp_path / "m.npz", resume=True)))
    with pytest.raises(CheckpointError, match="--hidden 13 was asked for, but the run has 12"):
        list(charrnn.train([], TrainConfig(out=tmp_path / "m.npz", resume=True, hidden=13)))


def test_what_a_run_takes_is_said_before_its_weights_are_made(
    corpus, tmp_path, monkeypatch, capsys
):
    def minutes(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "initialize", minutes)
    monkeypatch.setattr(setup, "free_memory", lambda: 1e9)
    words = ["train", str(corpus), "--hidden", "8000", "--out", str(tmp_path / "m.npz")]
    assert app.main([*words, "--dry-run"]) == 0
    assert "1,000 MB are free" in capsys.readouterr().err
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
    told = " ".join(event.text for event in events if isinstance(event, Notice))
    assert "the validation part is too short to predict anything: no validation" in told
    assert done(events).val_loss is None


@pytest.mark.parametrize(("steps", "rises"), [(38, False), (80, True)])
def test_a_rate_that_had_begun_to_fall_rises_only_for_a_longer_run(steps, rises, corpus, tmp_path):
    config = TrainConfig(**{**SMALL, "steps": 40, "out": tmp_path / "m.npz"})
    list(charrnn.train([corpus], config, interrupted=stopper(37)))
    longer = TrainConfig(out=tmp_path / "m.npz", resume=True, steps=steps)
    events = list(charrnn.train([], longer))
    notes = [event.text for event in events if isinstance(event, Notice)]
    assert any("rises again" in note for note in notes) == rises
    assert done(events).steps == steps
    assert not done(events).repeatable  # 38 steps fall otherwise than the first 37 of 40


def test_a_budget_ends_early_after_eight_validations_without_a_new_best(corpus, monkeypatch):
    clock = ticking(monkeypatch)
    told = iter([2.0, 3.0, 3.0, 1.5, *[1.6] * 1000])
    monkeypatch.setattr(Replica, "validate", lambda self, averaged: next(told))
    config = TrainConfig(**{**SMALL, "steps": None, "budget": 1000.0, "val_every": 2})
    events = list(charrnn.train([corpus], config, clock=clock))
    fixed = next(event.step for event in events if isinstance(event, Step) and event.steps)
    assert fixed == 2 * (4 + PATIENCE) + 1
    left = [e.seconds_left for e in events if isinstance(e, Step) and e.steps is None]
    assert left == pytest.approx([1000 - 0.05 * (n + 1) for n in range(fixed - 1)])
    assert PATIENCE == 8
    assert done(events).stopped == "early"
    assert done(events).val_loss == 1.5


def test_without_validation_the_curve_has_the_training_loss(corpus):
    curve = done(run(corpus, val_fraction=0.0, steps=12, val_every=5)).model.curve
    assert [(step, val) for step, _, val in curve] == [(5, None), (10, None), (12, None)]
    assert all(train is not None and train > 0 for _, train, _ in curve)


def test_the_first_step_may_be_validated(corpus):
    events = run(corpus, steps=3, val_every=1)
    assert [event.step for event in events if isinstance(event, Validated)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["-text.txt", "a text", "-"])
def test_the_command_names_the_text_as_a_shell_takes_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(TEXT)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    events = list(charrnn.train([name], TrainConfig(**{**SMALL, "steps": 1})))
    words = shlex.split(done(events).command)
    assert words[:3] == ["charrnn", "train", "./-text.txt" if name == "-text.txt" else name]


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_running_text_carries_the_state_on_and_items_begin_from_zero(cell, lines, tmp_path):
    text = tmp_path / "text"
    text.write_text("".join(f"{word}\n" for word in TEXT.split()[:17]))
    options = {"cell": cell, "lines": lines, "batch_size": 1, "val_fraction": 0.0, "dropout": 0.0}
    config = TrainConfig(**{**SMALL, **options, "steps": 9, "lr": 1e-12})  # weights stay
    begun = prepare([text], config)
    network = Network(begun.config.model)
    zero = state = zero_state(begun.config.model, 1, "float32")
    expected = []
    for step in range(9):
        batch = begun.training.batch(step, slice(0, 1))
        nats, state = network.losses(begun.best, batch.x, batch.y, zero if lines else state)
        expected.append(nats.mean())
    assert np.ptp(expected) > 1e-3
    assert losses(run(text, **vars(config) | {"steps": 9})) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("longer", "steps"), [({"steps": 50}, 50), ({"budget": 0.5}, None)])
def test_a_longer_run_has_all_its_patience_again(longer, steps, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(Replica, "validate", lambda self, averaged: 1.0)
    run(corpus, steps=30, out=tmp_path / "m.npz")
    resumed = TrainConfig(out=tmp_path / "m.npz", resume=True)
    assert prepare([], resumed).progress.without_best > 0
    progress = prepare([], dataclasses.replace(resumed, **longer)).progress
    assert (progress.steps, progress.without_best, progress.ending) == (steps, 0, "finished")


def test_the_training_loss_is_the_mean_since_the_last_validation(corpus):
    events = run(corpus, steps=12, val_every=5)
    told = losses(events)
    means = [np.mean(told[:5]), np.mean(told[5:10]), np.mean(told[10:])]
    assert [train for _, train, _ in done(events).model.curve] == pytest.approx(means)
    assert done(events).train_loss == pytest.approx(means[-1])


@pytest.mark.parametrize(("epochs", "share"), [(1e-9, 0.0), (1.0, 1.0), (1.5, 1.5), (2.0, 2.0)])
def test_epochs_are_steps_rounded_up_and_one_at_least(epochs, share, corpus):
    begun = prepare([corpus], TrainConfig(**{**SMALL, "steps": None, "epochs": epochs}))
    assert begun.progress.steps == max(1, math.ceil(share * begun.training.steps_per_epoch))


def test_weights_are_not_chosen_by_the_last_characters_of_tiny_texts(tmp_path):
    texts = [tmp_path / f"{number}.txt" for number in range(20)]
    for text, word in zip(texts, TEXT.split(), strict=False):
        text.write_text(f"{word}\n")
    events = list(charrnn.train(texts, TrainConfig(**{**SMALL, "steps": 2})))
    told = " ".join(event.text for event in events if isinstance(event, Notice))
    assert "give them as a folder, or as a file with --lines" in told
    assert done(events).val_loss is None
    folder = list(charrnn.train([tmp_path], TrainConfig(**{**SMALL, "steps": 2})))
    assert done(folder).val_loss is not None


def test_the_hint_for_a_text_that_has_moved_can_be_copied(tmp_path):
    out, text, moved = (tmp_path / name for name in ("my model.npz", "text", "moved"))
    text.write_text(TEXT)
    run(text, out=out, steps=2)
    text.rename(moved)
    with pytest.raises(CorpusError, match="no longer here") as error:
        list(charrnn.train([], TrainConfig(out=out, resume=True, steps=4)))
    words = shlex.split(str(error.value).rpartition("new place: ")[2])
    assert words == ["charrnn", "train", "PATH", "--resume", "--out", str(out)]
    assert app.main([str(moved) if word == "PATH" else word for word in words[1:]]) == 0


def test_what_a_folder_left_out_is_left_out_again(tmp_path):
    """Files that seem to be no text are skipped where no encoding was given by name."""
    folder, out = tmp_path / "folder", tmp_path / "m.npz"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    (folder / "b.pdf").write_text("%PDF-1.4\n" + TEXT, encoding="utf-8")
    first = run(folder, out=out)
    assert "--encoding" not in done(first).command
    events = list(charrnn.train([], TrainConfig(out=out, resume=True, steps=14)))
    assert len(losses(events)) == 2


def test_resuming_a_folder_by_its_files_says_that_a_folder_is_one_text(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    files = [folder / "a.txt", folder / "b.txt"]
    for file in files:
        file.write_text(TEXT, encoding="utf-8")
    run(folder, out=tmp_path / "m.npz")
    with pytest.raises(CheckpointError, match=r"in 2 texts now, .* in 1 then \(folder\)"):
        list(charrnn.train(files, TrainConfig(out=tmp_path / "m.npz", resume=True)))


def test_starting_from_other_weights_keeps_them_and_adds_characters(corpus, tmp_path):
    start = done(run(corpus, out=tmp_path / "m.npz")).model
    other = tmp_path / "other.txt"
    other.write_text("ÄÖ the end\n" * 50, encoding="utf-8")
    events = list(
        charrnn.train(
            [other],
            TrainConfig(
                **{
                    **SMALL,
                    "hidden": None,
                    "steps": 1,
                    "lr": 1e-12,
                    "init_from": tmp_path / "m.npz",
                }
            ),
        )
    )
    model = done(events).model
    assert model.vocabulary.characters == start.vocabulary.characters + "ÄÖ"
    np.testing.assert_allclose(
        model.parameters["U"][: len(start.vocabulary)], start.parameters["U"], atol=1e-6
    )
    np.testing.assert_allclose(
        model.parameters["layers.0.W"], start.parameters["layers.0.W"], atol=1e-6
    )


def test_texts_of_a_word_each_are_not_validated_by_their_newlines(tmp_path):
    texts = [tmp_path / "a", tmp_path / "b"]
    for text, word in zip(texts, ("hello", "world"), strict=True):
        text.write_text(f"{word}\n")
    events = list(charrnn.train(texts, TrainConfig(**SMALL)))
    assert done(events).val_loss is None
    assert any("give them as a folder" in e.text for e in events if isinstance(e, Notice))


def test_a_text_of_one_repeated_character_trains(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a" * 300, encoding="utf-8")
    assert done(run(path)).val_loss == pytest.approx(0, abs=1e-6)


def test_a_text_shorter_than_a_batch_trains_and_says_so(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("to be or not to be", encoding="utf-8")
    events = run(path, batch_size=64, seq_len=64)
    assert any("the text is short" in getattr(event, "text", "") for event in events)
    assert done(events).steps == 12


@pytest.mark.parametrize("to_a_file", [True, False])
def test_a_run_that_blows_up_stops_and_says_so(corpus, tmp_path, to_a_file):
    out = tmp_path / "m.npz" if to_a_file else None
    events = run(corpus, out=out, lr=1e4, optimizer="sgd", clip=0.0, val_fraction=0.0, steps=500)
    assert done(events).stopped == "diverged"
    assert np.abs(weights(events)).max() < 10
    if out is not None:
        np.testing.assert_array_equal(charrnn.load(out).parameters.flat, weights(events))


def test_weights_from_before_the_loss_blew_up_are_those_that_are_kept(corpus, monkeypatch):
    step = Replica.step
    monkeypatch.setattr(
        Replica, "step", lambda self, k, lr: (float("nan"), 1.0) if k == 40 else step(self, k, 0.01)
    )
    events = run(corpus, steps=500, val_fraction=0.0)
    assert done(events).stopped == "diverged"
    np.testing.assert_array_equal(weights(events), weights(run(corpus, steps=25, val_fraction=0.0)))


def test_weights_that_no_loss_has_tried_are_not_kept_as_good(corpus, monkeypatch):
    step = Replica.step
    monkeypatch.setattr(
        Replica, "step", lambda self, k, lr: (float("nan"), 1.0) if k == 25 else step(self, k, lr)
    )
    events = run(corpus, steps=500, val_fraction=0.0)
    begun = prepare([corpus], TrainConfig(**{**SMALL, "val_fraction": 0.0}))
    np.testing.assert_array_equal(weights(events), begun.best.flat)


def test_nothing_is_written_before_the_first_step(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(CorpusError):
        list(charrnn.train([empty], TrainConfig(out=tmp_path / "m.npz")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.txt"]


def test_a_budget_becomes_a_total_that_repeats_the_run(corpus, monkeypatch):
    clock = ticking(monkeypatch)
    config = TrainConfig(**{**SMALL, "steps": None, "budget": 12.0, "dropout": 0.1, "lr": 1e-3})
    timed = list(charrnn.train([corpus], config, clock=clock, started=0.0))
    counted = run(corpus, steps=done(timed).steps, dropout=0.1, lr=1e-3)
    assert losses(timed) == losses(counted)
    assert done(timed).seconds == pytest.approx(12.0, rel=0.05)


def test_epochs_count_passes_over_the_training_part(corpus):
    events = run(corpus, steps=None, epochs=1.5)
    assert done(events).epochs == pytest.approx(1.5, abs=0.02)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_a_worker_that_dies_ends_the_run_with_an_error_and_leaves_no_process(
    corpus, tmp_path, monkeypatch
):
    started = []
    start = workers._start
    monkeypatch.setattr(workers, "_start", lambda fds: started.append(start(fds)) or started[-1])
    config = TrainConfig(
        **{**SMALL, "steps": 10_000, "workers": 2, "out": tmp_path / "m.npz", "save_every": 1e-9}
    )
    events = charrnn.train([corpus], config)
    for event in events:
        if isinstance(event, Step) and event.step == 5:
            os.kill(started[0].pid, signal.SIGKILL)
            break
    with pytest.raises(
        TrainingError, match="worker 1 of 2 ended in the middle of the run .killed by signal 9"
    ):
        list(events)
    assert started[0].poll() is not None
    assert charrnn.load(tmp_path / "m.npz").config.hidden == 12


def test_a_caller_that_stops_listening_leaves_no_process(corpus, monkeypatch):
    started = []
    start = workers._start
    monkeypatch.setattr(workers, "_start", lambda fds: started.append(start(fds)) or started[-1])
    events = charrnn.train([corpus], TrainConfig(**{**SMALL, "steps": 10_000, "workers": 2}))
    for event in events:
        if isinstance(event, Step):
            break
    events.close()
    assert started[0].poll() is not None


def test_the_json_of_events_has_the_names_of_the_contract(corpus):
    events = run(corpus)
    names = {type(event): set(event.as_dict()) for event in events}
    assert names[Start] == {
        "event",
        "corpus_characters",
        "vocabulary_size",
        "params",
        "cell",
        "hidden",
        "layers",
        "batch_size",
        "seq_len",
        "workers",
        "ranks",
        "seed",
        "floor_nats",
        "floor_order",
    }
    assert names[Step] == {
        "event",
        "step",
        "steps",
        "epoch",
        "loss",
        "grad_norm",
        "lr",
        "chars_per_second",
    }
    assert names[Done] == {
        "event",
        "steps",
        "epochs",
        "seconds",
        "train_loss",
        "val_loss",
        "val_bpc",
        "val_characters",
        "floor_nats",
        "chars_per_second",
        "params",
        "workers",
        "ranks",
        "checkpoint",
        "stopped",
        "command",
    }
    assert all(dataclasses.is_dataclass(event) for event in events)


def test_a_longer_budget_after_decay_takes_no_longer_than_it_says(corpus, tmp_path, monkeypatch):
    clock = ticking(monkeypatch)
    config = {**SMALL, "steps": None, "out": tmp_path / "m.npz"}
    list(
        charrnn.train(
            [corpus], TrainConfig(**{**config, "budget": 12.0}), clock=clock, started=clock()
        )
    )
    more = TrainConfig(out=tmp_path / "m.npz", resume=True, budget=15.0)
    events = list(charrnn.train([], more, clock=clock, started=clock()))
    assert done(events).seconds == pytest.approx(15.0, rel=0.06)
    assert not done(events).repeatable
    assert any("rises again" in getattr(event, "text", "") for event in events)


def test_a_budget_interrupted_where_a_validation_is_due_goes_on_to_its_end(
    corpus, tmp_path, monkeypatch
):
    clock = ticking(monkeypatch, validation=1.0)
    config = {
        **SMALL,
        "steps": None,
        "budget": 30.0,
        "val_every": 40,
        "lr": 1e-3,
        "out": tmp_path / "m.npz",
    }
    list(
        charrnn.train(
            [corpus], TrainConfig(**config), clock=clock, started=0.0, interrupted=stopper(40)
        )
    )
    began = clock()
    events = list(
        charrnn.train(
            [], TrainConfig(out=tmp_path / "m.npz", resume=True), clock=clock, started=began
        )
    )
    assert done(events).seconds == pytest.approx(30.0, rel=0.1)


def test_no_command_is_said_to_repeat_a_run_that_other_workers_went_on_with(corpus, tmp_path):
    config = {**SMALL, "workers": 2, "out": tmp_path / "m.npz"}
    list(charrnn.train([corpus], TrainConfig(**config), interrupted=stopper(4)))
    same = tmp_path / "same.npz"
    same.write_bytes((tmp_path / "m.npz").read_bytes())
    assert done(list(charrnn.train([], TrainConfig(out=same, resume=True, workers=2)))).repeatable
    other = TrainConfig(out=tmp_path / "m.npz", resume=True, workers=1)
    assert not done(list(charrnn.train([], other))).repeatable


def test_a_longer_run_from_the_last_step_before_the_decay_is_repeatable(corpus, tmp_path):
    list(
        charrnn.train(
            [corpus], TrainConfig(**{**SMALL, "out": tmp_path / "m.npz"}), interrupted=stopper(6)
        )
    )
    events = list(charrnn.train([], TrainConfig(out=tmp_path / "m.npz", resume=True, steps=24)))
    assert done(events).repeatable
    assert losses(events) == losses(run(corpus, steps=24))[6:]


def test_time_lost_to_a_stall_shortens_the_run(corpus, monkeypatch):
    clock = ticking(monkeypatch, lambda number: 8.0 if number == 60 else 0.05)
    events = list(
        charrnn.train(
            [corpus],
            TrainConfig(**{**SMALL, "steps": None, "budget": 12.0}),
            clock=clock,
            started=0.0,
        )
    )
    assert done(events).seconds < 12.6
    assert not done(events).repeatable


def test_the_command_of_a_resumed_run_names_the_weights_it_began_with(corpus, tmp_path):
    run(corpus, out=tmp_path / "a.npz")
    config = TrainConfig(
        **{**SMALL, "hidden": None, "init_from": tmp_path / "a.npz", "out": tmp_path / "b.npz"}
    )
    list(charrnn.train([corpus], config, interrupted=stopper(4)))
    command = done(
        list(charrnn.train([], TrainConfig(out=tmp_path / "b.npz", resume=True)))
    ).command
    assert f"--init-from {tmp_path / 'a.npz'}" in command
    assert command.endswith(f"--out {tmp_path / 'b-again.npz'}")


def test_workers_are_not_misled_by_files_of_the_folder_they_start_in(corpus, tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text(
        "raise SystemExit('not the random of Python')", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    assert done(run(corpus, workers=2)).steps == 12


@pytest.mark.parametrize("spoil", ["theta", "state", "sources", "training", "m"])
def test_resuming_from_damaged_data_is_refused(spoil, corpus, tmp_path):
    out = tmp_path / "m.npz"
    run(corpus, out=out)
    model, arrays = load_resume(out)
    if spoil == "training":
        model = dataclasses.replace(model, meta=model.meta | {"training": {"new": 1}})
    else:
        arrays[spoil] = np.zeros(3, np.float32)
    charrnn.save(out, model, arrays)
    with pytest.raises(
        CheckpointError, match="what resuming needs is missing, damaged or from another charrnn"
    ):
        list(charrnn.train([], TrainConfig(out=out, resume=True)))


def test_a_text_is_never_overwritten_by_its_model(corpus):
    with pytest.raises(UsageError, match="is a text to train on"):
        run(corpus, out=corpus, overwrite=True)
    assert corpus.read_text(encoding="utf-8") == TEXT


def test_one_path_alone_is_a_text(corpus):
    assert done(list(charrnn.train(str(corpus), TrainConfig(**SMALL)))).steps == 12


def test_lines_have_a_floor_that_depends_on_their_distinct_lines_alone(tmp_path):
    names = [
        first + second
        for first in ("an", "ber", "cor", "do")
        for second in ("na", "ta", "lia", "ris", "nes", "")
    ]
    floors = []
    for lines in (names, [*reversed(names), *names]):
        path = tmp_path / "names.txt"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        start = next(
            event for event in run(path, lines=True, val_fraction=0.25) if isinstance(event, Start)
        )
        floors.append((start.floor_nats, start.floor_order))
    assert floors[0] == floors[1]
    assert (
        0 < (floors[0][0] or 0) < 1.5
    )  # the best order knows the six endings; letters alone have 2.5 nats


def test_more_memory_than_is_free_is_said_before_the_first_step(corpus, monkeypatch):
    monkeypatch.setattr("charrnn.training.setup.free_memory", lambda: 10**6)
    notes = [event.text for event in run(corpus, steps=1) if isinstance(event, Notice)]
    assert any("but only 1 MB are free; a smaller --hidden" in note for note in notes)
    monkeypatch.setattr("charrnn.training.setup.free_memory", lambda: None)
    assert not any("free" in getattr(event, "text", "") for event in run(corpus, steps=1))


def test_an_older_run_cannot_be_resumed_and_says_so(corpus, tmp_path):
    out = tmp_path / "m.npz"
    run(corpus, out=out)
    model, arrays = load_resume(out)
    arrays["record"] = arrays.pop("sources")
    charrnn.save(out, dataclasses.replace(model, meta={**model.meta, "version": "0.1.0"}), arrays)
    assert charrnn.load(out).config.hidden == 12
    with pytest.raises(CheckpointError, match="what resuming needs is missing.*--init-from"):
        list(charrnn.train([], TrainConfig(out=out, resume=True)))


@pytest.mark.parametrize("losses", [[float("nan"), 2.0, 1.0], [2.0, float("nan"), 1.0]])
def test_a_validation_loss_of_nan_is_never_the_best(losses, corpus, monkeypatch):
    told = iter([*losses, 1.0])
    monkeypatch.setattr(Replica, "validate", lambda self, averaged: next(told))
    events = run(corpus, steps=15)
    assert [event.best for event in events if isinstance(event, Validated)][-1]
    assert done(events).val_loss == 1.0


@pytest.mark.parametrize("steps", [5, 12])
def test_a_shorter_total_than_what_is_done_leaves_nothing_to_do(steps, corpus, tmp_path):
    run(corpus, out=tmp_path / "m.npz")
    events = list(charrnn.train([], TrainConfig(out=tmp_path / "m.npz", resume=True, steps=steps)))
    assert not losses(events)
    notes = [event.text for event in events if isinstance(event, Notice)]
    assert notes[-1] == "the run already has 12 steps: nothing left to do"
    assert not any("rises again" in note for note in notes)


def test_no_command_is_said_to_repeat_a_run_whose_beginning_is_overwritten(corpus, tmp_path):
    out = tmp_path / "m.npz"
    run(corpus, out=out)
    again = {**SMALL, "hidden": None, "init_from": out, "overwrite": True}
    assert not done(run(corpus, **{**again, "out": out})).repeatable
    assert done(run(corpus, **{**again, "out": tmp_path / "other.npz"})).repeatable
    assert not done(run(corpus, dtype="float64")).repeatable


@pytest.mark.parametrize("seconds", [-1e6, 1e6])
@pytest.mark.parametrize("folder", [False, True])
def test_no_command_is_said_to_repeat_a_run_whose_text_was_replaced(
    corpus, tmp_path, folder, seconds
):
    """The clock of whoever wrote the text may be wrong, and an older file may replace it."""
    (tmp_path / "texts").mkdir()
    text = tmp_path / "texts" / "a.txt"
    text.write_bytes(corpus.read_bytes())
    at = time.time() + seconds
    os.utime(text, (at, at))
    events = charrnn.train([text.parent if folder else text], TrainConfig(**SMALL))
    assert done(list(events)).repeatable
    events = charrnn.train([text.parent if folder else text], TrainConfig(**SMALL))
    first = [next(events)]
    os.utime(text, (at - 1, at - 1))
    assert not done([*first, *events]).repeatable


def test_a_text_that_has_moved_is_asked_for_with_a_command_that_works(corpus, tmp_path):
    out = tmp_path / "m.npz"
    run(corpus, out=out)
    corpus.rename(tmp_path / "moved.txt")
    with pytest.raises(CorpusError, match=re.escape(f"charrnn train PATH --resume --out {out}")):
        list(charrnn.train([], TrainConfig(out=out, resume=True)))


def test_validation_reads_no_more_characters_than_were_asked_for(corpus, tmp_path):
    out = tmp_path / "m.npz"
    events = run(corpus, out=out, val_characters=100)
    told = [event for event in events if isinstance(event, Validated)]
    assert {event.val_characters for event in told} == {done(events).val_characters}
    assert 50 <= told[0].val_characters <= 100
    assert "--val-characters 100" in done(events).command
    resumed = list(charrnn.train([], TrainConfig(out=out, resume=True, steps=20)))
    assert done(resumed).val_characters == told[0].val_characters


def test_validation_of_lines_can_be_cut_too():
    events = run(CORPORA / "minerals.txt", lines=True, val_characters=300)
    assert 250 < (done(events).val_characters or 0) <= 300


def test_texts_of_a_word_each_have_no_validation_and_a_note_says_why(tmp_path):
    words = []
    for word in ("hello", "world", "there"):
        words.append(tmp_path / f"{word}.txt")
        words[-1].write_text(f"{word}\n", encoding="ascii")
    events = list(charrnn.train(words, TrainConfig(**SMALL)))
    assert done(events).val_loss is None
    notes = [event.text for event in events if isinstance(event, Notice)]
    assert any("give them as a folder, or as a file with --lines" in note for note in notes)


def test_a_validation_that_would_take_a_budgets_time_is_cut():
    facts = Facts(30_000_000, 3_000_000, 65, 2)
    config = resolve(TrainConfig(budget=10.0), facts)
    assert 1_000 <= (config.val_characters or 0) < 300_000
    assert resolve(TrainConfig(steps=10), facts).val_characters is None
    assert resolve(TrainConfig(budget=1e6), facts).val_characters is None
    assert resolve(TrainConfig(budget=10.0, val_characters=7), facts).val_characters == 7


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_shrinks_parameters_by_its_share_of_the_rate(optimizer, corpus):
    options = {"optimizer": optimizer, "steps": 1, "lr": 0.01, "dropout": 0.0, "val_fraction": 0.0}
    plain, decayed = (weights(run(corpus, weight_decay=decay, **options)) for decay in (0.0, 0.5))
    begun = prepare([corpus], TrainConfig(**{**SMALL, "val_fraction": 0.0})).best.flat
    lost = learning_rate(0, 0.01, 1) * 0.5 * begun
    np.testing.assert_allclose(decayed, plain - lost, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("slow", "late"), [(0.05, False), (0.1, True)])
def test_a_run_that_ends_late_since_the_machine_became_slower_says_so(
    slow, late, corpus, monkeypatch
):
    clock = ticking(monkeypatch, lambda step: slow if step > 640 else 0.05, validation=0.1)
    config = TrainConfig(**{**SMALL, "steps": None, "budget": 40.0, "val_every": 40, "lr": 1e-3})
    events = list(charrnn.train([corpus], config, clock=clock, started=0.0))
    told = [e.text for e in events if isinstance(e, Notice) and "after the budget" in e.text]
    assert len(told) == late


@pytest.mark.parametrize("slow", [range(150), range(300, 315)])
def test_a_budget_is_used_up_although_the_machine_was_slower_for_a_while(slow, corpus, monkeypatch):
    clock = ticking(monkeypatch, lambda step: 0.08 if step in slow else 0.05, validation=0.1)
    config = TrainConfig(**{**SMALL, "steps": None, "budget": 40.0, "val_every": 40, "lr": 1e-3})
    events = list(charrnn.train([corpus], config, clock=clock, started=0.0))
    assert done(events).seconds == pytest.approx(40.0, rel=0.03)
