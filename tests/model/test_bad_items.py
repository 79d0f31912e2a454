"""Bad items are named and cost nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from drawn import drawn, png_header
from PIL import Image
from tolerance import FORWARD, ROUNDED, assert_close

from slq.adapters.files import Adapter
from slq.cache import KVCache
from slq.data import read_items
from slq.encoders.latent import LatentEncoder
from slq.errors import BadItemsError, InputError, SlqError
from slq.integrations.sentence_transformers import as_sentence_transformer
from slq.training import TrainConfig, train
from slq.types import Item, Pair


@pytest.fixture(scope="module")
def alone(encoder: LatentEncoder) -> Callable[[Item], np.ndarray]:
    """The vector an item gets in a batch of its own."""

    def embed(item: Item) -> np.ndarray:
        return encoder.encode([item], batch_size=1).vectors[0]

    return embed


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Item]:
    folder = tmp_path_factory.mktemp("good")
    drawn().save(folder / "file.png")
    return {"words": Item("a red cat"), "file": Item(image=folder / "file.png"), "open": Item("but blue", drawn(20, 50, seed=1))}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Item, str]]:
    """Every kind of bad item, with a word that its reason must hold."""
    folder = tmp_path_factory.mktemp("bad")
    drawn(200, 200).save(folder / "whole.png")
    (folder / "truncated.png").write_bytes((folder / "whole.png").read_bytes()[:2000])
    drawn(200, 200).save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:2000])
    (folder / "huge.png").write_bytes(png_header(30_000, 30_000))
    (folder / "large.png").write_bytes(png_header(8_000, 7_000))
    (folder / "text.png").write_text("I am no image, I only have the name of one.\n" * 50)
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    images = {
        "missing": ("missing.png", "does not exist"),
        "truncated png": ("truncated.png", "truncated"),
        "truncated jpg": ("truncated.jpg", "truncated"),
        "huge": ("huge.png", "pixels"),
        "large": ("large.png", "8000 x 7000 pixels"),
        "text": ("text.png", "not an image"),
        "empty": ("empty.png", "is empty"),
        "folder": ("folder.png", "folder"),
    }
    texts = {"no words": ("", "empty"), "white space": (" \n\t\u3000", "white space"), "half a character": ("a \ud83d b", "surrogate")}
    return {
        **{name: (Item(image=folder / file), reason) for name, (file, reason) in images.items()},
        **{name: (Item(text), reason) for name, (text, reason) in texts.items()},
        "words fine, image not": (Item("a red cat", folder / "missing.png"), "does not exist"),
        "image fine, words not": (Item(" ", folder / "whole.png"), "white space"),
        "nothing": (Item(), "neither"),
    }


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_bad_items_are_listed_and_the_others_embedded_as_ever(batch_size, encoder, good, bad, alone):
    names = [name for pair in zip(bad, [*good, *[""] * len(bad)], strict=False) for name in pair if name]  # good among bad
    items = [good[name] if name in good else bad[name][0] for name in names]
    counted: list[int] = []
    embedded = encoder.encode(items, names, batch_size, on_error="skip", progress=counted.append)
    assert sum(counted) == len(items)
    assert embedded.ids == tuple(name for name in names if name in good)
    for id_, vector in zip(embedded.ids, embedded.vectors, strict=True):
        assert_close(vector, alone(good[id_]), steps=FORWARD, why=id_)
    assert [failure.item for failure in embedded.failures] == [name for name in names if name in bad]
    for failure in embedded.failures:
        assert bad[failure.item][1] in failure.reason, failure


def test_without_skip_one_error_lists_them_all(encoder, good, bad):
    items = [*good.values(), *[item for item, _ in bad.values()]]
    with pytest.raises(BadItemsError) as error:
        encoder.encode(items, [*good, *bad], batch_size=3)
    assert [failure.item for failure in error.value.failures] == list(bad)
    assert f"{len(bad)} item(s) cannot be embedded" in str(error.value) and f"and {len(bad) - 5} more" in str(error.value)
    assert isinstance(error.value, ValueError) and isinstance(error.value, SlqError)


def test_places_stand_in_for_ids(encoder, good, bad):
    embedded = encoder.encode([good["words"], bad["missing"][0], good["file"]], on_error="skip")
    assert embedded.ids == ("0", "2") and [failure.item for failure in embedded.failures] == ["1"]


def test_nothing_but_bad_items(encoder, model, bad):
    embedded = encoder.encode([item for item, _ in bad.values()], list(bad), on_error="skip")
    assert embedded.ids == () and embedded.vectors.shape == (0, model.dim) and len(embedded.failures) == len(bad)


def test_no_items(encoder, model):
    assert encoder.encode([]).vectors.shape == (0, model.dim)


@pytest.mark.parametrize("ids", [["a", "a"], ["a"], ["a", "b", "c"]])
def test_ids_that_do_not_tell_items_apart_are_refused(ids, encoder):
    with pytest.raises(InputError, match="2 items need as many different ids"):
        encoder.encode([Item("one"), Item("two")], ids)


@pytest.mark.parametrize("ids", [["a", "b", "a"], ["a", "a", "b", "b"]])
def test_surplus_ids_do_not_hide_a_repetition(ids, encoder):
    with pytest.raises(InputError, match="different ids"):
        encoder.encode([Item("one"), Item("two")], ids)


@pytest.mark.parametrize("kind", ["missing", "folder", "truncated png", "text", "large", "no words"])
def test_bad_items_are_listed_with_kept_prefixes_too(kind, model, encoder, good, bad, alone):
    keeping = LatentEncoder(model, encoder.queries, KVCache(budget=2**28))
    embedded = keeping.encode([good["words"], bad[kind][0]], on_error="skip")
    assert [failure.item for failure in embedded.failures] == ["1"]
    assert_close(embedded.vectors[0], alone(good["words"]), steps=FORWARD)


@pytest.mark.parametrize("kind", ["truncated png", "missing", "folder", "no words"])
def test_a_bad_item_among_the_pairs_costs_only_its_row(kind, model, bad, tmp_path):
    pairs = [Pair(Item(f"the number {n}"), (Item(f"an image of {n}"),), source=f"pairs.csv line {n}") for n in range(6)]
    pairs.insert(3, Pair(bad[kind][0], (Item("what is shown"),), source="pairs.csv line 99"))
    options = TrainConfig(num_latents=2, batch_size=4, max_steps=1, validation_split=0)
    train(pairs, model, tmp_path / "run", options, show_progress=False)
    assert Adapter.load(tmp_path / "run").training["pairs"] == 6
    (skipped,) = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    assert "pairs.csv line 99" in skipped and bad[kind][1] in skipped


def test_encode_lists_every_bad_input(encoder, bad, good, alone):
    model = as_sentence_transformer(encoder)
    inputs = ["a red cat", bad["missing"][0].image, {"text": " "}, 3.5, {"words": "a cat"}]
    with pytest.raises(BadItemsError) as error:
        model[0].preprocess(inputs)
    assert len(error.value.failures) == 4 and all("a red cat" not in failure.item for failure in error.value.failures)
    assert "float" in str(error.value) and "dict" in str(error.value)
    assert_close(model.encode("a red cat"), alone(good["words"]), steps=FORWARD)


def test_encode_never_blames_a_good_input(encoder):
    model = as_sentence_transformer(encoder)
    with pytest.raises(BadItemsError) as error:
        model.encode(["", "words of a longer text"])
    assert "''" in str(error.value) and "longer text" not in str(error.value), "the blame falls on a good input"


@pytest.mark.slow
def test_a_hundred_files_of_which_ten_are_bad(encoder, bad, tmp_path):
    for number in range(100):
        Image.new("RGB", (4, 4), (2 * number, number, 60)).save(tmp_path / f"{number:04d}.png", compress_level=0)
    wanted = [f"{number:04d}.png" for number in range(7, 100, 10)]
    kinds = ["truncated png", "text", "empty", "large", "huge"]
    for name, kind in zip(wanted, kinds * 2, strict=True):
        shutil.copyfile(bad[kind][0].image, tmp_path / name)
    file = read_items(tmp_path)
    embedded = encoder.encode(list(file.items.values()), list(file.items), on_error="skip")
    assert [failure.item for failure in embedded.failures] == wanted
    assert embedded.ids == tuple(f"{number:04d}.png" for number in range(100) if f"{number:04d}.png" not in wanted)
    assert_close(np.linalg.norm(embedded.vectors, axis=1), 1, steps=ROUNDED)


@pytest.mark.parametrize("wrong", ["ignore", None, "x" * 10**6])
def test_on_error_is_one_of_two(wrong, encoder):
    for encode in (encoder.encode, as_sentence_transformer(encoder).encode):
        with pytest.raises(InputError, match="on_error must be 'raise' or 'skip'") as caught:
            encode(["a cat"], on_error=wrong)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("one", ["a cat", b"bytes", Item("a cat"), {"text": "a cat"}], ids=["text", "bytes", "item", "dict"])
def test_one_item_is_no_list_of_them(one, encoder):
    with pytest.raises(InputError, match="takes a list of items"):
        encoder.encode(one)


def test_plain_values_are_items_and_bad_ones_are_skipped(encoder, good, alone, tmp_path):
    stream = BytesIO()
    drawn().save(stream, "PNG")
    pixels = np.asarray(drawn())
    values = ["a red cat", 3.5, stream.getvalue(), {"image": pixels.tolist()}, {"bytes": stream.getvalue(), "path": None}, b"no image"]
    values += [{"image": [[1, 2], [3]]}, {"words": "x" * 10**6}, {"image": "https://example.org/a.png"}, pixels.copy(), {"text": 7}, None]
    model = as_sentence_transformer(encoder)
    for found in (encoder.encode(values, on_error="skip"), model.encode(values, on_error="skip")):
        assert found.ids == ("0", "2", "3", "4", "9") and found.vectors.shape == (5, encoder.model.dim)
        assert [failure.item for failure in found.failures] == ["1", "5", "6", "7", "8", "10", "11"]
        assert all(0 < len(failure.reason) < 400 for failure in found.failures)
        assert_close(found.vectors[0], alone(good["words"]), steps=FORWARD)
        for vector in found.vectors[1:]:
            assert_close(vector, alone(good["file"]), steps=FORWARD)
    with pytest.raises(BadItemsError) as caught:
        encoder.encode(values)
    assert len(caught.value.failures) == 7 and len(str(caught.value)) < 2000
    assert model.encode([3.5, None], on_error="skip").vectors.shape == (0, encoder.model.dim)
    assert model.encode("a red cat", on_error="skip").ids == ("0",)


def test_a_path_given_as_text_embeds_and_trains(model, encoder, good, alone, tmp_path):
    path = str(good["file"].image)
    assert_close(encoder.encode([Item(image=path)]).vectors[0], alone(good["file"]), steps=FORWARD)
    pairs = [Pair(Item(image=path), (Item("what is shown"),)), *[Pair(Item(f"number {n}"), (Item(f"image {n}"),)) for n in range(3)]]
    train(pairs, model, tmp_path / "run", TrainConfig(num_latents=2, batch_size=4, max_steps=1, validation_split=0), show_progress=False)
    assert Adapter.load(tmp_path / "run").training["pairs"] == 4
