"""Results side by side: what is the same data, what differs, and whether it could be luck; published figures beside them."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slq.benchmarks import load_benchmark
from slq.benchmarks.published import PUBLISHED, published_rows
from slq.data import RetrievalSet, read_pairs
from slq.errors import InputError
from slq.evaluation import bidirectional_sets, check_comparable, compare, dataset_parts, read_result, run_table
from slq.types import Item

COCO = {"name": "coco", "variant": "five", "protocol": "Karpathy's", "revision": "abc", "prompts": {}}


def result(
    ranks: list[float], benchmark: dict[str, Any] | None = None, per_query: bool = True, name: str = "text to image"
) -> dict[str, Any]:
    """A results file of queries with one answer each, at these ranks."""
    places = np.array(ranks, dtype=float)
    scores: dict[str, Any] = {"hit@1": float((places <= 1).mean()), "hit@5": float((places <= 5).mean()), "mrr": float((1 / places).mean())}
    scores |= {"queries": len(ranks), "num_candidates": 100, "ci95": {}, "failures": []}
    if per_query:
        scores["ranks"] = {f"q{n}": {"answer": None if np.isinf(rank) else int(rank)} for n, rank in enumerate(ranks)}
    return {"format": 2, "benchmark": benchmark, "data": "data", "data_sha256": "hash", "scores": {name: scores}, "averages": {}}


def test_differences_are_those_of_the_scores():
    first, second = result([1, 2, 7, np.inf] * 30), result([1, 1, 7, 3] * 30)
    found = {one.metric: one for one in compare(first, second)}
    assert list(found) == ["hit@1", "hit@5", "mrr"]
    assert found["hit@1"].change == 0.25 and found["hit@5"].change == 0.25 and found["mrr"].change == pytest.approx((1 / 2 + 1 / 3) / 4)
    for one in found.values():
        assert one.ci95 is not None and one.p is not None and one.ci95[0] < one.change < one.ci95[1] and one.p < 0.001
    back = {one.metric: one for one in compare(second, first)}
    assert all(back[metric].change == -one.change and back[metric].p == pytest.approx(one.p) for metric, one in found.items())


def test_nothing_changed_and_little_changed():
    assert {(one.change, one.ci95, one.p) for one in compare(result([1, 2, 3] * 2), result([1, 2, 3] * 2))} == {(0, (0, 0), 1)}
    few = {(one.change, one.ci95, one.p) for one in compare(result([1, 2, 3]), result([1, 2, 3]))}
    assert few == {(0, (-1, 1), 1)}, "three queries can rule nothing out"
    little = {one.metric: one for one in compare(result([1, 2, 2, 3, 4]), result([2, 1, 1, 3, 4]))}
    assert little["hit@1"].change == pytest.approx(0.2) and little["hit@1"].p > 0.5


def test_pairing_tells_more_than_the_two_scores_alone():
    """A small gain that nearly no query loses is sure, although the intervals of the two scores overlap widely."""
    generator = np.random.default_rng(0)
    ranks = np.where(generator.random(400) < 0.5, 1, 9)
    better = np.where((ranks == 9) & (generator.random(400) < 0.08), 1, ranks)
    (hit, *_) = compare(result(ranks.tolist()), result(better.tolist()))
    assert 0.01 < hit.change < 0.06 and hit.p < 0.01


@pytest.mark.parametrize("other", [result([1, 2], per_query=False), result([1, 2, 3])], ids=["no ranks", "other queries"])
def test_without_the_same_queries_nothing_is_tested(other):
    assert {(one.ci95, one.p) for one in compare(result([1, 2]), other)} == {(None, None)}


def test_captions_of_one_image_are_tested_as_one():
    """Eight images gain with all their five captions: forty queries that go one way are no more than eight."""
    first, second = result([2] * 40), result([1] * 40)
    (alone, *_) = compare(first, second)
    for one in (first, second):
        one["scores"]["text to image"]["cluster_of"] = {f"q{n}": f"image {n // 5}" for n in range(40)}
    (together, *_) = compare(first, second)
    assert alone.p == pytest.approx(1 / 10_001) and together.p == pytest.approx(1 / 2**8) and together.change == alone.change
    del second["scores"]["text to image"]["cluster_of"]  # written before clusters were recorded
    assert compare(first, second)[0].p == together.p


def test_several_answers_and_gains_are_read_back():
    """The metrics made of a file's ranks are those in the file."""
    one = result([1, 1])
    one["scores"]["text to image"] |= {
        "hit@1": 1 / 2,
        "recall@1": 1 / 4,
        "hit@5": 1.0,
        "mrr": 3 / 4,
        "ranks": {"a": {"x": 1, "y": None}, "b": {"z": 2}},
        "gains": {"a": {"x": 3, "y": 1}},
    }
    nothing = json.loads(json.dumps(one))
    nothing["scores"]["text to image"]["ranks"] = {"a": {"x": None, "y": None}, "b": {"z": None}}
    by_metric = {each.metric: each for each in compare(nothing, one)}
    for metric, whole in (("hit@1", 1 / 2), ("recall@1", 1 / 4), ("hit@5", 1), ("mrr", 3 / 4)):
        low, high = by_metric[metric].ci95
        assert low <= whole <= high, metric


