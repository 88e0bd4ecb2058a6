"""The pages: recipes and examples run, links work, and what they say about the code is true."""

import io
import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from charrnn.cli.app import main
from charrnn.training.optimizers import Optimizer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("charrnn", "corpora")),
    *sorted((ROOT / "tests").glob("*/README.md")),
]
LINKS = [
    (page, link)
    for page in PAGES
    for link in sorted(set(re.findall(r"\]\(([^):]+)\)", page.read_text(encoding="utf-8"))))
]
BLOCKS = re.findall(r"```sh\n(.*?)```", README[README.index("## Your own text") :], re.DOTALL)
RECIPES = [
    line.split("#")[0].split("|")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    if line.startswith("charrnn ")
]
QUICK = ("--steps", "3", "--hidden", "8", "--workers", "1", "--quiet")


def test_the_readme_is_short():
    prose = re.sub(r"```.*?```|^\|.*?$", "", README, flags=re.DOTALL | re.MULTILINE)
    assert len(re.sub(r"\]\([^)]*\)", "]", prose).split()) <= 1300


def test_the_recipes_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("The \n"))
    tales = (ROOT / "corpora" / "tales.txt").read_text(encoding="ascii")
    minerals = (ROOT / "corpora" / "minerals.txt").read_text(encoding="ascii")
    for name in ("corpus.txt", "few-pages.txt", "passage.txt"):
        Path(name).write_text(tales[:4000], encoding="ascii")
    for name in ("names.txt", "normal.log", "today.log"):
        Path(name).write_text(minerals[:4000], encoding="ascii")
    assert len(RECIPES) > 15
    for recipe in RECIPES:
        words = shlex.split(recipe)[1:]
        if words[0] == "train":
            more = "--resume" in words
            words = [w for w in words if w not in ("--budget", "10m")]
            words += ["--steps", "5", "--quiet"] if more else QUICK
            words = [w for w in words if not ("--init-from" in words and w in ("--hidden", "8"))]
        expected = 1 if "--mine" in words else 0  # the exercise is still to be done
        assert main(words) == expected, f"{recipe}: {capsys.readouterr().err}"


def test_the_model_that_ships_writes_the_sample_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (words, shown), *_ = re.findall(r"\$ \S+/charrnn (.*)\n((?:.*\n)*?)```", README)
    assert main(shlex.split(words)) == 0
    assert capsys.readouterr().out.startswith(shown)


def test_the_python_examples_run_as_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text(
        (ROOT / "corpora" / "tales.txt").read_text(encoding="ascii")[:20_000], encoding="ascii"
    )
    namespace = {}
    for example in re.findall(
        r"```python\n(.*?)```", README[README.index("## Python") :], re.DOTALL
    ):
        exec(example, namespace)
    assert "<charrnn.Model: lstm, 1 layer of 32" in capsys.readouterr().out


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda part: str(part).split("/")[-1])
def test_links_lead_to_files_and_headings(page, link):
    path, _, heading = link.partition("#")
    target = page.parent / path if path else page
    assert target.exists()
    if heading:
        titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert heading in [re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles]


@pytest.mark.parametrize("name", ["training", "trained", "heat", "lecture"])
def test_each_picture_is_shown_with_words_is_small_and_fetches_nothing(name):
    assert re.search(rf"^!\[[^\]]{{40,}}\]\(\.github/{name}\.svg\)$", README, re.MULTILINE)
    picture = (ROOT / ".github" / f"{name}.svg").read_text(encoding="utf-8")
    assert len(picture.encode()) < 150_000
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture).iter()}
    assert tags <= {"svg", "title", "style", "defs", "clipPath", "g", "rect", "text", "circle"}
    assert "//" not in picture.replace("http://www.w3.org/2000/svg", "")
    assert "@" not in picture.replace("@media", "")
    assert not re.search(r"'[^';{}]*\n[^';{}]*'", picture)  # a string of a style ends in its line
    assert all(reference.startswith("#") for reference in re.findall(r"url\(([^)]*)\)", picture))


def test_the_exported_page_is_shown_with_words_and_small():
    assert re.search(r"^!\[[^\]]{40,}\]\(\.github/page\.webp\)$", README, re.MULTILINE)
    picture = (ROOT / ".github" / "page.webp").read_bytes()
    assert len(picture) < 150_000
    assert (picture[:4], picture[8:12]) == (b"RIFF", b"WEBP")


def test_a_picture_shows_what_was_last_written_on_each_line_of_the_terminal():
    pytest.importorskip("pty")  # not on Windows
    from readme_pictures import between, middle, screen

    sent = "a\r\n\rreading\r       \rstep 1\r\n\r 51%|x\r 52%|y\r 99%|z\r\x1b[Kend\r\n"
    assert screen(sent) == ["a", "step 1", "end", ""]
    assert screen(middle(sent)) == ["a", "step 1", " 52%|y"]
    assert between(["a", "\x1b[1mb\x1b[0m", "c", "b", "d"], "b", "d") == [
        "\x1b[1mb\x1b[0m",
        "c",
        "b",
    ]


def test_the_number_of_planted_bugs_is_the_one_in_the_readme():
    import test_gradcheck as planted
    import test_matmul

    bugs = (
        len(planted.CELL_BUGS)
        + len(planted.MODEL_BUGS)
        + len(planted.LOSS_BUGS)
        + 1
        + len(test_matmul.BUGS)
    )
    assert f"The tests plant {bugs} bugs" in README


@pytest.mark.parametrize(("code", "file"), re.findall(r"`([^`|]+)` in \[.*?\]\((.*?)\)", README))
def test_the_code_of_the_lecture_stands_where_the_table_says(code, file):
    assert code.removeprefix("RNN.") in (ROOT / file).read_text(encoding="utf-8")


def test_the_backward_pass_in_the_readme_is_the_one_that_runs():
    code = (ROOT / "charrnn" / "network" / "cells.py").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(d \+= dh.*?)```", README, re.DOTALL)[0]
    for line in shown.splitlines():
        assert re.split(r"\s+#", line.strip("` "))[0] in code


def test_the_optimizer_in_the_developers_readme_is_one():
    page = (ROOT / "charrnn" / "README.md").read_text(encoding="utf-8")
    names = {"np": np, "Optimizer": Optimizer}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
    m, lion = np.zeros(2), names["Lion"](1024)
    assert lion.change(0.1, 1, np.array([1.0, -2.0]), m).tolist() == [0.1, -0.1]
    assert m == pytest.approx([0.01, -0.02])
