"""The results file of `slq eval`; its fields are described in docs/design/0010-results.md."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from slq.data import RetrievalSet
from slq.encoders.base import Encoder
from slq.errors import InputError
from slq.evaluation.evaluate import SEED, Evaluation
from slq.evaluation.statistics import Bounds, QueryValues, interval
from slq.evaluation.vectors import content_of
from slq.io.provenance import record
from slq.types import Item

FORMAT = 2

# What format 1 called it -> what it is called now: keys of the file, of a set and of an average, of one query's results.
_RENAMED = {"backbone": "base_model", "readout": "encoder", "dims": "truncate_dim", "groups": "averages"}
_RENAMED_SCORES = {"confidence": "ci95", "candidates": "num_candidates", "top": "top_k"}


def result_record(
    evaluations: Sequence[Evaluation],
    encoder: Encoder,
    *,
    adapter: str | None,
    data: str | None,
    data_sha256: str,
    data_parts: Mapping[str, Mapping[str, str]],
    command: str,
    benchmark: Mapping[str, Any] | None = None,
    averages: Mapping[str, Sequence[str]] | None = None,
    per_query: bool = False,
    truncate_dim: int | None = None,
) -> dict[str, Any]:
    """The results file: the scores, and all that they depend on.

    Args:
        evaluations: of each set.
        encoder: what embedded them.
        adapter: path or hub id that was given; None for a baseline.
        data: path that was given.
        data_sha256: `dataset_sha256` of the sets.
        data_parts: `dataset_parts` of the sets.
        command: the command line.
        benchmark: name, variant, protocol, revision and prompts, where the sets are a benchmark's.
        averages: name -> the sets that it is the mean of.
        per_query: also write each query's ranks and first positions.
        truncate_dim: how many dimensions were scored by; None for all.

    Returns:
        The record, ready for JSON.

    Raises:
        InputError: if an average names a set that was not scored.
    """
    content = {
        "format": FORMAT,
        "benchmark": None if benchmark is None else dict(benchmark),
        "data": data,
        "data_sha256": data_sha256,
        "data_parts": {name: dict(parts) for name, parts in data_parts.items()},
        "adapter": adapter,
        "base_model": encoder.model.identity.to_dict(),
        "fingerprint": encoder.fingerprint,
        "encoder": encoder.describe(),
        "training": dict(getattr(encoder, "training", {})),
        "truncate_dim": truncate_dim or encoder.model.dim,
        "scores": to_dict(evaluations, per_query),
        "averages": average_scores(evaluations, averages or {}),
    }
    return record(content, command=command, device=str(encoder.model.device), seed=SEED)


def to_dict(evaluations: Sequence[Evaluation], per_query: bool = False) -> dict[str, Any]:
    """The scores of each set, ready for JSON.

    Args:
        evaluations: of each set.
        per_query: also the rank of each query's relevant candidates (null: never found), their gains where one is not 1, its first
            positions, and its cluster where there are any.

    Returns:
        Set -> metrics, number of clusters, intervals, metrics by category, failures.
    """
    return {one.name: _of_set(one) | (_by_query(one) if per_query else {}) for one in evaluations}


def average_scores(evaluations: Sequence[Evaluation], averages: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The mean over sets of each averaged metric that all of them have, with its interval.

    Args:
        evaluations: of each set.
        averages: name -> the sets that it is the mean of.

    Returns:
        Name -> metrics, `sets`, `ci95`.

    Raises:
        InputError: if an average names a set that was not scored.
    """
    by_name = {one.name: one for one in evaluations}
    found: dict[str, Any] = {}
    for average, names in averages.items():
        if unknown := [name for name in names if name not in by_name]:
            raise InputError(
                f"The average {average!r} needs the scores of {unknown[0]!r}, which is not among the sets: {', '.join(by_name)}."
            )
        sets = [by_name[name] for name in names]
        shared = [metric for metric in sets[0].values if all(metric in one.values for one in sets)]
        means = {metric: math.fsum(one.metrics[metric] for one in sets) / len(sets) for metric in shared}
        values = [QueryValues(np.stack([one.values[metric] for metric in shared]), one.clusters) for one in sets if shared]
        bounds = interval(values) if shared else np.zeros((0, 2))
        found[average] = {**means, "sets": list(names), "ci95": dict(zip(shared, bounds.tolist(), strict=True))}
    return found