def grouped(found, value, sets):
    found["averages"] = {"mean": {"hit@1": value, "sets": sets, "ci95": {}}}
    return found


def test_an_average_of_one_set_is_tested_as_the_set():
    first, second = grouped(result([2] * 8 + [1]), 1 / 9, ["text to image"]), grouped(result([1] * 9), 1.0, ["text to image"])
    own, mean = (one for one in compare(first, second) if one.metric == "hit@1")
    assert (mean.where, mean.change) == ("mean", 8 / 9)
    assert (mean.ci95, mean.p) == (own.ci95, own.p) and mean.p < 0.05


def test_an_average_weighs_its_sets_alike():
    """Eight queries win in one set and two lose in the other, so the means cancel, but the eight alone do not."""
    sets = ["text to image", "image to text"]
    first, second = grouped(result([2] * 8), 0.5, sets), grouped(result([1] * 8), 0.5, sets)
    for whole, ranks in ((first, [1, 1]), (second, [2, 2])):
        whole["scores"] |= result(ranks, name="image to text")["scores"]
    of = {one.where: one for one in compare(first, second) if one.metric == "hit@1"}
    assert of["text to image"].p < 0.05 and of["mean"].p > 0.5 and of["mean"].change == 0
    assert of["mean"].ci95 == (0, 0), "every query of a set changes alike"


def test_averages_without_ranks_or_of_other_sets_are_shown_and_not_tested():
    first, second = grouped(result([1, 2]), 0.5, ["text to image"]), grouped(result([1, 1]), 1.0, ["text to image", "another"])
    (last,) = [one for one in compare(first, second) if one.where == "mean"]
    assert (last.metric, last.change, last.p) == ("hit@1", 0.5, None)
    second["averages"]["mean"]["sets"] = ["text to image"]
    del second["scores"]["text to image"]["ranks"]
    assert all(one.p is None for one in compare(first, second))


CHANGES = {
    "images": {"corpus": {"a": Item(image=Image.new("RGB", (2, 2), "red")), "b": Item("two")}},
    "texts": {"queries": {"q": Item("another question")}},
    "judgements": {"qrels": {"q": {"b": 1}}},
    "protocol": {"depths": (1,)},
}


@pytest.mark.parametrize("part", CHANGES)
@pytest.mark.parametrize("benchmark", [None, COCO])
def test_what_of_the_data_differs_is_named(part, benchmark):
    corpus = {"a": Item(image=Image.new("RGB", (2, 2), "blue")), "b": Item("two")}
    one = RetrievalSet("text to image", {"q": Item("a question")}, corpus, {"q": {"a": 1}}, ())
    first, second = (result([1], benchmark) | {"data_parts": dataset_parts([each])} for each in (one, replace(one, **CHANGES[part])))
    check_comparable(first, first)
    with pytest.raises(InputError, match=f"the {part} of 'text to image' are others in the two results"):
        check_comparable(first, second)
    if part == "texts" and benchmark:
        check_comparable(first, second | {"benchmark": COCO | {"prompts": {"query": "an image of {}"}}})


@pytest.mark.parametrize("key", ["name", "variant", "protocol", "revision"])
def test_other_benchmarks_are_refused(key):
    with pytest.raises(InputError, match=f"benchmark{'' if key == 'name' else chr(39) + 's ' + key} is .* in one and 'other' in the other"):
        check_comparable(result([1], COCO), result([1], COCO | {key: "other"}))
    check_comparable(result([1], COCO), result([1], COCO | {"prompts": {"text": "..."}}))


def test_other_data_are_refused():
    with pytest.raises(InputError, match="differ in what they hold"):
        check_comparable(result([1]), result([1]) | {"data_sha256": "another"})
    with pytest.raises(InputError, match="share no set: text to image in one, image to text in the other"):
        compare(result([1]), result([1], name="image to text"))


