"""What the weights do besides, in every family: plain generation, scores, and text that is never read as control."""

from __future__ import annotations

import random
import string

import pytest
import torch
from family_items import ITEMS, SQUARE, TALL, WIDE, families, full, split
from tiny_models import FAMILIES
from transformers import AutoModelForImageTextToText, AutoProcessor

from slq.models import Preprocessing, load_model
from slq.types import Item

# What the published code tells a family's processor, so that an image is one view.
ONE_VIEW = {
    "idefics3": {"do_image_splitting": False},
    "gemma3": {"do_pan_and_scan": False},
}


@pytest.fixture(scope="module")
def model(folder, model):
    """The family's model; InternVL's prepares images in transformers' way, since that of SLQ's code is another."""
    if folder.name == "internvl":
        return load_model(str(folder), device="cpu", preprocessing=Preprocessing("native"))
    return model


@families(FAMILIES)
def test_generation_is_plain_transformers_generation(folder, model, latents):
    conversations = [[model.message(item)] for item in ITEMS]
    split(model, ITEMS, latents) if model.supports_two_pass else full(model, ITEMS, latents)  # leaves nothing behind
    answers = model.generate(conversations, max_new_tokens=6)
    processor, network = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    options = ONE_VIEW.get(folder.name, {})
    plain = []
    for conversation in conversations:
        inputs = processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=options
        )
        tokens = network.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        plain.append(processor.tokenizer.decode(tokens, skip_special_tokens=True).strip())
    assert answers == plain
    assert len(set(answers)) > len(ITEMS) // 2, "answers should depend on what is asked"


@families(FAMILIES)
def test_scores_are_the_models_own_yes_against_its_no(folder, model):
    query, candidates = Item("a red cat"), [Item(image=WIDE), Item("two boats"), Item("but green", TALL)]
    scores = model.score(query, candidates, batch_size=2)
    processor, network = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    yes, no = (
        [processor.tokenizer(form, add_special_tokens=False)["input_ids"][0] for form in forms] for forms in (("yes", "Yes"), ("no", "No"))
    )
    assert not set(yes) & set(no)
    for candidate, score in zip(candidates, scores, strict=True):
        shown = model.message(candidate)["content"]
        asked = [{"type": "text", "text": "Query: "}, {"type": "text", "text": "a red cat"}, {"type": "text", "text": "\nCandidate: "}]
        asked += [*shown, {"type": "text", "text": "\nDoes the candidate match the query? Answer yes or no."}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": asked}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=ONE_VIEW.get(folder.name, {}),
        )
        with torch.no_grad():
            likely = network(**inputs).logits[0, -1].softmax(-1)
        assert score == pytest.approx((likely[yes].sum() / (likely[yes].sum() + likely[no].sum())).item(), abs=1e-4)
    assert max(scores) - min(scores) > 1e-3, "scores should depend on the candidate"


@families(FAMILIES)
def test_short_plain_texts_are_let_through_uncounted(model):
    """None of them has more tokens than are kept of any text, by the family's own tokenizer."""
    most, rng = model.preprocessing.max_text_tokens, random.Random(0)
    texts = ["".join(rng.choices(string.printable, k=most - 1)) for _ in range(50)] + [each * (most - 1) for each in "!7 \n\ta"]
    for text in texts:
        assert len(model.processor.tokenizer(text, add_special_tokens=False)["input_ids"]) <= most
        assert model.message(Item(f"a{text[1:]}"))["content"] == [{"type": "text", "text": f"a{text[1:]}"}]


@families(FAMILIES)
def test_user_text_is_never_read_as_control(folder, model, latents):
    case = FAMILIES[folder.name]
    control = {token for token in (case.pad, case.eos, case.bos, *case.control, *case.named.values()) if token}
    tokenizer = model.processor.tokenizer
    assert all(len(tokenizer.encode(token, add_special_tokens=False)) == 1 for token in control), "as text they would be control"
    words = sorted(control)
    for start in range(0, len(words), 8):  # few enough that nothing is cut
        spelled, plain = Item(" ".join(words[start : start + 8]), SQUARE), Item("x", SQUARE)
        ids, plain_ids = (model.prepare([item]).inputs["input_ids"][0].tolist() for item in (spelled, plain))
        for token in control:
            number = tokenizer.convert_tokens_to_ids(token)
            assert ids.count(number) == plain_ids.count(number), token
        text = tokenizer.decode(ids)
        assert all(f"{token[0]} {token[1:]}" in text for token in words[start : start + 8])
        assert torch.isfinite(full(model, [spelled], latents)).all()
