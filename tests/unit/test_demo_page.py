"""The demo's page of results: honest, escaped, well formed, and complete in one file."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from slq.demo.page import Example, Page, ResultCard, ScoreRow, draw_curve, render_page, ticks_between, write_page
from slq.errors import OutputError

MINUS = "\N{MINUS SIGN}"
HOSTILE = "</style></title><script>alert(1)</script>\" onload='x' & {{ 7 * 7 }}"
VOID = {"meta", "link", "img"}


class Parsed(HTMLParser):
    """The page's tags with their attributes, and what does not balance."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> on line {self.getpos()[0]} closes nothing")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def classed(self, tag: str, name: str) -> list[dict[str, str]]:
        return [attributes for attributes in self.of(tag) if name in attributes.get("class", "").split()]


def result(right: bool, image: str = "images/1.png", caption: str = "a red cat", score: float = 0.5) -> ResultCard:
    return ResultCard(image, caption, score, right)


def score(before: float, after: float, name: str = "text to image, hit@5") -> ScoreRow:
    return ScoreRow(name, before, 0.03, after, 0.005, "1,000 queries")


EXAMPLES = (
    Example("explicit", "a red cat", None, (result(False), result(True)), (result(True), result(True), result(False))),
    Example("knowledge", "the animal that gives milk", None, (result(False), result(False, score=-0.25)), (result(True),)),
    Example("composed", "but blue", "images/query.png", (), (result(False),)),
)
PAGE = Page(
    title="Adapted in two minutes",
    facts=(("model", "the miniature, frozen"), ("Training pairs", "4,000")),
    scores=(score(0.1, 0.85), score(0.412, 0.368, "composed query to image, hit@5")),
    examples=EXAMPLES,
    training_curve=((10, 4.2), (20, 1.5), (30, 0.5)),
    next_command="slq train --model OpenGVLab/InternVL3-1B-hf",
    provenance="seed 0, 2026-01-01",
)
BARE = replace(PAGE, facts=(), scores=(), examples=(), training_curve=())


def test_hostile_text_is_escaped_everywhere():
    page = Page(
        title=HOSTILE,
        facts=((HOSTILE, HOSTILE),),
        scores=(ScoreRow(HOSTILE, 0.1, 0.1, 0.2, 0.0, HOSTILE),),
        examples=(Example("explicit", HOSTILE, HOSTILE, (ResultCard(HOSTILE, HOSTILE, 0.1, True),), ()),),
        training_curve=(),
        next_command=HOSTILE,
        provenance=HOSTILE,
    )
    parsed = Parsed(render_page(page))
    assert parsed.faults == []
    assert not parsed.of("script")
    assert all("onload" not in attributes for _, attributes in parsed.tags)
    # title twice, fact twice, score and note, query, caption as text, command, provenance
    assert parsed.text.count(" ".join(HOSTILE.split())) == 10
    assert [image["alt"] for image in parsed.of("img")] == ["image of the query", HOSTILE]


@pytest.mark.parametrize("page", [PAGE, BARE], ids=["full", "bare"])
def test_html_is_well_formed_and_its_links_lead_somewhere(page):
    parsed = Parsed(render_page(page))
    assert parsed.faults == []
    names = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(names) == len(set(names))
    wanted = {link["href"].removeprefix("#") for link in parsed.of("a")}
    wanted |= {attributes["aria-labelledby"] for _, attributes in parsed.tags if "aria-labelledby" in attributes}
    assert "next" in wanted
    assert wanted <= set(names)


def test_nothing_is_fetched_from_outside():
    images = (result(True, "http://example.com/a.png"), result(True, "//example.com/a.png"), result(True, "javascript:alert(1)"))
    text = render_page(replace(PAGE, examples=(Example("explicit", "x", None, images, ()),)))
    parsed = Parsed(text)
    addresses = [attributes[key] for _, attributes in parsed.tags for key in ("src", "href", "srcset") if key in attributes]
    assert len(parsed.of("img")) == 3
    for address in addresses:
        parts = urlsplit(address)
        assert not parts.netloc, address
        assert parts.scheme == "" or address == "data:,", address
    assert not re.search(r"url\(|@import", text)
    assert not parsed.of("script")


def test_each_image_is_marked_right_or_wrong_by_word_and_frame():
    parsed = Parsed(render_page(PAGE))
    assert parsed.text.count("✓ right") == len(parsed.classed("figure", "right")) == 4
    assert parsed.text.count("✗ wrong") == len(parsed.classed("figure", "wrong")) == 5
    assert f"{MINUS}0.250" in parsed.text
    assert all(image["alt"] and image["width"] == image["height"] == "112" for image in parsed.of("img"))


def test_each_row_tells_its_outcome():
    text = Parsed(render_page(PAGE)).text
    rows = re.findall(r"(?:Before zero-shot, last token|After with the latent queries) (.*?)(?= ✗| ✓| Nothing)", text)
    assert rows[:4] == ["1 right, at rank 2", "2 right, the first at rank 1", "none of 2 right", "1 right, at rank 1"]
    assert "Before zero-shot, last token Nothing was retrieved." in text


