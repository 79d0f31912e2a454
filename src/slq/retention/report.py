"""The same questions before and after a model was adapted, how sure the difference is, and the file of `slq retention`.

The fields of the file are described in docs/retention.md.

Shapes: Q questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from slq.encoders.base import Encoder
from slq.errors import Failure
from slq.evaluation.statistics import Bounds, QueryValues, interval, paired_test
from slq.io.provenance import parameter_hash, record
from slq.models import FrozenModel, attention
from slq.retention.ask import BATCH_SIZE, Answer, AnswerCache, QuestionRunner, RetentionTask, as_item, content_hash
from slq.types import Item

FORMAT = 2
ENCODED_OF_A_TASK = 32  # of its questions, as items


@dataclass(frozen=True)
class Side:
    """What one model answered, task by task.

    Attributes:
        identity: the model's.
        weights: sha256 over every parameter and buffer when it was asked.
        answers: task -> its answers.
        questions: task -> sha256 over texts, pixels and expected answers.
        failures: questions that could not be put.
    """

    identity: Mapping[str, Any]
    weights: str
    answers: Mapping[str, Sequence[Answer]]
    questions: Mapping[str, str]
    failures: Sequence[Failure]


@dataclass(frozen=True)
class TaskScore:
    """How many questions of a task are right.

    Attributes:
        right: fraction, from 0 to 1.
        ci95: its 95 % interval.
    """

    right: float
    ci95: Bounds


@dataclass(frozen=True)
class Change:
    """From before to after.

    Attributes:
        difference: of the fractions that are right.
        ci95: its 95 % interval.
        p: p-value of the paired test that gives the interval too.
        answers: how many are another text.
        lost: how many are no longer right (by more than half).
        gained: how many are newly right.
    """

    difference: float
    ci95: Bounds
    p: float
    answers: int
    lost: int
    gained: int


@dataclass(frozen=True)
class TaskReport:
    """One task's scores; `after` and `change` are None where only one model was asked."""

    name: str
    questions: int
    before: TaskScore
    after: TaskScore | None = None
    change: Change | None = None


@dataclass(frozen=True)
class Report:
    """What came out.

    Attributes:
        tasks: one report each.
        before: the model as it was.
        after: the adapted one; None if it was not asked.
        weights_at_the_end: sha256 of the first model when all was done.
        encoded: items encoded before `after` was asked.
    """

    tasks: Sequence[TaskReport]
    before: Side
    after: Side | None
    weights_at_the_end: str
    encoded: int

    @property
    def same_weights(self) -> bool:
        """Whether both sides, and the first after all was done, have the very same weights."""
        return {self.before.weights, self.after.weights if self.after else self.before.weights} == {self.weights_at_the_end}

    @property
    def changed(self) -> int:
        """How many answers changed in all tasks."""
        return sum(task.change.answers for task in self.tasks if task.change)


def retention(
    before: FrozenModel,
    after: FrozenModel | None,
    tasks: Sequence[RetentionTask],
    *,
    encoder: Encoder | None = None,
    cache_dir: Path | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] = lambda count: None,
) -> Report:
    """Ask both models the same questions.

    Args:
        before: the model as it was.
        after: the adapted model, its LoRA matrices in place or merged; the same model again for latent queries; None to ask `before` alone.
        tasks: what is asked.
        encoder: what was learned, over `after`: it encodes questions of every task before any is asked again, so that whatever encoding
            leaves behind would show.
        cache_dir: folder for answers, by weights, settings and encoder, from which a stopped run resumes; what was cached before encoding
            never stands in for an answer after it.
        batch_size: questions asked at once.
        progress: called with the number of questions just answered, of twice all.

    Returns:
        Scores, changes and both sides' answers.

    Raises:
        OutputError: if the folder for answers cannot be written.
    """
    first, items = _ask(before, tasks, cache_dir, batch_size, progress, "")
    second, encoded = None, 0
    if after is not None:
        if encoder is not None:
            encoded = len(encoder.encode(items, on_error="skip").ids)
        second, _ = _ask(after, tasks, cache_dir, batch_size, progress, "" if encoder is None else encoder.fingerprint)
    return Report([_reported(task, first, second) for task in tasks], first, second, parameter_hash(before.model), encoded)


