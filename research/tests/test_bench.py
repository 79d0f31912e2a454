"""Every benchmark script at its smallest size: it runs, and its result says what it is to say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from research.bench import judging, karr_leaks, measuring, miniature, roofline, scaling
from slq.adapters.latents import LatentQueries
from slq.encoders import LatentEncoder
from slq.judge import QUESTIONS
from slq.miniature.world.concepts import all_facts

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a script and returns its result file; what it writes goes to a folder of the test's own."""
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    monkeypatch.setattr(roofline, "SECONDS", 0.02)  # of each product, where its rate is no matter

    def script(name: str, *options: object) -> dict[str, Any]:
        module = import_module(f"research.bench.{name}")
        monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, options)])
        module.main()
        (path,) = tmp_path.glob("*.json")
        result = json.loads(path.read_text(encoding="utf-8"))
        assert {"command", "date"} <= result.keys()
        return result

    return script


@pytest.mark.process
def test_start_counts_what_each_command_takes(run):
    found = run("start", "--repeats", 1, "--only", "import slq", "slq --help")
    assert set(found["now"]) == {"import slq", "slq --help"} and "before" not in found
    assert all(one["cpu_seconds"]["min"] > 0 and 0 < one["imports_of_wall"] < 1 for one in found["now"].values())


def test_scoring_ranks_every_answer(run):
    result = run("scoring", "--queries", 4, "--corpus", 500, "--dim", 8)
    assert result["command"] == "python -m research.bench.scoring --queries 4 --corpus 500 --dim 8"
    assert result["hit@1000"] == 1 and 0 <= result["median_rank_over_corpus"] <= 1


def test_every_way_of_searching_finds_the_same(run):
    result = run("search", "--rows", 300, "--dim", 8, "--repeats", 1)
    assert result["rows"] == 300 and len(result["cpu_milliseconds"]) == 7
    assert result["cpu_milliseconds"].keys() == result["memory_in_addition_mb"].keys()


def test_leakage_takes_copies_for_copies_and_nothing_else(run):
    result = run("leakage", "--scenes", 20, "--photographs", 4)
    at = str(result["distance"])
    assert result["scenes"]["different"]["pairs"] == 190 and result["scenes"]["different"]["taken_for_copies"][at] == 0
    assert result["photographs"]["copies"]


def test_karr_leaks_counts_every_error(run, tmp_path, monkeypatch):
    examples = karr_leaks.EXAMPLES.read_text(encoding="utf-8").splitlines(keepends=True)
    few = [line for part in ("development", "held-out") for line in [line for line in examples if json.loads(line)["part"] == part][:40]]
    (tmp_path / "few.jsonl").write_text("".join(few), encoding="utf-8")
    monkeypatch.setattr(karr_leaks, "EXAMPLES", tmp_path / "few.jsonl")
    monkeypatch.setattr(karr_leaks, "all_facts", lambda: all_facts()[:10])
    result = run("karr_leaks")
    for part in ("development", "held-out"):
        one = result[part]
        right = sum(int(text.split(" of ")[0]) for text in one["right by kind"].values())
        assert one["examples"] == 40 == right + len(one["errors"]) and one["precision"] > 0.7 < one["recall"]


def test_karr_world_judges_as_people_do(run):
    result = run("karr_world", "--images", 24, "--count", 6)
    assert result["built"]["accepted"] == 6 and "last token, zero-shot" in result["hit@5"]


@pytest.mark.slow
def test_collections_follow_their_files(run):
    result = run("collections", "--images", 10, "--add", 2, "--change", 1, "--delete", 2, "--move", 1, "--kills", 0)
    assert [step["encoded"] for step in result["changes"]] == [10, 0, 2, 1, 0, 0, 0] and result["changes"][-1]["rows"] == 10
    assert result["kills"]["rows are those of the files"] and result["kills"]["largest distance of a vector"] < 1e-4


@pytest.mark.slow
def test_unwanted_parts_are_weighed(run):
    result = run("unwanted", "--things", 2, "--others", 4)
    for counts in result["of_the_ten_best"].values():
        assert set(counts) == {"0.0", "0.25", "0.5", "0.75", "1.0"}
        assert all(0 <= one["the thing without it"] <= one["the thing"] <= 1 for one in counts.values())


