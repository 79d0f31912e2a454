"""What position-restricted LoRA costs beside plain latent queries: a query, a batch of captions, a training step, and the adapter's size.

    python -m research.bench.latent_lora                                        the miniature
    python -m research.bench.latent_lora --model random:internvl3-1b            at the true shape of a real model, with random weights

Writes research/results/latent-lora-<model>-<device>-<dtype>.json. The ways take turns; a ratio is the median of the turns' ratios to five
plain latent queries.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from research.bench.measuring import agreed_items, statistics_of, timed_in_turns, write_result
from research.bench.roofline import Machine
from slq.cache import KVCache
from slq.encoders.latent import LatentEncoder
from slq.io.provenance import seed_everything
from slq.models import FrozenModel, load_model
from slq.training import TrainConfig, fresh_queries
from slq.types import Item

PLAIN = "5 latents"
WAYS: Mapping[str, Mapping[str, Any]] = {
    PLAIN: {},
    "5 latents, rank 2": {"latent_lora_rank": 2},
    "5 latents, rank 8": {"latent_lora_rank": 8},
    "2 latents, rank 8": {"latent_lora_rank": 8, "num_latents": 2},
    "20 latents": {"num_latents": 20},
}
QUERY_TOKENS = 24  # with the chat template's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--dtype", help="default: float32 on the CPU, bfloat16 elsewhere")
    parser.add_argument("--device")
    parser.add_argument("--texts", type=int, default=16, help="captions in a batch, and in a training step")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seed_everything(options.seed)
    model = load_model(options.model, dtype=options.dtype, device=options.device)
    _, texts = agreed_items(0, options.texts, options.seed)
    query = query_of(model, QUERY_TOKENS)
    # Without a cache a query runs its prefix too; a training step has the prefixes of its items cached, as from the second epoch on.
    encoders = {name: encoder_of(model, way) for name, way in WAYS.items()}
    learners = {name: encoder_of(model, way, KVCache()) for name, way in WAYS.items()}
    for learner in learners.values():
        learner.prefill(texts)
    result = {
        "query_tokens": int(model.prepare([query], False).inputs["attention_mask"].sum()),
        "a query": ratios({name: partial(each.encode, [query]) for name, each in encoders.items()}, options.repeats, model),
        "a batch of captions": ratios({name: partial(each.encode, texts) for name, each in encoders.items()}, options.repeats, model),
        "a training step, prefixes cached": ratios({n: partial(step, each, texts) for n, each in learners.items()}, options.repeats, model),
        "adapters": {name: size_of(each) for name, each in encoders.items()},
        "texts": options.texts,
    }
    name = f"latent-lora-{options.model.removeprefix('random:')}-{model.device.type}-{model.identity.dtype}"
    write_result(name, result, sys.argv, options.seed)


def query_of(model: FrozenModel, tokens: int) -> Item:
    """A text that is about so many tokens with its template."""
    _, texts = agreed_items(0, 200, seed=1)
    lengths = [int(model.prepare([text], False).inputs["attention_mask"].sum()) for text in texts]
    return min(zip(texts, lengths, strict=True), key=lambda each: abs(each[1] - tokens))[0]


def encoder_of(model: FrozenModel, way: Mapping[str, Any], cache: KVCache | None = None) -> LatentEncoder:
    """Latent queries as training starts with them, but with matrices that are not zero."""
    queries = fresh_queries(model, TrainConfig(**way))
    if queries.lora is not None:
        with torch.no_grad():
            for parameter in queries.lora.parameters():
                parameter.normal_(std=0.02)
    return LatentEncoder(model, queries, cache)


def step(encoder: LatentEncoder, texts: list[Item]) -> None:
    """Forward and backward of a batch whose captions are each other's negatives."""
    vectors_BD = encoder.pooling(encoder.states(texts))
    loss = torch.nn.functional.cross_entropy(vectors_BD @ vectors_BD.T / encoder.queries.temperature, torch.arange(len(texts)))
    loss.backward()
    encoder.queries.zero_grad()


def ratios(ways: Mapping[str, Any], repeats: int, model: FrozenModel) -> dict[str, Any]:
    """Seconds of each way, and as a multiple of five plain latent queries."""
    seconds, machine = timed_in_turns(ways, model.device, repeats), Machine(model.device)
    return {
        name: {
            "seconds": statistics_of(its),
            "over_plain": statistics_of([one / plain for one, plain in zip(its, seconds[PLAIN], strict=True)]),
            "roofline": machine.used(ways[name], statistics.median(its)),
        }
        for name, its in seconds.items()
    }


def size_of(encoder: LatentEncoder) -> dict[str, int]:
    """Numbers learned, and bytes of the adapter's file."""
    with tempfile.TemporaryDirectory() as folder:
        encoder.adapter.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))
    counted = [value for name, value in encoder.queries.named_parameters() if name != "log_temperature"]
    return {"parameters": sum(value.numel() for value in counted), "bytes": size}


if __name__ == "__main__":
    main()
