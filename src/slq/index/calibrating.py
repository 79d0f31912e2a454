"""Measuring, on texts whose items are known, what the model's yes about hits of a collection is worth."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq.data.images import open_image
from slq.errors import Failure, InputError, shorten
from slq.index.export import truncated
from slq.index.judge_file import JudgeSettings
from slq.index.searching import Searchable
from slq.index.store import Hit, Row
from slq.io.provenance import provenance
from slq.types import Item, content_hash

if TYPE_CHECKING:
    from slq.encoders.base import Encoder
    from slq.judge import Calibration, Example, QuestionChoice
    from slq.models import FrozenModel

FOR_QUESTION, HITS = 3, 10  # one of so many texts chooses the question; results of a query that are judged


def calibrated(
    rows: Searchable,
    encoder: Encoder,
    matches: Sequence[tuple[Item, str]],
    precision: float,
    max_queries: int,
    rewritten: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] = lambda what: None,
) -> tuple[JudgeSettings, QuestionChoice, Calibration, list[Failure]]:
    """Choose the model's question on some texts, and measure on others what its yes is worth in a collection.

    Args:
        rows: of the collection.
        encoder: that they are of.
        matches: items of the collection, each with a text that is true of it.
        precision: wanted, of the hits that are kept.
        max_queries: how many texts are used at most.
        rewritten: whether the model rewrites the texts first, as `slq search --rewrite` does; for riddles, not for captions.
        seed: of which texts are used for what.
        progress: called with what is done next.

    Returns:
        What judge.json is to hold, the two measurements as they are told, and the items that cannot be read, which are left out.

    Raises:
        InputError: if there are too few texts, or none finds its item.
        ModelError: for a model whose tokens do not tell yes from no.
    """
    from slq.cache import KVCache
    from slq.encoders.reuse import PrefixReuse
    from slq.judge import Judge, calibrate, choose_question

    texts = list(dict.fromkeys(text for _, text in matches))
    random.Random(seed).shuffle(texts)
    number = min(max_queries, len(texts))
    for_question, for_threshold = set(texts[: number // FOR_QUESTION]), set(texts[number // FOR_QUESTION : number])
    progress("searching")
    usable, failures = _readable([each for each in matches if each[1] in for_question | for_threshold])
    examples = examples_in(rows, encoder, [each for each in usable if each[1] in for_threshold], rewritten)
    asked = [each for each in usable if each[1] in for_question]
    if rewritten:
        other = rewritten_texts(encoder.model, sorted(for_question))
        asked = [(item, other[text]) for item, text in asked]
    reuse = PrefixReuse(encoder.model, KVCache(), generation_prompt=True)  # items come again with every question
    choice = choose_question(
        encoder.model,
        asked,
        seed=seed,
        reuse=reuse,
        progress=lambda question: progress(f"asking {question.wording!r}"),
    )
    progress("judging what was found")
    found = calibrate(Judge(encoder.model, choice.question, reuse), examples, precision, seed=seed)
    return _settings(encoder.fingerprint, rewritten, choice, found, seed), choice, found, failures


def examples_in(rows: Searchable, encoder: Encoder, matches: Sequence[tuple[Item, str]], rewritten: bool = False) -> list[Example]:
    """What texts find in a collection, and which of it is their item.

    Args:
        rows: of the collection.
        encoder: that they are of.
        matches: items, each with a text that is true of it.
        rewritten: whether the model rewrites each text, and is asked about that.

    Returns:
        One example a text.

    Raises:
        InputError: if no text finds its item: the items are of another collection.
    """
    from slq.judge import Example, fused

    true_of: dict[str, set[str]] = {}
    for item, text in matches:
        true_of.setdefault(text, set()).add(content_hash(item) or "")
    embedded = encoder.encode([Item(text) for text in true_of], list(true_of), on_error="skip")
    asked, vectors = list(embedded.ids), embedded.vectors
    if rewritten:
        other = rewritten_texts(encoder.model, asked)
        asked = [other[text] for text in asked]
        vectors = fused(vectors, encoder.encode([Item(text) for text in asked]).vectors)
    examples = []
    found = rows.search(truncated(vectors, rows.metadata.dim), HITS)
    for own, text, hits in zip(embedded.ids, asked, found, strict=True):
        contents = true_of[own]
        row_of = {row.id: row for row in rows.get([hit.id for hit in hits])}
        right = frozenset(place for place, hit in enumerate(hits) if _shows(rows, row_of.get(hit.id), contents))
        items = tuple(item_of(rows, hit) for hit in hits)
        examples.append(Example(text, items, tuple(hit.score for hit in hits), right, min(contents)))
    if not any(example.right for example in examples):
        raise InputError(
            f"None of {len(examples)} texts finds its item among the first {HITS} in {shorten(rows.place)}: give texts of items in it."
        )
    return examples


def rewritten_texts(model: FrozenModel, texts: Sequence[str]) -> dict[str, str]:
    """What a model makes of texts; of those whose rewriting is refused, the text itself.

    Args:
        model: that is asked.
        texts: to be rewritten.
    """
    from slq.judge import rewrite

    said = rewrite(model, [Item(text) for text in texts])
    return {text: one.text or text for text, one in zip(texts, said, strict=True)}


def item_of(rows: Searchable, hit: Hit | Row) -> Item:
    """A row as an item that the model can look at.

    Args:
        rows: of the collection.
        hit: the row.
    """
    return Item(hit.text, None if hit.image is None else Path(rows.image_path(hit.image)))


def _shows(rows: Searchable, row: Row | None, contents: set[str]) -> bool:
    """Whether a row holds one of these contents; one with an image and a text also by its image alone."""
    if row is None:
        return False
    if row.content_hash in contents:
        return True
    return bool(row.image and row.text) and content_hash(Item(image=item_of(rows, row).image)) in contents


def _readable(matches: Sequence[tuple[Item, str]]) -> tuple[list[tuple[Item, str]], list[Failure]]:
    """Those whose items can be read, and the others with the reason."""
    usable, failures = [], list[Failure]()
    for item, text in matches:
        try:
            if item.image is not None:
                open_image(item.image)  # a hash takes any bytes
            usable.append((item, text))
        except InputError as error:
            failures.append(Failure(shorten(text), str(error)))
    return usable, failures


def _settings(fingerprint: str, rewritten: bool, choice: QuestionChoice, found: Calibration, seed: int) -> JudgeSettings:
    """Both measurements as judge.json holds them."""
    return JudgeSettings(
        fingerprint,
        rewritten,
        choice.question.wording,
        choice.works,
        found.helps,
        found.weight,
        found.judged.threshold,
        found.unjudged.threshold,
        {
            "auc": [choice.auc, *choice.bounds],
            "precision_wanted": found.wanted,
            "queries": found.num_queries,
            "judged": _measured(found.judged),
            "similarity_alone": _measured(found.unjudged),
            "gain_of_coverage": [found.gain.value, *found.gain.bounds],
            **provenance(seed),
        },
    )


def _measured(cut: Any) -> dict[str, Any]:
    names = ("precision", "coverage", "told_nothing", "first_right")
    told = {name: [(each := getattr(cut, name)).value, *each.bounds] for name in names}
    return {name: None if math.isnan(values[0]) else values for name, values in told.items()}  # JSON has no NaN
