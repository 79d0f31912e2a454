"""The frozen model as judge, rewriter and explainer of what its latent queries find, on scenes that no training saw.

    python -m research.bench.judging                         trains `latent-lora-small`, writes research/results/judging.json
    python -m research.bench.judging --adapter my-adapter    with an adapter that is there, of the miniature

The question is chosen on validation images, and so are the prompt of rewriting and the weight of the similarity in a judged order.
Thresholds are chosen on half of the test queries and measured on the other half. Intervals are by image; of knowledge queries by the images
that answer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from research.bench import judging_maps
from research.bench.measuring import console, statistics_of, timed_in_turns, write_result
from slq.cache import KVCache
from slq.config.train import PRESETS
from slq.data import RetrievalSet, read_beir, read_pairs
from slq.encoders.latent import LatentEncoder
from slq.encoders.reuse import PrefixReuse
from slq.evaluation.auc import auc
from slq.evaluation.ranking import rank
from slq.evaluation.statistics import QueryValues, paired_test
from slq.io.provenance import seed_everything
from slq.judge import QUESTIONS, Example, Judge, Question, calibrate, choose_question, fused, matching, rewrite
from slq.judge.hits import log_odds
from slq.judge.rewriting import PROMPTS, Rewriting
from slq.miniature.export import write_sample_data
from slq.models import FrozenModel, load_model
from slq.training import TrainConfig, train
from slq.types import Item

TRAINING_IMAGES, VALIDATION_IMAGES, TEST_IMAGES = 1500, 300, 500
QUERIES = 200  # of each kind that are judged
DEEP, SHALLOW = 50, 10  # hits that are judged
WEIGHTS = (0.0, 10.0, 20.0, 40.0, 80.0)
MAP_PAIRS = 100
TIMED = 64  # hits
Matches = list[tuple[Item, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--repeats", type=int, default=5, help="turns of what is timed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seed_everything(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        write_result("judging", run(Path(scratch), options.adapter, options.repeats, options.seed), sys.argv, options.seed)


def run(scratch: Path, adapter: Path | None, repeats: int, seed: int) -> dict[str, Any]:
    """All figures, as they stand in the result file."""
    model, world = load_model(), World(scratch)
    encoder = world.encoder(model, adapter, seed)
    validation, test = world.matches("validation"), world.matches("test")
    result: dict[str, Any] = {"adapter": encoder.describe(), "images": {"validation": VALIDATION_IMAGES, "test": TEST_IMAGES}}
    console.print("questions")
    choice = choose_question(model, validation, QUESTIONS, seed=seed, reuse=encoder.reuse)
    judge = Judge(model, choice.question, encoder.reuse)
    result["question"] = {
        "chosen": choice.question.wording,
        "validation": {"auc": choice.auc, "ci95": choice.bounds, "images": choice.num_items},
        "test": {question.wording: measured_auc(model, question, test, encoder.reuse, seed) for question in QUESTIONS},
    }
    console.print("cost")
    result["milliseconds_a_hit"] = cost(model, judge.question, encoder.reuse, test, repeats)
    console.print("rewriting")
    searches = world.searches(encoder, "test", test, seed)
    prompt, result["rewriting"] = rewriting(encoder, world, seed)
    console.print("judged order")
    tuned = world.searches(encoder, "validation", validation, seed)
    for each in (tuned, searches):
        each["knowledge, rewritten"] = each["knowledge"].rewritten(encoder, prompt)
        each["composed, rewritten"] = each.pop("composed").rewritten(encoder, None)  # an image with a change is no question
    result["order"] = {name: ordered(judge, tuned[name], searches[name]) for name in searches}
    console.print("cut-off")
    result["cut-off"] = {name: cut(judge, searches[name].examples(SHALLOW), seed) for name in searches if name != "image to text"}
    console.print("maps")
    result["maps"] = judging_maps.measured(encoder, [(item, Item(text)) for item, text in test[:MAP_PAIRS]], seed)
    return result


@dataclass(frozen=True)
class Search:
    """Queries of one kind, what they are compared with, and what is right.

    similarities_QC: of every query with every candidate. asked: text about an item, by places of query and candidate.
    """

    queries: list[Item]
    candidates: list[Item]
    vectors_QD: np.ndarray
    corpus_CD: np.ndarray
    right_QC: np.ndarray
    hidden_QC: np.ndarray
    clusters: list[str]

    @property
    def similarities_QC(self) -> np.ndarray:
        return np.where(self.hidden_QC, -np.inf, self.vectors_QD @ self.corpus_CD.T)

    def top(self, hits: int) -> np.ndarray:
        """Places of each query's first candidates (Q, hits)."""
        return np.argsort(-self.similarities_QC, axis=1, kind="stable")[:, :hits]

    def asked(self, query: int, candidate: int) -> tuple[Item, str]:
        """An item, and the text that it is asked about."""
        if self.queries[query].image is not None and self.candidates[candidate].image is None:
            return self.queries[query], self.candidates[candidate].text or ""
        return self.candidates[candidate], self.queries[query].text or ""

    def rewritten(self, encoder: LatentEncoder, prompt: str | None) -> Search:
        """The same with the model's words in the place of each query's, found by both; a refused rewriting leaves a query as it is."""
        said = rewrite(encoder.model, self.queries, prompt)
        queries = [Item(one.text) if one.text else query for one, query in zip(said, self.queries, strict=True)]
        vectors_QD = fused(self.vectors_QD, encoder.encode(queries).vectors)
        return Search(queries, self.candidates, vectors_QD, self.corpus_CD, self.right_QC, self.hidden_QC, self.clusters)

    def examples(self, hits: int) -> list[Example]:
        """The queries as `calibrate` takes them."""
        found = []
        for query, places in enumerate(self.top(hits).tolist()):
            items, texts = zip(*(self.asked(query, place) for place in places), strict=True)
            right = frozenset(rank for rank, place in enumerate(places) if self.right_QC[query, place])
            scores = tuple(self.similarities_QC[query, places].tolist())
            found.append(Example(texts[0], items, scores, right, self.clusters[query]))
        return found


