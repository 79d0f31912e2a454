"""Evaluation: embed retrieval sets, rank, score; cache what was embedded, write results, compare them."""

from slq.evaluation.compare import Difference, check_comparable, compare, read_result
from slq.evaluation.evaluate import Evaluation, QueryResult, bidirectional_sets, evaluate, first_positions, scores_over
from slq.evaluation.mixed import mixed_sets
from slq.evaluation.results import average_scores, dataset_parts, dataset_sha256, result_record, to_dict
from slq.evaluation.table import run_table

__all__ = [
    "Difference",
    "Evaluation",
    "QueryResult",
    "average_scores",
    "bidirectional_sets",
    "check_comparable",
    "compare",
    "dataset_parts",
    "dataset_sha256",
    "evaluate",
    "first_positions",
    "mixed_sets",
    "read_result",
    "result_record",
    "run_table",
    "scores_over",
    "to_dict",
]
