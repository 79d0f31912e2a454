"""A search that the model has a part in: calibrated on a collection, rewritten, judged, explained; and `slq ask`."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import invoke, refused
from PIL import Image

import slq
from slq.index.judge_file import JudgeSettings, is_judge_file, read_judge, write_judge
from slq.miniature.export import write_sample_data

RIDDLE = "the animal said to have nine lives"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged") / "world"
    write_sample_data(folder, "validation", 16)
    return folder


@pytest.fixture(scope="module")
def uncalibrated(world: Path, adapter: Path) -> Path:
    folder = world.parent / "uncalibrated"
    invoke("index", world / "images", "-m", adapter, "-c", folder, "--device", "cpu")
    return folder


@pytest.fixture(scope="module")
def calibrated(world: Path, uncalibrated: Path) -> tuple[Path, dict]:
    folder = world.parent / "collection"
    shutil.copytree(uncalibrated, folder)
    given = (folder, world / "captions.jsonl", "--target-precision", 0.5, "--json", "--device", "cpu")
    return folder, json.loads(invoke("collection", "calibrate", *given).stdout)


def with_settings(folder: Path, name: str, **changes: object) -> Path:
    """A copy of a collection, beside it so that it finds its images, with other settings of its judge."""
    target = folder.with_name(name)
    shutil.copytree(folder, target)
    settings = read_judge(target / "judge.json", slq.open_collection(target).head.fingerprint)
    write_judge(target / "judge.json", replace(settings, **changes))
    return target


def hits(*arguments: object) -> list[dict]:
    return [json.loads(line) for line in invoke("search", *arguments, "--json", "--device", "cpu").stdout.splitlines()]


def test_two_who_measure_both_kinds_at_once_lose_nothing(tmp_path):
    of_kind = [JudgeSettings("f", rewritten, "{item}is there {text}?", True, True, 1.0, 0.5, 0.5, {}) for rewritten in (False, True)]
    for turn in range(10):
        file = tmp_path / str(turn) / "judge.json"
        file.parent.mkdir()
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda settings, file=file: write_judge(file, settings), of_kind))
        assert [read_judge(file, "f", rewritten) for rewritten in (False, True)] == of_kind


@pytest.mark.slow
def test_calibrating_says_what_yes_is_worth(calibrated):
    folder, said = calibrated
    fingerprint = slq.open_collection(folder).head.fingerprint
    settings = read_judge(folder / "judge.json", fingerprint)
    assert said["question"] == settings.question and "{item}" in settings.question
    auc, low, high = said["measured"]["auc"]
    assert low <= auc <= high and said["can_judge"] == (low > 0.7) and said["measured"]["queries"] == 5
    assert {"judged", "similarity_alone", "gain_of_coverage", "seed"} <= set(said["measured"])
    assert slq.open_collection(folder).verify() == [], said


@pytest.mark.slow
def test_rewritten_queries_have_settings_of_their_own(calibrated, world):
    folder = calibrated[0].with_name("both")
    shutil.copytree(calibrated[0], folder)
    lines = [json.loads(line) for line in (world / "knowledge" / "queries.jsonl").read_text().splitlines()]
    texts = {line["_id"]: line["text"] for line in lines}
    judged = [line.split("\t") for line in (world / "knowledge" / "qrels" / "test.tsv").read_text().splitlines()[1:]]
    of_image = {image: query for query, image, _ in judged}
    rows = [{"image": image, "text": texts[query]} for image, query in of_image.items()]
    (world / "riddles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = (folder, world / "riddles.jsonl", "--rewrite", "--target-precision", 0.3, "--json", "--device", "cpu")
    said = json.loads(invoke("collection", "calibrate", *given).stdout)
    fingerprint = slq.open_collection(folder).head.fingerprint
    typed, rewritten = (read_judge(folder / "judge.json", fingerprint, each) for each in (False, True))
    assert not typed.rewritten and rewritten.rewritten and rewritten.weight == said["weight"]
    assert typed == read_judge(calibrated[0] / "judge.json", fingerprint) == read_judge(calibrated[0] / "judge.json", fingerprint, True)
    notes = [invoke("search", RIDDLE, "-c", each, "--rewrite", "--judge", "--device", "cpu").stderr for each in (folder, calibrated[0])]
    assert ["as they are typed" in each for each in notes] == [False, True]


@pytest.mark.slow
def test_rerank_orders_by_what_the_model_says(calibrated):
    folder = with_settings(calibrated[0], "can", can_judge=True)
    plain, judged = (hits("a cat", "-c", folder, "-k", 8, *more) for more in ((), ("--rerank", 5)))
    assert {hit["id"] for hit in judged} == {hit["id"] for hit in plain} and [hit["rank"] for hit in judged] == list(range(1, 9))
    assert [("probability" in hit) for hit in judged] == [True] * 5 + [False] * 3
    assert {hit["id"] for hit in judged[:5]} == {hit["id"] for hit in plain[:5]}
    shown = invoke("search", "a cat", "-c", folder, "-k", 8, "--rerank", 5, "--device", "cpu").stdout
    assert "says yes" in shown and "%" in shown


@pytest.mark.slow
@pytest.mark.parametrize("judges", [True, False])
def test_what_does_not_match_is_left_out(calibrated, judges):
    """By judged scores where they help, else by the similarity alone; a threshold above all leaves nothing, one below all leaves all."""
    folder, _ = calibrated
    for place, (threshold, left) in enumerate(((1e9, 0), (-1e9, 10))):
        other = with_settings(
            folder,
            f"{judges}-{place}",
            can_judge=True,
            helps=judges,
            threshold=threshold,
            similarity_threshold=-threshold if judges else threshold,
        )
        said = invoke("search", "a cat", "-c", other, "--judge", "--json", "--device", "cpu")
        found = [json.loads(line) for line in said.stdout.splitlines()]
        assert len(found) == left and all(("probability" in hit) == judges for hit in found)
        assert ("Nothing here matches: all of the 10 nearest are left out." in said.stderr) == (left == 0)
    result = slq.open_collection(folder.with_name(f"{judges}-0")).search("a cat", judge=True)
    assert result.nothing_matches and result.cut == 10 and result.to_dict()["nothing_matches"]


@pytest.mark.slow
def test_without_a_threshold_nothing_is_left_out_and_it_is_said(calibrated):
    other = with_settings(calibrated[0], "without", helps=False, similarity_threshold=None)
    said = invoke("search", "a cat", "-c", other, "--judge", "--device", "cpu")
    assert "nothing is left out" in said.stderr and len(said.stdout.splitlines()) > 10


@pytest.mark.slow
def test_a_riddle_is_rewritten_shown_and_looked_for_too(uncalibrated):
    said = invoke("search", RIDDLE, "-c", uncalibrated, "--rewrite", "--device", "cpu")
    assert "The model says that this means: a cat" in said.stderr
    result = slq.open_collection(uncalibrated).search(RIDDLE, rewrite=True)
    assert result.rewriting == "a cat" and [part.text for part in result.query.parts] == [RIDDLE, "a cat"]
    both = slq.open_collection(uncalibrated).search([RIDDLE, "a cat"])
    assert [hit.id for hit in result.hits] == [hit.id for hit in both.hits]


@pytest.mark.slow
def test_lines_of_standard_input_may_ask_for_it(uncalibrated, monkeypatch):
    lines = json.dumps({"text": RIDDLE, "rewrite": True, "top_k": 1}) + "\n" + json.dumps({"text": "a cat", "judge": True}) + "\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    said = invoke("search", "-", "-c", uncalibrated, "--device", "cpu", code=1)
    first, second = map(json.loads, said.stdout.splitlines())
    assert first["rewriting"] == "a cat" and "calibrate" in second["error"]["message"]


@pytest.mark.slow
def test_why_names_words_and_draws_over_images(uncalibrated, tmp_path):
    plain, mapped = tmp_path / "plain.png", tmp_path / "mapped.png"
    hits("a red cat", "-c", uncalibrated, "-k", 2, "-o", plain)
    found = hits("a red cat", "-c", uncalibrated, "-k", 2, "--why", "-o", mapped)
    for hit in found:
        assert [word for word, _ in hit["why"]["query_words"]] == ["a", "red", "cat"]
        assert len(hit["why"]["map"]) == 6 and len(hit["why"]["map"][0]) == 6
    with Image.open(plain) as one, Image.open(mapped) as other:
        assert one.size == other.size and one.tobytes() != other.tobytes()
    assert "rests on: a " in invoke("search", "a red cat", "-c", uncalibrated, "-k", 1, "--why", "--device", "cpu").stdout


@pytest.mark.slow
def test_ask_answers_about_an_item(uncalibrated, model):
    (hit,) = hits("a cat", "-c", uncalibrated, "-k", 1)
    said = json.loads(invoke("ask", hit["id"], "what is shown?", "-c", uncalibrated, "--json", "--device", "cpu").stdout)
    turn = {"role": "user", "content": [{"type": "image", "image": hit["image"]}, {"type": "text", "text": "what is shown?"}]}
    assert said["answer"] == model.generate([[turn]], 128)[0] and said["item"] == hit["id"]
    assert re.search("holds no item 'nobody.png'", refused("ask", "nobody.png", "what?", "-c", uncalibrated))


@pytest.mark.parametrize("asked", [("--judge",), ("--rerank", "3")])
def test_judging_needs_a_measurement(uncalibrated, asked):
    assert re.search("Nobody has measured yet .* slq collection calibrate", refused("search", "a cat", "-c", uncalibrated, *asked))


def test_judging_is_about_one_wanted_part(uncalibrated):
    for parts in (("a cat", "a dog"), ("--like", "0001.png")):
        assert re.search("about one TEXT, one image, or both", refused("search", *parts, "-c", uncalibrated, "--rewrite"))


@pytest.mark.slow
def test_settings_of_another_model_or_damaged_are_refused(calibrated):
    folder, _ = calibrated
    other = with_settings(folder, "another", fingerprint="another")
    assert re.search("measured with another model", refused("search", "a cat", "-c", other, "--judge"))
    unfit = with_settings(folder, "unfit", can_judge=False)
    assert re.search("This model cannot judge", refused("search", "a cat", "-c", unfit, "--rerank", "3"))
    damaged = with_settings(folder, "damaged")
    file = damaged / "judge.json"
    file.write_text(file.read_text().replace('"weight": ', '"weight": 1'))
    assert re.search("is damaged", refused("search", "a cat", "-c", damaged, "--judge"))
    assert is_judge_file(file)
    invoke("collection", "delete", damaged, "--yes")
    assert not damaged.exists()


def test_a_users_own_file_of_that_name_stays(uncalibrated, world, tmp_path):
    folder = tmp_path / "collection"
    shutil.copytree(uncalibrated, folder)
    (folder / "judge.json").write_text('{"mine": true}')
    assert re.search("slq did not write it", refused("collection", "calibrate", folder, world / "captions.jsonl", "--max-queries", "8"))
    invoke("collection", "delete", folder, "--yes")
    assert (folder / "judge.json").read_text() == '{"mine": true}'


@pytest.mark.slow
def test_what_cannot_be_read_is_told_and_left_out(calibrated, world, tmp_path):
    folder = with_settings(calibrated[0], "some-unread")
    rows = [json.loads(line) for line in (world / "captions.jsonl").read_text().splitlines()]
    (world / "broken.png").write_bytes(b"no image")
    rows[3] |= {"image": "broken.png"}
    (world / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = invoke("collection", "calibrate", folder, world / "some.jsonl", "--device", "cpu")
    assert "1 item(s) skipped:" in said.stderr and "broken.png" in said.stderr


@pytest.mark.slow
def test_texts_of_another_collection_are_refused(uncalibrated, world, adapter, tmp_path):
    write_sample_data(tmp_path / "other", "test", 12)
    assert re.search(
        r"None of \d+ texts finds its item", refused("collection", "calibrate", uncalibrated, tmp_path / "other" / "captions.jsonl")
    )


@pytest.mark.slow
def test_what_cannot_be_judged_is_shown_behind_and_said(calibrated, tmp_path):
    """A collection whose images are away."""
    folder = with_settings(calibrated[0], "away", can_judge=True, helps=True, threshold=1e9)
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    said = invoke("search", "a cat", "-c", moved, "--judge", "-k", 4, "--json", "--device", "cpu")
    assert "4 of 4 could not be judged, and come behind: " in said.stderr and len(said.stdout.splitlines()) == 4
