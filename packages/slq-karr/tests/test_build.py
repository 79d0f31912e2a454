"""Building a set against a real HTTP server: the whole way, and going on after a stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from building import COUNT, lines, requests_of, run
from endpoint import Answer, ScriptedEndpoint, image_of, prompt_of
from picture_book import FACT_OF, find_leaks, place, shown_in
from slq_karr.candidates import CHECKS, read_candidates
from slq_karr.categories import CATEGORIES, quotas
from slq_karr.export import WHOLE, export
from slq_karr.limits import Limits
from slq_karr.settings import Options

from slq.data import read_beir
from slq.encoders import LastTokenEncoder
from slq.errors import InputError, OutputError, OutputExistsError
from slq.evaluation import evaluate


def test_a_set_has_the_mix_that_was_asked_for(whole):
    _, built, _ = whole
    wanted = {name: count for name, count in quotas(CATEGORIES, COUNT).items() if count}
    assert Counter(each.category for each in built.accepted) == wanted and built.missing == {}
    assert len({each.image for each in built.accepted}) == COUNT, "one query for an image"


def test_every_accepted_query_is_checked_and_true(whole, world):
    out, built, _ = whole
    captions = {f"images/{n:04d}.png": row["caption"][0] for n, row in enumerate(lines(world / "captions.jsonl"), start=1)}
    for each in built.accepted:
        assert each.caption == captions[each.image] and (out / each.image).is_file()
        fact = FACT_OF[each.query]
        assert fact.concept == each.target and not find_leaks(each.query, each.target)
        assert list(each.to_dict()["verdicts"]) == list(CHECKS) and all(each.to_dict()["verdicts"][check]["passed"] for check in CHECKS)
        showing = [image for image, caption in captions.items() if each.target in shown_in(caption)]
        assert each.positives[0] == each.image and sorted(each.positives) == showing and each.unjudged == 0


@pytest.mark.slow
def test_a_set_scores_as_the_queries_that_people_wrote(whole, world, model, tmp_path):
    """The world's own knowledge queries, over the same images: the same answers, and every query finds them at the same ranks."""
    export(whole[0], tmp_path / "out", find_leaks=find_leaks)
    made, own = read_beir(tmp_path / "out" / WHOLE), read_beir(world / "knowledge")
    source = {row["image"]: row["source"] for row in lines(whole[0] / "images.jsonl")}
    texts = {item.text for item in made.queries.values()}
    own = replace(own, queries={id_: item for id_, item in own.queries.items() if item.text in texts})
    answers = {item.text: set(own.qrels[id_]) for id_, item in own.queries.items()}
    assert {made.queries[id_].text: {source[image] for image in found} for id_, found in made.qrels.items()} == answers
    scored = evaluate(LastTokenEncoder(model), [made, own])
    first, second = (
        {one.queries[each.id].text: sorted(each.ranks.values()) for each in found.queries}
        for one, found in zip((made, own), scored, strict=True)
    )
    assert first == second and len(first) == COUNT
    assert scored[0].metrics["hit@5"] > 2 * 5 / 40, "better than luck"


def test_files_are_as_described(whole):
    out, built, asked = whole
    assert read_candidates(out) == (list(built.candidates), [])
    row = lines(out / "candidates.jsonl")[0]
    assert row.keys() >= {"id", "image", "caption", "target", "category", "query", "verdicts", "positives", "accepted"}
    assert row["id"] == "q0001" and row["verdicts"]["answerable"]["answer"] == row["target"]
    settings = json.loads((out / "settings.json").read_text())
    assert settings["model"] == "book" and set(settings["prompts"]) >= {"targets", "rewrite"} and settings["mix"] == CATEGORIES
    kept = requests_of(out)
    assert len(kept) == len(asked) and {line["status"] for line in kept} == {"answered"}
    assert [line["request"]["text"] in asked for line in kept] == [True] * len(kept)
    assert all(line["tokens_in"] and line["answer"] and line["time"] for line in kept)
    assert "secret" not in (out / "requests.jsonl").read_text() + (out / "settings.json").read_text()


