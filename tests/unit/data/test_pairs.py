"""Training pairs from every column convention and kind of file, and the rows that cannot be used."""

from __future__ import annotations

import pytest

from slq.data import read_pairs
from slq.errors import DataError
from slq.types import Item, Pair

TWO_CAPTIONS = [{"image": "a.png", "caption": "a dog"}, {"image": "b.png", "caption": "a cat"}]


def text(*texts):
    return tuple(Item(text=value) for value in texts)


def one_pair(folder, row):
    """The pair of a file of this one row, without its source."""
    (pair,) = read_pairs(folder.jsonl("one.jsonl", [row])).pairs
    assert pair.source == "one.jsonl line 1"
    return Pair(pair.query, pair.positives, pair.negatives)


def reasons(pair_file):
    return {failure.item: failure.reason for failure in pair_file.failures}


@pytest.mark.parametrize("column", ["caption", "captions", "text"])
def test_captions(folder, column):
    folder.images("a.png")
    image = Item(image=folder.path / "a.png")
    assert one_pair(folder, {"image": "a.png", column: "a dog"}) == Pair(image, text("a dog"))
    assert one_pair(folder, {"image": "a.png", column: ["a dog", "a cat", "a dog"]}) == Pair(image, text("a dog", "a cat"))


def test_caption_rows_of_one_image_are_joined_in_order(folder):
    folder.images("a.png", "b.png")
    rows = [("a.png", "1"), ("b.png", "2"), ("./a.png", "3"), ("a.png", ["1", "4"]), ("b.png", "5")]
    found = read_pairs(folder.jsonl("captions.jsonl", [{"image": image, "caption": caption} for image, caption in rows]))
    assert found.pairs == (
        Pair(Item(image=folder.path / "a.png"), text("1", "3", "4"), source="captions.jsonl line 1"),
        Pair(Item(image=folder.path / "b.png"), text("2", "5"), source="captions.jsonl line 2"),
    )


def test_pairs_of_other_conventions_are_not_joined(folder):
    folder.images("a.png")
    rows = [{"image": "a.png", "caption": "1"}, {"query_image": "a.png", "positive": "2"}, {"image": "a.png", "caption": "3"}]
    assert [pair.positives for pair in read_pairs(folder.jsonl("a.jsonl", rows)).pairs] == [text("1", "3"), text("2")]
    rows = [{"query": "q", "positive": "1"}, {"query": "q", "positive": "2"}]
    assert [pair.positives for pair in read_pairs(folder.jsonl("a.jsonl", rows)).pairs] == [text("1"), text("2")]


@pytest.mark.parametrize("query", ["anchor", "query"])
def test_sentence_transformers(folder, query):
    assert one_pair(folder, {query: "q", "positive": "p"}) == Pair(Item(text="q"), text("p"))
    row = {query: "q", "negative_10": "n10", "negative_2": "n2", "positive": "p", "negative": "n", "negative_3": "", "score": 1}
    assert one_pair(folder, row) == Pair(Item(text="q"), text("p"), text("n", "n2", "n10"))


def test_flag_embedding(folder):
    row = {"query": "q", "pos": ["p1", "p2"], "neg": ["n1", "n2"], "pos_scores": [0.5, 0.25], "prompt": "unused"}
    assert one_pair(folder, row) == Pair(Item(text="q"), text("p1", "p2"), text("n1", "n2"))
    assert one_pair(folder, {"query": "q", "pos": "p", "neg": []}) == Pair(Item(text="q"), text("p"))


def test_mmeb(folder):
    folder.images("q.png", "p.png", "n.png")
    query, positive, negative = (Item(image=folder.path / name) for name in ("q.png", "p.png", "n.png"))
    marked = "<|image_1|>\nWhat is this?"
    row = {
        "qry": marked,
        "qry_image_path": "q.png",
        "pos_text": "a dog",
        "pos_image_path": "",
        "neg_text": "",
        "neg_image_path": "",
    }
    assert one_pair(folder, row) == Pair(Item("What is this?", folder.path / "q.png"), text("a dog"))
    row = {"qry": "<|image_1|>", "qry_image_path": "q.png", "pos_text": "", "pos_image_path": "p.png", "neg_image_path": "n.png"}
    assert one_pair(folder, row) == Pair(query, (positive,), (negative,))
    row = {"qry": "find it", "qry_image_path": "", "pos_text": ["<|image_1|>", "x"], "pos_image_path": ["p.png", ""]}
    assert one_pair(folder, row) == Pair(Item(text="find it"), (positive, Item(text="x")))


