"""`slq index` and `slq search` in a collection, with the miniature: what is encoded, told and found."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import Said, invoke, refused, run
from PIL import Image

import slq
from slq.encoders.latent import LatentEncoder
from slq.index.collection import Collection


@pytest.fixture(scope="session")
def collection(images: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The twelve test images."""
    folder = tmp_path_factory.mktemp("cli") / "collection"
    said = invoke("index", images, "-m", adapter, "-c", folder, "--device", "cpu")
    assert "12 rows in" in said.stdout and "12 new" in said.stdout and "12 encoded" in said.stdout
    return folder


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """The contents that the model is asked for."""
    asked: list[str] = []
    encode = LatentEncoder.encode

    def counting(self: LatentEncoder, items: Sequence[Any], ids: Sequence[str] | None = None, *more: Any, **options: Any):
        asked.extend(ids or ())
        return encode(self, items, ids, *more, **options)

    monkeypatch.setattr(LatentEncoder, "encode", counting)
    return asked


def report(*arguments: object) -> dict[str, Any]:
    said = invoke("index", *arguments, "--json", "--device", "cpu")
    return {name: value for name, value in json.loads(said.stdout).items() if value}


@pytest.mark.slow
def test_a_folder_is_followed(sample: Path, adapter: Path, encoded: list[str], tmp_path: Path):
    """Thirty images, then added, changed, deleted, moved, doubled and renamed ones: nothing is encoded twice."""
    photos, more = tmp_path / "photos", sorted((sample / "test" / "images").iterdir())
    photos.mkdir()
    for number, image in enumerate(sorted((sample / "train" / "images").iterdir())[:30]):
        shutil.copy(image, photos / f"{number:02}.png")
    (photos / "notes.txt").write_text("mine")
    first = report(photos, "-m", adapter, "-c", tmp_path / "c")
    assert (first["new"], first["encoded"], first["rows"], first["skipped"]) == (30, 30, 30, {".txt": 1})
    for number in range(5):
        shutil.copy(more[number], photos / f"new {number}.png")
    for number in range(3):
        shutil.copy(more[5 + number], photos / f"{number:02}.png")
    for number in range(3, 7):
        (photos / f"{number:02}.png").unlink()
    (photos / "moved").mkdir()
    for number in range(7, 9):
        (photos / f"{number:02}.png").rename(photos / "moved" / f"{number:02}.png")
    (photos / "09.png").rename(photos / "renamed.png")
    shutil.copy(photos / "10.png", photos / "copy.png")
    second = report("-c", tmp_path / "c")
    wanted = {"new": 5, "changed": 3, "deleted": 4, "moved": 3, "duplicates": 1, "unchanged": 20, "encoded": 8, "rows": 32}
    assert {name: second.get(name) for name in wanted} == wanted
    assert {name: value for name, value in report("-c", tmp_path / "c").items() if name in wanted} == {"unchanged": 32, "rows": 32}
    assert len(encoded) == len(set(encoded)) == 38
    rows = {row.id: row for batch in Collection(tmp_path / "c").rows.scan() for row in batch}
    by_hand = LatentEncoder.from_pretrained(adapter, device="cpu").encode([photos / "00.png", photos / "moved" / "07.png"]).vectors
    assert rows["photos/00.png"].vector @ by_hand[0] > 0.9999 and rows["photos/moved/07.png"].vector @ by_hand[1] > 0.9999


def test_what_is_unchanged_needs_no_model(collection, encoded, monkeypatch):
    monkeypatch.setattr("slq.index.encoders.load", lambda config: pytest.fail("the model is loaded"))
    said = invoke("index", "-c", collection)
    assert said.stdout.startswith(f"12 rows in {collection}: 12 unchanged (") and encoded == []


