"""The README: its Python examples run, its links lead somewhere, and what it says of the options is so."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from charrnn.cli.app import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(
    r"^charrnn (train|sample|eval|next|info|gradcheck|export)([^#\n]*)", README, re.MULTILINE
)
PYTHON = README[README.index("## Python") : README.index("## Where it stops")]


def test_the_python_examples_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text(
        (ROOT / "corpora" / "tales.txt").read_text(encoding="ascii")[:20_000], encoding="ascii"
    )
    namespace: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", PYTHON, re.DOTALL):
        exec(example, namespace)
    assert "<charrnn.Model: lstm, 1 layer of 32" in capsys.readouterr().out


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_to_files(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("name", ["training", "trained", "heat", "lecture"])
def test_each_picture_is_shown_with_words_is_small_and_fetches_nothing(name: str) -> None:
    assert re.search(rf"^!\[[^\]]{{40,}}\]\(\.github/{name}\.svg\)$", README, re.MULTILINE)
    picture = (ROOT / ".github" / f"{name}.svg").read_text(encoding="utf-8")
    assert len(picture.encode()) < 150_000
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture).iter()}
    assert tags <= {"svg", "title", "style", "defs", "clipPath", "g", "rect", "text", "circle"}
    assert "//" not in picture.replace("http://www.w3.org/2000/svg", "")
    assert "@" not in picture.replace("@media", "")
    assert all(reference.startswith("#") for reference in re.findall(r"url\(([^)]*)\)", picture))


def test_the_exported_page_is_shown_with_words_and_small() -> None:
    assert re.search(r"^!\[[^\]]{40,}\]\(\.github/page\.webp\)$", README, re.MULTILINE)
    picture = (ROOT / ".github" / "page.webp").read_bytes()
    assert len(picture) < 150_000
    assert (picture[:4], picture[8:12]) == (b"RIFF", b"WEBP")


def test_a_picture_has_the_last_that_was_written_on_each_line_of_the_terminal() -> None:
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


@pytest.mark.parametrize("line", SHOWN, ids=" ".join)
def test_the_commands_shown_have_these_options(
    line: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command, rest = line
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    for option in re.findall(r"(?<!\w)--[a-z-]+", rest):
        assert option in shown


def test_the_number_of_planted_bugs_is_the_one_told() -> None:
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


def test_the_backward_pass_shown_is_the_one_that_runs() -> None:
    code = (ROOT / "charrnn" / "network" / "cells.py").read_text(encoding="utf-8")
    shown = README[README.index("d += dh[:, t]") : README.index("where `multiply_WT`")]
    for line in shown.splitlines():
        assert re.split(r"\s+#", line.strip("` "))[0] in code
