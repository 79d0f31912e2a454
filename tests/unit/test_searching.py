"""What a query of several parts finds: the weighted sum of its parts, without its own images, equal rows as one hit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from stand_in_encoder import Indexed, StandInEncoder, vector_of

from slq.config import SearchConfig
from slq.errors import ConfigError, FingerprintMismatchError, InputError
from slq.index.collection import Collection
from slq.index.searching import Part, Query


@pytest.fixture
def c(memory_path: Path) -> Indexed:
    """Eight photos, of which `b` and `c` are equal to `a`."""
    c = Indexed(memory_path)
    for name, content in {**{name: name for name in "adefgh"}, "b": "a", "c": "a"}.items():
        c.photos.write(f"{name}.jpg", content)
    c.index(c.photos.path)
    return c


@pytest.fixture
def collection(c: Indexed) -> Collection:
    return Collection(c.path / "c", c.encoder)


def ids(result) -> list[str]:
    return [hit.id.removeprefix("photos/").removesuffix(".jpg") for hit in result.hits]


def expected(query: np.ndarray, among: str = "adefgh") -> list[str]:
    return sorted(among, key=lambda name: -float(vector_of(name.encode()) @ query))


def test_by_a_text(c, collection):
    result = collection.search("a text", top_k=4)
    assert ids(result) == expected(vector_of(b"a text"))[:4] and result.rows == 8 and result.notes == ()
    first = result.hits[0]
    assert first.score == pytest.approx(float(vector_of(ids(result)[0].encode()) @ vector_of(b"a text")), abs=1e-6)
    assert first.rank == 1 and first.image == str(c.photos.file(f"{ids(result)[0]}.jpg"))
    assert json.loads(json.dumps(result.to_dict()))["hits"][0]["id"] == first.id


def test_equal_rows_are_one_hit(collection):
    hits = {hit.id: hit for hit in collection.search("a text", top_k=10).hits}
    assert len(hits) == 6 and hits["photos/a.jpg"].duplicates == 2 and hits["photos/a.jpg"].to_dict()["duplicates"] == 2
    assert sum(hit.duplicates for hit in hits.values()) == 2 and "duplicates" not in hits["photos/d.jpg"].to_dict()
    assert len(collection.search("a text", top_k=10, fold=False).hits) == 8
    assert len(collection.search("a text", top_k=3).hits) == 3


def test_many_equal_rows_hide_nothing(memory_path):
    c = Indexed(memory_path)
    for number in range(100):
        c.photos.write(f"{number:03}.jpg", "same" if number < 95 else f"other {number}")
    c.index(c.photos.path)
    result = Collection(c.path / "c", c.encoder).search("same", top_k=3)  # as a text it has the very vector of these images
    assert [hit.duplicates for hit in result.hits] == [94, 0, 0] and len({hit.id for hit in result.hits}) == 3


@pytest.mark.parametrize("near", [0.2, 0.6])
def test_rows_that_are_nearly_equal_are_one_hit(memory_path, near):
    c = Indexed(memory_path)
    for number in range(60):
        c.photos.write(f"{number}.jpg", str(number % 50))
    c.index(c.photos.path)
    collection = Collection(c.path / "c", c.encoder)
    every = collection.search("a text", top_k=60)
    vectors = {row.id: row.vector for row in collection.rows.get([hit.id for hit in every.hits])}
    leaders: dict[str, int] = {}
    for hit in every.hits:
        nearest = [id_ for id_ in leaders if vectors[id_] @ vectors[hit.id] >= near]
        if nearest:
            leaders[nearest[0]] += 1 + hit.duplicates
        else:
            leaders[hit.id] = 0
    found = collection.search("a text", top_k=60, fold_above=near).hits
    assert {hit.id: hit.similar for hit in found} == leaders and 1 < len(leaders) < 50
    assert sum(1 + hit.similar + hit.duplicates for hit in found) == 60
    few = collection.search("a text", top_k=3, fold_above=near).hits
    assert [hit.id for hit in few] == [hit.id for hit in found[:3]] and few[0].to_dict()["rank"] == 1


def test_the_image_that_is_looked_for_is_left_out(c, collection, memory_path):
    result = collection.search(image=c.photos.file("a.jpg"), top_k=3)
    assert ids(result) == expected(vector_of(b"a"), "defgh")[:3]
    assert result.notes == ("photos/a.jpg and 2 more are left out, equal to the query.",)
    (memory_path / "copy.jpg").write_text("d")
    assert collection.search(image=memory_path / "copy.jpg").notes == ("photos/d.jpg is left out, equal to the query.",)
    assert "a" not in ids(collection.search("but blue", image=c.photos.file("a.jpg")))


def test_like_a_row(collection):
    unused = Collection(collection.folder, "no model is loaded")
    assert ids(unused.search(like="photos/d.jpg")) == expected(vector_of(b"d"), "aefgh")
    result = unused.search(like="photos/a.jpg")
    assert ids(result) == expected(vector_of(b"a"), "defgh")
    assert result.notes == ("photos/b.jpg and 1 more are left out, equal to the query.",)
    assert ids(unused.search(like="photos/a.jpg", fold=False))[:2] == ["b", "c"]
    with pytest.raises(InputError, match=r"c holds no item 'none': ids are as"):
        unused.search(like=["photos/a.jpg", "none"])


def test_parts_are_weighed(c, collection):
    def summed(*parts: tuple[float, bytes]) -> list[str]:
        return expected(sum(weight * vector_of(content) for weight, content in parts))

    assert ids(collection.search(["x", "y"])) == summed((1, b"x"), (1, b"y"))
    assert ids(collection.search(["x", "y"], weight=[1, 0.1])) == summed((1, b"x"), (0.1, b"y"))
    assert ids(collection.search("x", exclude="y")) == summed((1, b"x"), (-0.5, b"y"))
    assert ids(collection.search("x", exclude=["y", "z"], weight=[2, 1, 3])) == summed((2, b"x"), (-1, b"y"), (-3, b"z"))
    like = collection.search("x", like="photos/d.jpg", weight=[0.2, 1])
    assert ids(like) == [name for name in summed((0.2, b"x"), (1, b"d")) if name != "d"]
    best = collection.search(["x", "y"]).hits[0]
    total = vector_of(b"x") + vector_of(b"y")
    row = vector_of(best.id.removeprefix("photos/")[:1].encode())
    assert best.score == pytest.approx(float(row @ total / np.linalg.norm(total)), abs=1e-6)


def test_one_text_with_one_image_is_encoded_together(c, collection):
    together = Query.of(SearchConfig(text="but blue", image=c.photos.file("a.jpg"), exclude="y", weight=[2, 1]))
    assert together.parts == (Part("but blue", c.photos.file("a.jpg"), weight=2), Part("y", weight=-1))
    assert ids(collection.find(together)) == expected(2 * vector_of(b"abut blue") - vector_of(b"y"), "defgh")
    apart = Query.of(SearchConfig(text=["x", "y"], image=c.photos.file("a.jpg"), like="photos/d.jpg"))
    assert [part.to_dict() for part in apart.parts] == [
        {"text": "x", "weight": 1.0},
        {"text": "y", "weight": 1.0},
        {"image": str(c.photos.file("a.jpg")), "weight": 1.0},
        {"like": "photos/d.jpg", "weight": 1.0},
    ]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, ConfigError, "There is nothing to look for"),
        ({"exclude": "x"}, ConfigError, "There is nothing to look for"),
        ({"text": "x", "weight": [1, 2]}, ConfigError, "There are 2 weights and 1 parts"),
        ({"text": "x", "weight": [0]}, ConfigError, "weight must be above 0"),
        ({"text": "x", "exclude": "x", "weight": [1, 1]}, InputError, "cancel each other out"),
        ({"text": "x", "filter": "nothing"}, InputError, "is not a filter"),
        ({"text": "x", "topk": 3}, ConfigError, "unknown key 'topk'"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, said, collection):
    with pytest.raises(error, match=said):
        collection.search(**options)


def test_another_model_is_refused(c):
    with pytest.raises(FingerprintMismatchError, match=r"c was encoded by stand-in \(stand-in\), not by this model \(other\): search with"):
        Collection(c.path / "c", StandInEncoder("other")).search("x")


def test_under_a_filter(c, memory_path):
    table = c.photos.write("../shop.csv", "id,text,price\n1,x,10\n2,y,20\n3,z,30\n")
    c.index(table)
    collection = Collection(c.path / "c", c.encoder)
    assert {hit.id for hit in collection.search("x", filter="price<=20").hits} == {"shop.csv/1", "shop.csv/2"}
    result = collection.search("x", filter=["price>99", "colour=red,blue"])
    assert result.hits == () and result.rows == 11
    assert result.to_dict()["query"]["filter"] == "price >= 99 and not (price = 99) and colour is one of red, blue"


def test_images_of_names_that_are_not_utf_8_are_found_again(c, collection):
    name = c.photos.write(b"caf\xe9\n.jpg", "é")
    c.index()
    [hit] = collection.search("é", top_k=1).hits
    assert hit.id == "photos/caf%E9%0A.jpg" and hit.image is not None and os.fsencode(hit.image) == os.fsencode(name)


def test_a_reader_sees_what_is_written_meanwhile(c, collection):
    assert collection.search("new").rows == 8
    c.photos.write("new.jpg", "new")
    c.index()
    assert ids(collection.search("new"))[0] == "new"
