"""Reading a model's answers: a JSON object somewhere in the text, and what each question expects in it.

A reader raises Malformed, with a reason that the model is told when it is asked again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slq_karr.categories import CATEGORIES, label

_REFUSAL = re.compile(r"\s*(i'?m sorry|i am sorry|sorry\b|i can(not|'t)\b|i'?m unable|i am unable|as an ai\b)", re.IGNORECASE)
_THINKING = re.compile(r"^.*</think>", re.DOTALL)
_LABELS = {label(category): category for category in CATEGORIES}


class Malformed(Exception):
    """An answer is not as it was asked for; caught where answers are judged."""


@dataclass(frozen=True)
class Target:
    """A thing in an image that a query could be about. names: its other names. categories: those a query could be of."""

    name: str
    names: tuple[str, ...]
    categories: tuple[str, ...]

    @property
    def every_name(self) -> tuple[str, ...]:
        """The name and the other names."""
        return (self.name, *self.names)


def is_refusal(text: str) -> bool:
    """Whether an answer without any object in it declines to answer."""
    return "{" not in text and _REFUSAL.match(text.replace("\u2019", "'")) is not None


def parse_object(text: str) -> dict[str, Any]:
    r"""The first JSON object of an answer, whatever stands around it; what a model thinks before it answers is skipped.

    >>> parse_object('Sure! ```json\n{"query": "it purrs"}\n```')
    {'query': 'it purrs'}
    """
    text = _THINKING.sub("", text)
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            found, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        return found
    raise Malformed("it holds no JSON object")


def read_caption(answer: Mapping[str, Any]) -> str:
    """The caption; never empty."""
    caption = _text(answer, "caption")
    if not caption:
        raise Malformed("'caption' is empty")
    return caption


def read_targets(answer: Mapping[str, Any]) -> list[Target]:
    """The targets with at least one known category; may be none."""
    listed = answer.get("targets")
    if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
        raise Malformed("'targets' must be a list of objects")
    found: dict[str, Target] = {}
    for each in listed:
        name = _text(each, "name").lower()
        categories = dict.fromkeys(_LABELS.get(str(given), str(given)) for given in _list(each, "categories"))
        known = tuple(category for category in categories if category in CATEGORIES)
        names = dict.fromkeys(" ".join(str(other).lower().split()) for other in _list(each, "other_names"))
        if name and known:
            found[name] = Target(name, tuple(other for other in names if other and other != name), known)
    return list(found.values())


def read_query(answer: Mapping[str, Any]) -> str:
    """The query; empty where the model knows of none."""
    return _text(answer, "query")


def read_truth(answer: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the query is true of the image, and why."""
    value = answer.get("true")
    if isinstance(value, str):
        value = {"true": True, "yes": True, "false": False, "no": False}.get(value.strip().lower())
    if not isinstance(value, bool):
        raise Malformed("'true' must be true or false")
    return value, _why(answer)


def read_name(answer: Mapping[str, Any]) -> tuple[str, str]:
    """What the model takes the query to be about, empty if it cannot tell, and why."""
    return _text(answer, "answer"), _why(answer)


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if value is None and name in answer:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{name!r} must be a text")
    return " ".join(value.split())


def _list(answer: Mapping[str, Any], name: str) -> list[Any]:
    value = answer.get(name) or []
    if not isinstance(value, list):
        raise Malformed(f"{name!r} must be a list")
    return value


def _why(answer: Mapping[str, Any]) -> str:
    return " ".join(str(answer.get("why") or "").split())
