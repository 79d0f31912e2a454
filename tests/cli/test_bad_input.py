"""Whatever is handed in: bad items are named and cost nothing else, odd ones embed like any other, and a full disk loses nothing."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tolerance import FORWARD, ROUNDED, assert_close

from slq.adapters.files import Adapter
from slq.adapters.latents import LatentQueries
from slq.cache import KVCache
from slq.data import read_beir, read_items, read_pairs
from slq.encoders.latent import LatentEncoder
from slq.errors import BadItemsError, DataError, InputError, OutputError, OutputExistsError, SlqError
from slq.evaluation import as_json, bidirectional_sets, evaluate
from slq.index import load_embeddings, save_embeddings
from slq.integrations.sentence_transformers import as_sentence_transformer
from slq.models import FrozenModel, load_model
from slq.runtime import new_folder
from slq.training import TrainConfig, train
from slq.types import Embeddings, Item, Pair

SAME = 1e-5


@pytest.fixture(scope="session")
def miniature() -> FrozenModel:
    return load_model(device="cpu")


@pytest.fixture(scope="session")
def encoder(miniature: FrozenModel) -> LatentEncoder:
    return LatentEncoder(miniature, LatentQueries.create(4, miniature.dim, generator=torch.Generator().manual_seed(11)))


@pytest.fixture(scope="session")
def alone(encoder: LatentEncoder) -> Callable[[Item], np.ndarray]:
    """The vector an item gets in a batch of its own."""

    def embed(item: Item) -> np.ndarray:
        return encoder.encode([item], batch_size=1).vectors[0]

    return embed


def drawn(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """An image no two parts of which are alike."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).resize((width, height))


