"""What a model still answers after it was adapted: the same questions before and after, and whether the answers are the same."""

from slq.retention.ask import Answer, QuestionRunner, RetentionTask
from slq.retention.report import Change, Report, Side, TaskReport, TaskScore, result_record, retention
from slq.retention.tasks import SUITE_NAMES, BuiltinTask, load_tasks

__all__ = [
    "SUITE_NAMES",
    "Answer",
    "BuiltinTask",
    "Change",
    "QuestionRunner",
    "Report",
    "RetentionTask",
    "Side",
    "TaskReport",
    "TaskScore",
    "load_tasks",
    "result_record",
    "retention",
]
