"""Which parts of the method count: how many latents, where they start and stand, how they are read, what the loss adds.

One thing changes at a time against the latent queries of `tuning`; the learning rate stays the one that was chosen for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from research.paper import plots
from research.paper.study import Scores, Study, Trained, once, quality, scores, spread
from research.paper.tuning import METHODS
from slq.encoders import MultiVectorEncoder
from slq.encoders.latent import LatentEncoder

GROUPS = (1, 5, 20)
VARIANTS: dict[str, dict[str, Any]] = {
    "the base": {},
    "1 latent": {"num_latents": 1},
    "5 latents": {"num_latents": 5},
    "start: normal": {"init": "normal"},
    "behind the prompt": {"add_generation_prompt": True},
    "behind the prompt, start: normal (the paper)": {"add_generation_prompt": True, "init": "normal"},
    "the last latent": {"pooling": "last"},
    "before the last MLP": {"hidden_state": "pre_mlp"},
    "latents per modality": {"modality_specific": True},
    "orthogonality 0.5": {"loss": ("info_nce", "orthogonality:weight=0.5")},
    "both captions in a step": {"positives_per_query": 2},
    "Matryoshka 64, 128": {"matryoshka_dims": (64, 128)},
    "nested groups": {"multi_vector_sizes": GROUPS},
}


def run(study: Study) -> dict[str, Any]:
    """Every variant over all seeds; those trained for it also by late interaction and by leading numbers alone."""
    found: dict[str, Any] = {}
    for name, changes in VARIANTS.items():
        of_seeds = [variant(study, name, changes, seed) for seed in study.size.seeds]
        found[name] = spread([each.measured["test"] for each in of_seeds])
        found[name]["chosen_by"] = spread([chosen_by(each.measured) for each in of_seeds])
        for group in changes.get("multi_vector_sizes", ()):
            late = [_late(study, each, group) for each in of_seeds]
            found[f"nested groups: late interaction of {group}"] = spread(late)
        for dims in changes.get("matryoshka_dims", ()):
            plain = [variant(study, "the base", {}, seed) for seed in study.size.seeds]
            for of_whom, trained in ((name, of_seeds), ("the base", plain)):
                cut = [_leading(study, each, dims) for each in trained]
                found[f"{of_whom}: {dims} numbers"] = spread(cut)
    plots.ranges(study.out / "ablations.png", found)
    return study.write("ablations", {"variants": found})


def chosen_by(measured: Scores) -> dict[str, float]:
    """Validation scores: explicit retrieval, and knowledge where there are such queries."""
    knowledge = measured["validation"].get("knowledge")
    return {"explicit": quality(measured)} | ({"knowledge": knowledge["hit@5"]} if knowledge else {})


def variant(study: Study, name: str, changes: Mapping[str, Any], seed: int) -> Trained:
    """The base with these changes; prefixes are kept on disk for the variants that share them."""
    base = METHODS["latents"]
    rate = study.chosen_rate("latents", base.rates, **base.options)
    kept = {"cache_dir": study.out / "prefixes", "cache_memory_gb": 0}
    options = {**base.options, "learning_rate": rate, **kept, **changes}
    return study.trained(f"{name}-seed{seed}", study.options(**options, seed=seed))


def _late(study: Study, trained: Trained, group: int) -> Scores:
    """Test scores by late interaction of a nested group."""
    kept = trained.folder / f"late-{group}.json"
    return once(kept, lambda: scores(MultiVectorEncoder(encoder(study, trained), group), study.sets("test")))


def _leading(study: Study, trained: Trained, dims: int) -> Scores:
    """Test scores of so many leading numbers."""
    return once(trained.folder / f"numbers-{dims}.json", lambda: scores(encoder(study, trained), study.sets("test"), dims))


def encoder(study: Study, trained: Trained) -> LatentEncoder:
    return LatentEncoder.from_pretrained(trained.folder, study.model)
