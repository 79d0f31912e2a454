"""What counts as a usable text."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from slq.data.lines import TOO_LONG, is_utf8, read_lines
from slq.errors import DataError, TextError, shorten

_LONGEST_LIST = 2**20  # characters of a cell that may be a list of texts


def check_text(text: object) -> str:
    """Return a text unchanged if it can be encoded; any script and length is fine, the model truncates.

    Args:
        text: what should be one.

    Raises:
        TextError: if it is not a str, is empty or only white space, or cannot be written as UTF-8.
    """
    if not isinstance(text, str):
        raise TextError(f"a text must be a str, not {type(text).__name__}; convert it first")
    if not text:
        raise TextError("the text is empty; give it some words or leave it out")
    if text.isspace():
        raise TextError("the text is only white space; give it some words or leave it out")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"the text holds half of a surrogate pair at character {error.start + 1}, which UTF-8 cannot write; "
            "decode it again from its source"
        ) from None
    return text


def texts_of_cell(text: Any) -> list[Any]:
    """The texts of a cell: several where it holds a list of texts as JSON or Python writes it, such as `["a dog", "two dogs"]`.

    Args:
        text: what the cell holds.

    Example:
        >>> texts_of_cell('["a dog", "two dogs"]'), texts_of_cell("[a dog]")
        (['a dog', 'two dogs'], ['[a dog]'])
    """
    if not isinstance(text, str) or len(text) > _LONGEST_LIST:
        return [text]
    cell = text.strip()
    if cell == "[]":
        return []
    if not (cell.startswith(("['", '["')) and cell.endswith("]")):
        return [text]
    try:
        values = json.loads(cell)
    except (ValueError, RecursionError):
        try:
            values = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [text]
        if repr(values) != cell:  # numpy writes ['a' 'b'], which Python reads as one text
            return [text]
    return values if isinstance(values, list) and all(isinstance(value, str) for value in values) else [text]


def read_captions(path: Path) -> list[str]:
    """The captions of an image in a text file of its own, one a line.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is none.
        DataError: if it holds no caption, is not UTF-8, or cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    texts = []
    for number, line in enumerate(read_lines(path, newline="\n"), start=1):  # a vertical tab or the like belongs to a text
        if line is None:
            raise DataError(f"line {number}: {TOO_LONG}")
        if not is_utf8(line):
            raise DataError(f"not valid UTF-8 in line {number}; save the file as UTF-8")
        texts += [check_text(line.strip())] if line.strip() else []
    if not texts:
        raise DataError(f"the caption file {shorten(path.name)} holds no caption; write one per line")
    return texts
