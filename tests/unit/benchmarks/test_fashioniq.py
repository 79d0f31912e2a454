"""FashionIQ from its own files and from the hub's tables: three categories, two galleries, two orders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_scored import COMMIT, encoded, hit, hub_copy, image, write_json, write_parquet

from slq.benchmarks import load_benchmark
from slq.errors import DataError
from slq.types import Item

pytestmark = pytest.mark.usefixtures("own_cache")

CATEGORIES = ("dress", "shirt", "toptee")


def query(candidate: str, target: str, captions: tuple[str, ...] = ("is red.", "has no sleeves")) -> dict:
    return {"target": target, "candidate": candidate, "captions": list(captions)}


def fashioniq(folder: Path, **queries: list) -> Path:
    """Each category has five images D0 ... D4 (S0 ..., T0 ...), of which queries name three."""
    for category in CATEGORIES:
        letter = category[0].upper()
        names = [f"{letter}{number}" for number in range(5)]
        own = queries.get(category, [query(names[0], names[1]), query(names[1], names[2])])
        write_json(folder / f"captions/cap.{category}.val.json", own)
        write_json(folder / f"image_splits/split.{category}.val.json", names)
        for number, name in enumerate(names):
            image(folder / f"images/{name}.{'png' if number % 2 else 'jpg'}", number)
    return folder


def test_categories_and_their_average(tmp_path):
    found = load_benchmark("fashioniq", fashioniq(tmp_path), prompts=False)
    assert [one.name for one in found.sets] == list(CATEGORIES) and found.averages == {"average": CATEGORIES}
    dress = found.sets[0]
    assert dress.queries == {
        "dress 0": Item("is red, has no sleeves", tmp_path / "images/D0.jpg"),
        "dress 1": Item("is red, has no sleeves", tmp_path / "images/D1.png"),
    }
    assert list(dress.corpus) == ["D0", "D1", "D2", "D3", "D4"] and dress.corpus["D3"] == Item(image=tmp_path / "images/D3.png")
    assert dress.qrels == {"dress 0": {"D1": 1}, "dress 1": {"D2": 1}}
    assert dress.depths == (10, 50) and dress.excluded == {}
    assert "gallery of the whole split, the states of both orders of the remarks added, reference image not masked" in found.protocol
    assert "2 queries of dress in place of 2,017, 5 images of dress in place of 3,817" in found.protocol


def test_the_val_gallery_is_what_queries_name(tmp_path):
    found = load_benchmark("fashioniq", fashioniq(tmp_path), "val")
    assert list(found.sets[1].corpus) == ["S0", "S1", "S2"]
    assert "only the images that queries name (the easier VAL split)" in found.protocol and "in place of 2,628" in found.protocol


def test_both_orders_of_the_remarks_are_one_query(tmp_path):
    dress = load_benchmark("fashioniq", fashioniq(tmp_path), prompts=False).sets[0]
    first, second = dress.encoded_queries["dress 0"]
    assert (first.text, second.text) == ("is red, has no sleeves", "has no sleeves, is red") and first.image == second.image
    assert dress.added.keys() == dress.queries.keys()
    prompted = load_benchmark("fashioniq", tmp_path).sets[0]
    assert prompted.added["dress 0"].text.startswith("Change the style of this dress to has no sleeves, is red. Describe")
    assert len(load_benchmark("fashioniq", tmp_path, "val").sets[2].added) == 2


@pytest.mark.parametrize(("variant", "images"), [("original-one-order", 5), ("val-one-order", 3)])
def test_one_order_alone(tmp_path, variant, images):
    found = load_benchmark("fashioniq", fashioniq(tmp_path), variant)
    assert [one.name for one in found.sets] == list(CATEGORIES) and all(one.added == {} for one in found.sets)
    assert len(found.sets[1].corpus) == images and "remarks in the order of the file" in found.protocol


def test_perfect_random_and_constant_scores(tmp_path):
    names = [f"D{number}" for number in range(200)]
    fashioniq(tmp_path, dress=[query(names[number], names[number + 1]) for number in range(50)])
    write_json(tmp_path / "image_splits/split.dress.val.json", names)
    for name in names:
        image(tmp_path / f"images/{name}.jpg")
    dress = load_benchmark("fashioniq", tmp_path).sets[0]
    assert hit(dress, 10) == 1.0 and hit(dress, 50, "constant") == 0.0
    assert 0.05 < hit(dress, 50, "random") < 0.45, "a quarter by chance"


def test_prompts_are_the_default(tmp_path):
    found = load_benchmark("fashioniq", fashioniq(tmp_path))
    assert found == load_benchmark("fashioniq", tmp_path, prompts=True)
    dress, _, toptee = found.sets
    asked = "Change the style of this dress to is red, has no sleeves. Describe this modified dress in one word based on its style:"
    assert dress.queries["dress 0"].text == asked
    assert toptee.corpus["T0"].text == "Describe this shirt in one word based on its style:"
    assert "{category}" in found.prompts["corpus"] and "with prompts ('shirt' for toptee, as E5-V)" in found.protocol


def test_missing_images_count_as_missed(tmp_path):
    fashioniq(tmp_path)
    (tmp_path / "images/D1.png").unlink()  # a target, and the reference of the other query
    dress = load_benchmark("fashioniq", tmp_path).sets[0]
    assert [failure.item for failure in dress.failures] == ["D1"] and set(dress.queries) == {"dress 0", "dress 1"}
    assert "D1.jpg or D1.png or D1.jpeg is not in" in dress.failures[0].reason
    assert hit(dress, 10) == 0.0
    for number in range(5):
        for suffix in ("jpg", "png"):
            (tmp_path / f"images/D{number}.{suffix}").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"none of the 5 images is there: .*; fetch the images that image_url names"):
        load_benchmark("fashioniq", tmp_path)


@pytest.mark.parametrize(
    ("queries", "complaint"),
    [
        ([{"candidate": "D0", "captions": ["a", "b"]}], "entry 0: there is no 'target', as in the test split, whose labels are hidden"),
        ([query("D0", "D1", ("one",))], "entry 0: a query has two captions, not 1"),
        ([query("D0", "D9")], "cap.dress.val.json: the image D9 is not in split.dress.val.json; take both from one version"),
        ([query("", "D1")], "'candidate' must be a text, not ''"),
    ],
)
def test_what_is_wrong_with_the_captions_is_said(tmp_path, queries, complaint):
    with pytest.raises(DataError, match=complaint):
        load_benchmark("fashioniq", fashioniq(tmp_path, dress=queries))


def test_missing_and_wrong_files(tmp_path):
    fashioniq(tmp_path)
    (tmp_path / "captions/cap.toptee.val.json").unlink()
    with pytest.raises(DataError, match=r"cap.toptee.val.json does not exist; clone github.com/XiaoxiaoGuo/fashion-iq there"):
        load_benchmark("fashioniq", tmp_path)
    write_json(tmp_path / "image_splits/split.toptee.val.json", [7])
    with pytest.raises(DataError, match="the entries must be names of images"):
        load_benchmark("fashioniq", tmp_path)


def hub(cache: Path, categories: tuple[str, ...]) -> None:
    cell = {"bytes": encoded(0), "path": None}
    rows = [
        {"candidate": cell, "candidate_id": "A", "target": cell, "target_id": "B", "caption": ["x", "y."], "category": name, "split": "val"}
        for name in categories
    ]
    write_parquet(hub_copy(cache / "hub", "royokong/fashioniq_val") / "data/val-00000-of-00001.parquet", rows)
    images = [
        {"id": id_, "img": {"bytes": encoded(n), "path": None}, "category": name} for name in CATEGORIES for n, id_ in enumerate("ABC")
    ]
    images.append({"id": "D", "img": {"bytes": None, "path": None}, "category": "shirt"})
    write_parquet(hub_copy(cache / "hub", "royokong/fashioniq_val_imgs") / "data/val-00000-of-00001.parquet", images)


def test_the_hubs_tables(own_cache):
    hub(own_cache, CATEGORIES)
    found = load_benchmark("fashioniq", prompts=False)
    shirt = found.sets[1]
    assert found.revision == f"{COMMIT}+{COMMIT}" and list(shirt.corpus) == ["A", "B", "C"]
    assert [failure.item for failure in shirt.failures] == ["D"] and found.sets[0].failures == ()
    assert shirt.queries["shirt 0"] == Item("x, y", shirt.corpus["A"].image) and shirt.qrels == {"shirt 0": {"B": 1}}
    assert hit(shirt, 10) == 1.0


def test_a_category_that_the_hubs_table_lacks(own_cache):
    hub(own_cache, ("dress", "shirt"))
    with pytest.raises(DataError, match="has no queries of the category 'toptee'"):
        load_benchmark("fashioniq")
