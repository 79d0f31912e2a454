"""A message holds at most 300 characters of what a user handed in, wherever it comes from."""

from __future__ import annotations

import inspect
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slq import config, errors
from slq.config import EvalConfig, ModelConfig, NamedOptions, TrainConfig, from_values, read_config
from slq.data import as_item, check_text, find_images, from_pairs, read_beir, read_items, read_pairs, read_rows
from slq.data.tables import read_json
from slq.errors import BadItemsError, Failure, SlqError, shorten
from slq.evaluation.compare import read_result
from slq.index import load_embeddings
from slq.types import Item

LONG = "xyz é " * 170_000  # 1 MB
CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, SlqError) and each is not BadItemsError]


KARPATHY = {"split": "train", "sentences": [{"raw": "a"}]}


def own(message: str) -> int:
    """How many characters of a message come from LONG."""
    return sum(message.count(part) * len(part) for part in ("xyz é ", "xyz \\u00e9 "))


@pytest.mark.parametrize("kind", CLASSES)
def test_no_error_shows_more(kind):
    for message in (LONG, f"The file {LONG} is wrong; correct it.", f"{LONG!r}: {LONG!r}"):
        assert own(str(kind(message))) <= 300
    said = str(kind(f"The file {LONG} is wrong; correct it."))
    assert said.startswith("The file ") and said.endswith(" is wrong; correct it."), "what is wrong and what to do stay"
    assert str(kind("short")) == "short" and str(kind()) == ""


def test_a_list_of_failures_shows_some_of_each():
    failures = [Failure(f"{number} {LONG}", LONG) for number in range(20)]
    assert len(str(BadItemsError(failures))) < 2000 and BadItemsError(failures).failures[19].item.startswith("19 ")
    assert own(str(failures[0])) < 1000


@pytest.mark.parametrize("most", [10, 60, 200])
def test_shortened_texts_keep_both_ends(most):
    text = "begin " + "x" * 1000 + " end"
    assert len(shorten(text, most)) == most and shorten(text, 60).startswith("begin x") and shorten(text, 60).endswith("x end")
    assert shorten("x" * most, most) == "x" * most and shorten(3) == "3"


def files(folder: Path) -> dict[str, Callable[[], Any]]:
    """Ways to hand 1 MB of text in: by name of the file, and by its content."""
    name = folder / LONG

    def content(suffix: str, text: str | bytes) -> Path:
        path = folder / f"content{suffix}"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def beir(corpus: dict, queries: dict, qrels: str) -> Path:
        (folder / "qrels").mkdir(exist_ok=True)
        (folder / "corpus.jsonl").write_text(json.dumps(corpus) + "\n")
        (folder / "queries.jsonl").write_text(json.dumps(queries) + "\n")
        (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}\n")
        return folder

    def rows(*given: dict) -> Path:
        return content(".jsonl", "".join(json.dumps(row) + "\n" for row in given))

    good = {"_id": "a", "text": "b"}
    return {
        **{f"{read.__name__} of a name": (lambda read=read: read(name)) for read in (read_pairs, read_items, find_images, read_result)},
        "read_rows of a name": lambda: list(read_rows(folder / f"{LONG}.csv")),
        "read_beir of a name": lambda: read_beir(name),
        "read_json of a name": lambda: read_json(name, "add it", "mend it"),
        "load_embeddings of a name": lambda: load_embeddings(name),
        "read_config of a name": lambda: read_config(name),
        "suffix": lambda: list(read_rows(Path("a." + "x" * 1_000_000))),
        "image root": lambda: read_pairs(rows({"image": "a", "text": "b"}), image_root=name),
        "image column": lambda: read_pairs(rows({"image": "a", "text": "b"}), image_column=LONG),
        "image path": lambda: read_pairs(rows({"image": LONG, "text": "b"})),
        "image object": lambda: read_pairs(rows({"image": {LONG: LONG}, "text": "b"})),
        "image list": lambda: read_items(rows({"image": [LONG] * 10})),
        "outside": lambda: read_pairs(rows({"image": "../" + LONG, "text": "b"})),
        "columns": lambda: read_pairs(rows({LONG: "a", "b": "c"})),
        "columns of items": lambda: read_items(rows({LONG: "a"})),
        "JSON": lambda: read_pairs(content(".jsonl", f'{{"{LONG}": ')),
        "JSON keys": lambda: read_pairs(content(".jsonl", json.dumps({LONG: 1})[:-1] + f", {json.dumps(LONG)}: 2}}")),
        "number": lambda: read_pairs(content(".jsonl", '{"a": ' + "9" * 10**6 + "}")),
        "karpathy": lambda: read_pairs(content(".json", json.dumps({"images": [{"split": LONG}]}))),
        "karpathy file": lambda: read_pairs(
            content(".json", json.dumps({"images": [{"split": "train", "filename": LONG, "sentences": [{"raw": "a"}]}]}))
        ),
        "csv header": lambda: read_pairs(content(".csv", f'"{LONG}",{LONG.split()[0]},{LONG.split()[0]}\n1,2,3\n')),
        "csv quote": lambda: read_pairs(content(".csv", f'image,text\na,"{LONG}')),
        "same ids": lambda: read_items(rows({"id": LONG, "image": "a"})),
        "direction": lambda: from_pairs(read_pairs(rows({"query": "a", "positive": "b"})), LONG),
        "beir ids": lambda: read_beir(beir({**good, "_id": LONG}, good, "a\tb\t1")),
        "beir twice": lambda: read_beir(beir(good, {**good, "excluded": [LONG]}, "a\ta\t1")),
        "beir category": lambda: read_beir(beir(good, {**good, "category": [LONG]}, "a\ta\t1")),
        "beir excluded": lambda: read_beir(beir(good, {**good, "excluded": LONG}, "a\ta\t1")),
        "beir score": lambda: read_beir(beir(good, good, f"a\ta\t{'x' * 10**6}")),
        "beir query": lambda: read_beir(beir(good, good, f"{'x' * 10**6}\ta\t1")),
        "beir split": lambda: read_beir(beir(good, good, "a\ta\t1"), LONG),
        "results": lambda: read_result(content(".json", json.dumps({"scores": {}, "format": LONG}))),
        "TOML": lambda: read_config(content(".toml", f'[train]\nloss = "{LONG.strip()}')),
        "TOML key": lambda: read_config(content(".toml", f"[train]\n{'x' * 10**6} = 1")),
        "TOML value": lambda: read_config(content(".toml", f"[train]\nepochs = '{'x' * 10**6}'")),
    }


