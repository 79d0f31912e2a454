"""The mean of weights: number by number, in the dtype they ship in, and only of one model."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from research.pretraining.average import average


@pytest.fixture
def folders(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        save_file({"matrix": torch.full((2, 3), value, dtype=torch.bfloat16)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(name)
    return [tmp_path / "a", tmp_path / "b"]


def test_the_mean_stands_beside_the_files_of_the_first(folders, tmp_path):
    average(folders, tmp_path / "mean")
    matrix = load_file(tmp_path / "mean" / "model.safetensors")["matrix"]
    assert matrix.dtype == torch.bfloat16 and torch.equal(matrix, torch.full((2, 3), 1.5, dtype=torch.bfloat16))
    assert (tmp_path / "mean" / "config.json").read_text() == "a"
    assert load_file(folders[0] / "model.safetensors")["matrix"].sum() == 6


def test_other_models_are_refused(folders, tmp_path):
    save_file({"matrix": torch.ones(3, 3)}, folders[1] / "model.safetensors")
    with pytest.raises(SystemExit, match="not of one model"):
        average(folders, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
