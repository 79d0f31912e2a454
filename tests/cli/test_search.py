"""`slq embed` and `slq search`: what is embedded and found, and which index is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import invoke, refused
from PIL import Image
from tolerance import FORWARD, ROUNDED, assert_close

import slq
from slq.index import load_embeddings, save_embeddings
from slq.types import Embeddings


def test_embed_a_folder(index, images, adapter):
    embedded, about = load_embeddings(index)
    assert list(embedded.ids) == [f"{number:04d}.png" for number in range(12)]
    assert embedded.vectors.dtype == np.float32
    assert_close(np.linalg.norm(embedded.vectors, axis=1), 1, steps=ROUNDED)
    assert embedded.failures == () and about["adapter"] == str(adapter.resolve())
    assert [Path(item["image"]) for item in embedded.items] == [(images / id_).resolve() for id_ in embedded.ids]


def test_embed_leaves_out_bad_images_and_says_so(images, adapter, tmp_path):
    (tmp_path / "some").mkdir()
    for number in range(3):
        shutil.copy(images / f"{number:04d}.png", tmp_path / "some")
    (tmp_path / "some" / "0001.png").write_bytes((images / "0001.png").read_bytes()[:100])
    result = invoke("embed", tmp_path / "some", "--model", adapter, "--output", tmp_path / "index")
    assert "2 items encoded" in result.output and "1 skipped" in result.output and "0001.png" in result.stderr
    embedded, _ = load_embeddings(tmp_path / "index")
    assert embedded.ids == ("0000.png", "0002.png") and [failure.item for failure in embedded.failures] == ["0001.png"]


def hits(*arguments: object) -> list[dict]:
    return [json.loads(line) for line in invoke("search", *arguments, "--json", "--device", "cpu").stdout.splitlines()]


def test_search_by_words(index):
    found = hits("a red cat", "--collection", index, "--top-k", 5)
    assert len(found) == 5 and all(set(hit) == {"id", "score", "image"} for hit in found)
    assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)
    assert len(hits("a red cat", "--collection", index, "--top-k", 100)) == 12
    shown = invoke("search", "a red cat", "--collection", index, "--top-k", 3).output
    assert all(hit["id"] in shown for hit in found[:3]) and f"{found[0]['score']:.3f}" in shown and found[3]["id"] not in shown


def test_an_image_finds_itself(index, images):
    for name in ("0003.png", "0010.png"):
        first, second, *_ = hits("--image", images / name, "--collection", index)
        assert first["id"] == name and second["score"] < first["score"]
        assert_close(first["score"], 1, steps=FORWARD)
        assert Path(first["image"]) == (images / name).resolve()


def test_search_by_image_and_words(index, images):
    both = hits("but blue", "--image", images / "0003.png", "--collection", index)
    words = hits("but blue", "--collection", index)
    image = hits("--image", images / "0003.png", "--collection", index)
    assert len({tuple(hit["score"] for hit in found) for found in (both, words, image)}) == 3, "one of the two was not looked at"


def test_python_and_the_command_line_give_the_same_vectors(images, adapter, tmp_path):
    rows = [
        {"id": "words", "text": "a red cat"},
        {"id": "opened", "image": str(images / "0001.png")},
        {"id": "path", "image": str(images / "0002.png")},
        {"id": "both", "text": "but blue", "image": str(images / "0003.png")},
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    invoke("embed", tmp_path / "items.jsonl", "--model", adapter, "--output", tmp_path / "index", "--device", "cpu")
    saved, _ = load_embeddings(tmp_path / "index")
    assert saved.ids == ("words", "opened", "path", "both")
    assert saved.items[0] == {"text": "a red cat"} and set(saved.items[3]) == {"text", "image"}

    model = slq.load(str(adapter), device="cpu")
    with Image.open(images / "0001.png") as opened:
        inputs = ["a red cat", opened.copy(), images / "0002.png", {"text": "but blue", "image": str(images / "0003.png")}]
    encoded = model.encode(inputs)
    assert encoded.shape == saved.vectors.shape
    assert_close(encoded, saved.vectors, steps=FORWARD)
    assert_close(model.similarity(encoded, encoded).numpy(), saved.vectors @ saved.vectors.T, steps=FORWARD)


def test_search_needs_something_to_look_for(index):
    message = refused("search", "--collection", index)
    assert "TEXT" in message and "--image" in message


def test_search_names_what_is_wrong_with_the_question(index, tmp_path):
    assert "empty" in refused("search", "", "--collection", index)
    assert "gone.png" in refused("search", "--image", tmp_path / "gone.png", "--collection", index)


def test_search_with_another_adapter_is_refused(index, other_adapter):
    message = refused("search", "a red cat", "--collection", index, "--model", other_adapter)
    assert "embed the corpus again" in message


def test_search_without_an_index(tmp_path):
    assert "embeddings.json is missing" in refused("search", "cat", "--collection", tmp_path / "nowhere")
    assert "embeddings.json is missing" in refused("search", "cat", "--collection", tmp_path)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("name", ["embeddings.json", "items.jsonl", "vectors.npz"])
@pytest.mark.parametrize("damage", [Path.unlink, cut, lambda file: file.write_bytes(b"\xff\x00")], ids=["missing", "cut", "garbage"])
def test_search_in_a_damaged_index(name, damage, index, tmp_path):
    shutil.copytree(index, tmp_path / "index")
    damage(tmp_path / "index" / name)
    message = refused("search", "cat", "--collection", tmp_path / "index")
    assert str(tmp_path / "index") in message and "slq embed" in message


@pytest.mark.parametrize(("name", "text"), [("embeddings.json", "[]"), ("items.jsonl", "[]\n" * 12)])
def test_search_in_an_index_of_other_json(name, text, index, tmp_path):
    shutil.copytree(index, tmp_path / "index")
    (tmp_path / "index" / name).write_text(text)
    assert str(tmp_path / "index") in refused("search", "cat", "--collection", tmp_path / "index")


def test_search_in_an_index_with_items_lost(index, tmp_path):
    shutil.copytree(index, tmp_path / "index")
    lines = (index / "items.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "index" / "items.jsonl").write_text("".join(lines[:-1]))
    message = refused("search", "cat", "--collection", tmp_path / "index")
    assert "11 items" in message and "12 vectors" in message


def test_search_in_an_index_that_names_no_adapter(tmp_path):
    save_embeddings(Embeddings(("a",), np.eye(1, 4, dtype=np.float32)), tmp_path / "index")
    assert "--model" in refused("search", "cat", "--collection", tmp_path / "index")
