"""mteb's own tasks on the picture-book world give the scores of `slq.evaluation` on the same data."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tolerance import FORWARD, assert_close

from slq.data import RetrievalSet, from_pairs, open_image, read_beir, read_pairs
from slq.errors import BadItemsError, InputError, MissingExtraError
from slq.evaluation import evaluate
from slq.integrations.mteb import MtebEncoder, items_of
from slq.types import Item

LETTERS = {"text_to_image": "t2i", "image_to_text": "i2t", "composed": "it2i"}


@pytest.fixture
def without_mteb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)


def test_a_missing_extra_names_its_command(encoder, without_mteb):
    for make in (lambda: MtebEncoder(encoder), lambda: MtebEncoder.from_pretrained("nowhere")):
        with pytest.raises(MissingExtraError, match=r'pip install "slq\[mteb\]"'):
            make()


def test_rows_of_batches(items):
    image = items[4].image
    assert list(items_of({"text": ["a", "b"], "id": ["1", "2"]})) == [Item("a"), Item("b")]
    assert list(items_of({"image": [image]})) == [Item(image=image)]
    assert list(items_of({"text": ["but blue", " "], "image": [image, image]})) == [Item("but blue", image), Item(image=image)]
    assert list(items_of({"text": ["a", "b"], "image": [image, None]})) == [Item("a", image), Item("b")]
    assert list(items_of({})) == []
    assert [item.image.size for item in items_of({"image": [torch.zeros(3, 8, 9)]})] == [(9, 8)]
    with pytest.raises(InputError, match="A row holds 2 images"):
        list(items_of({"image": [[image, image]]}))


def task_of(one: RetrievalSet, name: str) -> Any:
    """The set as a retrieval task that mteb evaluates, its data at hand instead of on the hub."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    def rows(items: dict[str, Item]) -> Dataset:
        listed = list(items.values())
        columns: dict[str, list] = {"id": list(items)}
        if listed[0].text is not None:
            columns["text"] = [item.text for item in listed]
        if listed[0].image is not None:
            columns["image"] = [open_image(item.image) for item in listed]
        return Dataset.from_dict(columns)

    class PictureBook(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"PictureBook{LETTERS[name].upper()}Retrieval",
            description="Scenes of the picture-book world.",
            reference=None,
            dataset={"path": "none", "revision": "none"},
            type="Any2AnyRetrieval",
            category=LETTERS[name],
            modalities=["text", "image"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            date=None,
            domains=None,
            task_subtypes=None,
            license=None,
            annotations_creators=None,
            dialect=None,
            sample_creation=None,
            bibtex_citation=None,
        )

        def load_data(self, num_proc: int | None = None, **_: Any) -> None:
            qrels = {query: dict(answers) for query, answers in one.qrels.items()}
            found = RetrievalSplitData(queries=rows(one.queries), corpus=rows(one.corpus), relevant_docs=qrels, top_ranked=None)
            self.dataset = {"default": {"test": found}}
            self.data_loaded = True

    return PictureBook()


@pytest.fixture(scope="module")
def sets(sample: Path) -> dict[str, RetrievalSet]:
    pairs = read_pairs(sample / "test")
    made = {direction: from_pairs(pairs, direction) for direction in ("text_to_image", "image_to_text")}
    # mteb's tasks mask nothing.
    return {**made, "composed": replace(read_beir(sample / "test" / "composed"), excluded={})}


@pytest.mark.slow
@pytest.mark.parametrize("name", LETTERS)
def test_scores_are_ours(name, sets, encoder):
    mteb = pytest.importorskip("mteb")
    model = MtebEncoder(encoder)
    result = mteb.evaluate(model, task_of(sets[name], name), cache=None, encode_kwargs={"batch_size": 8}, show_progress_bar=False)
    theirs = result.task_results[0].scores["test"][0]
    (ours,) = evaluate(encoder, [sets[name]])
    assert result.model_name == "slq/miniature" and result.model_revision == encoder.fingerprint
    for k in (1, 5, 10):
        assert theirs[f"recall_at_{k}"] == pytest.approx(ours.metrics[f"recall@{k}"], abs=1e-5)
        assert theirs[f"hit_rate_at_{k}"] == pytest.approx(ours.metrics[f"hit@{k}"], abs=1e-5)
    assert theirs["ndcg_at_10"] == pytest.approx(ours.metrics["ndcg@10"], abs=1e-5)
    assert 0 < theirs["ndcg_at_10"] < 1


@pytest.mark.slow
def test_it_is_an_encoder_with_our_embeddings(encoder, items):
    mteb = pytest.importorskip("mteb")
    model = MtebEncoder(encoder, "me/mine")
    assert isinstance(model, mteb.models.EncoderProtocol)
    meta = model.mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.modalities) == ("me/mine", encoder.model.dim, ["text", "image"])
    batches = [{"text": [item.text for item in items[:4]]}, {"image": [item.image for item in items[4:8]]}]
    found = model.encode(batches, task_metadata=None, hf_split="test", hf_subset="default")
    assert_close(found, encoder.encode(items[:8]).vectors, steps=FORWARD)
    similar = model.similarity(found, 2 * torch.from_numpy(found))
    assert_close(similar.diagonal(), model.similarity_pairwise(found, found), steps=FORWARD)
    assert_close(similar.diagonal(), torch.ones(8), steps=FORWARD)
    assert model.encode([]).shape == (0, encoder.model.dim)


@pytest.mark.slow
def test_gallery_sizes_of_the_page_are_mtebs():
    mteb = pytest.importorskip("mteb")
    page = (Path(__file__).parents[2] / "docs" / "mieb.md").read_text(encoding="utf-8")
    for name in ("CIRRIT2IRetrieval", "FashionIQIT2IRetrieval"):
        found = mteb.get_task(name).metadata.descriptive_stats["test"]
        assert re.search(rf"`{name}`[^.]*?{found['num_documents']:,}[^.]*?{found['num_queries']:,}", page), name


@pytest.mark.slow
def test_the_page_names_what_mteb_has():
    mteb = pytest.importorskip("mteb")
    page = (Path(__file__).parents[2] / "docs" / "mieb.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\w+Retrieval\b", page)) - {"MtebEncoder"}
    assert {task.metadata.name for task in mteb.get_tasks(sorted(names))} == names and len(names) == 4
    for suite in set(re.findall(r"MIEB\(\w+\)", page)):
        assert mteb.get_benchmark(suite).tasks


def test_equal_rows_have_the_very_same_embedding_in_whatever_batch(encoder):
    pytest.importorskip("mteb")
    batches = [{"text": ["a red cat", f"number {n}", "a longer text of a red cat beside a blue house " * n]} for n in range(1, 6)]
    found = MtebEncoder(encoder).encode(batches, batch_size=2)
    assert len(found) == 15 and all(np.array_equal(found[0], found[3 * n]) for n in range(5))
    assert not np.array_equal(found[0], found[1])


def test_what_cannot_be_embedded_is_named(encoder):
    pytest.importorskip("mteb")
    with pytest.raises(BadItemsError, match=r"1 item\(s\).*row 1: the text is empty"):
        MtebEncoder(encoder).encode([{"text": ["a"]}, {"text": [""]}])
    with pytest.raises(InputError, match="organisation/model"):
        MtebEncoder(encoder, "mine")
