"""The paper's experiments: their measures by hand, trainings that are done once, and the whole of it in quick mode."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from tolerance import FORWARD, assert_close

from research.paper import ablations, blend, comparison, controls, cost, further, scale, scratch, sizes, tuning
from research.paper.command import EXPERIMENTS, main
from research.paper.gap import gap, joint_plane
from research.paper.maps import attention_to_images
from research.paper.study import Size, Study, quality, spread
from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.errors import InputError, ModelError
from slq.models import load_model
from slq.training.telling import tell_facts

WEIGHTS = files("slq.miniature").joinpath("weights")
TINY = Size(training=12, validation=4, test=6, questions=4, seeds=(0, 1), epochs=1, batch_size=6)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return Study(tmp_path_factory.mktemp("study") / "out", size=TINY, device="cpu")


# Measures


def test_the_gap_by_hand():
    images, captions = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.6, 0.8], [0.6, -0.8]])
    found = gap(images, captions)
    assert found == pytest.approx({"distance_of_means": 0.4, "cosine_of_pairs": 0.6, "cosine_of_strangers": 0.6})
    assert gap(images, images)["distance_of_means"] == 0


def test_the_joint_plane_holds_what_lies_in_a_plane():
    draw = np.random.default_rng(0)
    flat = np.concatenate([draw.normal(size=(8, 2)), np.zeros((8, 3))], axis=1) @ np.linalg.qr(draw.normal(size=(5, 5)))[0]
    one, other = joint_plane(flat[:5], flat[5:])
    assert one.shape == (5, 2) and other.shape == (3, 2)
    joined = np.concatenate([one, other])
    assert np.allclose(np.linalg.norm(joined[:, None] - joined, axis=-1), np.linalg.norm(flat[:, None] - flat, axis=-1))


def test_spread_by_hand():
    found = spread([{"a": 1.0, "b": {"c": 2.0}}, {"a": 3.0, "b": {"c": 2.0}}])
    assert found == {"a": {"mean": 2.0, "sd": pytest.approx(2**0.5)}, "b": {"c": {"mean": 2.0, "sd": 0.0}}}
    assert spread([{"a": 1.0}]) == {"a": {"mean": 1.0, "sd": 0.0}}


def test_quality_is_explicit_retrieval_alone():
    validation = {"text to image": {"hit@1": 0.4}, "image to text": {"hit@1": 0.6}, "knowledge": {"hit@1": 0.0}}
    assert quality({"validation": validation}) == 0.5


def test_attention_is_the_models_own(items):
    """Against the weights that transformers hands out; each latent's attention to the image is a share of 1."""
    model = load_model(device="cpu", attn_implementation="eager")
    queries = LatentQueries.create(3, model.dim, generator=torch.Generator().manual_seed(0), generation_prompt=False)
    images = items[4:8]
    found = attention_to_images(LatentEncoder(model, queries), images)
    assert found.shape == (4, 3, 36) and found.min() >= 0 and found.sum(dim=2).max() <= 1 + 1e-5
    prepared = model.prepare(images[:1], False)
    inputs = prepared.inputs["input_ids"]
    embedded = model.embedding(inputs)
    features = model.model.base_model.get_image_features(pixel_values=prepared.inputs["pixel_values"], return_dict=True).pooler_output
    shown = inputs[0] == model.model.config.image_token_id
    embedded[0, shown] = features.reshape(-1, model.dim)
    whole = torch.cat([embedded, queries.latents[None]], dim=1)
    with torch.no_grad():
        attentions = model.model.get_decoder()(inputs_embeds=whole, output_attentions=True).attentions
    by_hand = torch.stack([layer[0].mean(dim=0)[-3:, : len(shown)][:, shown] for layer in attentions]).mean(dim=0)
    assert_close(found[0], by_hand, steps=FORWARD)


def test_attention_needs_a_model_that_hands_it_out(model, items):
    with pytest.raises(ModelError, match="attn_implementation='eager'"):
        attention_to_images(LatentEncoder(model, LatentQueries(2, model.dim)), items[4:6])


# Studies


@pytest.mark.slow
def test_a_training_is_done_once_whatever_it_is_called(study):
    options = study.options(max_steps=1, num_latents=2)
    first = study.trained("one name", options)
    written = (first.folder / "adapter.safetensors").stat().st_mtime_ns
    again = Study(study.out, size=TINY, device="cpu").trained("another name", replace(options, cache_memory_gb=0, save_steps=7))
    assert again.folder == first.folder and again.measured == json.loads(json.dumps(first.measured))
    assert (first.folder / "adapter.safetensors").stat().st_mtime_ns == written
    other = study.trained("one name", replace(options, seed=5))
    assert other.folder != first.folder
    assert {"validation", "test", "date", "seed"} <= set(first.measured)
    assert first.measured["learned_numbers"] == 2 * study.model.dim


