"""The command line: every command on a tiny world, what each refuses, and that a stopped training goes on where it stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tolerance import FORWARD, ROUNDED, TRAINING, assert_close
from typer.main import get_command
from typer.testing import CliRunner, Result

import slq
from slq import cli
from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.index import load_embeddings, save_embeddings
from slq.models import FrozenModel
from slq.types import Embeddings

ONE_LINE = re.compile(r"Error: [^\n]+\n")
COMMANDS = get_command(cli.app).commands  # type: ignore[attr-defined]
TRAINED = ("--num-latents", "4", "--batch-size", "8", "--device", "cpu")


def invoke(*arguments: object) -> Result:
    """Run a command that must succeed."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `main` on arguments that it must refuse with code 1; returns the error sentence."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["slq", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr().err
        assert ended.value.code == 1
        assert ONE_LINE.fullmatch(shown), shown
        return shown

    return run


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with 24 images, test/ with 12."""
    folder = tmp_path_factory.mktemp("cli") / "world"
    invoke("world", "--split", "train", "--count", 24, "--out", folder / "train")
    invoke("world", "--count", 12, "--out", folder / "test")
    return folder


@pytest.fixture(scope="session")
def trained(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """An adapter after two steps, and what the command said."""
    out = tmp_path_factory.mktemp("cli") / "adapter"
    return out, invoke("train", "--pairs", tiny_world / "train" / "captions.jsonl", "--out", out, "--max-steps", 2, *TRAINED)


@pytest.fixture(scope="session")
def adapter(trained: tuple[Path, Result]) -> Path:
    return trained[0]


@pytest.fixture(scope="session")
def other_adapter(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other latent queries on the same model."""
    model = slq.load_model(device="cpu")
    folder = tmp_path_factory.mktemp("cli") / "other"
    LatentEncoder(model, LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(99))).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def images(tiny_world: Path) -> Path:
    return tiny_world / "test" / "images"


