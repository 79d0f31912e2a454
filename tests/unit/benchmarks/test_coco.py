"""COCO and Flickr30K from Karpathy's file and from tables, and their captions rendered as images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hand_scored import COMMIT, encoded, hit, hub_copy, image, write_json, write_parquet

from slq.benchmarks import load_benchmark
from slq.benchmarks.rendered import SIZE, render_text, rendered_file
from slq.data import open_image
from slq.errors import DataError, InputError
from slq.types import Item

pytestmark = pytest.mark.usefixtures("own_cache")


def entry(number: int, captions: list[str], split: str = "test", below: str | None = "val2014") -> dict:
    sentences = [{"raw": text, "tokens": text.split(), "imgid": number, "sentid": number * 10 + n} for n, text in enumerate(captions)]
    found = {"filename": f"COCO_val2014_{number:012d}.jpg", "imgid": number, "split": split, "cocoid": number, "sentences": sentences}
    return {"filepath": below, **found} if below else found


def captions(number: int, count: int = 5) -> list[str]:
    return [f"caption {n} of {number}" for n in range(count)]


def karpathy(folder: Path, entries: list[dict], name: str = "coco") -> Path:
    return write_json(folder / f"dataset_{name}.json", {"images": entries, "dataset": name})


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Three test images, the second with seven captions, the third sharing one word for word with the first; one of training."""
    shared = [*captions(3, 4), "caption 0 of 1"]
    karpathy(tmp_path, [entry(1, captions(1)), entry(2, captions(2, 7)), entry(9, captions(9), "restval"), entry(3, shared)])
    for number in (1, 2, 3):
        image(tmp_path / f"val2014/COCO_val2014_{number:012d}.jpg", number)
    return tmp_path


FIRST, SECOND, THIRD = (f"COCO_val2014_{number:012d}.jpg" for number in (1, 2, 3))


def test_karpathys_file_gives_both_ways(coco):
    found = load_benchmark("coco", coco)
    to_image, to_text = found.sets
    assert (to_image.name, to_text.name) == ("text to image", "image to text")
    assert to_image.corpus == {name: Item(image=coco / "val2014" / name) for name in (FIRST, SECOND, THIRD)}
    assert len(to_image.queries) == 15 and to_image.queries[f"{SECOND}#4"] == Item("caption 4 of 2")
    assert to_image.qrels[f"{THIRD}#4"] == {THIRD: 1}, "a caption's one answer is its own image"
    assert to_text.qrels[SECOND] == {f"{SECOND}#{number}": 1 for number in range(5)}
    assert to_text.qrels[FIRST] == {**{f"{FIRST}#{n}": 1 for n in range(5)}, f"{THIRD}#4": 1}, "nothing can tell equal captions apart"
    assert to_image.depths == (1, 5, 10) and found.averages == {} and found.prompts == {}
    assert all(to_image.corpus[name] is to_text.queries[name] for name in to_image.corpus), "each is embedded once"


def test_all_captions(coco):
    to_image, to_text = load_benchmark("coco", coco, "all").sets
    assert len(to_image.queries) == len(to_text.corpus) == 17 and f"{SECOND}#6" in to_text.qrels[SECOND]


def test_the_protocol_says_what_is_not_the_published_data(coco):
    said = load_benchmark("coco", coco).protocol
    assert "Karpathy's test split, 3 images with the first five captions of each (15), both ways, without prompts" in said
    assert said.endswith("; NOT the published data: 3 images in place of 5,000, 15 captions in place of 25,000.")
    assert "all captions (17)" in load_benchmark("coco", coco, "all").protocol


def test_perfect_and_constant_scores(coco):
    for one in load_benchmark("coco", coco).sets:
        assert hit(one, 1) == 1.0
        assert hit(one, 1, "constant") == 0.0
        assert 0 < hit(one, 1, "random") < 1


def test_flickr_has_no_filepath(tmp_path):
    karpathy(tmp_path, [entry(1, captions(1), below=None)], "flickr30k")
    kept = image(tmp_path / "flickr30k-images" / FIRST)
    assert load_benchmark("flickr30k", tmp_path).sets[0].corpus == {FIRST: Item(image=kept)}


def test_a_missing_image_counts_as_missed(coco):
    (coco / "val2014" / SECOND).unlink()
    to_image, to_text = load_benchmark("coco", coco).sets
    for one in (to_image, to_text):
        assert [failure.item for failure in one.failures] == [SECOND]
        assert f"the image val2014/{SECOND} or {SECOND} is not in {coco} or" in one.failures[0].reason
    assert set(to_image.corpus) == {FIRST, THIRD} and set(to_text.queries) == {FIRST, SECOND, THIRD}
    assert hit(to_image, 10) == 10 / 15
    assert hit(to_text, 10) == 2 / 3