class World:
    """Images and captions of all splits, and what searches over them ask."""

    def __init__(self, scratch: Path):
        self.scratch = scratch
        for split, count in (("train", TRAINING_IMAGES), ("validation", VALIDATION_IMAGES), ("test", TEST_IMAGES)):
            write_sample_data(scratch / split, split, count)

    def encoder(self, model: FrozenModel, adapter: Path | None, seed: int) -> LatentEncoder:
        """The adapter that is named, or one that is trained; either with a cache of prefixes."""
        if adapter is not None:
            return LatentEncoder(model, LatentEncoder.from_pretrained(adapter, model).queries, KVCache())
        config = TrainConfig(**PRESETS["latent-lora-small"], seed=seed)
        return LatentEncoder(
            model, train(read_pairs(self.scratch / "train").pairs, model, self.scratch / "adapter", config).queries, KVCache()
        )

    def matches(self, split: str) -> Matches:
        return matching(read_pairs(self.scratch / split).pairs)

    def beir(self, split: str, name: str) -> RetrievalSet:
        return read_beir(self.scratch / split / name)

    def searches(self, encoder: LatentEncoder, split: str, matches: Matches, seed: int) -> dict[str, Search]:
        """Captions to images and back, facts and changes of images."""
        images, texts = [item for item, _ in matches], [Item(text) for _, text in matches]
        of_images, of_texts = encoder.encode(images).vectors, encoder.encode(texts).vectors
        same = np.array([[one.text == other.text for other in texts] for one in texts])
        names = [str(place) for place in range(len(images))]
        both = {
            "text to image": (texts, images, of_texts, of_images),
            "image to text": (images, texts, of_images, of_texts),
        }
        nothing = np.zeros(same.shape, dtype=bool)
        found = {name: _some(Search(*sides, same, nothing, names), seed) for name, sides in both.items()}
        return found | {name: _some(of_set(encoder, self.beir(split, name)), seed) for name in ("knowledge", "composed")}


def of_set(encoder: LatentEncoder, one: RetrievalSet) -> Search:
    """A judged set; queries with the same answers are one cluster."""
    ids = list(one.corpus)
    right_QC = np.array([[id_ in one.qrels[query] for id_ in ids] for query in one.queries])
    hidden_QC = np.array([[id_ in one.excluded.get(query, ()) for id_ in ids] for query in one.queries])
    clusters = [" ".join(sorted(one.qrels[query])) for query in one.queries]
    queries, corpus = list(one.queries.values()), list(one.corpus.values())
    return Search(queries, corpus, encoder.encode(queries).vectors, encoder.encode(corpus).vectors, right_QC, hidden_QC, clusters)