@pytest.fixture(scope="session")
def index(images: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "index"
    said = invoke("embed", images, "--adapter", adapter, "--out", out, "--device", "cpu", "--workers", 1).output
    assert "12 items embedded" in said and "0 left out" in said
    return out


# --- what each command does -------------------------------------------------------------------------------------------------


def test_world_writes_images_captions_and_questions(tiny_world):
    for split, count in (("train", 24), ("test", 12)):
        folder = tiny_world / split
        assert len(list((folder / "images").glob("*.png"))) == count
        lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
        assert [line["image"] for line in lines] == [f"images/{number:04d}.png" for number in range(count)]
        assert {path.name for path in (folder / "knowledge").iterdir()} == {"corpus.jsonl", "queries.jsonl", "qrels"}


def test_world_repeats_itself_with_the_seed(tiny_world, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        invoke("world", "--count", 12, "--seed", seed, "--out", tmp_path / name)
    assert content(tmp_path / "same") == content(tiny_world / "test")
    assert content(tmp_path / "other") != content(tiny_world / "test")


@pytest.mark.slow
def test_world_contact_sheet(tmp_path):
    invoke("world", "--contact-sheet", "--out", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 96 and sheet.height > 96


def test_train_writes_the_adapter_and_says_what_to_do_next(trained):
    out, result = trained
    assert load_file(out / "adapter.safetensors")["latents"].shape[0] == 4
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["training"]["steps"] == 2 and config["backbone"]["name"] == "miniature"
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()] == [1, 2]
    assert "Adapter of 4 latent queries saved" in result.output and f"slq embed IMAGES --adapter {out}" in result.output


def test_train_lists_what_it_leaves_out(tiny_world, tmp_path):
    lines = (tiny_world / "train" / "captions.jsonl").read_text().splitlines()
    rows = [{**json.loads(line), "image": str(tiny_world / "train" / json.loads(line)["image"])} for line in lines[:8]]
    rows[3]["image"] = "nowhere.png"
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = invoke("train", "--pairs", tmp_path / "some.jsonl", "--out", tmp_path / "out", "--max-steps", 1, *TRAINED)
    assert "some.jsonl line 4" in result.stderr and "nowhere.png" in result.stderr


def scored(tmp_path: Path, *arguments: object) -> dict:
    result = invoke("eval", *arguments, "--json", tmp_path / "scores.json", "--device", "cpu")
    assert "hit@1" in result.output and "Scores written to" in result.output
    return json.loads((tmp_path / "scores.json").read_text())


def check_scores(scores: dict, images: int) -> None:
    assert {"hit@1", "hit@5", "hit@10", "failures"} <= set(scores)
    numbers = {name: value for name, value in scores.items() if "@" in name or name == "mrr"}
    assert all(0 <= value <= 1 for value in numbers.values()), numbers
    assert scores["hit@1"] <= scores["hit@5"] <= scores["hit@10"]
    assert images > 10 or scores["hit@10"] == 1


def test_eval_on_pairs(tiny_world, adapter, tmp_path):
    data = tiny_world / "test" / "captions.jsonl"
    result = scored(tmp_path, "--data", data, "--adapter", adapter)
    assert set(result["scores"]) == {"text to image", "image to text"}
    for scores in result["scores"].values():
        check_scores(scores, 12)
        assert scores["failures"] == []
    assert result["fingerprint"] == LatentEncoder.from_pretrained(adapter, device="cpu").fingerprint
    assert result["adapter"] == str(adapter) and result["data"] == str(data) and result["backbone"]["name"] == "miniature"
    assert {"date", "torch", "hardware", "python", "transformers"} <= set(result["provenance"])


def test_eval_on_questions_lists_failures(tiny_world, adapter, tmp_path):
    shutil.copytree(tiny_world / "test", tmp_path / "test")
    (tmp_path / "test" / "images" / "0004.png").write_bytes(b"no image")
    (tmp_path / "test" / "images" / "0007.png").unlink()
    result = invoke("eval", "--data", tmp_path / "test" / "knowledge", "--adapter", adapter, "--json", tmp_path / "s.json")
    scores = json.loads((tmp_path / "s.json").read_text())["scores"]["knowledge"]
    check_scores(scores, 12)
    assert len(scores["failures"]) == 2
    assert "0004.png" in str(scores["failures"]) and "0007.png" in str(scores["failures"])
    assert "2 item(s) left out" in result.stderr and "0004.png" in result.stderr and "0007.png" in result.stderr


def test_eval_without_adapter_reads_the_last_token(tiny_world, adapter, tmp_path):
    result = scored(tmp_path, "--data", tiny_world / "test" / "knowledge")
    check_scores(result["scores"]["knowledge"], 12)
    assert result["adapter"] is None
    assert result["fingerprint"] != LatentEncoder.from_pretrained(adapter, device="cpu").fingerprint


def test_eval_scores_categories_apart(tmp_path):
    """Among three texts hit@5 is sure, unless the answer is masked."""
    folder = tmp_path / "asked"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": name, "text": name} for name in ("cat", "dog", "saw")]
    queries = [
        {"_id": "q1", "text": "it has nine lives", "category": "animals"},
        {"_id": "q2", "text": "it barks", "category": "animals", "masked": ["cat"]},
        {"_id": "q3", "text": "it cuts wood", "category": "tools", "masked": ["saw"]},
    ]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tcat\t1\nq2\tdog\t1\nq3\tsaw\t1\n")
    shown = invoke("eval", "--data", folder, "--json", tmp_path / "scores.json", "--device", "cpu").stdout
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]["asked"]
    named = {" asked": scores, **{f"   {category}": found for category, found in scores["by_category"].items()}}
    assert [(name, found["hit@5"], found["queries"]) for name, found in named.items()] == [
        (" asked", 2 / 3, 3),
        ("   animals", 1, 2),
        ("   tools", 0, 1),
    ]
    cells = [[cell.rstrip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    columns = ("hit@1", "hit@5", "hit@10", "mrr")
    assert cells[-3:] == [[name, *[f" {found[k]:.1%}" for k in columns], f" {found['queries']}"] for name, found in named.items()]

    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": row["_id"], "text": row["text"]}) + "\n" for row in queries))
    plain = invoke("eval", "--data", folder, "--json", tmp_path / "plain.json", "--device", "cpu").stdout
    assert "category" in shown and "category" not in plain
    assert "by_category" not in json.loads((tmp_path / "plain.json").read_text())["scores"]["asked"]


def test_eval_writes_what_the_scores_depend_on(tiny_world, adapter, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/slq", "eval", "--data", "my pairs"])
    data, kept = tiny_world / "test" / "captions.jsonl", tmp_path / "kept"
    result = scored(tmp_path, "--data", data, "--adapter", adapter, "--per-query", "--keep", kept)
    assert (result["format"], result["benchmark"], result["groups"]) == (1, None, {})
    assert re.fullmatch("[0-9a-f]{64}", result["data_sha256"]) and result["command"] == "slq eval --data 'my pairs'"
    assert {"dtype", "preprocessing", "revision", "template"} <= set(result["backbone"])
    assert {"slq", "numpy", "device", "seed"} <= set(result["provenance"])
    for scores in result["scores"].values():
        assert len(scores["ranks"]) == scores["queries"]
        for name, (low, high) in scores["confidence"].items():
            assert 0 <= low <= scores[name] <= high <= 1, name
    assert list(kept.glob("*/*.safetensors"))
    again = scored(tmp_path, "--data", data, "--adapter", adapter, "--per-query", "--keep", kept)
    assert {**again, "provenance": 0, "command": 0} == {**result, "provenance": 0, "command": 0}
    other = scored(tmp_path, "--data", tiny_world / "train" / "captions.jsonl", "--adapter", adapter)
    assert other["data_sha256"] != result["data_sha256"] and "ranks" not in other["scores"]["text to image"]


def test_compare_shows_differences_and_what_cannot_be_tested(tiny_world, adapter, other_adapter, tmp_path, refused):
    data, files = tiny_world / "test" / "captions.jsonl", [tmp_path / f"{name}.json" for name in ("a", "b", "plain", "other")]
    invoke("eval", "--data", data, "--adapter", adapter, "--json", files[0], "--per-query", "--device", "cpu")
    invoke("eval", "--data", data, "--adapter", other_adapter, "--json", files[1], "--per-query", "--device", "cpu")
    invoke("eval", "--data", data, "--adapter", adapter, "--json", files[2], "--device", "cpu")
    invoke("eval", "--data", tiny_world / "train" / "captions.jsonl", "--adapter", adapter, "--json", files[3], "--device", "cpu")
    shown = invoke("compare", files[0], files[1]).output
    assert "text to image" in shown and "ndcg@10" in shown and "per-query" not in shown
    same = invoke("compare", files[0], files[0]).output
    assert "+0.0 to +0.0" in same and "1.0000" in same
    assert "slq eval --per-query" in invoke("compare", files[0], files[2]).output
    assert "No published figures" in invoke("compare", files[0], "--published").output
    assert "--anyway" in refused("compare", files[0], files[3])
    anyway = invoke("compare", files[0], files[3], "--anyway")
    assert "Warning: These scores do not compare" in anyway.stderr and "hit@1" in anyway.stdout
    assert "a second file" in refused("compare", files[0])


def test_compare_shows_published_figures_as_such(tmp_path):
    scores = {"hit@1": 0.5, "hit@5": 0.75, "hit@10": 0.8, "queries": 4, "confidence": {}, "failures": []}
    about = {"name": "coco", "variant": "five", "protocol": "p", "revision": "r", "prompts": {}}
    result = {"format": 1, "benchmark": about, "data": None, "data_sha256": "", "scores": {"text to image": scores}, "groups": {}}
    (tmp_path / "coco.json").write_text(json.dumps(result))
    shown = invoke("compare", tmp_path / "coco.json", "--published").output
    assert "measured" in shown and "published" in shown and "48.5%" in shown and "50.0%" in shown and "image to text" not in shown


# What slq.benchmarks loads is its own; here only that a score of it says what it is.


@pytest.mark.parametrize("name", ["miniature", "beir"])
def test_eval_of_a_benchmark_says_what_it_is(name, tiny_world, adapter, tmp_path):
    pytest.importorskip("slq.benchmarks")
    data = tiny_world / "test" if name == "miniature" else tiny_world / "test" / "knowledge"
    result = scored(tmp_path, "--benchmark", name, "--data", data, "--adapter", adapter, "--per-query")
    assert result["benchmark"]["name"] == name and result["benchmark"]["protocol"] and result["benchmark"]["revision"]
    assert result["benchmark"]["variant"] == "test" and result["scores"]
    shown = invoke("compare", tmp_path / "scores.json", tmp_path / "scores.json").output
    assert "hit@1" in shown and "1.0000" in shown


def test_embed_a_folder(index, images, adapter):
    embedded, about = load_embeddings(index)
    assert list(embedded.ids) == [f"{number:04d}.png" for number in range(12)]
    assert embedded.vectors.dtype == np.float32
    assert_close(np.linalg.norm(embedded.vectors, axis=1), 1, steps=ROUNDED)
    assert embedded.failures == () and about["adapter"] == str(adapter.resolve())
    assert [Path(item["image"]) for item in embedded.items] == [(images / id_).resolve() for id_ in embedded.ids]


def test_embed_leaves_out_bad_images_and_says_so(images, adapter, tmp_path):
    (tmp_path / "some").mkdir()
    for number in range(3):
        shutil.copy(images / f"{number:04d}.png", tmp_path / "some")
    (tmp_path / "some" / "0001.png").write_bytes((images / "0001.png").read_bytes()[:100])
    result = invoke("embed", tmp_path / "some", "--adapter", adapter, "--out", tmp_path / "index")
    assert "2 items embedded" in result.output and "1 left out" in result.output and "0001.png" in result.stderr
    embedded, _ = load_embeddings(tmp_path / "index")
    assert embedded.ids == ("0000.png", "0002.png") and [failure.item for failure in embedded.failures] == ["0001.png"]


def hits(*arguments: object) -> list[dict]:
    return [json.loads(line) for line in invoke("search", *arguments, "--json", "--device", "cpu").stdout.splitlines()]


def test_search_by_words(index):
    found = hits("a red cat", "--index", index, "--top", 5)
    assert len(found) == 5 and all(set(hit) == {"id", "score", "image"} for hit in found)
    assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)
    assert len(hits("a red cat", "--index", index, "--top", 100)) == 12
    shown = invoke("search", "a red cat", "--index", index, "--top", 3).output
    assert all(hit["id"] in shown for hit in found[:3]) and f"{found[0]['score']:.3f}" in shown and found[3]["id"] not in shown


def test_an_image_finds_itself(index, images):
    for name in ("0003.png", "0010.png"):
        first, second, *_ = hits("--image", images / name, "--index", index)
        assert first["id"] == name and second["score"] < first["score"]
        assert_close(first["score"], 1, steps=FORWARD)
        assert Path(first["image"]) == (images / name).resolve()


def test_search_by_image_and_words(index, images):
    both = hits("but blue", "--image", images / "0003.png", "--index", index)
    words = hits("but blue", "--index", index)
    image = hits("--image", images / "0003.png", "--index", index)
    assert len({tuple(hit["score"] for hit in found) for found in (both, words, image)}) == 3, "one of the two was not looked at"


def test_python_and_the_command_line_give_the_same_vectors(images, adapter, tmp_path):
    rows = [
        {"id": "words", "text": "a red cat"},
        {"id": "opened", "image": str(images / "0001.png")},
        {"id": "path", "image": str(images / "0002.png")},
        {"id": "both", "text": "but blue", "image": str(images / "0003.png")},
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    invoke("embed", tmp_path / "items.jsonl", "--adapter", adapter, "--out", tmp_path / "index", "--device", "cpu")
    saved, _ = load_embeddings(tmp_path / "index")
    assert saved.ids == ("words", "opened", "path", "both")
    assert saved.items[0] == {"text": "a red cat"} and set(saved.items[3]) == {"text", "image"}

    model = slq.load(str(adapter), device="cpu")
    with Image.open(images / "0001.png") as opened:
        inputs = ["a red cat", opened.copy(), images / "0002.png", {"text": "but blue", "image": str(images / "0003.png")}]
    encoded = model.encode(inputs)
    assert encoded.shape == saved.vectors.shape
    assert_close(encoded, saved.vectors, steps=FORWARD)
    assert_close(model.similarity(encoded, encoded).numpy(), saved.vectors @ saved.vectors.T, steps=FORWARD)


# --- loading a model -----------------------------------------------------------------------------------------------------


def test_what_a_training_was_told_about_its_model_is_used_and_saved(tiny_world, tmp_path):
    captions = tiny_world / "train" / "captions.jsonl"
    told = ["--instruction", "in one word", "--max-text-tokens", 3, "--attn-implementation", "eager", "--dtype", "bfloat16"]
    invoke("train", "--pairs", captions, "--out", tmp_path / "adapter", "--max-steps", 1, *TRAINED, *told)
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["backbone"]
    assert saved["dtype"] == "bfloat16"
    assert {"name": "paper", "instruction": "in one word", "max_text_tokens": 3}.items() <= saved["preprocessing"].items()
    scores = scored(tmp_path, "--data", tiny_world / "test" / "captions.jsonl", "--adapter", tmp_path / "adapter", "--dtype", "float32")
    assert scores["backbone"] == {**saved, "dtype": "float32"}, "an adapter brings its preprocessing along, not its dtype"


@pytest.mark.parametrize(
    ("given", "count", "behind_prompt"),
    [([], 5, False), (["--paper"], 20, True), (["--paper", "--num-latents", 3, "--no-generation-prompt"], 3, False)],
    ids=["default", "paper", "of the paper what is not given"],
)
def test_the_papers_latent_queries_are_one_option_away(tiny_world, tmp_path, given, count, behind_prompt):
    captions = tiny_world / "train" / "captions.jsonl"
    arguments = ["--pairs", captions, "--out", tmp_path / "adapter", "--max-steps", 1, "--batch-size", 8, "--device", "cpu"]
    said = invoke("train", *arguments, *given).output
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (saved["num_latents"], saved["generation_prompt"]) == (count, behind_prompt)
    assert saved["training"]["init"] == ("normal" if "--paper" in given else "prompt")
    assert f"Adapter of {count} latent queries" in said


def test_eval_without_adapter_is_told_how_to_load(tiny_world, tmp_path):
    result = scored(tmp_path, "--data", tiny_world / "test" / "knowledge", "--instruction", "in one word", "--preprocessing", "native")
    assert {"name": "native", "instruction": "in one word"}.items() <= result["backbone"]["preprocessing"].items()


def test_an_adapter_over_a_model_that_is_named(tiny_world, adapter, refused, tmp_path):
    data = tiny_world / "test" / "knowledge"
    weights = tmp_path / "weights"
    shutil.copytree(Path(slq.__file__).parent / "miniature" / "weights", weights)
    result = scored(tmp_path, "--data", data, "--adapter", adapter, "--model", weights)
    assert result["backbone"]["name"] == str(weights)
    assert result["fingerprint"] != "" and result["adapter"] == str(adapter)
    (weights / "config.json").write_text((weights / "config.json").read_text() + " ")
    assert "revision" in refused("eval", "--data", data, "--adapter", adapter, "--model", weights)


# --- doctor -----------------------------------------------------------------------------------------------------------------


def test_doctor_writes_what_it_found(adapter, tmp_path):
    result = invoke("doctor", "--adapter", adapter, "--device", "cpu", "--batch-size", 2, "--json", tmp_path / "report.json")
    assert "prefix split ...\n" in result.stdout and "All is well" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"checks", "figures", "backbone", "adapter", "fingerprint", "provenance"}
    assert len(report["checks"]) == 12 and all(row["result"] == "ok" and row["value"] <= row["tolerance"] for row in report["checks"])
    assert all(row["check"].split()[0] in result.stdout for row in report["checks"])
    assert report["figures"]["batch_size"] == 2 and report["figures"]["texts_per_second"] > 0
    assert report["backbone"]["name"] == "miniature" and report["adapter"] == str(adapter)
    assert report["fingerprint"] == LatentEncoder.from_pretrained(adapter, device="cpu").fingerprint
    assert {"date", "torch", "hardware"} <= set(report["provenance"])


def test_doctor_ends_with_code_1_and_says_what_to_do(monkeypatch, tmp_path):
    """The fast path of every model is made to see padding."""
    right = FrozenModel.suffix

    def wrong(self, states, latents, *readout):
        return right(self, replace(states, mask=torch.ones_like(states.mask)), latents, *readout)

    monkeypatch.setattr(FrozenModel, "decode_latents", wrong)
    arguments = ["doctor", "--device", "cpu", "--batch-size", "1", "--json", str(tmp_path / "report.json")]
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 1 and "All is well" not in result.stdout
    assert "prefix split: The fast path" in result.stderr and "--no-prefix-split" in result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["result"] for row in report["checks"] if row["check"] == "prefix split"} == {"failed"}
    assert {row["result"] for row in report["checks"] if row["check"] == "weights"} == {"ok"}


# --- help -------------------------------------------------------------------------------------------------------------------


def help_of(name: str) -> list[str]:
    """The lines of a command's help as a wide terminal shows them, without frames."""
    shown = CliRunner(env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).invoke(cli.app, [name, "--help"])
    assert shown.exit_code == 0
    return [line.strip(" │") for line in shown.output.splitlines()]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_tells_of_every_option(name):
    parameters = COMMANDS[name].params
    assert [parameter.name for parameter in parameters if not getattr(parameter, "help", None)] == []
    shown = "\n".join(help_of(name))
    assert [option for parameter in parameters for option in parameter.opts if option.startswith("--") and option not in shown] == []


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "eval",
        "benchmarks",
        "embed",
        "search",
        "doctor",
        "world",
        "demo",
    ],
)
def test_help_shows_examples_as_one_would_type_them(name):
    shown = help_of(name)
    written = [line.strip() for line in COMMANDS[name].help.splitlines() if line.strip().startswith("slq ")]
    assert any(line.startswith(f"slq {name}") for line in written)
    assert [line for line in written if line not in shown] == []


