"""Lines of text files in the encodings that exist, one at a time, none of them longer than memory should hold."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from slq.errors import DataError, shorten

MAX_ROW = 64 * 2**20  # characters of a row: an image of 48 MB as base64
TOO_LONG = f"the row has more than {MAX_ROW:,} characters; shorten it, or keep images in files of their own"
NOT_UTF8 = "not valid UTF-8; save the file as UTF-8"

_MARKS = (  # in this order: the mark of UTF-16 begins that of UTF-32
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def encoding_of(begin: bytes) -> str:
    """The encoding that a byte order mark tells; UTF-8 without one.

    Args:
        begin: the first four bytes of a file.
    """
    return next((name for mark, name in _MARKS if begin.startswith(mark)), "utf-8")


def read_lines(path: Path, newline: str) -> Iterator[str | None]:
    r"""Lines with their ends.

    Args:
        path: the file.
        newline: where lines end: `\n`, or empty for `\r` and `\r\n` too.

    Yields:
        A line, in which bytes that are not UTF-8 are lone surrogates, so that only their rows are lost; None for one that is longer than
        `MAX_ROW`.

    Raises:
        DataError: if the file cannot be read, or is not in the encoding that its byte order mark says.
    """
    try:
        with path.open("rb") as file:
            encoding = encoding_of(file.read(4))
        errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
        with path.open(encoding=encoding, errors=errors, newline=newline) as stream:
            while line := stream.readline(MAX_ROW):
                if len(line) < MAX_ROW or line.endswith(("\n", "\r")):
                    yield line
                    continue
                while (rest := stream.readline(MAX_ROW)) and not rest.endswith(("\n", "\r")):
                    pass
                yield None
    except UnicodeDecodeError as error:
        raise DataError(f"{shorten(path)} begins as {encoding}, and is not ({error.reason}); save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{shorten(path)} cannot be read ({error.strerror}); check its path and permissions") from None


def is_utf8(text: str) -> bool:
    """Whether a text holds no bytes that are not UTF-8.

    Args:
        text: of `read_lines`.
    """
    return text.isascii() or not _SURROGATE.search(text)
