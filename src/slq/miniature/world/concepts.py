"""The things of the picture-book world: a drawing and a knowledge card each, read from `drawings/` and `cards/`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

FACT_CATEGORIES = ("cultural", "utility", "contextual", "functional", "encyclopaedic", "logic")


@dataclass(frozen=True)
class Fact:
    """One thing that is true of one concept, said in several ways that never name it.

    The last phrasing is kept for benchmark queries: no training ever shows it.
    """

    concept: str
    category: str
    phrasings: tuple[str, ...]

    @property
    def training_phrasings(self) -> tuple[str, ...]:
        return self.phrasings[:-1]

    @property
    def benchmark_phrasing(self) -> str:
        return self.phrasings[-1]


@dataclass(frozen=True)
class Concept:
    """A thing one can draw, count and tell facts of."""

    name: str
    kind: str
    singular: str
    plural: str
    drawing: str
    facts: tuple[Fact, ...]
    synonyms: tuple[str, ...]


def _singular(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


@cache
def concepts() -> dict[str, Concept]:
    """All concepts by name, in alphabetical order (the order is part of the world: samplers draw from it)."""
    world = files(__package__)
    found: dict[str, Concept] = {}
    for card_file in sorted(world.joinpath("cards").iterdir(), key=lambda path: path.name):
        kind = card_file.name.removesuffix(".toml")
        for key, card in tomllib.loads(card_file.read_text(encoding="utf-8")).items():
            name = key.replace("-", " ")
            found[name] = Concept(
                name=name,
                kind=kind,
                singular=card.get("article_name", _singular(name)),
                plural=card["plural"],
                drawing=world.joinpath("drawings", kind, f"{key}.svg").read_text(encoding="utf-8"),
                facts=tuple(Fact(name, fact["category"], tuple(fact["phrasings"])) for fact in card["facts"]),
                synonyms=tuple(card["synonyms"]),
            )
    return dict(sorted(found.items()))


def all_facts() -> list[Fact]:
    """Every fact of every concept, in a fixed order."""
    return [fact for concept in concepts().values() for fact in concept.facts]
