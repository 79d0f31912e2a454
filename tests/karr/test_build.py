"""Building a set against a real HTTP server: the whole way, going on after a stop, and what does not work out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from endpoint import Answer, Script, ScriptedEndpoint, picture_of, prompt_of
from picture_book import FACT_OF, PictureBook, find_leaks, place, shown_in

from slq.data import read_beir
from slq.errors import DataFileError, InputError
from slq.evaluate import evaluate
from slq.karr.build import Built, build
from slq.karr.candidates import CHECKS, read_candidates
from slq.karr.categories import CATEGORIES, quotas
from slq.karr.export import WHOLE, export
from slq.karr.journal import Journal
from slq.karr.models import Endpoint, LocalModel
from slq.karr.pace import Limits
from slq.karr.prompts import load_prompts
from slq.karr.settings import Options
from slq.methods import LastTokenReadout
from slq.miniature.export import write_world

COUNT = 12


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("karr") / "world"
    write_world(folder, "test", 40)
    return folder


@pytest.fixture(scope="module")
def book(world: Path) -> PictureBook:
    return PictureBook(world)


def run(script: Script, images: Path, out: Path, *, options: Options | None = None, limits: Limits | None = None, **more) -> Built:
    """One build with a server of its own; `asked` gets the prompts that it saw."""
    asked = more.pop("asked", [])
    timeout = more.pop("timeout", 20.0)
    with ScriptedEndpoint(script) as server, closing(Endpoint(server.url, "book", key="secret", timeout=timeout)) as model:
        try:
            return build(images, out, model, load_prompts(), options or Options(COUNT), limits, find_leaks=find_leaks, backoff=0.01, **more)
        finally:
            asked += server.prompts
            assert set(server.keys) <= {"Bearer secret"}


def journal(out: Path) -> list[dict]:
    """The lines of requests, without those that say that a run begins."""
    return [line for line in lines(out / "journal.jsonl") if line["status"] != "begun"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(world, book, tmp_path_factory) -> tuple[Path, Built, list[str]]:
    out, asked = tmp_path_factory.mktemp("karr") / "set", []
    return out, run(book, world / "captions.jsonl", out, asked=asked), asked


def test_a_set_has_the_mix_that_was_asked_for(whole):
    _, built, _ = whole
    wanted = {name: count for name, count in quotas(CATEGORIES, COUNT).items() if count}
    assert Counter(each.category for each in built.accepted) == wanted and built.missing == {}
    assert len({each.image for each in built.accepted}) == COUNT, "one query for a picture"


def test_every_accepted_query_is_checked_and_true(whole, world):
    out, built, _ = whole
    captions = {f"pictures/{n:04d}.png": row["caption"][0] for n, row in enumerate(lines(world / "captions.jsonl"), start=1)}
    for each in built.accepted:
        assert each.caption == captions[each.image] and (out / each.image).is_file()
        fact = FACT_OF[each.query]
        assert fact.concept == each.target and not find_leaks(each.query, each.target)
        assert list(each.to_dict()["verdicts"]) == list(CHECKS) and all(each.to_dict()["verdicts"][check]["passed"] for check in CHECKS)
        showing = [image for image, caption in captions.items() if each.target in shown_in(caption)]
        assert each.positives[0] == each.image and sorted(each.positives) == showing and each.unjudged == 0


def test_a_set_scores_as_the_queries_that_people_wrote(whole, world, backbone, tmp_path):
    """The world's own knowledge queries, over the same pictures: the same answers, and every query finds them at the same ranks."""
    export(whole[0], tmp_path / "out", find_leaks=find_leaks)
    made, own = read_beir(tmp_path / "out" / WHOLE), read_beir(world / "knowledge")
    source = {row["image"]: row["source"] for row in lines(whole[0] / "pictures.jsonl")}
    texts = {item.text for item in made.queries.values()}
    own = replace(own, queries={id_: item for id_, item in own.queries.items() if item.text in texts})
    answers = {item.text: set(own.qrels[id_]) for id_, item in own.queries.items()}
    assert {made.queries[id_].text: {source[image] for image in found} for id_, found in made.qrels.items()} == answers
    scored = evaluate(LastTokenReadout(backbone), [made, own])
    first, second = (
        {one.queries[each.id].text: sorted(each.ranks.values()) for each in found.queries}
        for one, found in zip((made, own), scored, strict=True)
    )
    assert first == second and len(first) == COUNT
    assert scored[0].metrics["hit@5"] > 2 * 5 / 40, "better than luck"


