"""Does a query name its target? Policy, and a checker that follows it with the help of two dictionaries.

A query of a KARR set leads to its target by knowledge alone. It leaks when a word of it gives the target away:

- the name itself, whatever it means there: "train" in "where athletes train" leaks for the vehicle, since an encoder sees the word;
- an inflection: plural, possessive, the forms of a verb that comes of the name ("hammering"), but not of one that is merely
  spelled like it ("born" for bear);
- the name spelled apart or together, with hyphens, full stops, accents or capitals;
- a compound to which the name lends its meaning ("doghouse" for dog), but neither "carpet" for car nor "butterfly" for butter;
- a synonym in a usual sense of the word ("auto" for car; not "wheel" for bicycle);
- a word derived from it, or an adjective that says no more ("pianist", "feline", "lunar");
- anything that is a kind of it, or its young ("tabby", "kitten"): whoever reads that knows the target;
- a broader word that hardly covers anything else ("pachyderm" for elephant), but not "animal", "vehicle" or "fruit";
- the last word of a name of several parts, open or closed ("truck" for fire truck, "brush" for toothbrush), but not the others ("fire").

What is only associated ("meow", "kennel") does not leak. Measured precision and recall: docs/karr-review.md.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from slq.errors import TextError
from slq_karr.word_forms import bases, inflections, letters_of, singulars, words_of
from slq_karr.wordnet import BROADER, DERIVED, NARROWER, PERTAINS, Synset, WordNet, wordnet

# WordNet's topics (lexnames(5WN)): animal, artifact, body, food, object, plant. Beside a name's usual meanings its first of each counts:
# the mouse on a desk is rare in the texts that WordNet counts.
ANIMAL, PERSON = 5, 18
TANGIBLE = {ANIMAL, 6, 8, 13, 17, 20}
VISIBLE = TANGIBLE | {15, PERSON, 19, 21, 25, 27}  # location, phenomenon, possession, shape, substance
FEW_KINDS = 7  # what stands above an animal names it when it has at most so many kinds: felid, canid, equid
SHORTEST = 3  # letters; "he" is helium to a dictionary, "in" an inch
LONGEST_PHRASE = 4  # words


@dataclass(frozen=True)
class Leak:
    """What of a query gives its target away, and how."""

    word: str
    reason: str


def find_leaks(query: str, target: str) -> list[Leak]:
    """Everything in a query that names its target, in the order of the query.

    Args:
        query: the text.
        target: the name of what it is about.

    Returns:
        The leaks; nothing means that it does not leak.

    Raises:
        TextError: if either has no letters.
        MissingExtraError: if the dictionaries are not installed.

    Example:
        >>> [leak.word for leak in find_leaks("a kitten in its doghouse", "cat")]
        ['kitten']
    """
    words, name = words_of(query), " ".join(words_of(target))
    for what, text, found in (("query", query, words), ("target", target, name)):
        if not found:
            raise TextError(f"The {what} {text!r} has no letter of the Latin script, so that it cannot be looked up.")
    known = _target(name)
    leaks = [leak for start in range(len(words)) for leak in known.leaks_at(words[start:])]
    return list({leak.word: leak for leak in reversed(leaks)}.values())[::-1]


class _Target:
    """A target's names and meanings."""

    def __init__(self, name: str):
        self.dictionary = wordnet()
        self.name, self.last = name, name.split()[-1]
        self.bases = bases(name, "n")
        self.synsets = self._visible_senses()
        self.offsets = {synset.offset for synset in self.synsets}
        self.narrow = {synset.offset for synset in self._narrow_hypernyms()}
        self.forms = self._forms()
        self.longest = max(map(len, self.forms))

    def leaks_at(self, words: list[str]) -> Iterator[Leak]:
        """What gives the target away of these words from the first on: by its look, then by its meaning."""
        joined = ""
        for size, word in enumerate(words, start=1):
            joined += word  # "fire engine", "lap top", "c a t"
            if len(joined) > self.longest:
                break
            if joined in self.forms:
                yield Leak(" ".join(words[:size]), self.forms[joined])
        for size in range(1, min(LONGEST_PHRASE, len(words)) + 1):
            phrase = " ".join(words[:size])
            if len(phrase) >= SHORTEST and (reason := self._reason(phrase)):
                yield Leak(phrase, reason)

    def _reason(self, word: str) -> str | None:
        """How one word or phrase gives the target away by its meaning."""
        for part in "nvar":
            for base in bases(word, part):
                for synset in self.dictionary.senses(base.replace(" ", "_"), part):
                    if reason := self._by_meaning(base, synset):
                        return reason
        return f"a compound with {self.name}" if self._is_compound(word) else None

    def _by_meaning(self, base: str, synset: Synset) -> str | None:
        dictionary, word = self.dictionary, base.replace(" ", "_")
        if synset.part == "n" and dictionary.is_usual(word, synset):
            if synset.offset in self.offsets:
                return f"a synonym of {self.name}"
            if synset.offset in self.narrow:
                return f"hardly broader than {self.name}"
            if dictionary.is_common(word, synset) and dictionary.is_mostly(word, "n") and self._is_kind(synset):
                return f"a kind of {self.name}, or its young"
        if any(self._is_own(other, meaning) for other, meaning in dictionary.related_words(synset, word, DERIVED)):
            return f"derived from {self.name}"
        for other, meaning in dictionary.related_words(synset, word, PERTAINS):
            if other.replace("_", " ") in self.bases or (meaning.part == "n" and meaning.offset in self.offsets | self.narrow):
                return f"says no more than {self.name}"
        return None

    def _is_own(self, word: str, meaning: Synset) -> bool:
        """Whether this is the target's name in its meaning, or the verb that comes of it ("bicyclist" is derived from to bicycle)."""
        if word.replace("_", " ") not in self.bases:
            return False
        nouns = [meaning] if meaning.part == "n" else [each for _, each in self.dictionary.related_words(meaning, word, DERIVED)]
        return any(noun.part == "n" and noun.offset in self.offsets for noun in nouns)

    def _is_kind(self, synset: Synset) -> bool:
        """By the tree of meanings, or by what the gloss says it is ("young domestic cat")."""
        if any(each.offset in self.offsets for each in self.dictionary.broader(synset)):
            return True
        return _genus(synset.gloss) in self.bases and synset.topic in {each.topic for each in self.synsets}

    def _is_compound(self, word: str) -> bool:
        """Whether the word is the name and something more, and means something of both."""
        wholes = dict.fromkeys(base for part in "nvar" for base in bases(word, part))
        senses = [synset for part in "nvar" for whole in wholes for synset in self.dictionary.senses(whole, part)]
        for whole, name in itertools.product(wholes, self.bases):
            rest = whole.removeprefix(name) if whole.startswith(name) else whole.removesuffix(name)
            if rest == whole or min(len(name), len(rest)) < SHORTEST:
                continue
            if not senses and self.dictionary.knows(rest):  # "cameraless": made up, so of its parts
                return True
            if any(name in _gloss_words(synset.gloss) or _is_kind_of(self.dictionary, synset, rest) for synset in senses):
                return True
        return False

    def _visible_senses(self) -> list[Synset]:
        """What the name may mean of things that can be seen; a person only if nothing else or mostly that (a cat is a guy, too)."""
        words = self.name.split()
        for start in range(len(words)):
            entries = [each.replace(" ", "_") for each in (self.bases if not start else bases(" ".join(words[start:]), "n"))]
            senses = [synset for entry in entries for synset in self.dictionary.senses(entry)]
            if senses:
                break
        usual = {synset.offset for synset in senses for entry in entries if self.dictionary.is_common(entry, synset)}
        visible = [synset for synset in senses if synset.topic in VISIBLE]
        animal = any(synset.topic == ANIMAL for synset in visible)
        things = [each for each in visible if each.topic != PERSON or (each == senses[0] and each.offset in usual and not animal)]
        kept: dict[int, Synset] = {}
        for synset in things or visible:
            first = synset.topic in TANGIBLE and synset.topic not in {each.topic for each in kept.values()}
            if synset.offset in usual or first or not kept:
                kept[synset.offset] = synset
        return list(kept.values()) or senses[:1]

    def _narrow_hypernyms(self) -> Iterator[Synset]:
        above = (each for synset in self.synsets if synset.topic == ANIMAL for each in self.dictionary.follow(synset, BROADER))
        return (each for each in above if len(self.dictionary.follow(each, NARROWER)) <= FEW_KINDS)

    def _forms(self) -> dict[str, str]:
        """Everything that names the target outright, letters only -> why; the first reason holds."""
        named = {
            **dict.fromkeys(self.bases, self.name),
            **dict.fromkeys(self._last_words() - {*self.bases}, f"the last word of {self.name}"),
        }
        for synset in self.synsets:
            for word in synset.words:
                if self.dictionary.is_usual(word, synset):
                    named.setdefault(word, f"a synonym of {self.name}")
        forms: dict[str, str] = {}
        for word, reason in named.items():
            forms.setdefault(letters_of(word), reason if word not in self.bases else f"the name {self.name}")
        for word, reason in named.items():
            for form in inflections(word, verb=word in self.bases and self._is_its_verb(word)):
                forms.setdefault(letters_of(form), f"a form of {reason}")
        return forms

    def _last_words(self) -> set[str]:
        """The head of a name of several parts; of a closed compound, an ending that the target is a kind of."""
        if self.last != self.name:
            return {self.last, *singulars(self.last)}
        name, dictionary = self.last, self.dictionary
        endings = [name[start:] for start in range(SHORTEST, len(name) - SHORTEST + 1) if dictionary.knows(name[:start])]
        return {ending for ending in endings if any(_is_kind_of(dictionary, synset, ending) for synset in self.synsets)}

    def _is_its_verb(self, name: str) -> bool:
        """Whether the verb spelled like this name comes of it (to hammer), or is another word (to bear)."""
        return any(self._is_own(name, verb) for verb in self.dictionary.senses(name, "v"))


def _is_kind_of(dictionary: WordNet, synset: Synset, name: str) -> bool:
    return any(name in broader.words for broader in dictionary.broader(synset))


@functools.lru_cache(maxsize=1024)
def _target(name: str) -> _Target:
    return _Target(name)


def _genus(gloss: str) -> str:
    """What a gloss says a thing is: "young domestic cat" -> "cat", "a shelter for a dog" -> "shelter"."""
    head = re.split(r"[,;:(]| (?:of|for|that|which|who|with|used|having|in|on|from|to|or|and|whose|by) ", gloss.casefold())[0].split()
    return head[-1] if head else ""


@functools.lru_cache(maxsize=4096)
def _gloss_words(gloss: str) -> frozenset[str]:
    return frozenset(base for word in words_of(gloss.split('"')[0]) for part in "nv" for base in bases(word, part))
