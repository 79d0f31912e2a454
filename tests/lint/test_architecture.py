"""The shape of the package: who imports whom, how long things are, and a light start. See docs/design/0001-layout-and-ranks.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "slq"
LAYERS = (
    ("types", "errors", "runtime"),
    ("metrics", "scoring", "intervals", "losses", "latents", "data"),
    ("backbone",),
    ("miniature", "batching"),
    ("prefix_cache", "adapter", "embedder"),
    ("retriever",),
    ("methods", "integrations"),
    ("training", "evaluate", "leakage", "mining", "index", "benchmarks", "karr", "retention", "doctor"),
    ("service", "demo"),
    ("paper",),
    ("cli", "server"),
)
RANKS = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# (importer, imported): why this one breaks the rule.
EXCEPTIONS = {
    ("types", "errors"): "Embeddings carries the failures of its items",
    ("runtime", "errors"): "a device, dtype or output folder that cannot be had is a user's mistake",
}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every slq module that a file imports, at module level or lazily (`slq.types`, `slq.backbone`)."""
    package = ("slq", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "slq")
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base == "slq":
                yield from ((node.lineno, f"slq.{alias.name}") for alias in node.names)
            elif base.startswith("slq."):
                yield node.lineno, base


@each_module
def test_imports_go_downwards(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in RANKS, f"slq.{own} has no rank: add it to LAYERS, and to docs/design/0001-layout-and-ranks.md"
    for line, name in imported_names(path):
        where = f"{path.name}:{line} imports {name}"
        target = name.removeprefix("slq").removeprefix(".").split(".")[0]
        assert target in RANKS, f"{where}: no module with a rank; import from the module, not from the package, or add it to LAYERS"
        if target != own and (own, target) not in EXCEPTIONS:
            assert RANKS[target] < RANKS[own], f"{where}: rank {RANKS[own]} imports only lower ranks, not {RANKS[target]}"


@each_module
def test_files_and_functions_are_short(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST_FILE, f"{path.name} is longer than {LONGEST_FILE} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            # The body alone: a command's options make a long signature without making the function hard to follow.
            lines = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{path.name}:{node.lineno} {node.name} has {lines} lines, not <= {LONGEST_FUNCTION}"


@pytest.mark.parametrize("arguments", [None, ["--help"]], ids=["import slq", "slq --help"])
def test_start_is_light(arguments):
    run = "import slq" if arguments is None else f"sys.argv = {['slq', *arguments]}; from slq.cli import main; main()"
    script = (
        f"import sys\ntry:\n    {run}\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
        "assert not heavy, f'loaded at the start: {heavy}'\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
