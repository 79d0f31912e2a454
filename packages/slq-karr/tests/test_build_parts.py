"""The parts of a build alone: mixes, prompts, answers, surface words, rounds, waiting and naming."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from picture_book import find_leaks
from slq_karr import answers
from slq_karr.answers import Malformed, Target, parse_object
from slq_karr.categories import CATEGORIES, label, parse_mix, quotas
from slq_karr.gallery import find_source
from slq_karr.limits import Budget, Limits, RateLimiter
from slq_karr.models import Endpoint, _retry_after
from slq_karr.prompts import PLACES, load_prompts
from slq_karr.schedule import Schedule
from slq_karr.surface import Queries, Surface
from slq_karr.verify import leaks_of, names_target

from slq.errors import InputError

# --- mixes ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 100, 2915])
def test_quotas_add_up_and_are_near(count):
    found = quotas(CATEGORIES, count)
    assert sum(found.values()) == count
    assert all(abs(found[name] - count * share) < 1 for name, share in CATEGORIES.items())


def test_shares_are_the_published_ones():
    assert sum(CATEGORIES.values()) == pytest.approx(1) and len({label(name) for name in CATEGORIES}) == 6
    assert parse_mix("functional=3, logic_maths=1") == dict.fromkeys(CATEGORIES, 0.0) | {"functional": 0.75, "logic_maths": 0.25}


@pytest.mark.parametrize(
    "text", ["functional", "functional=x", "wit=1", "functional=0", "functional=-1,logic_maths=2", "functional=nan", ""]
)
def test_wrong_mixes_are_told(text):
    with pytest.raises(InputError, match="The mix "):
        parse_mix(text)


# --- prompts --------------------------------------------------------------------------------------------------------------------


def test_prompts_can_be_replaced_one_by_one(tmp_path):
    (tmp_path / "answerable.txt").write_text("$query? $category: $description costs $$1")
    ours, theirs = load_prompts(), load_prompts(tmp_path)
    assert theirs.fill("answerable", query="it\npurrs", category="a", description="$b") == "it purrs? a: $b costs $1"
    assert {name for name in PLACES if ours.hashes[name] != theirs.hashes[name]} == {"answerable"}
    assert set(ours.descriptions) == set(CATEGORIES) and "logic_maths: something" in ours.targets("a cat")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("answerable", "$query?", r"must be a text that fills in \$query, \$category, \$description"),
        ("caption", "what is $this?", "must be a text that fills in no place"),
        ("caption", "costs $1", "write \\$\\$ for a dollar sign"),
        ("riddle", "x", "riddle.txt is not a prompt"),
        ("categories", "functional: x", "must hold a line"),
    ],
)
def test_wrong_prompts_are_told(tmp_path, name, text, complaint):
    (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(InputError, match=complaint):
        load_prompts(tmp_path)


# --- answers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"query": "x"}',
        'Here:\n```json\n{"query": "x"}\n```',
        '<think>{"query": "y"}? no</think> {"query": "x"} {"query": "z"}',
        '{oh} {"query": "x"}',
    ],
)
def test_an_object_is_found_whatever_stands_around_it(text):
    assert parse_object(text) == {"query": "x"}


@pytest.mark.parametrize("text", ["", "[1]", "{'query': 'x'}", '{"query": "x"', "{" * 5000])
def test_no_object(text):
    with pytest.raises(Malformed):
        parse_object(text)


def test_targets_are_read_leniently_where_nothing_is_lost():
    given = [
        {"name": " Cat ", "other_names": ["Kitten", "cat", ""], "categories": ["logic and maths", "functional", "wit", "functional"]},
        {"name": "sofa", "categories": ["wit"]},
        {"name": "dog", "other_names": None, "categories": ["functional"]},
    ]
    assert answers.read_targets({"targets": given}) == [
        Target("cat", ("kitten",), ("logic_maths", "functional")),
        Target("dog", (), ("functional",)),
    ]
    assert answers.read_targets({"targets": []}) == []


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (answers.read_targets, {"targets": ["cat"]}),
        (answers.read_targets, {"targets": [{"name": 1, "categories": []}]}),
        (answers.read_targets, {"targets": [{"name": "a", "categories": "functional"}]}),
        (answers.read_caption, {"caption": " "}),
        (answers.read_query, {}),
        (answers.read_truth, {"true": "perhaps"}),
        (answers.read_truth, {"true": 1}),
        (answers.read_name, {"answer": ["cat"]}),
    ],
)
def test_answers_of_another_shape_are_malformed(read, answer):
    with pytest.raises(Malformed):
        read(answer)


def test_answers():
    assert answers.read_query({"query": None}) == "" and answers.read_truth({"true": "No", "why": "a  dog"}) == (False, "a dog")
    assert answers.is_refusal("I cannot do that") and not answers.is_refusal('Sorry! {"query": "x"}') and not answers.is_refusal("a cat")


# --- words ----------------------------------------------------------------------------------------------------------------------

CAPTIONS = [("a grey cat on a bookshelf", "a cat among books"), ("a dog on the grass",), ("a red car in the rain",)]


def test_surface_finds_what_repeats_a_caption_and_not_what_takes_knowledge():
    surface = Surface(CAPTIONS)
    assert surface.finds("something on a bookshelf", 0) and surface.finds("books with something among them", 0)
    assert not surface.finds("the pet with (2+7) lives", 0) and not surface.finds("xyz", 0)
    assert surface.scores("a dog on the grass").argmax() == 1 and surface.scores("a dog on the grass")[1] == pytest.approx(2)
    assert not Surface([*CAPTIONS, CAPTIONS[0]]).finds("something on a bookshelf", 0), "two images that it cannot tell apart"
    assert surface.similarities(0).argmax() == 0


def test_queries_in_nearly_the_same_words():
    queries = Queries()
    assert queries.like("the animal with (2+7) lives") is None
    queries.add("q1", "the animal with (2+7) lives")
    queries.add("q2", "what keeps the rain off")
    assert queries.like("The animal, with (2+7) lives!") == "q1" and queries.like("the animals with (2+7) lives") == "q1"
    assert queries.like("the pet said to have 10 - 1 lives") is None


def test_what_names_a_target():
    assert leaks_of("it purrs", ("kitten",), "cat", find_leaks) == ""
    assert "'kitten': another name of thing" in leaks_of("two kittens", ("kitten",), "thing", find_leaks)
    for answer in ("cat", "A cat.", "cats", "kitten", "house cat", "mog"):
        assert names_target(answer, ("mog",), "cat", find_leaks), answer
    for answer in ("", "dog", "cat food", "the"):
        assert not names_target(answer, ("mog",), "cat", find_leaks), answer


# --- rounds ---------------------------------------------------------------------------------------------------------------------


def test_rounds_meet_the_mix_by_what_is_accepted():
    """Every second query fails: the mix is met all the same, each image has one accepted query, and no task comes twice."""
    schedule = Schedule({"functional": 6, "logic_maths": 3}, tries=3)
    images = [f"{n}" for n in range(18)]
    targets = [Target(f"t{n % 4}", (), ("functional", "logic_maths") if n % 2 else ("functional",)) for n in range(18)]
    schedule.offers = {image: [target] for image, target in zip(images, targets, strict=True)}
    seen, accepted, number = Counter(), [], 0
    while tasks := schedule.propose(images):
        schedule.begin(tasks)
        seen.update((task.image, task.target.name, task.category) for task in tasks)
        good = [task for task in tasks if (number := number + 1) % 2]
        schedule.accept(good)
        accepted += good
    assert Counter(task.category for task in accepted) == {"functional": 6, "logic_maths": 3} and schedule.missing() == {
        "functional": 0,
        "logic_maths": 0,
    }
    assert max(Counter(task.image for task in accepted).values()) == 1 and max(seen.values()) == 1


def test_targets_are_spread_and_tries_bounded():
    schedule = Schedule({"functional": 4}, tries=2)
    both = [Target("person", (), ("functional",)), Target("kite", (), ("functional",)), Target("hat", (), ("functional",))]
    schedule.offers = {"a": both, "b": both}
    (first, second) = schedule.propose(["a", "b", "c"])
    assert {first.target.name, second.target.name} == {"person", "kite"}
    for _ in range(5):
        tasks = schedule.propose(["a"])
        schedule.begin(tasks)
    assert tasks == [] and schedule.missing() == {"functional": 4}


# --- limits ---------------------------------------------------------------------------------------------------------------------


def test_waiting_as_the_endpoint_asks():
    assert _retry_after("2.5") == 2.5 and _retry_after("-1") == 0 and _retry_after(None) is None and _retry_after("soon") is None
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < _retry_after(date) <= 100  # type: ignore[operator]


def test_requests_go_out_at_even_distances(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("slq_karr.limits.time.monotonic", lambda: clock[0])
    rate_limiter, left = RateLimiter(requests_per_minute=30), []

    def sleep(seconds: float) -> bool:
        clock[0] += seconds
        return True

    monkeypatch.setattr(rate_limiter, "sleep", sleep)
    for _ in range(3):
        assert rate_limiter.wait()
        left.append(clock[0])
    rate_limiter.hold(50)
    rate_limiter.wait()
    assert left == [100, 102, 104] and clock[0] == 154
    rate_limiter.stop()
    assert not rate_limiter.wait()


def test_money_is_set_aside_for_what_is_under_way():
    budget = Budget(Limits(price_in=1.0, max_cost=10), spent=4)
    with budget.reserve(5):
        with pytest.raises(InputError, match=r"4\.0000 of 10 is spent, 5\.0000 under way"), budget.reserve(2):
            pass
        budget.charge(1)
    with budget.reserve(5):
        assert budget.spent == 5


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"concurrency": 0}, "at least 1"),
        ({"requests_per_minute": 0}, "above 0"),
        ({"price_in": -1}, "below 0"),
        ({"max_cost": 1}, "needs prices"),
    ],
)
def test_wrong_limits_are_told(options, complaint):
    with pytest.raises(InputError, match=complaint):
        Limits(**options)


def test_fields_of_the_body():
    endpoint = Endpoint("http://x/v1/", "m", fields={"max_tokens": None, "max_completion_tokens": 2000, "seed": 1})
    body = endpoint._body("hello", None)
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_completion_tokens": 2000, "seed": 1
    }  # fmt: skip
    assert endpoint.max_tokens == 2000 and endpoint._address == "http://x/v1/chat/completions"
    endpoint.close()


def test_a_source_that_is_no_captions_of_images(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"query": "a", "positive": "b"}) + "\n")
    with pytest.raises(InputError, match="not an image with captions"):
        find_source(tmp_path / "pairs.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        find_source(tmp_path / "empty")
