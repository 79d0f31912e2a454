"""Random weights at published shapes: the published number of parameters, the family's tokens, and a model like any other."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from tolerance import FORWARD, GRADIENT, assert_close
from transformers import AutoConfig, AutoModelForImageTextToText

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.errors import ModelError
from slq.models import FrozenModel, load_model
from slq.models.shapes import SHAPES, revision, sample_weights
from slq.pooling import MeanPooling
from slq.types import Item

# What is published of each, in millions to the last digit given. internvl3-1b: the InternVL 2.5 report's table of models (same shape);
# internvl3-8b and qwen3-vl-4b: parameters that users counted in the checkpoints (7,944,373,760 and 4,437,815,808 in public repositories);
# qwen3-vl-2b: the hub's safetensors metadata of Qwen/Qwen3-VL-2B-Instruct (2,127,532,032).
PUBLISHED = {"internvl3-1b": 938.19, "internvl3-8b": 7944.373760, "qwen3-vl-2b": 2127.532032, "qwen3-vl-4b": 4437.815808}
IMAGE_TOKENS = {"internvl3-1b": (151667, 256), "qwen3-vl-2b": (151655, 64)}  # its id; how many an image of 96 x 96 becomes
FULL = copy.deepcopy(SHAPES)
IMAGE = {"internvl3-1b": "<IMG_CONTEXT>\n", "qwen3-vl-2b": "<|vision_start|><|image_pad|><|vision_end|>"}


def thinned(name: str) -> dict:
    """The shape with a few narrow layers: what is left is the family's own, vocabulary included."""
    shape = copy.deepcopy(FULL[name])
    narrow = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 96}
    shape["text_config"].update(narrow)
    tower = shape["vision_config"]
    tower.update({"hidden_size": 32, "intermediate_size": 64})
    if shape["model_type"] == "internvl":
        tower.update({"num_hidden_layers": 2, "num_attention_heads": 2})
    else:
        tower.update({"depth": 4, "num_heads": 2, "deepstack_visual_indexes": [0, 1, 2], "out_hidden_size": 64})
    return shape


@pytest.fixture(scope="module", params=["internvl3-1b", "qwen3-vl-2b"])
def name(request) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SHAPES, request.param, thinned(request.param))
        yield request.param


@pytest.fixture(scope="module")
def thin(name) -> FrozenModel:
    return load_model(f"random:{name}", device="cpu")


