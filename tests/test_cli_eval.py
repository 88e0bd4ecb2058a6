"""`charrnn eval`: the figures against the API's, and where each value stands."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tiny_models import saved, tiny

import charrnn
from charrnn.cli.app import main

ALPHABET = "the cat sat on a mat.\nÉ中e\u0301"
TEXT = "the cat sat\non a mat.\n\nthe mat\n"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model():
    return tiny(ALPHABET, layers=2, floor_nats=1.5, floor_order=5)


@pytest.fixture
def path(model, tmp_path):
    return saved(model, tmp_path)


@pytest.fixture
def items(tmp_path):
    model = tiny(ALPHABET, training={"lines": True})
    return model, saved(model, tmp_path, "items.npz")


def written(folder, text, name="text.txt"):
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


def evaluated(capsys, *arguments):
    assert main(["eval", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def numbers(result):
    """Return the values of the first text, NaN for null."""
    return np.array(result["texts"][0]["values"], float)


def test_figures_are_those_of_the_api(model, path, tmp_path, capsys):
    nats = charrnn.score(model, TEXT).nats
    result = evaluated(capsys, path, written(tmp_path, TEXT), "--values")
    assert result["nats"] == pytest.approx(nats.mean(), rel=1e-6)
    assert result["bpc"] == pytest.approx(nats.mean() / math.log(2), rel=1e-6)
    assert result["perplexity"] == pytest.approx(math.exp(nats.mean()), rel=1e-6)
    assert (result["characters"], result["unknown"]) == (len(TEXT) - 1, 0)
    np.testing.assert_allclose(numbers(result), [np.nan, *nats], rtol=1e-6)


def test_several_texts_are_weighed_by_their_characters(model, path, tmp_path, capsys):
    texts = [TEXT, "at"]
    result = evaluated(
        capsys, path, *(written(tmp_path, text, f"{i}.txt") for i, text in enumerate(texts))
    )
    nats = [charrnn.score(model, text).nats for text in texts]
    assert [text["nats"] for text in result["texts"]] == pytest.approx(
        [part.mean() for part in nats], rel=1e-6
    )
    assert result["nats"] == pytest.approx(np.concatenate(nats).mean(), rel=1e-6)


@pytest.mark.parametrize("streams", [2, 3, 7, 1000])
def test_streams_are_pieces_of_their_own(streams, model, path, tmp_path, capsys):
    text = TEXT * 20 + "on"
    result = evaluated(capsys, path, written(tmp_path, text), "--streams", str(streams))
    S = min(streams, len(text) // 2)
    pieces = [text[b * len(text) // S : (b + 1) * len(text) // S] for b in range(S)]
    nats = np.concatenate([charrnn.score(model, piece).nats for piece in pieces])
    assert result["characters"] == len(text) - S
    assert result["nats"] == pytest.approx(nats.mean(), rel=1e-5)


@pytest.mark.parametrize(
    "text", [TEXT, TEXT + "on", "\n\n\na\n", "cat", "on\n" + "the cat " * 130 + "\n" + "sat " * 300]
)
def test_a_model_of_lines_reads_each_item_from_its_newline_to_the_next(
    text, items, tmp_path, capsys
):
    model, path = items
    expected = [charrnn.score(model, f"\n{line}\n").nats for line in text.split("\n") if line]
    result = evaluated(capsys, path, written(tmp_path, text), "--values")
    assert result["characters"] == sum(map(len, expected))
    assert result["nats"] == pytest.approx(np.concatenate(expected).mean(), rel=1e-5)
    values = [value for value in result["texts"][0]["values"] if value is not None]
    ended = text.endswith("\n")
    assert values == pytest.approx(
        np.concatenate(expected)[: None if ended else -1].tolist(), rel=1e-4
    )


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (".", "this is a folder"),
        ("no/a.svg", "check its folder"),
        ("file/a.svg", "choose another place"),
    ],
)
def test_a_picture_without_a_place_is_refused_before_anything_is_read(
    place, said, path, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "x", "file")
    before = sorted(tmp_path.rglob("*"))
    assert main(["eval", path, "gone.txt", "--svg", place]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"charrnn: {place}: ")
    assert said in captured.err
    assert sorted(tmp_path.rglob("*")) == before


def test_unknown_characters_are_named_with_file_line_and_column(path, tmp_path, capsys):
    text = written(tmp_path, "the cat\nsaQt")
    assert main(["eval", path, text]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{text}: line 2, column 3: 'Q'" in captured.err


def test_unknown_characters_are_skipped_and_counted(model, path, tmp_path, capsys):
    result = evaluated(
        capsys,
        path,
        written(tmp_path, "Q\0the QcatQ"),
        *("--encoding", "utf-8", "--unknown", "skip", "--values"),
    )
    nats = charrnn.score(model, "the cat").nats.tolist()
    assert (result["unknown"], result["characters"]) == (4, 6)
    assert result["nats"] == pytest.approx(np.mean(nats), rel=1e-6)
    expected = [np.nan] * 3 + nats[:3] + [np.nan] + nats[3:] + [np.nan]
    np.testing.assert_allclose(numbers(result), expected, rtol=1e-5)


def test_the_floor_is_labelled_as_the_training_runs(path, tmp_path, capsys):
    main(["eval", path, written(tmp_path, TEXT)])
    floor = " ".join(capsys.readouterr().out.split())
    assert (
        "1.5000 nats, 2.1640 bits, perplexity 4.482: "
        "for comparison, what n-grams (order 5) reached on the training run's validation text"
        in floor
    )


def test_heat_without_colour_has_each_characters_whole_bits_under_it(model, path, tmp_path, capsys):
    text = "a 中e\u0301t\nmat"
    main(["eval", path, written(tmp_path, text), "--heat"])
    bits = (charrnn.score(model, text).nats / math.log(2)).tolist()
    d = [str(min(9, int(value))) for value in bits]
    mark = str(min(9, int(max(bits[2], bits[3]))))  # e and its accent share a place
    expected = ["a 中e\u0301t↵", f" {d[0]}{d[1]} {mark}{d[4]}{d[5]}", "mat", "".join(d[6:])]
    assert capsys.readouterr().out.splitlines()[3:7] == expected


def test_the_most_surprising_lines_come_first(model, path, tmp_path, capsys):
    text = written(tmp_path, TEXT)
    worst = evaluated(capsys, path, text, "--worst", "2")["worst"]
    bits = np.append(np.nan, charrnn.score(model, TEXT).nats) / math.log(2)
    means, start = {}, 0
    for number, line in enumerate(TEXT.split("\n"), 1):
        stop = start + len(line) + 1
        if line:
            means[number] = float(np.nanmean(bits[start:stop]))
        start = stop
    order = sorted(means, key=lambda number: -means[number])[:2]
    assert [line["line"] for line in worst] == order
    assert [line["bpc"] for line in worst] == pytest.approx(
        [means[number] for number in order], rel=1e-5
    )
    assert [line["content"] for line in worst] == [TEXT.split("\n")[number - 1] for number in order]
    main(["eval", path, text, "--worst", "2"])
    shown = capsys.readouterr().out
    assert 0 <= shown.find(f"line {order[0]}") < shown.find(f"line {order[1]}")


def sigma(a):
    return 1 / (1 + np.exp(-a))


def last_layers_h(model, text):
    """Return h of the last layer after each character (len, H), step by step by the contract."""
    p, H, L = model.parameters, model.config.hidden, model.config.layers
    h, c, result = np.zeros((L, H)), np.zeros((L, H)), []
    for index in model.vocabulary.encode(text):
        for layer in range(L):
            V, W, b_h = (p[f"layers.{layer}.{name}"] for name in ("V", "W", "b_h"))
            a = (V[:, index] if layer == 0 else V @ h[layer - 1]) + W @ h[layer] + b_h
            i, f, o, g = (
                sigma(a[:H]),
                sigma(a[H : 2 * H]),
                sigma(a[2 * H : 3 * H]),
                np.tanh(a[3 * H :]),
            )
            c[layer] = f * c[layer] + i * g
            h[layer] = o * np.tanh(c[layer])
        result.append(h[-1].copy())
    return np.array(result)


def test_unit_gives_the_activation_of_the_last_layers_unit_after_each_character(
    model, path, tmp_path, capsys
):
    text = TEXT * 12  # longer than a chunk
    result = evaluated(capsys, path, written(tmp_path, text), "--unit", "4", "--values")
    np.testing.assert_allclose(
        result["texts"][0]["values"], last_layers_h(model, text)[:, 4], atol=1e-5
    )


def test_unit_of_a_model_of_lines_starts_each_line_afresh(items, tmp_path, capsys):
    model, path = items
    result = evaluated(capsys, path, written(tmp_path, "cat\n\nmat"), "--unit", "0", "--values")
    expected = [last_layers_h(model, f"\n{line}")[1:, 0] for line in ("cat", "mat")]
    values = result["texts"][0]["values"]
    assert [i for i, value in enumerate(values) if value is None] == [3, 4]
    np.testing.assert_allclose(
        [value for value in values if value is not None], np.concatenate(expected), atol=1e-5
    )


def test_pictures_that_cannot_be_written_are_refused_before_anything_is_computed(
    path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        "charrnn.sampling.scoring.score", lambda *_, **__: pytest.fail("it was computed")
    )
    for target in (tmp_path / "none" / "a.svg", tmp_path):
        for option in ("--svg", "--html"):
            assert main(["eval", path, written(tmp_path, TEXT), option, str(target)]) == 1
            assert str(target) in capsys.readouterr().err


def test_pictures_are_saved_beside_the_json(path, tmp_path, capsys):
    svg, html = tmp_path / "a.svg", tmp_path / "a.html"
    svg.write_text("an older one")
    evaluated(
        capsys,
        path,
        written(tmp_path, TEXT),
        "--svg",
        str(svg),
        "--html",
        str(html),
        "--worst",
        "1",
        "--overwrite",
    )
    assert svg.read_text(encoding="utf-8").startswith("<svg ")
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("option", ["--svg", "--html"])
def test_a_picture_replaces_a_file_only_with_overwrite(option, path, tmp_path, capsys):
    kept = tmp_path / "another.npz"
    kept.write_bytes(b"a model")
    assert main(["eval", path, written(tmp_path, TEXT), option, str(kept)]) == 1
    assert f"{kept}: this file exists; --overwrite replaces it" in capsys.readouterr().err
    assert kept.read_bytes() == b"a model"


@pytest.mark.parametrize(
    "options",
    [
        ["--unit", "6"],
        ["--unit", "-1"],
        ["--streams", "0"],
        ["--worst", "0"],
        ["--values"],
        ["--unknown", "no"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(options, path, tmp_path, capsys):
    assert main(["eval", path, written(tmp_path, TEXT), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("text", ["a", "", "\n\n"])
@pytest.mark.parametrize("streams", ["1", "4"])
def test_a_text_in_which_nothing_is_predicted_is_one_clear_line(
    text, streams, items, path, tmp_path, capsys
):
    if text == "\n\n":
        path = items[1]
    assert (
        main(
            ["eval", path, written(tmp_path, text if len(text) != 1 else "a"), "--streams", streams]
        )
        == 1
    )
    error = capsys.readouterr().err
    assert "text.txt: " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("option", ["--svg", "--html"])
@pytest.mark.parametrize("target", ["tiny.npz", "text.txt"])
def test_a_picture_is_never_written_over_what_is_read(option, target, model, tmp_path, capsys):
    path, text = saved(model, tmp_path), tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    before = (tmp_path / target).read_bytes()
    assert main(["eval", path, str(text), option, str(tmp_path / target)]) == 1
    assert "would overwrite an input" in capsys.readouterr().err
    assert (tmp_path / target).read_bytes() == before


def test_a_picture_is_written_neither_among_the_texts_of_a_folder_nor_over_the_other_picture(
    path, tmp_path, capsys
):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "one.txt").write_text(TEXT, encoding="utf-8")
    assert main(["eval", path, str(texts), "--html", str(texts / "one.txt")]) == 1
    assert "would overwrite an input" in capsys.readouterr().err
    both = str(tmp_path / "picture")
    assert main(["eval", path, str(texts), "--html", both, "--svg", both]) == 2
    assert (texts / "one.txt").read_text(encoding="utf-8") == TEXT
    assert not Path(both).exists()