def test_help_does_not_wait_for_torch():
    code = "import sys, typer.testing, slq.cli; typer.testing.CliRunner().invoke(slq.cli.app, ['--help']); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


# --- what each command refuses ----------------------------------------------------------------------------------------------


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "slq.cli", *map(str, arguments)], capture_output=True, text=True)


def test_exit_codes(tmp_path):
    good = process("--help")
    assert good.returncode == 0 and "slq demo" in good.stdout
    failed = process("search", "a cat", "--index", tmp_path / "nowhere")
    assert failed.returncode == 1 and failed.stdout == ""
    assert ONE_LINE.fullmatch(failed.stderr) and str(tmp_path / "nowhere") in failed.stderr


@pytest.mark.parametrize(
    "arguments",
    [["search", "--no-such-option"], ["no-such-command"], ["embed"], ["search", "cat", "--top", "0"], ["train", "--epochs", "many"]],
)
def test_wrong_usage_ends_with_code_2(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["slq", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "Usage: " in capsys.readouterr().err


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with something in it that must not be lost."""
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    return folder


@pytest.fixture
def writers(tiny_world: Path, images: Path, adapter: Path) -> dict[str, list[object]]:
    """The commands that write a folder, and a file each must leave there."""
    return {
        "train": ["train", "--pairs", tiny_world / "train" / "captions.jsonl", "--max-steps", 1, *TRAINED],
        "embed": ["embed", images, "--adapter", adapter],
        "world": ["world", "--count", 3],
    }


@pytest.mark.parametrize(("command", "made"), [("train", "adapter.safetensors"), ("embed", "embeddings.json"), ("world", "captions.jsonl")])
def test_an_existing_folder_is_refused_or_replaced(command, made, writers, kept, refused):
    message = refused(*writers[command], "--out", kept)
    assert str(kept) in message and "--overwrite" in message
    assert content(kept) == {"thesis.txt": b"years of work"}
    assert "did not make" in refused(*writers[command], "--out", kept, "--overwrite")
    assert content(kept) == {"thesis.txt": b"years of work"}
    own = kept / "own"
    invoke(*writers[command], "--out", own)
    (own / made).write_bytes(b"old")
    invoke(*writers[command], "--out", own, "--overwrite")
    assert (own / made).stat().st_size > len(b"old")


@pytest.mark.parametrize("command", ["train", "embed", "world"])
def test_overwrite_never_deletes_what_a_user_put_there(command, writers, refused, tmp_path):
    photos = tmp_path / "photos"  # a folder of photographs with captions looks much like a world of ours
    (photos / "images").mkdir(parents=True)
    (photos / "images" / "0000.png").write_bytes(b"a photograph")
    (photos / "captions.jsonl").write_text('{"image": "images/0000.png", "caption": "us, 1998"}\n')
    before = content(photos)
    assert "did not make" in refused(*writers[command], "--out", photos, "--overwrite")
    assert content(photos) == before
    own = tmp_path / "own"
    invoke(*writers[command], "--out", own)
    (own / "notes").mkdir()
    (own / "notes" / "thesis.txt").write_text("years of work")
    before = content(own)
    assert "thesis.txt" in refused(*writers[command], "--out", own, "--overwrite")
    assert content(own) == before


def test_an_empty_folder_is_taken(kept):
    (kept / "thesis.txt").unlink()
    invoke("world", "--count", 3, "--out", kept)
    assert (kept / "captions.jsonl").is_file()


@pytest.mark.parametrize("command", ["train", "embed", "world"])
def test_a_folder_that_cannot_be_made_is_one_sentence(command, writers, kept, refused):
    assert "Cannot write" in refused(*writers[command], "--out", kept / "thesis.txt" / "below a file")
    assert content(kept) == {"thesis.txt": b"years of work"}


def test_overwrite_waits_until_the_adapter_is_known_to_load(images, kept, refused, tmp_path):
    (tmp_path / "no adapter").mkdir()
    refused("embed", images, "--adapter", tmp_path / "no adapter", "--out", kept, "--overwrite")
    assert content(kept) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("command", ["train", "embed"])
def test_overwrite_never_deletes_what_is_read(command, tiny_world, adapter, refused, tmp_path):
    shutil.copytree(tiny_world / "test", tmp_path / "mine")
    before = content(tmp_path / "mine")
    reads = {
        "train": ["train", "--pairs", tmp_path / "mine" / "captions.jsonl", "--max-steps", 1, *TRAINED, "--out", tmp_path / "mine"],
        "embed": ["embed", tmp_path / "mine" / "images", "--adapter", adapter, "--out", tmp_path / "mine" / "images"],
    }
    try:
        refused(*reads[command], "--overwrite")
    finally:
        assert content(tmp_path / "mine") == before


def test_search_needs_something_to_look_for(index, refused):
    message = refused("search", "--index", index)
    assert "words" in message and "--image" in message


def test_search_names_what_is_wrong_with_the_question(index, refused, tmp_path):
    assert "empty" in refused("search", "", "--index", index)
    assert "gone.png" in refused("search", "--image", tmp_path / "gone.png", "--index", index)


def test_search_with_another_adapter_is_refused(index, other_adapter, refused):
    message = refused("search", "a red cat", "--index", index, "--adapter", other_adapter)
    assert "embed the corpus again" in message


def test_search_without_an_index(refused, tmp_path):
    assert "embeddings.json is missing" in refused("search", "cat", "--index", tmp_path / "nowhere")
    assert "embeddings.json is missing" in refused("search", "cat", "--index", tmp_path)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("name", ["embeddings.json", "items.jsonl", "vectors.safetensors"])
@pytest.mark.parametrize("damage", [Path.unlink, cut, lambda file: file.write_bytes(b"\xff\x00")], ids=["missing", "cut", "garbage"])
def test_search_in_a_damaged_index(name, damage, index, refused, tmp_path):
    shutil.copytree(index, tmp_path / "index")
    damage(tmp_path / "index" / name)
    message = refused("search", "cat", "--index", tmp_path / "index")
    assert str(tmp_path / "index") in message and "slq embed" in message


@pytest.mark.parametrize(("name", "text"), [("embeddings.json", "[]"), ("items.jsonl", "[]\n" * 12)])
def test_search_in_an_index_of_other_json(name, text, index, refused, tmp_path):
    shutil.copytree(index, tmp_path / "index")
    (tmp_path / "index" / name).write_text(text)
    assert str(tmp_path / "index") in refused("search", "cat", "--index", tmp_path / "index")


def test_search_in_an_index_with_items_lost(index, refused, tmp_path):
    shutil.copytree(index, tmp_path / "index")
    lines = (index / "items.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "index" / "items.jsonl").write_text("".join(lines[:-1]))
    message = refused("search", "cat", "--index", tmp_path / "index")
    assert "11 items" in message and "12 vectors" in message


def test_search_in_an_index_that_names_no_adapter(refused, tmp_path):
    save_embeddings(Embeddings(("a",), np.eye(1, 4, dtype=np.float32)), tmp_path / "index")
    assert "--adapter" in refused("search", "cat", "--index", tmp_path / "index")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--pairs", "gone.jsonl", "--out", "OUT"], "gone.jsonl"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--batch-size", "1"], "batch_size"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--num-latents", "0"], "num_latents"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--init", "best"], "best"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--model", "./gone"], "gone"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--dtype", "int3"], "int3"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--quantization", "3bit"], "3bit"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--preprocessing", "best"], "best"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--max-pixels", "1000"], "max_pixels"),
        (["train", "--pairs", "CAPTIONS", "--out", "OUT", "--device", "cpu", "--device-map", "auto"], "device_map"),
        (["doctor", "--quantization", "3bit"], "3bit"),
        (["doctor", "--preprocessing", "best"], "best"),
        (["doctor", "--model", "./gone"], "gone"),
        (["doctor", "--adapter", "ADAPTER", "--instruction", "in one word"], "--instruction"),
        (["eval", "--data", "QUESTIONS", "--adapter", "ADAPTER", "--preprocessing", "native"], "--preprocessing"),
        (["eval", "--data", "QUESTIONS", "--max-text-tokens", "0"], "max_text_tokens"),
        (["eval", "--data", "gone", "--adapter", "ADAPTER"], "gone"),
        (["eval", "--data", "QUESTIONS", "--split", "dev"], "dev"),
        (["eval", "--adapter", "ADAPTER"], "--benchmark"),
        (["eval", "--data", "QUESTIONS", "--variant", "five"], "--variant belongs to a benchmark"),
        (["eval", "--data", "QUESTIONS", "--prompts"], "--prompts belongs to a benchmark"),
        (["eval", "--data", "QUESTIONS", "--data-revision", "main"], "--data-revision belongs to a benchmark"),
        (["eval", "--data", "QUESTIONS", "--per-query"], "--json"),
        (["compare", "gone.json", "gone.json"], "cannot be read"),
        (["embed", "gone", "--adapter", "ADAPTER", "--out", "OUT"], "gone"),
        (["world", "--split", "dev", "--out", "OUT"], "dev"),
        (["world", "--count", "0", "--out", "OUT"], "count"),
        pytest.param(
            ["search", "cat", "--index", "INDEX", "--device", "abacus"],
            "abacus",
        ),
        pytest.param(
            ["train", "--pairs", "CAPTIONS", "--out", "OUT", "--learning-rate", "-1"],
            "learning_rate",
        ),
        pytest.param(
            ["train", "--pairs", "CAPTIONS", "--out", "OUT", "--max-steps", "-1"],
            "max_steps",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_named(arguments, named, tiny_world, adapter, index, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = tiny_world / "test"
    places = {
        "OUT": tmp_path / "out",
        "ADAPTER": adapter,
        "INDEX": index,
        "CAPTIONS": test / "captions.jsonl",
        "QUESTIONS": test / "knowledge",
    }
    assert named in refused(*[places.get(argument, argument) for argument in arguments])
    assert not (tmp_path / "out" / "adapter.safetensors").exists()


def test_a_bad_adapter_is_named(images, adapter, refused, tmp_path):
    assert "adapter_config.json" in refused("embed", images, "--adapter", images, "--out", tmp_path / "one")
    shutil.copytree(adapter, tmp_path / "cut")
    cut(tmp_path / "cut" / "adapter.safetensors")
    assert "damaged" in refused("embed", images, "--adapter", tmp_path / "cut", "--out", tmp_path / "two")


def test_resume_refuses_another_run(tiny_world, trained, refused):
    captions = tiny_world / "train" / "captions.jsonl"
    before = content(trained[0])
    message = refused("train", "--pairs", captions, "--out", trained[0], "--max-steps", 2, *TRAINED, "--seed", 1, "--resume")
    assert "seed was 0 and is now 1" in message
    assert content(trained[0]) == before


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_with_code_130(tmp_path, monkeypatch, capsys):
    """Ctrl-C comes as a KeyboardInterrupt from whatever runs; here it comes with the first image drawn."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("slq.miniature.export.render", interrupted)
    monkeypatch.setattr(sys, "argv", ["slq", "world", "--count", "3", "--out", str(tmp_path / "world")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130 and "Stopped." in capsys.readouterr().err


# The handler is set by hand: a test run started in the background passes an ignored SIGINT on to its children.
WITH_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import slq.cli; slq.cli.main()"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_loses_nothing(tiny_world, tmp_path):
    run = ["train", "--pairs", tiny_world / "train" / "captions.jsonl", *TRAINED, "--epochs", 10, "--save-every", 1]
    stopped, log = tmp_path / "stopped", tmp_path / "stopped" / "log.jsonl"
    command = [sys.executable, "-c", WITH_CTRL_C, *map(str, run), "--out", str(stopped)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as training:
        deadline = time.monotonic() + 300
        while not (log.exists() and log.read_text().count("\n") >= 2):
            assert training.poll() is None and time.monotonic() < deadline, "the training never came to its second step"
            time.sleep(0.01)
        training.send_signal(signal.SIGINT)
        said, _ = training.communicate(timeout=120)
    assert training.returncode == 130, said
    assert "Stopped." in said and "--resume" in said and "Traceback" not in said
    assert not (stopped / "adapter.safetensors").exists(), "the run ended before it was stopped"
    whole = [path for path in stopped.glob("checkpoint-*") if path.suffix != ".partial"]
    assert whole and all(
        {"model.safetensors", "optimizer.bin", "scheduler.bin"} <= {file.name for file in path.iterdir()} for path in whole
    )

    invoke(*run, "--out", stopped, "--resume")
    invoke(*run, "--out", tmp_path / "unbroken")
    assert (stopped / "adapter.safetensors").read_bytes() == (tmp_path / "unbroken" / "adapter.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 31))


# The prefix cache


def test_a_cache_folder_is_filled_found_again_looked_into_and_cleared(tiny_world, tmp_path):
    kept, pairs = tmp_path / "kept", tiny_world / "train" / "captions.jsonl"
    plain = ("train", "--pairs", pairs, *TRAINED, "--epochs", "1", "--validation", "2")
    cached = (*plain, "--cache-gb", "0", "--cache-dir", kept)
    invoke(*plain, "--out", tmp_path / "plain")
    first, second = (invoke(*cached, "--out", tmp_path / name).output for name in ("first", "second"))
    assert "prefixes on disk" in first and "prefixes on disk" in second
    wanted, *found = (load_file(tmp_path / name / "adapter.safetensors")["latents"] for name in ("plain", "first", "second"))
    for one in found:
        assert_close(one, wanted, steps=TRAINING)
    files = sorted(kept.glob("*/*.safetensors"))
    assert f"{len(files)}, " in invoke("cache", "stat", kept).output
    files[0].write_bytes(b"damaged")
    said = invoke("cache", "stat", kept, "--verify").output
    assert "1 damaged entries removed" in said and f"{len(files) - 1}, " in said and not files[0].exists()
    assert f"{len(files) - 1} entries removed" in invoke("cache", "clear", kept).output
    assert not list(kept.glob("*/*.safetensors"))


@pytest.mark.parametrize("command", ["stat", "clear"])
def test_a_folder_that_is_no_cache_is_left_alone(tmp_path, refused, command):
    (tmp_path / "photo.safetensors").write_bytes(b"mine")
    assert "is not a folder that slq keeps prefixes in" in refused("cache", command, tmp_path)
    assert (tmp_path / "photo.safetensors").read_bytes() == b"mine"


def test_a_cache_level_that_does_not_exist(tiny_world, tmp_path, refused):
    said = refused("train", "--pairs", tiny_world / "train" / "captions.jsonl", "--out", tmp_path / "out", "--cache-level", "all")
    assert "Unknown cache_level 'all'" in said