@pytest.fixture(scope="module")
def mixed() -> list[Item]:
    """Two texts, an image, and the image with a text."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    return [Item("a red cat on a mat"), Item("two blue boats"), Item(image=noise), Item("but at night", noise)]


def latents(model):
    queries = LatentQueries.create(4, model.dim, "normal", model.prompt_embeddings(), torch.Generator().manual_seed(5))
    return queries.latents


@pytest.mark.parametrize("shape", FULL)
def test_parameters_are_as_many_as_published(shape):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**copy.deepcopy(FULL[shape])))
    model.tie_weights()
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    digits = len(str(PUBLISHED[shape]).split(".")[1])
    assert round(millions, digits) == PUBLISHED[shape]


def test_prompts_have_the_familys_form_and_ids(thin, name, mixed):
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "but blue"}]}]
    rendered = thin.processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    assert rendered == f"<|im_start|>user\n{IMAGE[name]}but blue<|im_end|>\n<|im_start|>assistant\n"
    ids = thin.prepare(mixed).inputs["input_ids"]
    token, count = IMAGE_TOKENS[name]
    assert (ids == token).sum(dim=1).tolist() == [0, 0, count, count]
    assert (ids == 151644).sum(dim=1).tolist() == [2, 2, 2, 2]  # <|im_start|>
    assert ids.max() < len(thin.embedding.weight) == FULL[name]["text_config"]["vocab_size"]


def test_words_are_the_miniatures(thin, model):
    words = "a red cat, twice: café"
    own, known = (each.processor.tokenizer(words, add_special_tokens=False)["input_ids"] for each in (thin, model))
    assert own == known


def test_user_text_is_never_read_as_control(thin, name):
    token, _ = IMAGE_TOKENS[name]
    spelled = thin.processor.tokenizer.convert_ids_to_tokens(token)
    ids = thin.prepare([Item(f"{spelled} <|im_end|> {spelled}")]).inputs["input_ids"]
    assert token not in ids
    assert (ids == 151645).sum() == 1


def test_fast_path_equals_its_slow_twin(thin, mixed):
    queries, prepared = latents(thin), thin.prepare(mixed)
    split, whole = (
        MeanPooling()(thin.decode_latents(thin.prefill(prepared), queries)),
        MeanPooling()(thin.forward_reference(prepared, queries)),
    )
    assert_close(split, whole, steps=FORWARD)
    weights = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1))
    fast, slow = (torch.autograd.grad((each * weights).sum(), queries)[0] for each in (split, whole))
    assert_close(fast, slow, steps=GRADIENT)


def test_weights_tell_items_apart(thin, mixed):
    embeddings_BD = MeanPooling()(thin.forward_reference(thin.prepare(mixed), latents(thin)))
    assert torch.isfinite(embeddings_BD).all()
    alike = embeddings_BD @ embeddings_BD.T - torch.eye(len(mixed))
    assert alike.max() < 0.9999  # a few words beside 256 random image tokens hardly count
    assert alike[0, 2] < 0.9  # a text and an image


def test_one_seed_gives_one_model_in_every_dtype(thin, name):
    half = load_model(f"random:{name}", dtype="bfloat16", device="cpu")
    assert half.identity.dtype == "bfloat16"
    wanted = dict(thin.model.named_parameters())
    for parameter_name, parameter in half.model.named_parameters():
        assert torch.equal(parameter, wanted[parameter_name].bfloat16()), parameter_name
    sample_weights(half.model, seed=1)
    assert not torch.equal(half.embedding.weight, thin.embedding.weight.bfloat16())


def test_attention_can_be_chosen(thin, name, mixed):
    eager = load_model(f"random:{name}", device="cpu", attn_implementation="eager")
    assert eager.model.config.get_text_config()._attn_implementation == "eager"
    found, wanted = (MeanPooling()(each.forward_reference(each.prepare(mixed), latents(each))) for each in (eager, thin))
    assert_close(found, wanted, steps=FORWARD)


def test_an_adapter_finds_its_random_model_again(thin, name, mixed, tmp_path):
    assert thin.identity.name == f"random:{name}"
    assert thin.identity.revision == revision(f"random:{name}")
    encoder = LatentEncoder(thin, LatentQueries.create(4, thin.dim, generator=torch.Generator().manual_seed(3)))
    encoder.save_pretrained(tmp_path / "adapter")
    again = LatentEncoder.from_pretrained(tmp_path / "adapter", device="cpu")
    assert torch.equal(again.encode_batch(mixed), encoder.encode_batch(mixed))


def test_saved_as_a_folder_it_comes_back_with_its_still_processor(thin, mixed, tmp_path):
    thin.model.save_pretrained(tmp_path)
    thin.processor.save_pretrained(tmp_path)
    again = load_model(str(tmp_path), device="cpu")
    assert type(again.processor) is type(thin.processor)
    assert torch.equal(
        again.forward_reference(again.prepare(mixed), latents(again)), thin.forward_reference(thin.prepare(mixed), latents(thin))
    )


def test_it_answers(thin, mixed):
    answers = thin.generate([[thin.message(item)] for item in mixed], max_new_tokens=2)
    assert len(answers) == len(mixed)


def test_an_unknown_shape_is_named_with_those_there_are():
    with pytest.raises(ModelError) as caught:
        load_model("random:internvl3-2b")
    assert "'random:internvl3-2b'" in str(caught.value)
    assert all(f"random:{shape}" in str(caught.value) for shape in SHAPES)


@pytest.mark.parametrize(
    ("option", "named"), [({"revision": "main"}, "no revisions"), ({"device_map": "cpu"}, "leave out device_map and quantization")]
)
def test_options_that_random_weights_cannot_take(option, named):
    with pytest.raises(ModelError, match=named):
        load_model("random:internvl3-1b", **option)
