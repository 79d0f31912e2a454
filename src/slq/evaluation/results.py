"""What `slq eval --json` writes; the fields are described in docs/design/0010-results.md."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from slq.data import RetrievalSet
from slq.encoders.base import Encoder
from slq.errors import InputError
from slq.evaluation.evaluate import SEED, Evaluation
from slq.evaluation.statistics import QueryValues, interval
from slq.io.provenance import provenance
from slq.types import Item

FORMAT = 1


def result_record(
    evaluations: Sequence[Evaluation],
    encoder: Encoder,
    *,
    adapter: str | None,
    data: str | None,
    data_sha256: str,
    command: str,
    benchmark: Mapping[str, Any] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    per_query: bool = False,
    dims: int | None = None,
) -> dict[str, Any]:
    """The results file: the scores, and all that they depend on.

    benchmark: name, variant, protocol, revision and prompts, where the sets are a benchmark's. groups: group -> the sets it is the mean of.
    """
    return {
        "format": FORMAT,
        "benchmark": None if benchmark is None else dict(benchmark),
        "data": data,
        "data_sha256": data_sha256,
        "adapter": adapter,
        "backbone": encoder.model.identity.to_dict(),
        "fingerprint": encoder.fingerprint,
        "readout": encoder.name,
        "dims": dims or encoder.model.dim,
        "scores": as_json(evaluations, per_query),
        "groups": group_scores(evaluations, groups or {}),
        "command": command,
        "provenance": {**provenance(SEED), "slq": version("slq"), "numpy": np.__version__, "device": str(encoder.model.device)},
    }


def as_json(evaluations: Sequence[Evaluation], per_query: bool = False) -> dict[str, Any]:
    """Metrics, their confidence intervals, metrics by category and failures by set, ready for a results file.

    per_query: also the rank of each query's relevant candidates (null: never found), their gains where one is not 1, and its first places.
    """
    return {one.name: _of_set(one) | (_by_query(one) if per_query else {}) for one in evaluations}


def group_scores(evaluations: Sequence[Evaluation], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Each averaged metric that all sets of a group have: its mean over the sets, with a confidence interval.

    Raises InputError if a group names a set that was not scored.
    """
    by_name = {one.name: one for one in evaluations}
    found: dict[str, Any] = {}
    for group, names in groups.items():
        if unknown := [name for name in names if name not in by_name]:
            raise InputError(f"The group {group!r} needs the scores of {unknown[0]!r}, which is not among the sets: {', '.join(by_name)}.")
        sets = [by_name[name] for name in names]
        shared = [metric for metric in sets[0].values if all(metric in one.values for one in sets)]
        means = {metric: math.fsum(one.metrics[metric] for one in sets) / len(sets) for metric in shared}
        values = [QueryValues(np.stack([one.values[metric] for metric in shared]), one.clusters) for one in sets if shared]
        ends = interval(values, SEED) if shared else np.zeros((0, 2))
        found[group] = {**means, "sets": list(names), "confidence": dict(zip(shared, ends.tolist(), strict=True))}
    return found


def dataset_sha256(sets: Sequence[RetrievalSet]) -> str:
    """sha256 over what the scores depend on: ids and contents of all items, judgements, masks, candidates and depths."""
    digest = hashlib.sha256()
    for one in sets:
        for items in (one.queries, one.corpus):
            digest.update(json.dumps([[id_, _content(item)] for id_, item in items.items()]).encode())
        rest = {
            "name": one.name,
            "qrels": {query_id: dict(judged) for query_id, judged in one.qrels.items()},
            "categories": dict(one.categories),
            "masked": {query_id: sorted(ids) for query_id, ids in one.masked.items()},
            "candidates": {query_id: sorted(ids) for query_id, ids in one.candidates.items()},
            "depths": list(one.depths),
        }
        digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def _content(item: Item) -> str:
    try:
        return item.content_hash
    except OSError:
        return "unreadable"


def _of_set(one: Evaluation) -> dict[str, Any]:
    return {
        **one.metrics,
        "clusters": one.metrics["queries"] if one.clusters is None else len(set(one.clusters)),
        "confidence": {name: list(ends) for name, ends in one.confidence.items()},
        **({"by_category": {name: _of_category(one, name) for name in one.by_category}} if one.by_category else {}),
        "failures": [{"item": failure.item, "reason": failure.reason} for failure in one.failures],
    }


def _of_category(one: Evaluation, name: str) -> dict[str, Any]:
    confidence = {metric: list(ends) for metric, ends in one.confidence_by_category[name].items()}
    return {**one.by_category[name], "confidence": confidence}


def _by_query(one: Evaluation) -> dict[str, Any]:
    """Ranks and first places of the queries that the metrics average over."""
    judged = [query for query in one.queries if query.ranks]
    ranks = {query.id: {id_: int(rank) if math.isfinite(rank) else None for id_, rank in query.ranks.items()} for query in judged}
    gains = {query.id: dict(query.gains) for query in judged if any(gain != 1 for gain in query.gains.values())}
    top = {query.id: [[id_, round(score, 6)] for id_, score in query.top] for query in judged}
    clusters = {} if one.clusters is None else dict(zip((query.id for query in judged), one.clusters, strict=True))
    return {"ranks": ranks, "top": top, **({"gains": gains} if gains else {}), **({"cluster_of": clusters} if clusters else {})}
