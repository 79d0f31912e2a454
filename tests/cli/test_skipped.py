"""Bad items in bulk commands: listed, counted in the closing line and the JSON, and past a fraction the command stops."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import QUICK, invoke, run


@pytest.fixture
def photos(images: Path, tmp_path: Path) -> Path:
    """Six images, two of them damaged, and a file of captions for them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        shutil.copyfile(images / f"{number:04d}.png", folder / f"{number}.png")
    (folder / "4.png").write_bytes(b"no image")
    (folder / "5.png").write_bytes((folder / "0.png").read_bytes()[:60])
    rows = [{"image": f"{number}.png", "caption": f"the image of number {number}"} for number in range(6)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"image": "none.png", "caption": "x"}]))
    return folder


def embed(photos: Path, adapter: Path, *options: object):
    return ["embed", photos, "-m", adapter, "-o", photos.parent / "index", "--device", "cpu", *options]


def test_embed_lists_and_counts_them(photos, adapter):
    said = invoke(*embed(photos, adapter))
    assert "2 item(s) skipped" in said.stderr and "4.png: " in said.stderr and "5.png: " in said.stderr
    assert "4 items encoded" in said.stdout and "2 skipped" in said.stdout
    found = json.loads(invoke(*embed(photos, adapter, "--json", "--overwrite")).stdout)
    assert (found["count"], found["skipped"]) == (4, 2)


@pytest.mark.parametrize(("most", "code"), [("0", 1), ("0.3", 1), ("0.34", 0), ("1", 0), ("1.1", 2), ("-0.1", 2), ("nan", 2)])
def test_past_a_fraction_embed_stops_and_writes_nothing(photos, adapter, most, code):
    said = run(*embed(photos, adapter, "--max-skipped", most))
    assert said.code == code
    assert (photos.parent / "index").exists() == (code == 0)
    if code == 1:
        assert "4.png: " in said.stderr and "5.png: " in said.stderr, "they are listed before it stops"
        assert f"2 of 6 items cannot be used, more than the fraction {most} of --max-skipped" in said.stderr


def commands(photos: Path, adapter: Path) -> dict[str, list[object]]:
    captions = photos / "captions.jsonl"
    return {
        "train": ["train", captions, "-o", photos.parent / "trained", "--max-steps", 1, "--validation-split", 0, *QUICK],
        "eval": ["eval", captions, "-m", adapter, "--device", "cpu"],
        "mine": [
            "mine",
            captions,
            "-m",
            adapter,
            "-o",
            photos.parent / "mined.jsonl",
            "--num-negatives",
            1,
            "--absolute-margin",
            -2,
            "--device",
            "cpu",
        ],
        "leakage": ["leakage", captions, captions],
    }


@pytest.mark.parametrize("command", ["train", "eval", "mine", "leakage"])
def test_the_other_commands_do_so_too(photos, adapter, command):
    arguments = commands(photos, adapter)[command]
    said = run(*arguments, "--max-skipped", "0.05")
    assert said.code == 1 and "--max-skipped" in said.stderr and "captions.jsonl line 7" in said.stderr
    said = run(*arguments)
    assert said.code == (1 if command == "leakage" else 0), said.output
    for name in ("captions.jsonl line 7", "none.png", *([] if command == "leakage" else ["truncated or damaged", "not an image"])):
        assert name in said.stderr
    if command != "train":
        assert "skipped" in said.stdout
        found = json.loads(run(*arguments, "--json", *(["--overwrite"] if command == "mine" else [])).stdout)
        assert found["num_skipped" if command == "leakage" else "skipped"] >= 3
