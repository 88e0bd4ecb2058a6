"""Scores: each character's surprise, of running text and of items, whatever is read beside it."""

import math
from html.parser import HTMLParser

import numpy as np
import oracle
import pytest
from tiny_models import saved, tiny

import charrnn
from charrnn.errors import CheckpointError
from charrnn.sampling.scoring import Score, activations

ALPHABET = "the cat sat on a mat.\n"


@pytest.fixture
def model():
    return tiny(ALPHABET, layers=2, spread=0.5)


@pytest.fixture
def items():
    corpus = {"training_characters": 999}
    return tiny(ALPHABET, layers=2, spread=0.5, training={"lines": True}, corpus=corpus)


def test_running_text_has_every_character_but_the_first(model):
    text = "the cat sat\non a mat.\n" * 30  # longer than what is read at once
    score = charrnn.score(model, text)
    assert score.nats == pytest.approx(oracle.nats(model, text), rel=1e-4)
    assert np.isnan(score.surprise[[0, -1]]).all()
    assert score.characters == len(text) - 1
    assert score.mean == pytest.approx(np.mean(oracle.nats(model, text)), rel=1e-4)


@pytest.mark.parametrize("text", ["cat", "cat\n"])
def test_an_item_has_all_its_characters_and_its_newline(text, items):
    score = charrnn.score(items, text)
    assert score.nats == pytest.approx(oracle.nats(items, "\ncat\n"), rel=1e-4)
    assert score.characters == 4


def test_an_item_is_scored_as_eval_scores_it(items, tmp_path, cli):
    text = "cat\n\nthe mat.\non"
    (tmp_path / "text.txt").write_text(text)
    saved(items, tmp_path)
    (result,) = cli.json("eval tiny.npz text.txt")
    score = charrnn.score(items, text)
    assert result["characters"] == score.characters
    assert result["nats"] == pytest.approx(score.mean)


def test_items_of_any_length_stand_side_by_side(items):
    lines = ["a" * 700, *("on the mat"[: 1 + i % 9] for i in range(600)), "", "cat " * 300]
    score = charrnn.score(items, "\n".join(lines))
    expected = [oracle.nats(items, f"\n{line}\n") for line in lines if line]
    assert score.nats == pytest.approx(np.concatenate(expected), rel=1e-3, abs=1e-5)


def test_a_long_item_takes_memory_for_a_piece_of_it_alone(items, peak_memory):
    text = "cat\n" * 300 + "a mat" * 2000
    assert peak_memory(lambda: charrnn.score(items, text)) < 10e6


def test_eval_holds_a_long_text_in_arrays(model, tmp_path, cli, peak_memory):
    text = ALPHABET * 20_000
    (tmp_path / "text.txt").write_text(text)
    saved(model, tmp_path)
    command = "eval tiny.npz text.txt --streams 256 --worst 3"
    cli(f"{command} --json")  # loads what the command needs
    assert peak_memory(lambda: cli(command)) < 32 * len(text)


def test_the_worst_lines_are_items_with_their_newlines(items):
    text = "cat\n\nthe mat.\ncat\non"
    lines = {n: charrnn.score(items, line) for n, line in enumerate(text.split("\n"), 1) if line}
    expected = sorted(lines, key=lambda number: -lines[number].mean)
    worst = charrnn.score(items, text).worst(9)
    assert [number for number, _ in worst] == expected
    assert [text[part].rstrip("\n") for _, part in worst] == [lines[n].text for n in expected]
    assert charrnn.score(items, text).worst(2) == worst[:2]


def test_an_unknown_character_costs_as_much_as_never_seen_and_the_state_stays(items):
    known, cost = charrnn.score(items, "cat\nmat"), math.log(999 + 1)
    score = charrnn.score(items, "QcaQt\nmat", unknown="score")
    assert (score.unknown, score.characters) == (2, known.characters + 2)
    assert score.nats.sum() == pytest.approx(known.nats.sum() + 2 * cost)
    assert score.surprise[[0, 3]] == pytest.approx([cost, cost])
    assert score.surprise[[1, 2, 4]] == pytest.approx(known.surprise[:3])


