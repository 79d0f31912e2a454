"""The page of results that `slq demo` leaves behind: one HTML file that needs neither scripts nor the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2

from slq.io.files import write_text

MINUS = "\N{MINUS SIGN}"
# kind -> its heading and what the reader should know about it; also the order on the page.
KINDS = {
    "explicit": ("Explicit queries", "The words say what the image shows."),
    "knowledge": ("Knowledge queries", "The words never name what the image shows: the model has to know what is meant."),
    "composed": ("Composed queries", "An image and a few words that change it: wanted is the image after the change."),
}


@dataclass(frozen=True)
class ResultCard:
    """One image of a result.

    Attributes:
        image: its path, relative to the page.
        caption: what it shows.
        score: its cosine with the query.
        right: whether it is relevant.
    """

    image: str
    caption: str
    score: float
    right: bool


@dataclass(frozen=True)
class Example:
    """One query and what came first.

    Attributes:
        kind: a key of `KINDS`.
        text: of the query.
        image: of the query, if it has one (composed queries: this image, but changed as the text says).
        before: first results of the last token, zero-shot.
        after: first results with the latent queries.
    """

    kind: str
    text: str
    image: str | None
    before: tuple[ResultCard, ...]
    after: tuple[ResultCard, ...]

    def __post_init__(self) -> None:
        assert self.kind in KINDS, f"{self.kind!r} is none of {', '.join(KINDS)}"


@dataclass(frozen=True)
class ScoreRow:
    """One metric as fractions.

    Attributes:
        name: of the metric.
        before: of the last token, zero-shot.
        untrained: with latent queries as they start, before any training.
        after: with trained latent queries.
        chance: of a random ranking.
        note: what the reader should know about it.
    """

    name: str
    before: float
    untrained: float
    after: float
    chance: float
    note: str

    @property
    def change(self) -> float:
        """Percentage points from before to after, rounded as displayed, so that the verdict never contradicts the number."""
        return round(100 * (self.after - self.before), 1)

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `same`, or `unknown` where there is no number."""
        if math.isnan(self.change):
            return "unknown"
        return "better" if self.change > 0 else "worse" if self.change < 0 else "same"