def test_results_of_format_1_are_read_under_the_names_of_format_2(tmp_path):
    old = {
        "format": 1, "benchmark": COCO, "backbone": {"name": "m"}, "readout": "last token", "dims": 8,
        "scores": {"text to image": {
            "hit@1": 0.5, "queries": 2, "candidates": 9, "chance_hit@1": 0.1, "confidence": {"hit@1": [0, 1]}, "failures": [],
            "ranks": {"a": {"x": 1}, "b": {"y": 2}}, "top": {"a": [["x", 0.9]]},
            "by_category": {"c": {"hit@1": 1.0, "candidates": 9, "confidence": {}}},
        }},
        "groups": {"mean": {"hit@1": 0.5, "sets": ["text to image"], "confidence": {"hit@1": [0, 1]}}},
    }  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(old))
    found = read_result(tmp_path / "old.json")
    assert (found["format"], found["base_model"], found["encoder"], found["truncate_dim"]) == (2, {"name": "m"}, {"kind": "last token"}, 8)
    scores = found["scores"]["text to image"]
    assert (scores["num_candidates"], scores["random_hit@1"], scores["ci95"]) == (9, 0.1, {"hit@1": [0, 1]})
    assert scores["top_k"] == {"a": [["x", 0.9]]} and scores["by_category"] == {"c": {"hit@1": 1.0, "num_candidates": 9, "ci95": {}}}
    assert found["averages"] == {"mean": {"hit@1": 0.5, "sets": ["text to image"], "ci95": {"hit@1": [0, 1]}}} and "groups" not in found
    new = {**result([1, 1]), "averages": found["averages"]}
    new["scores"]["text to image"]["ranks"] = {"a": {"x": 1}, "b": {"y": 1}}
    assert {(one.where, one.change) for one in compare(found, new) if one.metric == "hit@1"} == {("text to image", 0.5), ("mean", 0)}
    assert published_rows(found)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "holds no scores"), ('{"scores": {}}', "has format None, not 2")],
)
def test_other_files_are_refused(content, message, tmp_path):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_result(path)


def test_published_figures_are_found_by_benchmark_and_set():
    rows = published_rows(result([1], COCO))
    assert {row.where for row in rows} == {"text to image"}
    assert {row.metric: row.value for row in rows if row.model == "SLQ InternVL3-1B"} == {"hit@1": 0.485, "hit@5": 0.743, "hit@10": 0.831}
    assert published_rows(result([1])) == [] == published_rows(result([1], COCO | {"name": "beir"}))
    drawn = COCO | {"name": "i2i", "variant": "flickr30k"}
    assert [(row.where, row.value) for row in published_rows(result([1], drawn))] == [("", 0.902)]
    assert published_rows(result([1], drawn | {"variant": "coco"})) == []


def test_published_figures_are_percentages_with_a_source():
    for table in tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))["table"]:
        assert table["source"] and table["benchmark"] and table["rows"]
        for model, values in table["rows"].items():
            assert len(values) == len(table["metrics"]) and all(1 < value < 100 for value in values), model
            assert values == sorted(values), f"{model}: deeper is never less"


def run(num_latents: int, **training: Any) -> dict[str, Any]:
    """A result of an adapter with these settings."""
    made_with = {"base_model": {"name": "miniature"}, "encoder": {"kind": "latents", "num_latents": num_latents}, "truncate_dim": 64}
    return {**result([1, 2]), **made_with, "training": {"epochs": 5, "num_latents": num_latents, "date": "today", **training}}


def test_many_runs_stand_in_one_table_with_the_settings_in_which_they_differ():
    plain = [{"name": "info_nce"}]
    runs = {"few": run(5, loss=plain), "many": run(20, loss=plain), "other": run(20, loss=[{"name": "a|b", "w": 1}])}
    del runs["other"]["scores"]["text to image"]["hit@5"]
    table = run_table(runs, ["hit@1", "hit@5", "recall@5"])
    assert table.settings == ("num_latents", "loss") and table.metrics == ("text to image hit@1", "text to image hit@5")
    assert table.to_csv().splitlines() == [
        "run,num_latents,loss,text to image hit@1,text to image hit@5",
        "few,5,name=info_nce,0.5,1.0",
        "many,20,name=info_nce,0.5,1.0",
        'other,20,"name=a|b,w=1",0.5,',
    ]
    assert table.to_markdown().splitlines()[2:] == [
        "| few | 5 | name=info_nce | 50.0% | 100.0% |",
        "| many | 20 | name=info_nce | 50.0% | 100.0% |",
        "| other | 20 | name=a\\|b,w=1 | 50.0% |  |",
    ]


def test_a_set_read_as_a_file_and_as_a_benchmark_is_the_same(folder):
    """The two readers choose other ids; contents, judgements and depths are what is compared."""
    folder.images("one.png", "two.png", "three.png")
    listed = [
        {"filename": f"{name}.png", "split": "test", "sentences": [{"raw": f"{name} {n}"} for n in range(5)]} for name in ("one", "two")
    ]
    path = folder.text("dataset_coco.json", json.dumps({"images": listed}))
    as_file = dataset_parts(bidirectional_sets(read_pairs(path, splits=("test",))))
    benchmark = load_benchmark("coco", folder.path, "all")
    as_benchmark = dataset_parts(benchmark.sets)
    told = {"name": "coco", "variant": "all", "protocol": benchmark.protocol, "revision": benchmark.revision, "prompts": {}}
    ours, theirs = {**result([1, 2]), "data_parts": as_file}, {**result([1, 2], told), "data_parts": as_benchmark}
    check_comparable(ours, theirs)
    folder.images("two.png", "one.png")  # other pixels under the same names
    changed = {**ours, "data_parts": dataset_parts(bidirectional_sets(read_pairs(path, splits=("test",))))}
    for pair in ((changed, theirs), (theirs, changed)):
        with pytest.raises(InputError, match="the benchmark is"):
            check_comparable(*pair)
