"""Two results of `slq eval` beside each other: differences, and whether they could be luck.

Shapes: M metrics, Q queries.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from slq.errors import DataError, InputError, shorten
from slq.evaluation.metrics import RelevantRanks, values_by_query
from slq.evaluation.results import FORMAT, upgraded
from slq.evaluation.statistics import Bounds, QueryValues, paired_test
from slq.io.files import load_json

MAX_BYTES = 2**31  # of a results file, which may hold the ranks of every query
_COUNTED = re.compile(r"hit@(\d+)")
_AVERAGED = re.compile(r"(hit|recall|map|ndcg)@(\d+|r)|mrr")


@dataclass(frozen=True)
class Difference:
    """One metric of one set or average in two results, as fractions.

    Attributes:
        where: the set or average.
        metric: the metric's name.
        first: its value in the first result.
        second: its value in the second.
        ci95: the interval of the difference; None where the queries are not paired.
        p: p-value of the paired test that gives the interval too; None where the queries are not paired.
    """

    where: str
    metric: str
    first: float
    second: float
    ci95: Bounds | None = None
    p: float | None = None

    @property
    def change(self) -> float:
        """Second less first."""
        return self.second - self.first


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a results file of `slq eval`.

    Args:
        path: of format 1 or 2.

    Returns:
        The result, under the names of format 2.

    Raises:
        DataError: if the file is missing or something else.
    """
    try:
        result = load_json(Path(path), MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name a file written by slq eval.") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({shorten(error)}); name a file written by slq eval.") from error
    if not isinstance(result, dict) or "scores" not in result:
        raise DataError(f"{path} holds no scores; name a file written by slq eval.")
    if result.get("format") not in (1, FORMAT):
        raise DataError(f"{path} has format {result.get('format')}, not {FORMAT}; score again with this version of slq.")
    return upgraded(result)


def check_comparable(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Refuse results of different data. Prompts may differ, and the texts with them: they are part of what is compared.

    Args:
        first: a result, as `read_result` gives it.
        second: another.

    Raises:
        InputError: naming what differs: benchmark, variant, protocol or revision; or of a set both have its images, texts, judgements or
            protocol. Results of before these were recorded are told apart by the hash of all of them. A set that is named as a benchmark in
            one and as a file in the other is the same where its content is.
    """
    if (first.get("benchmark") is None) != (second.get("benchmark") is None) and _same_content(first, second):
        return
    ours, theirs = first.get("benchmark") or {}, second.get("benchmark") or {}
    for key in ("name", "variant", "protocol", "revision"):
        if ours.get(key) != theirs.get(key):
            what = "benchmark" if key == "name" else f"benchmark's {key}"
            raise InputError(f"These scores do not compare: the {what} is {ours.get(key)!r} in one and {theirs.get(key)!r} in the other.")
    same_prompts = ours.get("prompts") == theirs.get("prompts")
    parts, others = first.get("data_parts"), second.get("data_parts")
    if parts and others:
        for name in (name for name in parts if name in others):
            left_out = ("content",) if same_prompts else ("content", "texts")
            differ = [part for part in parts[name] if parts[name][part] != others[name].get(part) and part not in left_out]
            if differ:
                raise InputError(f"These scores do not compare: the {' and '.join(differ)} of {name!r} are others in the two results.")
    elif same_prompts and first.get("data_sha256") != second.get("data_sha256"):
        raise InputError(
            f"These scores do not compare: the data {first.get('data')!r} and {second.get('data')!r} (or --split) differ in what they hold."
        )


def _same_content(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the sets that two results share hold the same items and judgements, whatever their ids."""
    parts, others = first.get("data_parts") or {}, second.get("data_parts") or {}
    shared = [name for name in parts if name in others]
    return bool(shared) and all(parts[name].get("content", 0) == others[name].get("content", 1) for name in shared)


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Compare each metric that both results have, set by set and then average by average.

    Where both hold ranks of the same queries, a difference has an interval and a p-value; of an average, where all its sets do. Queries of
    one cluster change signs together; the clusters are those that the results record.

    Args:
        first: a result, as `read_result` gives it.
        second: another.

    Returns:
        Differences, second less first.

    Raises:
        InputError: if the two share no set.
    """
    names = [name for name in first["scores"] if name in second["scores"]]
    if not names:
        raise InputError(f"The results share no set: {', '.join(first['scores'])} in one, {', '.join(second['scores'])} in the other.")
    found = []
    for name in names:
        ours, theirs = first["scores"][name], second["scores"][name]
        found += _tested(name, ours, theirs, [(ours, theirs)])
    for name in (name for name in first.get("averages", {}) if name in second.get("averages", {})):
        ours, theirs = first["averages"][name], second["averages"][name]
        members = [(first["scores"].get(one, {}), second["scores"].get(one, {})) for one in ours["sets"]]
        same = ours["sets"] == theirs["sets"]
        found += _tested(name, ours, theirs, members if same else [])
    return found


def _shared(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [metric for metric in ours if metric in theirs and _AVERAGED.fullmatch(metric)]


def _tested(
    name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], sets: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> list[Difference]:
    """Differences of a set or of a mean of `sets`, each both results' scores: tested where the queries of all of them are paired."""
    metrics = _shared(ours, theirs)
    plain = [Difference(name, metric, ours[metric], theirs[metric]) for metric in metrics]
    if not (metrics and sets and all(_paired(*each) for each in sets)):
        return plain
    differences = [QueryValues(_differences(metrics, *each), _clusters(*each)) for each in sets]
    tested = paired_test(differences)
    return [
        replace(one, ci95=Bounds(*each), p=p) for one, each, p in zip(plain, tested.bounds_M2.tolist(), tested.p_M.tolist(), strict=True)
    ]


def _differences(metrics: Sequence[str], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> np.ndarray:
    """Of each metric, query by query (M, Q)."""
    depths = [int(found[1]) for metric in metrics if (found := _COUNTED.fullmatch(metric))]
    queries = list(ours["ranks"])
    values = [values_by_query([_relevant_ranks(scores, query) for query in queries], depths or [1]) for scores in (ours, theirs)]
    return np.stack([values[1][metric] - values[0][metric] for metric in metrics])


def _clusters(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str] | None:
    """Each query's cluster as either result tells it; None where none does, as in results of before clusters were recorded."""
    told = ours.get("cluster_of") or theirs.get("cluster_of")
    return [told.get(query, f"query {query}") for query in ours["ranks"]] if told else None


def _relevant_ranks(scores: Mapping[str, Any], query: str) -> RelevantRanks:
    ranks, gains = scores["ranks"][query], scores.get("gains", {}).get(query, {})
    return RelevantRanks(
        np.array([np.inf if rank is None else float(rank) for rank in ranks.values()]), np.array([gains.get(id_, 1) for id_ in ranks])
    )


def _paired(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    return "ranks" in ours and ours["ranks"].keys() == theirs.get("ranks", {}).keys()
