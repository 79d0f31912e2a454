"""A disk that is full leaves what was good, and is said in one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

# A disk of 300 KB, seen by this process alone and gone with it. Prints, for each writer, what it raised and what was left.
SMALL_DISK = """
import json, shutil, sys
from pathlib import Path
import numpy as np
import torch
from accelerate import Accelerator
from slq.adapters.files import Adapter
from slq.models import Preprocessing
from slq.errors import SlqError
from slq.index import load_embeddings, save_embeddings
from slq.adapters.latents import LatentQueries
from slq.training import checkpoints
from slq.training.batches import Batches
from slq.types import Embeddings

disk, told = Path(sys.argv[1]), {}

def tell(name, write, left):
    try:
        write()
        raised = "nothing"
        message = ""
    except Exception as error:
        raised, message = type(error).__name__, str(error)
    try:
        remains = left()
    except SlqError as error:
        remains = type(error).__name__
    told[name] = [raised, message, remains, sorted(str(p.relative_to(disk)) for p in disk.rglob("*") if "partial" in p.name)]

def embeddings(count):
    return Embeddings(tuple(map(str, range(count))), np.zeros((count, 8), np.float32), "f")

def adapter(count):
    return Adapter(LatentQueries(count, 8), {"name": "some", "revision": "one", "preprocessing": Preprocessing().to_dict()})

def checkpoint(step, width):
    accelerator = Accelerator(cpu=True)
    layer = torch.nn.Linear(width, 100)
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.zeros(1, width)).sum().backward()
    layer, optimiser = accelerator.prepare(layer, optimiser)
    optimiser.step()
    checkpoints.save(accelerator, disk, step, Batches([], 2, 1, 0))

tell("embeddings", lambda: save_embeddings(embeddings(20000), disk / "index"), lambda: len(load_embeddings(disk / "index")[0].ids))
(disk / "adapter").mkdir()
adapter(2).save(disk / "adapter")
tell("adapter", lambda: adapter(20000).save(disk / "adapter"), lambda: Adapter.load(disk / "adapter").queries.num_latents)
checkpoint(1, 8)
tell("weights", lambda: checkpoint(2, 2000), lambda: checkpoints.newest(disk).name)
for partial in disk.glob("*.partial"):
    shutil.rmtree(partial)
tell("optimiser", lambda: checkpoint(3, 300), lambda: checkpoints.newest(disk).name)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    place = tmp_path_factory.mktemp("disk")
    (place / "script.py").write_text(SMALL_DISK)
    (place / "mounted").mkdir()
    private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=300k none {place}/mounted"
    if shutil.which("unshare") is None or subprocess.run([*private, mount], capture_output=True).returncode:
        pytest.skip("this system lets no process mount a disk of its own")
    run = f"{mount} && exec {sys.executable} {place}/script.py {place}/mounted"
    result = subprocess.run([*private, run], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list((place / "mounted").iterdir()) == [], "it was not a disk of its own"
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.process
@pytest.mark.parametrize(
    ("writer", "left"),
    [("embeddings", "DataError"), ("adapter", 2), ("weights", "checkpoint-0000001"), ("optimiser", "checkpoint-0000001")],
)
def test_a_full_disk_leaves_what_was_good(writer, left, small_disk):
    raised, _, remains, _ = small_disk[writer]
    assert raised != "nothing", "the disk was not full"
    assert remains == left


@pytest.mark.process
@pytest.mark.parametrize("writer", ["embeddings", "adapter", "weights", "optimiser"])
def test_a_full_disk_is_said_in_one_sentence(writer, small_disk):
    raised, message, _, partial = small_disk[writer]
    assert raised == "DiskFullError" and "No room left on the disk while writing" in message
    assert partial == [], "half-written files still fill the disk"
