"""`slq doctor`: its report on the terminal and as JSON, and its exit code."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from command_line import invoke

from slq.encoders.latent import LatentEncoder
from slq.models import FrozenModel


@pytest.mark.slow
def test_doctor_writes_what_it_found(adapter, tmp_path):
    result = invoke("doctor", "--model", adapter, "--device", "cpu", "--batch-size", 2, "--output", tmp_path / "report.json")
    assert "prefix caching ...\n" in result.stderr and "All is well" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"checks", "figures", "base_model", "adapter", "fingerprint", "provenance"}
    assert len(report["checks"]) == 12 and all(row["result"] == "ok" and row["value"] <= row["tolerance"] for row in report["checks"])
    assert all(row["check"].split()[0] in result.stdout for row in report["checks"])
    assert report["figures"]["batch_size"] == 2 and report["figures"]["texts_per_second"] > 0
    assert report["base_model"]["name"] == "miniature" and report["adapter"] == str(adapter)
    assert report["fingerprint"] == LatentEncoder.from_pretrained(adapter, device="cpu").fingerprint
    assert {"date", "torch", "hardware"} <= set(report["provenance"])


@pytest.mark.slow
def test_doctor_ends_with_code_1_and_says_what_to_do(monkeypatch, tmp_path):
    """The fast path of every model is made to see padding."""
    right = FrozenModel.decode_latents

    def wrong(self, states, latents, *readout):
        return right(self, replace(states, mask=torch.ones_like(states.mask)), latents, *readout)

    monkeypatch.setattr(FrozenModel, "decode_latents", wrong)
    checks = ["--check", "prefix caching", "--check", "weights"]
    arguments = ["doctor", "--device", "cpu", *checks, "--output", str(tmp_path / "report.json")]
    result = invoke(*arguments, code=1)
    assert "All is well" not in result.stdout
    assert "prefix caching: The two-pass forward" in result.stderr and "--no-prefix-caching" in result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["result"] for row in report["checks"] if row["check"] == "prefix caching"} == {"failed"}
    assert {row["result"] for row in report["checks"] if row["check"] == "weights"} == {"ok"}