def png_header(width: int, height: int) -> bytes:
    """A PNG that is nothing but the claim of a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b""))


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Item]:
    folder = tmp_path_factory.mktemp("good")
    drawn().save(folder / "file.png")
    return {"words": Item("a red cat"), "file": Item(image=folder / "file.png"), "open": Item("but blue", drawn(20, 50, seed=1))}


@pytest.fixture(scope="session")
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


# --- bad items --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_bad_items_are_listed_and_the_others_embedded_as_ever(batch_size, encoder, good, bad, alone):
    names = [name for pair in zip(bad, [*good, *[""] * len(bad)], strict=False) for name in pair if name]  # good among bad
    items = [good[name] if name in good else bad[name][0] for name in names]
    counted: list[int] = []
    embedded = encoder.encode(items, names, batch_size, skip_bad=True, progress=counted.append)
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
    embedded = encoder.encode([good["words"], bad["missing"][0], good["file"]], skip_bad=True)
    assert embedded.ids == ("0", "2") and [failure.item for failure in embedded.failures] == ["1"]


def test_nothing_but_bad_items(encoder, miniature, bad):
    embedded = encoder.encode([item for item, _ in bad.values()], list(bad), skip_bad=True)
    assert embedded.ids == () and embedded.vectors.shape == (0, miniature.dim) and len(embedded.failures) == len(bad)


def test_no_items(encoder, miniature):
    assert encoder.encode([]).vectors.shape == (0, miniature.dim)


@pytest.mark.parametrize("ids", [["a", "a"], ["a"], ["a", "b", "c"]])
def test_ids_that_do_not_tell_items_apart_are_refused(ids, encoder):
    with pytest.raises(InputError, match="2 items need as many different ids"):
        encoder.encode([Item("one"), Item("two")], ids)


@pytest.mark.parametrize("ids", [["a", "b", "a"], ["a", "a", "b", "b"]])
def test_surplus_ids_do_not_hide_a_repetition(ids, encoder):
    with pytest.raises(InputError, match="different ids"):
        encoder.encode([Item("one"), Item("two")], ids)


@pytest.mark.parametrize("kind", ["missing", "folder", "truncated png", "text", "large", "no words"])
def test_bad_items_are_listed_with_kept_prefixes_too(kind, miniature, encoder, good, bad, alone):
    keeping = LatentEncoder(miniature, encoder.queries, KVCache(budget=2**28))
    embedded = keeping.encode([good["words"], bad[kind][0]], skip_bad=True)
    assert [failure.item for failure in embedded.failures] == ["1"]
    assert_close(embedded.vectors[0], alone(good["words"]), steps=FORWARD)


@pytest.mark.parametrize("kind", ["truncated png", "missing", "folder", "no words"])
def test_a_bad_item_among_the_pairs_costs_only_its_row(kind, miniature, bad, tmp_path):
    pairs = [Pair(Item(f"the number {n}"), (Item(f"an image of {n}"),), source=f"pairs.csv line {n}") for n in range(6)]
    pairs.insert(3, Pair(bad[kind][0], (Item("what is shown"),), source="pairs.csv line 99"))
    options = TrainConfig(num_latents=2, batch_size=4, max_steps=1, validation_split=0)
    train(pairs, miniature, tmp_path / "run", options, show_progress=False)
    assert Adapter.load(tmp_path / "run").training["pairs"] == 6
    (left_out,) = (tmp_path / "run" / "left_out.jsonl").read_text().splitlines()
    assert "pairs.csv line 99" in left_out and bad[kind][1] in left_out


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
def test_a_thousand_files_of_which_ten_are_bad(encoder, bad, tmp_path):
    for number in range(1000):
        Image.new("RGB", (4, 4), (number % 256, number // 4, 60)).save(tmp_path / f"{number:04d}.png", compress_level=0)
    wanted = [f"{number:04d}.png" for number in range(7, 1000, 100)]
    kinds = ["truncated png", "text", "empty", "large", "huge"]
    for name, kind in zip(wanted, kinds * 2, strict=True):
        shutil.copyfile(bad[kind][0].image, tmp_path / name)
    file = read_items(tmp_path)
    embedded = encoder.encode(list(file.items.values()), list(file.items), skip_bad=True)
    assert [failure.item for failure in embedded.failures] == wanted
    assert embedded.ids == tuple(f"{number:04d}.png" for number in range(1000) if f"{number:04d}.png" not in wanted)
    assert_close(np.linalg.norm(embedded.vectors, axis=1), 1, steps=ROUNDED)


# --- odd but good -----------------------------------------------------------------------------------------------------------


def odd_images(folder: Path) -> dict[str, tuple[Path, Image.Image]]:
    """Files of unusual kinds, each with the plain image it shows."""
    folder.mkdir()
    shown: dict[str, tuple[Path, Image.Image]] = {}
    plain = drawn()

    first, second = drawn(seed=2).quantize(64), drawn(seed=3).quantize(64)
    first.save(folder / "animated.gif", save_all=True, append_images=[second])
    shown["animated gif"] = (folder / "animated.gif", first.convert("RGB"))

    cmyk = plain.convert("CMYK")
    cmyk.save(folder / "cmyk.jpg", quality=100)
    with Image.open(folder / "cmyk.jpg") as stored:
        shown["cmyk jpeg"] = (folder / "cmyk.jpg", stored.convert("RGB"))

    grey = np.random.default_rng(4).integers(0, 256, (30, 40), dtype=np.uint8)
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    shown["16-bit png"] = (folder / "deep.png", Image.fromarray(grey).convert("RGB"))

    palette = Image.new("P", (40, 30))
    palette.putpalette([255, 0, 0, 0, 0, 255, 0, 200, 0])
    palette.paste(1, (0, 0, 20, 30))
    palette.save(folder / "palette.png", transparency=0)
    flat = Image.new("RGB", (40, 30), "white")
    flat.paste((0, 0, 255), (0, 0, 20, 30))
    shown["transparent palette"] = (folder / "palette.png", flat)

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter before it is shown
    plain.save(folder / "turned.png", exif=exif)
    shown["turned by exif"] = (folder / "turned.png", plain.transpose(Image.Transpose.ROTATE_270))

    for width, height in ((1, 1), (2000, 3), (3, 2000)):
        odd = drawn(width, height, seed=5)
        odd.save(folder / f"{width}.png")
        shown[f"{width} x {height}"] = (folder / f"{width}.png", odd)
    return shown


def test_odd_images_embed_as_what_they_show(encoder, alone, tmp_path):
    odd = odd_images(tmp_path / "odd")
    embedded = encoder.encode([Item(image=file) for file, _ in odd.values()], list(odd))
    assert embedded.failures == () and np.isfinite(embedded.vectors).all()
    for name, vector in zip(embedded.ids, embedded.vectors, strict=True):
        assert_close(vector, alone(Item(image=odd[name][1])), steps=FORWARD, why=name)
    assert len({vector.round(3).tobytes() for vector in embedded.vectors}) == len(odd), "two different images got one vector"


def test_exif_changes_the_embedding_by_turning_the_image(alone, tmp_path):
    """Else the comparison above would hold for an encoder that is blind to which way is up."""
    file, upright = odd_images(tmp_path / "odd")["turned by exif"]
    as_stored = upright.transpose(Image.Transpose.ROTATE_90)
    assert np.abs(alone(Item(image=file)) - alone(Item(image=as_stored))).max() > 100 * SAME


ODD_TEXTS = {
    "short": "cat",
    "long": "a red cat sits on a mat beside the house " * 2440,  # 100,040 characters
    "long without a space": "a" * 100_000,
    "arabic": "قطة حمراء تجلس على السجادة",
    "chinese": "一只红色的猫坐在垫子上",
    "emoji": "🐈‍⬛ 👩‍👩‍👧‍👦 🏳️‍🌈",
    "combining": "n\u0303\u0323" * 50,
    "invisible": "\u200b\u200b",
    "control characters": "a\x00b\x1b[31m\r\n",
    "control tokens": "<image> <|end|> <|assistant|>",
    "template": "{{ messages }} {% for x in y %} </s>",
    "one letter": "x",
}


def test_odd_texts_embed_alike_in_a_batch_and_alone(encoder, alone):
    embedded = encoder.encode([Item(text) for text in ODD_TEXTS.values()], list(ODD_TEXTS))
    assert embedded.ids == tuple(ODD_TEXTS) and np.isfinite(embedded.vectors).all()
    for name, vector in zip(embedded.ids, embedded.vectors, strict=True):
        assert_close(vector, alone(Item(ODD_TEXTS[name])), steps=FORWARD, why=name)
    assert len({vector.round(4).tobytes() for vector in embedded.vectors}) == len(ODD_TEXTS), "two different texts got one vector"


def test_a_long_text_says_nothing_about_indexing_errors(miniature, caplog, capfd):
    miniature.processor.tokenizer.deprecation_warnings.clear()  # transformers says it once
    miniature.message(Item("a" * 100_000))
    said = caplog.text + capfd.readouterr().err
    assert "indexing errors" not in said


def test_only_the_first_tokens_of_a_text_count(miniature, alone):
    tokenizer = miniature.processor.tokenizer
    text = "a red cat sits on a mat " * 100
    shared = text[: tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][127][1]]
    assert len(tokenizer(shared, add_special_tokens=False)["input_ids"]) == 128
    one, other = alone(Item(shared + " and a blue dog")), alone(Item(shared + " by the sea" * 30))
    assert np.array_equal(one, other) and np.array_equal(one, alone(Item(shared)))
    assert np.abs(one - alone(Item("a blue dog " + text))).max() > 100 * SAME


@pytest.mark.parametrize(
    "text", ["<image>", "<image>" * 300, "<img><image></img>", "<<image>image>", "<|end|>\n<|assistant|>", "<im\x00age>"]
)
def test_words_never_pass_for_control_tokens(text, miniature):
    tokenizer = miniature.processor.tokenizer
    added = torch.tensor([number for token, number in tokenizer.get_added_vocab().items() if len(token) > 1])
    image = drawn()

    def control_tokens(item: Item) -> list[int]:
        tokens = miniature.prepare([item]).inputs["input_ids"][0]
        return tokens[torch.isin(tokens, added)].tolist()

    for opened in (None, image):
        assert control_tokens(Item(text, opened)) == control_tokens(Item("a red cat", opened)), "the words were read as control tokens"
    image_token = tokenizer.convert_tokens_to_ids(miniature.processor.image_token)
    assert image_token in control_tokens(Item(text, image)) and image_token not in control_tokens(Item(text))


# --- evaluation -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A BEIR folder of three images; each of two questions has one answer."""
    folder = tmp_path / "questions"
    (folder / "qrels").mkdir(parents=True)
    corpus = []
    for number in range(3):
        drawn(seed=number).save(folder / f"{number}.png")
        corpus.append({"_id": str(number), "text": "", "image": f"{number}.png"})
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (folder / "queries.jsonl").write_text('{"_id": "q0", "text": "a red cat"}\n{"_id": "q1", "text": "a blue dog"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\t0\t1\nq1\t1\t1\n")
    return folder


def test_whole_sets_find_everything_in_a_corpus_of_three(encoder, questions):
    (result,) = evaluate(encoder, [read_beir(questions)])
    assert result.metrics["hit@5"] == 1 and result.failures == () and all(len(query.top) == 3 for query in result.queries)


DAMAGED = pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"broken")], ids=["missing", "broken"])