VALUES: dict[str, Callable[[], Any]] = {
    "as_item": lambda: as_item({LONG: LONG}),
    "hash": lambda: Item(LONG, LONG).content_hash,
    "text": lambda: check_text([LONG]),
    "surrogate": lambda: check_text(LONG + "\ud83d"),
    "option": lambda: from_values(TrainConfig, {LONG: 1}),
    "option value": lambda: from_values(TrainConfig, {"epochs": LONG}),
    "choice": lambda: from_values(TrainConfig, {"method": LONG}),
    "preset": lambda: from_values(TrainConfig, {"preset": LONG}),
    "loss": lambda: NamedOptions.parse(LONG + ":" + LONG),
    "loss table": lambda: NamedOptions.from_dict({LONG: LONG}),
    "model option": lambda: from_values(ModelConfig, {"dtype": LONG}),
    "eval option": lambda: from_values(EvalConfig, {"baseline": LONG}),
}
NAMES = [*files(Path("/nowhere")), *VALUES]


@pytest.mark.parametrize("name", NAMES)
def test_no_message_shows_more_than_300_characters(name, tmp_path, monkeypatch, own_cache):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SlqError) as caught:
        (VALUES.get(name) or files(tmp_path)[name])()
    message = str(caught.value)
    assert own(message) <= 300 and len(message) <= 900, (len(message), message[:300])
    assert message.count("x" * 400) == 0


def test_every_config_is_one_that_refuses_long_values():
    """Every option of every command, given 1 MB of text."""
    refused = 0
    for each in (getattr(config, name) for name in config.__all__):
        if not getattr(each, "__name__", "").endswith("Config"):
            continue
        for option in each.__dataclass_fields__:
            try:
                from_values(each, {option: "x" * 5000})
            except SlqError as error:
                refused += 1
                assert len(str(error)) <= 900, (each, option)
    assert refused > 60


# --- embeddings of a stranger ---------------------------------------------------------------------------------------------


@pytest.fixture
def embeddings(tmp_path) -> Path:
    np.savez(tmp_path / "vectors.npz", vectors=np.ones((1, 4), np.float32) / 2)
    (tmp_path / "items.jsonl").write_text('{"id": "a"}\n')
    (tmp_path / "embeddings.json").write_text(json.dumps({"fingerprint": "x", "failures": [], "adapter": "miniature"}))
    return tmp_path


def npy_of(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """An array that claims a shape and holds next to nothing."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(64)


@pytest.mark.parametrize("kind", ["claims much", "compressed", "objects", "no array", "deep JSON", "deep item", "no object", "long"])
def test_hostile_embeddings_are_damaged_embeddings(embeddings, kind):
    assert load_embeddings(embeddings)[0].ids == ("a",)
    stored = {"claims much": npy_of((10**9, 10**6)), "objects": npy_of((1,), "|O"), "no array": b"\x93NUMPY" + b"\xff" * 100}
    if kind in stored:
        with zipfile.ZipFile(embeddings / "vectors.npz", "w") as archive:
            archive.writestr("vectors.npy", stored[kind])
    elif kind == "compressed":
        np.savez_compressed(embeddings / "vectors.npz", vectors=np.zeros((10**6, 4), np.float32))
    else:
        deep = "[" * 10**6
        file = "items.jsonl" if kind == "deep item" else "embeddings.json"
        (embeddings / file).write_text({"no object": "[]", "long": json.dumps({"failures": LONG})}.get(kind, deep))
    with pytest.raises(SlqError, match="damaged") as caught:
        load_embeddings(embeddings)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "name", ["x" * 10**6, "owner/" + "x" * 10**6, "./" + "x" * 10**6, "a\0b"], ids=["long", "on the hub", "folder", "NUL"]
)
def test_models_with_impossible_names_are_refused_in_a_sentence(name):
    from slq.encoders.opening import open_encoder

    with pytest.raises(SlqError) as caught:
        open_encoder(ModelConfig(model=name))
    assert len(str(caught.value)) <= 700
