"""`slq sample-data` and `slq train`: what they write and say, and what a training may be told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import QUICK, Said, content, invoke, refused
from PIL import Image
from safetensors.torch import load_file
from tolerance import TRAINING, assert_close


def test_world_writes_images_captions_and_questions(tiny_world):
    for split, count in (("train", 24), ("test", 12)):
        folder = tiny_world / split
        assert len(list((folder / "images").glob("*.png"))) == count
        lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
        assert [line["image"] for line in lines] == [f"images/{number:04d}.png" for number in range(count)]
        assert {path.name for path in (folder / "knowledge").iterdir()} == {"corpus.jsonl", "queries.jsonl", "qrels"}


def test_world_repeats_itself_with_the_seed(tiny_world, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        invoke("sample-data", "--count", 12, "--seed", seed, "--output", tmp_path / name)
    assert content(tmp_path / "same") == content(tiny_world / "test")
    assert content(tmp_path / "other") != content(tiny_world / "test")


@pytest.mark.slow
def test_world_contact_sheet(tmp_path):
    invoke("sample-data", "--contact-sheet", "--output", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 96 and sheet.height > 96


@pytest.fixture(scope="session")
def trained(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """An adapter after two steps, and what the command said."""
    out = tmp_path_factory.mktemp("cli") / "adapter"
    return out, invoke("train", tiny_world / "train" / "captions.jsonl", "--output", out, "--max-steps", 2, *QUICK)


def test_train_writes_the_adapter_and_says_what_to_do_next(trained):
    out, result = trained
    assert load_file(out / "adapter.safetensors")["latents"].shape[0] == 4
    config = json.loads((out / "slq_adapter.json").read_text())
    assert config["training"]["steps"] == 2 and config["base_model"]["name"] == "miniature"
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()] == [1, 2]
    assert "Adapter of 4 latent queries saved" in result.output and f"slq embed IMAGES -m {out}" in result.output


def test_train_lists_what_it_leaves_out(tiny_world, tmp_path):
    lines = (tiny_world / "train" / "captions.jsonl").read_text().splitlines()
    rows = [{**json.loads(line), "image": str(tiny_world / "train" / json.loads(line)["image"])} for line in lines[:8]]
    rows[3]["image"] = "nowhere.png"
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elsewhere = ["--image-root", tiny_world]
    result = invoke("train", tmp_path / "some.jsonl", *elsewhere, "--output", tmp_path / "out", "--max-steps", 1, *QUICK)
    assert "some.jsonl line 4" in result.stderr and "nowhere.png" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "count", "behind_prompt"),
    [
        ([], 5, False),
        (["--preset", "paper"], 20, True),
        (["--preset", "paper", "--num-latents", 3, "--no-add-generation-prompt"], 3, False),
    ],
    ids=["default", "paper", "of the paper what is not given"],
)
def test_the_papers_latent_queries_are_one_option_away(tiny_world, tmp_path, given, count, behind_prompt):
    captions = tiny_world / "train" / "captions.jsonl"
    arguments = [captions, "--output", tmp_path / "adapter", "--max-steps", 1, "--batch-size", 8, "--device", "cpu"]
    said = invoke("train", *arguments, *given).output
    saved = json.loads((tmp_path / "adapter" / "slq_adapter.json").read_text())
    assert (saved["num_latents"], saved["generation_prompt"]) == (count, behind_prompt)
    assert saved["training"]["init"] == ("normal" if "paper" in given else "prompt")
    assert f"Adapter of {count} latent queries" in said


def test_resume_refuses_another_run(tiny_world, trained):
    captions = tiny_world / "train" / "captions.jsonl"
    before = content(trained[0])
    message = refused("train", captions, "--output", trained[0], "--max-steps", 2, *QUICK, "--seed", 1, "--resume")
    assert "seed was 0 and is now 1" in message
    assert content(trained[0]) == before


@pytest.mark.slow
def test_a_cache_folder_is_filled_found_again_looked_into_and_cleared(tiny_world, tmp_path):
    kept, pairs = tmp_path / "kept", tiny_world / "train" / "captions.jsonl"
    plain = ("train", pairs, *QUICK, "--epochs", "1", "--validation-size", "2")
    cached = (*plain, "--cache-memory-gb", "0", "--cache-dir", kept)
    invoke(*plain, "--output", tmp_path / "plain")
    first, second = (invoke(*cached, "--output", tmp_path / name).output for name in ("first", "second"))
    assert "prefixes on disk" in first and "prefixes on disk" in second
    wanted, *found = (load_file(tmp_path / name / "adapter.safetensors")["latents"] for name in ("plain", "first", "second"))
    for one in found:
        assert_close(one, wanted, steps=TRAINING)
    files = sorted(kept.glob("*/*.safetensors"))
    assert f"{len(files)}, " in invoke("cache", "info", kept).output
    files[0].write_bytes(b"damaged")
    said = invoke("cache", "info", kept, "--verify").output
    assert "1 corrupt entries removed" in said and f"{len(files) - 1}, " in said and not files[0].exists()
    assert f"{len(files) - 1} entries removed" in invoke("cache", "clear", kept).output
    assert not list(kept.glob("*/*.safetensors"))


@pytest.mark.parametrize("command", ["info", "clear"])
def test_a_folder_that_is_no_cache_is_left_alone(tmp_path, command):
    (tmp_path / "photo.safetensors").write_bytes(b"mine")
    assert "is not a folder that slq caches prefixes in" in refused("cache", command, tmp_path)
    assert (tmp_path / "photo.safetensors").read_bytes() == b"mine"


def test_a_cache_level_that_does_not_exist(tiny_world, tmp_path):
    said = refused("train", tiny_world / "train" / "captions.jsonl", "--output", tmp_path / "out", "--cache-level", "all")
    assert 'Invalid value "all" for --cache-level' in said


@pytest.mark.slow
def test_a_run_goes_on_from_an_adapter_and_is_trained_longer(tiny_world, adapter, tmp_path):
    captions, out = tiny_world / "train" / "captions.jsonl", tmp_path / "second"
    second = ["train", captions, "--model", adapter, "--batch-size", 8, "--device", "cpu", "--output", out]
    said = invoke(*second, "--max-steps", 1).output
    assert f"Going on from {adapter}" in said and "Adapter of 5 latent queries saved" in said
    first = json.loads((adapter / "slq_adapter.json").read_text())["training"]
    training, record = json.loads((out / "slq_adapter.json").read_text())["training"], json.loads((out / "run.json").read_text())
    assert training["start"] and training["steps"] == 1 and training["data_sha256"] != first["data_sha256"]
    assert record["command"].startswith("slq train ") and record["data"] == str(captions)
    invoke(*second, "--max-steps", 2, "--resume")
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()] == [1, 2]
    assert "has done 2 steps, and 1 are asked for" in invoke(*second, "--max-steps", 1, "--resume", code=1).stderr
    assert "was learned with 5: leave the option out" in refused(*second[:-1], tmp_path / "other", "--num-latents", 7)
    invoke("train", "--config", out / "config.toml", "--output", tmp_path / "again")
    assert (tmp_path / "again" / "adapter.safetensors").is_file()


@pytest.mark.slow
def test_a_run_learns_facts_that_the_model_told(tiny_world, tmp_path):
    data, facts = tiny_world / "train" / "captions.jsonl", tmp_path / "facts.jsonl"
    told = invoke("facts", data, "-o", facts, "--facts-per-name", 2, "--max-names", 6)
    assert f"kept in {facts}" in told.output and f"--facts {facts}" in told.output, "the next command is said"
    kept = [json.loads(line) for line in facts.read_text().splitlines()]
    assert sum(line["kind"] == "fact" and line["kept"] for line in kept) >= 2
    without = invoke("train", data, "-o", tmp_path / "without", "--preset", "latent-lora-small", "--max-steps", 3, *QUICK)
    assert "--facts" in without.output and "slq facts" in without.output, "what is lost without them is said"
    learned = invoke("train", data, "-o", tmp_path / "with", "--preset", "latent-lora-small", "--facts", facts, "--max-steps", 3, *QUICK)
    assert "slq facts" not in learned.output
    of_both = [load_file(tmp_path / name / "adapter.safetensors") for name in ("without", "with")]
    assert any(name.startswith("lora.") for name in of_both[0]) and (of_both[0]["latents"] != of_both[1]["latents"]).any()