def dataset_sha256(sets: Sequence[RetrievalSet]) -> str:
    """Hash of what the scores depend on.

    Args:
        sets: what is scored.

    Returns:
        sha256 in hexadecimal over ids and contents of all items, judgements, excluded ids, candidates and depths.
    """
    digest = hashlib.sha256()
    for one in sets:
        for items in (one.encoded_queries, one.corpus):
            digest.update(json.dumps([[id_, content_of(item)] for id_, item in items.items()]).encode())
        rest = {
            "name": one.name,
            "qrels": {query_id: dict(judged) for query_id, judged in one.qrels.items()},
            "categories": dict(one.categories),
            "masked": {query_id: sorted(ids) for query_id, ids in one.excluded.items()},  # as it was called when the first hashes were made
            "candidates": {query_id: sorted(ids) for query_id, ids in one.candidates.items()},
            "depths": list(one.depths),
        }
        digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def dataset_parts(sets: Sequence[RetrievalSet]) -> dict[str, dict[str, str]]:
    """What the scores depend on, part by part, so that a difference between two results can be named.

    Args:
        sets: what is scored.

    Returns:
        Set -> `images`, `texts`, `judgements` and `protocol` (excluded ids, candidates, depths, clusters) -> sha256; beside them
        `content`, of the same set without its ids, which another reader of the same files may have chosen otherwise.
    """
    found = {}
    for one in sets:
        sides = (("query", one.queries), ("candidate", one.corpus))
        items = [(side, id_, listed[id_]) for side, listed in sides for id_ in sorted(listed)]
        excluded, candidates = ({id_: sorted(ids) for id_, ids in each.items()} for each in (one.excluded, one.candidates))
        parts = {
            "images": [(side, id_, content_of(_without_text(item))) for side, id_, item in items if item.image is not None],
            "texts": [(side, id_, item.text) for side, id_, item in items if item.text is not None],
            "judgements": {query_id: dict(judged) for query_id, judged in one.qrels.items()},
            "protocol": [excluded, candidates, list(one.depths), dict(one.clusters), dict(one.categories)],
            "content": _without_ids(one),
        }
        found[one.name] = {
            part: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest() for part, content in parts.items()
        }
    return found


def _without_ids(one: RetrievalSet) -> list[Any]:
    """A set by the contents of its items alone."""
    contents = {id_: content_of(item) for id_, item in one.corpus.items()}
    queries = [
        (
            content_of(item),
            sorted((contents.get(corpus_id, ""), gain) for corpus_id, gain in one.qrels.get(id_, {}).items()),
            *(sorted(contents.get(corpus_id, "") for corpus_id in each.get(id_, ())) for each in (one.excluded, one.candidates)),
        )
        for id_, item in one.queries.items()
    ]
    return [sorted(queries), sorted(contents.values()), list(one.depths)]


def _without_text(item: Item) -> Item:
    return item if item.text is None else replace(item, text=None)


def upgraded(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result of format 1 under the names of format 2; one of format 2 as it is.

    Args:
        result: what a results file holds.

    Returns:
        A result of format 2. One of format 1 names no clusters: its queries count as independent.
    """
    if result.get("format") != 1:
        return dict(result)
    found = {_RENAMED.get(name, name): value for name, value in result.items()} | {"format": FORMAT}
    found["encoder"] = {"kind": found.get("encoder")}
    return found | {part: {name: _upgraded_scores(one) for name, one in found.get(part, {}).items()} for part in ("scores", "averages")}


def _upgraded_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    found = {_RENAMED_SCORES.get(name, name).replace("chance_hit@", "random_hit@"): value for name, value in scores.items()}
    if "by_category" in found:
        found["by_category"] = {name: _upgraded_scores(one) for name, one in found["by_category"].items()}
    return found


def _of_set(one: Evaluation) -> dict[str, Any]:
    folded = one.folded and {"repeated": one.equal_images, "folded": {**one.folded.metrics, "ci95": _listed(one.folded.ci95)}}
    categories = {name: {**metrics, "ci95": _listed(one.ci95_by_category[name])} for name, metrics in one.by_category.items()}
    return {
        **one.metrics,
        "clusters": one.metrics["queries"] if one.clusters is None else len(set(one.clusters)),
        "ci95": _listed(one.ci95),
        **({} if one.modality_gap is None else {"modality_gap": one.modality_gap}),
        **({"by_category": categories} if categories else {}),
        **({"equal_images": folded} if folded else {}),
        **({"notes": list(one.notes)} if one.notes else {}),
        "failures": [{"item": failure.item, "reason": failure.reason} for failure in one.failures],
        "truncated": one.truncated,
    }


def _listed(bounds: Mapping[str, Bounds]) -> dict[str, list[float]]:
    return {metric: list(each) for metric, each in bounds.items()}


def _by_query(one: Evaluation) -> dict[str, Any]:
    """Ranks and first positions of the queries that the metrics average over."""
    judged = [query for query in one.queries if query.ranks]
    ranks = {query.id: {id_: int(rank) if math.isfinite(rank) else None for id_, rank in query.ranks.items()} for query in judged}
    gains = {query.id: dict(query.gains) for query in judged if any(gain != 1 for gain in query.gains.values())}
    top = {query.id: [[id_, round(score, 6)] for id_, score in query.top_k] for query in judged}
    clusters = {} if one.clusters is None else dict(zip((query.id for query in judged), one.clusters, strict=True))
    return {"ranks": ranks, "top_k": top, **({"gains": gains} if gains else {}), **({"cluster_of": clusters} if clusters else {})}
