"""Ids of a collection's rows: the label of a source, and the name of an input in it. They can be printed, and name one input each.

    photos/2019/beach.jpg          a file of the folder photos
    shop.csv/17                    the row 17 of a table
    cat.jpg                        an image on its own

Names of files are bytes that need not be UTF-8. A byte that is not, or belongs to a character that cannot be printed, is written `%XX`,
like the `%` of a name that looks like this; everything else stands as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container
from itertools import chain, count

_ESCAPED = re.compile(r"%(?=[0-9A-F]{2})")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")


def printable(name: bytes) -> str:
    r"""A name that can be printed; `unprintable` gives the bytes back, so different names stay different.

    Args:
        name: of a file.

    Example:
        >>> printable(b"caf\xe9\n.jpg"), printable("café 100%.jpg".encode()), printable(b"%41")
        ('caf%E9%0A.jpg', 'café 100%.jpg', '%2541')
    """
    text = _ESCAPED.sub("%25", name.decode("utf-8", "surrogateescape"))
    return text if text.isprintable() else "".join(each if each.isprintable() else _escape(each) for each in text)


def unprintable(text: str) -> bytes:
    r"""The name that `printable` wrote.

    Args:
        text: what it gave.

    Example:
        >>> unprintable("caf%E9%0A.jpg"), unprintable("100%.jpg")
        (b'caf\xe9\n.jpg', b'100%.jpg')
    """
    return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), text.encode("utf-8", "surrogateescape"))


def row_id(label: str, name: bytes) -> str:
    """The id of an input's row.

    Args:
        label: of its source.
        name: of the input; empty where the source is one image.
    """
    return f"{label}/{printable(name)}" if name else label


def input_of(id_: str) -> tuple[str, bytes]:
    """The label of the source and the name of the input that `row_id` made an id of.

    Args:
        id_: of a row.
    """
    label, _, name = id_.partition("/")
    return label, unprintable(name)


def label_of(path: bytes, taken: Container[str]) -> str:
    """A label for a new source: the last part of its path, with a number behind it where it is taken.

    Args:
        path: of the source.
        taken: labels of other sources.
    """
    name = printable(os.path.basename(path)) or "root"
    return next(label for label in chain([name], (f"{name}-{number}" for number in count(2))) if label not in taken)


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
