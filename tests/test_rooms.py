"""The layers of the package: who may import whom, read from the source; and what start-up loads."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "charrnn"
LAYERS = [
    "errors",
    "config",
    "arrays",
    "blas",
    "text",
    "network",
    "lecture",
    "checkpoint",
    "pictures",
    "sampling",
    "export",
    "training",
    "cli",
]  # from the bottom up
FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(module):
    """Return the layer of charrnn.<module>, None for the package's own front door."""
    name = module.removeprefix("charrnn").lstrip(".").split(".")[0]
    return name if name and name not in ("__main__", "__init__") else None


def imports(path):
    """Return every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {
                f"{node.module}.{alias.name}" if node.module == "charrnn" else str(node.module)
                for alias in node.names
            }
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_layer_imports_only_from_itself_and_below(path):
    layer = layer_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    if layer is None:
        return
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    for module in imports(path):
        if (
            module.startswith("charrnn.")
            and layer_of(module) is not None
            and not module.endswith("__version__")
        ):
            assert layer_of(module) in allowed, f"{path.name} in {layer} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_party_imports_stay_in_their_layer(path):
    layer = layer_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    third = (
        {module.split(".")[0] for module in imports(path)} - sys.stdlib_module_names - {"charrnn"}
    )
    allowed = {"numpy", "typer", "rich", "tqdm", "click"} if layer == "cli" else {"numpy"}
    allowed |= {"rich"} if layer == "pictures" else set()  # the width of characters
    allowed |= {"mpi4py"} if path.name == "mpi.py" else set()
    assert third <= allowed, f"{path} imports {third - allowed}"
    if layer in ("errors", "config", None):
        assert not third


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.parent.name == "network"], ids=lambda path: path.name
)
def test_the_mathematics_knows_no_files_no_screen_no_clock(path):
    assert not {module.split(".")[0] for module in imports(path)} & {
        "os",
        "pathlib",
        "io",
        "time",
        "sys",
        "subprocess",
    }
    names = {
        node.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name)
    }
    assert not names & {"print", "open", "input"}


@pytest.mark.parametrize(
    "code",
    [
        "import charrnn",
        "from charrnn.cli.app import main; import sys; sys.argv[1:] = ['--help']; main()",
    ],
)
def test_start_up_loads_no_numpy(code):
    report = (
        "import sys, atexit\n"
        "say = lambda: sys.stderr.write('numpy' if 'numpy' in sys.modules else 'none')\n"
        f"atexit.register(say)\n{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=False
    )
    assert done.stderr == "none"


def test_eval_loads_the_heat_map_only_to_draw_one():
    code = "import sys, charrnn.cli.eval; sys.exit('charrnn.pictures.heatmap' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_info_loads_no_progress_bar():
    code = "import sys, charrnn.cli.info; sys.exit('tqdm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there():
    import charrnn

    for name in charrnn.__all__:
        assert getattr(charrnn, name) is not None
    assert set(charrnn.__all__) <= set(dir(charrnn))
    tree = ast.parse(Path(charrnn.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("charrnn.")
        for alias in node.names
    }
    assert typed == set(charrnn.__all__) - {"__version__"}  # what a type checker sees
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = charrnn.nothing_like_it


def test_nothing_tells_anyone_to_install_the_other_charrnn_of_pypi():
    """PyPI's `charrnn` is not this program, whose distribution is called charrnn-numpy."""
    root = PACKAGE.parent
    texts = [
        path
        for folder in ("charrnn", "corpora", "tests", ".github")
        for path in (root / folder).rglob("*")
        if path.suffix in {".py", ".md", ".yml", ".toml", ".html", ".js"}
    ]
    wrong = re.compile(r"charrnn\[|pip install[^\n`]*[ '\"]charrnn(?!-numpy)\b")
    for path in (*texts, root / "README.md", root / "pyproject.toml", root / ".ci" / "run"):
        if path != Path(__file__):
            found = wrong.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path}: {found}"
