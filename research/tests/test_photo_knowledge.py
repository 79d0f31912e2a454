"""The knowledge queries on photographs: what is committed of them, their answers, and the set that is made of a copy of the photographs."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from research.photo import checks
from research.photo.command import main
from research.photo.knowledge import (
    CATEGORIES,
    Concept,
    captions_that_name,
    file_name,
    judged,
    knowledge_set,
    read_concepts,
    read_queries,
    write_concepts,
)
from research.photo.photographs import TEST, Photograph, of_split, read_photographs
from slq.errors import DataError
from slq.io.files import write_jsonl

ROOT = Path(__file__).parents[2]
FLICKR8K = Path(os.environ.get("SLQ_FLICKR8K", "no data"))
needs_flickr8k = pytest.mark.skipif(not FLICKR8K.is_file(), reason="Flickr8k is not here: SLQ_FLICKR8K names its captions.jsonl")

CAPTIONS = {
    "cat.png": ("Two cats nap .", "A CAT sleeps ."),
    "hot.png": ("A hot dog .", "A man with hot dogs ."),
    "dog.png": ("A dog runs .", "Dogs  at play ."),
    "one.png": ("A dog .", "An animal ."),
    "category.png": ("A category .", "Dogma ."),
    "puppy.png": ("A puppy .", "An animal ."),
    "both.png": ("A dog and a cat .", "A cat beside a dog ."),
}


def photographs(folder: str = "photos") -> list[Photograph]:
    return [Photograph(f"{folder}/{name}", Path(folder) / name, TEST, captions) for name, captions in CAPTIONS.items()]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two concepts with two queries each."""
    dog = Concept("dog", ("dog", "dogs"), exceptions=("hot dog", "hot dogs"), related=("puppy",))
    cat = Concept("cat", ("cat", "cats"), doubtful=("both.png",))
    write_concepts([judged(each, photographs()) for each in (dog, cat)], tmp_path)
    rows = [("dog-1", "it barks", "dog", "functional"), ("dog-2", "what wolves became", "dog", "encyclopaedic")]
    rows += [("cat-1", "it purrs", "cat", "functional"), ("cat-2", "it has (3 x 3) lives", "cat", "logic")]
    write_jsonl(tmp_path / "queries.jsonl", [dict(zip(("id", "text", "concept", "category"), row, strict=True)) for row in rows])
    return tmp_path


# What is committed


def test_the_queries_are_as_many_and_as_varied_as_their_readme_says():
    queries, concepts = read_queries(), read_concepts()
    assert len(queries) == 461 >= 320 and len(concepts) == 149 >= 110
    counts = Counter(query.category for query in queries)
    assert set(counts) == set(CATEGORIES) and min(counts.values()) >= 40
    told = " ".join((ROOT / "research/photo/knowledge/README.md").read_text().split())
    assert f"{len(queries)} queries that lead to {len(concepts)} things" in told
    assert all(f"{count} {category}" in told for category, count in counts.items())
    assert sum(len(each.doubtful) for each in concepts.values()) == 19 and "; 19 times captions contradicted" in told
    changed = [json.loads(line) for line in (ROOT / "research/photo/knowledge/reviewed.jsonl").read_text().splitlines()]
    texts = {query.text for query in queries}
    assert all(row["reason"] and row["before"] not in texts and (row["after"] is None or row["after"] in texts) for row in changed)
    assert f"{len(changed)} of the {len(queries) + sum(row['after'] is None for row in changed)} drafts" in told


def test_every_concept_has_answers_that_are_not_unjudged_too():
    for each in read_concepts().values():
        assert 2 <= len(each.relevant) <= 250 and not set(each.relevant) & set(each.unjudged), each.name
        assert set(each.doubtful) <= set(each.unjudged), each.name


@pytest.mark.slow
def test_no_query_names_what_it_leads_to_or_repeats_another():
    assert checks.check()["problems"] == []


@needs_flickr8k
@pytest.mark.slow
def test_every_photograph_is_there_and_the_captions_give_the_same_answers():
    test = of_split(read_photographs(FLICKR8K), TEST)
    names = {file_name(each) for each in test}
    concepts = read_concepts()
    assert {image for each in concepts.values() for image in (*each.relevant, *each.unjudged)} <= names
    some = [concepts[name] for name in ("dog", "bicycle", "swing", "ocean", "camera", "whistle")]
    assert [judged(each, test) for each in some] == some
    whole = knowledge_set(test)
    assert len(whole.queries) == 461 and len(whole.corpus) == 1000 and whole.notes == ()
    assert all(Path(str(item.image)).is_file() for item in whole.corpus.values())
    assert len(set(whole.clusters.values())) == 149 and set(whole.categories.values()) == set(CATEGORIES)


