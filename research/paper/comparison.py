"""Latent queries with position-restricted LoRA beside LoRA and full fine-tuning that get the same batches, facts and number of tries.

Every method's rates are the best of three tries on validation pairs with the first seed; all seeds are then scored on the test sets, and
asked every question of `slq retention`. Weights are compared by their hash: where they are unchanged, so is every answer.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from research.paper.study import Study, Trained, quality, say, scores, spread
from slq.encoders import LastTokenEncoder
from slq.retention import RetentionTask, load_tasks, retention

NEAREST: Mapping[str, Any] = {"batch_sampler": "nearest"}


@dataclass(frozen=True)
class Method:
    """A way of adapting, the rates that are tried for it, and whether it learns the model's own facts beside the pairs."""

    options: Mapping[str, Any]
    tries: tuple[Mapping[str, float], ...]
    with_facts: bool = True


def latent_lora(rank: int, num_latents: int = 5) -> Method:
    """Latent queries with matrices where they stand."""
    rates = ((0.08, 0.01), (0.02, 0.01), (0.08, 0.003))
    tries = tuple({"learning_rate": latents, "latent_lora_learning_rate": matrices} for latents, matrices in rates)
    return Method({**NEAREST, "latent_lora_rank": rank, "num_latents": num_latents}, tries)


def tuned(options: Mapping[str, Any], rates: Sequence[float], plain: bool = False) -> Method:
    """A copy of the model with weights of its own; `plain` as it is usually trained, in random batches and without facts."""
    tries = tuple({"learning_rate": rate} for rate in rates)
    return Method(options if plain else {**NEAREST, **options}, tries, with_facts=not plain)


METHODS = {
    "5 latents": Method({}, tuple({"learning_rate": rate} for rate in (0.04, 0.08, 0.16)), with_facts=False),
    "5 latents, nearest, facts": Method(NEAREST, tuple({"learning_rate": rate} for rate in (0.04, 0.08, 0.16))),
    "latent LoRA, rank 8": latent_lora(8),
    "latent LoRA, rank 2": latent_lora(2),
    "latent LoRA, rank 8, 2 latents": latent_lora(8, num_latents=2),
    "LoRA, rank 8, nearest, facts": tuned({"method": "lora"}, (1e-3, 3e-3, 1e-2)),
    "LoRA, rank 2, nearest, facts": tuned({"method": "lora", "lora_rank": 2, "lora_alpha": 4}, (1e-3, 3e-3, 1e-2)),
    "full, nearest, facts": tuned({"method": "full"}, (1e-4, 3e-4, 1e-3)),
    "LoRA, rank 8": tuned({"method": "lora"}, (1e-3, 3e-3, 1e-2), plain=True),
}


def run(study: Study, names: Sequence[str]) -> dict[str, Any]:
    """The table, a row a method; it is written after every row, so that a stopped one shows what there is."""
    tasks = load_tasks(names, study.size.questions)
    before = _right(study, None, tasks)
    rows = [_row("last token", [scores(LastTokenEncoder(study.model), study.sets("test"))], 0, False, [before])]
    for name, method in METHODS.items():
        rows.append(_of_method(study, name, method, tasks, before))
        result = study.write("comparison", {"rows": rows, "questions": sum(map(len, tasks))})
    return result


def _of_method(study: Study, name: str, method: Method, tasks: Sequence[RetentionTask], before: float) -> dict[str, Any]:
    tried = [_trained(study, name, method, rates, study.size.seeds[0]) for rates in method.tries]
    best = max(range(len(tried)), key=lambda number: quality(tried[number].measured))
    runs = [_trained(study, name, method, method.tries[best], seed) for seed in study.size.seeds]
    changed = any(each.measured["weights_changed"] for each in runs)
    kept = [_right(study, each, tasks) for each in runs] if changed else [before] * len(runs)
    row = _row(name, [each.measured["test"] for each in runs], runs[0].measured["learned_numbers"], changed, kept)
    tries = [{**rates, "validation": quality(each.measured)} for rates, each in zip(method.tries, tried, strict=True)]
    return row | {"rates": method.tries[best], "tries": tries}


def _trained(study: Study, name: str, method: Method, rates: Mapping[str, float], seed: int) -> Trained:
    rate = "-".join(f"{value:g}" for value in rates.values())
    options = study.options(
        **method.options, **rates, seed=seed, cache_dir=study.out / "prefixes"
    )  # the same ones for all that can use them
    return study.trained(f"{name}-{rate}-seed{seed}", options, method.with_facts)


def _right(study: Study, trained: Trained | None, tasks: Sequence[RetentionTask]) -> float:
    """The mean over tasks of the share of questions that are answered right, after a training or before any."""
    after = study.model if trained is None else study.load(trained).model
    if trained is not None:
        say(f"questions to {trained.folder.name}")
    report = retention(study.model, after, tasks, cache_dir=study.out / "answers")
    return statistics.mean((one.before if trained is None or one.after is None else one.after).right for one in report.tasks)


def _row(name: str, found: Sequence[Mapping[str, Any]], parameters: int, changed: bool, kept: Sequence[float]) -> dict[str, Any]:
    figures = [
        {
            "t2i_hit1": 100 * one["text to image"]["hit@1"],
            "i2t_hit1": 100 * one["image to text"]["hit@1"],
            "retention": 100 * right,
            **({"knowledge_hit5": 100 * one["knowledge"]["hit@5"]} if "knowledge" in one else {}),
        }
        for one, right in zip(found, kept, strict=True)
    ]
    return {"name": name, "parameters": parameters, "weights_changed": changed, "seeds": len(found), **spread(figures)}