def test_what_cannot_be_indexed_is_listed(images, adapter, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        shutil.copy(images / f"{number:04d}.png", photos)
    (photos / "0001.png").write_bytes(b"no image")
    said = invoke("index", photos, "-m", adapter, "-c", tmp_path / "c", "--device", "cpu")
    assert "2 rows in" in said.stdout and "1 failed" in said.stdout and "  photos/0001.png: the image" in said.stderr
    listed = invoke("index", "-c", tmp_path / "c", "--failed")
    assert listed.stdout.startswith("photos/0001.png: the image") and "--retry-failed" in listed.stderr
    [told] = map(json.loads, invoke("index", "-c", tmp_path / "c", "--failed", "--json").stdout.splitlines())
    assert told["item"] == "photos/0001.png"
    assert "1 of 3 items cannot be used" in refused("index", "-c", tmp_path / "c", "--max-skipped", 0.1)
    said = run("index", "-c", tmp_path / "c", "--retry-failed", "--device", "cpu")
    assert said.code == 0 and "2 unchanged, 1 failed" in said.stdout


def test_a_source_that_is_missing_is_an_error(images, adapter, tmp_path):
    for name in ("photos", "more"):
        (tmp_path / name).mkdir()
        shutil.copy(images / "0000.png", tmp_path / name / f"{name}.png")
    invoke("index", tmp_path / "photos", tmp_path / "more", "-m", adapter, "-c", tmp_path / "c", "--device", "cpu")
    (tmp_path / "photos").rename(tmp_path / "away")
    said = invoke("index", "-c", tmp_path / "c", code=1)
    assert "2 rows in" in said.stdout and "Error: photos: " in said.stderr and "What is indexed of it stays." in said.stderr
    assert "1 deleted, 1 unchanged" in invoke("index", "-c", tmp_path / "c", "--prune-missing").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["PHOTOS", "-c", "NEW"], "A new collection needs a model, and holds to it"),
        (["-c", "NEW", "-m", "miniature"], "is no collection yet: name what is to be indexed"),
        (["nowhere", "-c", "NEW", "-m", "miniature"], "nowhere does not exist; give a folder of images, an image, or a table"),
        (["PHOTOS"], "--collection is missing"),
        (["-c", "COLLECTION", "-m", "OTHER"], "was encoded by"),
        (["-c", "COLLECTION", "--text-column", "x"], "text_column says how a PATH is read: name the PATH"),
        (["-c", "COLLECTION", "--failed", "PHOTOS"], "leave out the other options, or --failed"),
        (["-c", "COLLECTION", "--watch", "0"], "--watch must be above 0"),
        (["PHOTOS", "-c", "NEW", "--store", "nothing"], "must be one of exact"),
        (["PHOTOS", "-c", "PHOTOS", "-m", "miniature"], "but no collection.json: choose an empty folder for the collection"),
        (["-c", "NEW", "--failed"], "is no collection: it has no collection.json"),
    ],
)
def test_wrong_use_is_refused(arguments, said, collection, images, other_adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"PHOTOS": images, "NEW": tmp_path / "new", "COLLECTION": collection, "OTHER": other_adapter}
    assert said in refused("index", *(names.get(each, each) for each in arguments))
    assert not (tmp_path / "new").exists()


def test_watching_ends_with_ctrl_c(collection, monkeypatch):
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", wait)
    said = invoke("index", "-c", collection, "--watch", 5)
    assert waited == [5, 5, 5] and said.stdout.count("12 unchanged") == 3 and "Stopped" not in said.output


def test_ctrl_c_at_work_says_how_to_go_on(collection, monkeypatch):
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Collection, "update", interrupted)
    said = invoke("index", "-c", collection, "--watch", 5, code=130)
    assert "What was indexed is in the collection; the same command goes on." in said.stderr


# --- searching --------------------------------------------------------------------------------------------------------------


def hits(*arguments: object) -> list[dict]:
    return [json.loads(line) for line in invoke("search", *arguments, "--json", "--device", "cpu").stdout.splitlines()]


def test_a_collection_finds_what_saved_embeddings_find(collection, index, images):
    for query in (["a red cat"], ["--image", images / "0003.png"], ["but blue", "--image", images / "0003.png"], ["a cat", "--not", "red"]):
        here, there = (hits(*query, "-c", folder) for folder in (collection, index))
        assert [hit["id"] for hit in here] == [f"images/{hit['id']}" for hit in there]
        assert [hit["score"] for hit in here] == pytest.approx([hit["score"] for hit in there], abs=1e-5)
        assert [hit["image"] for hit in here] == [hit["image"] for hit in there]


