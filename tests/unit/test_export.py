"""Vectors as plain files: written and read back in each format, and by other tools."""

from __future__ import annotations

import json

import numpy as np
import pytest

from slq.errors import DataError, Failure, InputError, OutputExistsError
from slq.index import FORMATS, load_embeddings, save_embeddings, search
from slq.types import Embeddings

VECTORS = {"npz": "vectors.npz", "parquet": "vectors.parquet", "jsonl": "vectors.jsonl"}


def some_embeddings(count: int = 3) -> Embeddings:
    vectors = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = [{"text": f"größer {n}"} if n % 2 else {"image": f"/a/{n}.png"} for n in range(count)]
    return Embeddings(tuple(f"id {n}" for n in range(count)), vectors, "f", tuple(items), (Failure("x", "broken"),))


@pytest.mark.parametrize("format", FORMATS)
def test_embeddings_are_read_back(format, tmp_path):
    wanted = some_embeddings()
    save_embeddings(wanted, tmp_path / "saved", {"model": "my-adapter"}, format=format)
    found, metadata = load_embeddings(tmp_path / "saved")
    assert (found.ids, found.items, found.fingerprint, found.failures) == (wanted.ids, wanted.items, "f", wanted.failures)
    assert found.vectors.dtype == np.float32 and np.array_equal(found.vectors, wanted.vectors)
    assert metadata == {"count": 3, "dim": 4, "precision": "float32", "normalized": True, "model": "my-adapter"}
    assert (tmp_path / "saved" / VECTORS[format]).is_file()


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_is_damaged_or_missing_is_told(format, tmp_path):
    save_embeddings(some_embeddings(), tmp_path / "saved", format=format)
    file = tmp_path / "saved" / VECTORS[format]
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"are damaged .*: make them again with `slq embed`"):
        load_embeddings(tmp_path / "saved")
    file.unlink()
    with pytest.raises(DataError, match=r"holds no embeddings \(vectors\.npz is missing\)"):
        load_embeddings(tmp_path / "saved")
    (tmp_path / "saved" / "embeddings.json").unlink()
    with pytest.raises(DataError, match=r"holds no embeddings \(embeddings\.json is missing\)"):
        load_embeddings(tmp_path / "saved")


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_a_set_of_embeddings_too(format, tmp_path):
    save_embeddings(Embeddings((), np.zeros((0, 4), np.float32), "f"), tmp_path / "saved", format=format)
    found, _ = load_embeddings(tmp_path / "saved")
    assert found.ids == () and len(found.vectors) == 0


def test_other_tools_read_the_files(tmp_path):
    import pyarrow.parquet

    wanted = some_embeddings()
    for format in FORMATS:
        save_embeddings(wanted, tmp_path / format, format=format)
    rows = pyarrow.parquet.read_table(tmp_path / "parquet" / "vectors.parquet").to_pylist()
    assert [row["id"] for row in rows] == list(wanted.ids) and np.allclose(rows[1]["vector"], wanted.vectors[1])
    lines = (tmp_path / "jsonl" / "vectors.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(wanted.ids)
    assert np.array_equal(np.load(tmp_path / "npz" / "vectors.npz")["vectors"], wanted.vectors)


def test_an_id_that_is_not_utf8(tmp_path):
    """As file names may be; Parquet alone cannot hold it."""
    wanted = Embeddings(("caf\udce9.png",), np.ones((1, 4), np.float32) / 2, "f")
    for format in ("npz", "jsonl"):
        save_embeddings(wanted, tmp_path / format, format=format)
        assert load_embeddings(tmp_path / format)[0].ids == wanted.ids
    with pytest.raises(InputError, match="Parquet cannot hold an id that is not UTF-8"):
        save_embeddings(wanted, tmp_path / "parquet", format="parquet")
    assert not (tmp_path / "parquet").exists()


def test_a_folder_is_replaced_only_when_asked_and_an_unknown_format_refused(tmp_path):
    save_embeddings(some_embeddings(), tmp_path / "saved")
    with pytest.raises(OutputExistsError, match="exists already"):
        save_embeddings(some_embeddings(5), tmp_path / "saved")
    save_embeddings(some_embeddings(5), tmp_path / "saved", overwrite=True, format="jsonl")
    assert len(load_embeddings(tmp_path / "saved")[0].ids) == 5 and not (tmp_path / "saved" / "vectors.npz").exists()
    with pytest.raises(InputError, match="Unknown format 'csv': choose one of npz, parquet, jsonl"):
        save_embeddings(some_embeddings(), tmp_path / "other", format="csv")


def test_equal_vectors_are_found_by_id():
    vector = some_embeddings(1).vectors
    corpus = Embeddings(tuple(f"{number:03d}" for number in reversed(range(257))), np.repeat(vector, 257, axis=0), "f")
    for k in (3, 257, 300):
        (hits,) = search(corpus, Embeddings(("q",), some_embeddings(2).vectors[1:], "f"), k)
        assert [hit.id for hit in hits] == sorted(corpus.ids)[:k] and len({hit.score for hit in hits}) == 1
