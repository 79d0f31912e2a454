"""Self-generated facts: what the frozen model says its images show, what it tells of each thing, and whether it knows it again.

Three questions, each the user's to change: what an image shows; a fact about each thing that was named, several times; and what such a
fact is about. A fact is kept if the last answer names the thing. Everything that was said goes into one file of JSON lines, kept or not
and why, so that it can be read, and continued where it was stopped.

    {"kind": "settings", ...}                                                    model, questions, temperature, seed
    {"kind": "image", "image", "source", "said", "names"}                        by content hash
    {"kind": "fact", "name", "said", "answer", "kept", "reason"}
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slq.data.items import unique
from slq.errors import DataError, InputError, ResumeMismatchError, shorten
from slq.io.files import append_jsonl, read_jsonl, write_jsonl
from slq.io.provenance import isolated_rng
from slq.models import MINIATURE, FrozenModel
from slq.training.facts import Facts
from slq.types import Item, Pair

ASKED_AT_ONCE = 32
_ARTICLES = {"a", "an", "the", "some", "one"}


@dataclass(frozen=True)
class Questions:
    """What the model is asked.

    Attributes:
        shown: about an image.
        tell: about a thing, with `{name}` in it.
        recognise: about a fact, with `{fact}` in it.

    Raises:
        InputError: for a question without its place.
    """

    shown: str = "Name the main things in the image as short nouns, separated by commas."
    tell: str = "Tell one short fact about {name}, without saying what it is called."
    recognise: str = "What is this: {fact}? Answer with its name alone."

    def __post_init__(self) -> None:
        for question, place in ((self.tell, "{name}"), (self.recognise, "{fact}")):
            if place not in question:
                raise InputError(f"The question {question[:200]!r} needs {place} in it.")

    @classmethod
    def of(cls, model: FrozenModel) -> Questions:
        """The usual questions; the miniature knows only forms that it was trained on.

        Args:
            model: that will be asked.
        """
        if model.identity.name == MINIATURE:
            return cls("what is shown?", "tell a fact about a {name}.", "what is {fact}?")
        return cls()


@dataclass(frozen=True)
class Told:
    """What came of telling.

    Attributes:
        images: how many were asked about.
        names: of different things.
        kept: facts that the model knew again.
        refused: how many it did not keep, by reason.
    """

    images: int
    names: int
    kept: int
    refused: dict[str, int]


def tell_facts(
    model: FrozenModel,
    pairs: Sequence[Pair],
    file: Path,
    questions: Questions | None = None,
    facts_per_name: int = 10,
    max_names: int | None = None,
    temperature: float = 0.8,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Told:
    """Let a model tell of what its training images show, and write down all of it; a file that was begun is continued.

    Args:
        model: that can generate.
        pairs: whose images are asked about.
        file: JSON lines.
        questions: None for `Questions.of(model)`.
        facts_per_name: how often the model is asked to tell of a thing.
        max_names: the most things that are told of, those that most images show first; None for all.
        temperature: of telling; the other two questions are answered greedily.
        seed: of telling.
        progress: called with what is asked, and how much of it is done.

    Returns:
        The counts of the whole file.

    Raises:
        InputError: if no pair has an image.
        ResumeMismatchError: if the file was begun with another model, or other questions or options.
        OutputError: if it cannot be written.
    """
    questions = questions or Questions.of(model)
    images = unique([item for pair in pairs for item in (pair.query, *pair.positives) if item.image is not None])
    if not images:
        raise InputError("The model tells of what images show, and no pair has one.")
    settings = {"model": model.identity.to_dict(), **asdict(questions), "facts_per_name": facts_per_name, "temperature": temperature}
    lines = _begun(file, {"kind": "settings", **json.loads(json.dumps(settings)), "seed": seed})
    known = {line["image"] for line in lines if line["kind"] == "image"}
    missing = [item for item in images if item.content_hash not in known]
    for start in range(0, len(missing), ASKED_AT_ONCE):
        progress("what images show", len(images) - len(missing) + start, len(images))
        asked = missing[start : start + ASKED_AT_ONCE]
        lines += _append(file, _shown(model, asked, questions))
    names = _most_shown(lines, {item.content_hash for item in images})[:max_names]
    told_of = [line["name"] for line in lines if line["kind"] == "fact"]
    told_of = [name for name in told_of if name != told_of[-1]]  # of the last one some lines may be missing
    there = {(line["name"], line["said"]) for line in lines if line["kind"] == "fact"}
    for number, name in enumerate(names):
        progress("facts", number, len(names))
        if name not in told_of:
            told = _told(model, name, questions, facts_per_name, temperature, seed)
            lines += _append(file, (line for line in told if (name, line["said"]) not in there))
    return _count(lines)


def read_facts(file: Path) -> Facts:
    """The facts of a file that were kept, and what each image shows.

    Args:
        file: what `tell_facts` wrote.

    Raises:
        DataError: if it is missing or corrupt, or none was kept.
    """
    lines = _read(file)
    shown = {line["image"]: frozenset(line["names"]) for line in lines if line["kind"] == "image"}
    # Once each, though two processes may have written the same.
    kept = dict.fromkeys((line["said"], line["name"]) for line in lines if line["kind"] == "fact" and line["kept"])
    if not kept:
        raise DataError(f"{file} holds no fact that was kept: `slq facts` writes such a file; see the reasons in it.")
    return Facts(tuple(Item(said) for said, _ in kept), tuple(name for _, name in kept), shown)


def names_in(answer: str) -> list[str]:
    """The things that an answer lists, lower-cased and without articles.

    Args:
        answer: such as a sentence, or words with commas between them.

    Example:
        >>> names_in("A cat, two dogs and the Eiffel Tower.")
        ['cat', 'two dogs', 'eiffel tower']
    """
    parts = re.split(r",|;|\n|\band\b", answer.lower())
    return list(dict.fromkeys(name for part in parts if (name := _name(part))))


def _name(text: str) -> str:
    words = re.findall(r"[^\W_]+(?:[-'][^\W_]+)*", text.lower())
    while words and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words)


def _shown(model: FrozenModel, items: Sequence[Item], questions: Questions) -> Iterator[dict[str, Any]]:
    answers = model.generate([[model.message(Item(questions.shown, item.image))] for item in items])
    for item, said in zip(items, answers, strict=True):
        source = str(item.image) if isinstance(item.image, str | Path) else ""
        yield {"kind": "image", "image": item.content_hash, "source": source, "said": said, "names": names_in(said)}


def _told(model: FrozenModel, name: str, questions: Questions, count: int, temperature: float, seed: int) -> Iterator[dict[str, Any]]:
    """Facts about one thing, each with whether the model knew it again."""
    asked = [[model.message(Item(questions.tell.format(name=name)))]] * count
    with isolated_rng(seed=int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4])):
        told = model.generate(asked, temperature=temperature)
    different = list(dict.fromkeys(text for text in told if text))
    answers = model.generate([[model.message(Item(questions.recognise.format(fact=text)))] for text in different]) if different else []
    for said, answer in zip(different, answers, strict=True):
        reason = _refused(name, said, answer)
        yield {"kind": "fact", "name": name, "said": said, "answer": answer, "kept": not reason, "reason": reason}
    if not different:
        yield {"kind": "fact", "name": name, "said": "", "answer": "", "kept": False, "reason": "nothing was said"}


def _refused(name: str, said: str, answer: str) -> str:
    """Why a fact is not kept; empty if it is."""
    wanted = set(name.split())
    if wanted <= set(_name(said).split()):
        return "it says the name"
    return "" if wanted <= set(_name(answer).split()) else "it was taken for something else"


def _most_shown(lines: Sequence[dict[str, Any]], images: set[str]) -> list[str]:
    """Names by how many of the images show them, most first; equal ones in alphabetical order."""
    counts: dict[str, int] = defaultdict(int)
    for line in lines:
        if line["kind"] == "image" and line["image"] in images:
            for name in line["names"]:
                counts[name] += 1
    return sorted(counts, key=lambda name: (-counts[name], name))


def _count(lines: Sequence[dict[str, Any]]) -> Told:
    facts = [line for line in lines if line["kind"] == "fact"]
    refused: dict[str, int] = defaultdict(int)
    for line in facts:
        if not line["kept"]:
            refused[line["reason"]] += 1
    images = sum(line["kind"] == "image" for line in lines)
    return Told(images, len({line["name"] for line in facts}), sum(line["kept"] for line in facts), dict(refused))


def _begun(file: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of a file that was begun with these settings; a new file gets them as its first line."""
    if not file.exists():
        write_jsonl(file, [settings])  # whole or not at all, since a file without them is nobody's
        return [settings]
    lines = _read(file)
    for name, value in settings.items():
        if lines[0].get(name) != value:
            raise ResumeMismatchError(f"{file} was begun with another {name}: go on with the same, or choose another file.")
    return lines


def _append(file: Path, lines: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    found = list(lines)
    append_jsonl(file, *found)
    return found


def _read(file: Path) -> list[dict[str, Any]]:
    """Every line, but for those that a crash cut off; the settings first."""
    try:
        lines, _ = read_jsonl(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): `slq facts` writes such a file.") from error
    if not lines or not isinstance(lines[0], dict) or lines[0].get("kind") != "settings":
        raise DataError(f"{file} does not begin with the settings that `slq facts` writes: choose another file.")
    for line in lines[1:]:
        if not _is_line(line):
            raise DataError(f"{file} holds a line that `slq facts` does not write, {shorten(repr(line), 60)}: remove it.")
    return lines


def _is_line(line: Any) -> bool:
    """Whether a value of JSON has what is read of a line, each of its type."""
    kinds: dict[str, dict[str, type]] = {
        "settings": {},
        "image": {"image": str, "names": list},
        "fact": {"name": str, "said": str, "kept": bool, "reason": str},
    }
    wanted = kinds.get(str(line.get("kind"))) if isinstance(line, dict) else None
    if wanted is None or not all(isinstance(line.get(name), kind) for name, kind in wanted.items()):
        return False
    return all(isinstance(name, str) for name in line.get("names", ()))
