"""Eight threads on one model, one processor and one cache: each gets what it would have got alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from tolerance import FORWARD, assert_close

from slq.adapters.latents import LatentQueries
from slq.cache import KVCache, MemoryTier
from slq.encoders.latent import LatentEncoder
from slq.models import ItemKV
from slq.types import Item

THREADS, TURNS = 8, 6


def at_once(jobs: list[Callable[[], torch.Tensor]]) -> list[torch.Tensor]:
    """What each job gives when all start together, every one in a thread of its own, `TURNS` times over; the last turn's."""
    together = Barrier(len(jobs))

    def run(job: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        together.wait()
        return [job() for _ in range(TURNS)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        turns = [each.result() for each in [pool.submit(run, job) for job in jobs]]
    return [value for found in turns for value in found]


@pytest.mark.slow
def test_every_pass_gives_in_eight_threads_what_it_gives_in_one(model, items):
    latents = LatentQueries.create(6, model.dim, generator=torch.Generator().manual_seed(0)).latents.detach()

    def reference(start: int, hidden_state: str) -> torch.Tensor:
        return model.forward_reference(model.prepare(items[start : start + 3]), latents[: 3 + start % 3], hidden_state)

    def two_pass(start: int, hidden_state: str) -> torch.Tensor:
        return model.decode_latents(model.prefill(model.prepare(items[start : start + 3])), latents, hidden_state)

    def tokens(start: int) -> torch.Tensor:
        return model.last_token(model.prepare(items[start : start + 3]))

    jobs = [
        lambda: reference(0, "final"),
        lambda: reference(4, "pre_mlp"),
        lambda: reference(7, "final"),
        lambda: two_pass(1, "final"),
        lambda: two_pass(5, "pre_mlp"),
        lambda: two_pass(6, "final"),
        lambda: tokens(2),
        lambda: torch.tensor(model.score(items[0], items[3:6])),
    ]
    wanted = [job() for job in jobs for _ in range(TURNS)]
    for found, alone in zip(at_once(jobs), wanted, strict=True):
        assert_close(found, alone, steps=FORWARD)


@pytest.mark.slow
def test_one_cache_serves_eight_threads_and_counts_each_item_once(model, items):
    queries = LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(0))
    wanted = LatentEncoder(model, queries).encode_batch(items).detach()
    encoder = LatentEncoder(model, queries, KVCache())
    orders = [[(start + 3 * step) % len(items) for step in range(len(items))] for start in range(THREADS)]

    def embed(order: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return encoder.encode_batch([items[i] for i in order])[torch.tensor(order).argsort()]

    for found in at_once([lambda order=order: embed(order) for order in orders]):
        assert_close(found, wanted, steps=FORWARD)
    (memory,) = encoder.cache.tiers
    assert len(memory) == len(items)
    assert memory.num_bytes == sum(encoder.cache.get(encoder.reuse.cache_key(item)).num_bytes for item in items)


def test_a_budget_holds_whoever_writes():
    entry = {"keys": torch.zeros(1000)}
    tier = MemoryTier(budget=20 * entry["keys"].nbytes)

    def write(thread: int) -> torch.Tensor:
        return torch.tensor([tier.put(f"{thread} {number}", entry) for number in range(10)])

    at_once([lambda thread=thread: write(thread) for thread in range(THREADS)])
    assert len(tier) == 20 and tier.num_bytes == tier.budget


def test_the_same_entry_is_counted_once():
    prefix = ItemKV(torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4), torch.tensor(3))
    cache = KVCache(budget=1 << 20)
    assert {cache.put("an item", prefix) for _ in range(3)} == {"kv"}
    assert (len(cache), cache.num_bytes) == (1, prefix.num_bytes)


def test_texts_of_any_length_are_prepared_in_eight_threads(model):
    """The tokenizer keeps how it pads between calls."""
    batches = [[Item("a red cat " * (1 + (thread + each) % 5)) for each in range(thread % 3 + 1)] for thread in range(THREADS)]
    jobs = [lambda batch=batch: model.prepare(batch).inputs["input_ids"] for batch in batches[: THREADS // 2]]
    jobs += [
        lambda batch=batch: torch.tensor(model.item_processor.count_tokens([item.text for item in batch]))
        for batch in batches[THREADS // 2 :]
    ]
    wanted = [job() for job in jobs for _ in range(TURNS)]
    for _ in range(10):
        assert all(torch.equal(found, alone) for found, alone in zip(at_once(jobs), wanted, strict=True))
