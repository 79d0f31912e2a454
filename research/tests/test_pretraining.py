"""Pre-training: packed rows equal separate passes, prompts equal the chat template, and a stopped run resumes exactly."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from seeing import plain_scene
from tolerance import FORWARD, ROUNDED, assert_close
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration

from research.pretraining.architecture import IMAGE_TOKENS, build_model, build_processor, train_tokenizer
from research.pretraining.batches import IGNORED, PretrainingBatches, Row, collate
from research.pretraining.cells import CLASSES, UNKNOWN
from research.pretraining.objective import READING_WEIGHT, Objective
from research.pretraining.tasks import Task, corpus, image_tasks, word_task
from slq.miniature.world.concepts import all_facts, concepts
from slq.miniature.world.scenes import IMAGE_SIZE, Group, Scene, render, sample_scene
from slq.models.processors import InternVLStillProcessor

IMAGE_TASKS, WORD_TASKS = 4, 2
INPUTS = ("input_ids", "position_ids", "attention_mask", "pixel_values")


@pytest.fixture(scope="module")
def processor() -> InternVLStillProcessor:
    return build_processor(train_tokenizer(corpus(0, samples=2000)))


@pytest.fixture(scope="module")
def untrained(processor: InternVLStillProcessor) -> InternVLForConditionalGeneration:
    """Random, but with larger weights than a fresh model's, so that what a token sees shows in its logits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random_model = build_model(processor.tokenizer).eval()
        for parameter in random_model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(3)
    return random_model


@pytest.fixture(scope="module")
def batches(processor: InternVLStillProcessor) -> PretrainingBatches:
    return make_batches(processor)


def make_batches(processor: InternVLStillProcessor, seed: int = 0, rows: int = 2, easy_steps: int = 0) -> PretrainingBatches:
    return PretrainingBatches(processor, rows, 8, seed, IMAGE_TASKS, WORD_TASKS, easy_steps)


def tasks_of(seed: int) -> tuple[Scene, list[Task], list[Task]]:
    rng = random.Random(seed)
    scene = sample_scene(rng, 2, signs=0.3)
    return scene, image_tasks(scene, rng, IMAGE_TASKS), [word_task(rng, all_facts()) for _ in range(WORD_TASKS)]


class Still:
    """A generator of noise that makes none."""

    def uniform(self, low: float, high: float) -> float:
        return 1.0 if low > 0 else 0.0

    def normal(self, mean: float, deviation: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, mean + deviation)


def branches(row: Row) -> Iterator[tuple[slice, bool]]:
    """Where each branch of a row lies, and whether it sees the image."""
    for number in range(1, row.segment[-1] + 1):
        start = row.segment.index(number)
        stop = start + row.segment.count(number)
        yield slice(start, stop), row.sees_image[start]


# The packed row


@pytest.mark.slow
def test_a_packed_row_gives_what_separate_passes_give(processor, untrained, batches):
    rows = [batches._row(*tasks_of(seed)) for seed in (0, 1)]
    full = collate(rows, processor.tokenizer.pad_token_id)
    assert len(rows[0].ids) != len(rows[1].ids), "one of them should be padded"
    images = torch.stack([batches._pixels(render(sample_scene(random.Random(seed), 2)), Still()) for seed in (0, 1)])
    labels = full.pop("labels")
    with torch.no_grad():
        packed = untrained(**full, pixel_values=images).logits
        causal = untrained(**{**full, "attention_mask": None}, pixel_values=images).logits
    compared, blurred = 0, 0.0
    for number, row in enumerate(rows):
        trunk = row.ids[: row.segment.count(0)]
        for place, sees_image in branches(row):
            own = row.ids[place]
            ids = torch.tensor([trunk + own if sees_image else own])
            with torch.no_grad():
                alone = untrained(input_ids=ids, **({"pixel_values": images[number : number + 1]} if sees_image else {})).logits
            alone = alone[0, -len(own) :]
            wanted = labels[number, place] != IGNORED
            assert wanted.any()
            assert_close(packed[number, place][wanted], alone[wanted], steps=FORWARD)
            blurred = max(blurred, (alone[wanted] - causal[number, place][wanted]).abs().max().item())
            compared += 1
    assert compared == 2 * (IMAGE_TASKS + WORD_TASKS)
    assert blurred > 1e-2, "without the mask the logits are the same: this test could not fail"


