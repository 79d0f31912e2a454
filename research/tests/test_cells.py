"""What image tokens are told to show: the things that stand there, in the order in which the model sees them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from seeing import pixels, plain_scene, sampled, where
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from research.pretraining.architecture import IMAGE_TOKENS, PATCH_SIZE, build_model, train_tokenizer
from research.pretraining.batches import IGNORED
from research.pretraining.cells import CLASSES, SIDE, UNKNOWN, cell_labels, group_labels
from research.pretraining.objective import Readers
from slq.miniature.world.concepts import concepts
from slq.miniature.world.lettering import WORDS
from slq.miniature.world.scenes import IMAGE_SIZE, SIGN, Group, Scene, placed_objects
from slq.miniature.world.styles import COLOURS

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


def test_there_is_a_class_for_everything_that_can_stand_somewhere():
    wanted = {"things": [*concepts(), SIGN], "colours": list(COLOURS), "words": list(WORDS)}
    assert {kind: names for kind, names in CLASSES.items() if kind in wanted} == wanted
    assert CLASSES["counts"] == ["no", "one", "two", "three", "four"]
    assert set(CLASSES["places"]) == {"on the left", "on the right", "at the top", "at the bottom", "in the middle"}
    assert all(len(names) == len(set(names)) for names in CLASSES.values())
    assert SIDE**2 == IMAGE_TOKENS and UNKNOWN == IGNORED


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


def test_every_thing_has_a_cell_however_small_it_is():
    alone = set()
    for scene in sampled(200, seed=21):
        things = grids(scene)["things"]
        for thing in placed_objects(scene):
            assert things[int(thing.y / CELL)][int(thing.x / CELL)] == scene.groups[thing.group].concept
        for group in scene.groups:
            if group.small and sum(row.count(group.concept) for row in things) == 1:
                alone.add(group.concept)
    assert len(alone) > 3, "no thing was so small that it covers no cell's middle"


def test_signs_tell_their_word_and_no_colour_and_things_their_colour_and_no_word():
    sign, cat = Group(SIGN, "", word="exit"), Group("cat", "red")
    named = grids(plain_scene(sign, cat, across=False))
    assert {name for row in named["words"][: SIDE // 2] for name in row} == {"", "exit"}
    assert {name for row in named["colours"][SIDE // 2 :] for name in row} == {"", "red"}
    for row in range(SIDE):
        for thing, colour, word in zip(*(named[kind][row] for kind in ("things", "colours", "words")), strict=True):
            assert (thing, colour, word) in {("", "", ""), (SIGN, "", "exit"), ("cat", "red", "")}
    assert cell_labels(plain_scene(cat))["words"].eq(UNKNOWN).all()
    assert cell_labels(plain_scene(sign))["colours"].eq(UNKNOWN).all()


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


def test_cells_of_a_sign_lie_on_its_board():
    for seed in range(8):
        scene = replace(plain_scene(Group(SIGN, "", word="school"), seed=seed), background="at night")
        own = cell_labels(scene)["things"].view(SIDE, SIDE).numpy() != UNKNOWN
        board = (pixels(scene).min(-1) > 230).reshape(SIDE, CELL, SIDE, CELL).mean((1, 3))
        assert own.sum() >= 8
        assert board[own].min() > 0.3
        assert board[[0, -1]].max() < 0.05 and not own[[0, -1]].any()


# The order of the model's image tokens


def test_pixel_shuffle_keeps_rows_and_columns(model):
    side = 2 * SIDE
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    grid = torch.stack([rows, columns], -1)[None].float()
    tokens = model.model.pixel_shuffle(grid, scale_factor=model.config.downsample_ratio).reshape(IMAGE_TOKENS, 4, 2)
    for token, patches in enumerate(tokens.long().tolist()):
        row, column = divmod(token, SIDE)
        wanted = {(2 * row + down, 2 * column + right) for down in (0, 1) for right in (0, 1)}
        assert {tuple(patch) for patch in patches} == wanted


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
    assert readers(tokens, stacked).item() == pytest.approx(expected, abs=1e-4)
    moved = torch.where((stacked["things"] == UNKNOWN)[..., None], tokens + torch.randn(tokens.shape, generator=draw), tokens)
    assert readers(moved, stacked).item() == pytest.approx(expected, abs=1e-4)
    assert readers(30 * tokens, stacked).item() == pytest.approx(expected, abs=1e-3), "long tokens count no more than short ones"
