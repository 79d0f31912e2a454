"""The retriever: kept prefixes against fresh ones, its saved form, what it refuses, and the Sentence Transformers surface."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tolerance import FORWARD, GRADIENT, ROUNDED, assert_close

import slq
from slq.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter
from slq.errors import AdapterError, BadItemsError, InputError, MismatchError, OutputExistsError
from slq.latents import LatentQueries, pool
from slq.losses import info_nce, orthogonality_penalty
from slq.methods import LastTokenReadout
from slq.prefix_cache import PrefixCache
from slq.retriever import Retriever
from slq.types import Item


@pytest.fixture
def queries(backbone):
    return LatentQueries.create(6, backbone.dim, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def retriever(backbone, queries):
    return Retriever(backbone, queries)


def test_kept_prefixes_change_nothing(backbone, queries, items):
    slow = Retriever(backbone, queries, prefix_split=False).embed_batch(items)
    cache = PrefixCache()
    kept = Retriever(backbone, queries, cache)
    for _ in range(2):  # filling, then reading
        assert_close(kept.embed_batch(items), slow, steps=FORWARD)
    assert len(cache) == len(items)
    weights = torch.randn(slow.shape, generator=torch.Generator().manual_seed(0))
    wanted, found = (torch.autograd.grad((each * weights).sum(), queries.latents)[0] for each in (slow, kept.embed_batch(items)))
    assert_close(wanted, found, steps=GRADIENT)


def in_place(backbone, num_latents):
    """Latents in the place of the generation prompt, at the embeddings of its tokens."""
    return LatentQueries.create(num_latents, backbone.dim, "prompt", backbone.prompt_embeddings(), generation_prompt=False)


def test_one_latent_in_the_prompts_place_starts_as_the_zero_shot_readout(backbone, items):
    assert len(backbone.prompt_embeddings()) == 1
    wanted = LastTokenReadout(backbone).embed_batch(items)
    for cache in (None, PrefixCache()):
        assert_close(Retriever(backbone, in_place(backbone, 1), cache).embed_batch(items), wanted, steps=FORWARD)
    behind = LatentQueries.create(1, backbone.dim, "prompt", backbone.prompt_embeddings())
    assert (Retriever(backbone, behind).embed_batch(items) - wanted).abs().max() > 1e-3


def test_latents_in_the_prompts_place_fast_and_slow(backbone, items):
    queries = in_place(backbone, 4)
    fast, slow = Retriever(backbone, queries, PrefixCache()), Retriever(backbone, queries, prefix_split=False)
    weights = torch.randn(len(items), backbone.dim, generator=torch.Generator().manual_seed(0))
    found, wanted = fast.embed_batch(items), slow.embed_batch(items)
    assert_close(found, wanted, steps=FORWARD)
    gradients = [torch.autograd.grad((each * weights).sum(), queries.latents)[0] for each in (found, wanted)]
    assert_close(gradients[0], gradients[1], steps=GRADIENT)


def test_retrievers_that_prompt_differently_may_share_a_cache(backbone, queries, items):
    cache = PrefixCache()
    for each in (queries, in_place(backbone, 4)):
        assert_close(Retriever(backbone, each, cache).embed_batch(items), Retriever(backbone, each).embed_batch(items), steps=FORWARD)
    assert len(cache) == 2 * len(items)


def test_where_the_latents_stand_is_saved(backbone, items, tmp_path):
    retriever = Retriever(backbone, in_place(backbone, 4))
    retriever.save_pretrained(tmp_path / "adapter")
    again = Retriever.from_pretrained(tmp_path / "adapter", backbone)
    assert torch.equal(again.embed_batch(items), retriever.embed_batch(items))
    behind = LatentQueries(4, backbone.dim)
    behind.load_state_dict(retriever.queries.state_dict())
    assert Retriever(backbone, behind).fingerprint != retriever.fingerprint
    surface = slq.load(tmp_path / "adapter")
    assert_close(surface.encode(items), retriever.embed(items).vectors, steps=FORWARD)


def test_a_small_budget_only_costs_time(backbone, queries, items):
    full = PrefixCache()
    wanted = Retriever(backbone, queries, full).embed_batch(items)
    small = PrefixCache(budget=full.num_bytes // 2)
    found = Retriever(backbone, queries, small).embed_batch(items)
    assert len(small) > 0 and small.num_bytes <= full.num_bytes // 2
    assert_close(wanted, found, steps=FORWARD)


def test_a_closed_cache_takes_nothing_more(backbone, queries, items):
    cache = PrefixCache()
    retriever = Retriever(backbone, queries, cache)
    retriever.prefill(items[:4])
    retriever.embed_batch(items)
    assert len(cache) == 4


def test_embed_keeps_order_and_ids(retriever, items):
    ids = [f"item {number}" for number in range(len(items))]
    done = []
    embedded = retriever.embed(items, ids, batch_size=3, progress=done.append)
    assert embedded.ids == tuple(ids) and sum(done) == len(items)
    assert_close(embedded.vectors, retriever.embed_batch(items).detach().numpy(), steps=FORWARD)
    assert_close(np.linalg.norm(embedded.vectors, axis=1), 1, steps=ROUNDED)


def test_bad_items_are_named_and_spare_the_rest(retriever, items):
    mixed = [items[0], Item(" "), items[5], Item()]
    embedded = retriever.embed(mixed, ["a", "b", "c", "d"], skip_bad=True)
    assert embedded.ids == ("a", "c") and [failure.item for failure in embedded.failures] == ["b", "d"]
    assert_close(embedded.vectors, retriever.embed([items[0], items[5]]).vectors, steps=FORWARD)
    with pytest.raises(BadItemsError, match="2 item") as caught:
        retriever.embed(mixed, ["a", "b", "c", "d"])
    assert [failure.item for failure in caught.value.failures] == ["b", "d"]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_embed_the_same_and_spare_the_rest(retriever, items, workers):
    mixed = [*items, Item(" "), Item("words"), Item()]
    found = retriever.embed(mixed, batch_size=1, skip_bad=True, workers=workers)
    assert [failure.item for failure in found.failures] == [str(len(items)), str(len(items) + 2)]
    wanted = retriever.embed_batch([*items, Item("words")]).detach().numpy()
    assert_close(found.vectors, wanted, steps=FORWARD)


def test_ids_must_differ(retriever, items):
    with pytest.raises(InputError, match="different ids"):
        retriever.embed(items[:2], ["a", "a"])


def test_saved_equals_loaded(retriever, items, tmp_path):
    retriever.save_pretrained(tmp_path / "adapter")
    again = Retriever.from_pretrained(tmp_path / "adapter", device="cpu")
    assert torch.equal(again.queries.latents, retriever.queries.latents)
    assert torch.equal(again.embed_batch(items), retriever.embed_batch(items))
    assert again.fingerprint == retriever.fingerprint
    assert sum(file.stat().st_size for file in (tmp_path / "adapter").iterdir()) < 150 * 1024


def test_an_adapter_folder_is_not_overwritten_by_chance(retriever, tmp_path):
    retriever.save_pretrained(tmp_path / "adapter")
    with pytest.raises(OutputExistsError, match="exists already"):
        retriever.save_pretrained(tmp_path / "adapter")
    retriever.save_pretrained(tmp_path / "adapter", overwrite=True)


@pytest.mark.parametrize(
    "field",
    ["revision", "template", "dim", *(f"preprocessing {each}" for each in ("name", "max_text_tokens", "instruction", "pictures resample"))],
)
def test_an_adapter_of_another_backbone_is_refused(backbone, retriever, tmp_path, field):
    retriever.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / CONFIG_FILE).read_text())
    another = {"preprocessing name": "native", "preprocessing max_text_tokens": 64}.get(field, "another")
    *path, last = field.split()
    settings = config["backbone"]
    for step in path:
        settings = settings[step]
    assert settings[last] != another
    settings[last] = another
    (tmp_path / "adapter" / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(MismatchError, match=f"{field} {another!r}"):
        Retriever.from_pretrained(tmp_path / "adapter", backbone)


def test_a_damaged_adapter_is_named(retriever, tmp_path):
    folder = tmp_path / "adapter"
    with pytest.raises(AdapterError, match="not an adapter"):
        folder.mkdir()
        Adapter.load(folder)
    retriever.save_pretrained(folder)
    weights = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(AdapterError, match="damaged"):
        Adapter.load(folder)
    Retriever(retriever.backbone, LatentQueries(3, retriever.backbone.dim)).save_pretrained(tmp_path / "other")
    (folder / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(MismatchError, match="do not belong together"):
        Adapter.load(folder)


def test_fingerprints_tell_retrievers_apart(backbone, retriever):
    other = Retriever(backbone, LatentQueries.create(6, backbone.dim, generator=torch.Generator().manual_seed(4)))
    assert len({retriever.fingerprint, other.fingerprint, LastTokenReadout(backbone).fingerprint}) == 3


def test_sentence_transformers_surface_gives_the_same_numbers(retriever, items, tmp_path):
    retriever.save_pretrained(tmp_path / "adapter")
    model = slq.load(str(tmp_path / "adapter"), device="cpu")
    given = [items[0].text, items[4].image, {"text": items[8].text, "image": items[8].image}, items[1].text]
    path = tmp_path / "picture.png"
    items[5].image.save(path)
    given += [path, {"image": str(path)}]
    chosen = [items[0], items[4], items[8], items[1], items[5], items[5]]
    encoded = model.encode(given)
    assert_close(encoded, retriever.embed(chosen).vectors, steps=FORWARD)
    assert_close(model.similarity(encoded, encoded).diagonal(), torch.ones(6), steps=ROUNDED)
    assert model.get_embedding_dimension() == retriever.backbone.dim
    assert_close(model.encode("a red cat"), retriever.embed([Item("a red cat")]).vectors[0], steps=FORWARD)
    model.save(str(tmp_path / "saved"))
    assert np.array_equal(slq.load(str(tmp_path / "saved"), device="cpu").encode(given), encoded)


def test_sentence_transformers_surface_names_every_bad_input(retriever, items):
    from slq.integrations.sentence_transformers import as_sentence_transformer

    with pytest.raises(BadItemsError, match=r"input {'picture': 3}: .*input '': "):
        as_sentence_transformer(retriever).encode(["a cat", {"picture": 3}, ""])


def test_items_are_told_apart_by_content(items, tmp_path):
    path = tmp_path / "a.png"
    items[4].image.save(path)
    (tmp_path / "b.png").write_bytes(path.read_bytes())
    assert Item(image=path).key == Item(image=tmp_path / "b.png").key
    assert len({Item("a").key, Item(image=path).key, Item("a", path).key, Item("b", path).key}) == 4
    assert items[4].key == replace(items[4], image=items[4].image.copy()).key


# Large batches on small memory


def kept_for_gradients(run) -> tuple[torch.Tensor, int]:
    """What `run` returns, and the bytes of the tensors that autograd holds meanwhile (each storage once)."""
    held: dict[int, int] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        return run(), sum(held.values())


@pytest.mark.parametrize("path", ["kept", "fresh", "slow twin"])
def test_parts_give_the_gradient_of_the_whole_batch_at_the_memory_of_one(backbone, queries, items, path):
    many = [item for item in items for _ in range(3)]

    def loss_and_memory(tokens_per_pass: int):
        cache = PrefixCache() if path == "kept" else None
        retriever = Retriever(backbone, queries, cache, prefix_split=path != "slow twin", tokens_per_pass=tokens_per_pass)
        states, held = kept_for_gradients(lambda: retriever.states(many))
        embedded = pool(states)
        loss = info_nce(embedded, embedded.roll(1, 0), torch.eye(len(many), dtype=torch.bool), queries.temperature)
        loss = loss + 0.5 * orthogonality_penalty(states)
        return loss, torch.autograd.grad(loss, [queries.latents, queries.log_temperature]), held

    whole, gradients, memory = loss_and_memory(10**6)
    for tokens in (1, 300):
        loss, found, held = loss_and_memory(tokens)
        assert_close(loss, whole, steps=FORWARD)
        for one, wanted in zip(found, gradients, strict=True):
            assert_close(one, wanted, steps=GRADIENT)
        assert held < memory / 10


@pytest.mark.parametrize("kept", [True, False])
def test_a_picture_run_once_teaches_what_it_teaches_run_for_each_caption(backbone, queries, items, kept):
    """Rows of a picture that is repeated are its one row; as a negative of others' captions it counts once either way."""
    pictures = [item for item in items if item.text is None][:2]
    captions = [Item(f"{number} {animal}") for animal in ("cats", "dogs") for number in ("two", "three", "four")]
    positives = torch.tensor([[True] * 3 + [False] * 3, [False] * 3 + [True] * 3])
    repeated = [picture for picture in pictures for _ in range(3)]

    def learn(shown, loss_of):
        retriever = Retriever(backbone, queries, PrefixCache() if kept else None)
        embedded = pool(retriever.states([*shown, *captions]))
        loss = loss_of(embedded[: len(shown)], embedded[len(shown) :])
        return loss, torch.autograd.grad(loss, [queries.latents, queries.log_temperature])

    def by_rows(rows, texts):
        forward = info_nce(rows, texts, positives.repeat_interleave(3, dim=0), queries.temperature, symmetric=False)
        return (forward + info_nce(texts, rows[::3], positives.T, queries.temperature, symmetric=False)) / 2

    once, gradients = learn(pictures, lambda rows, texts: info_nce(rows, texts, positives, queries.temperature))
    again, wanted = learn(repeated, by_rows)
    assert_close(once, again, steps=FORWARD)
    for found, its in zip(gradients, wanted, strict=True):
        assert its.norm() > 1e-3
        assert_close(found, its, steps=GRADIENT)