def test_objects_and_image_columns_give_images(folder):
    folder.images("a.png", "b.png")
    a, b = folder.path / "a.png", folder.path / "b.png"
    row = {"anchor": {"text": "change it", "image": "a.png"}, "positive": [{"image": "b.png"}, {"text": "b", "image": None}, "c"]}
    assert one_pair(folder, row) == Pair(Item("change it", a), (Item(image=b), *text("b", "c")))
    assert one_pair(folder, {"query": "q", "query_image": "a.png", "positive_image": "b.png"}) == Pair(Item("q", a), (Item(image=b),))
    assert one_pair(folder, {"anchor_image": "a.png", "positive": "p"}) == Pair(Item(image=a), text("p"))
    row = {"query": "q", "positive": "p", "negative_image": "a.png", "negative_1": "n", "negative_1_image": "b.png"}
    assert one_pair(folder, row).negatives == (Item(image=a), Item("n", b))
    row = {"query": "q", "positive": ["x", "y"], "positive_image": ["a.png", "b.png"]}
    assert one_pair(folder, row).positives == (Item("x", a), Item("y", b))
    row = {"query": "q", "query_image": "a.png", "positive": {"text": "p"}, "positive_image": "b.png"}
    assert one_pair(folder, row) == Pair(Item("q", a), (Item("p", b),))


def test_paths_are_relative_to_the_file_or_absolute_where_that_is_allowed(folder):
    folder.images("images/a.png", "b.png")
    found = read_pairs(
        folder.jsonl("lists/train.jsonl", [{"image": f"../{name}", "text": "x"} for name in ("images/a.png", "b.png")]),
        allow_outside=True,
    )
    assert [pair.query.image for pair in found.pairs] == [folder.path / "lists/../images/a.png", folder.path / "lists/../b.png"]
    assert found.folder == folder.path / "lists"
    assert one_pair(folder, {"image": str(folder.path / "b.png"), "text": "x"}).query.image == folder.path / "b.png"


def test_csv_tsv_jsonl_and_parquet_give_equal_pairs(folder):
    folder.images("a.png", "b.png")
    captions = [*TWO_CAPTIONS, {"image": "a.png", "caption": 'quoted "x", and\nقطة 🍎'}]
    triplets = [{"query": "q", "positive": "p", "negative": "", "query_image": ""}]
    for name, rows in (("captions", captions), ("triplets", triplets)):
        files = [folder.jsonl(f"{name}.jsonl", rows), folder.csv(f"{name}.csv", rows), folder.parquet(f"{name}.parquet", rows)]
        files.append(folder.csv(f"{name}.tsv", rows, delimiter="\t"))
        found = [[Pair(pair.query, pair.positives, pair.negatives) for pair in read_pairs(file).pairs] for file in files]
        assert len(found[0]) == {"captions": 2, "triplets": 1}[name]
        assert all(pairs == found[0] for pairs in found)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_a_folder_with_a_captions_file(folder, kind):
    folder.images("a.png", "b.png")
    if kind == "tsv":
        folder.csv("captions.tsv", TWO_CAPTIONS, delimiter="\t")
    else:
        getattr(folder, kind)(f"captions.{kind}", TWO_CAPTIONS)
    found = read_pairs(folder.path)
    assert [pair.positives for pair in found.pairs] == [text("a dog"), text("a cat")]
    assert (found.path, found.folder) == (folder.path / f"captions.{kind}", folder.path)


def test_a_folder_with_two_captions_files_is_refused(folder):
    folder.jsonl("captions.jsonl", TWO_CAPTIONS)
    folder.csv("captions.csv", TWO_CAPTIONS)
    with pytest.raises(DataError, match=r"captions.jsonl and captions.csv; give the path of the one"):
        read_pairs(folder.path)


def test_a_folder_of_images_with_text_files(folder):
    folder.images("a.png", "sub/b.jpg", "bare.png", "blank.png", "latin.png")
    folder.text("a.txt", "\ufeffa dog\r\n\r\n  a brown dog \na dog")
    folder.text("sub/b.txt", "a cat")
    folder.text("blank.txt", " \n\n")
    folder.text("latin.txt", b"caf\xe9")
    found = read_pairs(folder.path)
    assert found.pairs == (
        Pair(Item(image=folder.path / "a.png"), text("a dog", "a brown dog"), source="a.txt"),
        Pair(Item(image=folder.path / "sub/b.jpg"), text("a cat"), source="sub/b.txt"),
    )
    assert list(reasons(found)) == ["bare.png", "blank.txt", "latin.txt"]
    assert "no caption file bare.txt" in reasons(found)["bare.png"]
    assert "holds no caption" in reasons(found)["blank.txt"]
    assert "not valid UTF-8 in line 1" in reasons(found)["latin.txt"]
    with pytest.raises(DataError, match=r"3 row\(s\) cannot be used; the first is bare.png"):
        read_pairs(folder.path, strict=True)


def test_folders_without_pairs(folder, folder_at):
    with pytest.raises(DataError, match=r"holds neither a captions file .* nor images"):
        read_pairs(folder_at("empty").path)
    bare = folder_at("bare")
    bare.images("a.png")
    with pytest.raises(DataError, match=r"none is left; the first is a.png: the image has no caption file"):
        read_pairs(bare.path)
    with pytest.raises(DataError, match=r"unknown suffix|does not exist"):
        read_pairs(folder.path / "missing")


