"""The same questions before and after a model was adapted, and how sure the difference is.

Shapes: Q questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from slq.encoders.base import Encoder
from slq.errors import Failure
from slq.evaluation.statistics import QueryValues, interval, paired_test
from slq.io.provenance import parameter_hash
from slq.models import FrozenModel, attention
from slq.retention.ask import BATCH_SIZE, Answer, Asker, CachedAnswers, Task, as_item, content_hash
from slq.types import Item

EMBEDDED_OF_A_TASK = 32  # of its questions, as items


@dataclass(frozen=True)
class Side:
    """What one model answered, task by task. weights: sha256 over every parameter and buffer when it was asked."""

    identity: Mapping[str, Any]
    weights: str
    answers: Mapping[str, Sequence[Answer]]
    questions: Mapping[str, str]  # task -> sha256 over words, pixels and expected answers
    failures: Sequence[Failure]


@dataclass(frozen=True)
class Score:
    """Share of questions that are right, from 0 to 1, with its 95 % interval."""

    right: float
    ends: tuple[float, float]


@dataclass(frozen=True)
class Change:
    """From before to after: the difference of the scores with its 95 % interval, and the p-value of a paired permutation test.

    answers: how many are another text. lost, gained: how many are no longer, or newly, right (by more than half).
    """

    difference: float
    ends: tuple[float, float]
    p: float
    answers: int
    lost: int
    gained: int


@dataclass(frozen=True)
class TaskReport:
    """One task's scores; `after` and `change` are None where only one model was asked."""

    name: str
    questions: int
    before: Score
    after: Score | None = None
    change: Change | None = None


@dataclass(frozen=True)
class Report:
    """What came out.

    weights_at_the_end: sha256 of the first model when all was done. embedded: items embedded before `after` was asked.
    """

    tasks: Sequence[TaskReport]
    before: Side
    after: Side | None
    weights_at_the_end: str
    embedded: int

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
    tasks: Sequence[Task],
    *,
    encoder: Encoder | None = None,
    keep: Path | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] = lambda count: None,
) -> Report:
    """Ask both models the same questions.

    after: the adapted model, its LoRA matrices in place or merged; the same model again for latent queries; None to ask `before` alone.
    encoder: what was learned, over `after`: it embeds questions of every task before any is asked again, so that whatever embedding
    leaves behind would show. keep: folder for answers, by weights, settings and encoder, from which a stopped run goes on; what was kept
    before embedding never stands in for an answer after it. progress: called with the number of questions just answered, of twice all.
    """
    first, items = _ask(before, tasks, keep, batch_size, progress, "")
    second, embedded = None, 0
    if after is not None:
        if encoder is not None:
            embedded = len(encoder.encode(items, skip_bad=True).ids)
        second, _ = _ask(after, tasks, keep, batch_size, progress, "" if encoder is None else encoder.fingerprint)
    return Report([_reported(task, first, second) for task in tasks], first, second, parameter_hash(before.model), embedded)


def _ask(
    model: FrozenModel, tasks: Sequence[Task], keep: Path | None, batch_size: int, progress: Callable[[int], None], embedded_by: str
) -> tuple[Side, list[Item]]:
    """One side's answers, and some of what it was asked, as items."""
    weights = parameter_hash(model.model)
    depends_on = {
        "weights": weights,
        "identity": model.identity.to_dict(),
        "embedded_by": embedded_by,
        "batch_size": batch_size,
        "attention": attention.implementation(model.model),
        "device": model.device.type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    kept = None if keep is None else CachedAnswers(keep, depends_on)
    answers, questions, failures, items = {}, {}, [], []
    for task in tasks:
        asker = Asker(model, batch_size, kept, progress)
        answers[task.name] = task.ask(asker)
        questions[task.name] = content_hash(asker.asked, [answer.expected for answer in answers[task.name]])
        failures += [Failure(f"{task.name}, {failure.item}", failure.reason) for failure in asker.failures]
        items += [as_item(conversation) for conversation in asker.asked[:EMBEDDED_OF_A_TASK]]
    return Side(model.identity.to_dict(), weights, answers, questions, failures), items


def _reported(task: Task, first: Side, second: Side | None) -> TaskReport:
    ours_Q = _scores(first.answers[task.name])
    if second is None:
        return TaskReport(task.name, len(task), _score(ours_Q))
    theirs_Q = _scores(second.answers[task.name])
    change_Q = theirs_Q - ours_Q
    both = zip(first.answers[task.name], second.answers[task.name], strict=True)
    change = Change(
        difference=float(change_Q.mean()),
        ends=_ends(change_Q),
        p=float(paired_test([QueryValues(change_Q[None])])[0]),
        answers=sum(one.given != other.given for one, other in both),
        lost=int(((ours_Q > 0.5) & (theirs_Q <= 0.5)).sum()),
        gained=int(((ours_Q <= 0.5) & (theirs_Q > 0.5)).sum()),
    )
    return TaskReport(task.name, len(task), _score(ours_Q), _score(theirs_Q), change)


def _scores(answers: Sequence[Answer]) -> np.ndarray:
    return np.array([answer.score for answer in answers])


def _score(scores_Q: np.ndarray) -> Score:
    return Score(float(scores_Q.mean()), _ends(scores_Q))


def _ends(values_Q: np.ndarray) -> tuple[float, float]:
    ((low, high),) = interval([QueryValues(values_Q[None])])
    return float(low), float(high)