def test_labels_stand_at_the_token_before_and_only_in_answers(processor, batches):
    scene, about, of_words = tasks_of(3)
    row = batches._row(scene, about, of_words)
    places = list(branches(row))
    assert [sees for _, sees in places] == [True] * IMAGE_TASKS + [False] * WORD_TASKS
    assert set(row.labels[: row.segment.count(0)]) == {IGNORED}
    for (place, sees_image), (_, answer, *_) in zip(places, about + of_words, strict=True):
        ids, labels = row.ids[place], row.labels[place]
        wanted = [index for index, label in enumerate(labels) if label != IGNORED]
        assert [labels[index] for index in wanted] == [ids[index + 1] for index in wanted]
        assert wanted == list(range(wanted[0], len(ids) - 1)), "from the prompt's last token to the one before the end"
        assert ids[wanted[0]] == processor.tokenizer.convert_tokens_to_ids("<|assistant|>")
        assert processor.tokenizer.decode([labels[index] for index in wanted[:-1]]).split() == spaced(processor, answer)
        assert labels[wanted[-1]] == processor.tokenizer.eos_token_id
        start = row.segment.count(0) if sees_image else 0
        assert row.positions[place] == list(range(start, start + len(ids)))


def spaced(processor: InternVLStillProcessor, text: str) -> list[str]:
    """Words as they come back from the tokenizer, which parts digits."""
    return processor.tokenizer.decode(processor.tokenizer(text, add_special_tokens=False)["input_ids"]).split()


def test_branches_see_the_image_as_wished_and_never_each_other():
    row = Row()
    row.add([1, 1], [], 0, False)
    row.add([2], [3], 2, True)
    row.add([4], [5], 0, False)
    mask = collate([row], pad=0)["attention_mask"][0, 0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


# Batches


def test_a_batch_is_the_same_whenever_it_is_asked_for(processor, batches):
    again = make_batches(processor)
    assert len(again) == 8
    again[5]
    first, second = batches[2], again[2]
    assert first.keys() == second.keys() == {*INPUTS, "labels", *(f"{where}_{kind}" for where in ("cell", "told") for kind in CLASSES)}
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["pixel_values"], batches[3]["pixel_values"])
    assert not torch.equal(first["pixel_values"], make_batches(processor, seed=1)[2]["pixel_values"])


def test_cells_of_a_batch_are_those_of_its_images(processor, batches):
    """What the cells name is what the answer about the bare image names."""
    for step in range(8):
        batch = batches[step]
        for row in range(2):
            labels, sees = batch["labels"][row], batch["attention_mask"][row, 0]
            start = int((batch["input_ids"][row] == processor.tokenizer.convert_tokens_to_ids("<|assistant|>")).nonzero()[0])
            stop = next(place for place in range(start, len(labels)) if labels[place] == processor.tokenizer.eos_token_id)
            assert sees[stop, start], "one branch"
            answer = processor.tokenizer.decode(labels[start:stop])
            things = {CLASSES["things"][label] for label in set(batch["cell_things"][row].tolist()) - {UNKNOWN}}
            for name in things:
                assert name in answer or (name in concepts() and concepts()[name].plural in answer), (name, answer)