def test_a_line_of_unknown_characters_is_the_oddest_of_all(items):
    text = "cat\nQQQQ\n\nmat\n"
    assert charrnn.score(items, text, unknown="score").worst(1)[0][0] == 2
    assert 2 not in [number for number, _ in charrnn.score(items, text, unknown="skip").worst(9)]
    score = charrnn.score(items, text, unknown="score")
    newline = oracle.nats(items, "\n\n")[0]
    assert score.surprise[4:10] == pytest.approx(
        [math.log(1000)] * 4 + [newline, np.nan], nan_ok=True
    )


def test_a_model_that_does_not_say_how_long_it_trained_cannot_price_the_unknown(
    model, tmp_path, cli
):
    with pytest.raises(CheckpointError, match="how many characters"):
        charrnn.score(model, "caQt", unknown="score")
    (tmp_path / "text.txt").write_text("caQt")
    saved(model, tmp_path)
    cli.refusal("eval tiny.npz text.txt --unknown score")


def test_training_says_how_many_characters_it_had(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat\n" * 50)
    config = charrnn.TrainConfig(out=None, steps=1, hidden=4, val_fraction=0.25)
    *_, done = charrnn.train([tmp_path / "text.txt"], config)
    assert done.model.training_characters == 450


def test_activations_leave_out_what_is_not_read(items):
    values = activations(items, "caQt\n\nmat", 3)
    assert np.isnan(values).tolist() == [char in "Q\n" for char in "caQt\n\nmat"]
    assert values[[0, 1, 3]] == pytest.approx(activations(items, "cat", 3))


class Cells(HTMLParser):
    """The elements of a fragment, and its text within cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.values, self.shown = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.values += [value or "" for name, value in attrs if name == "data-v"]

    def handle_data(self, data):
        self.shown += data


def test_a_notebook_shows_a_score_as_a_heat_map_of_text_alone(items):
    cells = Cells(charrnn.score(items, "cat")._repr_html_())
    bits = [nats / math.log(2) for nats in oracle.nats(items, "\ncat\n")]
    pairs = zip("cat↵", bits, strict=True)
    assert cells.values == [f"{char}  {value:.2f} bits" for char, value in pairs]
    assert "cat↵" in cells.shown
    assert cells.tags == {"style", "div", "p", "i"}
    hostile = Cells(Score("<script>&amp;</i>", np.ones(18))._repr_html_())
    assert "<script>&amp;</i>" in hostile.shown
    assert hostile.tags == {"style", "div", "p", "i"}


@pytest.mark.slow
def test_a_notebook_that_is_run_shows_the_heat_map(items, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    code = f"import charrnn; charrnn.load({saved(items, tmp_path)!r}).score('cat')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=60).execute()
    (output,) = notebook.cells[0].outputs
    assert output.data["text/html"] == charrnn.score(items, "cat")._repr_html_()


def test_a_notebook_gets_the_beginning_of_a_long_text():
    assert len(Score("a" * 10**6, np.ones(10**6 + 1))._repr_html_()) < 10**6


def test_the_repr_of_a_score_has_its_figures(model):
    score = charrnn.score(model, "the cat")
    mean = f"{score.mean:.4f} nats, {score.bpc:.4f} bits, perplexity {score.perplexity:.3f}"
    assert repr(score) == f"<charrnn.Score: {mean} per character over 6 characters>"


@pytest.mark.parametrize("nats", [700.0, 800.0, 1e300, float("inf")])
def test_the_perplexity_of_the_impossible_is_a_number(nats):
    assert Score("a", np.array([nats, nats])).perplexity == math.exp(700)


def test_a_score_of_an_item_shows_its_newline_whatever_it_begins_with(items):
    assert "жcat↵" in Cells(charrnn.score(items, "жcat", unknown="skip")._repr_html_()).shown


def test_a_model_samples_scores_and_predicts_by_its_own_methods(model):
    assert list(model.sample(seed=1, length=9)) == list(charrnn.sample(model, seed=1, length=9))
    own, other = model.score("the cat", streams=2), charrnn.score(model, "the cat", streams=2)
    assert own.nats.tolist() == other.nats.tolist()
    assert model.next("the ", k=3) == charrnn.likeliest(model, "the ", 3)
    assert len(model.next("the ")) == 10
