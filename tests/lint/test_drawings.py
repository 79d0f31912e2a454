"""The picture-book world: every object has a drawing and a fact sheet, and no fact names its object."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
import resvg_py
from fact_sheet_texts import FACT_CATEGORIES, plain
from PIL import Image

from slq.miniature.world.concepts import Concept, all_facts, concepts
from slq.miniature.world.styles import STYLES, SVG, Paint, draw

WORLD = files("slq.miniature.world")
ELEMENTS = {"svg", "style", "g", "path", "circle", "ellipse", "rect", "polygon", "polyline", "line"}
COLOUR_CLASSES = ("paint", "dark", "light", "ink", "white")
CLASSES = {*COLOUR_CLASSES, *(f"{name}-line" for name in COLOUR_CLASSES)}
PAINTABLE = {name for name in CLASSES if name.split("-")[0] in ("paint", "dark", "light")}
RED, BLUE = Paint("#d8352a", "#8f1f18", "#f0a09a"), Paint("#2f66d0", "#1c3f85", "#9ab8f0")
SIZE = 96


def report(offenders: dict[str, list[str]]) -> str:
    """Every drawing or fact sheet that breaks a rule, one a line."""
    return "\n".join(f"{name}: {'; '.join(found)}" for name, found in offenders.items() if found)


def pixels(concept: str, paint: Paint) -> np.ndarray:
    """A drawing alone on black, in the flat style, with nothing placed by chance (96, 96, 3)."""
    fragment = draw(concept, paint, STYLES["flat"], "g0")
    svg = f'<svg xmlns="{SVG}" viewBox="0 0 100 100"><rect width="100" height="100"/>{fragment}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"), dtype=np.int16)


@cache
def red_pixels(concept: str) -> np.ndarray:
    return pixels(concept, RED)


def forms(word: str) -> set[str]:
    """A name with its plurals and possessive."""
    found = {word, f"{word}s", f"{word}es", f"{word}'s", word.replace(" ", "-"), word.replace(" ", ""), word.replace("-", " ")}
    for end, plural in (("y", "ies"), ("f", "ves"), ("fe", "ves"), ("man", "men")):
        if word.endswith(end):
            found.add(word.removesuffix(end) + plural)
    return found


def naming(concept: Concept) -> re.Pattern[str]:
    """Matches whatever names a concept: its name, plural, synonyms, and words made of them (`milked` is not `milk`-named)."""
    names = (concept.name, concept.plural, concept.singular.split(" ", 1)[1], *concept.synonyms)
    words = sorted(set().union(*(forms(name) for name in names)), key=len, reverse=True)
    return re.compile(r"(?<![a-z])(" + "|".join(map(re.escape, words)) + r")(ed|ing|like|ish|let)?(?![a-z])")


def stems(folder: str, ending: str) -> set[str]:
    return {path.name.removesuffix(ending) for path in WORLD.joinpath(folder).iterdir() if path.name.endswith(ending)}


def test_every_fact_sheet_has_its_drawing_and_every_drawing_its_fact_sheet():
    assert stems("fact_sheets", ".toml") == {path.name for path in WORLD.joinpath("drawings").iterdir()}, "kinds differ"
    drawings = {(kind, name) for kind in stems("fact_sheets", ".toml") for name in stems(f"drawings/{kind}", ".svg")}
    assert drawings == {(concept.kind, concept.name.replace(" ", "-")) for concept in concepts().values()}


def test_there_are_enough_concepts_in_a_fixed_order():
    assert len(concepts()) >= 150
    assert list(concepts()) == sorted(concepts())
    assert all(name == concept.name for name, concept in concepts().items())


def broken_rules(concept: Concept) -> Iterator[str]:
    """What of a drawing is no plain shape of a known class or a plain colour."""
    root = ET.fromstring(concept.drawing)
    if root.get("viewBox") != "0 0 100 100":
        yield f"viewBox is {root.get('viewBox')}"
    roles = set()
    for element in root.iter():
        if element.tag.removeprefix(f"{{{SVG}}}") not in ELEMENTS:
            yield f"element {element.tag}"
        yield from (f"attribute {name}" for name in ("style", "id", "filter") if name in element.attrib)
        for accent in (element.get("fill", "none"), element.get("stroke", "none")):
            if not re.fullmatch("#[0-9a-f]{3}|#[0-9a-f]{6}|none", accent):
                yield f"{accent} is no plain colour"
        if element.get("class", "ink") not in CLASSES:
            yield f"class {element.get('class')}"
        roles.add(element.get("class"))
    if not PAINTABLE & roles:
        yield "nothing to paint"


def black_shapes(concept: Concept) -> Iterator[str]:
    """Shapes with neither class nor accent, of their own or of a group around them."""
    parents = {child: parent for parent in ET.fromstring(concept.drawing).iter() for child in parent}
    for shape in parents:
        if shape.tag.removeprefix(f"{{{SVG}}}") in {"svg", "style", "g"}:
            continue
        own: ET.Element | None = shape
        while own is not None and not {"class", "fill", "stroke"} & set(own.attrib):
            own = parents.get(own)
        if own is None:
            yield ET.tostring(shape, encoding="unicode")


def outside_the_box(concept: Concept) -> Iterator[str]:
    """Whether anything is drawn outside 0..100, but for half a stroke's width: a wider view shows no more than the box does."""
    fragment = draw(concept.name, RED, STYLES["flat"], "g0")
    svg = f'<svg xmlns="{SVG}" viewBox="-50 -50 200 200">{fragment}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=200, height=200)
    alpha = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))[..., 3].copy()
    if not (alpha > 128).any():
        yield "nothing is drawn"
    alpha[47:153, 47:153] = 0
    if (alpha > 128).any():
        yield f"{int((alpha > 128).sum())} units lie outside the box"


