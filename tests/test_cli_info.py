"""`charrnn info`: what is said of a model, whoever made it."""

import io
import math
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tiny_models import saved, tiny

from charrnn.cli.info import WINDOWS, feed_forward_facts

TEXT = "hello world\n"
META = {
    "training": {
        "batch_size": 32,
        "seq_len": 64,
        "optimizer": "adam",
        "lr": 0.004,
        "dropout": 0.1,
        "seed": 5,
        "lines": False,
    },
    "corpus": {"characters": 123456, "digest": "", "names": ["book.txt"]},
    "step": 200,
    "steps": 200,
    "epochs": 1.5,
    "seconds": 83.2,
    "chars_per_second": 50000.0,
    "train_loss": 1.75,
    "val_loss": 1.9,
    "floor_nats": 2.1,
    "floor_order": 5,
    "curve": [[100, 2.3, 2.5], [150, 1.9, 2.0], [200, 1.75, 1.9]],
}


@pytest.fixture(autouse=True)
def own_folder(cli):
    """Models are saved and found in a folder of the test's own."""


def save(*, text=TEXT, name="tiny.npz", **meta):
    saved(model := tiny(text, **meta), Path(), name)
    return model


@pytest.mark.parametrize("seconds", [-5.0, -1e200])
def test_a_time_below_zero_is_none(seconds, cli):
    save(**META | {"seconds": seconds})
    assert "00:00, 200 steps" in cli("info tiny.npz").out


@pytest.mark.parametrize(
    ("val", "floor", "above"), [(2.2, 2.1, True), (2.1, 2.1, False), (2.2, None, False)]
)
def test_a_loss_above_the_floor_says_so(val, floor, above, cli):
    save(**META | {"val_loss": val, "floor_nats": floor})
    assert ("above the floor: counting does better" in cli("info tiny.npz").out) == above