def _some(search: Search, seed: int) -> Search:
    """At most so many of the queries as are judged."""
    count = len(search.queries)
    places = np.sort(np.random.default_rng(seed).permutation(count)[:QUERIES])
    rows = (each[places] for each in (search.vectors_QD, search.right_QC, search.hidden_QC))
    vectors_QD, right_QC, hidden_QC = rows
    queries, clusters = [search.queries[place] for place in places], [search.clusters[place] for place in places]
    return Search(queries, search.candidates, vectors_QD, search.corpus_CD, right_QC, hidden_QC, clusters)


def measured_auc(model: FrozenModel, question: Question, matches: Matches, reuse: PrefixReuse, seed: int) -> dict[str, Any]:
    """AUC of a question on test images, each with its own caption and with two others."""
    places = np.random.default_rng(seed).permutation(len(matches))[:QUERIES]
    asked = [(item, other) for shift in (0, 1, 2) for item, other in zip(places, np.roll(places, shift), strict=True)]
    own = np.array([matches[item][1] == matches[other][1] for item, other in asked])
    found = Judge(model, question, reuse).scores([(matches[item][0], matches[other][1]) for item, other in asked]).probabilities
    area, bounds = auc(found, own, [str(item) for item, _ in asked])
    return {"auc": area, "ci95": bounds, "item_first": question.item_first}


def cost(model: FrozenModel, question: Question, reuse: PrefixReuse, matches: Matches, repeats: int) -> dict[str, Any]:
    """Milliseconds a hit: from prefixes that are kept, with prefixes read first, and in one pass over image and question."""
    kept, fresh = Judge(model, question, reuse), Judge(model, question)
    some = matches[:TIMED]
    shapes = {
        "one text, many images": [(item, some[0][1]) for item, _ in some],
        "one image, many texts": [(some[0][0], text) for _, text in some],
    }
    found = {}
    for name, pairs in shapes.items():
        ways = {
            "kept prefixes": partial(kept.scores, pairs),
            "prefixes read first": partial(fresh.scores, pairs),
            "reference": partial(kept.reference, pairs),
        }
        seconds = timed_in_turns(ways, model.device, repeats)
        found[name] = {way: statistics_of([1000 * each / TIMED for each in its]) for way, its in seconds.items()}
        apart = log_odds(kept.scores(pairs).probabilities) - log_odds(kept.reference(pairs))
        found[name]["largest_difference_of_log_odds"] = float(np.abs(apart).max())
    return found


def hit(search: Search, vectors_QD: np.ndarray, k: int) -> np.ndarray:
    """Whether a right candidate is among the first k, of each query."""
    relevant = [{int(place): 1 for place in np.flatnonzero(row)} for row in search.right_QC]
    excluded = {query: np.flatnonzero(row).tolist() for query, row in enumerate(search.hidden_QC)}
    rankings = rank(vectors_QD, search.corpus_CD, relevant, excluded=excluded)
    return np.array([one.ranks_R.min() <= k for one in rankings], dtype=np.float64)


def change(before_Q: np.ndarray, after_Q: np.ndarray, clusters: Sequence[str]) -> dict[str, Any]:
    """Two means, and their difference with its interval."""
    found = paired_test([QueryValues((after_Q - before_Q)[None], tuple(clusters))])
    return {
        "before": float(before_Q.mean()),
        "after": float(after_Q.mean()),
        "gain": float((after_Q - before_Q).mean()),
        "ci95": found.bounds_M2[0].tolist(),
        "queries": len(before_Q),
    }


