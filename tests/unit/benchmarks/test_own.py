"""The built-in world as a benchmark, and one's own data."""

from __future__ import annotations

import pytest
from hand_scored import hit, write_lines

from slq.benchmarks import load_benchmark, sample
from slq.errors import DataError, InputError
from slq.miniature.export import write_sample_data
from slq.types import Item

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_world_has_five_sets(request):
    found = load_benchmark("miniature", request.getfixturevalue("sample") / "test")
    names = ["explicit, text to image", "explicit, image to text", "knowledge", "composed", "rendered"]
    assert [one.name for one in found.sets] == names
    knowledge, composed = found.sets[2:4]
    assert len(found.sets[0].corpus) == len(knowledge.corpus) == 40 and knowledge.categories
    assert composed.excluded and all(len(ids) == 1 for ids in composed.excluded.values())
    assert "40 images" in found.protocol and found.revision.startswith("sha256:")
    for one in found.sets:
        assert hit(one, 1) == 1.0
    for one in (*found.sets[:2], knowledge):
        assert hit(one, 1, "constant") == 0.0


def test_it_is_drawn_where_there_is_none(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(sample, "_write", lambda folder: write_sample_data(folder, "test", 20))  # 500 take seconds
    first = load_benchmark("miniature")
    (kept,) = (own_cache / "slq" / "benchmarks").iterdir()
    assert kept.name.startswith("miniature-") and len(first.sets[0].corpus) == 20
    monkeypatch.setattr(sample, "_write", lambda folder: pytest.fail("it is there already"))
    assert load_benchmark("miniature").revision == first.revision
    monkeypatch.setattr(sample, "_write", lambda folder: write_sample_data(folder, "test", 20))
    assert load_benchmark("miniature", tmp_path / "world").revision == first.revision
    assert (tmp_path / "world" / "captions.jsonl").is_file()


def test_another_folder_is_not_a_world(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds no captions.jsonl; give a folder written by `slq sample-data`, or an empty one"):
        load_benchmark("miniature", tmp_path)


def test_ones_own_data(tmp_path):
    write_lines(tmp_path / "corpus.jsonl", [{"_id": "a", "text": "bark"}, {"_id": "b", "text": "meow"}])
    write_lines(tmp_path / "queries.jsonl", [{"_id": "q", "text": "what barks", "excluded": ["b"]}])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    found = load_benchmark("beir", tmp_path)
    assert found.sets[0].queries == {"q": Item("what barks")} and found.sets[0].excluded == {"q": {"b"}}
    assert f"{tmp_path.name}, split test, 1 queries over 2 items" in found.protocol and found.revision.startswith("sha256:")
    with pytest.raises(DataError, match=r"dev.tsv does not exist; choose a split that the folder has: test"):
        load_benchmark("beir", tmp_path, "dev")


def test_what_they_do_not_have_is_refused():
    with pytest.raises(DataError, match=r"'beir' is for data of your own; give the folder that holds corpus.jsonl"):
        load_benchmark("beir")
    with pytest.raises(InputError, match="the benchmark 'miniature' has no prompts; leave them out"):
        load_benchmark("miniature", prompts=True)
    with pytest.raises(InputError, match="'beir' has no revisions on the hub; leave out the revision 'main'"):
        load_benchmark("beir", revision="main")