def test_pixels_are_the_processors_own_but_for_the_noise(processor, batches):
    image = render(sample_scene(random.Random(4), 2))
    theirs = processor.image_processor(image, return_tensors="pt")["pixel_values"]
    assert theirs.shape == (1, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert_close(batches._pixels(image, Still()), theirs[0], steps=ROUNDED)
    noisy = batches._pixels(image, np.random.default_rng(0))
    difference = (noisy - theirs[0]).abs()
    assert 0.01 < difference.mean() < 0.6


# The prompt


@pytest.mark.parametrize("question", ["", "how many bunches of grapes are there?"])
def test_prompts_beside_an_image_are_the_chat_template(processor, batches, question):
    image = render(sample_scene(random.Random(4), 1))
    row = batches._row(sample_scene(random.Random(4), 1), [Task(question, "two red cats")], [])
    content = [{"type": "image", "image": image}] + ([{"type": "text", "text": question}] if question else [])
    turns = [{"role": "user", "content": content}]
    answered = [*turns, {"role": "assistant", "content": [{"type": "text", "text": "two red cats"}]}]
    rendered = processor.apply_chat_template(answered, tokenize=True, return_dict=True)["input_ids"][0]
    assert row.ids == list(rendered)
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"][0]
    first_label = next(index for index, label in enumerate(row.labels) if label != IGNORED)
    assert row.ids[: first_label + 1] == list(prompt)


@pytest.mark.parametrize("text", ["the animal with (2+7) lives"])
@pytest.mark.parametrize("as_parts", [True, False], ids=["parts", "string"])
def test_prompts_of_words_are_the_chat_template(processor, batches, text, as_parts):
    row = batches._row(sample_scene(random.Random(4), 1), [], [Task(text, "cat")])
    own = next(place for place, _ in branches(row))
    turns = [{"role": "user", "content": [{"type": "text", "text": text}] if as_parts else text}]
    answered = [*turns, {"role": "assistant", "content": [{"type": "text", "text": "cat"}] if as_parts else "cat"}]
    rendered = processor.apply_chat_template(answered, tokenize=False)
    assert row.ids[own] == processor.tokenizer(rendered, add_special_tokens=False)["input_ids"]
    if as_parts:
        ids = processor.apply_chat_template(answered, tokenize=True, return_dict=True)["input_ids"][0]
        assert row.ids[own] == list(ids)


def with_labels_of(labels: Tensor) -> list[int]:
    return (labels[0] != IGNORED).nonzero().flatten().tolist()


def test_tokens_that_end_the_mention_of_a_thing_are_labelled_with_it_and_with_what_is_shown_of_it(processor, batches):
    told = "the animal with (2+7) lives"
    of_words = [Task(f"what is {told}?", "a cat", told, "cat"), Task("two small pairs of glasses in the snow", "glasses")]
    scene = plain_scene(Group("ice cream", "red"), Group("hat", "blue", 2))
    row = batches._row(scene, [Task("is the ice cream left of the hats?", "yes"), Task("is there a cat?", "no")], of_words)
    found = {
        place: {kind: CLASSES[kind][labels[place]] for kind, labels in row.told.items() if place in labels} for place in row.told["things"]
    }
    endings = ("ice cream", "hats", "cat", "lives", "glasses")
    texts = [processor.tokenizer.decode(row.ids[: place + 1]) for place in found]
    assert all(text.replace(" ", "").endswith(ending.replace(" ", "")) for text, ending in zip(texts, endings, strict=True))
    assert list(found.values()) == [
        {"things": "ice cream", "colours": "red", "counts": "one", "places": "on the left"},
        {"things": "hat", "colours": "blue", "counts": "two", "places": "on the right"},
        {"things": "cat", "counts": "no"},  # asked for beside the image, and not in it
        {"things": "cat"},  # words alone: nothing is shown
        {"things": "glasses"},
    ]
    assert {place for places in row.told.values() for place in places} == set(found)
    batch = collate([row], pad=0)
    assert {place: CLASSES["counts"][batch["told_counts"][0, place]] for place in with_labels_of(batch["told_counts"])} == {
        place: classes["counts"] for place, classes in found.items() if "counts" in classes
    }


# Optimising


def with_labels(labels: Tensor) -> list[tuple[tuple[int, int], Tensor]]:
    return [((row, place), labels[row, place]) for row, place in (labels != IGNORED).nonzero().tolist()]


def mean_loss(lines: list[tuple[Tensor, Tensor]]) -> float:
    """Mean cross-entropy of logits, each beside its label, one after the other."""
    return sum(-torch.log_softmax(line, -1)[label].item() for line, label in lines) / max(1, len(lines))


def test_the_objective_is_the_loss_of_the_answers_and_a_share_of_that_of_the_readers(untrained, batches):
    objective, batch = Objective(untrained), batches[0]
    kept = dict(batch)
    with torch.no_grad():
        loss, measured = objective(batch)
        output = untrained(**{name: batch[name] for name in INPUTS}, output_hidden_states=True)
        images = untrained.get_image_features(batch["pixel_values"]).pooler_output
        cells = objective.cells(images, {kind: batch[f"cell_{kind}"] for kind in CLASSES})
    assert batch.keys() == kept.keys(), "the batch given was changed"
    chosen = [(output.logits[row, place], batch["labels"][row, place]) for row, place in (batch["labels"] != IGNORED).nonzero().tolist()]
    answers = mean_loss(chosen)
    states = output.hidden_states[2]
    pictured = (batch["input_ids"] == untrained.config.image_token_id).nonzero().tolist()
    halfway = 0.0
    for kind, reader in objective.halfway.heads.items():
        read = reader(nn.functional.layer_norm(states, states.shape[-1:])).detach()
        told = [(read[row, place], label) for (row, place), label in with_labels(batch[f"told_{kind}"])]
        of_cells = dict(with_labels(batch[f"cell_{kind}"]))
        shown = [
            (read[row, place], of_cells[row, cell % IMAGE_TOKENS])
            for cell, (row, place) in enumerate(pictured)
            if (row, cell % IMAGE_TOKENS) in of_cells
        ]
        assert kind in ("words", "places") or (len(told) > 2 and len(shown) > 5)
        halfway += mean_loss(told) + mean_loss(shown)
    assert measured.keys() == {"loss", "token_accuracy", "cell_loss", "halfway_loss"}
    assert_close(measured["halfway_loss"].item(), halfway, steps=FORWARD)
    assert images.shape[:2] == (2, IMAGE_TOKENS)
    assert_close(measured["loss"].item(), answers, steps=FORWARD)
    assert_close(measured["cell_loss"].item(), cells.item(), steps=FORWARD)
    assert cells > 1
    assert_close(loss.item(), answers + READING_WEIGHT * (cells.item() + halfway), steps=FORWARD)
    assert READING_WEIGHT > 0
    right = sum(bool(line.argmax() == label) for line, label in chosen) / len(chosen)
    assert_close(measured["token_accuracy"].item(), right, steps=ROUNDED)
