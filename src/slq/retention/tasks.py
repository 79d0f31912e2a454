"""Tasks by name: the miniature's three suites and one's own files here, all others through the evaluation harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slq.errors import InputError, MissingExtraError
from slq.miniature.suites import SUITES, Question
from slq.retention.ask import Answer, QuestionRunner, RetentionTask
from slq.retention.own import OwnTask, is_own

SUITE_NAMES = tuple(SUITES)
MAX_NEW_TOKENS = 12  # as in the suites' own score


class BuiltinTask:
    """A suite of the miniature: an answer is right if it equals the expected one.

    Args:
        name: the suite's.
        questions: what it asks.
        metadata: where they come from.
    """

    def __init__(self, name: str, questions: Sequence[Question], metadata: Mapping[str, Any]):
        self.name, self.questions, self.metadata = name, questions, metadata

    def __len__(self) -> int:
        return len(self.questions)

    def ask(self, runner: QuestionRunner) -> list[Answer]:
        """Ask all questions; see `RetentionTask.ask`."""
        conversations = [[runner.model.message(question.item)] for question in self.questions]
        return [
            Answer(f"{self.name}/{place}", one.kind, one.item.text or "", one.answer, given, float(given == one.answer))
            for place, (one, given) in enumerate(zip(self.questions, runner.ask(conversations, MAX_NEW_TOKENS), strict=True))
        ]


def load_tasks(
    names: Sequence[str],
    questions: int = 300,
    seed: int = 0,
    limit: int | None = None,
    folders: Sequence[Path] = (),
) -> list[RetentionTask]:
    """Load tasks by name.

    Args:
        names: the miniature's suites, tasks of the harness, or files of questions and answers.
        questions: how many a suite of the miniature picks.
        seed: which it picks.
        limit: of each task, or of each part of one, only the first so many; None for all.
        folders: further tasks in the harness's own format.

    Returns:
        The tasks, in the order of the names.

    Raises:
        InputError: for a name that is unknown or given twice, for numbers below 1 and for data that cannot be loaded.
        MissingExtraError: where the harness is missing.
    """
    if not names or len(set(names)) != len(names):
        raise InputError(f"Name tasks, each once: {', '.join(names) or 'none was named'}.")
    if limit is not None and limit < 1:
        raise InputError(f"A limit of {limit} leaves no question to ask: make it 1 or more, or leave it out.")
    found: dict[str, RetentionTask] = {name: _suite(name, questions, seed, limit) for name in names if name in SUITES}
    found |= {name: OwnTask.read(Path(name), limit) for name in names if is_own(name)}
    found |= _harness([name for name in names if name not in found], seed, limit, folders)
    tasks = [found[name] for name in names]
    if len({task.name for task in tasks}) < len(tasks):
        raise InputError(f"Two tasks have one name: {', '.join(task.name for task in tasks)}; rename a file.")
    return tasks


def _suite(name: str, questions: int, seed: int, limit: int | None) -> RetentionTask:
    if questions < 1:
        raise InputError(f"A suite of {questions} questions asks nothing: draw 1 or more.")
    try:
        asked = SUITES[name](questions, seed)
    except ValueError as error:
        raise InputError(f"The suite {name!r} has fewer than {questions} questions: ask for fewer.") from error
    metadata = {"source": "the miniature's picture-book world", "drawn": questions, "seed": seed, "limit": limit}
    return BuiltinTask(name, asked[:limit], metadata)


def _harness(names: Sequence[str], seed: int, limit: int | None, folders: Sequence[Path]) -> dict[str, RetentionTask]:
    if not names:
        return {}
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"{names[0]!r} is not a suite of the miniature ({', '.join(SUITES)}); tasks of other benchmarks need the evaluation harness, "
            'run: pip install "slq[retention]"'
        ) from error
    from slq.retention.harness import harness_tasks

    return harness_tasks(names, seed, limit, folders)
