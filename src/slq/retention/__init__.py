"""What a model still knows after it was adapted: the same questions before and after, and whether the answers are the same."""

from slq.retention.ask import Answer, Asker, Task
from slq.retention.report import result_record
from slq.retention.run import Change, Report, Score, Side, TaskReport, retention
from slq.retention.tasks import SUITE_NAMES, load_tasks

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
    "load_tasks",
    "result_record",
    "retention",
]
