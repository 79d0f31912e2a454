"""The picture-book world: every thing has a drawing and a card, and no fact gives away what it tells of."""

from __future__ import annotations

import io
import random
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
import resvg_py
from PIL import Image

from slq.miniature.pretraining.tasks import corpus, picture_tasks, word_task
from slq.miniature.world.concepts import FACT_CATEGORIES, Concept, Fact, all_facts, concepts
from slq.miniature.world.scenes import sample_scene
from slq.miniature.world.styles import STYLES, SVG, Paint, draw

WORLD = files("slq.miniature.world")
ELEMENTS = {"svg", "style", "g", "path", "circle", "ellipse", "rect", "polygon", "polyline", "line"}
COLOUR_CLASSES = ("paint", "dark", "light", "ink", "white")
CLASSES = {*COLOUR_CLASSES, *(f"{name}-line" for name in COLOUR_CLASSES)}
PAINTABLE = {name for name in CLASSES if name.split("-")[0] in ("paint", "dark", "light")}
RED, BLUE = Paint("#d8352a", "#8f1f18", "#f0a09a"), Paint("#2f66d0", "#1c3f85", "#9ab8f0")
SIZE = 96
FACTS_OF_PICTURES = 2000  # sampled picture tasks, at least

each_concept = pytest.mark.parametrize("concept", concepts().values(), ids=lambda concept: concept.name.replace(" ", "-"))


def pixels(concept: str, paint: Paint) -> np.ndarray:
    """A drawing alone on black, in the flat style, with nothing placed by chance (96, 96, 3)."""
    fragment = draw(concept, paint, STYLES["flat"], "g0")
    svg = f'<svg xmlns="{SVG}" viewBox="0 0 100 100"><rect width="100" height="100"/>{fragment}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"), dtype=np.int16)


@cache
def red_pixels(concept: str) -> np.ndarray:
    return pixels(concept, RED)


def plain(text: str) -> str:
    """Words and numbers parted by single spaces: what two texts have in common whatever their punctuation."""
    return " ".join(re.findall(r"[a-z0-9+-]+", text.lower().replace("-", " ")))


def forms(word: str) -> set[str]:
    """A noun with its plurals and possessive."""
    found = {word, f"{word}s", f"{word}es", f"{word}'s", word.replace(" ", "-"), word.replace(" ", ""), word.replace("-", " ")}
    for end, plural in (("y", "ies"), ("f", "ves"), ("fe", "ves"), ("man", "men")):
        if word.endswith(end):
            found.add(word.removesuffix(end) + plural)
    return found


def naming(concept: Concept) -> re.Pattern[str]:
    """Matches whatever names a concept: its name, plural, synonyms, and words made of them (`milked` is not `milk`-named)."""
    nouns = (concept.name, concept.plural, concept.singular.split(" ", 1)[1], *concept.synonyms)
    words = sorted(set().union(*(forms(noun) for noun in nouns)), key=len, reverse=True)
    return re.compile(r"(?<![a-z])(" + "|".join(map(re.escape, words)) + r")(ed|ing|like|ish|let)?(?![a-z])")


def runs(text: str, length: int = 4) -> Iterator[str]:
    words = plain(text).split()
    for start in range(len(words) - length + 1):
        yield " ".join(words[start : start + length])


def stems(folder: str, ending: str) -> set[str]:
    return {path.name.removesuffix(ending) for path in WORLD.joinpath(folder).iterdir() if path.name.endswith(ending)}


def test_every_card_has_its_drawing_and_every_drawing_its_card():
    assert stems("cards", ".toml") == {path.name for path in WORLD.joinpath("drawings").iterdir()}, "kinds differ"
    drawings = {(kind, name) for kind in stems("cards", ".toml") for name in stems(f"drawings/{kind}", ".svg")}
    assert drawings == {(concept.kind, concept.name.replace(" ", "-")) for concept in concepts().values()}


def test_there_are_enough_concepts_in_a_fixed_order():
    assert len(concepts()) >= 150
    assert list(concepts()) == sorted(concepts())
    assert all(name == concept.name for name, concept in concepts().items())


@each_concept
def test_drawing_keeps_to_the_rules(concept):
    root = ET.fromstring(concept.drawing)
    assert root.get("viewBox") == "0 0 100 100"
    roles = []
    for element in root.iter():
        assert element.tag.removeprefix(f"{{{SVG}}}") in ELEMENTS, element.tag
        assert not {"style", "id", "filter"} & set(element.attrib), element.attrib
        for accent in (element.get("fill", "none"), element.get("stroke", "none")):
            assert re.fullmatch("#[0-9a-f]{3}|#[0-9a-f]{6}|none", accent), "an accent is a plain colour"
        if "class" in element.attrib:
            assert element.get("class") in CLASSES, element.get("class")
            roles.append(element.get("class"))
    assert PAINTABLE & set(roles), "nothing to paint"