def test_one_screen_says_what_it_is_how_it_was_trained_and_how_well(cli):
    save(cell="gru", hidden=4, layers=2, **META)
    lines = cli("info tiny.npz").out.splitlines()
    assert len(lines) <= 34
    wide = [line for line in lines if len(line) > 80]
    assert all(line.startswith("made by ") for line in wide)  # it stays whole, to copy
    facts = {line[:13].strip(): line[13:].strip() for line in lines}
    assert facts["network"] == "gru, 2 layers of 4 units, 321 parameters"
    assert facts["trained on"] == "book.txt, 123,456 characters"
    assert facts["time"] == "01:23, 200 steps, 1.5 epochs, 50,000 characters/s"
    assert facts["validation"].startswith("1.900 nats = 2.741 bits")
    assert "above" not in facts["validation"]
    assert facts["n-gram floor"].startswith("2.100 nats")
    assert facts["n-gram floor"].endswith("order 5)")
    assert facts["uniform"].startswith(f"{math.log(len(set(TEXT))):.3f} nats")
    assert any(line.startswith(("  2.50 ┤", "  2.50 |")) for line in lines)  # the curve's scale


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize("number", [1, 2])
def test_a_narrow_terminal_gets_whole_words_a_fact_below_the_other(number, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    save(cell="gru", hidden=4, **META)
    monkeypatch.setattr(sys, "stdout", Terminal())
    cli("info" + " tiny.npz" * number)
    output = re.sub(r"\x1b\[[\d;]*m", "", sys.stdout.getvalue())
    lines = [line for line in output.splitlines() if not line.startswith("made by")]
    assert max(map(len, lines)) <= 20
    assert output.count("network       gru, 1\nlayer of 4 units,") == number
    assert output.count("step 200") == number


@pytest.mark.parametrize(
    ("steps", "length"),
    [(None, "--budget 90.0"), (200, "--steps 200")],
    ids=["interrupted", "ended"],
)
def test_the_command_that_made_a_model_is_put_together_from_what_the_file_says(steps, length, cli):
    training = {**META["training"], "budget": 90.0, "ranks": 2, "lines": True}
    save(**META | {"training": training, "steps": steps})
    told = (
        f"mpiexec -n 2 charrnn train book.txt --dropout 0.1 {length} --batch-size 32 --seq-len 64 "
        "--lr 0.004 --optimizer adam --seed 5 --lines"
    )
    assert f"made by       {told}\n" in cli("info tiny.npz").out
    assert cli.json("info tiny.npz")[0]["command"] == told
    save(training={})
    assert "made by" not in cli("info tiny.npz").out
    assert cli.json("info tiny.npz")[0]["command"] is None


def test_the_feed_forward_network_is_counted_weight_by_weight(cli):
    H, N = 3, len(save(cell="rnn", hidden=3).vocabulary)
    (result,) = cli.json("info tiny.npz")
    expected = {str(T): H * T * N + H + N * H + N for T in WINDOWS}
    assert result["feed_forward_params"] == expected
    assert result["params"] == H * N + H * H + H + N * H + N


@pytest.mark.parametrize("hidden", [1, 5, 40])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_it_says_for_which_windows_the_feed_forward_network_is_the_smaller(cell, hidden):
    model = tiny(TEXT, cell=cell, hidden=hidden)
    N = len(model.vocabulary)
    smaller = [
        f"T = {T}"
        for T in WINDOWS
        if hidden * N * T + hidden + N * hidden + N < model.parameters.flat.size
    ]
    rows = feed_forward_facts(model)
    assert [label for label, said in rows.items() if said.endswith("(fewer)")] == smaller


def test_a_model_without_training_still_shows(cli):
    save()
    output = cli("info tiny.npz").out
    assert "lstm, 1 layer of 6 units" in output
    assert "trained on" not in output
    assert "validation" not in output
    (result,) = cli.json("info tiny.npz")
    assert (result["val_loss"], result["curve"], result["training"]) == (None, [], {})


def test_json_has_the_losses_the_curve_and_the_configuration(cli):
    save(**META)
    (result,) = cli.json("info tiny.npz")
    told = META.keys() - {"steps", "chars_per_second"}
    assert {key: result[key] for key in told} == {key: META[key] for key in told}
    assert result["val_bpc"] == pytest.approx(1.9 / math.log(2))
    assert result["vocabulary"] == "".join(sorted(set(TEXT)))


def test_several_models_stand_side_by_side(cli):
    for cell in ("rnn", "lstm"):
        save(cell=cell, name=f"{cell}.npz", **META)
    lines = cli("info rnn.npz lstm.npz").out.splitlines()
    assert any("rnn, 1 layer" in line and "lstm, 1 layer" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert [one["cell"] for one in cli.json("info rnn.npz lstm.npz")] == ["rnn", "lstm"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["names", "lines", "lr", "characters"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(meta=st.dictionaries(st.sampled_from(sorted(META)), ANYTHING))
def test_whatever_a_strangers_meta_says_it_shows(meta, cli):
    training = meta.pop("training", None)
    save(text="ab", hidden=1, training=training if isinstance(training, dict) else {}, **meta)
    assert "2: ab" in cli("info tiny.npz").out
    assert "lstm" in cli("info tiny.npz tiny.npz").out
    assert cli.json("info tiny.npz")[0]["params"] > 0


def test_control_characters_of_the_vocabulary_and_the_corpus_are_escaped(cli):
    save(text="\x1b\x9b\u202eab", corpus={"names": ["\x1b[2J"], "characters": 3})
    output = cli("info tiny.npz").out + cli("info tiny.npz tiny.npz").out
    assert "\x1b" not in output
    assert r"\x1b[2J" in output
    assert r"\x9b" in output


@pytest.mark.parametrize("option", ["", "--json"])
def test_the_good_ones_are_shown_beside_those_that_cannot_be_opened(option, cli):
    Path("torn.npz").write_bytes(b"PK")
    save(name="good.npz")
    save(name="other.npz")
    out, err = cli(f"info missing.npz good.npz torn.npz other.npz {option}", 1)
    assert "good.npz" in out
    assert "other.npz" in out
    told = [line.split(": ")[:2] for line in err.splitlines()]
    assert told == [["charrnn", "missing.npz"], ["charrnn", "torn.npz"]]


def test_one_good_model_among_bad_ones_is_shown_as_alone(cli):
    save()
    assert cli("info tiny.npz missing.npz", 1).out == cli("info tiny.npz").out


def test_a_file_that_is_no_model_is_one_clear_line(cli):
    Path("no.npz").write_text("no")
    assert cli.refusal("info no.npz").startswith("no.npz: ")
