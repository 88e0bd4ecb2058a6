"""`charrnn eval`: the figures against the API's, and where each value stands."""

import math
from pathlib import Path

import numpy as np
import oracle
import pytest
from tiny_models import saved, tiny

import charrnn

ALPHABET = "the cat sat on a mat.\nÉ中e\u0301"
TEXT = "the cat sat\non a mat.\n\nthe mat\n"


@pytest.fixture(autouse=True)
def model(cli, tmp_path):
    """The model in tiny.npz; TEXT is in text.txt."""
    model = tiny(ALPHABET, layers=2, floor_nats=1.5, floor_order=5)
    saved(model, tmp_path)
    write(TEXT)
    return model


@pytest.fixture
def items(tmp_path):
    """A model of lines, in items.npz."""
    model = tiny(ALPHABET, training={"lines": True})
    saved(model, tmp_path, "items.npz")
    return model


def write(text, name="text.txt"):
    Path(name).write_bytes(text.encode())


def values(result):
    """Return the values of the first text, NaN for null."""
    return np.array(result["texts"][0]["values"], float)


def test_figures_are_those_of_the_api(model, cli):
    nats = charrnn.score(model, TEXT).nats
    (result,) = cli.json("eval tiny.npz text.txt --values")
    assert result["nats"] == pytest.approx(nats.mean(), rel=1e-6)
    assert result["bpc"] == pytest.approx(nats.mean() / math.log(2), rel=1e-6)
    assert result["perplexity"] == pytest.approx(math.exp(nats.mean()), rel=1e-6)
    assert (result["characters"], result["unknown"]) == (len(TEXT) - 1, 0)
    np.testing.assert_allclose(values(result), [np.nan, *nats], rtol=1e-6)


def test_several_texts_are_weighed_by_their_characters(model, cli):
    write("at", "other.txt")
    (result,) = cli.json("eval tiny.npz text.txt other.txt")
    nats = [charrnn.score(model, text).nats for text in (TEXT, "at")]
    means = [part.mean() for part in nats]
    assert [text["nats"] for text in result["texts"]] == pytest.approx(means, rel=1e-6)
    assert result["nats"] == pytest.approx(np.concatenate(nats).mean(), rel=1e-6)


