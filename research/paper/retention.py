"""What each method leaves of the model: its own answers before and after adapting (the right half of the paper's second table).

Latent queries play no part when the model answers, so nothing can change; that is shown by the hash of its weights and by every answer.
LoRA's matrices stand beside the weights and could be taken away again; as long as they are there, or merged, the model answers differently.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from research.paper import plots
from research.paper.blend import HALF, blended
from research.paper.study import Study, quality, say, spread
from research.paper.tuning import METHODS, chosen
from slq.encoders import FineTunedModel
from slq.encoders.base import Encoder
from slq.models import FrozenModel
from slq.retention import Report, RetentionTask, load_tasks, retention


def run(study: Study, names: Sequence[str]) -> dict[str, Any]:
    """Shares of right answers before and after each method over all seeds; of LoRA also merged, of all tuned ones half of the way back."""
    tasks = load_tasks(names, study.size.questions)
    result: dict[str, Any] = {"before": {}, "methods": {}, "questions": sum(len(task) for task in tasks)}
    for name, ways in _asked(study).items():
        say(f"questions to {name}")
        reports = [_report(study, make(), tasks, merge=name.endswith("merged")) for make in ways]
        result["before"] = {one.name: one.before.right for one in reports[0].tasks}
        result["methods"][name] = {
            "right": spread([{one.name: one.after.right for one in report.tasks if one.after} for report in reports]),
            "changed": spread([{"answers": report.changed} for report in reports])["answers"],
            "weights_unchanged": all(report.same_weights for report in reports),
        }
    result["by_rate"] = {name: _by_rate(study, name, tasks) for name in METHODS}
    plots.kept(study.out / "retention.png", result)
    return study.write("retention", result)


def _by_rate(study: Study, name: str, tasks: Sequence[RetentionTask]) -> dict[str, dict[str, float]]:
    """What every learning rate that was tried leaves (the mean over tasks), beside the explicit retrieval it bought; first seed, test."""
    method, found = METHODS[name], {}
    for rate, trained in study.by_rate(name, method.rates, **method.options).items():
        report = _report(study, study.load(trained), tasks, merge=False)
        right = statistics.mean(one.after.right for one in report.tasks if one.after)
        found[f"{rate:g}"] = {"explicit": quality(trained.measured, "test"), "right": right}
    return found


def _asked(study: Study) -> dict[str, list[Callable[[], Encoder]]]:
    """What is asked: every method's seeds, and variants of those that change the weights; each loaded when its turn has come."""
    found: dict[str, list[Callable[[], Encoder]]] = {}
    for name, method in METHODS.items():
        trainings = chosen(study, name)
        found[name] = [partial(study.load, each) for each in trainings]
        if method.options.get("method") == "lora":
            found[f"{name}, merged"] = found[name]
        if "method" in method.options:
            found[f"{name}, half of the way back"] = [partial(blended, study, name, each, HALF) for each in trainings]
    return found


def _report(study: Study, encoder: Encoder, tasks: Sequence[RetentionTask], merge: bool) -> Report:
    after: FrozenModel = encoder.model
    if isinstance(encoder, FineTunedModel):
        return retention(study.model, encoder.merged() if merge else after, tasks, cache_dir=study.out / "answers")
    return retention(study.model, after, tasks, encoder=encoder, cache_dir=study.out / "answers")
