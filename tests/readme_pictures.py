"""Make the README's pictures again, in a minute or two: python tests/readme_pictures.py

Each shows what a real command printed on a pseudo-terminal of 80 columns, except the heat map,
which is the command's own SVG. The text is corpora/tales.txt; the heat map's passage comes from its
last tenth, which the model has not trained on.
"""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from browser import chromium
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / ".github"
COLUMNS, ROWS = 80, 60
CHARRNN = (sys.executable, "-c", "import sys; from charrnn.cli.app import main; sys.exit(main())")
TRAIN = ("train", "tales.txt", "--hidden", "128", "--steps", "1200")
WINDOW, SEED, CHOSEN = (1280, 830), 7, 237  # of the page: its size, seed, selected character
LECTURE = ("gradcheck", "--lecture")
SUMMARY = 28  # lines at the end of the run: the learning curve and the facts below it
MIDDLE = 52  # per cent of the training run at which its live line is shown
# the heat map shows whole paragraphs of at most so many characters
PASSAGE = (900, "\n\n")
# rich's own format fetches a font
FORMAT = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style> .{unique_id}-matrix {{font: {char_height}px ui-monospace,Menlo,Consolas,
'DejaVu Sans Mono',monospace; line-height:{line_height}px}}
.{unique_id}-title {{font: bold 18px sans-serif}}
{styles} </style> <defs> {lines} </defs> {chrome} <g transform="translate({terminal_x},
{terminal_y})"> {backgrounds} <g class="{unique_id}-matrix"> {matrix} </g> </g> </svg>
"""


def on_terminal(arguments, folder):
    """Return everything that a command sends to its terminal, colours included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "COLORFGBG")
    }
    environment = {
        **kept,
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
    }
    with subprocess.Popen(
        [*CHARRNN, *arguments],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        sent = bytearray()
        while chunk := read(ours):
            sent += chunk
    os.close(ours)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} has failed: {sent.decode()}")
    return sent.decode()


def read(terminal):
    """Return what came from a terminal, nothing at its end, which Linux reports as an error."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def screen(sent):
    """Return the lines on the screen after this: \\r starts a line again, \\x1b[K clears it."""
    lines = []
    for line in re.sub(r"\r+\n", "\n", sent).split("\n"):
        written = [part.removeprefix("\x1b[K") for part in line.split("\r") if part.strip(" ")]
        lines.append(written[-1] if written else "")
    return lines


def middle(sent):
    """Return what had been sent when the live line first showed MIDDLE per cent."""
    bars = ((int(found[1]), found.end()) for found in re.finditer(r"\r *(\d+)%\|[^\r]*", sent))
    return sent[: next(end for percent, end in bars if percent >= MIDDLE)]


def between(lines, first, last):
    """Return the lines from the one that begins with `first` to the next beginning with `last`."""
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    start = next(number for number, line in enumerate(plain) if line.startswith(first))
    stop = next(number for number in range(start + 1, len(plain)) if plain[number].startswith(last))
    return lines[start:stop]


def draw(name, arguments, lines):
    """Write a picture of a terminal in which a command was typed and printed these lines."""
    console = Console(
        record=True,
        file=io.StringIO(),
        width=COLUMNS,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(Text(f"$ charrnn {' '.join(arguments)}", style="bold"))
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    for line in map(Text.from_ansi, lines):
        for row in line.divide(
            range(COLUMNS, len(line), COLUMNS)
        ):  # as a terminal breaks it, not between words
            console.print(row)
    save(
        name, console.export_svg(title="charrnn", theme=MONOKAI, code_format=FORMAT, unique_id=name)
    )


def save(name, picture):
    """Write a picture into PICTURES."""
    path = PICTURES / f"{name}.svg"
    path.write_text(
        "\n".join(line.rstrip() for line in picture.splitlines()) + "\n", encoding="utf-8"
    )
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


def photograph(folder):
    """Write a picture of the exported page of the model that ships, in a browser."""
    page, picture = folder / "shakespeare.html", PICTURES / "page.webp"
    shipped = str(ROOT / "charrnn" / "models" / "shakespeare.npz")
    on_terminal(("export", shipped, "-o", str(page), "--prime", "ROMEO:", "--temp", "0.8"), folder)
    with chromium() as browser:
        browser.show(*WINDOW)
        browser.open(page)
        browser.write(seed=SEED)
        browser.run("choosePosition(arguments[0])", CHOSEN)
        picture.write_bytes(browser.picture())
    print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size:,} bytes")


def passage(text):
    """Return the first whole paragraphs in the last tenth of a text."""
    most, end = PASSAGE
    begun = text[text.index(end, len(text) * 9 // 10) + len(end) :]
    return begun[: begun.rindex(end, 0, most)] + "\n"


def main():
    """Make all of them."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        text = (ROOT / "corpora" / "tales.txt").read_text(encoding="ascii")
        (folder / "tales.txt").write_text(text, encoding="ascii")
        sent = on_terminal(TRAIN, folder)
        draw("training", TRAIN, screen(middle(sent)))
        draw("trained", TRAIN, ["…", *screen(sent)[-SUMMARY:]])
        (folder / "passage.txt").write_text(passage(text), encoding="ascii")
        on_terminal(("eval", "model.npz", "passage.txt", "--svg", "heat.svg"), folder)
        photograph(folder)
        save("heat", (folder / "heat.svg").read_text(encoding="utf-8"))
        lecture = screen(on_terminal(LECTURE, folder))
        quiz = between(lecture, "Which formula is ∂L/∂b_h?", "And (2) of")
        draw(
            "lecture",
            LECTURE,
            [
                "…",
                *quiz,
                "…",
                *between(lecture, "All singular values of each gate's block of W are 1.4", "Share"),
            ],
        )


if __name__ == "__main__":
    main()