def test_a_worse_score_is_shown_as_plainly_as_a_better_one():
    scores = (score(0.1, 0.85), score(0.412, 0.368), score(0.2, 0.2), score(0.50004, 0.5), score(0.1, math.nan))
    parsed = Parsed(render_page(replace(PAGE, scores=scores)))
    change = r"(?:[+±" + MINUS + r"]\d+\.\d|n/a) (?:▲ better|▼ worse|the same|unknown)"
    assert re.findall(change, parsed.text) == [
        "+75.0 ▲ better",
        f"{MINUS}4.4 ▼ worse",
        "±0.0 the same",
        "±0.0 the same",
        "n/a unknown",
    ]
    assert "1 of 5 scores got better, 1 got worse and 2 stayed the same; 1 could not be computed" in parsed.text
    assert len(parsed.classed("td", "better")) == len(parsed.classed("td", "worse")) == 1


def test_bars_start_at_zero_and_are_as_long_as_the_numbers_beside_them():
    parsed = Parsed(render_page(replace(PAGE, scores=(ScoreRow("s", 0.412, 0.03, 1.2, 0.05, ""),))))
    assert [bar["style"] for bar in parsed.classed("span", "bar")] == ["width: 41.20%", "width: 3.00%", "width: 100.00%"]
    assert [mark["style"] for mark in parsed.classed("span", "chance-mark")] == ["left: 5.00%"] * 3
    assert "before 41.2% untrained 3.0% after 120.0% chance 5.0%" in parsed.text


def test_image_paths_are_quoted():
    path = "my images/scene #1?ü%20.png"
    image = Parsed(render_page(replace(PAGE, examples=(Example("explicit", "x", None, (), (result(True, path),)),)))).of("img")[0]
    assert image["src"] == "./my%20images/scene%20%231%3F%C3%BC%2520.png"
    assert unquote(urlsplit(image["src"]).path) == "./" + path


def test_a_query_without_an_image_has_none():
    with_image, without = (
        Parsed(render_page(replace(PAGE, examples=(Example("composed", "but blue", image, (), ()),))))
        for image in ("images/query.png", None)
    )
    assert [opened["src"] for opened in with_image.of("img")] == ["./images/query.png"]
    assert without.of("img") == []
    assert "None" not in without.text
    assert "“but blue”" in without.text


def test_examples_are_grouped_by_kind():
    text = Parsed(render_page(replace(PAGE, examples=EXAMPLES[::-1]))).text
    places = [text.index(f"“{example.text}”") for example in EXAMPLES]
    assert places == sorted(places)
    assert "Knowledge queries" not in Parsed(render_page(replace(PAGE, examples=EXAMPLES[:1]))).text
    with pytest.raises(AssertionError, match="implicit"):
        Example("implicit", "x", None, (), ())


@pytest.mark.parametrize(("num_latents", "words"), [(20, "20 vectors were learned."), (1, "1 vector was learned.")])
def test_the_lead_tells_how_many_vectors_were_learned(num_latents, words):
    text = Parsed(render_page(replace(PAGE, num_latents=num_latents))).text
    assert f"The model’s weights are bit-identical; {words}" in text  # noqa: RUF001


def test_the_curve_falls_where_the_loss_falls():
    curve = draw_curve(((0, 4.0), (50, math.nan), (100, 1.0), (200, 0.0)))
    assert curve is not None
    points = [tuple(map(float, point.split(","))) for point in curve.line.split()]
    assert points == [(curve.left, curve.top), ((curve.left + curve.right) / 2, 189.0), (curve.right, curve.bottom)]
    assert [tick.label for tick in curve.y_ticks] == ["0", "1", "2", "3", "4"]
    assert [tick.label for tick in curve.x_ticks] == ["0", "50", "100", "150", "200"]
    assert (curve.first, curve.last) == ((0, 4.0), (200, 0.0))


@pytest.mark.parametrize("losses", [(), (1.0,), (1.0, math.inf)])
def test_a_curve_needs_two_points(losses):
    assert draw_curve(tuple(enumerate(losses))) is None
    parsed = Parsed(render_page(replace(PAGE, training_curve=tuple(enumerate(losses)))))
    assert not parsed.of("polyline")
    assert ("Too few steps" in parsed.text) == bool(losses)


@pytest.mark.parametrize("losses", [(0.0, 0.0), (-1.0, -2.5), (1e-6, 2e-6), (3e5, 1.0)])
def test_any_finite_loss_stays_inside_the_frame(losses):
    curve = draw_curve(tuple(enumerate(losses)))
    assert curve is not None
    for point in curve.line.split():
        x, y = map(float, point.split(","))
        assert curve.left <= x <= curve.right
        assert curve.top <= y <= curve.bottom
    assert len(curve.y_ticks) >= 2


@pytest.mark.parametrize(("low", "high"), [(0, 4.2), (-3, 7), (10, 1000), (0, 0), (0, 1e-5)])
def test_ticks_cover_the_range_in_equal_steps(low, high):
    ticks = ticks_between(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 8
    steps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps))


def test_write_page_replaces_the_old_page_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "index.html"
    write_page(BARE, path)
    assert path.read_text(encoding="utf-8") == render_page(BARE)
    write_page(PAGE, path)
    assert path.read_text(encoding="utf-8") == render_page(PAGE)

    def disk_fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.replace", disk_fails)
    with pytest.raises(OutputError, match=r"index\.html"):
        write_page(BARE, path)
    assert path.read_text(encoding="utf-8") == render_page(PAGE)
    assert list(tmp_path.iterdir()) == [path]
