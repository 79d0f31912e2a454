"""What does not work out while a set is built: answers, endpoints, costs, the request log."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest
from building import COUNT, lines, requests_of, run
from endpoint import Answer, prompt_of
from picture_book import find_leaks, place
from slq_karr.build import build
from slq_karr.limits import Limits
from slq_karr.models import LocalModel
from slq_karr.prompts import load_prompts
from slq_karr.request_log import RequestLog
from slq_karr.settings import Options

from slq.errors import DataError, InputError


def test_questions_that_never_get_a_usable_answer_are_left_out(whole, world, book, tmp_path):
    """The first says something else, the second refuses; each is asked three times, told why, and the rest goes on."""
    out, asked = tmp_path / "set", []
    bad, shy = whole[1].accepted[0], whole[1].accepted[1]

    def script(body) -> Answer:
        prompt = prompt_of(body)
        if prompt.startswith("Task: write") and place("Caption", prompt) == bad.caption:
            return Answer('{"query": 7}')
        if prompt.startswith("Task: write") and place("Caption", prompt) == shy.caption:
            return Answer("I\u2019m sorry, but I can't help with that.")
        return book(body)

    built = run(script, world / "captions.jsonl", out, asked=asked, options=Options(COUNT, tries=1))
    reasons = {row["id"].split(",")[0]: row["reason"] for row in lines(out / "skipped.jsonl")}
    assert reasons[bad.image] == "no usable answer in 3 tries; the last: 'query' must be a text"
    assert reasons[shy.image].startswith("no usable answer in 3 tries; the last: refused: I\u2019m sorry")
    assert len(built.accepted) == COUNT and not {bad.image, shy.image} & {each.image for each in built.accepted}
    told = [prompt for prompt in asked if "Your last answer could not be used: 'query' must be a text. Answer with" in prompt]
    assert len(told) == 2
    assert (
        Counter(line["status"] for line in requests_of(out))["malformed"]
        == 3
        == Counter(line["status"] for line in requests_of(out))["refused"]
    )
    assert run(script, world / "captions.jsonl", out, asked=(again := []), options=Options(COUNT, tries=1)) == built and again == []


@pytest.mark.parametrize(
    "first",
    [
        Answer("A cat, I should say."),
        Answer('{"targets": [{"name": "cat"', finish="length"),
        Answer('{"targets": "cat"}'),
        Answer("", refusal="not this one"),
        Answer("", finish="content_filter"),
        Answer(status=429, headers={"Retry-After": "0.01"}),
        Answer(status=503),
        Answer(raw="<html>busy</html>"),
        Answer(raw='{"choices": []}'),
    ],
)
def test_what_goes_wrong_once_is_asked_again(whole, world, book, tmp_path, first):
    answered: set[str] = set()

    def script(body) -> Answer:
        prompt = prompt_of(body).partition("\n\nYour last answer")[0]
        if prompt in answered:
            return book(body)
        answered.add(prompt)
        return first

    asked: list[str] = []
    options = Options(COUNT)
    assert run(script, world / "captions.jsonl", tmp_path / "set", asked=asked, options=options).accepted == whole[1].accepted
    assert len(asked) == 2 * len(whole[2])
    free = first.status != 200 or first.raw is not None
    kept = requests_of(tmp_path / "set")
    assert sum(line["status"] == "answered" for line in kept) == len(whole[2])
    assert all((line["cost"] == 0 and "answer" not in line) for line in kept if free and line["status"] != "answered")


def test_time_outs(whole, world, book, tmp_path):
    """One image's question is never answered in time, the others' only at the second try."""
    release, seen = threading.Event(), set()
    slow = whole[1].accepted[0]

    def script(body) -> Answer:
        prompt = prompt_of(body)
        if not prompt.startswith("Task: find what"):
            return book(body)
        if place("Caption", prompt) != slow.caption and (len(seen) >= 3 or prompt in seen):
            return book(body)
        seen.add(prompt)
        return Answer(hold=release)

    out = tmp_path / "set"
    try:
        built = run(script, world / "captions.jsonl", out, timeout=0.3, limits=Limits(8))
    finally:
        release.set()
    assert len(built.accepted) == COUNT
    assert [(row["id"], row["reason"]) for row in lines(out / "skipped.jsonl")] == [(slow.image, "no answer: time-out after 0.3 s")]
    assert sum(line["status"] == "time-out after 0.3 s" for line in requests_of(out)) >= 6


def test_costs_never_exceed_their_cap(whole, world, book, tmp_path):
    out, cap = tmp_path / "set", 3.5
    asked: list[str] = []
    prices = {"price_in": 200.0, "price_out": 200.0}
    with pytest.raises(InputError, match=r"could exceed the cap: .* of 3.5 is spent.*run again with a higher --max-cost"):
        run(book, world / "captions.jsonl", out, limits=Limits(2, max_cost=cap, **prices), asked=asked)
    spent = sum(line["cost"] for line in requests_of(out))
    assert 0.5 * cap < spent <= cap and 0 < len(asked) < len(whole[2])
    built = run(book, world / "captions.jsonl", out, limits=Limits(4, max_cost=100, **prices), asked=asked)
    assert built.accepted == whole[1].accepted and len(asked) == len(whole[2])
    tokens = sum(line["tokens_in"] + line["tokens_out"] for line in requests_of(out))
    assert built.spent == pytest.approx(tokens * 200 / 1e6)


def test_an_endpoint_that_is_down_ends_the_build_and_spoils_nothing(whole, world, book, tmp_path):
    out, images = tmp_path / "set", world / "captions.jsonl"
    with pytest.raises(InputError, match=r"The last 5 requests got no answer: http 500"):
        run(lambda body: Answer(status=500), images, out, limits=Limits(1))
    assert run(book, images, out).accepted == whole[1].accepted


def test_an_endpoint_that_never_will_answer_ends_the_build_at_once(world, tmp_path):
    asked: list[str] = []
    wrong = Answer(status=401, raw="no such key")
    with pytest.raises(InputError, match="answers 401: no such key Check its address, the key and the model 'book'"):
        run(lambda body: wrong, world / "captions.jsonl", tmp_path / "set", limits=Limits(1), asked=asked)
    assert len(asked) == 1
    wait = Answer(status=429, headers={"Retry-After": "86400"})
    with pytest.raises(InputError, match=r"asks to wait 86400 s .http 429.. What was answered is kept"):
        run(lambda body: wait, world / "captions.jsonl", tmp_path / "set", limits=Limits(1))


def test_a_request_that_the_endpoint_cannot_take_is_left_out_and_not_repeated(whole, world, book, tmp_path):
    odd, out, asked = whole[1].accepted[0], tmp_path / "set", []

    def script(body) -> Answer:
        prompt = prompt_of(body)
        wrong = prompt.startswith("Task: find what") and place("Caption", prompt) == odd.caption
        return Answer(status=400, raw="image too odd") if wrong else book(body)

    run(script, world / "captions.jsonl", out, asked=asked)
    assert lines(out / "skipped.jsonl") == [{"id": odd.image, "stage": "targets", "reason": "no answer: http 400: image too odd"}]
    run(script, world / "captions.jsonl", out, asked=(again := []))
    assert again == []


def test_one_build_at_a_time_and_a_sound_request_log(whole, world, book, tmp_path):
    out = tmp_path / "set"
    out.mkdir()
    with RequestLog(out / "requests.jsonl"), pytest.raises(InputError, match="Another build is writing"):
        run(book, world / "captions.jsonl", out)
    (out / "requests.jsonl").write_text('{"key": 1}\n{}\n')
    with pytest.raises(DataError, match=r"requests\.jsonl line 1 is broken"):
        run(book, world / "captions.jsonl", out)


def test_a_model_on_this_machine_is_asked_and_what_it_cannot_do_is_left_out(model, world, tmp_path):
    """The miniature answers in its own words, never in JSON: every answer is kept, costs nothing, and leaves its image out."""
    few = tmp_path / "few.jsonl"
    rows = [{**row, "image": str(world / row["image"])} for row in lines(world / "captions.jsonl")[:2]]
    few.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = LocalModel(model, max_tokens=8)
    built = build(few, tmp_path / "set", asked, load_prompts(), Options(2), find_leaks=find_leaks, allow_outside=True)
    assert built.accepted == [] and built.missing and built.spent == 0
    assert [each.reason for each in built.skipped] == ["no usable answer in 3 tries; the last: it holds no JSON object"] * 2
    kept = requests_of(tmp_path / "set")
    assert len(kept) == 6 and all(line["answer"] and line["cost"] == 0 for line in kept)
