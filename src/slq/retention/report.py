"""What `slq retention --json` writes; the fields are described in docs/retention.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from slq.encoders.base import Encoder
from slq.io.provenance import provenance
from slq.retention.ask import Answer, Task
from slq.retention.run import Report, Side, TaskReport

FORMAT = 1


def result_record(
    report: Report,
    tasks: Sequence[Task],
    *,
    adapter: str | None = None,
    encoder: Encoder | None = None,
    settings: Mapping[str, Any],
    command: str,
    device: str,
    seed: int | None = None,
    per_question: bool = False,
) -> dict[str, Any]:
    """The results file: what came out of `retention` for these tasks, and all that it depends on; with every answer if `per_question`."""
    return {
        "format": FORMAT,
        "adapter": adapter,
        "method": encoder.name if encoder else None,
        "fingerprint": encoder.fingerprint if encoder else None,
        "before": _side(report.before),
        "after": None if report.after is None else _side(report.after),
        "weights_sha256_at_the_end": report.weights_at_the_end,
        "items_embedded_between": report.embedded,
        "tasks": {
            task.name: _task(task, one, report) | ({"answers": _answers(report, task.name)} if per_question else {})
            for task, one in zip(tasks, report.tasks, strict=True)
        },
        "settings": dict(settings),
        "command": command,
        "provenance": {**provenance(seed), "slq": version("slq"), "numpy": np.__version__, "device": device},
    }


def _side(side: Side) -> dict[str, Any]:
    failures = [asdict(failure) for failure in side.failures]
    return {"backbone": dict(side.identity), "weights_sha256": side.weights, "failures": failures}


def _task(task: Task, one: TaskReport, report: Report) -> dict[str, Any]:
    before, after = report.before.answers[task.name], None if report.after is None else report.after.answers[task.name]
    kinds = dict.fromkeys(answer.kind for answer in before)
    return {
        **{name: value for name, value in asdict(one).items() if name != "name"},
        "by_kind": {
            kind: {
                "questions": sum(answer.kind == kind for answer in before),
                "before": _mean(before, kind),
                "after": None if after is None else _mean(after, kind),
            }
            for kind in kinds
        },
        "about": {**task.about, "questions_sha256": report.before.questions[task.name]},
    }


def _mean(answers: Sequence[Answer], kind: str) -> float:
    return float(np.mean([answer.score for answer in answers if answer.kind == kind]))


def _answers(report: Report, name: str) -> list[dict[str, Any]]:
    """Each question with what was given before and after."""
    before = report.before.answers[name]
    after = [None] * len(before) if report.after is None else list(report.after.answers[name])
    return [
        {
            "id": one.id,
            "kind": one.kind,
            "question": one.question,
            "expected": one.expected,
            "before": one.given,
            "before_score": one.score,
            "after": other.given if other else None,
            "after_score": other.score if other else None,
        }
        for one, other in zip(before, after, strict=True)
    ]
