"""Tables as people have them: every row becomes part of a pair or a failure, whatever wrote the file."""

from __future__ import annotations

import csv
import io
import json

import pytest
from folder import Folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slq.data import delimited, lines, read_items, read_pairs, read_rows, tables, texts
from slq.data.texts import texts_of_cell
from slq.errors import DataError
from slq.types import Item


def rows_of(path):
    return [row if isinstance(row, dict) else f"{source}: {row}" for source, row in read_rows(path)]


# --- separators, quotes, encodings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_separator_is_seen_from_the_header(folder, mark, name):
    path = folder.text(name, f'image{mark}caption\na.png{mark}"one, two; three"\n')
    assert rows_of(path) == [{"image": "a.png", "caption": "one, two; three"}]


def test_the_usual_separator_wins_and_excels_first_line_is_none_of_the_rows(folder):
    assert rows_of(folder.text("a.csv", "image,a;b;c;d\nx,y\n")) == [{"image": "x", "a;b;c;d": "y"}]
    assert rows_of(folder.text("b.csv", "sep=;\r\nimage;caption\r\na.png;x,y\r\n")) == [{"image": "a.png", "caption": "x,y"}]
    assert rows_of(folder.text("c.csv", "text\na dog\n")) == [{"text": "a dog"}]


LONE = [
    ('a\t"never closed\nb\tx\n', ['"never closed', "x"]),
    ('a\t"one\nb\t"two\nc\tx\n', ['"one', '"two', "x"]),
    ('a\tthe 5" pipe\nb\t"quoted" and more\n', ['the 5" pipe', '"quoted" and more']),
    ('a\t"\nb\t"\nc\tx\n', ['"', '"', "x"]),
    ('a\t"one\nb\ttwo"\n', ['"one', 'two"']),
    ('a\t"all of it"\nb\t"two\nlines"\n', ["all of it", "two\nlines"]),
    ('a\t"say ""hi"""\n', ['say "hi"']),
]


@pytest.mark.parametrize(("content", "expected"), LONE)
def test_lone_quotes_in_tsv_stand_for_themselves(folder, content, expected):
    rows = rows_of(folder.text("a.tsv", "image\tcaption\n" + content))
    assert [row["caption"] for row in rows] == expected


def test_a_lone_quote_in_csv_costs_its_own_row(folder):
    rows = rows_of(folder.text("a.csv", 'image,caption\na,x\nb,"never closed\nc,y\n"d,z\ne,"w"\n'))
    assert [row["image"] for row in rows if isinstance(row, dict)] == ["a", "c", "e"]
    assert [row.split(":")[0] for row in rows if isinstance(row, str)] == ["a.csv line 3", "a.csv line 5"]


def test_fields_of_any_length(folder):
    before = csv.field_size_limit(131_072)
    try:
        for name, mark in (("a.csv", ","), ("a.tsv", "\t")):
            assert rows_of(folder.text(name, f'a{mark}b\n1{mark}"{"x" * 200_000}"\n')) == [{"a": "1", "b": "x" * 200_000}]
    finally:
        csv.field_size_limit(max(before, lines.MAX_ROW))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(folder, encoding, end):
    content = end.join(["image,caption", "ä.png,日本 🍎", "b.png,x", ""])
    expected = [{"image": "ä.png", "caption": "日本 🍎"}, {"image": "b.png", "caption": "x"}]
    assert rows_of(folder.text("a.csv", content.encode(encoding))) == expected
    if end != "\r":
        written = end.join(json.dumps(row, ensure_ascii=False) for row in expected)
        assert rows_of(folder.text("a.jsonl", written.encode(encoding))) == expected
    assert rows_of(folder.text("a.json", json.dumps(expected).encode(encoding))) == expected


def test_utf_16_that_is_cut_off_is_refused(folder):
    with pytest.raises(DataError, match="begins as utf-16, and is not"):
        rows_of(folder.text("a.csv", "image,caption\na,b".encode("utf-16")[:-1]))


def test_columns_that_would_hide_each_other_are_refused(folder):
    with pytest.raises(DataError, match=r"'caption' of .* appears twice"):
        rows_of(folder.text("a.csv", "image,caption,caption\na,b,c\n"))
    assert "the key 'caption' appears twice" in rows_of(folder.text("a.jsonl", '{"caption": 1, "caption": 2}'))[0]


