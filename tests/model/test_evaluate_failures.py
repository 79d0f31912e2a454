"""Items that are lost while a set is evaluated are listed, and count as never found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from drawn import drawn

from slq.data import read_beir, read_pairs
from slq.evaluation import bidirectional_sets, evaluate, to_dict


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A BEIR folder of three images; each of two questions has one answer."""
    folder = tmp_path / "questions"
    (folder / "qrels").mkdir(parents=True)
    corpus = []
    for number in range(3):
        drawn(seed=number).save(folder / f"{number}.png")
        corpus.append({"_id": str(number), "text": "", "image": f"{number}.png"})
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (folder / "queries.jsonl").write_text('{"_id": "q0", "text": "a red cat"}\n{"_id": "q1", "text": "a blue dog"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\t0\t1\nq1\t1\t1\n")
    return folder


def test_whole_sets_find_everything_in_a_corpus_of_three(encoder, questions):
    (result,) = evaluate(encoder, [read_beir(questions)])
    assert result.metrics["hit@5"] == 1 and result.failures == () and all(len(query.top_k) == 3 for query in result.queries)


DAMAGED = pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"broken")], ids=["missing", "broken"])


@DAMAGED
def test_a_lost_answer_stays_in_the_corpus_and_is_listed(damage, encoder, questions):
    damage(questions / "1.png")
    (result,) = evaluate(encoder, [read_beir(questions)])
    assert result.query_ids == ("q0", "q1") and result.metrics["queries"] == 2 and result.metrics["num_candidates"] == 3
    assert result.metrics["hit@1"] <= 0.5
    assert all({id_ for id_, _ in query.top_k} == {"0", "2"} for query in result.queries)
    assert result.queries[1].ranks == {"1": math.inf} and result.queries[0].first_hit <= 2
    assert len(result.failures) == 1 and "1.png" in str(result.failures[0])
    assert to_dict([result])["questions"]["failures"] == [{"item": result.failures[0].item, "reason": result.failures[0].reason}]


@DAMAGED
def test_a_lost_answer_counts_as_never_found(damage, encoder, questions):
    damage(questions / "1.png")
    (result,) = evaluate(encoder, [read_beir(questions)])
    assert result.metrics["hit@5"] == 0.5 and result.metrics["recall@10"] == 0.5


def test_a_lost_query_finds_nothing(encoder, questions):
    drawn(seed=7).save(questions / "q.png")
    rows = '{"_id": "q0", "text": "a red cat"}\n{"_id": "q1", "text": "but blue", "image": "q.png"}\n'
    (questions / "queries.jsonl").write_text(rows)
    one = read_beir(questions)
    (questions / "q.png").unlink()  # lost after the reading
    (result,) = evaluate(encoder, [one])
    assert result.metrics["hit@5"] == 0.5 and [failure.item for failure in result.failures] == ["q1"]


def test_pairs_with_a_lost_image_are_scored_both_ways(encoder, tmp_path):
    for number in range(12):
        drawn(seed=number).save(tmp_path / f"{number}.png")
    rows = [{"image": f"{number}.png", "caption": f"the image number {number}"} for number in range(12)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = read_pairs(tmp_path / "captions.jsonl")
    (tmp_path / "2.png").write_bytes(b"broken")
    for result in evaluate(encoder, bidirectional_sets(pairs)):
        assert result.metrics["queries"] == 12 and result.metrics["recall@10"] <= 11 / 12, result.name
        assert [failure.item for failure in result.failures] == ["2.png"]