def test_files_are_as_described(whole):
    out, built, asked = whole
    assert read_candidates(out) == list(built.candidates)
    row = lines(out / "candidates.jsonl")[0]
    assert row.keys() >= {"id", "image", "caption", "target", "category", "query", "verdicts", "positives", "accepted"}
    assert row["id"] == "q0001" and row["verdicts"]["answerable"]["answer"] == row["target"]
    settings = json.loads((out / "settings.json").read_text())
    assert settings["model"] == "book" and set(settings["prompts"]) >= {"targets", "rewrite"} and settings["mix"] == CATEGORIES
    kept = journal(out)
    assert len(kept) == len(asked) and {line["status"] for line in kept} == {"answered"}
    assert [line["request"]["text"] in asked for line in kept] == [True] * len(kept)
    assert all(line["tokens_in"] and line["answer"] and line["time"] for line in kept)
    assert "secret" not in (out / "journal.jsonl").read_text() + (out / "settings.json").read_text()


def test_a_finished_set_is_built_again_without_a_question(whole, world, book):
    out, built, _ = whole
    before, asked = (out / "candidates.jsonl").read_bytes(), []
    assert run(book, world / "captions.jsonl", out, asked=asked) == built
    assert asked == [] and (out / "candidates.jsonl").read_bytes() == before


def test_another_set_may_use_what_was_paid_for(whole, world, book, tmp_path):
    out, _, _ = whole
    more, asked = tmp_path / "more", []
    more.mkdir()
    shutil.copy(out / "journal.jsonl", more)
    built = run(book, world / "captions.jsonl", more, options=Options(COUNT + 6), asked=asked)
    assert len(built.accepted) == COUNT + 6
    assert 0 < len(asked) == len(journal(more)) - len(journal(out))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"count": 13}, "count = 12, not 13"), ({"seed": 1}, "seed = 0, not 1"), ({"captions_only": True}, "captions_only = false, not true")],
)
def test_a_set_is_gone_on_with_as_it_was_begun(whole, world, book, change, complaint):
    out, _, asked = whole
    with pytest.raises(InputError, match=complaint):
        run(book, world / "captions.jsonl", out, options=Options(**{"count": COUNT, **change}), asked=(later := []))
    assert later == [] and len(journal(out)) == len(asked)


