"""The page of a model: what is in it, how the command fails, and what it does in a real browser."""

import errno
import json
import math
import os
import re
import socket
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from browser import chromium, missing
from tiny_models import always, saved, tiny

import charrnn
from charrnn.checkpoint.model import SHIPPED, load, save
from charrnn.config import CellName, SampleConfig
from charrnn.errors import CheckpointError
from charrnn.export.page import page
from charrnn.network.cells import CELL_CLASSES
from charrnn.sampling.sampling import distribution, likeliest
from charrnn.sampling.stepping import Sampler

PACKAGE = Path(charrnn.__file__).parent / "export"
TEXT = "The quick brown fox jumps over the lazy dog.\nAnd then? It naps, and naps again.\n" * 3
HOSTILE = "</script><img src=x onerror=hacked()>"
MODELS = [(cell, layers) for cell in get_args(CellName) for layers in (1, 2)]


def halved(model):
    """Return the model with the weights that its page has."""
    model.parameters.flat[:] = model.parameters.flat.astype(np.float16)
    return model


def written(folder, model, **options):
    """Return a page of the model in a folder."""
    path = folder / "page.html"
    path.write_text(page(model, **({"title": "tiny"} | options)), encoding="utf-8", newline="")
    return path


# ------------------------------------------------------------------ without a browser


class Elements(HTMLParser):
    """The tags of a page and what stands in its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.scripts = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script":
            self.scripts.append(data)


def test_what_a_learner_reads_has_at_most_900_lines():
    lines = [
        line
        for kind in ("html", "css", "js")
        for line in (PACKAGE / f"page.{kind}").read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) <= 900
    assert max(map(len, lines)) <= 100


def test_the_page_of_the_shipped_model_has_at_most_one_and_a_half_times_its_weights():
    model = load(SHIPPED)
    size = len(page(model, title="shakespeare").encode())
    assert size <= 1.5 * 2 * model.parameters.flat.size


def test_the_page_knows_every_cell_and_its_gates():
    code = (PACKAGE / "page.js").read_text(encoding="utf-8")
    (table,) = re.findall(r"^const CELLS = \{(.*)\};", code, re.MULTILINE)
    known = {name: int(G) for name, G in re.findall(r"(\w+): \[\w+, (\d)\]", table)}
    assert known == {name: len(cell.gates) for name, cell in CELL_CLASSES.items()}


def test_names_and_vocabularies_are_data():
    text = page(tiny(HOSTILE), title=HOSTILE, prime=HOSTILE)
    own = page(tiny("ab"), title="tiny")
    assert Elements(text).tags == Elements(own).tags
    data = json.loads(Elements(text).scripts[0])
    assert data["title"] == data["prime"] == HOSTILE
    assert data["vocabulary"] == sorted(set(HOSTILE))


def test_the_policy_allows_the_pages_own_script_and_style_alone():
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page(tiny("a"), title=""))
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("form-action") == "'none'"
    assert all(re.fullmatch(r"'sha256-[\w+/]{43}='", source) for source in rules.values())
    assert rules.keys() == {"script-src", "style-src"}


def test_weights_that_half_precision_cannot_hold_are_refused():
    model = tiny("ab")
    model.parameters["b_y"][0] = 1e5
    with pytest.raises(CheckpointError, match="half precision"):
        page(model, title="")


def test_the_command_names_the_page_after_the_model_and_tells_where_it_is(tmp_path, cli):
    (tmp_path / "models").mkdir()
    model = tiny("ab\n")
    saved(model, tmp_path / "models", "abba.npz")
    assert cli.json("export models/abba.npz") == [
        {"page": "abba.html", "bytes": os.path.getsize("abba.html"), "model": "models/abba.npz"}
    ]
    assert Path("abba.html").read_bytes() == page(model, title="abba").encode()
    options = "--prime axb --unknown skip --temp 0 --title '<'"
    out, err = cli(f"export models/abba.npz -o b.html {options}")
    assert (out, err.count("\n")) == ("", 2)
    expected = page(model, title="<", prime="ab", temp=0.0)
    assert Path("b.html").read_bytes() == expected.encode()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("none.npz", 1, "none.npz: there is no such file"),
        ("tiny.npz -o old.html", 1, "old.html: this file exists; --overwrite replaces it"),
        ("tiny.npz -o folder", 1, "folder: this is a folder"),
        ("tiny.npz -o folder --overwrite", 1, "folder: this is a folder"),
        ("tiny.npz -o nowhere/x.html", 1, "nowhere/x.html: cannot be written"),
        ("tiny.npz -o tiny.npz --overwrite", 1, "tiny.npz: writing it would change tiny.npz"),
        ("tiny.npz --prime axb", 1, "prime: line 1, column 2"),
        ("tiny.npz --temp -1", 2, "--temp is -1"),
        ("old.html", 1, "old.html: "),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_and_nothing_is_lost(
    arguments, code, said, tmp_path, cli
):
    saved(tiny("ab\n"), tmp_path)
    Path("folder").mkdir()
    Path("old.html").write_text("old", encoding="ascii")
    before = contents(tmp_path)
    assert cli.refusal(f"export {arguments}", code).startswith(said)
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_the_page_that_was_there(tmp_path, monkeypatch, cli):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    saved(tiny("ab\n"), tmp_path)
    Path("old.html").write_text("old", encoding="ascii")
    before = contents(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    said = cli.refusal("export tiny.npz -o old.html --overwrite")
    assert "No space left on device" in said
    assert contents(tmp_path) == before


# ------------------------------------------------------------------ in a browser


@pytest.fixture
def no_network(monkeypatch):
    """Allow the connection to the browser's driver on this machine, and no other."""
    connect = socket.socket.connect

    def local(own, address):
        assert address[0] in ("127.0.0.1", "::1", "localhost")
        connect(own, address)

    monkeypatch.setattr(socket.socket, "connect", local)


