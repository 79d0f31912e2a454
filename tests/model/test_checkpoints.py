"""What a run has saved is on the disk, whole, and is found again; what is torn is passed over, and said."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from slq.encoders.latent import LatentEncoder
from slq.errors import OutputError
from slq.training import TrainConfig, checkpoints, train
from slq.training.batches import Batches
from slq.types import Item, Pair

OPTIONS = TrainConfig(num_latents=2, batch_size=4, epochs=3, save_steps=1, validation_split=0, learning_rate=5e-3)
PAIRS = [Pair(Item(f"{number} apples"), (Item(f"apples: {number}"),)) for number in range(8)]
TOTAL = 6


def run(model, out, **changes) -> LatentEncoder:
    keywords = {name: changes.pop(name) for name in ("resume", "stop_after") if name in changes}
    return train(PAIRS, model, out, replace(OPTIONS, **changes), show_progress=False, **keywords)


@pytest.fixture(scope="module")
def unbroken(model, tmp_path_factory) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    run(model, out)
    return load_file(out / "adapter.safetensors")


def assert_learned(out, unbroken) -> None:
    found = load_file(out / "adapter.safetensors")
    assert all(torch.equal(found[name], wanted) for name, wanted in unbroken.items())
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()] == list(range(1, TOTAL + 1))


def tear(path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.bin", "files.json", "random_states_0.pkl"])
def test_a_torn_checkpoint_falls_back_to_the_one_before(file, unbroken, model, tmp_path, capsys):
    run(model, tmp_path / "run", stop_after=2)
    shutil.copytree(tmp_path / "run" / "checkpoint-0000002", tmp_path / "kept")
    run(model, tmp_path / "run", resume=True, stop_after=4)
    (tmp_path / "kept").rename(tmp_path / "run" / "checkpoint-0000002")
    tear(tmp_path / "run" / "checkpoint-0000004" / file)
    run(model, tmp_path / "run", resume=True)
    assert "checkpoint-0000004 is not whole, and checkpoint-0000002 is taken" in capsys.readouterr().err
    assert_learned(tmp_path / "run", unbroken)


def test_without_another_the_run_begins_anew(unbroken, model, tmp_path, capsys):
    run(model, tmp_path / "run", stop_after=2)
    (tmp_path / "run" / "checkpoint-0000002" / "scheduler.bin").unlink()
    run(model, tmp_path / "run", resume=True)
    assert "checkpoint-0000002 is not whole, and the run begins anew" in capsys.readouterr().err
    assert_learned(tmp_path / "run", unbroken)


def test_a_torn_line_of_the_log_is_passed_over_and_said(unbroken, model, tmp_path, capsys):
    run(model, tmp_path / "run", stop_after=2)
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    run(model, tmp_path / "run", resume=True)
    assert "log.jsonl: 1 line(s) that a crash cut off are dropped" in capsys.readouterr().err
    assert_learned(tmp_path / "run", unbroken)


def checkpointed(folder, step: int) -> None:
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.nn.Linear(2, 2))
    checkpoints.save(accelerator, folder, step, Batches(PAIRS, 4, 1, 0))


def test_the_older_one_goes_when_the_newer_was_read_back(tmp_path, monkeypatch):
    checkpointed(tmp_path, 1)
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-0000001"
    settle = checkpoints.settle
    monkeypatch.setattr(checkpoints, "settle", lambda folder: (settle(folder), tear(folder / "model.safetensors")))  # a bad disk
    with pytest.raises(OutputError, match=r"gives .*checkpoint-0000002 back otherwise than it was written"):
        checkpointed(tmp_path, 2)
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-0000001"
    monkeypatch.undo()
    checkpointed(tmp_path, 3)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-0000003"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_have_the_permissions_of_the_users_umask(umask, model, tmp_path):
    before = os.umask(umask)
    try:
        for method in ("latents", "lora"):
            options = {"method": method, "max_steps": 1, "num_latents": 2 if method == "latents" else 5}
            run(model, tmp_path / method, **options)
        encoder = LatentEncoder.from_pretrained(tmp_path / "latents", model)
        encoder.save_pretrained(tmp_path / "adapter")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"adapter.safetensors", "adapter_model.safetensors", "optimizer.bin", "log.jsonl", ".slq.json"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~umask}
