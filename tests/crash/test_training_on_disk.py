"""Training with prefixes on disk: killed while they are written, and on a disk that is full."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from forked import Forked
from safetensors.torch import load_file
from tolerance import FORWARD, assert_close

from slq.miniature.export import write_sample_data

pytestmark = pytest.mark.process
SCRIPT = """
import resource, sys, warnings
from pathlib import Path
import slq
from slq.training import TrainConfig, train

world, out, folder, *how = sys.argv[1:]
if "full" in how:  # what a write past the limit gets is what a full disk gives: an error half-way
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))
options = TrainConfig(
    num_latents=2, epochs=2, batch_size=16, validation_split=0, learning_rate=5e-3, cache_memory_gb=0, cache_dir=folder,
    cache_level="none" if "none" in how else "kv", num_workers=1 if "ahead" in how else 0,
)
train(slq.read_pairs(world).pairs, slq.load_model(device="cpu"), Path(out), options, resume="resume" in how, show_progress=False)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "train"
    write_sample_data(folder, "train", 32)
    return folder / "captions.jsonl"


def start(world: Path, out: Path, *how: str) -> Forked:
    out.parent.mkdir(parents=True, exist_ok=True)
    return Forked(SCRIPT, world, out, out.parent / "kept", *how, output=out.parent / f"{'-'.join(['said', *how])}.txt")


def learned(running: Forked, out: Path) -> torch.Tensor:
    assert running.end() == 0, running.said()[-3000:]
    return load_file(out / "adapter.safetensors")["latents"]


def entries(folder: Path) -> list[Path]:
    return list(folder.glob("*/*.safetensors"))


@pytest.fixture(scope="module")
def unbroken(world, tmp_path_factory) -> torch.Tensor:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    return learned(start(world, out), out)


@pytest.fixture(scope="module")
def nothing_kept(world, tmp_path_factory) -> torch.Tensor:
    out = tmp_path_factory.mktemp("none") / "run"
    return learned(start(world, out, "none"), out)


def test_killed_while_prefixes_are_written_then_resumed_learns_the_same(world, unbroken, tmp_path):
    running, kept = start(world, tmp_path / "run"), tmp_path / "kept"
    while running.running and len(entries(kept)) < 5:
        time.sleep(0.001)
    running.kill()
    assert running.end() == -9, running.said()
    before = len(entries(kept))
    assert before >= 5, "it was killed while it wrote"
    again = learned(start(world, tmp_path / "run", "resume"), tmp_path / "run")
    assert_close(again, unbroken, steps=FORWARD, why="what is read again is read in other company, which may round otherwise")
    assert len(entries(kept)) > before and not list(kept.glob("*/*.partial"))


def test_a_full_disk_costs_time_and_nothing_else(world, unbroken, nothing_kept, tmp_path):
    running = start(world, tmp_path / "full" / "run", "full")
    found = learned(running, tmp_path / "full" / "run")
    assert entries(tmp_path / "full" / "kept") == []
    assert torch.equal(found, nothing_kept)
    assert_close(found, unbroken, steps=FORWARD)


def test_images_prepared_ahead_teach_the_same(world, nothing_kept, tmp_path):
    ahead = learned(start(world, tmp_path / "ahead" / "run", "none", "ahead"), tmp_path / "ahead" / "run")
    assert torch.equal(ahead, nothing_kept)