# --- JSON -----------------------------------------------------------------------------------------------------------------


def test_json_is_read_as_rows_or_as_lines(folder):
    folder.images("a.png")
    rows = [{"image": "a.png", "caption": "x"}, {"image": "a.png", "caption": "y"}]
    for content in (json.dumps(rows), json.dumps(rows, indent=2), "\n".join(map(json.dumps, rows))):
        path = folder.text("a.json", content)
        assert rows_of(path) == rows
        assert [item.text for pair in read_pairs(path).pairs for item in pair.positives] == ["x", "y"]
    assert [failure.item for failure in read_pairs(folder.text("b.json", json.dumps([3, *rows]))).failures] == ["b.json row 1"]
    with pytest.raises(DataError, match="a JSON object, not an array"):
        read_items(folder.text("c.json", '{"images": []}'))


def test_hostile_json_is_one_sentence(folder):
    for content in ("[" * 10**6, '{"a":' * 10**6, f'[{{"a": {"9" * 10**5}}}]', "[\0]", '["\ud800'.encode("utf-8", "surrogatepass")):
        for name in ("a.json", "a.jsonl"):
            with pytest.raises(DataError) as caught:
                read_pairs(folder.text(name, content))
            assert len(str(caught.value)) < 700


# --- sizes ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_rows(monkeypatch):
    for module in (lines, delimited, tables):
        monkeypatch.setattr(module, "MAX_ROW", 1000)


def test_a_row_without_end_costs_itself_alone(folder, small_rows):
    long = "x" * 5000
    path = folder.jsonl("a.jsonl", [{"query": "a", "positive": "b"}, {"query": long, "positive": "b"}, {"query": "c", "positive": "d"}])
    found = read_pairs(path)
    assert [pair.query.text for pair in found.pairs] == ["a", "c"]
    assert [failure.item for failure in found.failures] == ["a.jsonl line 2"] and "has more than" in found.failures[0].reason
    for name, mark in (("a.csv", ","), ("a.tsv", "\t")):
        content = f'query{mark}positive\na{mark}b\n"open{mark}b\nc{mark}{long}\nd{mark}e\n'
        rows = rows_of(folder.text(name, content))
        assert rows[-1] == {"query": "d", "positive": "e"}
        assert len(rows) == 4 and "has more than" in rows[2]
    folder.images("a.png")
    folder.text("a.txt", long)
    with pytest.raises(DataError, match="has more than"):
        read_pairs(folder.path)


def test_a_file_that_is_read_whole_has_a_limit(folder, monkeypatch):
    monkeypatch.setattr(tables, "MAX_JSON", 10)
    with pytest.raises(DataError, match="more than the 10 of JSON"):
        read_pairs(folder.text("a.json", '{"images": [1, 2, 3]}'))


def test_parquet_that_unpacks_to_many_times_its_size_is_refused(folder, monkeypatch):
    path = folder.parquet("a.parquet", [{"query": "a" * 100_000 + str(number), "positive": "b"} for number in range(20)])
    assert len(read_pairs(path).pairs) == 20
    monkeypatch.setattr(tables, "MAX_PARQUET_COLUMN", 1_000_000)
    monkeypatch.setattr(tables, "MAX_COMPRESSION", 5)
    with pytest.raises(DataError, match=r"the column 'query' of .* takes .* bytes once it is read"):
        read_pairs(path)


# --- what captions say ----------------------------------------------------------------------------------------------------

WORDS = [
    "nan",
    "NaN",
    "null",
    "None",
    "NA",
    "N/A",
    "#N/A",
    "inf",
    "true",
    "0",
    "1e5",
    "[a dog]",
    "[1, 2]",
    "{}",
    "-",
    '"',
    "'",
    "=1+1",
    "\\N",
]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "json"])
def test_captions_that_read_like_values_are_captions(folder, kind):
    folder.images("a.png")
    rows = [{"image": "a.png", "caption": word} for word in WORDS]
    path = {
        "csv": lambda: folder.csv("a.csv", rows),
        "tsv": lambda: folder.csv("a.tsv", rows, delimiter="\t"),
        "jsonl": lambda: folder.jsonl("a.jsonl", rows),
        "json": lambda: folder.text("a.json", json.dumps(rows)),
        "parquet": lambda: folder.parquet("a.parquet", rows),
    }[kind]()
    found = read_pairs(path)
    assert [item.text for item in found.pairs[0].positives] == WORDS and not found.failures


