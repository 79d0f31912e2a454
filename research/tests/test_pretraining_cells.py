"""What image tokens are told to show: the things that stand there, in the order in which the model sees them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from seeing import plain_scene, sampled, where
from tolerance import FORWARD, assert_close
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from research.pretraining.architecture import IMAGE_TOKENS, PATCH_SIZE, build_model, train_tokenizer
from research.pretraining.cells import CLASSES, SIDE, UNKNOWN, cell_labels, group_labels
from research.pretraining.objective import Readers
from slq.miniature.world.scenes import IMAGE_SIZE, SIGN, Group, Scene, placed_objects

CELL = IMAGE_SIZE // SIDE


@pytest.fixture(scope="module")
def model() -> InternVLForConditionalGeneration:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(train_tokenizer(["a red cat"])).eval()


def grids(scene: Scene) -> dict[str, list[list[str]]]:
    """The labels by name, row by row; "" where unknown."""
    labels = cell_labels(scene)
    assert labels.keys() == CLASSES.keys() == {"things", "colours", "words", "counts", "places"}
    named = {}
    for kind, classes in labels.items():
        assert classes.shape == (IMAGE_TOKENS,) and classes.dtype == torch.int64
        names = ["" if label == UNKNOWN else CLASSES[kind][label] for label in classes.tolist()]
        named[kind] = [names[start : start + SIDE] for start in range(0, IMAGE_TOKENS, SIDE)]
    return named


# Which class stands where


def test_cells_hold_the_class_of_what_is_placed_over_them():
    """Cell by cell and thing by thing: the middle of a cell lies in the heart of a thing, or the middle of a thing in the cell."""
    seen: dict[str, int] = {"sign": 0, "small": 0, "several": 0, "unknown": 0}
    for scene in sampled(150, seed=20):
        named, things = grids(scene), placed_objects(scene)
        for row in range(SIDE):
            for column in range(SIDE):
                over = {thing.group for thing in things if stands_over(scene, thing, row, column)}
                assert len(over) <= 1, "no cell is of two groups"
                group = scene.groups[over.pop()] if over else Group("", "")
                told = {kind: named[kind][row][column] for kind in ("things", "colours", "words")}
                assert told == {"things": group.concept, "colours": group.colour, "words": group.word}, (scene, row, column)
                seen["sign"] += group.concept == SIGN
                seen["small"] += group.small
                seen["several"] += group.count > 1
                seen["unknown"] += not group.concept
    assert min(seen.values()) > 50, seen


def stands_over(scene: Scene, thing, row: int, column: int) -> bool:
    if row * CELL <= thing.y < (row + 1) * CELL and column * CELL <= thing.x < (column + 1) * CELL:
        return True
    tall = 0.16 if scene.groups[thing.group].concept == SIGN else 0.42  # a sign's board is wider than high
    across, down = abs((column + 0.5) * CELL - thing.x), abs((row + 0.5) * CELL - thing.y)
    return across <= 0.42 * thing.size and down <= tall * thing.size


def test_groups_tell_their_number_and_their_place_among_others():
    cats, dog, sign = Group("cat", "red", 3), Group("dog", "blue"), Group(SIGN, "", word="exit")

    def told(scene: Scene) -> list[tuple[str, str]]:
        labels = [group_labels(scene, place) for place in range(len(scene.groups))]
        return [tuple(CLASSES[kind][of[kind]] if kind in of else "" for kind in ("counts", "places")) for of in labels]

    assert told(plain_scene(cats)) == [("three", "")]
    assert told(plain_scene(cats, dog)) == [("three", "on the left"), ("one", "on the right")]
    assert told(plain_scene(dog, sign, across=False)) == [("one", "at the top"), ("one", "at the bottom")]
    three = plain_scene(dog, Group("cat", "red"), Group("cake", "red"))
    assert [place for _, place in told(three)] == ["on the left", "in the middle", "on the right"]
    named = grids(plain_scene(cats, dog))
    for row in range(SIDE):
        for thing, count, place in zip(*(named[kind][row] for kind in ("things", "counts", "places")), strict=True):
            assert (thing, count, place) in {("", "", ""), ("cat", "three", "on the left"), ("dog", "one", "on the right")}


def test_cells_show_in_the_image_what_they_are_told_to():
    told = shown = turned = inside = painted = 0
    for scene in sampled(30, seed=22):
        scene = replace(scene, style="flat", background="")
        things = cell_labels(scene)["things"].view(SIDE, SIDE).numpy()
        for place, group in enumerate(scene.groups):
            if group.concept == SIGN:
                continue
            cells = where(scene, place).reshape(SIDE, CELL, SIDE, CELL).sum((1, 3))
            own = things == CLASSES["things"].index(group.concept)
            told += int(own.sum())
            shown += int((cells[own] > 8).sum())
            turned += int((cells[own.T] > 8).sum())
            inside += int(cells[own].sum())
            painted += int(cells.sum())
    assert shown / told > 0.9 and inside / painted > 0.75
    assert turned / told < 0.6, "rows and columns the wrong way round fit as well: this test could not fail"


# The order of the model's image tokens


def test_a_token_is_made_of_its_cells_pixels(model):
    """Light falls on one cell; before attention mixes them, only this cell's token changes."""
    dark = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    for token in random.Random(0).sample(range(IMAGE_TOKENS), 12):
        row, column = divmod(token, SIDE)
        lit = dark.clone()
        lit[..., row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 1
        change = (tokens_before_attention(model, lit) - tokens_before_attention(model, dark)).abs().amax(-1)
        assert change.nonzero().flatten().tolist() == [token]


def tokens_before_attention(model: InternVLForConditionalGeneration, image: Tensor) -> Tensor:
    with torch.no_grad():
        embedded = model.model.vision_tower.embeddings(image)
    patches = embedded[0] if isinstance(embedded, tuple) else embedded
    side = IMAGE_SIZE // PATCH_SIZE
    grid = patches[:, -(side**2) :].reshape(1, side, side, -1)  # the class token stands first
    return model.model.pixel_shuffle(grid, scale_factor=model.config.downsample_ratio).reshape(IMAGE_TOKENS, -1)


# The readers


def test_readers_lose_what_they_read_wrong_and_only_where_the_class_is_known():
    draw = torch.Generator().manual_seed(0)
    readers = Readers(16)
    assert {kind: head.out_features for kind, head in readers.heads.items()} == {kind: len(names) for kind, names in CLASSES.items()}
    tokens = torch.randn(2, IMAGE_TOKENS, 16, generator=draw)
    labels = [cell_labels(scene) for scene in (plain_scene(Group("cat", "red")), plain_scene(Group("dog", "blue", 2)))]
    stacked = {kind: torch.stack([one[kind] for one in labels]) for kind in CLASSES}
    assert stacked["words"].eq(UNKNOWN).all(), "a kind that nowhere stands costs nothing"
    expected = 0.0
    for kind in ("things", "colours", "counts"):
        losses = []
        for row, place in (stacked[kind] != UNKNOWN).nonzero().tolist():
            vector = tokens[row, place]
            normal = (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-5).sqrt()
            losses.append(-torch.log_softmax(readers.heads[kind](normal), -1)[stacked[kind][row, place]].item())
        expected += float(np.mean(losses))
    assert_close(readers(tokens, stacked).item(), expected, steps=FORWARD)
    moved = torch.where((stacked["things"] == UNKNOWN)[..., None], tokens + torch.randn(tokens.shape, generator=draw), tokens)
    assert_close(readers(moved, stacked).item(), expected, steps=FORWARD)
    assert readers(30 * tokens, stacked).item() == pytest.approx(expected, abs=1e-3), "long tokens count no more than short ones"