def test_a_finished_set_is_built_again_without_a_question(whole, world, book):
    out, built, _ = whole
    before, asked = (out / "candidates.jsonl").read_bytes(), []
    assert run(book, world / "captions.jsonl", out, asked=asked) == built
    assert asked == [] and (out / "candidates.jsonl").read_bytes() == before


def test_another_set_may_use_what_was_paid_for(whole, world, book, tmp_path):
    out, _, _ = whole
    more, asked = tmp_path / "more", []
    more.mkdir()
    shutil.copy(out / "requests.jsonl", more)
    built = run(book, world / "captions.jsonl", more, options=Options(COUNT + 6), asked=asked)
    assert len(built.accepted) == COUNT + 6
    assert 0 < len(asked) == len(requests_of(more)) - len(requests_of(out))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"count": 13}, "count = 12, not 13"), ({"seed": 1}, "seed = 0, not 1"), ({"captions_only": True}, "captions_only = false, not true")],
)
def test_a_set_is_gone_on_with_as_it_was_begun(whole, world, book, change, complaint):
    out, _, asked = whole
    with pytest.raises(InputError, match=complaint):
        run(book, world / "captions.jsonl", out, options=Options(**{"count": COUNT, **change}), asked=(later := []))
    assert later == [] and len(requests_of(out)) == len(asked)


def test_other_images_are_another_set(whole, world, book, tmp_path):
    (tmp_path / "captions.jsonl").write_text("\n".join((world / "captions.jsonl").read_text().splitlines()[:-1]))
    (tmp_path / "images").symlink_to(world / "images")
    with pytest.raises(InputError, match="was begun with images_fingerprint = "):
        run(book, tmp_path / "captions.jsonl", whole[0], allow_outside=True)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {helpers!r})
from picture_book import find_leaks
from slq_karr.build import build
from slq_karr.models import Endpoint
from slq_karr.limits import Limits
from slq_karr.prompts import load_prompts
from slq_karr.settings import Options
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
        return Answer(status=500, hold=never)  # nothing is sent before the runner is gone

    with ScriptedEndpoint(stuck) as server:
        code = KILLED.format(helpers=str(Path(__file__).parent), images=str(images), out=str(out), url=server.url, count=COUNT)
        process = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
        assert reached.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        never.set()
    paid = Counter(line["request"]["text"] for line in requests_of(out))
    assert sum(paid.values()) == at - 1
    (out / "requests.jsonl").write_bytes((out / "requests.jsonl").read_bytes() + b'{"key": "torn')
    asked: list[str] = []
    built = run(book, images, out, limits=Limits(1), asked=asked)
    assert built == whole[1], "as if nothing had happened"
    assert not paid & Counter(asked), "what was answered before is not asked again"
    assert len(asked) == len(whole[2]) - (at - 1)


def test_checks_reject_with_a_reason(whole, world, book, tmp_path):
    """Each of five images gets a query with one fault, and another image takes its place."""
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
    assert found[wrong.caption].verdicts["true_of_image"] == {"passed": False, "why": "it is not there"}
    assert found[plain.caption].failed in ("surface", "leak")
    assert found[leaks.caption].to_dict()["verdicts"]["answerable"] == {"passed": None, "why": "not made: the check 'leak' failed before"}
    assert not any(found[caption].accepted for caption in (leaks.caption, plain.caption, vague.caption, wrong.caption))
    assert len(built.accepted) == COUNT


def test_the_number_of_judged_images_is_bounded(whole, world, book, tmp_path):
    asked: list[str] = []
    built = run(book, world / "captions.jsonl", tmp_path / "set", options=Options(COUNT, max_positives=1), asked=asked)
    likely = {each.id: len(each.positives) - 1 for each in whole[1].accepted}
    assert {each.id: len(each.positives) - 1 + each.unjudged for each in built.accepted} == likely
    assert all(len(each.positives) <= 2 for each in built.accepted) and any(each.unjudged for each in built.accepted)
    assert len(asked) == len(whole[2]) - sum(each.unjudged for each in built.accepted)