# Answers


def test_two_captions_must_name_a_thing(folder):
    concepts = read_concepts(folder)
    assert concepts["dog"].relevant == ("both.png", "dog.png") and concepts["dog"].unjudged == ("one.png", "puppy.png")
    assert concepts["cat"].relevant == ("cat.png",) and concepts["cat"].unjudged == ("both.png",)
    assert captions_that_name(concepts["dog"], ["hot dogs", "a hot  dog", "a dogma"]) == 0


def test_the_set_speaks_of_the_photographs_as_the_data_do(folder):
    whole = knowledge_set(photographs("elsewhere"), folder)
    assert list(whole.corpus) == [f"elsewhere/{name}" for name in CAPTIONS] and whole.name == "knowledge"
    assert whole.qrels["dog-1"] == {"elsewhere/both.png": 1, "elsewhere/dog.png": 1} == whole.qrels["dog-2"]
    assert whole.excluded["dog-1"] == {"elsewhere/one.png", "elsewhere/puppy.png"}
    assert whole.clusters == {"dog-1": "dog", "dog-2": "dog", "cat-1": "cat", "cat-2": "cat"}
    assert whole.categories["cat-2"] == "logic" and whole.queries["cat-2"].text == "it has (3 x 3) lives"


def test_queries_without_an_answer_are_left_out_and_told(folder):
    some = [each for each in photographs() if file_name(each) in ("dog.png", "hot.png", "one.png")]
    part = knowledge_set(some, folder)
    assert list(part.queries) == ["dog-1", "dog-2"] and part.excluded["dog-1"] == {"photos/one.png"}
    assert part.notes == ("knowledge queries without an answer among the photographs: 2",)
    with pytest.raises(DataError, match="None of the 1 photographs answers a knowledge query"):
        knowledge_set([each for each in photographs() if file_name(each) == "hot.png"], folder)
    with pytest.raises(DataError, match=r"queries.jsonl cannot be read"):
        read_queries(folder / "nowhere")


# The command


def test_the_command_checks_and_judges_anew(folder, tmp_path, capsys):
    data = tmp_path / "captions.jsonl"
    write_jsonl(data, [{"image": f"photos/{name}", "split": "test", "captions": list(captions)} for name, captions in CAPTIONS.items()])
    options = ["knowledge", "--folder", str(folder), "--data", str(data)]
    assert main(["knowledge", "--folder", str(folder), "--write"]) == 2
    assert "give --data" in capsys.readouterr().err
    assert main(options) == 1  # of a gallery of seven, two photographs are more than a quarter
    told = capsys.readouterr().out
    assert "4 queries lead to 2 concepts." in told and "2 functional, 1 encyclopaedic, 1 logic" in told
    assert "dog is shown by 2 photographs." in told and "cat is shown by 1 photographs." in told and "not those" not in told

    concepts = read_concepts(folder)
    write_concepts([Concept("dog", ("dog", "dogs")), concepts["cat"]], folder)
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    rows[0]["text"], rows[3]["text"] = "it barks at other hounds", "it is purring"
    write_jsonl(folder / "queries.jsonl", rows)
    assert main([*options, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert any(problem.startswith("dog-1 names what it leads to: 'hounds'") for problem in found["problems"])
    assert any(problem.startswith("dog: the photographs kept for it are not those") for problem in found["problems"])
    main([*options, "--write"])
    assert read_concepts(folder)["dog"].relevant == ("both.png", "dog.png", "hot.png") and "not those" not in capsys.readouterr().out
    assert read_concepts(folder)["cat"] == concepts["cat"]


def test_what_words_alone_find_by_hand():
    concepts = {"dog": judged(Concept("dog", ("dog", "dogs")), photographs())}
    queries = [checks.KnowledgeQuery("dog-1", "runs with animal", "dog", "functional")]
    found = checks.overlap(queries, concepts, photographs())
    assert found["shared_words"] == pytest.approx(2 / 3) and found["words_hit5"] == 1.0
    # Three of seven answer, one is unjudged: of the other six, only drawing all three others leaves room for two answers.
    assert found["chance_hit5"] == 1.0
    assert checks._chance(10, 1) == pytest.approx(0.5) and checks._chance(10, 2) == pytest.approx(1 - 5 / 10 * 4 / 9)
