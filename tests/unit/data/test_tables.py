"""Rows of each kind of file, and what is said of broken ones."""

from __future__ import annotations

import sys

import pytest

from slq.data import read_rows
from slq.errors import DataError, MissingExtraError


def rows_of(path):
    """The rows, with (source, message) in the place of each broken one."""
    return [(source, str(row)) if isinstance(row, DataError) else row for source, row in read_rows(path)]


def test_json_lines_have_their_line_as_source_and_blank_lines_are_skipped(folder):
    path = folder.text("a.jsonl", '\ufeff{"a": 1}\r\n\n   \n{"a": "日本 \u2028 é"}')
    assert list(read_rows(path)) == [("a.jsonl line 1", {"a": 1}), ("a.jsonl line 4", {"a": "日本 \u2028 é"})]
    assert list(read_rows(folder.jsonl("b.json-lines", [{"a": 1}]))) == [("b.json-lines line 1", {"a": 1})]
    assert list(read_rows(str(folder.jsonl("C.JSONL", [{"a": 1}])))) == [("C.JSONL line 1", {"a": 1})]


def test_broken_json_lines_are_handed_out_in_their_place(folder):
    lines = [b'{"a": 1}', b'{"a": ', b"[1]", b'"text"', b"null", b"3", b'{"a": "\xff"}', b"[" * 100_000, b"9" * 5_000, b'{"a": 2}']
    rows = rows_of(folder.text("a.jsonl", b"\n".join(lines)))
    assert (rows[0], rows[-1]) == ({"a": 1}, {"a": 2})
    expected = [
        "not valid JSON",
        "array",
        "string",
        "null",
        "number",
        "not valid UTF-8",
        "cannot be read",
        "cannot be read",
    ]
    for number, (found, complaint) in enumerate(zip(rows[1:-1], expected, strict=True), start=2):
        assert found[0] == f"a.jsonl line {number}"
        assert found[1].startswith(f"a.jsonl line {number}: "), found
        assert complaint in found[1]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_csv_and_tsv_count_lines_not_rows(folder, name, mark):
    path = folder.text(name, f'\ufeffimage{mark} caption\r\n\r\n1{mark}"two\nlines"\r\n3{mark}"a {mark} b"\n')
    assert list(read_rows(path)) == [
        (f"{name} line 3", {"image": "1", "caption": "two\nlines"}),
        (f"{name} line 5", {"image": "3", "caption": f"a {mark} b"}),
    ]


def test_broken_csv_rows_are_handed_out_in_their_place(folder):
    lines = [b"a,b", b"1,2", b"only", b"1,2,3", b"1,\xff", b'1,"2"3', b"4,5", b'6,"never closed', b"7,8"]
    rows = rows_of(folder.text("a.csv", b"\n".join(lines)))
    assert [row for row in rows if isinstance(row, dict)] == [{"a": "1", "b": "2"}, {"a": "4", "b": "5"}, {"a": "7", "b": "8"}]
    broken = dict(row for row in rows if isinstance(row, tuple))
    assert list(broken) == [f"a.csv line {number}" for number in (3, 4, 5, 6, 8)]
    assert "1 field(s) where the header has 2" in broken["a.csv line 3"]
    assert "3 field(s) where the header has 2; put values that contain ',' in double quotes" in broken["a.csv line 4"]
    assert "not valid UTF-8" in broken["a.csv line 5"]
    assert "correct the quotes" in broken["a.csv line 6"]
    assert "correct the quotes" in broken["a.csv line 8"]


@pytest.mark.parametrize(
    "content",
    ["a,a\n1,2\n", '"a,b\n1,2\n', b"a\xff,b\n", "é,b\n1,2\n".encode("utf-16-le")],
    ids=["twice", "open quote", "Latin-1", "no mark"],
)
def test_a_csv_without_usable_column_names_is_refused(folder, content):
    with pytest.raises(DataError, match=r"a.csv line 1: .*(appears twice|not valid CSV|UTF-8)"):
        rows_of(folder.text("a.csv", content))


def test_parquet_rows_keep_their_types(folder):
    rows = [{"a": "x", "b": [1, 2], "c": None}, {"a": "y", "b": [], "c": {"d": 1}}]
    assert list(read_rows(folder.parquet("a.parquet", rows))) == [("a.parquet row 1", rows[0]), ("a.parquet row 2", rows[1])]


def test_broken_parquet_is_refused(folder):
    content = folder.parquet("a.parquet", [{"a": "x" * 100}]).read_bytes()
    for broken in (b"not parquet at all", content[:-20], content[:4] + bytes(40) + content[44:]):
        with pytest.raises(DataError, match=r"a.parquet cannot be read as Parquet"):
            rows_of(folder.text("a.parquet", broken))


def test_parquet_without_pyarrow_names_the_install_command(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # what an import finds where it is not installed
    with pytest.raises(MissingExtraError, match=r'pip install "slq\[parquet\]"'):
        read_rows(folder.text("a.parquet", "PAR1"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet"])
def test_empty_and_missing_files(folder, name):
    with pytest.raises(DataError, match=f"{name} does not exist"):
        read_rows(folder.path / name)
    with pytest.raises(DataError, match=f"{name} is empty"):
        read_rows(folder.text(name, ""))


def test_files_without_rows(folder):
    paths = [folder.text("a.jsonl", "\n \n"), folder.text("a.csv", "image,caption\n\n"), folder.text("b.csv", "\n\n")]
    for path in paths:
        with pytest.raises(DataError, match=f"{path.name} holds no rows"):
            rows_of(path)


def test_unknown_suffixes_and_folders(folder):
    with pytest.raises(DataError, match=r"a.xlsx has the unknown suffix '.xlsx'; use one of .jsonl"):
        read_rows(folder.text("a.xlsx", "PK"))
    with pytest.raises(DataError, match="unknown suffix ''"):
        read_rows(folder.path / "captions")
    (folder.path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder, not a data file"):
        read_rows(folder.path / "folder.csv")
    with pytest.raises(DataError, match="cannot be opened"):
        read_rows(folder.path / "nul\0.csv")