@pytest.fixture(scope="module")
def window():
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(window):
    """A browser on whose pages nothing goes wrong and which asks for nothing but them."""
    window.show()
    window.logs()
    yield window
    asked, said = window.logs()
    assert {url.partition(":")[0] for url in asked} <= {"file", "about"}
    assert said == []


@pytest.mark.parametrize(("cell", "layers"), MODELS)
def test_logits_equal_numpys(cell, layers, browser, tmp_path):
    model = halved(tiny(TEXT, cell=cell, hidden=37, layers=layers, spread=0.2))
    browser.open(written(tmp_path, model))
    actual = browser.run(
        """let state = network.zero;
        return [...arguments[0]].map((char) => {
          state = network.read(state, index.get(char));
          return [...network.logits(state)];
        });""",
        TEXT[:200],
    )
    sampler, expected = Sampler(model), []
    for x in model.vocabulary.encode(TEXT[:200]):
        sampler.feed(int(x))
        expected.append(sampler.logits.copy())
    assert np.abs(np.array(actual) - expected).max() < 1e-3


@pytest.mark.parametrize(("cell", "layers"), MODELS)
def test_the_likeliest_1000_characters_equal_numpys(cell, layers, browser, tmp_path):
    model = halved(tiny(TEXT, cell=cell, hidden=24, layers=layers, spread=0.1))
    browser.open(written(tmp_path, model, temp=0, prime="The "))
    expected = "".join(charrnn.sample(model, prime="The ", length=1000, temp=0))
    assert browser.write(length=1000) == "The " + expected


def test_the_shipped_model_writes_what_numpy_does(browser, tmp_path):
    model = load(SHIPPED)
    browser.open(written(tmp_path, model, temp=0))
    assert browser.write(length=1000) == "".join(charrnn.sample(model, length=1000, temp=0))


def test_a_seed_repeats_and_another_one_writes_otherwise(browser, tmp_path):
    browser.open(written(tmp_path, tiny(TEXT)))
    first = browser.write(seed=0, length=300)
    assert len(first) == 300
    assert browser.write(seed=1) != first
    assert browser.write(seed="") != browser.write(seed="")
    assert browser.write(seed=0) == first
    browser.open(written(tmp_path, tiny(TEXT)))
    assert browser.write(seed=0, length=300) == first


