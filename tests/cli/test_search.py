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
    assert len(found) == 5 and all(set(hit) == {"rank", "id", "score", "image"} for hit in found)
    assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)
    assert len(hits("a red cat", "--collection", index, "--top-k", 100)) == 12
    shown = invoke("search", "a red cat", "--collection", index, "--top-k", 3).output
    assert all(hit["id"] in shown for hit in found[:3]) and f"{found[0]['score']:.3f}" in shown and found[3]["id"] not in shown


def test_an_image_is_left_out_of_what_it_finds(index, images):
    for name in ("0003.png", "0010.png"):
        said = invoke("search", "--image", images / name, "--collection", index, "--top-k", 20, "--json", "--device", "cpu")
        found = [json.loads(line) for line in said.stdout.splitlines()]
        assert len(found) == 11 and name not in {hit["id"] for hit in found} and found[0]["score"] < 1
        assert f"{name} is left out, equal to the query." in said.stderr


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
    invoke("embed", tmp_path / "items.jsonl", "--allow-outside", "--model", adapter, "--output", tmp_path / "index", "--device", "cpu")
    saved, _ = load_embeddings(tmp_path / "index")
    assert saved.ids == ("words", "opened", "path", "both")
    assert set(saved.items[0]) == {"text", "content_hash"} and set(saved.items[3]) == {"text", "image", "content_hash"}

    model = slq.load(str(adapter), device="cpu")
    with Image.open(images / "0001.png") as opened:
        inputs = ["a red cat", opened.copy(), str(images / "0002.png"), {"text": "but blue", "image": str(images / "0003.png")}]
    encoded = model.encode(inputs)
    assert encoded.shape == saved.vectors.shape
    assert_close(encoded, saved.vectors, steps=FORWARD)
    assert_close(model.similarity(encoded, encoded).numpy(), saved.vectors @ saved.vectors.T, steps=FORWARD)


@pytest.mark.slow
def test_an_index_is_brought_up_to_date(images, adapter, other_adapter, tmp_path):
    own, index = tmp_path / "images", tmp_path / "index"
    shutil.copytree(images, own)
    (own / "0011.png").write_bytes(b"broken")
    embed = ["embed", own, "--model", adapter, "--output", index, "--device", "cpu"]
    assert "1 skipped" in invoke(*embed).stdout
    assert "0 of them new or changed, 11 as before, 0 gone" in invoke(*embed).stdout
    (own / "0000.png").unlink()
    shutil.copy(images / "0005.png", own / "0001.png")
    shutil.copy(images / "0011.png", own / "0011.png")
    assert "11 items encoded" in (said := invoke(*embed).stdout) and "2 of them new or changed, 9 as before, 1 gone" in said
    updated, _ = load_embeddings(index)
    invoke(*embed, "--overwrite")
    anew, _ = load_embeddings(index)
    assert updated.ids == anew.ids and updated.items == anew.items
    assert_close(updated.vectors, anew.vectors, steps=FORWARD)
    for changed, differs in (
        (["--precision", "int8"], "precision"),
        (["--truncate-dim", 8], "truncate_dim"),
    ):
        assert f"was made with another {differs}" in refused(*embed, *changed)
    assert "was made with another model" in refused("embed", own, "--model", other_adapter, *embed[4:])
    assert "was made with another items" in refused("embed", images, *embed[2:])
    (index / "notes.txt").write_text("mine")
    assert "holds notes.txt, which slq did not write there" in refused(*embed)


def test_an_index_moves_with_its_images(images, adapter, tmp_path):
    here = tmp_path / "here"
    shutil.copytree(images, here / "images")
    shutil.copytree(adapter, here / "adapter")
    invoke("embed", here / "images", "--model", here / "adapter", "--output", here / "index", "--device", "cpu")
    here.rename(tmp_path / "there")
    there = (tmp_path / "there").resolve()
    first = hits("a red cat", "--collection", there / "index")[0]
    assert first["image"] == str(there / "images" / first["id"])
    assert str(here) not in (there / "index" / "items.jsonl").read_text() + (there / "index" / "embeddings.json").read_text()


