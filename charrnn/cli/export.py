"""`charrnn export`: the model as one web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from charrnn.cli.options import (
    OUTPUT,
    Debug,
    Json,
    MaybeModel,
    UnknownChoice,
    model_path,
    option,
    switch,
    unknown_option,
    without_unknown,
)
from charrnn.cli.terminal import print_json, say

PAGE = "What the page opens with"


def export(
    model: MaybeModel = None,
    prime: Annotated[str, option("--prime", PAGE, "Beginning of the text.", "TEXT")] = "",
    temp: Annotated[
        float,
        option(
            "--temp --temperature", PAGE, "Temperature; 0: always the most probable character.", "X"
        ),
    ] = 1.0,
    title: Annotated[
        str | None,
        option("--title", PAGE, "Heading. Default: the model's name.", "TEXT", show_default=False),
    ] = None,
    unknown: Annotated[UnknownChoice, unknown_option(None)] = "error",
    out: Annotated[
        Path | None,
        option(
            "-o --out",
            OUTPUT,
            "Page to write. Default: the model's name with .html, in this folder.",
            "PATH",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, switch("--overwrite", OUTPUT, "Replace an existing file.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Export a model as one web page that writes and reads text in a browser, offline.

    Example: charrnn export model.npz -o model.html --prime "ROMEO:"
    """
    from charrnn.checkpoint.atomic_write import atomic_write, check_writable
    from charrnn.checkpoint.model import load
    from charrnn.export.page import page

    path = model_path(model)
    opened, name = load(path), Path(path).stem
    target = out or Path(f"{name}.html")
    check_writable(target, [path], overwrite=overwrite)
    prime = without_unknown(opened, prime, unknown, "prime")
    written = page(opened, title=name if title is None else title, prime=prime, temp=temp).encode()
    with atomic_write(target) as file:
        file.write(written)
    if json:
        print_json({"page": str(target), "bytes": len(written), "model": path})
    else:
        say(f"wrote {target}, {len(written):,} bytes; open it in a browser")
