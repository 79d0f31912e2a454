"""The checks of written queries: first those that cost nothing, then the model's judgement of those that are left."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slq.errors import Failure, TextError
from slq_karr.answers import read_name, read_truth
from slq_karr.candidates import QueryCandidate
from slq_karr.categories import label
from slq_karr.prompts import Prompts
from slq_karr.request_runner import Request
from slq_karr.surface import Queries, Surface, mentions

if TYPE_CHECKING:
    from slq_karr.leaks import Leak

_ARTICLES = re.compile(r"^(an?|the|some)\s+", re.IGNORECASE)


FindLeaks = Callable[[str, str], "Sequence[Leak]"]
AskAll = Callable[[Sequence[Request], Callable[[Mapping[str, Any]], Any]], list[Any]]


def own_leaks() -> FindLeaks:
    """What slq-karr itself finds leaks with.

    Raises:
        MissingExtraError: if its dictionaries are not installed.
    """
    from slq_karr.leaks import find_leaks

    find_leaks("a word", "thing")  # what is missing is told here, before anything is paid for
    return find_leaks


def check_words(candidate: QueryCandidate, place: int, find_leaks: FindLeaks, surface: Surface, queries: Queries) -> None:
    """Leak, duplicate, surface: the first that fails ends it; a query that passes joins those so far.

    Args:
        candidate: gets the verdicts.
        place: of its image in the gallery.
        find_leaks: says what of a query names its target.
        surface: the captions of the gallery.
        queries: those so far.
    """
    leaks = leaks_of(candidate.query, candidate.names, candidate.target, find_leaks)
    candidate.judge("leak", not leaks, leaks)
    if leaks:
        return
    like = queries.like(candidate.query)
    candidate.judge("duplicate", like is None, f"nearly the same as {like}" if like else "")
    if like:
        return
    found = surface.finds(candidate.query, place)
    candidate.judge("surface", not found, "its words alone put its own image's caption in the first place" if found else "")
    if not found:
        queries.add(candidate.id, candidate.query)


def leaks_of(query: str, names: Sequence[str], target: str, find_leaks: FindLeaks) -> str:
    """What of a query names its target or is another of its names.

    Args:
        query: the text.
        names: other names of the target.
        target: its name.
        find_leaks: says what of a query names its target.

    Returns:
        The words with their reasons; empty if there are none.
    """
    try:
        found = [f"{leak.word!r}: {leak.reason}" for leak in find_leaks(query, target)]
    except TextError as error:  # a target without letters
        found = [f"cannot be checked: {error}"]
    found += [f"{name!r}: another name of {target}" for name in names if mentions([name]).search(query)]
    return "; ".join(found)


def names_target(answer: str, names: Sequence[str], target: str, find_leaks: FindLeaks) -> bool:
    """Whether an answer is the target: one of its names, or ends in a word that would give it away in a query.

    So plurals, synonyms and kinds of it count by the same dictionary as leaks do, and `hot dog stand` is no dog.

    Args:
        answer: a few words.
        names: other names of the target.
        target: its name.
        find_leaks: says what of a query names its target.
    """
    given = _plain(answer)
    if not given:
        return False
    if given in {_plain(name) for name in (target, *names)}:
        return True
    try:
        return any(_plain(leak.word) and f" {given}".endswith(f" {_plain(leak.word)}") for leak in find_leaks(given, target))
    except TextError:
        return False


def judge_answerable(candidates: Sequence[QueryCandidate], ask_all: AskAll, prompts: Prompts, find_leaks: FindLeaks) -> None:
    """The model, which sees a query and its category alone, must name the target.

    Args:
        candidates: get the verdict.
        ask_all: puts requests to the model.
        prompts: the texts that it is asked with.
        find_leaks: says which answers name the target.
    """
    requests = [
        Request(
            "answerable",
            each.id,
            prompts.fill("answerable", query=each.query, category=label(each.category), description=prompts.descriptions[each.category]),
        )
        for each in candidates
    ]
    for each, found in zip(candidates, ask_all(requests, read_name), strict=True):
        if isinstance(found, Failure):
            each.judge("answerable", False, found.reason)
            continue
        answer, why = found
        named = names_target(answer, each.names, each.target, find_leaks)
        each.judge("answerable", named, why if named else f"it was taken for {answer or 'nothing in particular'}", answer=answer)


def judge_true(candidates: Sequence[QueryCandidate], requests: Sequence[Request], ask_all: AskAll) -> None:
    """The model must find each query true of its own image.

    Args:
        candidates: get the verdict.
        requests: one for each candidate.
        ask_all: puts requests to the model.
    """
    for each, found in zip(candidates, ask_all(requests, read_truth), strict=True):
        if isinstance(found, Failure):
            each.judge("true_of_image", False, found.reason)
        else:
            each.judge("true_of_image", *found)


def _plain(text: str) -> str:
    """Lower-case words without punctuation or a leading article."""
    return " ".join(re.findall(r"\w+", _ARTICLES.sub("", text.strip()).lower()))
