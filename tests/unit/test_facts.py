"""Facts beside pairs: which are drawn for a batch, and what the file of them holds."""

from __future__ import annotations

import json
import random

import pytest

from slq.errors import DataError, InputError
from slq.io.files import append_jsonl
from slq.training.facts import Facts
from slq.training.telling import Questions, names_in, read_facts
from slq.types import Item

SETTINGS = {"kind": "settings", "seed": 0}
IMAGE = {"kind": "image", "image": "a" * 64, "source": "a.png", "said": "a cat", "names": ["cat"]}
KEPT = {"kind": "fact", "name": "cat", "said": "it purrs", "answer": "a cat", "kept": True, "reason": ""}
REFUSED = {**KEPT, "said": "it barks", "answer": "a dog", "kept": False, "reason": "it was taken for something else"}


@pytest.fixture
def facts() -> Facts:
    shown = {Item("one").content_hash: frozenset({"cat"}), Item("two").content_hash: frozenset({"cat", "dog"})}
    return Facts(tuple(map(Item, ("purrs", "meows", "barks", "flies"))), ("cat", "cat", "dog", "bird"), shown)


def test_facts_are_drawn_about_what_the_batch_shows(facts):
    batch = facts.draw([Item("one"), Item("caption"), Item("two")], 64, random.Random(0))
    assert batch is not None and {item.text for item in batch.items} == {"purrs", "meows", "barks"} and batch.places == (0, 2)
    rows = dict(zip([item.text for item in batch.items], batch.positives.tolist(), strict=True))
    assert rows == {"purrs": [True, True], "meows": [True, True], "barks": [False, True]}


def test_no_more_are_drawn_than_asked_for_and_none_about_what_is_not_shown(facts):
    batch = facts.draw([Item("two")], 2, random.Random(0))
    assert batch is not None and len(batch.items) == 2 and batch.positives.all()
    assert facts.draw([Item("caption")], 2, random.Random(0)) is None


@pytest.mark.parametrize("change", [{"names": ("cat", "cat", "dog", "dog")}, {"shown": {}}, {"texts": tuple(map(Item, "abcd"))}])
def test_the_hash_covers_texts_names_and_images(facts, change):
    assert Facts(**{**vars(facts), **change}).sha256 != facts.sha256


def write(path, *lines, end="\n"):
    path.write_text("\n".join(map(json.dumps, lines)) + end)
    return path


def test_the_file_gives_what_was_kept(tmp_path):
    found = read_facts(write(tmp_path / "facts.jsonl", SETTINGS, IMAGE, KEPT, REFUSED))
    assert [item.text for item in found.texts] == ["it purrs"] and found.names == ("cat",)
    assert found.shown == {"a" * 64: frozenset({"cat"})}


@pytest.mark.parametrize("torn", ['{"kind": "fa', '{"kind": "fact", "said": "\u00e4'.encode()[:-1].decode("latin-1")])
def test_a_line_that_was_cut_off_is_passed_over_at_the_end_and_where_the_file_was_continued(tmp_path, torn):
    file = write(tmp_path / "facts.jsonl", SETTINGS, IMAGE, KEPT)
    file.write_bytes(file.read_bytes() + torn.encode("latin-1"))
    assert [item.text for item in read_facts(file).texts] == ["it purrs"]
    append_jsonl(file, {**KEPT, "said": "it meows"})
    assert [item.text for item in read_facts(file).texts] == ["it purrs", "it meows"]


def test_what_two_processes_wrote_is_one_fact(tmp_path):
    assert len(read_facts(write(tmp_path / "facts.jsonl", SETTINGS, SETTINGS, IMAGE, KEPT, IMAGE, KEPT)).texts) == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([SETTINGS, IMAGE, REFUSED], "no fact that was kept"),
        ([IMAGE, KEPT], "does not begin with the settings"),
        ([SETTINGS, {"no": "kind"}, KEPT], "does not write, {'no': 'kind'}"),
        ([SETTINGS, [1], KEPT], r"does not write, \[1\]"),
        ([SETTINGS, {**IMAGE, "names": "cat"}, KEPT], "does not write"),
        ([SETTINGS, {**IMAGE, "names": [["cat"]]}, KEPT], "does not write"),
        ([SETTINGS, IMAGE, {**KEPT, "said": 7}], "does not write"),
        ([SETTINGS, IMAGE, {**KEPT, "kept": "yes"}], "does not write"),
        ([[1], KEPT], "does not begin with the settings"),
    ],
)
def test_another_file_is_refused(tmp_path, lines, said):
    with pytest.raises(DataError, match=said):
        read_facts(write(tmp_path / "facts.jsonl", *lines))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="slq facts"):
        read_facts(tmp_path / "gone.jsonl")


@pytest.mark.parametrize("change", [{"tell": "tell me"}, {"recognise": "what?"}])
def test_a_question_without_its_place_is_refused(change):
    with pytest.raises(InputError, match=r"needs \{"):
        Questions(**change)


@pytest.mark.parametrize(
    ("said", "names"),
    [("A cat and the dog", ["cat", "dog"]), ("cats; a cat, cats", ["cats", "cat"]), ("sand castle", ["sand castle"]), ("...", [])],
)
def test_names_are_read_from_an_answer(said, names):
    assert names_in(said) == names
