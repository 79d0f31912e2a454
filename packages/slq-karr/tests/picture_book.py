"""A script for the endpoint that knows the picture-book world: its fact sheets in the place of a large model's knowledge."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from endpoint import Answer, Body, image_of, prompt_of
from PIL import Image
from slq_karr.categories import label

from slq.data import read_pairs
from slq.miniature.world.concepts import Fact, all_facts, concepts

CATEGORY_OF = {
    "cultural": "cultural_symbolism",
    "utility": "tool_utility",
    "contextual": "contextual_spatial",
    "functional": "functional",
    "encyclopaedic": "encyclopaedic",
    "logic": "logic_maths",
}
FACT_OF = {fact.benchmark_phrasing: fact for fact in all_facts()}
_CONCEPT_OF = {
    name: concept.name for concept in concepts().values() for name in (concept.name, concept.plural, concept.singular.split(" ", 1)[1])
}
_NAMED = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _CONCEPT_OF), key=len, reverse=True)) + r")\b")


@dataclass(frozen=True)
class NamedOutright:
    """A leak, as the checker gives it."""

    word: str
    reason: str


def find_leaks(query: str, target: str) -> Sequence[NamedOutright]:
    """Stands in for the leak checker: the target's name, plural or a synonym of its card, as whole words."""
    card = concepts().get(target)
    names = (target, card.plural, *card.synonyms) if card else (target,)
    words = " ".join(re.findall(r"\w+", query.lower()))
    return [NamedOutright(name, f"names {target}") for name in names if re.search(rf"\b{re.escape(name)}\b", words)]


def shown_in(caption: str) -> list[str]:
    """The concepts that a caption names."""
    return list(dict.fromkeys(_CONCEPT_OF[match] for match in _NAMED.findall(caption)))


def place(name: str, prompt: str) -> str:
    """What stands in a place of a prompt: the line behind `Name: `."""
    match = re.search(rf"^{name}: (.*)$", prompt, re.MULTILINE)
    return match[1] if match else ""


class PictureBook:
    """Answers every prompt of the builder truthfully. world: the folder whose captions it tells of images that come without."""

    def __init__(self, world: Path):
        self.images: list[tuple[np.ndarray, str]] = []
        for pair in read_pairs(world / "captions.jsonl").pairs:
            assert isinstance(pair.query.image, Path)
            self.images.append((_pixels(Image.open(pair.query.image)), pair.positives[0].text or ""))

    def __call__(self, body: Body) -> Answer:
        prompt = prompt_of(body)
        answers: dict[str, Callable[[str, Body], dict]] = {
            "Task: caption": self.caption,
            "Task: find what": self.targets,
            "Task: write": self.rewrite,
            "Task: judge": self.true,
            "Task: name": self.name,
        }
        (answer,) = [each for start, each in answers.items() if prompt.startswith(start)]
        return Answer(json.dumps(answer(prompt, body)))

    def caption(self, prompt: str, body: Body) -> dict:
        """Of the image that is most like the one in the request."""
        encoded = (image_of(body) or "").partition("base64,")[2]
        seen = _pixels(Image.open(io.BytesIO(base64.b64decode(encoded))))
        return {"caption": min(self.images, key=lambda each: float(np.abs(each[0] - seen).mean()))[1]}

    def targets(self, prompt: str, body: Body) -> dict:
        found = [concepts()[name] for name in shown_in(place("Caption", prompt))]
        return {
            "targets": [
                {
                    "name": concept.name,
                    "other_names": [concept.plural, *concept.synonyms],
                    "categories": list(dict.fromkeys(label(CATEGORY_OF[fact.category]) for fact in concept.facts)),
                }
                for concept in found
            ]
        }

    def rewrite(self, prompt: str, body: Body) -> dict:
        """One of the target's facts of the category, in the phrasing that no training uses."""
        facts = self.facts(place("Target", prompt), place("Category", prompt))
        return {"query": facts[zlib.crc32(place("Caption", prompt).encode()) % len(facts)].benchmark_phrasing}

    def facts(self, target: str, category: str) -> list[Fact]:
        return [fact for fact in concepts()[target].facts if label(CATEGORY_OF[fact.category]) == category]

    def true(self, prompt: str, body: Body) -> dict:
        concept = FACT_OF[place("Query", prompt)].concept
        return {"true": concept in shown_in(place("Caption", prompt)), "why": f"it asks for {concept}"}

    def name(self, prompt: str, body: Body) -> dict:
        return {"answer": FACT_OF[place("Query", prompt)].concept, "why": "the card says so"}


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((96, 96)), dtype=np.float32)