@each_concept
def test_every_shape_has_a_class_or_an_accent_so_none_stays_black_by_accident(concept):
    parents = {child: parent for parent in ET.fromstring(concept.drawing).iter() for child in parent}
    for shape in parents:
        if shape.tag.removeprefix(f"{{{SVG}}}") in {"svg", "style", "g"}:
            continue
        own: ET.Element | None = shape
        while own is not None and not {"class", "fill", "stroke"} & set(own.attrib):
            own = parents.get(own)
        assert own is not None, ET.tostring(shape)


@each_concept
def test_drawing_stays_in_its_box(concept):
    """Nothing is drawn outside 0..100 (but for half a stroke's width): a wider view shows no more than the box does."""
    fragment = draw(concept.name, RED, STYLES["flat"], "g0")
    svg = f'<svg xmlns="{SVG}" viewBox="-50 -50 200 200">{fragment}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=200, height=200)
    alpha = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))[..., 3].copy()
    assert (alpha > 128).any()
    alpha[47:153, 47:153] = 0
    assert not (alpha > 128).any(), f"{int((alpha > 128).sum())} units lie outside the box"


@each_concept
def test_repainting_changes_the_drawing(concept):
    red, blue = red_pixels(concept.name), pixels(concept.name, BLUE)
    assert (red.sum(-1) > 0).mean() > 0.04, "blank, or nearly"
    assert red.std() > 10
    changed = np.abs(red - blue).max(-1) > 60
    assert changed.mean() > 0.03, "its colour can hardly be seen"


def test_no_two_drawings_look_alike():
    names = list(concepts())
    small = np.stack([red_pixels(name).reshape(24, 4, 24, 4, 3).mean((1, 3)).ravel() for name in names])
    distance = np.stack([np.sqrt(((small - one) ** 2).mean(-1)) for one in small])
    np.fill_diagonal(distance, np.inf)
    first, second = np.unravel_index(distance.argmin(), distance.shape)
    assert distance.min() > 12, f"{names[first]} and {names[second]} differ by {distance.min():.1f} grey levels only"


@each_concept
def test_card(concept):
    assert len(concept.facts) >= 5
    categories = {fact.category for fact in concept.facts}
    assert len(categories) >= 4
    assert categories <= set(FACT_CATEGORIES)
    for fact in concept.facts:
        assert fact.concept == concept.name
        assert len(fact.phrasings) == 4
        assert len({plain(phrasing) for phrasing in fact.phrasings}) == 4
        assert fact.training_phrasings == fact.phrasings[:3]
        assert fact.benchmark_phrasing == fact.phrasings[3]


def test_every_category_is_used():
    used = Counter(fact.category for fact in all_facts())
    assert set(used) == set(FACT_CATEGORIES)
    assert min(used.values()) >= 100


@each_concept
def test_phrasings_are_single_lower_case_phrases(concept):
    for phrasing in (phrasing for fact in concept.facts for phrasing in fact.phrasings):
        assert re.fullmatch(r"[a-z0-9][a-z0-9 ,'()+=/-]*[a-z0-9)]", phrasing), phrasing
        assert "  " not in phrasing
        assert len(phrasing.split()) >= 3, phrasing


@each_concept
def test_no_phrasing_names_what_it_tells_of(concept):
    names = naming(concept)
    given_away = [phrasing for fact in concept.facts for phrasing in fact.phrasings if names.search(phrasing)]
    assert not given_away, [(phrasing, names.search(phrasing)) for phrasing in given_away]


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


def test_no_phrasing_is_told_of_two_things_or_twice():
    told = Counter(plain(phrasing) for fact in all_facts() for phrasing in fact.phrasings)
    assert [phrasing for phrasing, times in told.items() if times > 1] == []


@pytest.mark.parametrize("fact", [fact for fact in all_facts() if fact.category == "logic"], ids=lambda fact: fact.concept)
def test_logic_facts_hold_numbers(fact: Fact):
    assert all(re.search(r"\d", phrasing) for phrasing in fact.phrasings)


def test_benchmark_phrasings_stay_out_of_all_training_text():
    held_out = {plain(fact.benchmark_phrasing) for fact in all_facts()}
    beginnings: dict[str, list[str]] = {}
    for phrasing in held_out:
        beginnings.setdefault(next(runs(phrasing, 3)), []).append(phrasing)
    rng = random.Random(1)
    facts = all_facts()
    texts = set(corpus(0, samples=20_000))
    texts |= {text for _ in range(20_000) for text in word_task(rng, facts)[:2]}
    assert plain(facts[0].training_phrasings[0]) in {plain(text) for text in texts}, "the sample is too small to tell"
    for text in texts:
        suspects = [phrasing for run in runs(text, 3) for phrasing in beginnings.get(run, [])]
        leaked = [phrasing for phrasing in suspects if f" {phrasing} " in f" {plain(text)} "]
        assert not leaked, (text, leaked)


def test_no_fact_stands_beside_a_picture():
    of_facts = {run for fact in all_facts() for phrasing in fact.phrasings for run in runs(phrasing)}
    rng = random.Random(2)
    seen = 0
    while seen < FACTS_OF_PICTURES:
        for user, answer, *_ in picture_tasks(sample_scene(rng, rng.choice([1, 2, 3]), signs=0.3), rng, 5):
            seen += 1
            for text in (user, answer):
                told = of_facts & set(runs(text))
                assert not told, (text, told)
