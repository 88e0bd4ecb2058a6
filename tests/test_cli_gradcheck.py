"""`charrnn gradcheck`: the tables, the verdict and the lecture."""

import json
import unicodedata

import numpy as np
import pytest
from tiny_models import saved, tiny

from charrnn.cli.terminal import bar
from charrnn.lecture.fading import fading
from charrnn.network import gradcheck as checks

SMALL = "gradcheck --cell rnn --hidden 2 --seq-len 3"


def test_the_json_has_every_array_of_every_network(cli):
    (result,) = cli.json(SMALL)
    assert result["passed"] is True
    assert [(check["cell"], check["layers"], check["dropout"]) for check in result["checks"]] == [
        ("rnn", layers, dropout) for layers in (1, 2) for dropout in (False, True)
    ]
    expected = checks.gradcheck(("rnn",), hidden=2, seq_len=3)
    for check, other in zip(result["checks"], expected, strict=True):
        assert [(array["name"], array["numeric"]) for array in check["arrays"]] == [
            (array.name, array.numeric) for array in other.arrays
        ]


def test_a_table_shows_the_worst_element_of_each_array_and_a_verdict(cli):
    lines = cli(SMALL).out.splitlines()
    (first, *_) = checks.gradcheck(("rnn",), hidden=2, seq_len=3)
    for array in first.arrays:
        row = next(line for line in lines if line.split()[:1] == [array.name])
        assert f"{array.analytic:.6e}" in row
        assert f"{array.numeric:.6e}" in row
    assert lines[-1].startswith("All 26 arrays agree")


def test_above_the_tolerance_everything_is_printed_and_the_exit_code_is_1(cli):
    out, err = cli(f"{SMALL} --tolerance 1e-15", 1)
    assert out.count("FAILS") == 4
    assert "above the tolerance" in out
    assert err.startswith("charrnn: gradcheck failed: ")
    assert err.count("\n") == 1


def test_a_wrong_gradient_fails(cli, monkeypatch):
    right = checks.Network.gradient

    def wrong(self, *arguments, out, **options):
        result = right(self, *arguments, out=out, **options)
        out["layers.0.W"][:] = out["layers.0.W"].T.copy()
        return result

    monkeypatch.setattr(checks.Network, "gradient", wrong)
    out, err = cli(f"{SMALL} --json", 1)
    assert json.loads(out)["passed"] is False
    assert "gradcheck failed" in err


def test_at_trained_weights_it_checks_the_models_own_arrays(tmp_path, cli):
    model = tiny("abcdef", cell="gru", hidden=7, layers=2, spread=0.3)
    saved(model, tmp_path)
    (check,) = cli.json("gradcheck --model tiny.npz")[0]["checks"]
    assert (check["cell"], check["layers"]) == ("gru", 2)
    sizes = {name: min(32, array.size) for name, array in model.parameters.items()}
    assert {array["name"]: array["checked"] for array in check["arrays"]} == sizes


@pytest.fixture
def no_checks(monkeypatch):
    """Leave the gradient check itself out: these tests are of the lecture."""
    (one, *_) = checks.gradcheck(("rnn",), hidden=1, seq_len=3)
    monkeypatch.setattr(checks, "gradcheck", lambda *_, **__: [one])


@pytest.mark.usefixtures("no_checks")
def test_the_lectures_json_has_the_candidates_as_the_quiz_numbers_them_one_right(cli):
    (result,) = cli.json("gradcheck --lecture --seed 3")
    for name, count, right in (("b_y", 5, 2), ("b_h", 4, 4)):
        numbers = [candidate["candidate"] for candidate in result[name]]
        assert numbers == list(range(1, count + 1))
        assert [candidate["right"] for candidate in result[name]] == [n == right for n in numbers]
        near = [candidate["distance"] < 1e-6 for candidate in result[name]]
        assert near == [candidate["right"] for candidate in result[name]]
    assert {(network["cell"], network["gain"]) for network in result["lags"]} == {
        (cell, gain) for cell in ("rnn", "gru", "lstm") for gain in (0.7, 1.0, 1.4)
    }
    assert result["checks"]
    assert result["y_hat"]["sum_error"] < 1e-12


@pytest.mark.usefixtures("no_checks")
@pytest.mark.parametrize("columns", [80, 200])
def test_the_display_fits_marks_the_right_ones_and_shows_each_network_beside_the_others(
    columns, cli, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = cli("gradcheck --lecture").out.splitlines()
    assert max(sum(not unicodedata.combining(char) for char in line) for line in lines) <= columns
    rows = [line.split() for line in lines]
    assert sum(words[1:2] == ["wrong"] for words in rows) == 7
    marked = [words[1:3] for words in rows if words[:1] == [">>"]]
    assert marked == [["(2)", "RIGHT"], ["(4)", "RIGHT"], ["(2)", "RIGHT"]]  # at last with dh_t
    assert rows.count(["lag", "rnn", "gru", "lstm"]) == 6  # norms and shares, three gains
    assert any("all in [0, 1]" in line for line in lines)


@pytest.mark.usefixtures("no_checks")
def test_gains_and_sizes_are_those_asked_for_and_the_figures_the_apis(cli):
    sizes = "--seq-len 9 --hidden 4 --seed 2"
    output = cli(f"gradcheck --lecture --cell gru --gain 0.5 --gain 2 {sizes}").out
    for gain in (0.5, 2):
        found = fading("gru", 2, 4, 9, gain)
        assert f"{found.lags[9].norm:.1e}" in output
        assert f"{found.lags[0].share:.1%}" in output
        assert f"{found.lags[4].lost:.1%}" in output
        assert " ".join(found.sentence.split()) in " ".join(output.split())


def test_with_a_model_the_lecture_shows_its_trained_weights(tmp_path, cli):
    model = tiny("abcdef\n", cell="lstm", hidden=5, spread=0.3)
    saved(model, tmp_path)
    command = "gradcheck --lecture --model tiny.npz"
    (network,) = cli.json(command)[0]["lags"]
    output = " ".join(cli(command).out.split())
    assert "At the trained weights of the first layer" in output
    assert " ".join(network["sentence"].split()) in output
    blocks = np.split(model.parameters["layers.0.W"].astype(np.float64), 4)
    assert network["gain"] is None
    assert network["singular"] == pytest.approx(max(np.linalg.norm(W, 2) for W in blocks))


def test_bars_are_as_long_as_their_share():
    assert [bar(share, 4) for share in (-1, 0, 0.5, 1, 2)] == ["", "", "██", "████", "████"]
    assert [bar(share, 4, ascii=True) for share in (0, 0.5, 1)] == ["", "##", "####"]
