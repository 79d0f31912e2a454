"""What the miniature is trained on keeps the benchmark's questions out, and no fact stands beside an image."""

from __future__ import annotations

import random

from fact_sheet_texts import plain, runs

from research.pretraining.tasks import corpus, image_tasks, word_task
from slq.miniature.world.concepts import all_facts
from slq.miniature.world.scenes import sample_scene

FACTS_OF_IMAGES = 2000  # sampled image tasks, at least


def test_benchmark_phrasings_stay_out_of_all_training_text():
    held_out = {plain(fact.benchmark_phrasing) for fact in all_facts()}
    beginnings: dict[str, list[str]] = {}
    for phrasing in held_out:
        beginnings.setdefault(next(runs(phrasing, 3)), []).append(phrasing)
    rng = random.Random(1)
    facts = all_facts()
    texts = set(corpus(0, samples=20_000))
    texts |= {text for _ in range(20_000) for text in word_task(rng, facts)[:2]}
    assert plain(facts[0].training_phrasings[0]) in {plain(text) for text in texts}, "the sample is too small to tell"
    for text in texts:
        suspects = [phrasing for run in runs(text, 3) for phrasing in beginnings.get(run, [])]
        leaked = [phrasing for phrasing in suspects if f" {phrasing} " in f" {plain(text)} "]
        assert not leaked, (text, leaked)


def test_no_fact_stands_beside_an_image():
    of_facts = {run for fact in all_facts() for phrasing in fact.phrasings for run in runs(phrasing)}
    rng = random.Random(2)
    seen = 0
    while seen < FACTS_OF_IMAGES:
        for user, answer, *_ in image_tasks(sample_scene(rng, rng.choice([1, 2, 3]), signs=0.3), rng, 5):
            seen += 1
            for text in (user, answer):
                told = of_facts & set(runs(text))
                assert not told, (text, told)
