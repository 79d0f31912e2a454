"""Queries in other words: the model says plainly what a riddle means, or what an image with a change asked for would show.

"an animal with nine lives" becomes "a cat", and is searched for beside what was typed. What was made of a query is always shown: a
rewriting may be wrong, and on queries that name what they want there is nothing to gain.

Shapes: Q queries, D dimensions of a vector.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slq.errors import InputError
from slq.models import MINIATURE, FrozenModel
from slq.models.chat import fill
from slq.types import Item

NEW_TOKENS = 32
QUERIES_AT_ONCE = 32
LONGEST, TIMES_AS_LONG = 24, 3  # words of a rewriting: so many, or so many times as many as the query has
PROMPTS = (
    "What is meant by this? Answer with its plain name alone.\n{query}",
    "Say in a few plain words what to look for when someone searches for this: {query}",
    "what is {query}?",
    "name {query}.",
    "which thing is this: {query}?",
)
PROMPTS_WITH_IMAGE = (
    "{query}\nDescribe in one short sentence what the image shows after this change.",
    "{query}",
)


@dataclass(frozen=True)
class Rewriting:
    """What the model made of a query.

    Attributes:
        text: in its own words; empty if it was refused.
        said: all that it answered.
        refused: why the answer is not used; empty if it is.
    """

    text: str
    said: str
    refused: str = ""


def default_prompt(model: FrozenModel, query: Item) -> str:
    """What a model is asked about a query; the miniature knows only forms that it was trained on.

    Args:
        model: that is asked.
        query: a text, or an image with a text.
    """
    prompts = PROMPTS if query.image is None else PROMPTS_WITH_IMAGE
    if model.identity.name != MINIATURE:
        return prompts[0]
    return "what is {query}?" if query.image is None else "{query}"


def rewrite(model: FrozenModel, queries: Sequence[Item], prompt: str | None = None, max_new_tokens: int = NEW_TOKENS) -> list[Rewriting]:
    """Let a model say in plain words what queries mean.

    Args:
        model: the frozen model.
        queries: texts, or images with a text that asks for a change.
        prompt: what is asked, with `{query}` where the query's text is to stand; None for the model's default. An image comes first.
        max_new_tokens: where an answer ends at the latest.

    Returns:
        One rewriting a query. Empty and degenerate answers are refused, and so is a query that cannot be read; none stops the others.

    Raises:
        InputError: for a prompt without the place of the query.
        ModelError: if the model's logits are not finite.
    """
    if prompt is not None:
        fill(prompt, {"query": []})
    found: list[Rewriting | None] = [None] * len(queries)
    asked: list[tuple[int, list[dict[str, Any]]]] = []
    for place, query in enumerate(queries):
        try:
            asked.append((place, _conversation(model, query, prompt or default_prompt(model, query))))
        except InputError as error:
            found[place] = Rewriting("", "", str(error))
    for start in range(0, len(asked), QUERIES_AT_ONCE):
        part = asked[start : start + QUERIES_AT_ONCE]
        for (place, _), said in zip(part, model.generate([each for _, each in part], max_new_tokens), strict=True):
            reason = refusal(queries[place].text or "", said)
            found[place] = Rewriting("" if reason else _plain(said), said, reason)
    return [each for each in found if each is not None]


def refusal(text: str, said: str) -> str:
    """Why an answer is no rewriting of a text; empty if it may be one.

    Args:
        text: the query's.
        said: the answer.

    Example:
        >>> refusal("an animal with nine lives", "a cat"), refusal("an animal with nine lives", "a a a a a a")
        ('', 'the answer repeats itself')
    """
    words = _words(said)
    if not words:
        return "the answer is empty"
    if set(words) <= set(_words(text)):  # so answers to a query that names what it wants, and leaves the rest of it out
        return "the answer says only words of the query"
    if words[0] in ("yes", "no") and len(words) == 1:
        return "the answer is a yes or no"
    if any(
        words[place : place + size] * 3 == words[place : place + 3 * size]
        for size in range(1, len(words) // 3 + 1)
        for place in range(len(words))
    ):
        return "the answer repeats itself"
    if len(words) > max(LONGEST, TIMES_AS_LONG * len(_words(text))):
        return "the answer is too long"
    return ""


def fused(vectors_QD: np.ndarray, others_QD: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """Vectors of queries and of their rewritings as one vector each: by inner product, it ranks as the weighted sum of both scores does.

    Args:
        vectors_QD: (Q, D) or (Q, G, D), each vector of length 1.
        others_QD: the same of the rewritings.
        weight: of the rewritings, from 0 to 1.

    Returns:
        Of the same shape, each vector of length 1.

    Example:
        >>> fused(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])).round(2).tolist()
        [[0.71, 0.71]]
    """
    mixed = (1 - weight) * vectors_QD + weight * others_QD
    return mixed / np.linalg.norm(mixed, axis=-1, keepdims=True).clip(min=1e-12)


def _conversation(model: FrozenModel, query: Item, prompt: str) -> list[dict[str, Any]]:
    if query.text is None:
        raise InputError("the query has no text that could be put in other words")
    *image, text = model.item_processor.parts(query)
    return [{"role": "user", "content": [*image, *fill(prompt, {"query": [text]})]}]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _plain(said: str) -> str:
    """The first line of an answer, without quotation marks around it and a full stop behind it."""
    return said.strip().splitlines()[0].strip().strip("\"'“”").rstrip(".").strip()
