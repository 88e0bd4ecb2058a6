"""`charrnn info`: what is said of a model, whoever made it."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from tiny_models import saved, tiny

from charrnn.cli.app import main
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
Capture = pytest.CaptureFixture[str]


def shown(capsys, *arguments):
    assert main(["info", *arguments]) == 0
    return capsys.readouterr().out


def test_one_screen_says_what_it_is_how_it_was_trained_and_how_well(tmp_path, capsys):
    path = saved(tiny(TEXT, cell="gru", hidden=4, layers=2, **META), tmp_path)
    output = shown(capsys, path)
    assert len(output.splitlines()) <= 34
    wide = [line for line in output.splitlines() if len(line) > 80]
    assert all(line.startswith((path, "made by ")) for line in wide)  # they stay whole, to copy
    facts = {line[:13].strip(): line[13:].strip() for line in output.splitlines()}
    assert facts["network"] == "gru, 2 layers of 4 units, 321 parameters"
    assert facts["trained on"] == "book.txt, 123,456 characters"
    assert facts["time"] == "01:23, 200 steps, 1.5 epochs, 50,000 characters/s"
    assert facts["validation"].startswith("1.900 nats = 2.741 bits")
    assert facts["n-gram floor"].startswith("2.100 nats")
    assert facts["n-gram floor"].endswith("order 5)")
    assert facts["uniform"].startswith(f"{math.log(len(set(TEXT))):.3f} nats")
    assert "2.50 ┤" in output or "2.50 |" in output  # the curve's scale


@pytest.mark.parametrize("number", [1, 2])
def test_a_narrow_terminal_gets_whole_words_a_fact_below_the_other(
    number, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.chdir(tmp_path)
    saved(tiny(TEXT, cell="gru", hidden=4, **META), tmp_path)
    output = shown(capsys, *["tiny.npz"] * number)
    assert max(map(len, output.splitlines())) <= 20
    assert output.count("network       gru, 1\nlayer of 4 units,") == number
    assert output.count("step 200") == number


@pytest.mark.parametrize(
    ("steps", "length"),
    [(None, "--budget 90.0"), (200, "--steps 200")],
    ids=["interrupted", "ended"],
)
def test_the_command_that_made_a_model_is_put_together_from_what_the_file_says(
    steps, length, tmp_path, capsys
):
    training = {**META["training"], "budget": 90.0, "ranks": 2, "lines": True}
    path = saved(tiny(TEXT, **META | {"training": training, "steps": steps}), tmp_path)
    told = (
        f"mpiexec -n 2 charrnn train book.txt --dropout 0.1 {length} --batch-size 32 --seq-len 64 "
        "--lr 0.004 --optimizer adam --seed 5 --lines"
    )
    assert f"made by       {told}\n" in shown(capsys, path)
    assert json.loads(shown(capsys, path, "--json"))["command"] == told
    unknown = saved(tiny(TEXT, training={}), tmp_path)
    assert "made by" not in shown(capsys, unknown)
    assert json.loads(shown(capsys, unknown, "--json"))["command"] is None


def test_the_feed_forward_network_is_counted_weight_by_weight(tmp_path, capsys):
    model = tiny(TEXT, cell="rnn", hidden=3)
    H, N = 3, len(model.vocabulary)
    result = json.loads(shown(capsys, saved(model, tmp_path), "--json"))
    expected = {
        str(T): sum(rows * columns for rows, columns in ((H, T * N), (H, 1), (N, H), (N, 1)))
        for T in WINDOWS
    }
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


def test_a_model_without_training_still_shows(tmp_path, capsys):
    output = shown(capsys, saved(tiny(TEXT), tmp_path))
    assert "lstm, 1 layer of 6 units" in output
    assert "trained on" not in output
    assert "validation" not in output
    result = json.loads(shown(capsys, str(tmp_path / "tiny.npz"), "--json"))
    assert (result["val_loss"], result["curve"], result["training"]) == (None, [], {})


def test_json_has_the_losses_the_curve_and_the_configuration(tmp_path, capsys):
    result = json.loads(shown(capsys, saved(tiny(TEXT, **META), tmp_path), "--json"))
    for key in (
        "training",
        "corpus",
        "step",
        "epochs",
        "seconds",
        "train_loss",
        "val_loss",
        "floor_nats",
        "floor_order",
        "curve",
    ):
        assert result[key] == META[key]
    assert result["val_bpc"] == pytest.approx(1.9 / math.log(2))
    assert result["vocabulary"] == "".join(sorted(set(TEXT)))


def test_the_default_model_is_the_one_here_and_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("charrnn.checkpoint.model.SHIPPED", tmp_path / "none.npz")
    assert main(["info"]) == 1
    assert "charrnn train" in capsys.readouterr().err
    saved(tiny(TEXT), tmp_path, "model.npz")
    assert main(["info", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["model"] == "model.npz"
    assert captured.err == "model: model.npz\n"


def test_several_models_stand_side_by_side(tmp_path, capsys):
    paths = [
        saved(tiny(TEXT, cell=cell, **META), tmp_path, f"{cell}.npz") for cell in ("rnn", "lstm")
    ]
    output = shown(capsys, *paths)
    assert any("rnn, 1 layer" in line and "lstm, 1 layer" in line for line in output.splitlines())
    assert max(map(len, output.splitlines()[1:])) <= 80  # the first line is the path, however long
    assert [json.loads(line)["cell"] for line in shown(capsys, *paths, "--json").splitlines()] == [
        "rnn",
        "lstm",
    ]


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
def test_whatever_a_strangers_meta_says_it_shows(meta, tmp_path, capsys):
    meta["training"] = meta.get("training") if isinstance(meta.get("training"), dict) else {}
    path = saved(tiny("ab", hidden=1, **meta), tmp_path)
    assert "2: ab" in shown(capsys, path)
    assert "lstm" in shown(capsys, path, path)
    assert json.loads(shown(capsys, path, "--json"))["params"] > 0


def test_control_characters_of_the_vocabulary_and_the_corpus_are_escaped(tmp_path, capsys):
    path = saved(tiny("\x1b\x9b\u202eab", corpus={"names": ["\x1b[2J"], "characters": 3}), tmp_path)
    output = shown(capsys, path) + shown(capsys, path, path)
    assert "\x1b" not in output
    assert r"\x1b[2J" in output
    assert r"\x9b" in output


def test_a_file_that_is_no_model_is_one_clear_line(tmp_path, capsys):
    (tmp_path / "no.npz").write_text("no")
    assert main(["info", str(tmp_path / "no.npz")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no.npz: " in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_the_good_ones_are_shown_beside_those_that_cannot_be_opened(
    json_too, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("torn.npz").write_bytes(b"PK")
    good, other = saved(tiny("ab"), Path(), "good.npz"), saved(tiny("abc"), Path())
    bad = ["missing.npz", "torn.npz"]
    assert main(["info", bad[0], good, bad[1], other, *json_too]) == 1
    out, err = capsys.readouterr()
    assert good in out
    assert other in out
    assert [line.split(": ")[:2] for line in err.splitlines()] == [["charrnn", b] for b in bad]


def test_one_good_model_among_bad_ones_is_shown_as_alone(tmp_path, capsys):
    good = saved(tiny("ab"), tmp_path)
    assert main(["info", good]) == 0
    alone = capsys.readouterr().out
    assert main(["info", good, str(tmp_path / "missing.npz")]) == 1
    assert capsys.readouterr().out == alone
