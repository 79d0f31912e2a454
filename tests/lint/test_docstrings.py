"""Docstrings of public functions say what each argument is, in `Args:`, or name the docstring that does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "slq"
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
SHOWN = {"command", "check"}  # decorators of functions whose docstring is shown to users: a command's help, what a store must do


def public_functions(tree: ast.Module | ast.ClassDef, within: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods by their dotted names, private ones and those within functions left out."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not (node.name.startswith("_") and node.name != "__call__"):
            if isinstance(node, ast.ClassDef):
                yield from public_functions(node, f"{within}{node.name}.")
            else:
                yield f"{within}{node.name}", node


def takes_arguments(function: ast.FunctionDef) -> bool:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg) if each]
    return any(name not in ("self", "cls") for name in names)


def decorators(function: ast.FunctionDef) -> set[str]:
    called = [each.func if isinstance(each, ast.Call) else each for each in function.decorator_list]
    return {each.id for each in called if isinstance(each, ast.Name)}


def test_every_argument_is_told():
    docstrings = {(path, name): ast.get_docstring(node) or "" for path, tree in TREES.items() for name, node in public_functions(tree)}
    telling = {part for (_, name), text in docstrings.items() if "Args:" in text for part in name.split(".")}
    offenders = []
    for path, tree in TREES.items():
        for name, node in public_functions(tree):
            text = docstrings[path, name]
            elsewhere = {named.split(".")[-1] for named in re.findall(r"see `([\w.]+)`", text, flags=re.I)}
            told = "Args:" in text or elsewhere & telling or decorators(node) & SHOWN
            if takes_arguments(node) and not told:
                offenders.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {name}")
    assert len(docstrings) > 500 and not offenders, "no Args:\n" + "\n".join(offenders)
