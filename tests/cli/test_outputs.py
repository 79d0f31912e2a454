"""What commands write over, and what they never delete."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import QUICK, content, invoke, refused


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with something in it that must not be lost."""
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    return folder


@pytest.fixture
def writers(tiny_world: Path, images: Path, adapter: Path) -> dict[str, list[object]]:
    """The commands that write a folder, and a file each must leave there."""
    return {
        "train": ["train", tiny_world / "train" / "captions.jsonl", "--max-steps", 1, *QUICK],
        "embed": ["embed", images, "--model", adapter],
        "sample-data": ["sample-data", "--count", 3],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "made"), [("train", "adapter.safetensors"), ("embed", "embeddings.json"), ("sample-data", "captions.jsonl")]
)
def test_an_existing_folder_is_refused_or_replaced(command, made, writers, kept):
    message = refused(*writers[command], "--output", kept)
    assert str(kept) in message and "--overwrite" in message
    assert content(kept) == {"thesis.txt": b"years of work"}
    assert "has no .slq.json" in refused(*writers[command], "--output", kept, "--overwrite")
    assert content(kept) == {"thesis.txt": b"years of work"}
    own = kept / "own"
    invoke(*writers[command], "--output", own)
    whole = (own / made).read_bytes()
    (own / made).write_bytes(b"old")
    assert f"{made}, which has changed since slq wrote it" in refused(*writers[command], "--output", own, "--overwrite")
    (own / made).write_bytes(whole)
    invoke(*writers[command], "--output", own, "--overwrite")
    assert (own / made).stat().st_size > len(b"old")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "embed", "sample-data"])
def test_overwrite_never_deletes_what_a_user_put_there(command, writers, tmp_path):
    photos = tmp_path / "photos"  # a folder of photographs with captions looks much like a world of ours
    (photos / "images").mkdir(parents=True)
    (photos / "images" / "0000.png").write_bytes(b"a photograph")
    (photos / "captions.jsonl").write_text('{"image": "images/0000.png", "caption": "us, 1998"}\n')
    before = content(photos)
    assert "has no .slq.json" in refused(*writers[command], "--output", photos, "--overwrite")
    assert content(photos) == before
    own = tmp_path / "own"
    invoke(*writers[command], "--output", own)
    (own / "notes").mkdir()
    (own / "notes" / "thesis.txt").write_text("years of work")
    before = content(own)
    assert "thesis.txt" in refused(*writers[command], "--output", own, "--overwrite")
    assert content(own) == before


def test_an_empty_folder_is_taken(kept):
    (kept / "thesis.txt").unlink()
    invoke("sample-data", "--count", 3, "--output", kept)
    assert (kept / "captions.jsonl").is_file()


@pytest.mark.parametrize("command", ["train", "embed", "sample-data"])
def test_a_folder_that_cannot_be_made_is_one_sentence(command, writers, kept):
    assert "Cannot write" in refused(*writers[command], "--output", kept / "thesis.txt" / "below a file")
    assert content(kept) == {"thesis.txt": b"years of work"}


def test_overwrite_waits_until_the_adapter_is_known_to_load(images, kept, tmp_path):
    (tmp_path / "no adapter").mkdir()
    refused("embed", images, "--model", tmp_path / "no adapter", "--output", kept, "--overwrite")
    assert content(kept) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("command", ["train", "embed"])
def test_overwrite_never_deletes_what_is_read(command, tiny_world, adapter, tmp_path):
    shutil.copytree(tiny_world / "test", tmp_path / "mine")
    before = content(tmp_path / "mine")
    reads = {
        "train": ["train", tmp_path / "mine" / "captions.jsonl", "--max-steps", 1, *QUICK, "--output", tmp_path / "mine"],
        "embed": ["embed", tmp_path / "mine" / "images", "--model", adapter, "--output", tmp_path / "mine" / "images"],
    }
    try:
        refused(*reads[command], "--overwrite")
    finally:
        assert content(tmp_path / "mine") == before


@pytest.fixture
def file_writers(tiny_world: Path, images: Path, adapter: Path, index: Path) -> dict[str, list[object]]:
    """The commands that write one file; refused before they do anything else."""
    captions = tiny_world / "test" / "captions.jsonl"
    return {
        "eval": ["eval", captions, "--model", adapter],
        "leakage": ["leakage", tiny_world / "train" / "captions.jsonl", captions],
        "retention": ["retention", "--model", adapter],
        "doctor": ["doctor", "--model", adapter],
        "mine": ["mine", captions, "--model", adapter],
        "embed": ["embed", images, "--model", adapter],
        "search": ["search", "cat", "--collection", index],
        "sample-data": ["sample-data", "--contact-sheet"],
    }