def hardly_painted(concept: Concept) -> Iterator[str]:
    red, blue = red_pixels(concept.name), pixels(concept.name, BLUE)
    if (red.sum(-1) > 0).mean() <= 0.04 or red.std() <= 10:
        yield "blank, or nearly"
    if (np.abs(red - blue).max(-1) > 60).mean() <= 0.03:
        yield "its colour can hardly be seen"


@pytest.mark.parametrize("rule", [broken_rules, black_shapes, outside_the_box, hardly_painted], ids=lambda rule: rule.__name__)
def test_every_drawing_keeps_the_rule(rule: Callable[[Concept], Iterator[str]]):
    offenders = {name: list(rule(concept)) for name, concept in concepts().items()}
    assert not any(offenders.values()), report(offenders)


def test_no_two_drawings_look_alike():
    names = list(concepts())
    small = np.stack([red_pixels(name).reshape(24, 4, 24, 4, 3).mean((1, 3)).ravel() for name in names])
    distance = np.stack([np.sqrt(((small - one) ** 2).mean(-1)) for one in small])
    np.fill_diagonal(distance, np.inf)
    first, second = np.unravel_index(distance.argmin(), distance.shape)
    assert distance.min() > 12, f"{names[first]} and {names[second]} differ by {distance.min():.1f} grey levels only"


def broken_fact_sheet(concept: Concept) -> Iterator[str]:
    categories = {fact.category for fact in concept.facts}
    if len(concept.facts) < 5 or len(categories) < 4:
        yield f"{len(concept.facts)} facts of {len(categories)} categories"
    yield from (f"category {name}" for name in categories - set(FACT_CATEGORIES))
    for fact in concept.facts:
        first = fact.phrasings[0]
        if fact.concept != concept.name:
            yield f"a fact about {fact.concept}: {first}"
        if len(fact.phrasings) != 4 or len({plain(phrasing) for phrasing in fact.phrasings}) != 4:
            yield f"not four phrasings: {first}"
        if fact.training_phrasings != fact.phrasings[:3] or fact.benchmark_phrasing != fact.phrasings[3]:
            yield f"the last phrasing is not the benchmark's: {first}"
        if fact.category == "logic" and not all(re.search(r"\d", phrasing) for phrasing in fact.phrasings):
            yield f"logic without a number: {first}"


def odd_phrasings(concept: Concept) -> Iterator[str]:
    """Phrasings that are no single lower-case phrase of three words or more."""
    for phrasing in (phrasing for fact in concept.facts for phrasing in fact.phrasings):
        plain_characters = re.fullmatch(r"[a-z0-9][a-z0-9 ,'()+=/-]*[a-z0-9)]", phrasing)
        if not plain_characters or "  " in phrasing or len(phrasing.split()) < 3:
            yield repr(phrasing)


def given_away(concept: Concept) -> Iterator[str]:
    """Phrasings that name their object."""
    names = naming(concept)
    for phrasing in (phrasing for fact in concept.facts for phrasing in fact.phrasings):
        if match := names.search(phrasing):
            yield f"{match.group()!r} in {phrasing!r}"


@pytest.mark.parametrize("rule", [broken_fact_sheet, odd_phrasings, given_away], ids=lambda rule: rule.__name__)
def test_every_fact_sheet_keeps_the_rule(rule: Callable[[Concept], Iterator[str]]):
    offenders = {name: list(rule(concept)) for name, concept in concepts().items()}
    assert not any(offenders.values()), report(offenders)


def test_every_category_is_used():
    used = Counter(fact.category for fact in all_facts())
    assert set(used) == set(FACT_CATEGORIES)
    assert min(used.values()) >= 100


def test_naming_sees_plurals_synonyms_and_compounds():
    """The check above is only worth what its pattern finds."""
    for name, text in {
        "knife": "two knives and a fork",
        "cherry": "what grows as cherries",
        "snowman": "made of snowmen",
        "cat": "the mother of kittens",
        "hot air balloon": "a hot-air balloon ride",
        "mouse": "the farmer's mice",
        "bell": "belled like the leper",
    }.items():
        assert naming(concepts()[name]).search(text), (name, text)
    assert not naming(concepts()["cat"]).search("a catalogue of education")


def test_no_phrasing_is_of_two_objects_or_comes_twice():
    told = Counter(plain(phrasing) for fact in all_facts() for phrasing in fact.phrasings)
    assert [phrasing for phrasing, times in told.items() if times > 1] == []
