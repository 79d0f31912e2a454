"""Latent queries with position-restricted LoRA beside LoRA and full fine-tuning that get the same batches, facts and number of tries.

Every method's rates are the best of three tries on 1,200 validation images with the first seed; all seeds are then scored on the test
sets, and asked every question of `slq retention`. Weights are compared by their hash: where they are unchanged, so is every answer.

Beside means over seeds stand differences to the rival: of each query the mean over seeds, paired query by query, with intervals by image.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from research.paper.study import Study, Trained, once, quality, say, scores, spread
from research.world_sets import MINIMAL_PAIRS, composed, minimal_pairs, unseen_style
from slq.config.fields import NamedOptions
from slq.data import RetrievalSet
from slq.encoders import LastTokenEncoder
from slq.encoders.base import Encoder
from slq.evaluation import evaluate, mixed_sets
from slq.evaluation.statistics import QueryValues, paired_test
from slq.retention import RetentionTask, load_tasks, retention

RIVAL = "LoRA, rank 8, nearest, facts"
# Figure -> set and metric; those whose set the data do not have are left out.
FIGURES = {
    "t2i_hit1": ("text to image", "hit@1"),
    "i2t_hit1": ("image to text", "hit@1"),
    "knowledge_hit5": ("knowledge", "hit@5"),
    "minimal_pairs_hit1": (MINIMAL_PAIRS, "hit@1"),
    "composed_hit5": ("composed", "hit@5"),
    "unseen_t2i_hit1": ("unseen style, text to image", "hit@1"),
    "unseen_i2t_hit1": ("unseen style, image to text", "hit@1"),
    "mixed_t2i_hit1": ("mixed gallery, text to image", "hit@1"),
    "mixed_i2t_hit1": ("mixed gallery, image to text", "hit@1"),
}
GAP = "modality_gap"
HARDER = ", hard negatives"  # end of the names of methods whose near negatives weigh more
VALIDATION_TIMES = 4  # as many images as the study's

NEAREST: Mapping[str, Any] = {"batch_sampler": "nearest"}


@dataclass(frozen=True)
class Method:
    """A way of adapting, on nearest-neighbour batches and the model's own facts, and the rates that are tried for it."""

    options: Mapping[str, Any]
    tries: tuple[Mapping[str, float], ...]


def harder(method: Method, rates: Mapping[str, float]) -> Method:
    """A method whose near negatives weigh more, at the rates that were chosen for it without that."""
    return Method({**method.options, "loss": (NamedOptions.parse("info_nce:hardness=0.5"),)}, (rates,))


def latent_lora(rank: int) -> Method:
    """Latent queries with matrices where they stand."""
    rates = ((0.08, 0.01), (0.02, 0.01), (0.08, 0.003))
    tries = tuple({"learning_rate": latents, "latent_lora_learning_rate": matrices} for latents, matrices in rates)
    return Method({**NEAREST, "latent_lora_rank": rank}, tries)


def tuned(options: Mapping[str, Any], rates: Sequence[float]) -> Method:
    """A copy of the model with weights of its own."""
    return Method({**NEAREST, **options}, tuple({"learning_rate": rate} for rate in rates))


METHODS = {
    "latent LoRA, rank 8": latent_lora(8),
    "latent LoRA, rank 2": latent_lora(2),
    "LoRA, rank 8, nearest, facts": tuned({"method": "lora"}, (1e-3, 3e-3, 1e-2)),
    "LoRA, rank 2, nearest, facts": tuned({"method": "lora", "lora_rank": 2, "lora_alpha": 4}, (1e-3, 3e-3, 1e-2)),
    "full, nearest, facts": tuned({"method": "full"}, (1e-4, 3e-4, 1e-3)),
}
CHOSEN = {  # of their three tries, see above
    "latent LoRA, rank 8": {"learning_rate": 0.08, "latent_lora_learning_rate": 0.01},
    "latent LoRA, rank 2": {"learning_rate": 0.02, "latent_lora_learning_rate": 0.01},
    RIVAL: {"learning_rate": 0.01},
    "full, nearest, facts": {"learning_rate": 0.001},
}
METHODS |= {f"{name}{HARDER}": harder(METHODS[name], rates) for name, rates in CHOSEN.items()}


def run(study: Study, names: Sequence[str]) -> dict[str, Any]:
    """The table, a row a method; it is written after every row, so that a stopped one shows what there is."""
    tasks, sets = load_tasks(names, study.size.questions), _test_sets(study)
    before = _right(study, None, tasks)
    found = {"last token": [once(study.out / "baselines" / "last-token.json", lambda: _measured(LastTokenEncoder(study.model), sets))]}
    rows = [_row("last token", found["last token"], 0, False, [before])]
    for name, method in METHODS.items():
        row, found[name] = _of_method(study, name, method, tasks, before, sets)
        rows.append(row)
        among_harder = {each: measured for each, measured in found.items() if each.endswith(HARDER)}
        against = {"against": _against(found, RIVAL), "against_harder": _against(among_harder, f"{RIVAL}{HARDER}")}
        result = study.write("comparison", {"rows": rows, **against, "questions": sum(map(len, tasks))})
    return result


def _test_sets(study: Study) -> list[RetrievalSet]:
    """What every method is scored on: both ways, knowledge, mixed galleries, and of the miniature's world all else that it has."""
    sets = study.sets("test")
    sets += mixed_sets(sets)
    if study.is_miniature:
        known = study.folder("test")
        sets += [composed(known), minimal_pairs(known), *unseen_style(study.folder("test", held_out_style=True))]
    return sets