@pytest.mark.parametrize("command", ["eval", "leakage", "retention", "doctor", "mine", "embed", "search", "sample-data"])
def test_a_file_is_not_written_over_without_a_word(command, file_writers, tmp_path):
    mine = tmp_path / {"sample-data": "sheet.png"}.get(command, "mine.jsonl")
    mine.write_text("years of work")
    message = refused(*file_writers[command], "--output", mine)
    assert str(mine) in message and "exists already" in message and "--overwrite" in message
    assert mine.read_text() == "years of work"


@pytest.mark.parametrize(("command", "read"), [("eval", 0), ("leakage", 0), ("leakage", 1), ("mine", 0), ("embed", 0)])
def test_a_file_that_is_read_is_never_written_over(command, read, file_writers, tmp_path):
    """Neither by its name nor by that of a link to it."""
    arguments = list(file_writers[command])
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"image": "a.png", "caption": "a cat"}\n')
    (tmp_path / "link.jsonl").symlink_to(mine)
    arguments[1 + read] = mine
    for output in (mine, tmp_path / "link.jsonl"):
        assert "which is read" in refused(*arguments, "--output", output, "--overwrite")
        assert mine.read_text() == '{"image": "a.png", "caption": "a cat"}\n'


def test_an_adapter_is_not_replaced_by_what_is_made_with_it(adapter, images, tiny_world, tmp_path):
    shutil.copytree(adapter, tmp_path / "mine")
    before = content(tmp_path / "mine")
    captions = tiny_world / "train" / "captions.jsonl"
    refusals = [
        (["embed", images, "--model", tmp_path / "mine", "--output", tmp_path / "mine"], "which is read"),
        (["train", captions, "--model", tmp_path / "mine", "--output", tmp_path / "mine"], "which is read"),
        (["embed", images, "--model", adapter, "--output", tmp_path / "mine"], "was written by slq train"),
        (["eval", captions, "--model", tmp_path / "mine", "--output", tmp_path / "mine" / "config.toml"], "which is read"),
    ]
    for arguments, reason in refusals:
        assert reason in refused(*arguments, "--overwrite")
        assert content(tmp_path / "mine") == before


def test_a_cache_is_not_begun_among_other_things(kept, tiny_world, adapter):
    retention = ["retention", "--model", adapter, "--task", "reading", "--num-questions", 2, "--cache-dir", kept]
    assert "is not a cache folder of slq: it holds thesis.txt" in refused(*retention)
    assert content(kept) == {"thesis.txt": b"years of work"}


@pytest.mark.slow
def test_every_command_leaves_a_folder_of_ones_own_whole(images, adapter, index, tmp_path, monkeypatch):
    """Photographs with captions, notes and a link to them: whatever a command is told to write there, nothing of it is lost."""
    home = tmp_path / "home"
    shutil.copytree(images, home / "photos")
    rows = [f'{{"image": "{file.name}", "caption": "a photograph, {file.stem}"}}\n' for file in sorted(images.iterdir())]
    (home / "photos" / "captions.jsonl").write_text("".join(rows))
    (home / "photos" / "notes.json").write_text("years of work")
    (home / "link").symlink_to("photos")
    before = content(home)
    monkeypatch.chdir(home)
    captions = "photos/captions.jsonl"
    with_model = ["--model", adapter, "--device", "cpu"]
    folders = [[*arguments, "--output", place] for place in ("photos", "link", ".") for arguments in (
        ["train", captions, "--max-steps", 1, "--overwrite", *QUICK],
        ["embed", "photos", *with_model, "--overwrite"],
        ["embed", captions, *with_model],
        ["sample-data", "--count", 3, "--overwrite"],
        ["demo"],
    )]  # fmt: skip
    files = [[*arguments, "--output", place] for place in ("photos/notes.json", "link/notes.json") for arguments in (
        ["eval", captions, *with_model],
        ["leakage", captions, captions],
        ["doctor", *with_model],
        ["retention", *with_model],
    )]  # fmt: skip
    others = [
        ["mine", captions, *with_model, "--output", captions, "--overwrite"],
        ["facts", captions, "--output", captions],
        ["facts", captions, "--output", "photos/notes.json"],
        ["search", "--like", "0003.png", "--collection", index, "--output", "photos/0000.png"],
        ["index", captions, "--collection", "photos", *with_model],
        ["index", "photos", "--collection", "link", *with_model],
        ["collection", "delete", "photos", "--yes"],
        ["collection", "report", "photos", "--output", "report.html"],
        ["collection", "calibrate", "photos", captions, "--device", "cpu"],
        ["sample-data", "--contact-sheet", "--output", "photos/0000.png"],
        ["retention", *with_model, "--task", "reading", "--num-questions", 2, "--cache-dir", "photos"],
        ["train", captions, "--max-steps", 1, "--cache-dir", "photos", "--output", "new", *QUICK],
        ["cache", "clear", "photos"],
        ["cache", "info", "photos", "--verify"],
    ]
    for arguments in (*folders, *files, *others):
        refused(*arguments)
        assert {name: found for name, found in content(home).items() if not name.startswith("new/")} == before, arguments
