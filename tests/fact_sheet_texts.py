"""Categories and texts of fact sheets; texts are compared whatever their punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator

FACT_CATEGORIES = ("cultural", "utility", "contextual", "functional", "encyclopaedic", "logic")


def plain(text: str) -> str:
    """Words and numbers parted by single spaces: what two texts have in common whatever their punctuation."""
    return " ".join(re.findall(r"[a-z0-9+-]+", text.lower().replace("-", " ")))


def runs(text: str, length: int = 4) -> Iterator[str]:
    """Every run of so many words of a text, in order."""
    words = plain(text).split()
    for start in range(len(words) - length + 1):
        yield " ".join(words[start : start + length])