def test_a_value_that_is_no_number_is_no_caption(folder):
    folder.images("a.png")
    rows = ['{"image": "a.png", "caption": NaN}', '{"image": "a.png", "caption": "good"}', '{"image": "a.png", "caption": null}']
    found = read_pairs(folder.jsonl("a.jsonl", rows))
    assert [failure.item for failure in found.failures] == ["a.jsonl line 1", "a.jsonl line 3"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("cell", ['["a dog", "two dogs"]', "['a dog', 'two dogs']", ' ["a dog","two dogs"] '])
def test_a_list_in_a_cell_is_several_captions(folder, cell, kind):
    folder.images("a.png")
    found = read_pairs(getattr(folder, kind)(f"a.{kind}", [{"image": "a.png", "caption": cell}]))
    assert [item.text for item in found.pairs[0].positives] == ["a dog", "two dogs"]
    other = read_pairs(getattr(folder, kind)(f"b.{kind}", [{"query": "q", "positive": cell, "negative": cell}]))
    assert len(other.pairs[0].positives) == len(other.pairs[0].negatives) == 2


@pytest.mark.parametrize(
    "cell", ["['a' 'b']", '["a", 1]', "['a'", "[__import__('os')]", '["a"] and more', "['a', ['b']]", "[" * 5000 + "]"]
)
def test_what_is_no_list_of_texts_stays_one_text(cell):
    assert texts_of_cell(cell) == [cell]


def test_an_empty_list_in_a_cell_is_no_caption(folder):
    folder.images("a.png")
    rows = [{"image": "a.png", "caption": "[]"}, {"image": "a.png", "caption": "x"}]
    assert "missing or empty" in read_pairs(folder.csv("a.csv", rows)).failures[0].reason


# --- columns and folders --------------------------------------------------------------------------------------------------


def test_columns_of_any_name(folder):
    folder.images("pictures/a.png")
    rows = [{"file name": "a.png", "alt": "a dog", "image": "no.png", "caption": "not this"}]
    path = folder.csv("a.csv", rows)
    named = {"image_column": "file name", "text_column": "alt", "image_root": folder.path / "pictures"}
    (pair,) = read_pairs(path, **named).pairs
    assert (pair.query.image, pair.positives) == (folder.path / "pictures/a.png", (Item("a dog"),))
    assert read_items(path, **named).items["a.csv line 2"] == Item("a dog", folder.path / "pictures/a.png")
    with pytest.raises(DataError, match=r"none of: picture \+ alt; .*--image-column"):
        read_pairs(path, image_column="picture", text_column="alt")
    with pytest.raises(DataError, match="neither 'alternative' nor 'picture'"):
        read_items(path, image_column="picture", text_column="alternative")
    assert len(read_pairs(folder.csv("b.csv", [{"image": "pictures/a.png", "alt": "x"}]), text_column="alt").pairs) == 1


def test_images_stay_in_the_folder_of_their_file(folder, folder_at):
    outside, inside = folder_at("outside"), folder_at("inside")
    outside.images("secret.png")
    inside.images("a.png", "sub/b.png")
    (inside.path / "link.png").symlink_to(outside.path / "secret.png")
    (inside.path / "linked").symlink_to(outside.path)
    (inside.path / "own.png").symlink_to(inside.path / "a.png")
    escapes = ["../outside/secret.png", str(outside.path / "secret.png"), "link.png", "linked/secret.png", "sub/../../outside/secret.png"]
    escapes += [(outside.path / "secret.png").as_uri()]
    good = ["a.png", "sub/../a.png", "own.png", str(inside.path / "sub/b.png")]
    rows = [{"image": name, "text": name} for name in [*good, *escapes]]
    path = inside.jsonl("a.jsonl", rows)
    for found in (read_pairs(path), read_items(path)):
        assert [failure.item for failure in found.failures] == [f"a.jsonl line {number}" for number in range(5, 11)]
        assert all("is outside of" in failure.reason and "--allow-outside" in failure.reason for failure in found.failures)
    assert not read_pairs(path, allow_outside=True).failures and not read_items(path, allow_outside=True).failures
    listed = read_items(inside.path)
    assert set(listed.items) == {"a.png", "own.png", "sub/b.png"} and [each.item for each in listed.failures] == ["link.png"]
    with pytest.raises(DataError, match="is outside of"):
        read_pairs(outside.jsonl("b.jsonl", [{"image": "/etc/hostname", "text": "x"}]))


def test_an_output_of_slq_is_one_whole(folder):
    folder.images("images/a.png")
    folder.text(".slq.json", "{}")
    path = folder.jsonl("set/a.jsonl", [{"image": "../images/a.png", "text": "x"}])
    assert not read_pairs(path).failures
    (folder.path / ".slq.json").unlink()
    with pytest.raises(DataError, match="is outside of"):
        read_pairs(path)


# --- nothing is lost ------------------------------------------------------------------------------------------------------

CELLS = st.text(st.sampled_from("ab \"',;\t|[]\\é🍎\x00\u2028"), max_size=8)
CAPTIONS = st.one_of(CELLS, st.sampled_from(["", "nan", '["x", "y"]', "[]", '"', 'a "quoted" word']))
IMAGES = st.sampled_from(["a.png", "b.png", "no.png", "", "../a.png"])


@pytest.fixture(scope="module")
def tables_folder(tmp_path_factory) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("tables"))
    folder.images("a.png", "b.png")
    return folder


