"""The golden run: what a short training, ten embeddings and one ranking give, to the bit on processors that were recorded.

A change of layout, names or speed leaves all of it as it is. A deliberate change of a number comes in a commit of its own, which records
anew: `python tests/golden/recorded.py`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slq.data import read_beir, read_items, read_pairs
from slq.encoders.latent import LatentEncoder
from slq.evaluation import evaluate
from slq.miniature.export import write_sample_data
from slq.models import FrozenModel, load_model
from slq.training import TrainConfig, train

FILE = Path(__file__).with_name("golden.json")
STEPS = 20


def run(folder: Path) -> dict[str, Any]:
    """Train 20 steps on sample data in `folder`, embed ten items, rank one set: the numbers, as arrays and plain values."""
    write_sample(folder)
    model = load_model(device="cpu", dtype="float32")
    return numbers_of(LatentEncoder.from_pretrained(train_adapter(folder, model), model), folder)


def write_sample(folder: Path) -> None:
    """60 images to train on and 40 others, with captions and judged sets."""
    write_sample_data(folder / "train", "train", 60)
    write_sample_data(folder / "test", "test", 40)


def train_adapter(folder: Path, model: FrozenModel) -> Path:
    """Train 20 steps on the sample in `folder`; returns the adapter's folder."""
    options = TrainConfig(max_steps=STEPS, epochs=STEPS, batch_size=16, validation_split=0, seed=0, cache_memory_gb=1)
    with one_thread():
        train(read_pairs(folder / "train" / "captions.jsonl").pairs, model, folder / "adapter", options, show_progress=False)
    return folder / "adapter"


def numbers_of(encoder: LatentEncoder, folder: Path) -> dict[str, Any]:
    """Latents, embeddings of five images and five texts, and the ranks of the knowledge set in `folder`."""
    images = list(read_items(folder / "test" / "images").items.values())[:5]
    texts = [pair.positives[0] for pair in read_pairs(folder / "test" / "captions.jsonl").pairs[:5]]
    with one_thread():
        ranked = evaluate(encoder, [read_beir(folder / "test" / "knowledge")])[0]
        embeddings = encoder.encode([*images, *texts]).vectors
    return {
        "latents": encoder.queries.latents.detach().numpy(),
        "embeddings": embeddings,
        "ranks": {query.id: [int(rank) for rank in query.ranks.values()] for query in ranked.queries},
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums do not depend on how many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def processor() -> str:
    """What the bits depend on beside the code: the processor's maker, which math libraries look at, and torch's vector instructions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    maker = next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), platform.processor() or "unknown")
    return f"{platform.machine()} {maker} {torch.backends.cpu.get_cpu_capability()} torch {torch.__version__.split('+')[0]}"


def digests(numbers: dict[str, Any]) -> dict[str, str]:
    """sha256 of each part."""
    ranks = json.dumps(numbers["ranks"], sort_keys=True).encode()
    parts = {name: numbers[name].tobytes() for name in ("latents", "embeddings")} | {"ranks": ranks}
    return {name: hashlib.sha256(bits).hexdigest() for name, bits in parts.items()}


def record() -> None:
    """Write this processor's bits; and the values, if none are there or the bits of this processor have changed."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = run(Path(folder))
    golden = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {"bits": {}}
    name, found = processor(), digests(numbers)
    if "values" not in golden or golden["bits"].get(name, found) != found:
        golden["bits"] = {}  # those of other processors are of other numbers now
        values = {part: np.round(numbers[part].astype(float), 7).tolist() for part in ("latents", "embeddings")}
        golden["values"] = values | {"ranks": numbers["ranks"]}
    golden["bits"][name] = found
    FILE.write_text(json.dumps(golden, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{name}: {found}", file=sys.stderr)


if __name__ == "__main__":
    record()
