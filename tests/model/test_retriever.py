"""The encoder: kept prefixes against fresh ones, its saved form, what it refuses, and the Sentence Transformers surface."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tolerance import FORWARD, GRADIENT, ROUNDED, assert_close

import slq
from slq.adapters.files import CONFIG_FILE, WEIGHTS_FILE, Adapter
from slq.adapters.latents import LatentQueries
from slq.cache import KVCache
from slq.encoders import LastTokenEncoder
from slq.encoders.latent import LatentEncoder
from slq.errors import AdapterError, BadItemsError, FingerprintMismatchError, InputError, OutputExistsError
from slq.losses.info_nce import info_nce
from slq.losses.orthogonality import orthogonality_penalty
from slq.pooling import MeanPooling
from slq.types import Item


@pytest.fixture
def queries(model):
    return LatentQueries.create(6, model.dim, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def encoder(model, queries):
    return LatentEncoder(model, queries)


@pytest.mark.numeric
def test_kept_prefixes_change_nothing(model, queries, items):
    slow = LatentEncoder(model, queries, prefix_caching=False).encode_batch(items)
    cache = KVCache()
    kept = LatentEncoder(model, queries, cache)
    for _ in range(2):  # filling, then reading
        assert_close(kept.encode_batch(items), slow, steps=FORWARD)
    assert len(cache) == len(items)
    weights = torch.randn(slow.shape, generator=torch.Generator().manual_seed(0))
    wanted, found = (torch.autograd.grad((each * weights).sum(), queries.latents)[0] for each in (slow, kept.encode_batch(items)))
    assert_close(wanted, found, steps=GRADIENT)


def in_place(model, num_latents):
    """Latents in the place of the generation prompt, at the embeddings of its tokens."""
    return LatentQueries.create(num_latents, model.dim, "prompt", model.prompt_embeddings(), generation_prompt=False)


def test_one_latent_in_the_prompts_place_starts_as_the_zero_shot_readout(model, items):
    assert len(model.prompt_embeddings()) == 1
    wanted = LastTokenEncoder(model).encode_batch(items)
    for cache in (None, KVCache()):
        assert_close(LatentEncoder(model, in_place(model, 1), cache).encode_batch(items), wanted, steps=FORWARD)
    behind = LatentQueries.create(1, model.dim, "prompt", model.prompt_embeddings())
    assert (LatentEncoder(model, behind).encode_batch(items) - wanted).abs().max() > 1e-3


@pytest.mark.numeric
def test_latents_in_the_prompts_place_fast_and_slow(model, items):
    queries = in_place(model, 4)
    fast, slow = LatentEncoder(model, queries, KVCache()), LatentEncoder(model, queries, prefix_caching=False)
    weights = torch.randn(len(items), model.dim, generator=torch.Generator().manual_seed(0))
    found, wanted = fast.encode_batch(items), slow.encode_batch(items)
    assert_close(found, wanted, steps=FORWARD)
    gradients = [torch.autograd.grad((each * weights).sum(), queries.latents)[0] for each in (found, wanted)]
    assert_close(gradients[0], gradients[1], steps=GRADIENT)


@pytest.mark.slow
def test_retrievers_that_prompt_differently_may_share_a_cache(model, queries, items):
    cache = KVCache()
    for each in (queries, in_place(model, 4)):
        assert_close(LatentEncoder(model, each, cache).encode_batch(items), LatentEncoder(model, each).encode_batch(items), steps=FORWARD)
    assert len(cache) == 2 * len(items)


@pytest.mark.slow
def test_where_the_latents_stand_is_saved(model, items, tmp_path):
    encoder = LatentEncoder(model, in_place(model, 4))
    encoder.save_pretrained(tmp_path / "adapter")
    again = LatentEncoder.from_pretrained(tmp_path / "adapter", model)
    assert torch.equal(again.encode_batch(items), encoder.encode_batch(items))
    behind = LatentQueries(4, model.dim)
    behind.load_state_dict(encoder.queries.state_dict())
    assert LatentEncoder(model, behind).fingerprint != encoder.fingerprint
    surface = slq.load(tmp_path / "adapter")
    assert_close(surface.encode(items), encoder.encode(items).vectors, steps=FORWARD)


def test_a_small_budget_only_costs_time(model, queries, items):
    full = KVCache()
    wanted = LatentEncoder(model, queries, full).encode_batch(items)
    small = KVCache(budget=full.num_bytes // 2)
    found = LatentEncoder(model, queries, small).encode_batch(items)
    assert len(small) > 0 and small.num_bytes <= full.num_bytes // 2
    assert_close(wanted, found, steps=FORWARD)


def test_a_closed_cache_takes_nothing_more(model, queries, items):
    cache = KVCache()
    encoder = LatentEncoder(model, queries, cache)
    encoder.prefill(items[:4])
    encoder.encode_batch(items)
    assert len(cache) == 4


def test_embed_keeps_order_and_ids(encoder, items):
    ids = [f"item {number}" for number in range(len(items))]
    done = []
    embedded = encoder.encode(items, ids, batch_size=3, progress=done.append)
    assert embedded.ids == tuple(ids) and sum(done) == len(items)
    assert_close(embedded.vectors, encoder.encode_batch(items).detach().numpy(), steps=FORWARD)
    assert_close(np.linalg.norm(embedded.vectors, axis=1), 1, steps=ROUNDED)


def test_bad_items_are_named_and_spare_the_rest(encoder, items):
    mixed = [items[0], Item(" "), items[5], Item()]
    embedded = encoder.encode(mixed, ["a", "b", "c", "d"], on_error="skip")
    assert embedded.ids == ("a", "c") and [failure.item for failure in embedded.failures] == ["b", "d"]
    assert_close(embedded.vectors, encoder.encode([items[0], items[5]]).vectors, steps=FORWARD)
    with pytest.raises(BadItemsError, match="2 item") as caught:
        encoder.encode(mixed, ["a", "b", "c", "d"])
    assert [failure.item for failure in caught.value.failures] == ["b", "d"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_embed_the_same_and_spare_the_rest(encoder, items, workers):
    mixed = [*items, Item(" "), Item("words"), Item()]
    found = encoder.encode(mixed, batch_size=1, on_error="skip", workers=workers)
    assert [failure.item for failure in found.failures] == [str(len(items)), str(len(items) + 2)]
    wanted = encoder.encode_batch([*items, Item("words")]).detach().numpy()
    assert_close(found.vectors, wanted, steps=FORWARD)


def test_ids_must_differ(encoder, items):
    with pytest.raises(InputError, match="different ids"):
        encoder.encode(items[:2], ["a", "a"])


@pytest.mark.slow
def test_saved_equals_loaded(encoder, items, tmp_path):
    encoder.save_pretrained(tmp_path / "adapter")
    again = LatentEncoder.from_pretrained(tmp_path / "adapter", device="cpu")
    assert torch.equal(again.queries.latents, encoder.queries.latents)
    assert torch.equal(again.encode_batch(items), encoder.encode_batch(items))
    assert again.fingerprint == encoder.fingerprint
    assert sum(file.stat().st_size for file in (tmp_path / "adapter").iterdir()) < 150 * 1024


def test_an_adapter_folder_is_not_overwritten_by_chance(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "adapter")
    with pytest.raises(OutputExistsError, match="exists already"):
        encoder.save_pretrained(tmp_path / "adapter")
    encoder.save_pretrained(tmp_path / "adapter", overwrite=True)


@pytest.mark.parametrize(
    "field",
    [
        *("weights_sha256", "config_sha256", "tokenizer_sha256", "chat_template_sha256", "processor image_mean", "dim"),
        *(f"preprocessing {each}" for each in ("name", "max_text_tokens", "instruction", "image_kwargs resample")),
    ],
)
def test_an_adapter_of_another_model_is_refused(model, encoder, tmp_path, field):
    encoder.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / CONFIG_FILE).read_text())
    another = {"preprocessing name": "native", "preprocessing max_text_tokens": 64}.get(field, "another")
    *path, last = field.split()
    settings = config["base_model"]
    for step in path:
        settings = settings[step]
    assert settings[last] != another
    settings[last] = another
    (tmp_path / "adapter" / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(FingerprintMismatchError, match=f"{field} {another!r}"):
        LatentEncoder.from_pretrained(tmp_path / "adapter", model)


def test_a_damaged_adapter_is_named(encoder, tmp_path):
    folder = tmp_path / "adapter"
    with pytest.raises(AdapterError, match="not an adapter"):
        folder.mkdir()
        Adapter.load(folder)
    encoder.save_pretrained(folder)
    weights = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(AdapterError, match="corrupt"):
        Adapter.load(folder)
    LatentEncoder(encoder.model, LatentQueries(3, encoder.model.dim)).save_pretrained(tmp_path / "other")
    (folder / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(FingerprintMismatchError, match="do not belong together"):
        Adapter.load(folder)


def test_fingerprints_tell_retrievers_apart(model, encoder):
    other = LatentEncoder(model, LatentQueries.create(6, model.dim, generator=torch.Generator().manual_seed(4)))
    assert len({encoder.fingerprint, other.fingerprint, LastTokenEncoder(model).fingerprint}) == 3


@pytest.mark.slow
def test_sentence_transformers_surface_gives_the_same_numbers(encoder, items, tmp_path):
    encoder.save_pretrained(tmp_path / "adapter")
    model = slq.load(str(tmp_path / "adapter"), device="cpu")
    given = [items[0].text, items[4].image, {"text": items[8].text, "image": items[8].image}, items[1].text]
    path = tmp_path / "image.png"
    items[5].image.save(path)
    given += [path, {"image": str(path)}]
    chosen = [items[0], items[4], items[8], items[1], items[5], items[5]]
    encoded = model.encode(given)
    assert_close(encoded, encoder.encode(chosen).vectors, steps=FORWARD)
    assert_close(model.similarity(encoded, encoded).diagonal(), torch.ones(6), steps=ROUNDED)
    assert model.get_embedding_dimension() == encoder.model.dim
    assert_close(model.encode("a red cat"), encoder.encode([Item("a red cat")]).vectors[0], steps=FORWARD)
    model.save(str(tmp_path / "saved"))
    assert np.array_equal(slq.load(str(tmp_path / "saved"), device="cpu").encode(given), encoded)


def test_sentence_transformers_surface_names_every_bad_input(encoder, items):
    from slq.integrations.sentence_transformers import as_sentence_transformer

    with pytest.raises(BadItemsError, match=r"input {'image': 3}: .*input '': "):
        as_sentence_transformer(encoder).encode(["a cat", {"image": 3}, ""])


def test_items_are_told_apart_by_content(items, tmp_path):
    path = tmp_path / "a.png"
    items[4].image.save(path)
    (tmp_path / "b.png").write_bytes(path.read_bytes())
    assert Item(image=path).content_hash == Item(image=tmp_path / "b.png").content_hash
    assert len({Item("a").content_hash, Item(image=path).content_hash, Item("a", path).content_hash, Item("b", path).content_hash}) == 4
    assert items[4].content_hash == replace(items[4], image=items[4].image.copy()).content_hash


# Large batches on small memory


def kept_for_gradients(run) -> tuple[torch.Tensor, int]:
    """What `run` returns, and the bytes of the tensors that autograd holds meanwhile (each storage once)."""
    held: dict[int, int] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        return run(), sum(held.values())


@pytest.mark.slow
@pytest.mark.parametrize("path", ["kept", "fresh", "slow twin"])
def test_parts_give_the_gradient_of_the_whole_batch_at_the_memory_of_one(model, queries, items, path):
    many = [item for item in items for _ in range(3)]

    def loss_and_memory(mini_batch_tokens: int):
        cache = KVCache() if path == "kept" else None
        encoder = LatentEncoder(model, queries, cache, prefix_caching=path != "slow twin", mini_batch_tokens=mini_batch_tokens)
        states, held = kept_for_gradients(lambda: encoder.states(many))
        embedded = MeanPooling()(states)
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


@pytest.mark.numeric
@pytest.mark.parametrize("kept", [True, False])
def test_an_image_run_once_teaches_what_it_teaches_run_for_each_caption(model, queries, items, kept):
    """Rows of an image that is repeated are its one row; as a negative of others' captions it counts once either way."""
    images = [item for item in items if item.text is None][:2]
    captions = [Item(f"{number} {animal}") for animal in ("cats", "dogs") for number in ("two", "three", "four")]
    positives = torch.tensor([[True] * 3 + [False] * 3, [False] * 3 + [True] * 3])
    repeated = [image for image in images for _ in range(3)]

    def learn(shown, loss_of):
        encoder = LatentEncoder(model, queries, KVCache() if kept else None)
        embedded = MeanPooling()(encoder.states([*shown, *captions]))
        loss = loss_of(embedded[: len(shown)], embedded[len(shown) :])
        return loss, torch.autograd.grad(loss, [queries.latents, queries.log_temperature])

    def by_rows(rows, texts):
        forward = info_nce(rows, texts, positives.repeat_interleave(3, dim=0), queries.temperature, symmetric=False)
        return (forward + info_nce(texts, rows[::3], positives.T, queries.temperature, symmetric=False)) / 2

    once, gradients = learn(images, lambda rows, texts: info_nce(rows, texts, positives, queries.temperature))
    again, wanted = learn(repeated, by_rows)
    assert_close(once, again, steps=FORWARD)
    for found, its in zip(gradients, wanted, strict=True):
        assert its.norm() > 1e-3
        assert_close(found, its, steps=GRADIENT)