def test_a_bare_folder_is_captioned_first(world, book, tmp_path):
    bare, asked = tmp_path / "bare", []
    shutil.copytree(world / "images", bare)
    for path in sorted(bare.iterdir())[12:]:
        path.unlink()
    (bare / "broken.png").write_bytes(b"no image")
    shutil.copy(bare / "0000.png", bare / "copy.png")
    built = run(book, bare, tmp_path / "set", options=Options(3), asked=asked)
    captions = {row["image"]: row["caption"] for row in lines(world / "captions.jsonl")}
    source = {row["image"]: row["source"] for row in lines(tmp_path / "set/images.jsonl") if "image" in row}
    assert len(built.accepted) == 3
    assert all(each.caption == captions[f"images/{source[each.image]}"][0] for each in built.accepted), "the server saw the images"
    assert sum(prompt.startswith("Task: caption") for prompt in asked) == 12
    reasons = {each.item: each.reason for each in built.skipped}
    assert "broken.png (images)" in reasons and reasons["copy.png (images)"] == "the same image as 0000.png"
    again = run(book, bare, tmp_path / "set", options=Options(3), asked=(later := []))
    assert again == built and later == []


def test_captions_only_sends_no_image(world, book, tmp_path):
    def script(body) -> Answer:
        assert image_of(body) is None
        return book(body)

    assert len(run(script, world / "captions.jsonl", tmp_path / "set", options=Options(4, captions_only=True)).accepted) == 4
    with pytest.raises(InputError, match="Without captions the model must see the images"):
        run(script, world / "images", tmp_path / "bare", options=Options(4, captions_only=True))


def test_what_the_images_cannot_give_is_said(world, book, tmp_path):
    built = run(book, world / "captions.jsonl", tmp_path / "set", options=Options(100, (("logic_maths", 1.0),), tries=1))
    assert built.missing == {"logic_maths": 100 - len(built.accepted)} and 0 < len(built.accepted) < 40


def test_a_stopped_run_over_a_finished_set_takes_nothing_from_it(whole, world, book, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(whole[0], out)
    before = (out / "candidates.jsonl").read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(book, world / "captions.jsonl", out, on_progress=interrupted)
    assert (out / "candidates.jsonl").read_bytes() == before


def test_the_own_leak_checker_is_what_a_build_uses(whole, world, book, tmp_path):
    pytest.importorskip("lemminflect")
    built = run(book, world / "captions.jsonl", tmp_path / "set", find_leaks=None)
    assert len(built.accepted) == COUNT
    odd = whole[1].accepted[0]

    def script(body) -> Answer:
        prompt = prompt_of(body)
        leaks = prompt.startswith("Task: write") and place("Caption", prompt) == odd.caption
        return Answer(json.dumps({"query": f"some {odd.target}-like thing"})) if leaks else book(body)

    built = run(script, world / "captions.jsonl", tmp_path / "other", find_leaks=None)
    (found,) = [each for each in built.candidates if each.query == f"some {odd.target}-like thing"]
    assert found.failed == "leak" and odd.target in found.verdicts["leak"]["why"]


def test_a_set_among_its_own_images_is_refused(world, book):
    with pytest.raises(InputError, match="lies among the images"):
        run(book, world / "images", world / "images/set")


def test_a_folder_of_ones_own_is_not_built_into(world, book, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "candidates.jsonl").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"holds candidates\.jsonl and no settings\.json of a set"):
        run(book, world / "captions.jsonl", mine)
    with pytest.raises(OutputError, match="which is read"):
        run(book, world / "captions.jsonl", world)
    assert (mine / "candidates.jsonl").read_text() == "years of work"
