"""Families that no contract test has run: tried when loaded, on models that work, that work slowly, and that cannot work."""

from __future__ import annotations

import copy
from pathlib import Path
from types import MethodType

import pytest
import torch
import transformers
from tiny_models import FAMILIES, decoder, tower, train_tokenizer
from tolerance import FORWARD, assert_close

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.errors import ModelError
from slq.models import FrozenModel, load_model
from slq.models.families import Family, families
from slq.models.invariance import check_invariance
from slq.testing import check_family


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A LLaVA 1.5, which has no row of its own."""
    assert "llava" not in families
    folder = tmp_path_factory.mktemp("probe") / "llava"
    tokenizer = train_tokenizer("<pad>", "</s>", ("<unk>", "<image>"), "<s>", {})
    vision = {"model_type": "clip_vision_model", **tower(projection_dim=32)}
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **decoder(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 56, "width": 56}
    transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size=size, crop_size=size),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=FAMILIES["llava_next"].template,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def spoilt(folder) -> FrozenModel:
    """A copy whose decoder may be changed."""
    known = load_model(str(folder), device="cpu")
    return FrozenModel(copy.deepcopy(known.model), known.processor, Family(verified=False), "spoilt", "unknown")


def change(model: FrozenModel, forward) -> None:
    """Replace how the model's body runs; `forward` gets the one it had."""
    body = model.model.base_model
    known = body.forward
    body.forward = MethodType(lambda self, **inputs: forward(known, **inputs), body)


def test_an_unknown_family_that_works_is_used_by_the_fast_path(folder, items):
    model = load_model(str(folder), device="cpu")
    assert model.supports_two_pass
    fast, slow = (LatentEncoder(model, queries(model), prefix_caching=split).encode_batch(items) for split in (True, False))
    assert_close(fast, slow, steps=FORWARD)


def queries(model: FrozenModel) -> LatentQueries:
    return LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(1))


def test_without_a_sound_fast_path_it_takes_the_slow_one_and_says_so(spoilt):
    def forget_the_past(known, **inputs):
        if inputs.get("past_key_values") is not None:
            inputs |= {"past_key_values": None, "attention_mask": None}
        return known(**inputs)

    change(spoilt, forget_the_past)
    with pytest.warns(UserWarning, match="A llava model takes the reference path"):
        check_invariance(spoilt)
    assert not spoilt.supports_two_pass
    assert not LatentEncoder(spoilt, queries(spoilt)).prefix_caching


def test_a_fast_path_that_is_not_taken_at_all_leads_to_the_slow_one(spoilt):
    def refuse_vectors(known, **inputs):
        if "inputs_embeds" in inputs:
            raise TypeError("forward() got an unexpected keyword argument 'inputs_embeds'")
        return known(**inputs)

    change(spoilt, refuse_vectors)
    with pytest.warns(UserWarning, match="reference path"):
        check_invariance(spoilt)
    assert not spoilt.supports_two_pass


def see_padding(known, **inputs):
    return known(**{**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])})


def see_nothing_behind(known, **inputs):
    """What stands before the four appended vectors, in the place of their states."""
    output = known(**inputs)
    output.last_hidden_state = output.last_hidden_state[:, -5:-4].expand(-1, output.last_hidden_state.shape[1], -1)
    return output


def refuse(known, **inputs):
    raise TypeError("forward() got an unexpected keyword argument 'position_ids'")


@pytest.mark.parametrize(
    ("forward", "named"),
    [
        (see_padding, "depend on what else is in the batch"),
        (see_nothing_behind, "do not depend on vectors appended"),
        (refuse, "TypeError: forward.. got an unexpected keyword argument 'position_ids'"),
        (lambda known, **inputs: type("Output", (), {"last_hidden_state": torch.full((1, 1, 1), torch.nan)})(), "no finite state"),
    ],
    ids=["padding", "latents", "arguments", "states"],
)
def test_what_cannot_work_is_named(spoilt, forward, named):
    change(spoilt, forward)
    with pytest.raises(ModelError, match=named) as caught:
        check_invariance(spoilt)
    assert str(caught.value).startswith("A llava model cannot be used: ") and str(caught.value).endswith(".")


def test_latents_that_do_not_see_the_item_are_named(spoilt):
    def alone(known, **inputs):
        """Every token sees itself and the appended ones only."""
        count = inputs["input_ids"].shape[1]
        inputs["input_ids"] = inputs["input_ids"][:, -4:]
        inputs |= {"attention_mask": None, "pixel_values": None, "position_ids": None}
        output = known(**inputs)
        output.last_hidden_state = torch.nn.functional.pad(output.last_hidden_state, (0, 0, count - 4, 0))
        return output

    change(spoilt, alone)
    with pytest.raises(ModelError, match="does not see the text or the image before it"):
        check_invariance(spoilt)


def test_a_tokenizer_without_padding_is_named(spoilt):
    spoilt.processor = copy.deepcopy(spoilt.processor)
    spoilt.processor.tokenizer.pad_token = None
    with pytest.raises(ModelError, match="no padding token"):
        check_invariance(spoilt)


# Rows of other distributions


def test_a_row_of_another_distribution_is_found_by_its_model_type_and_held_to_the_contract(folder, tmp_path, monkeypatch):
    info = tmp_path / "llava_row-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llava_row\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[slq.families]\nllava = llava_row:FAMILY\n")
    row = "from slq.models.families import Family\nFAMILY = Family(single_tile_kwargs={'do_center_crop': False})\n"
    (tmp_path / "llava_row.py").write_text(row)
    monkeypatch.delenv("SLQ_LOAD_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = load_model(str(folder), device="cpu")
    assert known.verified and known.identity.preprocessing["image_kwargs"]["do_center_crop"] is False
    check_family(known)
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "")
    with pytest.warns(UserWarning, match=r"llava_row 1\.0 adds it, but SLQ_LOAD_PLUGINS='' leaves that out"):
        assert not load_model(str(folder), device="cpu").verified


def longer_latents(known, **inputs):
    if inputs.get("inputs_embeds") is not None:
        inputs["inputs_embeds"] = 2 * inputs["inputs_embeds"]
    return known(**inputs)


@pytest.mark.parametrize(
    ("forward", "named"),
    [
        (see_padding, "the same states in every batch .left padding is not seen.; it differs by"),
        (longer_latents, "the same states by the two-pass forward as by the reference path; it differs by"),
    ],
    ids=["padding", "latents"],
)
def test_the_contract_names_what_does_not_hold(spoilt, forward, named):
    check_family(spoilt)
    change(spoilt, forward)
    with pytest.raises(AssertionError, match=rf"^The family of llava models must give {named}"):
        check_family(spoilt)


def fails(known, **inputs):
    raise TypeError("unexpected keyword argument 'position_ids'")


def test_a_raw_error_of_a_family_names_it_and_what_is_asked(spoilt):
    change(spoilt, fails)
    with pytest.raises(AssertionError, match=r"^The family of llava models must answer a text, an image, and both; it raised TypeError"):
        check_family(spoilt)
    with pytest.raises(AssertionError, match="must be tried on a FrozenModel, as load_model gives it; it was given 'llava'"):
        check_family("llava")


def test_a_model_that_cannot_be_used_says_that_its_family_has_no_row(spoilt, tmp_path):
    spoilt.model.save_pretrained(tmp_path)
    spoilt.processor.tokenizer.pad_token = None
    spoilt.processor.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no padding token.* slq\.families has no row for it: install a distribution that adds 'llava'\."):
        load_model(str(tmp_path), device="cpu")
