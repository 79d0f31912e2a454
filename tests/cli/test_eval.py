"""`slq eval` and `slq compare`: the scores they show and write, and what those depend on."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import QUICK, invoke, refused
from PIL import Image
from safetensors.torch import load_file, save_file

import slq
from slq.encoders.latent import LatentEncoder


def scored(tmp_path: Path, *arguments: object) -> dict:
    result = invoke("eval", *arguments, "--output", tmp_path / "scores.json", "--overwrite", "--device", "cpu")
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
    result = scored(tmp_path, data, "--model", adapter)
    ways = ["text to image", "image to text"]
    assert list(result["scores"]) == [*ways, *(f"mixed gallery, {way}" for way in ways)]
    for scores in result["scores"].values():
        check_scores(scores, 12)
        assert scores["failures"] == []
    assert result["fingerprint"] == LatentEncoder.from_pretrained(adapter, device="cpu").fingerprint
    assert result["adapter"] == str(adapter) and result["data"] == str(data) and result["base_model"]["name"] == "miniature"
    assert {"date", "torch", "hardware", "python", "transformers"} <= set(result["provenance"])


def test_eval_on_questions_lists_failures(tiny_world, adapter, tmp_path):
    shutil.copytree(tiny_world / "test", tmp_path / "test")
    (tmp_path / "test" / "images" / "0004.png").write_bytes(b"no image")
    (tmp_path / "test" / "images" / "0007.png").unlink()
    result = invoke("eval", tmp_path / "test" / "knowledge", "--model", adapter, "--output", tmp_path / "s.json")
    scores = json.loads((tmp_path / "s.json").read_text())["scores"]["knowledge"]
    check_scores(scores, 12)
    assert len(scores["failures"]) == 2
    assert "0004.png" in str(scores["failures"]) and "0007.png" in str(scores["failures"])
    assert "2 item(s) skipped" in result.stderr and "0004.png" in result.stderr and "0007.png" in result.stderr


def test_eval_without_adapter_reads_the_last_token(tiny_world, adapter, tmp_path):
    result = scored(tmp_path, tiny_world / "test" / "knowledge")
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
        {"_id": "q2", "text": "it barks", "category": "animals", "excluded": ["cat"]},
        {"_id": "q3", "text": "it cuts wood", "category": "tools", "excluded": ["saw"]},
    ]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tcat\t1\nq2\tdog\t1\nq3\tsaw\t1\n")
    shown = invoke("eval", folder, "--output", tmp_path / "scores.json", "--device", "cpu").stdout
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]["asked"]
    named = {" asked": scores, **{f"   {category}": found for category, found in scores["by_category"].items()}}
    assert [(name, found["hit@5"], found["queries"]) for name, found in named.items()] == [
        (" asked", 2 / 3, 3),
        ("   animals", 1, 2),
        ("   tools", 0, 1),
    ]
    columns = ("hit@1", "hit@5", "hit@10", "mrr")
    wanted = [[name.strip(), *[f"{found[k]:.1%}" for k in columns], str(found["queries"])] for name, found in named.items()]
    assert [line.split() for line in shown.splitlines()[-3:]] == wanted

    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": row["_id"], "text": row["text"]}) + "\n" for row in queries))
    plain = invoke("eval", folder, "--output", tmp_path / "plain.json", "--device", "cpu").stdout
    assert "category" in shown and "category" not in plain
    assert "by_category" not in json.loads((tmp_path / "plain.json").read_text())["scores"]["asked"]


@pytest.mark.slow
def test_eval_writes_what_the_scores_depend_on(tiny_world, adapter, tmp_path):
    data, kept = tiny_world / "test" / "captions.jsonl", tmp_path / "embeddings kept"
    result = scored(tmp_path, data, "--model", adapter, "--per-query", "--cache-dir", kept)
    assert (result["format"], result["benchmark"], result["averages"]) == (2, None, {})
    assert re.fullmatch("[0-9a-f]{64}", result["data_sha256"])
    assert shlex.split(result["command"])[:3] == ["slq", "eval", str(data)] and str(kept) in shlex.split(result["command"])
    assert {"dtype", "preprocessing", "revision", "chat_template_sha256"} <= set(result["base_model"])
    assert {"slq", "numpy", "device", "seed"} <= set(result["provenance"])
    for scores in result["scores"].values():
        assert len(scores["ranks"]) == scores["queries"]
        for name, (low, high) in scores["ci95"].items():
            assert 0 <= low <= scores[name] <= high <= 1, name
    assert list(kept.glob("*/*/*.safetensors"))
    again = scored(tmp_path, data, "--model", adapter, "--per-query", "--cache-dir", kept)
    assert {**again, "provenance": 0, "command": 0} == {**result, "provenance": 0, "command": 0}
    other = scored(tmp_path, tiny_world / "train" / "captions.jsonl", "--model", adapter)
    assert other["data_sha256"] != result["data_sha256"] and "ranks" not in other["scores"]["text to image"]


@pytest.mark.slow
def test_compare_shows_differences_and_what_cannot_be_tested(tiny_world, adapter, other_adapter, tmp_path):
    data, files = tiny_world / "test" / "captions.jsonl", [tmp_path / f"{name}.json" for name in ("a", "b", "plain", "other")]
    invoke("eval", data, "--model", adapter, "--output", files[0], "--per-query", "--device", "cpu")
    invoke("eval", data, "--model", other_adapter, "--output", files[1], "--per-query", "--device", "cpu")
    invoke("eval", data, "--model", adapter, "--output", files[2], "--device", "cpu")
    invoke("eval", tiny_world / "train" / "captions.jsonl", "--model", adapter, "--output", files[3], "--device", "cpu")
    shown = invoke("compare", files[0], files[1]).output
    assert "text to image" in shown and "ndcg@10" in shown and "per-query" not in shown
    same = invoke("compare", files[0], files[0]).output
    assert "+0.0 to +0.0" in same and "1.0000" in same
    assert "slq eval --per-query" in invoke("compare", files[0], files[2]).output
    assert "No published figures" in invoke("compare", files[0], "--published").output
    several = invoke("compare", *files[:3], "--output", tmp_path / "runs.csv").stdout
    assert several.startswith("run ") and [line.split()[0] for line in several.splitlines()[1:]] == [file.stem for file in files[:3]]
    assert (tmp_path / "runs.csv").read_text().startswith("run,") and "exists already" in refused(
        "compare", *files[:2], "--output", tmp_path / "runs.csv"
    )
    invoke("compare", *files[:2], "--output", tmp_path / "runs.json")
    assert len(json.loads((tmp_path / "runs.json").read_text())["runs"]) == 2
    assert "name another --metric" in refused("compare", *files[:3], "--metric", "hit@99")
    assert "--force" in refused("compare", files[0], files[3])
    anyway = invoke("compare", files[0], files[3], "--force")
    assert "Warning: These scores do not compare" in anyway.stderr and "hit@1" in anyway.stdout
    assert "a second file" in refused("compare", files[0])


def test_compare_shows_published_figures_as_such(tmp_path):
    scores = {"hit@1": 0.5, "hit@5": 0.75, "hit@10": 0.8, "queries": 4, "ci95": {}, "failures": []}
    about = {"name": "coco", "variant": "five", "protocol": "p", "revision": "r", "prompts": {}}
    result = {"format": 2, "benchmark": about, "data": None, "data_sha256": "", "scores": {"text to image": scores}, "averages": {}}
    (tmp_path / "coco.json").write_text(json.dumps(result))
    shown = invoke("compare", tmp_path / "coco.json", "--published").output
    assert "measured" in shown and "published" in shown and "48.5%" in shown and "50.0%" in shown and "image to text" not in shown


def test_published_figures_with_other_prompts_are_told(tmp_path):
    for prompts, told in (({}, True), ({"query": "..."}, False)):
        about = {"name": "cirr", "variant": "val", "protocol": "p", "revision": "r", "prompts": prompts}
        scores = {"hit@5": 0.5, "queries": 4, "ci95": {}, "failures": []}
        result = {"format": 2, "benchmark": about, "data": None, "data_sha256": "", "scores": {"CIRR": scores}, "averages": {}}
        (tmp_path / "cirr.json").write_text(json.dumps(result))
        shown = invoke("compare", tmp_path / "cirr.json", "--published").output
        assert "63.5%" in shown and ("measured without prompts, SLQ's published figures with" in shown) == told


@pytest.mark.slow
@pytest.mark.parametrize("name", ["miniature", "beir"])
def test_eval_of_a_benchmark_says_what_it_is(name, tiny_world, adapter, tmp_path):
    pytest.importorskip("slq.benchmarks")
    data = tiny_world / "test" if name == "miniature" else tiny_world / "test" / "knowledge"
    result = scored(tmp_path, "--benchmark", name, data, "--model", adapter, "--per-query")
    assert result["benchmark"]["name"] == name and result["benchmark"]["protocol"] and result["benchmark"]["revision"]
    assert result["benchmark"]["variant"] == "test" and result["scores"]
    shown = invoke("compare", tmp_path / "scores.json", tmp_path / "scores.json").output
    assert "hit@1" in shown and "1.0000" in shown


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*had more than 3 tokens")
def test_what_a_training_was_told_about_its_model_is_used_and_saved(tiny_world, tmp_path):
    captions = tiny_world / "train" / "captions.jsonl"
    told = ["--instruction", "in one word", "--max-length", 3, "--attn-implementation", "eager", "--dtype", "bfloat16"]
    invoke("train", captions, "--output", tmp_path / "adapter", "--max-steps", 1, *QUICK, *told)
    saved = json.loads((tmp_path / "adapter" / "slq_adapter.json").read_text())["base_model"]
    assert saved["dtype"] == "bfloat16"
    assert {"name": "paper", "instruction": "in one word", "max_text_tokens": 3}.items() <= saved["preprocessing"].items()
    scores = scored(tmp_path, tiny_world / "test" / "captions.jsonl", "--model", tmp_path / "adapter", "--dtype", "float32")
    assert scores["base_model"] == {**saved, "dtype": "float32"}, "an adapter brings its preprocessing along, not its dtype"


@pytest.mark.slow
def test_eval_without_adapter_is_told_how_to_load(tiny_world, tmp_path):
    result = scored(tmp_path, tiny_world / "test" / "knowledge", "--instruction", "in one word", "--preprocessing", "native")
    assert {"name": "native", "instruction": "in one word"}.items() <= result["base_model"]["preprocessing"].items()


@pytest.mark.slow
def test_an_adapter_over_a_model_that_is_named(tiny_world, adapter, tmp_path):
    data = tiny_world / "test" / "knowledge"
    weights = tmp_path / "weights"
    shutil.copytree(Path(slq.__file__).parent / "miniature" / "weights", weights)
    result = scored(tmp_path, data, "--model", adapter, "--base-model", weights)
    assert result["base_model"]["name"] == str(weights)
    assert result["fingerprint"] != "" and result["adapter"] == str(adapter)
    tensors = load_file(weights / "model.safetensors")
    tensors[min(tensors)][0] += 1
    save_file(tensors, weights / "model.safetensors", {"format": "pt"})
    assert "This adapter was learned on" in refused("eval", data, "--model", adapter, "--base-model", weights)


def cirr_test_split(folder: Path) -> Path:
    """One query of CIRR's hidden test split, and 60 images."""
    names = [f"test1-{number}" for number in range(60)]
    entry = {"pairid": 7, "reference": names[0], "caption": "make it red", "img_set": {"members": names[:6]}}
    for file, content in (
        ("captions/cap.rc2.test1.json", [entry]),
        ("image_splits/split.rc2.test1.json", {n: f"./test1/{n}.png" for n in names}),
    ):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(content))
    (folder / "test1").mkdir()
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (4 * number, 0, 0)).save(folder / "test1" / f"{name}.png")
    return folder