def test_python_finds_the_same(collection, adapter):
    with slq.open_collection(collection) as opened:
        found = opened.search("a red cat", top_k=3)
    assert [hit.id for hit in found.hits] == [hit["id"] for hit in hits("a red cat", "-c", collection, "-k", 3)]
    with slq.open_collection(collection, model=slq.load(str(adapter), device="cpu")) as opened:
        assert [hit.id for hit in opened.search("a red cat", top_k=3).hits] == [hit.id for hit in found.hits]


def test_like_loads_no_model(collection, monkeypatch, tmp_path):
    monkeypatch.setattr("slq.index.encoders.load", lambda config: pytest.fail("the model is loaded"))
    found = hits("--like", "images/0003.png", "-c", collection, "--output", tmp_path / "like.jsonl")
    assert len(found) == 10 and [json.loads(line) for line in (tmp_path / "like.jsonl").read_text().splitlines()] == found
    invoke("search", "--like", "images/0003.png", "-c", collection, "-o", tmp_path / "sheet.jpg", "-k", 3)
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.size == (3 * 192, 208)


def lines(monkeypatch, text: str, *arguments: object, code: int) -> tuple[list[dict], Said]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    said = invoke("search", "-", *arguments, code=code)
    return [json.loads(line) for line in said.stdout.splitlines()], said


def test_one_process_answers_many_queries(collection, images, monkeypatch):
    loads: list[str] = []
    from slq.index.encoders import load

    monkeypatch.setattr("slq.index.encoders.load", lambda config: loads.append(config.model) or load(config))
    both = {"text": "but blue", "image": str(images / "0003.png"), "top_k": 1}
    queries = ["a red cat", "", both, {"like": "images/0001.png", "not": "red"}]
    text = "".join(f"{query if isinstance(query, str) else json.dumps(query)}\n" for query in queries)
    found, said = lines(monkeypatch, text, "-c", collection, "-k", 2, "--device", "cpu", code=0)
    assert [len(each["hits"]) for each in found] == [2, 1, 2] and len(loads) == 1
    assert [hit["id"] for hit in found[0]["hits"]] == [hit["id"] for hit in hits("a red cat", "-c", collection, "-k", 2)]
    assert found[2]["query"]["parts"] == [{"like": "images/0001.png", "weight": 1.0}, {"text": "red", "weight": -0.5}]
    assert all(each["rows"] == 12 for each in found) and said.stderr.count("toy") == 1


def test_a_line_that_is_wrong_stops_nothing(collection, monkeypatch):
    text = '{"text": "a cat"\n{"texts": "a cat"}\n{"like": "none"}\n[1]\n{"like": "images/0001.png"}\n{"text": "x", "top_k": 0}\n'
    found, _ = lines(monkeypatch, text, "-c", collection, "--device", "cpu", code=1)
    told = [each["error"]["message"] if "error" in each else "" for each in found]
    assert "begins as a JSON object and is none" in told[0] and "Did you mean 'text'?" in told[1] and "holds no item 'none'" in told[2]
    assert told[3:5] == ["", ""] and "top_k must be at least 1" in told[5]
    assert "leave out the parts of another one" in refused("search", "-", "--image", "a.png", "-c", collection)


def test_names_that_are_not_utf_8_are_printed(images, adapter, tmp_path):
    (tmp_path / "photos").mkdir()
    shutil.copy(images / "0000.png", os.fsencode(tmp_path / "photos") + b"/caf\xe9.png")
    invoke("index", tmp_path / "photos", "-m", adapter, "-c", tmp_path / "c", "--device", "cpu")
    [hit] = hits("a red cat", "-c", tmp_path / "c")
    assert hit["id"] == "photos/caf%E9.png" and os.path.exists(os.fsencode(hit["image"]))
