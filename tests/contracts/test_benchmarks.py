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


def spoiled(**changes: object) -> Benchmark:
    """The benchmark of a BEIR folder with its one set changed."""
    right = benchmarks.get("beir")

    def load(*asked: object) -> object:
        found = right.load(*asked)
        return replace(found, sets=(replace(found.sets[0], **changes),))

    return replace(right, load=load)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"qrels": {"q": {"z": 1}}}, r"'q' is answered by \['z'\], neither in the corpus nor among the failures"),
        ({"queries": {"q": Item("what barks"), "p": Item("?")}}, "the query 'p' has no answer"),
        ({"clusters": {"z": "dogs"}}, "clusters names queries that are not there"),
        ({"candidates": {"q": ("a", "z")}}, "candidates of 'q' are not in the corpus"),
        ({"candidates": {"q": ("a", "a")}}, "a candidate of 'q' comes twice"),
        ({"excluded": {"q": frozenset({"a"})}}, "an answer of 'q' is excluded"),
        ({"depths": (5, 1)}, r"depths \(5, 1\)"),
        ({"depths": (3,)}, "info.headline names metrics that no set is scored by: hit@1, hit@10, hit@5"),
        ({"corpus": {}}, "has no queries or no corpus"),
    ],
)
def test_the_contract_names_what_does_not_hold(changes, complaint, tmp_path):
    beir(tmp_path)
    with pytest.raises(AssertionError, match=complaint):
        check_benchmark(spoiled(**changes), tmp_path)


def test_the_contract_asks_for_the_same_data_each_time(tmp_path):
    beir(tmp_path)
    counted = iter(range(100))
    right = benchmarks.get("beir")
    random = replace(right, load=lambda *asked: replace(right.load(*asked), revision=f"sha256:{next(counted)}"))
    with pytest.raises(AssertionError, match="loading twice gives other data"):
        check_benchmark(random, tmp_path)