@pytest.mark.slow
def test_a_hidden_split_is_ranked_and_written_for_its_server(tmp_path):
    command = ["eval", cirr_test_split(tmp_path / "cirr"), "--benchmark", "cirr", "--variant", "test", "--device", "cpu"]
    shown = invoke(*command, "--submission", tmp_path / "out").stdout
    recall, subset = (json.loads((tmp_path / "out" / f"cirr_{metric}.json").read_text()) for metric in ("recall", "recall_subset"))
    assert len(set(recall["7"])) == 50 and "test1-0" not in recall["7"] and recall["metric"] == "recall"
    assert set(subset["7"]) < {f"test1-{number}" for number in range(1, 6)} and len(subset["7"]) == 3
    assert "cirr_recall.json" in shown and "cirr_recall_subset.json" in shown
    assert "--submission" in refused(*command)
    assert "holds something" in refused(*command, "--submission", tmp_path / "out")


def test_there_is_something_to_submit_only_where_judgements_are_hidden(tiny_world, tmp_path):
    data = tiny_world / "test" / "knowledge"
    assert "nothing to submit" in refused("eval", data, "--benchmark", "beir", "--submission", tmp_path / "out")
    assert "belongs to a benchmark" in refused("eval", data, "--submission", tmp_path / "out")
    assert not (tmp_path / "out").exists()
