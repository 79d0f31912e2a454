"""What was tried and is not part of slq: it is found as a plugin's, and gives what was meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tolerance import FORWARD, assert_close

from research import variants
from research.paper.further import VARIANTS
from research.variants.encoders import Centred, Ensemble
from research.variants.losses import Distilled, FixedTemperature, SameModality
from research.variants.poolings import Concatenated
from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.losses import InfoNCE, LossBatch
from slq.pooling import MeanPooling
from slq.testing import check_loss
from slq.training import TrainConfig


@pytest.fixture
def plugins(monkeypatch) -> None:
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "slq-research")
    variants.add_to_path()


def batch() -> LossBatch:
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(4, 5, 8, generator=generator, requires_grad=True) for _ in range(2)]
    pooled = [MeanPooling()(each) for each in states]
    return LossBatch(*states, *pooled, torch.eye(4, dtype=torch.bool), torch.tensor(0.07))


def test_every_variant_is_an_option(plugins):
    for changes in VARIANTS.values():
        config = TrainConfig(**changes)
        assert {name: getattr(config, name) for name in changes} == dict(changes)


@pytest.mark.parametrize("loss", [Distilled, FixedTemperature, SameModality], ids=lambda kind: kind.__name__)
def test_losses_keep_the_contract(loss):
    check_loss(loss)


def test_the_pooling_keeps_the_contract():
    states_BND = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    vectors = Concatenated()(states_BND)
    assert vectors.shape == (3, 40) == (3, *Concatenated().vector_shape(8))
    each = torch.nn.functional.normalize(states_BND, dim=-1)
    assert_close(vectors @ vectors.T, torch.einsum("bnd,cnd->bc", each, each) / 5, steps=FORWARD)


def test_losses_by_hand():
    one = batch()
    assert_close(FixedTemperature(0.07)(one), InfoNCE()(one), steps=FORWARD)
    alike = replace(one, queries_BND=one.queries_BND[:, :1], candidates_CND=one.candidates_CND[:, :1])
    pooled = [MeanPooling()(each) for each in (alike.queries_BND, alike.candidates_CND)]
    alike = replace(alike, queries_BD=pooled[0], candidates_CD=pooled[1])
    assert Distilled()(alike).item() == pytest.approx(0, abs=1e-6), "of one latent query late interaction is the cosine"
    assert Distilled()(one).item() > 1e-3


def test_an_ensemble_averages_cosines(model, items):
    parts = [
        LatentEncoder(model, LatentQueries.create(3, model.dim, generator=torch.Generator().manual_seed(seed), generation_prompt=False))
        for seed in range(2)
    ]
    found, each = Ensemble(parts).encode(items).vectors, [part.encode(items).vectors for part in parts]
    assert found.shape == (len(items), 2 * model.dim)
    np.testing.assert_allclose(found @ found.T, np.mean([one @ one.T for one in each], axis=0), atol=1e-5)


def test_centred_kinds_have_one_mean(model, items):
    queries = LatentQueries.create(3, model.dim, generator=torch.Generator().manual_seed(0), generation_prompt=False)
    plain = LatentEncoder(model, queries)
    assert {item.image is None for item in items} == {True, False}
    centred = Centred(plain, items)
    found, before = centred.encode(items, [f"item {i}" for i in range(len(items))]), plain.encode(items)
    assert centred.fingerprint != plain.fingerprint and found.ids[0] == "item 0"
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)

    def distance(vectors: np.ndarray) -> float:
        kinds = np.array([item.image is not None for item in items])
        return float(np.linalg.norm(vectors[kinds].mean(axis=0) - vectors[~kinds].mean(axis=0)))

    assert distance(found.vectors) < distance(before.vectors) / 4