@DAMAGED
def test_a_lost_answer_stays_in_the_corpus_and_is_listed(damage, encoder, questions):
    damage(questions / "1.png")
    (result,) = evaluate(encoder, [read_beir(questions)])
    assert result.query_ids == ("q0", "q1") and result.metrics["queries"] == 2 and result.metrics["candidates"] == 3
    assert result.metrics["hit@1"] <= 0.5
    assert all({id_ for id_, _ in query.top} == {"0", "2"} for query in result.queries)
    assert result.queries[1].ranks == {"1": math.inf} and result.queries[0].first_hit <= 2
    assert len(result.failures) == 1 and "1.png" in str(result.failures[0])
    assert as_json([result])["questions"]["failures"] == [{"item": result.failures[0].item, "reason": result.failures[0].reason}]


@DAMAGED
def test_a_lost_answer_counts_as_never_found(damage, encoder, questions):
    damage(questions / "1.png")
    (result,) = evaluate(encoder, [read_beir(questions)])
    assert result.metrics["hit@5"] == 0.5 and result.metrics["recall@10"] == 0.5


def test_a_lost_query_finds_nothing(encoder, questions):
    drawn(seed=7).save(questions / "q.png")
    rows = '{"_id": "q0", "text": "a red cat"}\n{"_id": "q1", "text": "but blue", "image": "q.png"}\n'
    (questions / "queries.jsonl").write_text(rows)
    one = read_beir(questions)
    (questions / "q.png").unlink()  # lost after the reading
    (result,) = evaluate(encoder, [one])
    assert result.metrics["hit@5"] == 0.5 and [failure.item for failure in result.failures] == ["q1"]


