"""Which columns of a table mean query, positive, negative and image: one table for all conventions in use.

A convention is seen from the names of a row's columns; the first that fits is taken. Columns that no convention knows are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

ID_COLUMNS = ("_id", "id")  # of an item; its line where it has neither
CAPTION_COLUMNS = ("caption", "captions", "text")


@dataclass(frozen=True)
class Side:
    """The columns of one side of a pair.

    Attributes:
        text: column of the texts, if there is one.
        image: column of the images, if there is one.
        marker: stands in the texts for an image, and is no word of theirs.
    """

    text: str | None = None
    image: str | None = None
    marker: str = ""

    def __str__(self) -> str:
        return " or ".join(map(repr, self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that there are."""
        return tuple(column for column in (self.text, self.image) if column)

    def is_in(self, columns: Collection[str]) -> bool:
        """Whether a row has any of the columns.

        Args:
            columns: of the row or table, by name.
        """
        return any(name in columns for name in self.names)


@dataclass(frozen=True)
class Columns:
    """What the columns of one row mean.

    Attributes:
        query: the query.
        positive: what matches it.
        negatives: what is known not to match it.
        are_captions: whether rows of one image are to be joined.
    """

    query: Side
    positive: Side
    negatives: tuple[Side, ...] = ()
    are_captions: bool = False


@dataclass(frozen=True)
class Convention:
    """One way of naming columns.

    Attributes:
        fits: how it is named to a user.
        queries: what may hold the query, the first that a row has.
        positives: what may hold the positives, the first that a row has.
        negatives: what holds negatives; `negative` also stands for `negative_1`, `negative_2`, ...
        are_captions: whether rows of one image are to be joined.
    """

    fits: str
    queries: tuple[Side, ...]
    positives: tuple[Side, ...]
    negatives: tuple[Side, ...] = ()
    are_captions: bool = False


def _beside(name: str) -> Side:
    """A column of texts, and one of images named after it."""
    return Side(name, f"{name}_image")


_MARKER = "<|image_1|>"
CONVENTIONS = (
    Convention(  # MMEB
        "qry + pos_text or pos_image_path",
        (Side("qry", "qry_image_path", _MARKER),),
        (Side("pos_text", "pos_image_path", _MARKER),),
        (Side("neg_text", "neg_image_path", _MARKER),),
    ),
    Convention(  # sentence-transformers, FlagEmbedding
        "anchor + positive; query + positive; query + pos",
        (_beside("anchor"), _beside("query")),
        (_beside("positive"), _beside("pos")),
        (_beside("negative"), _beside("neg")),
    ),
    Convention("image + caption", (Side(image="image"),), tuple(Side(name) for name in CAPTION_COLUMNS), are_captions=True),
)
ACCEPTED = "; ".join(convention.fits for convention in reversed(CONVENTIONS))


def find_columns(columns: Collection[str], image_column: str | None = None, text_column: str | None = None) -> Columns | None:
    """Tell from the names of a row's columns what each one holds.

    Args:
        columns: of the row.
        image_column: that of the images, whatever the conventions say.
        text_column: that of the captions, likewise.

    Returns:
        What they mean; None if they fit no convention.

    Example:
        >>> found = find_columns(["query", "positive", "negative_2", "negative_1", "year"])
        >>> str(found.query), [side.text for side in found.negatives]
        ("'query' or 'query_image'", ['negative_1', 'negative_2'])
    """
    if image_column is not None or text_column is not None:
        image = Side(image=image_column or "image")
        texts = [Side(name) for name in ((text_column,) if text_column is not None else CAPTION_COLUMNS) if name in columns]
        return Columns(image, texts[0], are_captions=True) if image.is_in(columns) and texts else None
    for convention in CONVENTIONS:
        query = next((side for side in convention.queries if side.is_in(columns)), None)
        positive = next((side for side in convention.positives if side.is_in(columns)), None)
        if query and positive:
            negatives = tuple(found for side in convention.negatives for found in _numbered(side, columns))
            return Columns(query, positive, negatives, convention.are_captions)
    return None


def _numbered(side: Side, columns: Collection[str]) -> list[Side]:
    """A side and those named after it with a number (`negative_1`), as far as a row has them, by number."""
    if side.text is None or side.image != f"{side.text}_image":
        return [side] if side.is_in(columns) else []
    pattern = re.compile(rf"(?P<text>{side.text}(?:_(?P<number>\d+))?)(?:_image)?")
    matches = [match for match in map(pattern.fullmatch, columns) if match]
    numbers = {match["text"]: int(match["number"] or -1) for match in matches}
    return [_beside(name) for name in sorted(numbers, key=lambda name: (numbers[name], name))]
