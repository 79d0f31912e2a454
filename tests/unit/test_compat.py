"""What libraries need before they are imported: a torchvision that fits, and the list of models that transformers has made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers.utils.import_utils import define_import_structure

from slq import compat
from slq.models.module_list import known_models

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


# Ends the process where it would import transformers.
UNTIL_TRANSFORMERS = """
import os

class Ends:
    def find_spec(self, name, *_):
        if name == "transformers":
            print("slq.compat" in sys.modules, flush=True)
            os._exit(0)

sys.meta_path.insert(0, Ends())
import {module}
"""


# The ways into the package that lead to transformers.
@pytest.mark.process
@pytest.mark.parametrize("module", ["slq.encoders.latent", "slq.integrations.sentence_transformers"])
def test_it_comes_before_transformers(tmp_path, module):
    result = python(UNTIL_TRANSFORMERS.replace("{module}", module), write(tmp_path, ""))
    assert result.stdout == "True\n", result.stderr


def test_the_list_of_models_is_the_one_that_transformers_makes():
    assert known_models() == define_import_structure(sys.modules["transformers.models"].__file__)