def _measured(encoder: Encoder, sets: Sequence[RetrievalSet]) -> dict[str, Any]:
    """Each figure as a mean and query by query, with the clusters of its queries, and the modality gap."""
    of_set = {one.name: one for one in evaluate(encoder, sets)}
    found: dict[str, Any] = {}
    for figure, (name, metric) in FIGURES.items():
        if name in of_set:
            one = of_set[name]
            found[figure] = {"mean": one.metrics[metric], "values": one.values[metric].tolist(), "clusters": one.clusters}
    return found | {GAP: of_set["text to image"].modality_gap}


def _scored(study: Study, trained: Trained, sets: Sequence[RetrievalSet]) -> dict[str, Any]:
    return _measured(study.load(trained), sets)


def _of_method(
    study: Study, name: str, method: Method, tasks: Sequence[RetentionTask], before: float, sets: Sequence[RetrievalSet]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A method's row, and what each seed measured."""
    tried = [_trained(study, name, method, rates, study.size.seeds[0]) for rates in method.tries]
    validation = [once(each.folder / "choice.json", partial(_validated, study, each))["hit@1"] for each in tried]
    best = validation.index(max(validation))
    runs = [_trained(study, name, method, method.tries[best], seed) for seed in study.size.seeds]
    changed = any(each.measured["weights_changed"] for each in runs)
    kept = [_right(study, each, tasks) for each in runs] if changed else [before] * len(runs)
    measured = [once(each.folder / "comparison.json", partial(_scored, study, each, sets)) for each in runs]
    row = _row(name, measured, runs[0].measured["learned_numbers"], changed, kept)
    tries = [
        {**rates, "validation": 100 * found, **_try(study, each, tasks, before)}
        for rates, each, found in zip(method.tries, tried, validation, strict=True)
    ]
    size = sum(path.stat().st_size for path in runs[0].folder.rglob("*.safetensors") if "checkpoint" not in str(path))
    return row | {"bytes": size, "rates": method.tries[best], "tries": tries}, measured


def _validated(study: Study, trained: Trained) -> dict[str, float]:
    """hit@1, the mean of both ways, on more validation images than other experiments choose by: near rates differ by less than a point."""
    larger = study.with_size("choosing", validation=VALIDATION_TIMES * study.size.validation)
    return {"hit@1": quality({"validation": scores(study.load(trained), larger.sets("validation"))})}


def _try(study: Study, tried: Trained, tasks: Sequence[RetentionTask], before: float) -> dict[str, float]:
    """What one choice of rates gives with the first seed: gentler ones find less, and leave more of the model."""
    test = tried.measured["test"]
    told = {"t2i_hit1": test["text to image"]["hit@1"], "i2t_hit1": test["image to text"]["hit@1"]}
    told |= {"knowledge_hit5": test["knowledge"]["hit@5"]} if "knowledge" in test else {}
    told["retention"] = _right(study, tried, tasks) if tried.measured["weights_changed"] else before
    return {name: 100 * value for name, value in told.items()}


def _trained(study: Study, name: str, method: Method, rates: Mapping[str, float], seed: int) -> Trained:
    rate = "-".join(f"{value:g}" for value in rates.values())
    options = study.options(
        **method.options, **rates, seed=seed, cache_dir=study.out / "prefixes"
    )  # the same ones for all that can use them
    return study.trained(f"{name}-{rate}-seed{seed}", options, with_facts=True)


def _right(study: Study, trained: Trained | None, tasks: Sequence[RetentionTask]) -> float:
    """The mean over tasks of the share of questions that are answered right, after a training or before any."""

    def measure() -> dict[str, Any]:
        after = study.model if trained is None else study.load(trained).model
        if trained is not None:
            say(f"questions to {trained.folder.name}")
        report = retention(study.model, after, tasks, cache_dir=study.out / "answers")
        right = [(one.before if trained is None or one.after is None else one.after).right for one in report.tasks]
        return {"right": statistics.mean(right)}

    return measure()["right"] if trained is None else once(trained.folder / "answers.json", measure)["right"]


def _row(name: str, found: Sequence[Mapping[str, Any]], parameters: int, changed: bool, kept: Sequence[float]) -> dict[str, Any]:
    """Means and standard deviations over seeds; all but the gap in percent."""
    figures = [
        {figure: 100 * one[figure]["mean"] for figure in FIGURES if figure in one} | {"retention": 100 * right, GAP: one[GAP]}
        for one, right in zip(found, kept, strict=True)
    ]
    return {"name": name, "parameters": parameters, "weights_changed": changed, "seeds": len(found), **spread(figures)}


def _against(found: Mapping[str, Sequence[Mapping[str, Any]]], rival: str) -> dict[str, Any]:
    """Each method's differences to a rival, in points: over seeds the mean of each query, then a paired test by cluster."""
    if rival not in found:
        return {}
    return {name: _differences(measured, found[rival]) for name, measured in found.items() if name != rival}


def _differences(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    told = {}
    for figure in (figure for figure in FIGURES if figure in ours[0]):
        means = [np.mean([one[figure]["values"] for one in measured], axis=0) for measured in (ours, theirs)]
        tested = paired_test([QueryValues((means[0] - means[1])[None], ours[0][figure]["clusters"])])
        low, high = tested.bounds_M2[0].tolist()
        difference = float(means[0].mean() - means[1].mean())
        told[figure] = {"difference": 100 * difference, "ci95": [100 * low, 100 * high], "p": float(tested.p_M[0])}
    return told
