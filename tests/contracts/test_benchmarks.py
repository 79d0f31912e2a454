"""Every built-in benchmark keeps the contract on a tiny local copy, and the contract catches what it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hand_scored import image, write_json, write_lines

from slq.benchmarks import Benchmark, benchmarks
from slq.miniature.export import write_sample_data
from slq.testing import check_benchmark
from slq.types import Item

pytestmark = pytest.mark.usefixtures("own_cache")


def karpathy(folder: Path, name: str) -> None:
    entries = []
    for number in range(3):
        sentences = [{"raw": f"caption {n} of {number}"} for n in range(6)]
        entries.append({"filename": f"{number}.jpg", "split": "test", "sentences": sentences})
        image(folder / f"images/{number}.jpg", number)
    write_json(folder / f"dataset_{name}.json", {"images": entries})


def cirr(folder: Path) -> None:
    names = [f"dev-{number}-0-img0" for number in range(6)]
    for split, hidden in (("val", False), ("test1", True)):
        target = {} if hidden else {"target_hard": names[1]}
        entry = {"pairid": 1, "reference": names[0], "caption": "in red", "img_set": {"members": names}, **target}
        write_json(folder / f"captions/cap.rc2.{split}.json", [entry])
        write_json(folder / f"image_splits/split.rc2.{split}.json", {name: f"./dev/{name}.png" for name in names})
    for number, name in enumerate(names):
        image(folder / f"dev/{name}.png", number)


def fashioniq(folder: Path) -> None:
    for category in ("dress", "shirt", "toptee"):
        names = [f"{category}{number}" for number in range(4)]
        queries = [{"candidate": names[n], "target": names[n + 1], "captions": ["is red", "is long"]} for n in range(2)]
        write_json(folder / f"captions/cap.{category}.val.json", queries)
        write_json(folder / f"image_splits/split.{category}.val.json", names)
        for number, name in enumerate(names):
            image(folder / f"images/{name}.jpg", number)


def mmeb(folder: Path) -> None:
    for task in ("ImageNet-1K", "OK-VQA", "VisDial", "MSCOCO"):
        rows = [
            {"qry_text": f"<|image_1|> question {n}", "qry_img_path": f"{task}/{n}.png", "tgt_text": [f"right {n}", "wrong", "odd"],
             "tgt_img_path": ["", "", ""]}
            for n in range(3)
        ]  # fmt: skip
        write_lines(folder / task / "test.jsonl", rows)
        for n in range(3):
            image(folder / f"images/{task}/{n}.png", n)


def karr(folder: Path) -> None:
    write_lines(folder / "karr.jsonl", [{"image": f"{n}.jpg", "text": f"riddle {n}", "category": "tools"} for n in range(3)])
    for n in range(3):
        image(folder / f"{n}.jpg", n)


def beir(folder: Path) -> None:
    write_lines(folder / "corpus.jsonl", [{"_id": "a", "text": "bark"}, {"_id": "b", "text": "meow"}])
    write_lines(folder / "queries.jsonl", [{"_id": "q", "text": "what barks", "excluded": ["b"], "cluster": "dogs"}])
    (folder / "qrels").mkdir()
    for split in ("test", "dev", "train"):
        (folder / f"qrels/{split}.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")


COPIES: dict[str, Callable[[Path], object]] = {
    "beir": beir,
    "cirr": cirr,
    "coco": partial(karpathy, name="coco"),
    "fashioniq": fashioniq,
    "flickr30k": partial(karpathy, name="flickr30k"),
    "i2i": lambda folder: (karpathy(folder, "coco"), karpathy(folder, "flickr30k")),
    "karr": karr,
    "miniature": lambda folder: write_sample_data(folder, "test", 20),
    "mmeb": mmeb,
}


@pytest.mark.parametrize("name", COPIES)
def test_builtin_keeps_the_contract_in_every_variant(name, tmp_path):
    COPIES[name](tmp_path)
    benchmark = benchmarks.get(name)
    for variant in benchmark.info.variants:
        found = check_benchmark(benchmark, tmp_path, variant)
        assert found.revision.startswith("sha256:")


def test_every_builtin_is_tried():
    assert set(COPIES) == set(benchmarks.names())


def spoiled(info: dict[str, object] | None = None, data: dict[str, object] | None = None, **changes: object) -> Benchmark:
    """The benchmark of a BEIR folder with its info, its data, or its one set changed."""
    right = benchmarks.get("beir")

    def load(*asked: object) -> object:
        found = right.load(*asked)
        return replace(found, **{"sets": (replace(found.sets[0], **changes),), **(data or {})})

    return replace(right, info=replace(right.info, **(info or {})), load=load)


ITEM, NOWHERE = Item("what barks"), Item(image=Path("nowhere.png"))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"qrels": {"q": {"z": 1}}},
            r"must judge what is in the corpus or among the failures .* in neither \(query, ids\): \('q', \['z'\]\)",
        ),
        ({"qrels": {"q": {"a": 1, "z": 0}}}, r"must judge what is in the corpus or among the failures .*: \('q', \['z'\]\)"),
        ({"queries": {"q": ITEM, "p": Item("?")}}, "must judge every query in qrels .* without an answer: 'p'"),
        ({"qrels": {"q": {"a": 1}, "p": {"a": 1}}}, "must name its own queries alone as keys of qrels .*: 'p'"),
        ({"qrels": {"q": {"a": -1, "b": 1}}}, "must give relevance as numbers of at least 0 .*; it gave: -1"),
        ({"qrels": {"q": {"a": "1"}}}, "RetrievalSet|must give relevance as numbers"),
        ({"qrels": {"q": ["a"]}}, "must give sets whose parts are of the types that RetrievalSet says; it raised AttributeError"),
        ({"queries": {1: ITEM}, "qrels": {1: {"a": 1}}}, "must have texts as ids of the queries .*; it has others: 1"),
        ({"queries": {"q": "what barks"}}, "must have an Item with a text or an image for each of the queries .*: 'q'"),
        ({"queries": {"q": Item(" ")}}, "must have an Item with a text or an image for each of the queries .*: 'q'"),
        ({"queries": {"q": NOWHERE}}, "must have the image file of each of the queries, or list it among the failures .*: 'q'"),
        ({"clusters": {"z": "dogs"}}, "clusters names queries that are not there"),
        ({"clusters": {"q": 3}}, "must name clusters by texts .*: 'q'"),
        ({"categories": {"q": None}}, "must name categories by texts .*: 'q'"),
        ({"candidates": {"q": ("a", "z")}}, "must have candidates that are in the corpus .*: 'q'"),
        ({"candidates": {"q": ("a", "a")}}, "has one that comes twice for: 'q'"),
        ({"candidates": {"q": ("b",)}}, "must have an answer among a query's candidates .*: 'q'"),
        ({"excluded": {"q": frozenset({"a"})}}, "excludes an answer of: 'q'"),
        ({"excluded": {"q": ["b"]}}, "must exclude sets of ids .*: 'q'"),
        ({"excluded": {"q": frozenset({"z"})}}, "must exclude what is in the corpus .*: 'q'"),
        ({"depths": (5, 1)}, r"depths \(5, 1\)"),
        ({"depths": (3,)}, "names metrics that no set is scored by: hit@1, hit@10, hit@5"),
        ({"corpus": {}}, "has no corpus"),
        ({"failures": ("a",)}, "must list Failure objects as failures|raised AttributeError"),
        ({"data": {"sets": []}}, "must give its sets as a tuple of RetrievalSet, one at least; it gave"),
        ({"data": {"sets": ()}}, "must give its sets as a tuple of RetrievalSet, one at least; it gave"),
        ({"data": {"revision": ""}}, "must name the revision: a commit, or a hash of the annotations; it gave ''"),
        ({"data": {"protocol": "hit@1"}}, "must give the protocol as a sentence; it gave 'hit@1'"),
        ({"data": {"prompts": {"query": "x"}}}, "must put no prompts around items unless asked for"),
        ({"data": {"averages": {"all": ("other",)}}}, "must give the average 'all' as a tuple of names of its sets"),
        ({"data": {"averages": {"all": "beir"}}}, "must give the average 'all' as a tuple of names of its sets"),
        ({"info": {"title": ""}}, "must have a text as info.title, not ''"),
        ({"info": {"variants": ()}}, r"must have a tuple of texts as info.variants, with one at least, not \(\)"),
        ({"info": {"variants": "test"}}, "must have a tuple of texts as info.variants, with one at least, not 'test'"),
        ({"info": {"layout": "corpus.jsonl"}}, "must show in info.layout a local copy line by line, .*; it has 'corpus.jsonl'"),
        ({"info": {"variants": ("test", "test")}}, "must name each variant once"),
    ],
)
def test_the_contract_names_what_does_not_hold(changes, complaint, tmp_path):
    beir(tmp_path)
    with pytest.raises(AssertionError, match=rf"^The benchmark 'beir' .*({complaint})"):
        check_benchmark(spoiled(**changes), tmp_path)


def test_the_contract_asks_for_the_same_data_each_time(tmp_path):
    beir(tmp_path)
    counted = iter(range(100))
    right = benchmarks.get("beir")
    random = replace(right, load=lambda *asked: replace(right.load(*asked), revision=f"sha256:{next(counted)}"))
    with pytest.raises(AssertionError, match="loading twice gives other data"):
        check_benchmark(random, tmp_path)


def test_the_contract_asks_for_names_and_methods(tmp_path):
    beir(tmp_path)
    right = benchmarks.get("beir")
    with pytest.raises(AssertionError, match=r"must have the name that it is registered under as info.name, 'own', not 'beir'"):
        check_benchmark(right, tmp_path, name="own")
    with pytest.raises(AssertionError, match="must have the variant that is asked for, 'train2'; it has test, dev, train"):
        check_benchmark(right, tmp_path, "train2")
    with pytest.raises(AssertionError, match=r"^The benchmark \S+base:Benchmark must be given as an object; it is a class"):
        check_benchmark(Benchmark, tmp_path)
    with pytest.raises(AssertionError, match=r"must have info, load; it lacks info, load"):
        check_benchmark(object(), tmp_path)
    with pytest.raises(AssertionError, match="must have a BenchmarkInfo as its info, not dict"):
        check_benchmark(replace(right, info={}), tmp_path)
    with pytest.raises(AssertionError, match=r"must load its data by load\(data, 'test', False, None\); it raised TypeError"):
        check_benchmark(replace(right, load=lambda data: None), tmp_path)
    with pytest.raises(AssertionError, match=r"must load BenchmarkData; it gave \[\] \(list\)"):
        check_benchmark(replace(right, load=lambda *asked: []), tmp_path)


def test_the_contract_asks_what_becomes_of_prompts(tmp_path):
    beir(tmp_path)
    right = benchmarks.get("beir")

    def load(data, variant, prompts, revision):
        found = right.load(data, variant, False, revision)
        return replace(found, prompts={"query": 3}) if prompts else found

    with pytest.raises(AssertionError, match=r"must give its prompts as a mapping of role -> text; it gave .'query': 3"):
        check_benchmark(replace(right, load=load), tmp_path)