@pytest.mark.parametrize("streams", [2, 3, 7, 1000])
def test_each_stream_is_scored_as_a_text_of_its_own(streams, model, cli):
    text = TEXT * 20 + "on"
    write(text)
    (result,) = cli.json(f"eval tiny.npz text.txt --streams {streams}")
    S = min(streams, len(text) // 2)
    pieces = [text[b * len(text) // S : (b + 1) * len(text) // S] for b in range(S)]
    nats = np.concatenate([charrnn.score(model, piece).nats for piece in pieces])
    assert result["characters"] == len(text) - S
    assert result["nats"] == pytest.approx(nats.mean(), rel=1e-5)


@pytest.mark.parametrize(
    "text", [TEXT, TEXT + "on", "\n\n\na\n", "cat", "on\n" + "the cat " * 130 + "\n" + "sat " * 300]
)
def test_a_model_of_lines_reads_each_item_from_its_newline_to_the_next(text, items, cli):
    expected = [charrnn.score(items, f"\n{line}\n").nats for line in text.split("\n") if line]
    nats = np.concatenate(expected)
    write(text)
    (result,) = cli.json("eval items.npz text.txt --values")
    assert result["characters"] == len(nats)
    assert result["nats"] == pytest.approx(nats.mean(), rel=1e-5)
    found = values(result)
    last = None if text.endswith("\n") else -1  # the newline that the text lacks
    assert found[~np.isnan(found)] == pytest.approx(nats[:last], rel=1e-4)


def test_unknown_characters_are_named_with_file_line_and_column(cli):
    write("the cat\nsaQt")
    assert "text.txt: line 2, column 3: 'Q'" in cli.refusal("eval tiny.npz text.txt")


def test_unknown_characters_are_skipped_and_counted(model, cli):
    write("Q\0the QcatQ")
    (result,) = cli.json("eval tiny.npz text.txt --encoding utf-8 --unknown skip --values")
    nats = charrnn.score(model, "the cat").nats
    assert (result["unknown"], result["characters"]) == (4, 6)
    assert result["nats"] == pytest.approx(nats.mean(), rel=1e-6)
    expected = [*[np.nan] * 3, *nats[:3], np.nan, *nats[3:], np.nan]
    np.testing.assert_allclose(values(result), expected, rtol=1e-5)


def test_the_floor_is_labelled_as_that_of_the_training_run(cli):
    told = (
        "for comparison, the n-gram floor on the training run's validation text: "
        "1.500 nats = 2.164 bits a character (n-grams of order 5)"
    )
    assert told in " ".join(cli("eval tiny.npz text.txt").out.split())


def test_heat_without_colour_has_each_characters_whole_bits_under_it(model, cli):
    text = "a 中e\u0301t\nmat"
    write(text)
    bits = (charrnn.score(model, text).nats / math.log(2)).tolist()
    d = [str(min(9, int(value))) for value in bits]
    mark = str(min(9, int(max(bits[2], bits[3]))))  # e and its accent share a place
    expected = ["a 中e\u0301t↵", f" {d[0]}{d[1]} {mark}{d[4]}{d[5]}", "mat", "".join(d[6:])]
    assert cli("eval tiny.npz text.txt --heat").out.splitlines()[3:7] == expected


def test_the_most_surprising_lines_come_first(model, cli):
    surprise, lines = np.array([np.nan, *charrnn.score(model, TEXT).nats]), TEXT.split("\n")
    ends = np.cumsum([len(line) + 1 for line in lines])
    means = {
        number: np.nanmean(surprise[end - len(line) - 1 : end]) / math.log(2)
        for number, (line, end) in enumerate(zip(lines, ends, strict=True), 1)
        if line
    }
    first, second = sorted(means, key=means.get, reverse=True)[:2]
    worst = cli.json("eval tiny.npz text.txt --worst 2")[0]["worst"]
    assert [(one["line"], one["content"]) for one in worst] == [
        (first, lines[first - 1]),
        (second, lines[second - 1]),
    ]
    assert [one["bpc"] for one in worst] == pytest.approx([means[first], means[second]], rel=1e-5)
    shown = cli("eval tiny.npz text.txt --worst 2").out
    assert 0 <= shown.find(f"line {first}") < shown.find(f"line {second}")


def last_layers_h(model, text):
    """Return h of the last layer after each character (len, H)."""
    found = oracle.steps(model.parameters, model.vocabulary.encode(text))
    return np.array([state[-1, 0] for state, _ in found])


def test_unit_gives_the_activation_of_the_last_layers_unit_after_each_character(model, cli):
    text = TEXT * 12  # longer than a chunk
    write(text)
    (result,) = cli.json("eval tiny.npz text.txt --unit 4 --values")
    np.testing.assert_allclose(values(result), last_layers_h(model, text)[:, 4], atol=1e-5)


def test_unit_of_a_model_of_lines_starts_each_line_afresh(items, cli):
    write("cat\n\nmat")
    (result,) = cli.json("eval items.npz text.txt --unit 0 --values")
    cat, mat = (last_layers_h(items, f"\n{line}")[1:, 0] for line in ("cat", "mat"))
    np.testing.assert_allclose(values(result), [*cat, np.nan, np.nan, *mat], atol=1e-5)


@pytest.mark.parametrize("option", ["--svg", "--html"])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        (".", "this is a folder"),
        ("no/a.svg", "check its folder"),
        ("kept/a.svg", "choose another place"),
        ("kept", "this file exists; --overwrite replaces it"),
        ("text.txt", "which this command uses"),
        ("tiny.npz", "which this command uses"),
        ("texts/one.txt", "which this command uses"),
    ],
)
def test_a_picture_is_refused_before_anything_is_computed_where_it_cannot_stand(
    place, said, option, tmp_path, cli, monkeypatch
):
    monkeypatch.setattr("charrnn.sampling.scoring.score", lambda *_, **__: pytest.fail("computed"))
    Path("texts").mkdir()
    write(TEXT, "texts/one.txt")
    write("another picture", "kept")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    told = cli.refusal(f"eval tiny.npz text.txt texts {option} {place}")
    assert place in told
    assert said in told
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_two_pictures_may_not_share_a_file(cli):
    cli.refusal("eval tiny.npz text.txt --html picture --svg picture")
    assert not Path("picture").exists()


def test_pictures_are_saved_beside_the_json(cli):
    write("an older one", "a.svg")
    cli.json("eval tiny.npz text.txt --svg a.svg --html a.html --worst 1 --overwrite")
    assert Path("a.svg").read_text(encoding="utf-8").startswith("<svg ")
    assert Path("a.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(("name", "text"), [("tiny", "a"), ("tiny", ""), ("items", "\n\n")])
@pytest.mark.parametrize("streams", [1, 4])
def test_a_text_in_which_nothing_is_predicted_is_one_clear_line(name, text, streams, items, cli):
    write(text)
    assert "text.txt: " in cli.refusal(f"eval {name}.npz text.txt --streams {streams}")