def test_prompts_are_put_around_the_items(coco):
    found = load_benchmark("coco", coco, prompts=True)
    to_image, to_text = found.sets
    assert set(found.prompts) == {"image", "text"} and "with E5-V's prompts" in found.protocol
    assert to_image.queries[f"{FIRST}#1"] == Item("caption 1 of 1\nSummary above sentence in one word:")
    assert to_text.queries[FIRST] == Item("Summary above image in one word:", coco / "val2014" / FIRST)


def test_the_revision_follows_the_annotations(coco):
    first = load_benchmark("coco", coco).revision
    assert first.startswith("sha256:") and first == load_benchmark("coco", coco, "all").revision
    karpathy(coco, [entry(1, captions(1)), entry(2, captions(2))])
    assert load_benchmark("coco", coco).revision != first


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([entry(1, captions(1), "train"), entry(2, captions(2), "val")], r"no image of the split test, only of train \(1\), val \(1\)"),
        ([entry(1, captions(1, 3))], r"has 3 caption\(s\), and five are scored; use the variant 'all'"),
        ([entry(1, captions(1)), entry(1, captions(1))], "image 2: repeats the image COCO"),
        ([entry(1, [])], "image 1: 'sentences' is missing or empty"),
        ([{**entry(1, captions(1)), "split": None}], "image 1: has no 'split'"),
        ([], "no image of the split test, only of none"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(tmp_path, entries, complaint):
    karpathy(tmp_path, entries)
    image(tmp_path / "val2014" / FIRST)
    with pytest.raises(DataError, match=complaint):
        load_benchmark("coco", tmp_path)


def test_wrong_folders(tmp_path, coco):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds neither dataset_flickr30k.json nor test-\*.parquet; put Karpathy's file there"):
        load_benchmark("flickr30k", tmp_path / "empty")
    with pytest.raises(DataError, match="does not exist; give the folder of a local copy, as `slq benchmarks coco` shows it"):
        load_benchmark("coco", tmp_path / "no")
    with pytest.raises(DataError, match=r"dataset_coco.json is a file; give the folder"):
        load_benchmark("coco", coco / "dataset_coco.json")
    (coco / "dataset_coco.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset_coco.json is not valid JSON .*; fetch the file again"):
        load_benchmark("coco", coco)
    (coco / "dataset_coco.json").write_text("[]")
    with pytest.raises(DataError, match="has no list 'images'"):
        load_benchmark("coco", coco)


def test_all_images_missing(tmp_path):
    karpathy(tmp_path, [entry(1, captions(1)), entry(2, captions(2))])
    with pytest.raises(DataError, match=r"none of the 2 images is there: .*000001.jpg is not in .*; unpack the images beside"):
        load_benchmark("coco", tmp_path)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"name": "coc"}, "Unknown name 'coc' in slq.benchmarks: .* Did you mean 'coco'"),
        ({"name": "coco", "variant": "six"}, "'coco' has no variant 'six'; choose one of five, all"),
        ({"name": "coco", "revision": "main"}, "a local copy has no revisions, only the hub has"),
    ],
)
def test_what_does_not_exist_is_refused(coco, asked, complaint):
    with pytest.raises(InputError, match=complaint):
        load_benchmark(data=coco, **asked)


# --- tables, as on the hub --------------------------------------------------------------------------------------------------


def rows() -> list[dict]:
    return [{"image": {"bytes": encoded(n), "path": f"{n}.png"}, "text": captions(n), "sentids": [1]} for n in range(3)]


