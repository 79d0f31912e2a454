"""The best of many scores: what the plain sort of all of them gives, without the memory that it takes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from slq.index import Hit, Row, search
from slq.index.exact import ExactStore
from slq.index.filters import Eq
from slq.index.scoring import search_rows
from slq.index.store import StoreMetadata
from slq.types import Embeddings

DIM, SIZE = 24, 10_000  # more rows than are compared at a time


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def sorted_plainly(queries: np.ndarray, ids: list[str], vectors: np.ndarray, k: int) -> list[list[Hit]]:
    """All scores in float64, rounded; the larger first, equal ones by id."""
    scores = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    orders = [sorted(range(len(ids)), key=lambda place: (-one[place], ids[place]))[:k] for one in scores]
    return [[Hit(ids[place], float(one[place])) for place in order] for one, order in zip(scores, orders, strict=True)]


@pytest.fixture(scope="module")
def corpus() -> Embeddings:
    """Every third vector stands at two places, in the order of ids at neither; ids do not follow the order of the corpus."""
    vectors = unit(SIZE, DIM)
    vectors[1::3] = vectors[0 : SIZE - 1 : 3]
    return Embeddings(tuple(f"{number * 7919 % SIZE:05d}" for number in range(SIZE)), vectors, "f")


@pytest.mark.parametrize("k", [1, 2, 10, SIZE - 1, SIZE, SIZE + 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_best_are_those_of_a_plain_sort(k, dtype, corpus):
    queries = unit(3, DIM, seed=1).astype(dtype)
    queries[2] = corpus.vectors[3]  # the best score is there twice
    wanted = sorted_plainly(queries, list(corpus.ids), corpus.vectors, k)
    assert search(corpus, Embeddings(("a", "b", "c"), queries, "f"), k) == wanted
    assert wanted[2][0].score == wanted[2][min(k, 2) - 1].score


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_few_directions_give_many_equal_scores(dtype):
    vectors = np.random.default_rng(2).integers(-1, 2, (3000, 4)).astype(dtype)
    ids = [f"{number:04d}" for number in np.random.default_rng(3).permutation(3000)]
    corpus, queries = Embeddings(tuple(ids), vectors), np.array([[1, 0, 0, 0], [1, 1, -1, 0.5], [0, 0, 0, 0]], dtype=np.float32)
    for k in (1, 7, 500):
        assert search(corpus, Embeddings(("q",) * 3, queries), k) == sorted_plainly(queries, ids, vectors, k)


def test_rows_stand_anywhere_among_the_vectors_and_queries_are_taken_in_parts(corpus, monkeypatch):
    slots = np.random.default_rng(4).permutation(SIZE)[:9000]
    ids, queries = [corpus.ids[slot] for slot in slots], unit(7, DIM, seed=5)
    wanted = sorted_plainly(queries, ids, corpus.vectors[slots], 5)
    for most in (1, 2 * 9000, 1 << 26):
        monkeypatch.setattr("slq.index.scoring._MOST_SCORES", most)
        assert search_rows(queries, 5, lambda place: Row(ids[place], queries[0]), slots, corpus.vectors) == wanted
    assert search_rows(queries[:0], 5, lambda place: Row(ids[place], queries[0]), slots, corpus.vectors) == []
    assert search_rows(queries[:2], 5, lambda place: Row(ids[place], queries[0]), slots[:0], corpus.vectors) == [[], []]


def test_a_filter_chooses_before_the_best_are_chosen(corpus):
    items = tuple({"text": f"text {number}", "metadata": {"even": number % 2 == 0}} for number in range(SIZE))
    query = Embeddings(("q",), unit(1, DIM, seed=6), "f")
    (hits,) = search(Embeddings(corpus.ids, corpus.vectors, "f", items), query, 20, Eq("even", True))
    (wanted,) = sorted_plainly(query.vectors, list(corpus.ids[::2]), corpus.vectors[::2], 20)
    assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in wanted]
    assert all(hit.metadata == {"even": True} and hit.text == f"text {corpus.ids.index(hit.id)}" for hit in hits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_corpus_is_not_converted_to_the_queries_type(dtype):
    """Which would take twice its memory; what is compared again is a few rows."""
    vectors, queries = unit(40_000, 64), unit(2, 64, seed=1).astype(dtype)
    corpus = Embeddings(tuple(map(str, range(40_000))), vectors)
    tracemalloc.start()
    search(corpus, Embeddings(("q",) * 2, queries), 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < vectors.nbytes / 8, f"{peak / vectors.nbytes:.2f} of the corpus were taken in addition"


def test_a_store_finds_the_same_as_the_plain_file(corpus, tmp_path):
    store = ExactStore(tmp_path / "s", StoreMetadata("adapter", "f", DIM))
    store.upsert([Row(id_, vector) for id_, vector in zip(corpus.ids[:2000], corpus.vectors, strict=False)])
    few, queries = Embeddings(corpus.ids[:2000], corpus.vectors[:2000], "f"), unit(4, DIM, seed=8)
    assert store.search(queries, 9) == search(few, Embeddings(tuple("abcd"), queries, "f"), 9)
    store.close()
