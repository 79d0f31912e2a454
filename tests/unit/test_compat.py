"""A torchvision that does not fit the installed torch can be imported; one that does is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slq import compat

# What the published wheel does at its import when its compiled half, which declares the operators, has not loaded.
UNFIT = """
import torch

@torch.library.register_fake("torchvision::nms")
def nms(boxes, scores, threshold): ...

@torch.library.register_fake("torchvision::qnms")
def qnms(boxes, scores, threshold): ...
"""
IMPORT = "import torchvision; assert torchvision.__file__.startswith({folder!r}); print('imported')"
SHIM = f"import runpy; shim = runpy.run_path({compat.__file__!r}); "


def python(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = f"import sys; sys.path.insert(0, {str(folder)!r}); {script.format(folder=str(folder))}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)


def write(folder: Path, source: str) -> Path:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(source)
    return folder


@pytest.mark.process
def test_an_unfit_torchvision_is_made_importable(tmp_path):
    write(tmp_path, UNFIT)
    assert "operator torchvision::nms does not exist" in python(IMPORT, tmp_path).stderr
    assert python(SHIM + IMPORT, tmp_path).stdout == "imported\n"


@pytest.mark.process
@pytest.mark.parametrize("source", ["", "raise ImportError('half removed')"], ids=["sound", "broken otherwise"])
def test_nothing_is_declared_otherwise(tmp_path, source):
    script = SHIM + "import torch; assert 'DECLARED' not in shim and not hasattr(torch.ops.torchvision, 'nms'); print('untouched')"
    result = python(script, write(tmp_path, source))
    assert result.stdout == "untouched\n", result.stderr


# The ways into the package that lead to transformers.
@pytest.mark.slow
@pytest.mark.parametrize("module", ["slq.encoders.latent", "slq.integrations.sentence_transformers"])
def test_it_comes_before_transformers(tmp_path, module):
    result = python(f"import {module}; print(*sys.modules, sep='\\n')", tmp_path)
    names = result.stdout.splitlines()
    assert names, result.stderr
    assert names.index("slq.compat") < names.index("transformers")
