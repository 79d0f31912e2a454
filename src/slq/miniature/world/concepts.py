"""The objects of the picture-book world: a drawing and a fact sheet each, read from `drawings/` and `fact_sheets/`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Fact:
    """One fact about one concept, in several phrasings that never name it.

    Attributes:
        concept: name of the concept.
        category: one of cultural, utility, contextual, functional, encyclopaedic, logic.
        phrasings: the last one is for benchmark queries alone: no training ever shows it.
    """

    concept: str
    category: str
    phrasings: tuple[str, ...]

    @property
    def training_phrasings(self) -> tuple[str, ...]:
        """All phrasings but the last."""
        return self.phrasings[:-1]

    @property
    def benchmark_phrasing(self) -> str:
        """The last phrasing."""
        return self.phrasings[-1]


@dataclass(frozen=True)
class Concept:
    """An object that can be drawn and counted, and that facts are known about.

    Attributes:
        name: `cat`.
        kind: the fact sheet and the folder of drawings it stands in: `animals`.
        singular: with its article: `a cat`.
        plural: `cats`.
        drawing: SVG in a 100 x 100 box, its shapes of the classes that `styles` paints.
        facts: in the order of the fact sheet.
        synonyms: other names, which no fact may contain.
    """

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
    """All concepts by name, in alphabetical order (the order is part of the world: samplers choose from it)."""
    world = files(__package__)
    found: dict[str, Concept] = {}
    for file in sorted(world.joinpath("fact_sheets").iterdir(), key=lambda path: path.name):
        kind = file.name.removesuffix(".toml")
        for key, sheet in tomllib.loads(file.read_text(encoding="utf-8")).items():
            name = key.replace("-", " ")
            found[name] = Concept(
                name=name,
                kind=kind,
                singular=sheet.get("article_name", _singular(name)),
                plural=sheet["plural"],
                drawing=world.joinpath("drawings", kind, f"{key}.svg").read_text(encoding="utf-8"),
                facts=tuple(Fact(name, fact["category"], tuple(fact["phrasings"])) for fact in sheet["facts"]),
                synonyms=tuple(sheet["synonyms"]),
            )
    return dict(sorted(found.items()))


def all_facts() -> list[Fact]:
    """Every fact of every concept, in a fixed order."""
    return [fact for concept in concepts().values() for fact in concept.facts]