def rewriting(encoder: LatentEncoder, world: World, seed: int) -> tuple[str, dict[str, Any]]:
    """The prompt that helps knowledge queries of validation images most; what it gives on test images, and what it does to captions."""
    tried = {}
    tuning = _some(of_set(encoder, world.beir("validation", "knowledge")), seed)
    for prompt in PROMPTS:
        vectors_QD = tuning.rewritten(encoder, prompt).vectors_QD
        tried[prompt] = {"hit@1": float(hit(tuning, vectors_QD, 1).mean()), "hit@5": float(hit(tuning, vectors_QD, 5).mean())}
    best = max(PROMPTS, key=lambda prompt: (tried[prompt]["hit@5"], tried[prompt]["hit@1"]))
    matches = world.matches("test")
    captions = [Item(text) for _, text in matches]
    images = encoder.encode([item for item, _ in matches]).vectors
    same = np.array([[one.text == other.text for other in captions] for one in captions])
    names = [str(place) for place in range(len(captions))]
    items = [item for item, _ in matches]
    searches = {
        "knowledge": (of_set(encoder, world.beir("test", "knowledge")), best),
        "composed": (of_set(encoder, world.beir("test", "composed")), None),
        "captions": (
            Search(captions, items, encoder.encode(captions).vectors, images, same, np.zeros(same.shape, dtype=bool), names),
            best,
        ),
    }
    return best, {
        "prompt": best,
        "validation": {"before": {f"hit@{k}": float(hit(tuning, tuning.vectors_QD, k).mean()) for k in (1, 5)}, "prompts": tried},
        "test": {name: rewritten(encoder, *each) for name, each in searches.items()},
    }


def rewritten(encoder: LatentEncoder, search: Search, prompt: str | None) -> dict[str, Any]:
    """hit@1 and hit@5 of queries, of their rewritings alone, and of both as one vector."""
    said = rewrite(encoder.model, search.queries, prompt)
    alone_QD = encoder.encode([Item(one.text) if one.text else query for one, query in zip(said, search.queries, strict=True)]).vectors
    ways = {"alone": alone_QD, "fused": fused(search.vectors_QD, alone_QD)}
    return {
        "refused": sum(bool(one.refused) for one in said),
        "said": examples_said(search.queries, said),
        **{
            way: {f"hit@{k}": change(hit(search, search.vectors_QD, k), hit(search, vectors_QD, k), search.clusters) for k in (1, 5)}
            for way, vectors_QD in ways.items()
        },
    }


def examples_said(queries: Sequence[Item], said: Sequence[Rewriting]) -> dict[str, str]:
    """Some rewritings to look at."""
    step = max(1, len(queries) // 5)
    return {queries[place].text or "": said[place].said for place in range(0, len(queries), step)}


def ordered(judge: Judge, tuned: Search, search: Search) -> dict[str, Any]:
    """hit@1 by the similarity, by the judge alone, and by both, among so many first hits; the weight is chosen on validation."""
    weights = {weight: _first_right(tuned, _logits(judge, tuned, SHALLOW), weight).mean() for weight in WEIGHTS}
    weight = max(weights, key=lambda each: (weights[each], each))
    logits_QH = _logits(judge, search, DEEP)
    found: dict[str, Any] = {"weight": weight}
    for hits in (SHALLOW, DEEP):
        before_Q = search.right_QC[np.arange(len(search.queries)), search.top(1)[:, 0]].astype(np.float64)
        for name, each in (("judge alone", 0.0), ("with the similarity", weight)):
            after_Q = _first_right(search, logits_QH[:, :hits], each)
            found[f"{name}, {hits} hits"] = change(before_Q, after_Q, search.clusters)
    return found


def _logits(judge: Judge, search: Search, hits: int) -> np.ndarray:
    """Logarithm of the odds of yes of each query's first hits (Q, hits)."""
    top = search.top(hits)
    pairs = [search.asked(query, place) for query, places in enumerate(top.tolist()) for place in places]
    return log_odds(judge.scores(pairs).probabilities).reshape(top.shape)


def _first_right(search: Search, logits_QH: np.ndarray, weight: float) -> np.ndarray:
    """Whether the first of the judged hits is right, of each query."""
    top, rows = search.top(logits_QH.shape[1]), np.arange(len(search.queries))
    scores_QH = logits_QH + weight * np.take_along_axis(search.similarities_QC, top, axis=1)
    best = top[rows, np.argmax(scores_QH, axis=1)]
    return search.right_QC[rows, best].astype(np.float64)


def cut(judge: Judge, examples: Sequence[Example], seed: int) -> dict[str, Any]:
    """Precision and coverage of judged hits and of those by similarity alone, and how often a query without an answer is told so."""
    found = calibrate(judge, examples, seed=seed)
    return {**asdict(found), "helps": found.helps}


if __name__ == "__main__":
    main()
