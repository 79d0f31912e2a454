"""A collection on one page: how many rows of what kind, near-duplicates, hubs, outliers, and a map with its clusters named.

The page is one HTML file that needs neither scripts nor the network.
"""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from PIL import ImageOps

from slq.data.images import open_image
from slq.errors import InputError, SlqError
from slq.index.calibrating import item_of
from slq.index.store import Row
from slq.index.survey import K, Survey, survey

if TYPE_CHECKING:
    from slq.index.collection import CollectionRows
    from slq.models import FrozenModel

SAMPLE = 20_000
NEAR = 0.97
SHOWN, IN_GROUP, THUMBNAIL = 14, 7, 112
QUESTION = "What does the image show? Answer with one or two words."
_WORDS, _LEAST_LETTERS = 3, 3


@dataclass(frozen=True)
class Card:
    """A row on the page.

    Attributes:
        id: of the row.
        source: its image, as a data URI; empty where it has none that can be opened.
        text: what it says.
        note: what is said about it here.
    """

    id: str
    source: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        place: the collection's folder.
        rows: how many there are.
        kinds: how many of those that were looked at are texts, images, or both.
        looked_at: how many, drawn at random where there are more.
        near: the cosine from which on rows are nearly the same.
        survey: what was found.
        gap: how far texts and images lie apart, as the distance of their means; None where one of them is missing.
        names: of the clusters, in their order; empty for one without.
        named_by_model: whether the model gave them.
    """

    place: str
    rows: int
    kinds: Mapping[str, int]
    looked_at: tuple[Row, ...]
    near: float
    survey: Survey
    gap: float | None
    names: tuple[str, ...]
    named_by_model: bool

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: figures and ids."""

        def ids(places: Iterable[int]) -> list[str]:
            return [self.looked_at[place].id for place in places]

        found = self.survey
        return {
            "rows": self.rows,
            "looked_at": len(self.looked_at),
            "kinds": dict(self.kinds),
            "near": self.near,
            "near_duplicates": [{"ids": ids(group.places), "cosine": round(group.cosine, 6)} for group in found.groups],
            "held_by_hubs": round(found.held_by_hubs, 6),
            "hubs": [{"id": self.looked_at[place].id, "occurrences": int(found.occurrences[place])} for place in found.hubs(SHOWN)],
            "outliers": ids(found.outliers(SHOWN)),
            "modality_gap": None if self.gap is None else round(self.gap, 6),
            "clusters": [
                {**({"name": name} if name else {}), "rows": len(cluster.places), "middle": self.looked_at[cluster.places[0]].id}
                for name, cluster in zip(self.names, found.clusters, strict=True)
            ],
        }


def report(
    rows: CollectionRows,
    near: float = NEAR,
    sample: int = SAMPLE,
    seed: int = 0,
    model: FrozenModel | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Report:
    """Look at a collection as a whole.

    Args:
        rows: of the collection.
        near: the cosine from which on two rows are nearly the same.
        sample: how many rows are looked at, at most.
        seed: of the sample and the clusters.
        model: names clusters by the image in their middle; None names them by the words of their texts.
        progress: called with the number of rows just compared.

    Raises:
        InputError: for fewer than three rows.
        StoreError: if the collection cannot be read.
    """
    every = sorted((row for batch in rows.scan() for row in batch), key=lambda row: row.id)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(every))[:sample]).tolist()
    taken = tuple(every[place] for place in drawn)
    vectors = np.stack([row.vector for row in taken]).astype(np.float32) if taken else np.zeros((0, 1), np.float32)
    found = survey(vectors, near, seed, progress)
    texts = Counter(word for row in taken for word in _words(row))
    names = tuple(_name(rows, [taken[place] for place in cluster.places], texts, model) for cluster in found.clusters)
    return Report(rows.place, len(every), Counter(map(_kind, taken)), taken, near, found, _gap(taken, vectors), names, model is not None)


def page_of(found: Report, rows: CollectionRows) -> str:
    """The page, as HTML.

    Args:
        found: what it shows.
        rows: of the collection, whose images are made small for it.
    """

    def cards(places: Iterable[int], note: Callable[[int], str] = lambda place: "") -> list[Card]:
        return [_card(rows, found.looked_at[place], note(place)) for place in places]

    seen = found.survey
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("slq.index", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.jinja").render(
        report=found,
        groups=[(group, cards(group.places[:IN_GROUP])) for group in seen.groups[:SHOWN]],
        doubled=sum(len(group.places) - 1 for group in seen.groups),
        hubs=cards(seen.hubs(SHOWN), lambda place: f"near to {seen.occurrences[place]:,} others"),
        outliers=cards(seen.outliers(SHOWN), lambda place: f"cosine {seen.nearness[place]:.2f}"),
        clusters=[(name, cluster, cards(cluster.places[:IN_GROUP])) for name, cluster in zip(found.names, seen.clusters, strict=True)],
        points=[(*point, found.looked_at[place].id) for place, point in enumerate(seen.positions.round(3).tolist())][
            :: _step(len(seen.positions))
        ],
        k=K,
        named_by_model=found.named_by_model,
    )


def _step(count: int) -> int:
    """So that a map has at most 3,000 points."""
    return max(1, count // 3000)


def _kind(row: Row) -> str:
    return "images with text" if row.image and row.text else "images" if row.image else "texts"


def _gap(taken: Sequence[Row], vectors_ND: np.ndarray) -> float | None:
    """The distance of the means of texts and of images."""
    kinds = np.array([_kind(row) for row in taken])
    texts, images = vectors_ND[kinds == "texts"], vectors_ND[kinds == "images"]
    return float(np.linalg.norm(texts.mean(axis=0) - images.mean(axis=0))) if len(texts) and len(images) else None


def _words(row: Row) -> set[str]:
    return {word for word in re.findall(r"[^\W\d_]+", (row.text or "").casefold()) if len(word) >= _LEAST_LETTERS}


def _name(rows: CollectionRows, members: Sequence[Row], every: Counter[str], model: FrozenModel | None) -> str:
    """What a cluster is called: what the model says of the image in its middle, or the words that its texts have more than others."""
    middle = next((row for row in members if row.image), None)
    if model is not None and middle is not None:
        from slq.judge import ask

        try:
            return ask(model, item_of(rows, middle), QUESTION, max_new_tokens=12).splitlines()[0].strip()
        except (SlqError, IndexError):
            return ""
    own = Counter(word for row in members for word in _words(row))
    telling = sorted(own, key=lambda word: (-(own[word] ** 2) / every[word], word))[:_WORDS]
    return ", ".join(telling)


def _card(rows: CollectionRows, row: Row, note: str) -> Card:
    return Card(row.id, _thumbnail(rows, row), (row.text or "")[:160], note)


def _thumbnail(rows: CollectionRows, row: Row) -> str:
    if row.image is None:
        return ""
    try:
        image = ImageOps.fit(open_image(Path(rows.image_path(row.image))), (THUMBNAIL * 2, THUMBNAIL * 2))
    except InputError:
        return ""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