def test_what_is_drawn_follows_the_probabilities_at_the_temperature(browser, tmp_path):
    model = tiny("abcd\n")
    browser.open(written(tmp_path, model))
    drawn = browser.run(
        """const y = network.logits(network.zero), counts = new Array(network.N).fill(0);
        const p = softmax(y, 0.7);
        for (let t = 0; t < 20000; t++) counts[draw(p, uniform(5, t))]++;
        return counts;"""
    )
    sampler = Sampler(model)
    sampler.logits[:] = model.parameters["b_y"]
    p = distribution(sampler.logits, SampleConfig(temp=0.7))
    deviation = np.abs(np.array(drawn) - 20000 * p) / np.sqrt(20000 * p * (1 - p))
    assert deviation.max() < 4


def test_a_page_opens_with_its_title_beginning_and_temperature_and_writes(browser, tmp_path):
    browser.open(written(tmp_path, tiny(TEXT), title="A fox", prime="The ", temp=0.735))
    assert browser.driver.title == browser.text("title") == "A fox"
    assert browser.run("return element('temperature').valueAsNumber") == 0.735
    assert browser.written().startswith("The ")
    assert len(browser.written()) == 504


def test_bars_are_the_likeliest_of_n_entries_that_sum_to_1(browser, tmp_path):
    model = halved(tiny(TEXT, spread=0.3))
    browser.open(written(tmp_path, model))
    text = browser.write(seed=3, length=60)
    browser.click("#characters [data-t='40']")
    likely = likeliest(model, "\n" + text[:40], 10)
    names = {" ": "space", "\n": "newline"}
    rows = browser.run(
        "return rows.map(({ parts: [name, , p] }) => [name.textContent, parseFloat(p.textContent)])"
    )
    assert [name for name, _ in rows[:9]] == [names.get(char, char) for char, _ in likely[:9]]
    assert all(abs(100 * p - n) < 0.06 for (_, p), (_, n) in zip(likely, rows[:9], strict=False))
    lengths = browser.run("return rows.map(({ parts }) => parts[1].style.getPropertyValue('--p'))")
    assert all(abs(p - float(n)) < 1e-3 for (_, p), n in zip(likely, lengths[:9], strict=False))
    assert f"N = {len(model.vocabulary)} entries and sums to 1.0000" in browser.text("sum")
    came = browser.run("return document.querySelector('.came .name').textContent")
    assert came == names.get(text[40], text[40])


def test_choosing_another_bar_continues_with_its_character(browser, tmp_path):
    browser.open(written(tmp_path, tiny(TEXT)))
    text = browser.write(seed=3, length=60)
    browser.click("#characters [data-t='20']")
    other = browser.run(
        "return data.vocabulary[document.querySelector('#bars button:not(.came)').dataset.x]"
    )
    browser.click("#bars button:not(.came)")
    browser.wait()
    changed = browser.written()
    assert changed[:20] == text[:20]
    assert changed[20] == other != text[20]
    assert len(changed) == 60
    assert browser.write() == text


def interrupted(browser, code=""):
    """Begin a long text, run code after its first slice, press Stop; return the button's name."""
    browser.set(length=10000)
    name = browser.run(
        f"""const start = element('start');
        start.click();
        return new Promise((resolve) => setTimeout(() => {{
          {code}
          resolve(start.textContent);
          start.click();
        }}));"""
    )
    browser.wait()
    return name


def test_stop_ends_the_writing_and_a_model_of_lines_writes_a_list(browser, tmp_path):
    browser.open(written(tmp_path, tiny(TEXT)))
    assert interrupted(browser) == "Stop"
    assert 0 < len(browser.written()) < 10000
    assert browser.text("start") == "Write"
    model = tiny("anna\n", training={"lines": True}, spread=0.3)
    browser.open(written(tmp_path, model, prime="an"))
    lines = browser.write(length=7).splitlines()
    assert len(lines) == 7
    assert all(line.startswith("an") for line in lines)
    assert browser.run("return element('characters').childElementCount") == 7