@pytest.mark.slow
def test_judging_measures_every_part(run, tmp_path, monkeypatch, model):
    sizes = {"VALIDATION_IMAGES": 8, "TEST_IMAGES": 8, "QUERIES": 6, "DEEP": 5, "SHALLOW": 3, "MAP_PAIRS": 2, "TIMED": 2}
    for name, size in sizes.items():
        monkeypatch.setattr(judging, name, size)
    monkeypatch.setattr(judging, "TRAINING_IMAGES", 2)
    monkeypatch.setattr(judging, "QUESTIONS", QUESTIONS[:1])
    LatentEncoder(model, LatentQueries(2, model.dim)).save_pretrained(tmp_path / "adapter")
    found = run("judging", "--adapter", tmp_path / "adapter", "--repeats", 1)
    assert set(found["question"]["test"]) == {QUESTIONS[0].wording}
    assert all(one["largest_difference_of_log_odds"] < 1e-3 for one in found["milliseconds_a_hit"].values())
    assert set(found["rewriting"]["test"]) == {"knowledge", "composed", "captions"}
    assert {"text to image", "image to text", "knowledge", "knowledge, rewritten", "composed, rewritten"} == set(found["order"])
    assert all({"judged", "unjudged", "gain", "helps"} <= set(one) for one in found["cut-off"].values())
    assert {"integrated gradients, 8 steps", "blocks of 2 x 2 hidden"} <= set(found["maps"])


@pytest.mark.slow
def test_training_step_ways_agree(run):
    result = run("training_step", "--model", "miniature", "--images", 2, "--image-size", 96, 96, "--num-latents", 2, "--repeats", 1)
    flops = [result["roofline"][way]["flops"] for way in ("prefixes cached", "vision features cached", "nothing cached", "naive")]
    assert flops == sorted(flops) and len(set(flops)) == 4
    assert all(difference <= 1e-4 for way in result["agreement"].values() for difference in way.values())


@pytest.mark.slow
def test_latent_lora_is_told_beside_plain_latents(run):
    result = run("latent_lora", "--texts", 4, "--repeats", 1)
    for work in ("a query", "a batch of captions", "a training step, prefixes cached"):
        assert set(result[work]) == set(result["adapters"]) and result[work]["5 latents"]["over_plain"]["median"] == 1
    assert result["adapters"]["5 latents, rank 2"]["parameters"] == 40_192 and 20 <= result["query_tokens"] <= 28
    assert 4 * 40_192 < result["adapters"]["5 latents, rank 2"]["bytes"] < 4.2 * 40_192


@pytest.mark.slow
def test_encoding_reads_the_same_last_token(run):
    result = run("encoding", "--images", 4, "--texts", 8, "--repeats", 1, "--workers", 0)
    assert all(cosine > 0.999 for cosine in result["same_last_token"].values())
    for way in ("20 latents, as in the paper", "5 latents in the prompt's place", "sentence-transformers"):
        assert 0 < result["images"]["roofline"][way]["of_machine"] < 2


@pytest.mark.slow
def test_adaptation_learns_the_same_weights_each_way(run):
    result = run("adaptation", "--images", 24, "--epochs", 1, "--repeats", 1)
    one = result["one caption in a step"]
    assert set(one["speed_up"]) == {"ours", "naive", "ours, written to disk", "ours, found on disk", "ours, in 8 bits"}
    exact = [difference for way, difference in one["largest_difference_of_weights"].items() if way != "ours, in 8 bits"]
    assert max(exact) <= 1e-3 * one["largest_weight"]


@pytest.mark.slow
def test_scaling_measures_every_size(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    (tmp_path / "docs" / "images").mkdir(parents=True)
    for name, value in {"ROOT": tmp_path, "IMAGES": 4, "LATENTS": (1, 2), "TOKENS": (64,), "BATCHES": (4,), "ITEMS": (4,)}.items():
        monkeypatch.setattr(scaling, name, value)
    monkeypatch.setattr(scaling, "EPOCHS", (1,))
    monkeypatch.setattr(scaling, "TRAINING_IMAGES", 16)
    result = run("scaling", "--repeats", 1)
    assert set(result["seconds_a_step"]["latent queries"]) == {"1", "2"} and set(result["epochs"]) == {"naive", "prefixes cached"}
    assert (tmp_path / "docs" / "images" / "scaling.png").stat().st_size > 1000


@pytest.mark.research
def test_miniature_scores_what_it_adapts(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(miniature, "TRAINING_IMAGES", 40)
    monkeypatch.setattr(miniature, "TEST_IMAGES", 100)
    monkeypatch.setattr(miniature, "RECIPE", replace(miniature.RECIPE, epochs=1, batch_size=8, validation_size=8))
    options = ("--seeds", 0, "--questions", 4, "--out", tmp_path / "miniature.json", "--curve", tmp_path / "curve.png")
    result = run("miniature", *options)
    assert result["model_bit_identical"] and result["seeds"] == [0]
    assert set(result["controls"]) == {"last_token", "one_word_prompt", "untrained_latents"}
    assert 0 <= result["explicit"]["known"]["t2i"]["hit@5"]["mean"] <= 100 and len(result["curve"]) >= 2
    assert (tmp_path / "curve.png").stat().st_size > 1000
