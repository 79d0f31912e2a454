"""Small benchmark files written as the public ones are, and sets scored with plain vectors in place of a model."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import metrics_of, ranks_of
from PIL import Image

from slq.data import RetrievalSet

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def image(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(path)
    return path


def encoded(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(list(rows)), path)
    return path


def hub_copy(cache: Path, hub_id: str, commit: str = COMMIT) -> Path:
    """The empty snapshot folder of a data set in a cache of the hub, where `main` is this commit."""
    folder = cache / f"datasets--{hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit


def hit(one: RetrievalSet, k: int, scorer: str = "perfect") -> float:
    """hit@k with embeddings that are perfect (the sum of the answers'), random, or all the same.

    What is missing has no embedding: it is not ranked, and as a query it finds nothing.
    """
    rng = np.random.default_rng(5)
    dim = max(len(one.corpus), 1)
    corpus_CD = {"perfect": np.eye(dim), "random": rng.normal(size=(dim, 16)), "constant": np.ones((dim, 16))}[scorer]
    column = {id_: place for place, id_ in enumerate(one.corpus)}
    ranked = []
    for query_id, item in one.queries.items():
        judged = {id_: gain for id_, gain in one.qrels[query_id].items() if gain > 0}
        answers = {column[id_]: gain for id_, gain in judged.items() if id_ in column}
        query_D = {
            "perfect": corpus_CD[list(answers)].sum(axis=0),
            "random": rng.normal(size=corpus_CD.shape[1]),
            "constant": np.ones(corpus_CD.shape[1]),
        }[scorer]
        lost = isinstance(item.image, Path) and not item.image.is_file()
        listed = set(one.candidates.get(query_id, one.corpus)) - one.excluded.get(query_id, frozenset())
        allowed = set() if lost else {column[id_] for id_ in listed if id_ in column}
        ranks = ranks_of((corpus_CD @ query_D).tolist(), answers, allowed)
        ranked.append((ranks + [math.inf] * (len(judged) - len(answers)), list(judged.values())))
    return metrics_of(ranked, one.depths)[f"hit@{k}"]