def check_nothing_is_lost(path, rows, line_of):
    """Every row's caption is in a pair of its image, or the row is among the failures; and nothing else is."""
    try:
        found = read_pairs(path)
    except DataError as error:  # no row is left
        assert "cannot be used, and none is left" in str(error) or "holds no rows" in str(error), error
        assert not any(image in ("a.png", "b.png") and texts_of_cell(caption) and caption.strip() for image, caption in rows)
        return
    told = {pair.query.image.name: {item.text for item in pair.positives} for pair in found.pairs}
    failed = {failure.item for failure in found.failures}
    for number, (image, caption) in enumerate(rows):
        wanted = {text for text in texts_of_cell(caption)}
        is_in = bool(wanted) and wanted <= told.get(image, set())
        assert is_in or line_of(number) in failed, (number, image, caption)
    assert found.num_rows == len(rows)
    assert sum(map(len, told.values())) <= sum(len(texts_of_cell(caption)) for _, caption in rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(IMAGES, CAPTIONS), min_size=1, max_size=8), mark=st.sampled_from(",;\t|"))
def test_of_a_table_written_by_the_book_nothing_is_lost(tables_folder, rows, mark):
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=mark, lineterminator="\n")
    writer.writerow(["image", "caption"])
    starts = []
    for row in rows:
        starts.append(stream.getvalue().count("\n") + 1)
        writer.writerow(row)
    path = tables_folder.text("a.csv", stream.getvalue())
    check_nothing_is_lost(path, rows, lambda number: f"a.csv line {starts[number]}")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(IMAGES, CAPTIONS), min_size=1, max_size=8))
def test_of_json_lines_nothing_is_lost(tables_folder, rows):
    path = tables_folder.jsonl("a.jsonl", [{"image": image, "caption": caption} for image, caption in rows])
    check_nothing_is_lost(path, rows, lambda number: f"a.jsonl line {number + 1}")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(captions=st.lists(st.text(st.sampled_from("ab \"',;é"), min_size=1, max_size=8), min_size=1, max_size=8))
def test_of_tabs_without_any_quoting_nothing_is_lost(tables_folder, captions):
    """A line is a row there, whatever quotes its caption holds; a quoted caption loses at most its quotes."""
    path = tables_folder.text("a.tsv", "image\tcaption\n" + "".join(f"a.png\t{caption}\n" for caption in captions))
    found = rows_of(path)
    assert len(found) == len(captions)
    for row, caption in zip(found, captions, strict=True):
        assert isinstance(row, dict) and row["caption"].replace('"', "") == caption.replace('"', "")


def test_the_longest_list_is_bounded():
    assert texts_of_cell('["a"' + " " * texts._LONGEST_LIST + "]") != ["a"]
