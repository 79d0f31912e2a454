"""Relevance judgements (qrels) as the field's tools write them.

BEIR's table of three columns, with or without its header; TREC's of four (`query iteration document relevance`); a JSON object of
objects, as pytrec_eval and ranx take it; tables of JSON lines, CSV and Parquet, as the hub has them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from slq.data.lines import NOT_UTF8, TOO_LONG, is_utf8, read_lines
from slq.data.tables import read_json, read_rows
from slq.errors import DataError, shorten

QUERY_COLUMNS = ("query-id", "query_id", "qid", "query")
CORPUS_COLUMNS = ("corpus-id", "corpus_id", "doc-id", "doc_id", "docid", "docno", "document")
SCORE_COLUMNS = ("score", "relevance", "rel", "label", "grade")
HEADER = "query-id corpus-id score"

QRELS_SUFFIXES = (".tsv", ".txt", ".qrels", ".qrel", ".trec", ".json", ".jsonl", ".csv", ".parquet")
_SHARD = re.compile(r"(?P<split>.+)-\d+-of-\d+")  # as the hub names the tables of a split

Judgement = tuple[str, str, str, object]  # source, query id, corpus id, score as it stands there


def find_qrels(folder: Path, split: str) -> list[Path]:
    """The files of a split in `folder/qrels`, several where the hub has cut a table.

    Args:
        folder: in BEIR layout.
        split: such as `test`.

    Raises:
        DataError: if there is none, or one in each of two formats.
    """
    splits: dict[str, list[Path]] = {}
    for file in sorted((folder / "qrels").glob("*")):
        if file.suffix.lower() in QRELS_SUFFIXES and file.is_file():
            match = _SHARD.fullmatch(file.stem)
            splits.setdefault(match["split"] if match else file.stem, []).append(file)
    found = splits.get(split, [])
    if not found:
        raise DataError(f"{folder / 'qrels' / split}.tsv does not exist; choose a split that the folder has: {', '.join(splits) or 'none'}")
    if len({file.suffix for file in found}) > 1:
        raise DataError(f"{folder / 'qrels'} holds {' and '.join(file.name for file in found)}; keep the one to read")
    return found


def read_qrels(path: Path) -> Iterator[Judgement]:
    """Read judgements one at a time; ids are texts, and the score is left to `relevance_of`.

    Args:
        path: the file, told by its suffix; other suffixes than those of tables and JSON are text.

    Yields:
        Where it stands, query id, corpus id, score.

    Raises:
        DataError: if the file is missing, or is not of one of these forms.
    """
    if path.suffix.lower() == ".json":
        yield from _of_json(path)
    elif path.suffix.lower() in (".jsonl", ".csv", ".parquet"):
        yield from _of_table(path)
    else:
        yield from _of_text(path)


def relevance_of(score: object, source: str) -> int:
    """A score as a relevance: a whole number, also as `1.0`; below 0, as some sets mark spam, it is 0.

    Args:
        score: as it stands in the file.
        source: where.

    Raises:
        DataError: for anything else.
    """
    try:
        number = float(score) if isinstance(score, (str, int, float)) else float("nan")
        if number == int(number):
            return max(0, int(number))
    except (ValueError, OverflowError):  # not a number, or infinite
        pass
    raise DataError(f"{source}: the score {shorten(score)!r} is not a whole number; correct it")


def _of_json(path: Path) -> Iterator[Judgement]:
    content = read_json(path, "check the path", "write the judgements again")
    if isinstance(content, list):
        yield from _of_table(path)
        return
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{path} holds no judgements; write an object of query id -> corpus id -> score")
    for query_id, judged in content.items():
        source = f"{path.name} query {shorten(query_id)!r}"
        if isinstance(judged, list) and all(isinstance(id_, (str, int)) for id_ in judged):
            judged = dict.fromkeys(map(str, judged), 1)
        if not isinstance(judged, Mapping):
            raise DataError(f"{source}: holds no judgements; write corpus id -> score, or a list of the relevant corpus ids")
        for corpus_id, score in judged.items():
            yield source, query_id, corpus_id, score


def _of_table(path: Path) -> Iterator[Judgement]:
    for source, row in read_rows(path):
        if isinstance(row, DataError):
            raise row
        query, document, score = (_column(list(row), names) for names in (QUERY_COLUMNS, CORPUS_COLUMNS, SCORE_COLUMNS))
        if query is None or document is None:
            raise DataError(f"{path} has the columns {shorten(', '.join(row))}; it must have {HEADER}")
        yield source, str(row[query]), str(row[document]), 1 if score is None else row[score]


def _of_text(path: Path) -> Iterator[Judgement]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path")
    columns: tuple[int, int, int] | None = None
    for number, line in enumerate(read_lines(path, newline=""), start=1):
        source = f"{path.name} line {number}"
        if line is None or not is_utf8(line):
            raise DataError(f"{source}: {TOO_LONG if line is None else NOT_UTF8}")
        cells = _cells(line.rstrip("\r\n"))
        if not any(cells):
            continue
        if columns is None:
            columns, is_header = _columns(cells, path)
            width = len(cells)
            if is_header:
                continue
        if len(cells) != width:
            raise DataError(f"{source}: {len(cells)} field(s) where the first line has {width}; correct the line")
        query, document, score = (cells[place] for place in columns)
        yield source, query, document, score


def _cells(line: str) -> list[str]:
    """The fields of a line: apart by tabs, and then in quotes where they hold any, or by blanks."""
    if "\t" not in line:
        return line.split()
    cells = next(csv.reader([line], delimiter="\t"), []) if '"' in line else line.split("\t")
    return [cell.strip() for cell in cells]


def _columns(cells: list[str], path: Path) -> tuple[tuple[int, int, int], bool]:
    """Where query, document and score stand, by the first line, and whether it is a header: no score stands in one."""
    named = [_column(cells, names) for names in (QUERY_COLUMNS, CORPUS_COLUMNS, SCORE_COLUMNS)]
    if all(named):
        query, document, score = (cells.index(str(name)) for name in named)
        return (query, document, score), True
    if len(cells) in (3, 4) and re.fullmatch(r"-?\d+(\.0*)?", cells[-1]):
        return (0, len(cells) - 2, len(cells) - 1), False  # TREC has the iteration, which nobody uses, in its second column
    raise DataError(
        f"{path} begins with {shorten(' '.join(cells))!r}; a line must be {HEADER}, apart by tabs, or TREC's query iteration document "
        "relevance"
    )


def _column(columns: list[str], names: tuple[str, ...]) -> str | None:
    """The first column that has one of the names."""
    return next((column for column in columns if column.lower() in names), None)