def result_record(
    report: Report,
    tasks: Sequence[RetentionTask],
    *,
    adapter: str | None = None,
    encoder: Encoder | None = None,
    settings: Mapping[str, Any],
    command: str,
    device: str,
    seed: int | None = None,
    per_question: bool = False,
) -> dict[str, Any]:
    """The results file: what came out of `retention`, and all that it depends on.

    Args:
        report: what came out.
        tasks: what was asked.
        adapter: path or hub id that was given.
        encoder: what was learned.
        settings: batch size and counts.
        command: the command line.
        device: where it ran.
        seed: of the questions.
        per_question: also write every answer.

    Returns:
        The record, ready for JSON.
    """
    content = {
        "format": FORMAT,
        "adapter": adapter,
        "encoder": encoder.describe() if encoder else None,
        "fingerprint": encoder.fingerprint if encoder else None,
        "before": _side(report.before),
        "after": None if report.after is None else _side(report.after),
        "weights_sha256_at_the_end": report.weights_at_the_end,
        "items_encoded_between": report.encoded,
        "tasks": {
            task.name: _task(task, one, report) | ({"answers": _answers(report, task.name)} if per_question else {})
            for task, one in zip(tasks, report.tasks, strict=True)
        },
        "settings": dict(settings),
    }
    return record(content, command=command, device=device, seed=seed)


def _ask(
    model: FrozenModel,
    tasks: Sequence[RetentionTask],
    cache_dir: Path | None,
    batch_size: int,
    progress: Callable[[int], None],
    encoded_by: str,
) -> tuple[Side, list[Item]]:
    """One side's answers, and some of what it was asked, as items."""
    weights = parameter_hash(model.model)
    depends_on = {
        "weights": weights,
        "identity": model.identity.to_dict(),
        "encoded_by": encoded_by,
        "batch_size": batch_size,
        "attention": attention.implementation(model.model),
        "device": model.device.type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    cache = None if cache_dir is None else AnswerCache(cache_dir, depends_on)
    answers, questions, failures, items = {}, {}, [], []
    for task in tasks:
        runner = QuestionRunner(model, batch_size, cache, progress)
        answers[task.name] = task.ask(runner)
        questions[task.name] = content_hash(runner.asked, [answer.expected for answer in answers[task.name]])
        failures += [Failure(f"{task.name}, {failure.item}", failure.reason) for failure in runner.failures]
        items += [as_item(conversation) for conversation in runner.asked[:ENCODED_OF_A_TASK]]
    return Side(model.identity.to_dict(), weights, answers, questions, failures), items


def _reported(task: RetentionTask, first: Side, second: Side | None) -> TaskReport:
    ours_Q = _scores(first.answers[task.name])
    if second is None:
        return TaskReport(task.name, len(task), _score(ours_Q))
    theirs_Q = _scores(second.answers[task.name])
    change_Q = theirs_Q - ours_Q
    both = zip(first.answers[task.name], second.answers[task.name], strict=True)
    tested = paired_test([QueryValues(change_Q[None])])
    change = Change(
        difference=float(change_Q.mean()),
        ci95=Bounds(*tested.bounds_M2[0].tolist()),
        p=float(tested.p_M[0]),
        answers=sum(one.given != other.given for one, other in both),
        lost=int(((ours_Q > 0.5) & (theirs_Q <= 0.5)).sum()),
        gained=int(((ours_Q <= 0.5) & (theirs_Q > 0.5)).sum()),
    )
    return TaskReport(task.name, len(task), _score(ours_Q), _score(theirs_Q), change)


def _scores(answers: Sequence[Answer]) -> np.ndarray:
    return np.array([answer.score for answer in answers])


def _score(scores_Q: np.ndarray) -> TaskScore:
    return TaskScore(float(scores_Q.mean()), _bounds(scores_Q))


def _bounds(values_Q: np.ndarray) -> Bounds:
    ((low, high),) = interval([QueryValues(values_Q[None])])
    return Bounds(float(low), float(high))


def _side(side: Side) -> dict[str, Any]:
    failures = [asdict(failure) for failure in side.failures]
    return {"base_model": dict(side.identity), "weights_sha256": side.weights, "failures": failures}


def _task(task: RetentionTask, one: TaskReport, report: Report) -> dict[str, Any]:
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
        "metadata": {**task.metadata, "questions_sha256": report.before.questions[task.name]},
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