BAD_ROWS = {
    "missing image": ({"image": "no.png", "caption": "x"}, "no.png does not exist"),
    "no image named": ({"image": "", "caption": "x"}, "'image' is missing or empty"),
    "null image": ({"image": None, "caption": "x"}, "'image' is missing or empty"),
    "an address": ({"image": "https://example.org/a.png", "caption": "x"}, "nothing is fetched"),
    "an empty cell of the hub": ({"image": {"bytes": None, "path": None}, "caption": "x"}, "neither 'bytes' nor 'path' filled in"),
    "empty caption": ({"image": "a.png", "caption": ""}, "'caption' is missing or empty"),
    "null caption": ({"image": "a.png", "caption": None}, "'caption' is missing or empty"),
    "white space": ({"image": "a.png", "caption": " \n"}, "'caption': the text is only white space"),
    "no captions": ({"image": "a.png", "captions": []}, "'captions' is missing or empty"),
    "one empty caption": ({"image": "a.png", "captions": ["x", ""]}, "'captions': the text is empty"),
    "a number": ({"image": "a.png", "caption": 7}, "'caption': a text must be a str, not int"),
    "surrogate": ('{"image": "a.png", "caption": "\\ud83d"}', "surrogate"),
    "no caption column": ({"image": "a.png", "title": "x"}, r"its columns ('image', 'title') fit none of: image + caption;"),
    "empty object": ({"query": {"txt": "x"}, "positive": "p"}, "'query' is an object with neither 'text' nor 'image'"),
    "two images": ({"query": {"image": "a.png"}, "query_image": "a.png", "pos": "p"}, "both name an image"),
    "two queries": ({"query": ["a", "b"], "pos": "p"}, "holds 2 values; give one query per row"),
    "uneven lists": ({"query": "q", "positive": ["x", "y"], "positive_image": "a.png"}, "holds 2 value(s) and 'positive_image' 1"),
    "no positive": ({"query": "q", "positive": ""}, "'positive' or 'positive_image' is missing or empty"),
    "missing negative": ({"query": "q", "positive": "p", "negative_image": "no.png"}, "no.png does not exist"),
    "broken JSON": ('{"image": ', "not valid JSON"),
}


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_a_failure_with_its_line_and_reason(folder, row, reason):
    folder.images("a.png")
    path = folder.jsonl("a.jsonl", [{"image": "a.png", "caption": "good"}, row, {"query": "q", "positive": "p"}])
    found = read_pairs(path)
    assert [pair.source for pair in found.pairs] == ["a.jsonl line 1", "a.jsonl line 3"]
    assert found.pairs[0].positives == text("good")
    (failure,) = found.failures
    assert failure.item == "a.jsonl line 2"
    assert reason in failure.reason
    assert "line 2" not in failure.reason, "the line is said once"
    with pytest.raises(DataError, match=r"a.jsonl: 1 row\(s\) cannot be used; the first is a.jsonl line 2: "):
        read_pairs(path, strict=True)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_file_that_lacks_columns_is_refused_with_those_it_has(folder, kind):
    path = getattr(folder, kind)(f"a.{kind}", [{"image": "a.png", "label": "x"}] * 3)
    with pytest.raises(DataError, match=r"has the columns 'image', 'label', which fit none of: image \+ caption; anchor"):
        read_pairs(path)


def test_a_file_without_a_usable_row_is_refused(folder):
    path = folder.jsonl("a.jsonl", [{"image": "x.png", "caption": "x"}, {"image": "y.png", "caption": "y"}])
    with pytest.raises(DataError, match=r"2 row\(s\) cannot be used, and none is left; the first is a.jsonl line 1: .*x.png"):
        read_pairs(path)
    with pytest.raises(DataError, match=r"none is left; the first is a.jsonl line 1: not valid JSON"):
        read_pairs(folder.jsonl("a.jsonl", ["{"]))


def test_a_thousand_rows_with_ten_bad_ones(folder):
    folder.images(*(f"{number}.png" for number in range(5)))
    rows: list = [{"query": f"q{number}", "positive_image": f"{number % 5}.png"} for number in range(1000)]
    bad = list(range(50, 1000, 100))
    for place, number in enumerate(bad):
        rows[number] = ["{broken", {"query": "", "positive": "p"}, {"query": "q", "positive_image": "no.png"}, {"other": 1}][place % 4]
    found = read_pairs(folder.jsonl("train.jsonl", rows))
    assert len(found.pairs) == 990
    assert [failure.item for failure in found.failures] == [f"train.jsonl line {number + 1}" for number in bad]
    assert [pair.query.text for pair in found.pairs] == [f"q{number}" for number in range(1000) if number not in bad]
    with pytest.raises(DataError, match=r"10 row\(s\) cannot be used; the first is train.jsonl line 51: not valid JSON"):
        read_pairs(found.path, strict=True)


def test_images_are_not_opened(folder):
    folder.text("a.png", "not an image, which is found when it is embedded")
    assert one_pair(folder, {"image": "a.png", "caption": "x"}).query.image == folder.path / "a.png"