@pytest.mark.parametrize("name", ["test-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "coco.parquet"])
def test_tables_hold_the_images(tmp_path, own_cache, name):
    write_parquet(tmp_path / name, rows())
    to_image, to_text = load_benchmark("coco", tmp_path).sets
    assert list(to_image.corpus) == ["0.png", "1.png", "2.png"] and to_image.failures == ()
    kept = to_image.corpus["2.png"].image
    assert kept.is_relative_to(own_cache / "slq" / "images") and kept.read_bytes() == encoded(2), "a file, so that none stays in memory"
    assert open_image(kept).getpixel((0, 0)) == (2, 0, 0) and to_image.corpus["2.png"].content_hash
    assert hit(to_image, 1) == hit(to_text, 1) == 1.0
    assert load_benchmark("coco", tmp_path).sets[0].corpus == to_image.corpus


def test_rows_without_their_image(tmp_path):
    broken = [
        {"image": {"bytes": None, "path": None}, "text": captions(7)},
        {"image": {"bytes": None, "path": "no.png"}, "text": captions(8)},
    ]
    write_parquet(tmp_path / "test.parquet", [*rows(), *broken])
    to_image, _ = load_benchmark("coco", tmp_path).sets
    assert [failure.item for failure in to_image.failures] == ["3", "no.png"]
    assert "neither 'bytes' nor 'path'" in to_image.failures[0].reason and "no.png does not exist" in to_image.failures[1].reason
    assert hit(to_image, 1) == 15 / 25
    write_parquet(tmp_path / "test.parquet", broken)
    with pytest.raises(DataError, match="none of the 2 images is there"):
        load_benchmark("coco", tmp_path)


def test_tables_of_another_split_or_kind(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00001.parquet", rows())
    with pytest.raises(DataError, match=r"holds no table of the split 'test', only of train; fetch test-\*.parquet"):
        load_benchmark("coco", tmp_path)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [{"image": "a.png", "caption": "b"}])
    with pytest.raises(DataError, match="has the columns image, caption; it must have 'image' and 'text'"):
        load_benchmark("coco", tmp_path)


def test_the_hub(own_cache):
    with pytest.raises(DataError, match=r"'royokong/coco_test' is not on this machine, and .*; connect and try again, or give the folder"):
        load_benchmark("coco")
    write_parquet(hub_copy(own_cache / "hub", "royokong/coco_test") / "data/test-00000-of-00001.parquet", rows())
    found = load_benchmark("coco")
    assert found.revision == COMMIT and len(found.sets[0].corpus) == 3
    assert load_benchmark("coco", revision=COMMIT).revision == COMMIT
    with pytest.raises(InputError, match=r"the data comes from royokong/coco_test: give 1 revisions joined by '\+', not 'a\+b'"):
        load_benchmark("coco", revision="a+b")


# --- captions as images ---------------------------------------------------------------------------------------------------


def test_rendered_captions(coco):
    (coco / "dataset_coco.json").rename(coco / "dataset_flickr30k.json")
    found = load_benchmark("i2i", coco)
    to_image, to_rendered = found.sets
    rendered = to_image.queries[f"{FIRST}#0"]
    assert rendered.text is None and rendered.image == rendered_file("caption 0 of 1")
    assert to_image.qrels[f"{SECOND}#1"] == {SECOND: 1} and f"{THIRD}#4" in to_rendered.qrels[FIRST]
    assert "rendered black on white, centred from top to bottom (800 x 400, DejaVu Sans " in found.protocol and "40 pt" in found.protocol
    assert hit(to_image, 1) == hit(to_rendered, 1) == 1.0 and hit(to_rendered, 1, "constant") == 0.0
    prompted = load_benchmark("i2i", coco, prompts=True)
    assert prompted.sets[0].queries[f"{FIRST}#0"] == Item("Summary above image in one word:", rendered.image)


def test_i2i_of_coco_is_a_variant(coco):
    assert "COCO 5K" in load_benchmark("i2i", coco, "coco").protocol


def ink(text: str) -> np.ndarray:
    return np.asarray(render_text(text)) < 128


def test_text_is_rendered_the_same_each_time_and_fits():
    long = "a man in a red jacket rides a wave on top of a surfboard while his friends look on from the shore " * 5
    assert (ink("a cat") == ink("a cat")).all() and (ink("a cat") != ink("a hat")).any()
    assert (ink("one  two\nthree") == ink("one two three")).all()
    for text in ("a cat", "Wrapped " * 12, long, "x" * 200):
        rendered = ink(text)
        assert rendered.shape == SIZE[::-1] and rendered.any()
        assert not rendered[-4:].any() and not rendered[:, -4:].any(), "nothing runs out of the image"
    missing = ink("\ue123")
    assert all((ink(letter) != missing).any() for letter in "é“”ñ"), "letters, not the box for what a font lacks"


@pytest.mark.parametrize("words", [1, 12, 40])
def test_texts_stand_in_the_middle_and_begin_at_the_left(words):
    found = ink("Wrapped " * words)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert abs(rows[0] + rows[-1] - SIZE[1]) <= 20 and 18 <= columns[0] <= 26


def test_words_go_on_the_next_line():
    rows = ink("Wrapped " * 12).any(axis=1)
    assert np.count_nonzero(np.diff(rows.astype(int)) == 1) >= 3
    assert not rows[300:].any(), "40 points while it fits"
