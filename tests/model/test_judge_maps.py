"""Where a similarity comes from: maps that add up, point at what is there, and are found out where they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from slq.encoders import LastTokenEncoder
from slq.encoders.latent import LatentEncoder
from slq.errors import InputError
from slq.judge import Grid, deletion_test, draw, explain, grid_of
from slq.judge.explaining import by_gradients
from slq.judge.grid import hidden
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import Group, Scene, placed_objects, render
from slq.types import Item

SCENE = Scene((Group("cat", "red"), Group("sailboat", "blue")), across=True, background="", style="flat", seed=3)
ITEM, QUERY = Item(image=render(SCENE)), Item(caption(SCENE))


def embedded(encoder: LatentEncoder, item: Item) -> torch.Tensor:
    with torch.no_grad():
        return encoder.encode_prepared(encoder.model.prepare([item], encoder.generation_prompt))[0]


def test_gradients_add_up_to_what_the_image_gives_over_a_uniform_one(encoder):
    """The sum over all cells is the similarity less that of features that are all alike."""
    target = embedded(encoder, QUERY)
    prepared = encoder.model.prepare([ITEM], encoder.generation_prompt)
    (features,) = encoder.model.features(prepared)
    uniform = replace(features, pooled=features.pooled.mean(dim=0, keepdim=True).expand_as(features.pooled))
    with torch.no_grad():
        states = encoder.model.forward_reference(prepared, encoder.queries.of(torch.tensor([True])), images=[uniform])
    expected = target @ embedded(encoder, ITEM) - target @ encoder.pooling(states)[0]
    cells = by_gradients(encoder, ITEM, target, grid_of(encoder.model, ITEM), steps=64)
    assert cells.sum() == pytest.approx(expected.item(), abs=0.01) and abs(expected) > 0.05


def test_an_image_and_both_texts_are_explained(encoder):
    found = explain(encoder, replace(ITEM, text="but green"), QUERY)
    assert found.similarity == pytest.approx(
        (embedded(encoder, replace(ITEM, text="but green")) @ embedded(encoder, QUERY)).item(), abs=1e-5
    )
    assert found.grid is not None and len(found.grid) == len(found.cells) == 36 and not found.note
    assert [word for word, _ in found.query_words] == QUERY.text.split() and [word for word, _ in found.item_words] == ["but", "green"]
    without = embedded(encoder, replace(ITEM, text="green"))
    assert found.item_words[0][1] == pytest.approx(found.similarity - (without @ embedded(encoder, QUERY)).item(), abs=1e-5)


def test_blocks_point_at_the_only_thing_that_is_there(encoder):
    """A small cat alone: what hiding takes is taken where the cat is."""
    scene = Scene((Group("cat", "red", small=True),), across=True, background="", style="flat", seed=1)
    (cat,) = placed_objects(scene)
    found = explain(encoder, Item(image=render(scene)), Item("a small red cat"), "blocks")
    left, top, right, bottom = found.grid.cell(int(np.abs(found.cells).argmax()))
    assert abs((left + right) / 2 - cat.x) < cat.size and abs((top + bottom) / 2 - cat.y) < cat.size


def test_texts_have_words_and_no_map(encoder):
    found = explain(encoder, Item("cat"), QUERY)
    assert found.grid is None and found.cells.size == 0 and found.note == "" and found.item_words == (("cat", found.similarity),)


def test_what_has_no_map_says_why(encoder, model, monkeypatch):
    found = explain(LastTokenEncoder(model), ITEM, QUERY)
    assert found.grid is None and "`blocks` needs none" in found.note and found.query_words
    assert explain(LastTokenEncoder(model), ITEM, Item("cat"), "blocks").cells.size == 36
    monkeypatch.setattr(model, "verified", False)
    assert "no grid" in explain(encoder, ITEM, Item("cat")).note
    with pytest.raises(InputError, match="nothing to test"):
        deletion_test(encoder, [(ITEM, QUERY)])
    with pytest.raises(InputError, match="gradients, blocks"):
        explain(encoder, ITEM, QUERY, "magic")


@pytest.mark.slow
def test_the_deletion_test_tells_a_map_from_chance(encoder):
    """Maps of the things themselves are faithful; numbers at random are not, and maps turned upside down still less."""
    pairs = []
    for seed, (name, colour) in enumerate(
        [("cat", "red"), ("sailboat", "blue"), ("apple", "green"), ("dog", "brown"), ("fish", "pink"), ("cow", "red")]
    ):
        scene = Scene((Group(name, colour, small=True),), across=True, background="", style="flat", seed=seed)
        pairs.append((Item(image=render(scene)), Item(caption(scene))))

    def drawn(_encoder, item, _target, grid):
        ink = np.asarray(ImageChops.invert(item.image.convert("L")).resize((grid.columns, grid.rows), Image.Resampling.BOX), dtype=float)
        return ink.ravel()

    at_random = np.random.default_rng(0)
    true = deletion_test(encoder, pairs, drawn)
    chance = deletion_test(encoder, pairs, lambda _encoder, _item, _target, grid: at_random.normal(size=len(grid)))
    inverted = deletion_test(encoder, pairs, lambda *given: -drawn(*given))
    assert true.faithful and true.num_pairs == 6 and true.difference == pytest.approx(true.hottest - true.random)
    assert not chance.faithful and not inverted.faithful and inverted.difference < 0


# --- grids and pictures -----------------------------------------------------------------------------------------------------


def test_cells_of_a_padded_image_lie_where_it_is(model):
    wide = Image.new("RGB", (120, 60), "white")
    grid = grid_of(model, Item(image=wide))
    assert (grid.rows, grid.columns, grid.box) == (6, 6, (0, -30, 120, 90))
    inside = grid.inside(*wide.size)
    assert len(inside) == 4 * 6 and grid.cell(inside[0]) == (0, -10, 20, 10) and grid.cell(35) == (100, 70, 120, 90)
    with pytest.raises(InputError, match="no image"):
        grid_of(model, Item("a cat"))


def test_hidden_cells_have_the_mean_colour_and_nothing_else_changes():
    image = Image.linear_gradient("L").resize((60, 60)).convert("RGB")
    grid = Grid(3, 3, (0, 0, 60, 60))
    covered = hidden(image, grid, [4])
    assert covered.getpixel((30, 30)) == tuple(np.asarray(image).reshape(-1, 3).mean(axis=0).round().astype(int))
    assert ImageChops.difference(image, covered).getbbox()[:2] >= (20, 20) and image.getpixel((30, 30)) != covered.getpixel((30, 30))


def test_a_map_is_drawn_red_where_it_is_hot():
    image, grid = Image.new("RGB", (40, 20), (100, 100, 100)), Grid(1, 2, (0, 0, 40, 20))
    drawn = draw(image, grid, np.array([1.0, -0.5]))
    hot, cold = drawn.getpixel((5, 5)), drawn.getpixel((35, 5))
    assert hot[0] > 150 > hot[2] and cold[2] > 130 > cold[0]
    assert draw(image, grid, np.zeros(2)).tobytes() == image.tobytes()
