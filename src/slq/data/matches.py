"""Which items of a set of pairs belong together, so that none is another's negative.

Items are told apart by content, and texts without regard to case, white space and Unicode form: "A  cat" repeats "a cat".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import replace

from slq.types import Item, Pair


def match_key(item: Item) -> str:
    """The item's content hash with its text in one spelling; equal keys mean that neither may be a negative of the other.

    Args:
        item: a text, an image, or both.

    Raises:
        OSError: if an image file cannot be read.
    """
    if item.text is None:
        return item.content_hash
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", item.text).casefold())
    spelled = " ".join(folded.split())
    return item.content_hash if spelled == item.text else replace(item, text=spelled).content_hash


class Matches:
    """Who matches whom: a query and its positives, in either direction, and every item itself.

    Args:
        pairs: in whichever of them a match stands, it counts in all.
    """

    def __init__(self, pairs: Iterable[Pair]):
        self._keys: dict[str, str] = {}
        self._matches: dict[str, set[str]] = {}
        for pair in pairs:
            query = self.key(pair.query)
            for positive in map(self.key, pair.positives):
                self._matches.setdefault(query, {query}).add(positive)
                self._matches.setdefault(positive, {positive}).add(query)

    def key(self, item: Item) -> str:
        """The item's key, computed once for each content; see `match_key`."""
        content = item.content_hash
        if content not in self._keys:
            self._keys[content] = match_key(item)
        return self._keys[content]

    def of(self, item: Item) -> set[str]:
        """The keys of all that an item matches, its own among them.

        Args:
            item: of a pair, or any other.
        """
        key = self.key(item)
        return self._matches.get(key, {key})