def test_other_pictures_are_another_set(whole, world, book, tmp_path):
    (tmp_path / "captions.jsonl").write_text("\n".join((world / "captions.jsonl").read_text().splitlines()[:-1]))
    (tmp_path / "pictures").symlink_to(world / "pictures")
    with pytest.raises(InputError, match="was begun with pictures = "):
        run(book, tmp_path / "captions.jsonl", whole[0])


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {helpers!r})
from picture_book import find_leaks
from slq.karr.build import build
from slq.karr.models import Endpoint
from slq.karr.pace import Limits
from slq.karr.prompts import load_prompts
from slq.karr.settings import Options
build(Path({images!r}), Path({out!r}), Endpoint({url!r}, "book", key="secret"), load_prompts(), Options({count}), Limits(1), find_leaks)
"""


def test_killed_half_way_and_gone_on_with_nothing_is_paid_twice(whole, world, book, tmp_path):
    at, out, images = 45, tmp_path / "set", world / "captions.jsonl"
    reached, never = threading.Event(), threading.Event()
    served: Counter[str] = Counter()

    def stuck(body) -> Answer:
        served[prompt_of(body)] += 1
        if sum(served.values()) < at:
            return book(body)
        reached.set()
        return Answer(status=500, hold=never)  # nothing is sent before the asker is gone

    with ScriptedEndpoint(stuck) as server:
        code = KILLED.format(helpers=str(Path(__file__).parent), images=str(images), out=str(out), url=server.url, count=COUNT)
        process = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
        assert reached.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        never.set()
    paid = Counter(line["request"]["text"] for line in journal(out))
    assert sum(paid.values()) == at - 1
    (out / "journal.jsonl").write_bytes((out / "journal.jsonl").read_bytes() + b'{"key": "torn')
    asked: list[str] = []
    built = run(book, images, out, limits=Limits(1), asked=asked)
    assert built == whole[1], "as if nothing had happened"
    assert not paid & Counter(asked), "what was answered before is not asked again"
    assert len(asked) == len(whole[2]) - (at - 1)


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
    reasons = {row["item"].split(",")[0]: row["reason"] for row in lines(out / "left_out.jsonl")}
    assert reasons[bad.image] == "no usable answer in 3 tries; the last: 'query' must be a text"
    assert reasons[shy.image].startswith("no usable answer in 3 tries; the last: refused: I\u2019m sorry")
    assert len(built.accepted) == COUNT and not {bad.image, shy.image} & {each.image for each in built.accepted}
    told = [prompt for prompt in asked if "Your last answer could not be used: 'query' must be a text. Answer with" in prompt]
    assert len(told) == 2
    assert Counter(line["status"] for line in journal(out))["malformed"] == 3 == Counter(line["status"] for line in journal(out))["refused"]
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
    kept = journal(tmp_path / "set")
    assert sum(line["status"] == "answered" for line in kept) == len(whole[2])
    assert all((line["cost"] == 0 and "answer" not in line) for line in kept if free and line["status"] != "answered")


def test_time_outs(whole, world, book, tmp_path):
    """One picture's question is never answered in time, the others' only at the second try."""
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
    assert [(row["item"], row["reason"]) for row in lines(out / "left_out.jsonl")] == [(slow.image, "no answer: time-out after 0.3 s")]
    assert sum(line["status"] == "time-out after 0.3 s" for line in journal(out)) >= 6


def test_costs_never_exceed_their_cap(whole, world, book, tmp_path):
    out, cap = tmp_path / "set", 3.5
    asked: list[str] = []
    prices = {"price_in": 200.0, "price_out": 200.0}
    with pytest.raises(InputError, match=r"could exceed the cap: .* of 3.5 is spent.*run again with a higher --max-cost"):
        run(book, world / "captions.jsonl", out, limits=Limits(2, max_cost=cap, **prices), asked=asked)
    spent = sum(line["cost"] for line in journal(out))
    assert 0.5 * cap < spent <= cap and 0 < len(asked) < len(whole[2])
    built = run(book, world / "captions.jsonl", out, limits=Limits(4, max_cost=100, **prices), asked=asked)
    assert built.accepted == whole[1].accepted and len(asked) == len(whole[2])
    tokens = sum(line["tokens_in"] + line["tokens_out"] for line in journal(out))
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
        return Answer(status=400, raw="picture too odd") if wrong else book(body)

    run(script, world / "captions.jsonl", out, asked=asked)
    assert lines(out / "left_out.jsonl") == [{"item": odd.image, "stage": "targets", "reason": "no answer: http 400: picture too odd"}]
    run(script, world / "captions.jsonl", out, asked=(again := []))
    assert again == []


def test_checks_reject_with_a_reason(whole, world, book, tmp_path):
    """Each of five pictures gets a query with one fault, and another picture takes its place."""
    leaks, again, plain, vague, wrong = whole[1].accepted[:5]
    own = {each.caption: each for each in (leaks, again, plain, vague, wrong)}
    queries = {
        leaks.caption: f"a thing called {leaks.target}",
        again.caption: None,
        plain.caption: plain.caption.replace(plain.target, "thing"),
    }

    def script(body) -> Answer:
        prompt = prompt_of(body)
        caption, query = place("Caption", prompt), place("Query", prompt)
        if prompt.startswith("Task: write") and caption in queries and place("Target", prompt) == own[caption].target:
            return Answer(json.dumps({"query": queries[caption] or leaks.query}))
        if prompt.startswith("Task: name") and query == vague.query:
            return Answer('{"answer": "", "why": "could be anything"}')
        if prompt.startswith("Task: judge") and query == wrong.query:
            return Answer('{"true": "no", "why": "it is not there"}')
        return book(body)

    built = run(script, world / "captions.jsonl", tmp_path / "set", options=Options(COUNT, tries=1))
    found = {each.caption: each for each in built.candidates if each.caption in own}
    assert found[leaks.caption].failed == "leak" and leaks.target in found[leaks.caption].verdicts["leak"]["why"]
    assert found[vague.caption].verdicts["answerable"] == {"passed": False, "why": "it was taken for nothing in particular", "answer": ""}
    assert found[wrong.caption].verdicts["true_of_picture"] == {"passed": False, "why": "it is not there"}
    assert found[plain.caption].failed in ("surface", "leak")
    assert found[leaks.caption].to_dict()["verdicts"]["answerable"] == {"passed": None, "why": "not asked: the check 'leak' failed before"}
    assert not any(found[caption].accepted for caption in (leaks.caption, plain.caption, vague.caption, wrong.caption))
    assert len(built.accepted) == COUNT


def test_the_number_of_judged_pictures_is_bounded(whole, world, book, tmp_path):
    asked: list[str] = []
    built = run(book, world / "captions.jsonl", tmp_path / "set", options=Options(COUNT, max_positives=1), asked=asked)
    likely = {each.id: len(each.positives) - 1 for each in whole[1].accepted}
    assert {each.id: len(each.positives) - 1 + each.unjudged for each in built.accepted} == likely
    assert all(len(each.positives) <= 2 for each in built.accepted) and any(each.unjudged for each in built.accepted)
    assert len(asked) == len(whole[2]) - sum(each.unjudged for each in built.accepted)


def test_a_bare_folder_is_captioned_first(world, book, tmp_path):
    bare, asked = tmp_path / "bare", []
    shutil.copytree(world / "pictures", bare)
    for path in sorted(bare.iterdir())[12:]:
        path.unlink()
    (bare / "broken.png").write_bytes(b"no picture")
    shutil.copy(bare / "0000.png", bare / "copy.png")
    built = run(book, bare, tmp_path / "set", options=Options(3), asked=asked)
    captions = {row["image"]: row["caption"] for row in lines(world / "captions.jsonl")}
    source = {row["image"]: row["source"] for row in lines(tmp_path / "set/pictures.jsonl") if "image" in row}
    assert len(built.accepted) == 3
    assert all(each.caption == captions[f"pictures/{source[each.image]}"][0] for each in built.accepted), "the server saw the pictures"
    assert sum(prompt.startswith("Task: caption") for prompt in asked) == 12
    reasons = {each.item: each.reason for each in built.left_out}
    assert "broken.png (pictures)" in reasons and reasons["copy.png (pictures)"] == "the same picture as 0000.png"
    again = run(book, bare, tmp_path / "set", options=Options(3), asked=(later := []))
    assert again == built and later == []


def test_captions_only_sends_no_picture(world, book, tmp_path):
    def script(body) -> Answer:
        assert picture_of(body) is None
        return book(body)

    assert len(run(script, world / "captions.jsonl", tmp_path / "set", options=Options(4, captions_only=True)).accepted) == 4
    with pytest.raises(InputError, match="Without captions the model must see the pictures"):
        run(script, world / "pictures", tmp_path / "bare", options=Options(4, captions_only=True))


def test_what_the_pictures_cannot_give_is_said(world, book, tmp_path):
    built = run(book, world / "captions.jsonl", tmp_path / "set", options=Options(100, (("logic_maths", 1.0),), tries=1))
    assert built.missing == {"logic_maths": 100 - len(built.accepted)} and 0 < len(built.accepted) < 40


def test_a_stopped_run_over_a_finished_set_takes_nothing_from_it(whole, world, book, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(whole[0], out)
    before = (out / "candidates.jsonl").read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(book, world / "captions.jsonl", out, watch=interrupted)
    assert (out / "candidates.jsonl").read_bytes() == before


def test_one_build_at_a_time_and_a_sound_journal(whole, world, book, tmp_path):
    out = tmp_path / "set"
    out.mkdir()
    with Journal(out / "journal.jsonl"), pytest.raises(InputError, match="Another build is writing"):
        run(book, world / "captions.jsonl", out)
    (out / "journal.jsonl").write_text('{"key": 1}\n{}\n')
    with pytest.raises(DataFileError, match=r"journal\.jsonl line 1 is broken"):
        run(book, world / "captions.jsonl", out)


def test_a_backbone_on_this_machine_is_asked_and_what_it_cannot_do_is_left_out(backbone, world, tmp_path):
    """The miniature answers in its own words, never in JSON: every answer is kept, costs nothing, and leaves its picture out."""
    few = tmp_path / "few.jsonl"
    rows = [{**row, "image": str(world / row["image"])} for row in lines(world / "captions.jsonl")[:2]]
    few.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = LocalModel(backbone, max_tokens=8)
    built = build(few, tmp_path / "set", model, load_prompts(), Options(2), find_leaks=find_leaks)
    assert built.accepted == [] and built.missing and built.spent == 0
    assert [each.reason for each in built.left_out] == ["no usable answer in 3 tries; the last: it holds no JSON object"] * 2
    kept = journal(tmp_path / "set")
    assert len(kept) == 6 and all(line["answer"] and line["cost"] == 0 for line in kept)
