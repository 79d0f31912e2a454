"""Words and their forms in English, by the dictionary that the package lemminflect carries (data: the NIH's Specialist Lexicon)."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from slq.errors import MissingExtraError
from slq_karr.wordnet import wordnet

PARTS = {"n": "NOUN", "v": "VERB", "a": "ADJ", "r": "ADV"}  # WordNet's names for the parts of speech, and lemminflect's


def words_of(text: str) -> list[str]:
    """Lower-case words without accents; possessives lose their ending, hyphens and stops part words."""
    plain = "".join(
        each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each) and unicodedata.category(each) != "Cf"
    )
    return re.findall(r"[a-z]+", re.sub(r"['\u2019]s?\b", " ", plain.casefold()))


def letters_of(text: str) -> str:
    """The letters of a text, in lower case."""
    return re.sub(r"[^a-z]", "", text.casefold())


@functools.cache
def _inflector() -> Any:
    try:
        import lemminflect
    except ImportError as error:
        raise MissingExtraError("Looking for leaks needs a dictionary of word forms: pip install slq-karr.") from error
    return lemminflect


@functools.lru_cache(maxsize=4096)
def bases(word: str, part: str) -> tuple[str, ...]:
    """A word or phrase, and what its last word is a form of as this part of speech."""
    *before, last = word.split()
    lemmas = singulars(last) if part == "n" else _inflector().getAllLemmas(last, PARTS[part]).get(PARTS[part], ())
    return tuple(dict.fromkeys([word, *(" ".join([*before, lemma.casefold()]) for lemma in lemmas)]))


def singulars(word: str) -> list[str]:
    """What a noun may be the plural of, by the word list and by rule ("scissors": scissor), as far as the dictionary knows that."""
    inflector = _inflector()
    listed, ruled = inflector.getAllLemmas(word, "NOUN").get("NOUN", ()), inflector.getAllLemmasOOV(word, "NOUN").get("NOUN", ())
    return [*listed, *(lemma for lemma in ruled if not listed or wordnet().knows(lemma))]


def inflections(name: str, verb: bool) -> Iterator[str]:
    """The plurals of a name, and the forms of the verb that comes of it."""
    *before, last = name.replace("_", " ").split()
    inflector = _inflector()
    for part in ("NOUN", "VERB") if verb else ("NOUN",):
        found = inflector.getAllInflections(last, part) or inflector.getAllInflectionsOOV(last, part)
        yield from (" ".join([*before, form.casefold()]) for forms in found.values() for form in forms)
