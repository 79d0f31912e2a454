"""Training on two processes: the weights of one, also with an uneven last batch, and after a resume on another number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tolerance import TRAINING, assert_close

from slq.miniature.export import write_sample_data
from slq.training.distributed import gather_states, rank_of
from slq.types import Item

pytestmark = pytest.mark.process
SCRIPT = """
import sys
from pathlib import Path
import slq
from slq.training import TrainConfig, train
from slq.training.facts import Facts
from slq.types import Item

world, out, *how = sys.argv[1:]
options = TrainConfig(
    num_latents=4, epochs=2, batch_size=9, validation_size=6, save_steps=2, learning_rate=5e-3,
    loss=["info_nce", "orthogonality:weight=0.5"], positives_per_query=2, latent_lora_rank=2, batch_sampler="nearest", neighbors=2,
    mini_batch_tokens=300 if "parts" in how else 10**6, cache_level="vision" if "features" in how else "kv",
)
pairs = slq.read_pairs(world).pairs
shown = {pair.query.content_hash: frozenset({"ab"[number % 2]}) for number, pair in enumerate(pairs)}
train(
    pairs, slq.load_model(device="cpu"), Path(out), options,
    resume="resume" in how, stop_after=3 if "stop" in how else None, show_progress=False,
    facts=Facts((Item("purrs"), Item("barks"), Item("meows")), ("a", "b", "a"), shown),
)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """38 pairs: 32 to train on, so that the fourth batch of an epoch holds five, and no batch divides by two."""
    folder = tmp_path_factory.mktemp("world") / "train"
    write_sample_data(folder, "train", 38)
    return folder / "captions.jsonl"


def run(world: Path, out: Path, processes: int, *how: str) -> dict[str, torch.Tensor]:
    """Train in `processes` processes; what was learned, empty if it was stopped."""
    script = out.parent / "run.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [*(launch if processes > 1 else [sys.executable]), str(script), str(world), str(out), *how]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    file = out / "adapter.safetensors"
    return load_file(file) if file.exists() else {}


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory) -> dict[str, torch.Tensor]:
    return run(world, tmp_path_factory.mktemp("alone") / "run", 1)


def assert_learned_the_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys() and wanted
    for name in wanted:
        # A matrix starts beside one of zeros, so first gradients are near zero; Adam moves by its rate whatever their size, rounded or not.
        assert_close(found[name], wanted[name], steps=100 * TRAINING if name.startswith("lora.") else TRAINING, why=name)


@pytest.mark.parametrize("how", [(), ("parts", "features")], ids=["whole", "in parts, on features"])
def test_two_processes_learn_what_one_learns(world, alone, tmp_path, how):
    assert_learned_the_same(run(world, tmp_path / "run", 2, *how), alone)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(world, alone, tmp_path, before, after):
    assert run(world, tmp_path / "run", before, "stop") == {}
    assert_learned_the_same(run(world, tmp_path / "run", after, "resume"), alone)


def test_items_have_one_owner_and_owners_have_about_as_many():
    items = [Item(f"text {number}") for number in range(1000)]
    owners = [rank_of(item, 4) for item in items]
    assert owners == [rank_of(Item(f"text {number}"), 4) for number in range(1000)]
    assert all(200 < owners.count(process) < 300 for process in range(4))


def test_one_process_runs_everything_itself():
    items = [Item("a"), Item("b")]
    assert torch.equal(gather_states(items, lambda given: torch.ones(len(given), 2, 3), 0, 1), torch.ones(2, 2, 3))
