"""Where the user's words tell of a thing: the last letter of its noun, or of a fact that stands for it.

A token that ends such words is asked, half way through the decoder, for the thing, by the same reader that asks image tokens: so a
noun, a fact and a drawing come to the same place, where whatever is appended to the sequence can find it. Beside an image it is asked
too for what is shown of the thing (colour, number, place, word; the number is "no" where it is absent), which is half of any answer.
"""

from __future__ import annotations

import re
from functools import cache

from research.pretraining.cells import CLASSES, group_labels
from research.pretraining.tasks import Task
from slq.miniature.world.concepts import concepts
from slq.miniature.world.language import NUMBERS
from slq.miniature.world.scenes import SIGN, Scene


@cache
def _nouns() -> dict[str, str]:
    """Concept by noun, singular (without its article) and plural."""
    nouns = {SIGN: SIGN}
    for name, concept in concepts().items():
        nouns |= {name: name, concept.plural: name, concept.singular.split(" ", 1)[1]: name}
    return nouns


@cache
def _pattern() -> re.Pattern[str]:
    longest_first = sorted(_nouns(), key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b")


def mentions(task: Task) -> dict[int, str]:
    """Concept by the place after the last letter that tells of it, in `task.user`; a told fact's words tell of its concept alone."""
    start = task.user.find(task.told) if task.told else -1
    end = start + len(task.told)
    found = {match.end(): _nouns()[match[1]] for match in _pattern().finditer(task.user) if start < 0 or not start <= match.start() < end}
    return found | ({end: task.told_of} if task.told else {})


def mention_labels(concept: str, scene: Scene | None) -> dict[str, int]:
    """Class of a mentioned thing, by kind of class; beside an image also what the image shows of it."""
    labels = {"things": CLASSES["things"].index(concept)}
    if scene is None:
        return labels
    shown = [group.concept for group in scene.groups]
    if concept not in shown:
        return labels | {"counts": NUMBERS.index("no")}
    return group_labels(scene, shown.index(concept))