def test_an_item_finds_those_like_it(index, images, tmp_path):
    found = hits("--like", "0003.png", "--collection", index, "--top-k", 11, "--output", tmp_path / "like.jsonl")
    image = hits("--image", images / "0003.png", "--collection", index, "--top-k", 12)
    assert [hit["id"] for hit in found] == [hit["id"] for hit in image]
    assert [json.loads(line) for line in (tmp_path / "like.jsonl").read_text().splitlines()] == found
    assert "holds no item 'gone.png'" in refused("search", "--like", "gone.png", "--collection", index)
    assert hits("cat", "--like", "0003.png", "--collection", index) != hits("--like", "0003.png", "--collection", index)
    invoke("search", "--like", "0003.png", "--collection", index, "--output", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (5 * 192, 2 * 208)
    assert "output must end in" in refused("search", "cat", "--collection", index, "--output", tmp_path / "sheet.gif")


def test_a_search_under_a_filter(adapter, tmp_path):
    table = "text,price,colour\na red cat,10,red\na blue cat,20,blue\na green cat,30.5,green\na cat,,\n"
    (tmp_path / "shop.csv").write_text(table)
    invoke("embed", tmp_path / "shop.csv", "--model", adapter, "--output", tmp_path / "index", "--device", "cpu")

    def texts(*conditions: str) -> set[str]:
        return {hit["text"] for hit in hits("cat", "--collection", tmp_path / "index", *(f"--filter={each}" for each in conditions))}

    assert texts() == {"a red cat", "a blue cat", "a green cat", "a cat"}
    assert texts("price<20") == {"a red cat"} and texts("price<=20") == {"a red cat", "a blue cat"}
    assert texts("colour=red,green", "price>10") == {"a green cat"}
    assert texts("colour!=red") == {"a blue cat", "a green cat", "a cat"}
    assert "is not a filter" in refused("search", "cat", "--collection", tmp_path / "index", "--filter", "cheap", "--device", "cpu")
    said = refused("search", "--like", "shop.csv line 2", "--collection", tmp_path / "index", "--filter", "price>99")
    assert "No item" in said and "passes price>99" in said


@pytest.mark.parametrize("ending", ["npz", "parquet", "jsonl"])
def test_vectors_in_one_file_for_other_tools(ending, images, adapter, index, tmp_path):
    file = tmp_path / f"vectors.{ending}"
    invoke("embed", images, "--model", adapter, "--output", file, "--truncate-dim", 8, "--precision", "int8", "--device", "cpu")
    if ending == "npz":
        with np.load(file) as arrays:
            ids, vectors = arrays["ids"].tolist(), arrays["vectors"]
    elif ending == "parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(file).to_pylist()
        ids, vectors = [row["id"] for row in rows], np.array([row["vector"] for row in rows])
    else:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        ids, vectors = [row["id"] for row in rows], np.array([row["vector"] for row in rows])
    wanted = load_embeddings(index)[0].vectors[:, :8]
    assert ids == [f"{number:04d}.png" for number in range(12)] and np.abs(vectors).max() == 127
    cosines = (vectors * wanted).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(wanted, axis=1)
    assert (cosines > 0.999).all()


@pytest.mark.slow
def test_vectors_of_less_precision_are_searched(images, adapter, index, tmp_path):
    arguments = ["embed", images, "--model", adapter, "--device", "cpu", "--truncate-dim", 64]
    found = {}
    for precision in ("float32", "float16", "int8"):
        invoke(*arguments, "--output", tmp_path / precision, "--precision", precision)
        found[precision] = hits("--image", images / "0003.png", "--collection", tmp_path / precision)
    for precision in ("float16", "int8"):
        assert [hit["id"] for hit in found[precision][:3]] == [hit["id"] for hit in found["float32"][:3]]
        assert found[precision][0]["score"] == pytest.approx(found["float32"][0]["score"], abs=2e-3)


def test_nothing_encoded_is_a_failure(adapter, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    said = invoke("embed", tmp_path / "images", "--model", adapter, "--output", tmp_path / "index", code=1)
    assert "a.png" in said.stderr and "None of the 1 items" in said.stderr and not (tmp_path / "index").exists()


def test_the_toy_is_told_for_what_it_is(index, images, adapter, tmp_path):
    for arguments in (["search", "cat", "--collection", index], ["embed", images, "--model", adapter, "--output", tmp_path / "index"]):
        said = invoke(*arguments)
        assert said.stderr.count("a toy that knows the drawings") == 1 and "-m OpenGVLab" in said.stderr
        assert "toy" not in invoke(*arguments, "--quiet").stderr


def test_search_needs_something_to_look_for(index):
    message = refused("search", "--collection", index)
    assert "TEXT" in message and "--image" in message


def test_search_names_what_is_wrong_with_the_question(index, tmp_path):
    assert "empty" in refused("search", "", "--collection", index)
    assert "gone.png" in refused("search", "--image", tmp_path / "gone.png", "--collection", index)


def test_search_with_another_adapter_is_refused(index, other_adapter):
    message = refused("search", "a red cat", "--collection", index, "--model", other_adapter)
    assert "not by this model" in message and "encode the items again" in message


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