@dataclass(frozen=True)
class Page:
    """The content of the page.

    Attributes:
        title: of the page.
        facts: names and values of the settings.
        scores: one row for each metric.
        examples: grouped by kind on the page.
        training_curve: (step, loss).
        next_command: what to run next.
        provenance: how the page was made.
        num_latents: how many latent queries were learned.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    scores: tuple[ScoreRow, ...]
    examples: tuple[Example, ...]
    training_curve: tuple[tuple[int, float], ...]
    next_command: str
    provenance: str
    num_latents: int = 20


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its coordinate in the figure, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """The training curve in the units of its SVG: a frame of `left`, `top`, `right`, `bottom` with a line and ticks inside."""

    line: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    first: tuple[int, float]
    last: tuple[int, float]
    width: int = 560
    height: int = 290
    left: int = 52
    top: int = 30
    right: int = 530
    bottom: int = 242


def ticks_between(low: float, high: float) -> list[float]:
    """About five round numbers from at or below `low` to at or above `high`, in steps of 1, 2 or 5 times a power of ten.

    Args:
        low: the smallest value.
        high: the largest value, above it.

    Example:
        >>> ticks_between(0, 4.2)
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    if high <= low:
        high = low + 1
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.99)
    return [round(number * step, 10) for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def draw_curve(points: tuple[tuple[int, float], ...]) -> Curve | None:
    """The loss over the steps, on an axis that starts at zero; None with fewer than two finite points to join.

    Args:
        points: step and loss.
    """
    points = tuple((step, loss) for step, loss in points if math.isfinite(loss))
    if len(points) < 2:
        return None
    left, top, right, bottom = Curve.left, Curve.top, Curve.right, Curve.bottom
    first_step, last_step = min(step for step, _ in points), max(step for step, _ in points)
    losses = ticks_between(min(0.0, *(loss for _, loss in points)), max(0.0, *(loss for _, loss in points)))
    steps = [step for step in ticks_between(first_step, last_step) if first_step <= step <= last_step and step.is_integer()]

    def across(step: float) -> float:
        return left + (right - left) * (step - first_step) / max(1, last_step - first_step)

    def down(loss: float) -> float:
        return bottom - (bottom - top) * (loss - losses[0]) / (losses[-1] - losses[0])

    return Curve(
        line=" ".join(f"{across(step):.1f},{down(loss):.1f}" for step, loss in points),
        x_ticks=tuple(Tick(round(across(step), 1), f"{step:,.0f}") for step in steps),
        y_ticks=tuple(Tick(round(down(loss), 1), f"{loss:g}".replace("-", MINUS)) for loss in losses),
        first=points[0],
        last=points[-1],
    )


def outcome(images: tuple[ResultCard, ...]) -> str:
    """How many results of one search are relevant, and the rank of the first: with one relevant image, `1 of 5` would be the best result.

    Args:
        images: the results of one search, best first.

    Example:
        >>> outcome((ResultCard("a.png", "a cat", 0.9, False), ResultCard("b.png", "a dog", 0.8, True)))
        '1 right, at rank 2'
    """
    ranks = [rank for rank, card in enumerate(images, start=1) if card.right]
    if not ranks:
        return f"none of {len(images)} right"
    return f"{len(ranks)} right, {'the first ' if len(ranks) > 1 else ''}at rank {ranks[0]}"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, and a true minus sign.

    Args:
        value: of any size.
        digits: behind the point.

    Example:
        >>> signed(12.34), signed(0.0)
        ('+12.3', '±0.0')
    """
    if not math.isfinite(value):
        return "n/a"
    if round(value, digits) == 0:
        return f"±{0:.{digits}f}"
    return f"{value:+.{digits}f}".replace("-", MINUS)


def percent(fraction: float) -> str:
    """A fraction as the page displays it: `32.1%`.

    Args:
        fraction: from 0 to 1.
    """
    return f"{100 * fraction:.1f}%".replace("-", MINUS) if math.isfinite(fraction) else "n/a"


def cosine(score: float) -> str:
    """A cosine with three decimals, and a true minus sign.

    Args:
        score: from -1 to 1.
    """
    return f"{score:.3f}".replace("-", MINUS) if math.isfinite(score) else "n/a"


def css_length(fraction: float) -> str:
    """A fraction as a CSS length inside its track, 0% to 100%.

    Args:
        fraction: of the track.
    """
    return f"{100 * min(1.0, max(0.0, fraction)):.2f}%" if math.isfinite(fraction) else "0%"


def image_url(path: str) -> str:
    """A relative path as a URL. The leading `./` keeps any path, even `//host/x` or `http://host/x`, beside the page.

    Args:
        path: relative to the page.
    """
    return "./" + quote(path)


def render_page(page: Page) -> str:
    """The page as HTML; every text in it is escaped.

    Args:
        page: all that stands on it.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("slq.demo", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for convert in (outcome, signed, percent, cosine, css_length, image_url):
        environment.filters[convert.__name__] = convert
    groups = []
    for kind, (heading, meaning) in KINDS.items():
        examples = [example for example in page.examples if example.kind == kind]
        if examples:
            groups.append((kind, heading, meaning, examples))
    verdicts = [score.verdict for score in page.scores]
    return environment.get_template("page.html.jinja").render(
        page=page,
        groups=groups,
        curve=draw_curve(page.training_curve),
        counts={verdict: verdicts.count(verdict) for verdict in ("better", "worse", "same", "unknown")},
    )


def write_page(page: Page, path: Path) -> None:
    """Write the page; a reader sees the old one or the new one, never a part.

    Args:
        page: all that stands on it.
        path: of the file.

    Raises:
        OutputError: if it cannot be written.
    """
    write_text(path, render_page(page))
