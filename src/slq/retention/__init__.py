"""What a backbone still knows after it was adapted: the same questions before and after, and whether the answers are the same."""

from slq.retention.asker import Answer, Asker, Task
from slq.retention.results import whole_result
from slq.retention.run import Change, Report, Score, Side, TaskReport, retention
from slq.retention.suites import SUITE_NAMES, find_tasks

__all__ = [
    "SUITE_NAMES",
    "Answer",
    "Asker",
    "Change",
    "Report",
    "Score",
    "Side",
    "Task",
    "TaskReport",
    "find_tasks",
    "retention",
    "whole_result",
]
