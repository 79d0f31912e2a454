"""One change at a time to rank-2 latent LoRA with its own facts, scored on validation images alone: what else could help?

Also what can be done with trained adapters: two of rank 1 over one prefix as an ensemble whose vectors stand one after the other, and
vectors of images and texts moved to the same mean.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Mapping
from typing import Any

from research import variants
from research.paper.study import Study, Trained, once, say, spread
from research.variants.encoders import Centred, Ensemble
from slq.config.fields import NamedOptions
from slq.encoders.base import Encoder
from slq.evaluation import evaluate, mixed_sets
from slq.registry import LOAD_PLUGINS

VALIDATION_IMAGES, TEST_IMAGES = 1000, 24  # nothing is chosen or told by test images
WAYS = ("text to image", "image to text")
CENTRED, CENTRED_BY = ("the base", "hard negatives weigh more"), 400  # variants, and training pairs whose means are taken
ONE = "rank 1"
HARD = "info_nce:hardness=0.5"
BASE: Mapping[str, Any] = {
    "batch_sampler": "nearest",
    "latent_lora_rank": 2,
    "learning_rate": 0.08,
    "latent_lora_learning_rate": 0.01,
}


def _loss(*names: str) -> dict[str, Any]:
    return {"loss": tuple(NamedOptions.parse(name) for name in names)}


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "the base": {},
    "vectors one after the other": {"pooling": "concatenated"},
    "also late interaction": {"multi_vector_sizes": (5,)},
    "distilled from late interaction": {"multi_vector_sizes": (5,), **_loss("info_nce", "distilled")},
    "hard negatives weigh more": _loss(HARD),
    "negatives of the same kind": _loss("info_nce", "same_modality"),
    "hard negatives, and of the same kind": _loss(HARD, "same_modality"),
    "hard negatives, one after the other": {"pooling": "concatenated", **_loss(HARD)},
    "hard negatives, facts at 0.4": {"facts_weight": 0.4, **_loss(HARD)},
    "hard negatives, rank 8": {"latent_lora_rank": 8, **_loss(HARD)},
    "temperature 0.03": _loss("fixed_temperature:temperature=0.03"),
    "batches of 512": {"batch_size": 512, "epochs": 8},
    "both captions in a step": {"positives_per_query": 2},
    "15 neighbours": {"neighbors": 15},
    "no matrices": {"latent_lora_rank": 0},
    "rank 8, 2 latents": {"latent_lora_rank": 8, "num_latents": 2},
    "twice the epochs": {"epochs": 8},
    "hard negatives at 1": _loss("info_nce:hardness=1.0"),
    ONE: {"latent_lora_rank": 1},
}


def run(study: Study) -> dict[str, Any]:
    """Validation scores of each variant, mean and spread over seeds; written after each."""
    variants.add_to_path()
    os.environ[LOAD_PLUGINS] = ",".join(filter(None, [os.environ.get(LOAD_PLUGINS), "slq-research"]))
    validation = min(VALIDATION_IMAGES, 4 * study.size.validation)
    further = study.with_size("further", validation=validation, test=TEST_IMAGES)
    found: dict[str, Any] = {}
    for name, changes in VARIANTS.items():
        say(name)
        found[name] = spread([_scored(further, _trained(further, name, changes, seed)) for seed in study.size.seeds])
        study.write("further", {"variants": found})
    for name in (each for each in CENTRED if each in VARIANTS):
        runs = [_trained(further, name, VARIANTS[name], seed) for seed in study.size.seeds]
        found[f"{name}, centred by modality"] = spread([_centred(further, one) for one in runs])
        study.write("further", {"variants": found})
    pairs = itertools.combinations(study.size.seeds, 2)
    ensembles = [
        _measured(further, Ensemble([further.load(_trained(further, ONE, VARIANTS[ONE], seed)) for seed in pair])) for pair in pairs
    ]
    if ensembles:
        found["two of rank 1, one after the other"] = spread(ensembles)
    return study.write("further", {"variants": found})


def _trained(study: Study, name: str, changes: Mapping[str, Any], seed: int) -> Trained:
    options = study.options(**{**BASE, **changes}, seed=seed, cache_dir=study.out / "prefixes")
    return study.trained(f"{name}-seed{seed}", options, with_facts=True)


def _scored(study: Study, trained: Trained) -> dict[str, float]:
    return once(trained.folder / "further.json", lambda: _measured(study, study.load(trained)))


def _centred(study: Study, trained: Trained) -> dict[str, float]:
    """The figures of an adapter whose vectors are moved by the means of training items."""
    items = [item for pair in study.pairs("train")[:CENTRED_BY] for item in (pair.query, pair.positives[0])]
    return once(trained.folder / "further-centred.json", lambda: _measured(study, Centred(study.load(trained), items)))


def _measured(study: Study, encoder: Encoder) -> dict[str, float]:
    """hit@1 of both ways, alone and in a mixed gallery, knowledge, and the modality gap, on validation images."""
    sets = study.sets("validation")
    of_set = {one.name: one for one in evaluate(encoder, [*sets, *mixed_sets(sets)])}
    figures = {name: one.metrics["hit@5" if name == "knowledge" else "hit@1"] for name, one in of_set.items()}
    gap = of_set["text to image"].modality_gap
    return {**figures, "hit@1": statistics.mean(figures[way] for way in WAYS), **({} if gap is None else {"modality gap": gap})}