def read(browser, text):
    """Give the page a text to read."""
    browser.run("element('controls').elements.mode.value = 'read'; switchMode();")
    browser.wait()
    browser.set(given=text)
    browser.wait()


@pytest.mark.parametrize("text", ["The fox?\n\nIt nap§s a lazy nap.\n", "The dog naps", "§The fox"])
@pytest.mark.parametrize("lines", [False, True])
def test_reading_gives_the_bits_and_the_units_of_eval(text, lines, browser, tmp_path, cli):
    model = tiny(TEXT, hidden=9, layers=2, spread=0.3, training={"lines": lines})
    browser.open(written(tmp_path, model))
    read(browser, text)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8", newline="")
    save(tmp_path / "half.npz", model, half=True)
    command = "eval half.npz text.txt --unknown skip --values"
    (figures,) = cli.json(command)
    expected = figures["texts"][0]["values"]
    actual = browser.run("return steps.map(({ p }) => (p === null ? null : -Math.log(p)))")
    assert [p is None for p in actual[: len(text)]] == [p is None for p in expected]
    known = [p is not None for p in expected]
    both = [np.array(values[: len(text)], float)[known] for values in (actual, expected)]
    assert np.abs(both[0] - both[1]).max() / math.log(2) < 1e-2
    mean, characters = re.findall(r"[\d.]+", browser.text("status"))[:2]
    assert abs(float(mean) - figures["bpc"]) < 1e-2
    assert int(characters) == figures["characters"]
    assert ("§" in text) == ("; 1 unknown" in browser.text("status"))

    browser.click("input[value=unit]")
    browser.set(unit=0)
    browser.press("#unit", *["ARROW_RIGHT"] * 3)
    units = cli.json(f"{command} --unit 3")[0]["texts"][0]["values"]
    shown = browser.run(
        """return spans.map((span) => span.classList.contains('plain') ? null
          : (span.classList.contains('negative') ? -1 : 1) * span.style.getPropertyValue('--v'));"""
    )[: len(text)]
    assert [value is None for value in shown] == [value is None for value in units]
    pairs = [(a, b) for a, b in zip(shown, units, strict=True) if a is not None]
    assert max(abs(a - b) for a, b in pairs) < 1e-2


def test_typing_reads_on_and_a_bar_writes_on_from_what_was_read(browser, tmp_path):
    browser.open(written(tmp_path, tiny(TEXT)))
    read(browser, "The fox")
    browser.run("window.kept = steps[5]")
    browser.press("#given", " naps")
    browser.wait()
    assert browser.written() == "The fox naps"
    assert browser.run("return steps[5] === kept")
    browser.click("#characters [data-t='4']")
    browser.click("#bars button:not(.came)")
    browser.wait()
    assert browser.written()[:4] == "The "
    assert browser.written()[4] != "f"
    assert len(browser.written()) == 505


def test_the_keyboard_moves_through_the_text(browser, tmp_path):
    browser.open(written(tmp_path, tiny(TEXT)))
    browser.write(length=30)
    browser.click("#characters [data-t='10']")
    browser.press("#characters", "ARROW_RIGHT", "ARROW_RIGHT", "ARROW_LEFT")
    assert browser.run("return [shown, element('position').valueAsNumber]") == [11, 11]
    browser.press("#position", "ARROW_RIGHT")
    assert browser.run("return shown") == 12
    assert browser.run("return document.querySelectorAll('.shown').length") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b", "\\x1b"),
        ("\u202e", "\\u202e"),
        ("\u2028", "\\u2028"),
        ("\x00", "\\x00"),
        ("é", "é"),
        ("\u0301", "\u0301"),
        ("👩", "👩"),
        ("ש", "ש"),
        ("漢", "漢"),
    ],
)
def test_characters_are_shown_and_controls_made_visible(text, shown, browser, tmp_path):
    browser.open(written(tmp_path, always(text)))
    assert browser.write(length=5) == text * 5
    assert browser.run("return element('characters').innerText") == shown * 5