def test_pairs_with_a_lost_image_are_scored_both_ways(encoder, tmp_path):
    for number in range(12):
        drawn(seed=number).save(tmp_path / f"{number}.png")
    rows = [{"image": f"{number}.png", "caption": f"the image number {number}"} for number in range(12)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = read_pairs(tmp_path / "captions.jsonl")
    (tmp_path / "2.png").write_bytes(b"broken")
    for result in evaluate(encoder, bidirectional_sets(pairs)):
        assert result.metrics["queries"] == 12 and result.metrics["recall@10"] <= 11 / 12, result.name
        assert [failure.item for failure in result.failures] == ["2.png"]


# --- saving -----------------------------------------------------------------------------------------------------------------


def some_embeddings(count: int = 3) -> Embeddings:
    vectors = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
    return Embeddings(tuple(f"id {n}" for n in range(count)), vectors, "fingerprint")


def test_saved_embeddings_come_back_equal(encoder, good, bad, tmp_path):
    items = [*good.values(), bad["text"][0], bad["white space"][0]]
    embedded = encoder.encode(items, [*good, "قطة", "🐈 \\ \" '"], skip_bad=True)
    shown = ({"text": 'قطة 🐈 \\ " \n \t'}, {"image": "/a b/ü.png"}, {})
    embedded = Embeddings(embedded.ids, embedded.vectors, embedded.fingerprint, shown, embedded.failures)
    save_embeddings(embedded, tmp_path / "saved", {"adapter": "somewhere"})
    loaded, about = load_embeddings(tmp_path / "saved")
    assert np.array_equal(loaded.vectors, embedded.vectors) and loaded.vectors.dtype == np.float32
    assert (loaded.ids, loaded.fingerprint, loaded.items) == (embedded.ids, embedded.fingerprint, shown)
    assert len(loaded.failures) == 2 and loaded.failures == embedded.failures
    assert about["adapter"] == "somewhere"


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_line_marks_of_unicode_in_a_text_come_back(mark, tmp_path):
    embedded = Embeddings(("a", "b"), np.eye(2, dtype=np.float32), "f", ({"text": f"one{mark}two"}, {"text": "three"}))
    save_embeddings(embedded, tmp_path / "saved")
    assert load_embeddings(tmp_path / "saved")[0].items == embedded.items


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_a_file_name_that_is_not_utf8_can_be_saved(encoder, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    drawn().save(folder / "a.png")
    os.rename(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    file = read_items(folder)
    embedded = encoder.encode(list(file.items.values()), list(file.items))
    save_embeddings(embedded, tmp_path / "saved")
    assert load_embeddings(tmp_path / "saved")[0].ids == embedded.ids


def test_an_index_is_not_written_over_by_accident(tmp_path):
    save_embeddings(some_embeddings(), tmp_path / "saved")
    with pytest.raises(OutputExistsError, match="exists already"):
        save_embeddings(some_embeddings(5), tmp_path / "saved")
    assert len(load_embeddings(tmp_path / "saved")[0].ids) == 3
    save_embeddings(some_embeddings(5), tmp_path / "saved", overwrite=True)
    assert len(load_embeddings(tmp_path / "saved")[0].ids) == 5


# A disk of 300 KB, seen by this process alone and gone with it. Prints, for each writer, what it raised and what was left.
SMALL_DISK = """
import json, shutil, sys
from pathlib import Path
import numpy as np
import torch
from accelerate import Accelerator
from slq.adapters.files import Adapter
from slq.models import Preprocessing
from slq.errors import SlqError
from slq.index import load_embeddings, save_embeddings
from slq.adapters.latents import LatentQueries
from slq.training import checkpoints
from slq.types import Embeddings

disk, told = Path(sys.argv[1]), {}

def tell(name, write, left):
    try:
        write()
        raised = "nothing"
        message = ""
    except Exception as error:
        raised, message = type(error).__name__, str(error)
    try:
        remains = left()
    except SlqError as error:
        remains = type(error).__name__
    told[name] = [raised, message, remains, sorted(str(p.relative_to(disk)) for p in disk.rglob("*") if "partial" in p.name)]

def embeddings(count):
    return Embeddings(tuple(map(str, range(count))), np.zeros((count, 8), np.float32), "f")

def adapter(count):
    return Adapter(LatentQueries(count, 8), {"name": "some", "revision": "one", "preprocessing": Preprocessing().to_dict()})

def checkpoint(step, width):
    accelerator = Accelerator(cpu=True)
    layer = torch.nn.Linear(width, 100)
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.zeros(1, width)).sum().backward()
    layer, optimiser = accelerator.prepare(layer, optimiser)
    optimiser.step()
    checkpoints.save(accelerator, disk, step)

tell("embeddings", lambda: save_embeddings(embeddings(20000), disk / "index"), lambda: len(load_embeddings(disk / "index")[0].ids))
(disk / "adapter").mkdir()
adapter(2).save(disk / "adapter")
tell("adapter", lambda: adapter(20000).save(disk / "adapter"), lambda: Adapter.load(disk / "adapter").queries.num_latents)
checkpoint(1, 8)
tell("weights", lambda: checkpoint(2, 2000), lambda: checkpoints.newest(disk).name)
for partial in disk.glob("*.partial"):
    shutil.rmtree(partial)
tell("optimiser", lambda: checkpoint(3, 300), lambda: checkpoints.newest(disk).name)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    place = tmp_path_factory.mktemp("disk")
    (place / "script.py").write_text(SMALL_DISK)
    (place / "mounted").mkdir()
    private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=300k none {place}/mounted"
    if shutil.which("unshare") is None or subprocess.run([*private, mount], capture_output=True).returncode:
        pytest.skip("this system lets no process mount a disk of its own")
    run = f"{mount} && exec {sys.executable} {place}/script.py {place}/mounted"
    result = subprocess.run([*private, run], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list((place / "mounted").iterdir()) == [], "it was not a disk of its own"
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("writer", "left"),
    [("embeddings", "DataError"), ("adapter", 2), ("weights", "checkpoint-0000001"), ("optimiser", "checkpoint-0000001")],
)
def test_a_full_disk_leaves_what_was_good(writer, left, small_disk):
    raised, _, remains, _ = small_disk[writer]
    assert raised != "nothing", "the disk was not full"
    assert remains == left


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["embeddings", "adapter", "weights", "optimiser"])
def test_a_full_disk_is_said_in_one_sentence(writer, small_disk):
    raised, message, _, partial = small_disk[writer]
    assert raised == "DiskFullError" and "No room left on the disk while writing" in message
    assert partial == [], "half-written files still fill the disk"


@pytest.mark.parametrize("write", ["folder", "index"])
def test_a_place_that_cannot_be_written_is_one_sentence(write, tmp_path):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "below"
    with pytest.raises(OutputError, match=r"^Cannot write .*below: Not a directory\.$"):
        new_folder(out) if write == "folder" else save_embeddings(some_embeddings(), out)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    Adapter(LatentQueries(2, 8), {"name": "some", "revision": "one"}).save(closed)
    closed.chmod(0o555)
    try:
        with pytest.raises(OutputError, match=r"Cannot write .*Permission denied"):
            save_embeddings(some_embeddings(), closed / "index")
        with pytest.raises(OutputError, match="Cannot write"):
            Adapter(LatentQueries(3, 8), {"name": "some", "revision": "one"}).save(closed)
        assert Adapter.load(closed).queries.num_latents == 2
    finally:
        closed.chmod(0o755)


def test_a_half_written_index_is_refused(tmp_path):
    """embeddings.json is written last: without it nothing of a broken-off run can pass for an index."""
    save_embeddings(some_embeddings(), tmp_path / "saved")
    (tmp_path / "saved" / "embeddings.json").unlink()
    with pytest.raises(DataError, match=r"embeddings\.json is missing"):
        load_embeddings(tmp_path / "saved")
