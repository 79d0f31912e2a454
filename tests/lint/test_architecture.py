"""The shape of the package: who imports whom, how long things are, and a light start. See docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "slq"
LAYERS = (
    ("errors", "compat"),
    ("types", "registry", "io", "console"),
    ("config", "data"),
    ("models",),
    ("cache", "pooling", "losses", "adapters"),
    ("encoders",),
    ("evaluation", "miniature"),
    ("judge",),
    ("training", "index", "benchmarks", "retention"),
    ("integrations", "doctor", "demo"),
    ("testing", "cli"),
)
RANKS = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
HEAVY, LIGHT_RANKS = {"torch", "transformers", "sentence_transformers", "lancedb", "fastapi"}, 2
# What the code should do without, and the files that still hold it: (what, where).
TOLERATED = {
    ("id()", "encoders/finetuned.py"),  # what copy.deepcopy knows already copied is told by addresses, and by nothing else
}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
TESTS = Path(__file__).parents[1]


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every slq module that a file imports, at module level or lazily (`slq.types`, `slq.models`)."""
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


def foreign_imports(path: Path) -> Iterator[str]:
    """Imports of what builds on slq: slq-karr, the experiments, the tests."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (
            f"{path.name}:{node.lineno} imports {name}" for name in names if name.split(".")[0] in ("slq_karr", "research", "tests")
        )


def upward_imports(path: Path) -> Iterator[str]:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own not in RANKS:
        yield f"slq.{own} has no rank: add it to LAYERS and docs/architecture.md, then run docs/architecture_map.py"
        return
    for line, name in imported_names(path):
        where = f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        target = name.removeprefix("slq").removeprefix(".").split(".")[0]
        if target not in RANKS:
            yield f"{where}: no module with a rank; import from the module, not from the package, or add it to LAYERS"
        elif target != own and RANKS[target] >= RANKS[own]:
            yield f"{where}: rank {RANKS[own]} imports only lower ranks, not {RANKS[target]}"


def long_things(path: Path, within: Path) -> Iterator[str]:
    """The file, and its functions by their bodies: a command's options make a long signature, but no function that is hard to follow."""
    source, name = path.read_text(encoding="utf-8"), path.relative_to(within).as_posix()
    if len(source.splitlines()) > LONGEST_FILE:
        yield f"{name} has {len(source.splitlines())} lines, not <= {LONGEST_FILE}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"{name}:{node.lineno} {node.name} has {lines} lines, not <= {LONGEST_FUNCTION}"


def forbidden(path: Path) -> Iterator[tuple[str, int]]:
    """Objects told apart by their address, and functions that look at or rewrite their own parameters: what, and the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("id", "locals"):
            yield f"{node.func.id}()", node.lineno
        elif isinstance(node, ast.Attribute) and node.attr == "__signature__":
            yield node.attr, node.lineno


def test_imports_go_downwards():
    assert len(MODULES) > 50
    offenders = [found for path in MODULES for check in (upward_imports, foreign_imports) for found in check(path)]
    assert not offenders, "\n".join(offenders)


def heavy_imports(path: Path) -> Iterator[str]:
    """Imports of heavy libraries that run when the module is imported."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        yield from (f"{path.relative_to(PACKAGE)}:{node.lineno} imports {name}" for name in names if name.split(".")[0] in HEAVY)


def test_the_lowest_ranks_import_no_heavy_library():
    low = [path for path in MODULES if RANKS.get(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), 99) <= LIGHT_RANKS]
    offenders = [found for path in low for found in heavy_imports(path) if path.name != "compat.py"]  # which mends torchvision for torch
    assert low and not offenders, "\n".join(offenders)


def test_files_and_functions_are_short():
    offenders = [found for path in MODULES for found in long_things(path, PACKAGE)]
    offenders += [found for path in sorted(TESTS.rglob("*.py")) for found in long_things(path, TESTS)]
    assert not offenders, "\n".join(offenders)


def test_nothing_goes_by_addresses_or_rewritten_signatures():
    found = [(what, path.relative_to(PACKAGE).as_posix(), line) for path in MODULES for what, line in forbidden(path)]
    offenders = [f"{name}:{line} uses {what}" for what, name, line in found if (what, name) not in TOLERATED]
    assert not offenders, "\n".join(offenders)


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