@pytest.mark.slow
def test_a_stopped_training_goes_on(study):
    options = study.options(max_steps=2, num_latents=3, save_steps=1)
    whole = study.trained("whole", options)
    broken = Study(study.out.parent / "broken", size=TINY, device="cpu")
    folder = broken.out / "trainings" / f"broken-{broken.digest(options)}"
    from slq.training import train

    train(broken.pairs("train"), broken.model, folder, options, (), show_progress=False, stop_after=1)
    resumed = broken.trained("broken", options)
    assert resumed.folder == folder and resumed.measured["test"] == whole.measured["test"]
    assert torch.equal(study.load(whole).queries.latents, broken.load(resumed).queries.latents)


def test_the_rate_is_chosen_on_validation_pairs(study, monkeypatch):
    """Test scores would choose the other one."""
    table = {1e-3: (0.9, 0.1), 1e-2: (0.2, 0.8)}

    def trained(self, name, options):
        on_validation, on_test = table[options.learning_rate]
        both = {way: {"hit@1": on_validation} for way in ("text to image", "image to text")}
        return type("Trained", (), {"measured": {"validation": both, "test": {way: {"hit@1": on_test} for way in both}}})()

    monkeypatch.setattr(Study, "trained", trained)
    assert study.chosen_rate("latents", (1e-3, 1e-2)) == 1e-3


def test_own_data_must_be_whole(tmp_path):
    with pytest.raises(InputError, match="test, validation is missing"):
        Study(tmp_path / "out", data={"train": tmp_path})


def test_every_variant_differs_from_the_recipe(study, monkeypatch):
    asked = []
    monkeypatch.setattr(Study, "chosen_rate", lambda *_, **__: 0.01)
    monkeypatch.setattr(Study, "trained", lambda self, name, options: asked.append(self.digest(options)))
    for name, changes in ablations.VARIANTS.items():
        ablations.variant(study, name, changes, seed=0)
    assert len(set(asked)) == len(ablations.VARIANTS)
    tuning.trainings(study, "latents", tuning.METHODS["latents"], 0.01)
    assert asked[0] == asked[len(ablations.VARIANTS)], "the base is what `tuning` trains"


def test_controls_are_of_the_world_alone(study):
    with pytest.raises(InputError, match="leave out the data"):
        controls.run(study.beside("miniature"), None)
    with pytest.raises(InputError, match="leave out the data"):
        scratch.run(study.beside("miniature"))
    with pytest.raises(InputError, match="leave out the data"):
        sizes.run(study.beside("miniature"))


def test_an_unknown_experiment(tmp_path, capsys):
    assert main(["poster", "--output", str(tmp_path)]) == 2
    assert 'Invalid value "poster"' in capsys.readouterr().err


