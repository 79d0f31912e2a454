"""Queries in two wordings, whose states are added; and images that a set holds more than once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from noisy import Noisy
from PIL import Image
from tolerance import FORWARD, assert_close
from torch import Tensor

from slq.data import PairFile, RetrievalSet
from slq.encoders.base import Encoder
from slq.evaluation import bidirectional_sets, dataset_sha256, evaluate, to_dict
from slq.evaluation.equal_images import fold_equal_images
from slq.models import FrozenModel, PreparedBatch
from slq.pooling import MeanPooling
from slq.types import Embeddings, Item, Pair


def test_states_of_two_wordings_are_added_before_they_are_brought_to_length_1(encoder, items, tmp_path):
    first, second = items[0], replace(items[0], text=f"{items[1].text} {items[0].text}")
    embedded = encoder.encode_added([(first, second)], ["q"])
    states = encoder.states_of(encoder.model.prepare([first, second], encoder.generation_prompt))
    means_BD = states.float().mean(dim=1)
    wanted = torch.nn.functional.normalize(means_BD.sum(dim=0), dim=0).detach().numpy()
    assert_close(embedded.vectors[0], wanted, steps=FORWARD)
    one = RetrievalSet("set", {"q": first}, {"a": items[2], "b": items[3]}, {"q": {"a": 1}}, (), added={"q": second})
    (query,) = evaluate(encoder, [one], cache_dir=tmp_path)[0].queries
    corpus = encoder.encode(items[2:4]).vectors
    assert dict(query.top_k) == pytest.approx(dict(zip("ab", corpus @ wanted, strict=True)), abs=1e-4)
    assert evaluate(encoder, [one], cache_dir=tmp_path)[0].queries == (query,), "read from the cache"
    assert dataset_sha256([one]) != dataset_sha256([replace(one, added={})])


def test_a_wording_that_cannot_be_read_is_a_failure(encoder, items):
    lost = Item("a cat", Path("no such image.png"))
    one = RetrievalSet("set", {"q": items[0]}, {"a": items[2]}, {"q": {"a": 1}}, (), added={"q": lost})
    (result,) = evaluate(encoder, [one])
    assert [failure.item for failure in result.failures] == ["q"] and result.metrics["hit@10"] == 0


class Knowing(Encoder):
    """Embeds every image as itself and each caption as its image: perfect, but for images that are equal."""

    fingerprint, pooling = "knowing", MeanPooling()

    def __init__(self, model: FrozenModel, number_of: Mapping[str, int]):
        self.model, self.number_of = model, number_of

    def describe(self) -> dict[str, str]:
        return {"kind": self.fingerprint}

    def encode(self, items: Sequence[Item], ids: Sequence[str] | None = None, *_: object, **__: object) -> Embeddings:
        vectors = np.eye(self.model.dim, dtype=np.float32)[[self.number_of[item.text or item.image.read_bytes().hex()] for item in items]]
        return Embeddings(tuple(ids or map(str, range(len(items)))), vectors)

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        raise NotImplementedError


@pytest.fixture
def pairs_with_copies(tmp_path) -> tuple[PairFile, dict[str, int]]:
    """Ten images of which two are the copies of two others, each with two captions of its own."""
    pairs, number_of = [], {}
    for number in range(10):
        path = tmp_path / f"{number}.png"
        shown = number if number < 8 else number - 8
        Image.new("RGB", (8, 8), (20 * shown, 0, 0)).save(path)
        captions = [f"image {number} caption {caption}" for caption in range(2)]
        number_of |= dict.fromkeys([path.read_bytes().hex(), *captions], shown)
        pairs.append(Pair(Item(image=path), tuple(Item(caption) for caption in captions)))
    return PairFile(tuple(pairs), (), tmp_path), number_of


def test_equal_images_are_told_and_the_score_with_each_once_stands_beside(model, pairs_with_copies):
    pairs, number_of = pairs_with_copies
    to_image, to_text = evaluate(Knowing(model, number_of), bidirectional_sets(pairs))
    assert to_image.metrics["hit@1"] == 12 / 20, "captions of four equal images in ten tie with the other's"
    assert len(set(to_image.clusters)) == len(set(to_text.clusters)) == 8, "a copy of an image is no further observation"
    assert to_image.equal_images == 2 and to_image.folded.metrics["hit@1"] == 1 and to_image.folded.metrics["num_candidates"] == 8
    assert to_text.metrics["hit@1"] == 6 / 10 and to_text.equal_images == 2
    assert to_text.folded.metrics["hit@1"] == to_text.folded.metrics["map@r"] == 1 and to_text.folded.metrics["queries"] == 8
    written = to_dict([to_image])["text to image"]["equal_images"]
    assert written["repeated"] == 2 and written["folded"]["hit@1"] == 1 and written["folded"]["ci95"]["hit@1"][1] == 1


def test_sets_without_copies_say_nothing_of_them(model, pairs_with_copies):
    pairs, number_of = pairs_with_copies
    one, other = evaluate(Knowing(model, number_of), bidirectional_sets(replace(pairs, pairs=pairs.pairs[:8])))
    assert one.folded is other.folded is None and "equal_images" not in to_dict([one])["text to image"]
    assert one.metrics["hit@1"] == other.metrics["hit@1"] == 1


def test_folding_keeps_to_candidates_and_what_is_excluded(pairs_with_copies):
    pairs, _ = pairs_with_copies
    images = {str(number): pair.query for number, pair in enumerate(pairs.pairs)}
    queries = {"q": Item("a"), "r": replace(images["0"], text="but blue"), "s": replace(images["8"], text="but blue")}
    one = RetrievalSet(
        "set", queries, images, {"q": {"8": 2, "3": 0}, "r": {"1": 1}, "s": {"9": 1, "2": 1}}, (),
        excluded={"r": frozenset({"0", "9"}), "q": frozenset({"1"})}, candidates={"q": ("0", "8", "3"), "s": ("1", "9", "2")},
    )  # fmt: skip
    folded, less = fold_equal_images(one)
    assert less == 3 and list(folded.corpus) == [str(number) for number in range(8)] and list(folded.queries) == ["q", "r"]
    assert folded.qrels == {"q": {"0": 2, "3": 0}, "r": {"1": 1, "2": 1}}
    assert folded.candidates == {"q": ("0", "3"), "r": ("1", "2")}
    assert folded.excluded == {"q": {"1"}, "r": {"0"}}, "an answer, or its copy, is never left out"


def test_equal_items_tie_whatever_batches_would_round(encoder, items, tmp_path):
    """The answer stands in the corpus three times: equal content is a tie, and a tie is lost."""
    corpus = {"right": items[4], "copy": replace(items[4]), "again": replace(items[4]), "other": items[5], "text": items[1]}
    one = RetrievalSet("set", {"q": items[0], "same": replace(items[0])}, corpus, {"q": {"right": 1}, "same": {"right": 1}}, ())
    noisy = Noisy(encoder)
    for cache in (None, tmp_path):
        (result,) = evaluate(noisy, [one], batch_size=1, cache_dir=cache)
        first, second = result.queries
        scores = dict(first.top_k)
        assert scores["right"] == scores["copy"] == scores["again"] and first.ranks == second.ranks
        assert first.first_hit >= 3, "its two copies stand before it"


@pytest.mark.filterwarnings("ignore:.*text.* had more than 128 tokens")
def test_texts_that_differ_behind_what_is_read_tie_too(encoder, items):
    """The model reads 128 tokens: what stands behind them makes no other input."""
    begin = "a red cat sits beside two small blue boats " * 20
    corpus = {"right": Item(begin + "on the sea"), "other": Item(begin + "in a wood"), "third": Item(begin), "short": items[1]}
    one = RetrievalSet("set", {"q": items[0]}, corpus, {"q": {"right": 1}}, ())
    for each in (encoder, Noisy(encoder)):
        (query,) = evaluate(each, [one], batch_size=1)[0].queries
        scores = dict(query.top_k)
        assert scores["right"] == scores["other"] == scores["third"] != scores["short"] and query.first_hit >= 3
