"""Galleries of images and texts together, against scores worked out by hand; and the gap between the two kinds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from slq.cli import main
from slq.data import PairFile, RetrievalSet
from slq.encoders.base import Encoder
from slq.evaluation import Evaluation, bidirectional_sets, evaluate, mixed_sets, to_dict
from slq.models import FrozenModel, PreparedBatch
from slq.pooling import MeanPooling
from slq.types import Embeddings, Item, Pair

IMAGES, CAPTIONS = 6, 2


class Placed(Encoder):
    """Each image and its captions at a direction of their own, and all texts moved together by `apart`."""

    fingerprint, pooling = "placed", MeanPooling()

    def __init__(self, model: FrozenModel, number_of: Mapping[str, int], apart: float):
        self.model, self.number_of, self.apart = model, number_of, apart

    def describe(self) -> dict[str, str]:
        return {"kind": self.fingerprint}

    def encode(self, items: Sequence[Item], ids: Sequence[str] | None = None, *_: object, **__: object) -> Embeddings:
        vectors = np.zeros((len(items), self.model.dim), dtype=np.float32)
        for row, item in enumerate(items):
            vectors[row, self.number_of[item.text or item.image.read_bytes().hex()]] = 1
            vectors[row, -1] = self.apart if item.text else -self.apart
        return Embeddings(tuple(ids or map(str, range(len(items)))), vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        raise NotImplementedError


@pytest.fixture
def placed(tmp_path) -> tuple[PairFile, dict[str, int]]:
    pairs, number_of = [], {}
    for number in range(IMAGES):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(path)
        captions = [f"image {number} caption {caption}" for caption in range(CAPTIONS)]
        number_of |= dict.fromkeys([path.read_bytes().hex(), *captions], number)
        pairs.append(Pair(Item(image=path), tuple(Item(caption) for caption in captions)))
    return PairFile(tuple(pairs), (), tmp_path), number_of


def scored(model: FrozenModel, placed: tuple[PairFile, dict[str, int]], apart: float) -> dict[str, Evaluation]:
    pairs, number_of = placed
    sets = bidirectional_sets(pairs)
    return {one.name: one for one in evaluate(Placed(model, number_of, apart), [*sets, *mixed_sets(sets)])}


def test_kinds_that_lie_together_cost_nothing(model, placed):
    found = scored(model, placed, apart=0.0)
    assert {name: one.metrics["hit@1"] for name, one in found.items()} == {
        "text to image": 1, "image to text": 1,
        "mixed gallery, text to image": 1, "mixed gallery, image to text": 1, "mixed gallery, text to text": 1,
    }  # fmt: skip
    assert found["text to image"].modality_gap == 0


def test_kinds_that_lie_apart_take_each_others_place(model, placed):
    """Every wrong text stands before the right image, as texts are nearer to a text than any image is; the gallery of images hides it."""
    found = scored(model, placed, apart=2.0)
    assert found["text to image"].metrics["hit@1"] == found["image to text"].metrics["hit@1"] == 1
    to_image, to_text = found["mixed gallery, text to image"], found["mixed gallery, image to text"]
    assert to_image.metrics["hit@1"] == to_text.metrics["hit@1"] == 0
    wrong_texts, wrong_images = (IMAGES - 1) * CAPTIONS, IMAGES - 1
    assert {query.first_hit for query in to_image.queries} == {wrong_texts + 1}
    assert {query.first_hit for query in to_text.queries} == {wrong_images + 1}
    assert found["mixed gallery, text to text"].metrics["hit@1"] == 1
    means = np.array([1 / np.sqrt(5), 4 / np.sqrt(5)])  # of the last direction, the only one in which they differ: 2 x 2 / sqrt(5)
    assert found["text to image"].modality_gap == found["image to text"].modality_gap == pytest.approx(means[1])
    assert to_dict(list(found.values()))["text to image"]["modality_gap"] == pytest.approx(means[1])
    assert found["mixed gallery, text to image"].modality_gap is None, "that gallery is of both kinds"


def test_what_else_would_be_right_is_not_ranked(model, placed):
    """A caption that two images share has both as answers, and none of their captions stands in the way; nor does a copy of an image."""
    pairs, _ = placed
    (first, second), rest = pairs.pairs[:2], pairs.pairs[2:]
    shared = first.positives[0]
    copy = Path(first.query.image).with_name("copy.png")
    copy.write_bytes(Path(first.query.image).read_bytes())
    alike = replace(
        pairs, pairs=(first, replace(second, positives=(shared, second.positives[1])), *rest, Pair(Item(image=copy), (Item("a copy"),)))
    )
    to_image, to_text, to_other = mixed_sets(bidirectional_sets(alike))
    assert to_image.qrels["0.png#0"] == to_image.qrels["1.png#0"] == {"image 0.png": 1, "image 1.png": 1}
    assert to_image.excluded["0.png#0"] == {"text 0.png#0", "text 0.png#1", "text 1.png#0", "text 1.png#1"}
    assert to_text.excluded["0.png"] == {"image 0.png", "image 1.png", "image copy.png"} and to_text.excluded["2.png"] == {"image 2.png"}
    assert to_other.qrels["0.png#0"] == {"text 0.png#1": 1, "text 1.png#1": 1}, "but not its own words under another image"
    assert to_other.excluded["0.png#0"] == {"text 0.png#0", "text 1.png#0", "image 0.png", "image 1.png"}
    assert "copy.png#0" not in to_other.queries, "the only caption of its image has no other to find"


def test_other_sets_have_no_mixed_gallery(items):
    questions = RetrievalSet("knowledge", {"q": items[0]}, {"a": items[4]}, {"q": {"a": 1}}, ())
    composed = RetrievalSet("composed", {"q": items[8]}, {"a": items[4]}, {"q": {"a": 1}}, ())
    texts = RetrievalSet("texts", {"q": items[0]}, {"a": items[1]}, {"q": {"a": 1}}, ())
    back = RetrievalSet("back", {"a": items[1]}, {"q": items[0]}, {"a": {"q": 1}}, ())
    assert mixed_sets([questions, composed, texts, back]) == []


def test_eval_tells_of_both(sample, adapter, tmp_path, capsys):
    data = str(sample / "test" / "captions.jsonl")
    assert main(["eval", data, "-m", str(adapter), "-o", str(tmp_path / "scores.json")]) == 0
    shown, result = capsys.readouterr().out, json.loads((tmp_path / "scores.json").read_text())
    assert "In a gallery of all images and texts together:" in shown
    scores = result["scores"]
    gap = scores["text to image"]["modality_gap"]
    assert 0 < gap < 2 and f"Modality gap: {gap:.2f}" in shown
    assert set(result["data_parts"]) == {"text to image", "image to text"}, "mixed galleries follow from them"
    for name in ("text to image", "image to text"):
        assert scores[f"mixed gallery, {name}"]["hit@1"] <= scores[name]["hit@1"]
        assert scores[f"mixed gallery, {name}"]["num_candidates"] > scores[name]["num_candidates"]