@pytest.mark.slow
def test_all_experiments_in_quick_mode(tmp_path, monkeypatch):
    """Every result has what it is to hold; figures are images; a second call trains nothing."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("research.paper.study.QUICK", replace(TINY, seeds=(0,)))
    few = ("the base", "nested groups", "Matryoshka 64, 128")
    monkeypatch.setattr(ablations, "VARIANTS", {name: ablations.VARIANTS[name] for name in few})
    rates = {"latents": 2, "lora": 1, "full": 1}
    one_of_each = {name: replace(tuning.METHODS[name], rates=tuning.METHODS[name].rates[:count]) for name, count in rates.items()}
    for name in set(tuning.METHODS) - set(one_of_each):
        monkeypatch.delitem(tuning.METHODS, name)
    for name, method in one_of_each.items():
        monkeypatch.setitem(tuning.METHODS, name, method)
    monkeypatch.setattr(scale, "COMPARED", tuple(one_of_each))
    monkeypatch.setattr(blend, "SHARES", (0.0, blend.HALF, 1.0))
    monkeypatch.setattr(cost, "METHODS", {"latents": one_of_each["latents"]})  # each in a process of its own
    monkeypatch.setattr(cost, "SIDES", {})
    monkeypatch.setattr("research.paper.study.tell_facts", partial(tell_facts, facts_per_name=2, max_names=4))
    monkeypatch.setattr(scratch, "EPOCHS", 1)
    monkeypatch.setattr(scratch, "RATES", scratch.RATES[:1])
    compared = {name: comparison.METHODS[name] for name in ("latent LoRA, rank 2", comparison.RIVAL)}
    monkeypatch.setattr(comparison, "METHODS", {name: replace(method, tries=method.tries[:1]) for name, method in compared.items()})
    monkeypatch.setattr(sizes, "IMAGES", (8,))
    monkeypatch.setattr(sizes, "EPOCHS", {8: (1, 2)})
    monkeypatch.setattr(sizes, "METHODS", {"5 latents": ("default", False)})
    monkeypatch.setattr(further, "VALIDATION_IMAGES", TINY.validation)
    monkeypatch.setattr(further, "TEST_IMAGES", TINY.test)
    tried = ("the base", "vectors one after the other", further.ONE)
    monkeypatch.setattr(further, "VARIANTS", {name: further.VARIANTS[name] for name in tried})
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "")
    arguments = ["all", "--output", str(tmp_path / "study"), "--quick", "--device", "cpu"]
    arguments += ["--without-facts", str(WEIGHTS)]  # the miniature itself: it must score as the miniature does
    assert main(arguments) == 0
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "study").glob("*.json")}
    assert set(found) == set(EXPERIMENTS)
    assert set(found["tuning"]["methods"]) == set(tuning.METHODS)
    for method in found["tuning"]["methods"].values():
        assert {"text to image", "image to text", "knowledge"} == set(method["test"])
        assert set(method["test"]["knowledge"]["by_category"]) and f"{method['learning_rate']:g}" in method["by_rate"]
    assert set(found["cost"]["trainings"]) == {"latents"}
    assert all(one["seconds"] > 0 and one["peak_bytes"] > 0 for one in found["cost"]["trainings"].values())
    encoders = found["controls"]["encoders"]
    assert encoders["without facts, equal steps: latents"] == encoders["the model: latents"]
    assert found["scratch"]["learning_rate"] in scratch.RATES and found["scratch"]["test"]["knowledge"]["hit@5"]["mean"] < 1
    assert "nested groups: late interaction of 5" in found["ablations"]["variants"]
    assert all("command" in one and "date" in one for one in found.values())
    for path in (tmp_path / "study").glob("*.png"):
        with Image.open(path) as figure:
            assert min(figure.size) > 100
    rows = {row["name"]: row for row in found["comparison"]["rows"]}
    assert set(rows) == {"last token", *compared}
    assert [row["weights_changed"] for row in rows.values()] == [False, False, True]
    assert [row["parameters"] for row in rows.values()] == [0, 40_192, 155_648]
    figures = (*comparison.FIGURES, comparison.GAP, "retention")
    assert all({"mean", "sd"} == set(row[name]) for row in rows.values() for name in figures)
    against = found["comparison"]["against"]
    assert set(against) == {"last token", "latent LoRA, rank 2"} and all(set(each) == set(comparison.FIGURES) for each in against.values())
    for name, differences in against.items():
        for figure, told in differences.items():
            assert told["difference"] == pytest.approx(rows[name][figure]["mean"] - rows[comparison.RIVAL][figure]["mean"])
            assert told["ci95"][0] <= told["difference"] + 1e-9 and told["difference"] <= told["ci95"][1] + 1e-9
    assert rows["latent LoRA, rank 2"]["retention"] == rows["last token"]["retention"]
    (row,) = found["sizes"]["rows"]
    assert row["images"] == 8 and row["parameters"] == 1280 and str(row["epochs"]) in row["validation"] and len(row["validation"]) == 2
    assert set(found["further"]["variants"]) == {*tried, "the base, centred by modality"}, "one seed makes no ensemble"
    assert {"hit@1", "knowledge", "mixed gallery, text to image", "modality gap"} <= set(found["further"]["variants"]["the base"])
    kept = found["retention"]["methods"]
    assert kept["latents"]["weights_unchanged"] and kept["latents"]["changed"]["mean"] == 0
    assert not kept["full"]["weights_unchanged"] and {"lora, merged", "full, half of the way back"} <= set(kept)
    learned = sorted((tmp_path / "study").rglob("measured.json"))
    written = [path.stat().st_mtime_ns for path in learned]
    for experiment in ("tuning", "cost", "comparison"):
        assert main([experiment, *arguments[1:6]]) == 0
    assert [path.stat().st_mtime_ns for path in learned] == written and learned == sorted((tmp_path / "study").rglob("measured.json"))
    assert json.loads((tmp_path / "study" / "cost.json").read_text())["trainings"] == found["cost"]["trainings"]
