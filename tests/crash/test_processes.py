"""Training on two processes: the weights of one, also with an uneven last batch, and after a resume on another number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked import Forked, run_alone, run_together
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
seeing = TrainConfig(
    method="full", train_vision_encoder=True, batch_size=2, max_steps=3, validation_split=0, learning_rate=1e-4,
)
options = seeing if "seeing" in how else TrainConfig(
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
    said = out.with_name(f"{out.name}-{'-'.join(how)}.txt")
    if processes == 1:
        run_alone(SCRIPT, world, out, *how, output=said, environment={"ACCELERATE_USE_CPU": "true"})
    else:
        run_together(processes, SCRIPT, world, out, *how, output=said, environment={"ACCELERATE_USE_CPU": "true"})
    file = out / ("model/model.safetensors" if "seeing" in how else "adapter.safetensors")
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


def test_a_vision_encoder_is_trained_although_a_process_may_see_no_image(world, tmp_path):
    """A batch of two images: on two processes, one of them often has only texts."""
    wanted, found = run(world, tmp_path / "one", 1, "seeing"), run(world, tmp_path / "two", 2, "seeing")
    assert found.keys() == wanted.keys() and any("vision" in name for name in wanted)
    for name, tensor in wanted.items():
        assert (found[name] - tensor).abs().max() < 1e-4, name  # less than one step of AdamW, which is blind to a gradient's size


def test_the_command_of_the_readme(world, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "slq.cli", "train", str(world)]
    options = ["-n", "2", "--batch-size", "8", "--max-steps", "1", "-o", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([*launch, *options], capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "run" / "adapter.safetensors").exists() and result.stdout.count("saved in") == 1


GUARDLESS = """
import multiprocessing
from slq.adapters.latents import LatentQueries
from slq.encoders import LatentEncoder
from slq.integrations.sentence_transformers import as_sentence_transformer
from slq.models import load_model

model = load_model(device="cpu")
encoder = LatentEncoder(model, LatentQueries.create(2, model.dim))
"""
SPAWNING = {
    "workers": "multiprocessing.set_start_method('spawn', force=True); encoder.encode(['a', 'b'], workers=1, batch_size=1)",
    "pool": "as_sentence_transformer(encoder).encode(['a', 'b'], device=['cpu', 'cpu'])",
}


@pytest.mark.parametrize("work", SPAWNING.values(), ids=SPAWNING)
def test_a_script_without_a_guard_is_refused_before_it_starts_itself_again(work, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(GUARDLESS + work)
    ran = Forked(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')", output=tmp_path / "said.txt")
    assert ran.end(seconds=100) == 1  # it waited forever
    assert 'script.py starts processes that run it anew: put its work under `if __name__ == "__main__":`' in ran.said()


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