def test_a_large_vocabulary_is_read_whole(browser, tmp_path):
    text = "".join(map(chr, [*range(0x4E00, 0x5828), *range(0x1F600, 0x1F639)]))
    model = halved(tiny(text, spread=0.3))
    browser.open(written(tmp_path, model))
    assert browser.run("return network.N") == 2657
    read(browser, text[::100])
    nats = browser.run("return steps.slice(1).map(({ p }) => -Math.log(p))")
    assert np.allclose(nats, charrnn.score(model, text[::100]).nats, atol=1e-3)


def test_markup_from_a_model_or_a_user_stays_text(browser, tmp_path):
    model = tiny(HOSTILE, spread=0.3)
    browser.open(written(tmp_path, model, title=HOSTILE, prime=HOSTILE))
    browser.run("window.hacked = () => { window.harm = true; }")
    read(browser, HOSTILE * 2)
    assert browser.text("title") == HOSTILE
    assert browser.written() == HOSTILE * 2
    assert browser.run("return [document.images.length, window.harm]") == [0, None]


def test_the_page_cannot_ask_for_anything(window, tmp_path):
    window.open(written(tmp_path, tiny(TEXT)))
    refused = window.driver.execute_async_script(
        """const done = arguments[0], refused = [];
        document.addEventListener('securitypolicyviolation', ({ effectiveDirective }) => {
          if (refused.push(effectiveDirective) === 3) done(refused);
        });
        fetch('https://example.com/').catch(() => {});
        document.body.append(Object.assign(new Image(), { src: 'https://example.com/x.png' }));
        const script = document.createElement('script');
        script.textContent = 'window.harm = true';
        document.body.append(script);"""
    )
    assert sorted(refused) == ["connect-src", "img-src", "script-src-elem"]
    assert window.run("return window.harm") is None


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_moves_while_it_writes_and_nothing_sticks_out(width, browser, tmp_path):
    browser.show(width)
    browser.open(written(tmp_path, tiny(TEXT, hidden=64)))
    browser.run(
        """window.shifts = [];
        const wraps = ({ node }) => element('characters').contains(node) && node.nodeType === 3;
        new PerformanceObserver((list) => shifts.push(...list.getEntries()
          .flatMap(({ sources }) => sources.filter((source) => !wraps(source)))
          .map(({ node }) => node?.id ?? node?.nodeName)))
          .observe({ type: 'layout-shift' });"""
    )
    browser.write(length=2000, prime="The fox ")
    browser.click("#characters [data-t='2000']")
    assert browser.run("return shifts") == []
    assert browser.run("return document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_no_violation(width, dark, browser, tmp_path):
    axe = os.environ.get("CHARRNN_AXE", "")
    if not Path(axe).is_file():
        missing("CHARRNN_AXE does not name axe-core's axe.min.js (npm install axe-core)")
    browser.show(width, dark=dark)
    browser.open(written(tmp_path, tiny(TEXT, spread=0.3), prime="The "))
    browser.driver.execute_cdp_cmd(
        "Runtime.evaluate", {"expression": Path(axe).read_text(encoding="utf-8")}
    )
    browser.run("element('how').open = true")
    for mode in ("write", "read", "unit"):
        if mode == "read":
            read(browser, TEXT + "§")
        elif mode == "unit":
            browser.click("input[value=unit]")
        found = browser.driver.execute_async_script(
            "axe.run().then(({ violations }) => arguments[0](violations))"
        )
        assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found] == []


def test_every_character_can_be_reached_after_more_was_written(browser, tmp_path):
    browser.open(written(tmp_path, tiny(TEXT)))
    interrupted(browser, "choosePosition(0);")
    length, most = browser.run("return [steps.length, Number(element('position').max)]")
    assert most == length - 1
