"""Questions that a model can answer before it is adapted: what it still answers afterwards is its retention.

General knowledge in a word or two (`questions.jsonl`), and what a photograph shows. A small model cannot answer all of them; it is asked
first, and those that it answers right are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from research.photo.knowledge import Concept, captions_that_name
from research.photo.photographs import Photograph
from slq.models import FrozenModel
from slq.retention import RetentionTask, retention
from slq.retention.own import OwnQuestion, OwnTask
from slq.types import Item

FILE = Path(__file__).with_name("questions.jsonl")
SHOWN = "What is in the picture?"
CERTAIN = 3  # captions that name a thing, so that an answer with its name is right
MOST = 150  # questions about photographs


def all_questions(photographs: Sequence[Photograph], concepts: Mapping[str, Concept]) -> list[OwnTask]:
    """The two tasks, `general` and `photographs`; the latter only where a photograph shows a concept.

    Args:
        photographs: that nothing is trained or tested on.
        concepts: by name.
    """
    tasks = [_task("general", OwnTask.read(FILE).questions, FILE.name)]
    shown = [question for each in photographs if (question := _shown(each, concepts)) is not None][:MOST]
    return tasks + ([_task("photographs", shown, "captions")] if shown else [])


def known_questions(model: FrozenModel, tasks: Sequence[OwnTask], cache_dir: Path) -> list[OwnTask]:
    """Of each task the questions that the model answers right; a task of which it knows none is left out.

    Args:
        model: before it is adapted.
        tasks: what it is asked.
        cache_dir: where answers are kept.
    """
    answered = retention(model, None, tasks, cache_dir=cache_dir).before.answers
    found = []
    for task in tasks:
        right = [question for question, answer in zip(task.questions, answered[task.name], strict=True) if answer.score == 1]
        if right:
            found.append(_task(task.name, right, str(task.metadata["source"])))
    return found


def right_after(before: FrozenModel, after: FrozenModel, tasks: Sequence[RetentionTask], cache_dir: Path) -> dict[str, float]:
    """The fraction of each task that a model answers right after it was adapted.

    Args:
        before: the model as it was.
        after: as it is now.
        tasks: of `known_questions`.
        cache_dir: where answers are kept.
    """
    report = retention(before, after, tasks, cache_dir=cache_dir)
    return {task.name: task.after.right for task in report.tasks if task.after is not None}


def _task(name: str, questions: Sequence[OwnQuestion], source: str) -> OwnTask:
    return OwnTask(name, questions, {"source": source, "questions": len(questions)})


def _shown(photograph: Photograph, concepts: Mapping[str, Concept]) -> OwnQuestion | None:
    """What a photograph shows, if enough captions agree on it."""
    certain = [
        each for each in concepts.values() if captions_that_name(each, photograph.captions) >= min(CERTAIN, len(photograph.captions))
    ]
    words = tuple(dict.fromkeys(word for each in certain for word in each.words))
    return OwnQuestion(photograph.name, "photographs", Item(SHOWN, photograph.image), words) if words else None
