"""CIRR from its own files and from the hub's tables, and the files its evaluation server takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hand_scored import COMMIT, encoded, hit, hub_copy, image, write_json, write_parquet

from slq.benchmarks import load_benchmark
from slq.benchmarks.cirr import write_cirr_submission
from slq.errors import DataError, InputError
from slq.types import Item

pytestmark = pytest.mark.usefixtures("own_cache")

NAMES = [f"dev-{number}-0-img0" for number in range(8)]
GROUPS = ([0, 1, 2, 3, 4, 5], [7, 6, 5, 4, 3, 2])  # members of the two groups; the first is the reference, the second the target


def query(pairid: int, group: list[int], **other: object) -> dict:
    members = [NAMES[number] for number in group]
    target_soft = {members[1]: 1.0, members[2]: 0.5}
    img_set = {"id": pairid, "members": sorted(members), "reference_rank": 0, "target_rank": 1}
    found = {
        "pairid": pairid,
        "reference": members[0],
        "target_hard": members[1],
        "target_soft": target_soft,
        "caption": "make it red.",
        "img_set": img_set,
    }
    return {key: value for key, value in {**found, **other}.items() if value is not None}


def cirr(folder: Path, queries: list[dict] | None = None, split: str = "val") -> Path:
    queries = [query(12, GROUPS[0]), query(34, GROUPS[1])] if queries is None else queries
    write_json(folder / f"captions/cap.rc2.{split}.json", queries)
    write_json(folder / f"image_splits/split.rc2.{split}.json", {name: f"./dev/{name}.png" for name in NAMES})
    for number, name in enumerate(NAMES):
        image(folder / f"dev/{name}.png", number)
    return folder


def test_the_gallery_and_the_groups(tmp_path):
    found = load_benchmark("cirr", cirr(tmp_path), prompts=False)
    whole, subset = found.sets
    assert (whole.name, subset.name) == ("CIRR", "CIRR subset")
    assert whole.queries == {
        "12": Item("make it red.", tmp_path / f"dev/{NAMES[0]}.png"),
        "34": Item("make it red.", tmp_path / f"dev/{NAMES[7]}.png"),
    }
    assert whole.corpus == {name: Item(image=tmp_path / f"dev/{name}.png") for name in NAMES}
    assert whole.qrels == subset.qrels == {"12": {NAMES[1]: 1}, "34": {NAMES[6]: 1}}
    assert whole.excluded == {"12": {NAMES[0]}, "34": {NAMES[7]}} and whole.candidates == {}
    assert {id_: set(names) for id_, names in subset.candidates.items()} == {"12": set(NAMES[1:6]), "34": set(NAMES[2:7])}
    assert whole.depths == (1, 5, 10, 50) and subset.depths == (1, 2, 3)
    assert "the reference image masked" in found.protocol
    assert "NOT the published data: 2 queries in place of 4,181, 8 images in place of 2,297" in found.protocol
    assert whole.corpus[NAMES[3]] is subset.corpus[NAMES[3]] and whole.queries["12"] is subset.queries["12"], "each is embedded once"


def test_perfect_and_constant_scores(tmp_path):
    whole, subset = load_benchmark("cirr", cirr(tmp_path)).sets
    assert hit(whole, 1) == hit(subset, 1) == 1.0
    for one in (whole, subset):
        assert hit(one, 1, "constant") == 0.0
    assert hit(subset, 3, "constant") == 0.0, "five tie, and the answer comes last"
    assert hit(whole, 10, "constant") == 1.0, "ten of seven"


def test_images_may_lie_below_images(tmp_path):
    cirr(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "dev").rename(tmp_path / "images" / "dev")
    assert load_benchmark("cirr", tmp_path).sets[0].failures == ()


def test_prompts_are_the_default_and_captions_stand_as_they_are(tmp_path):
    found = load_benchmark("cirr", cirr(tmp_path))
    assert found == load_benchmark("cirr", tmp_path, prompts=True)
    whole, _ = found.sets
    assert whole.queries["12"].text == "Modify this image with make it red.. Describe modified image in one word:", "its own full stop too"
    assert whole.corpus[NAMES[0]].text == "Describe this image in one word:"
    assert set(found.prompts) == {"query", "corpus"} and "with prompts" in found.protocol


def test_missing_images_count_as_missed(tmp_path):
    cirr(tmp_path)
    for number in (1, 7):  # the target of the first, the reference of the second
        (tmp_path / f"dev/{NAMES[number]}.png").unlink()
    whole, subset = load_benchmark("cirr", tmp_path).sets
    assert [failure.item for failure in whole.failures] == [NAMES[1], NAMES[7]]
    assert set(whole.queries) == {"12", "34"} and NAMES[1] not in whole.corpus and NAMES[1] not in subset.candidates["12"]
    assert hit(whole, 50) == hit(subset, 3) == 0.0
    for name in NAMES:
        (tmp_path / f"dev/{name}.png").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"none of the 8 images is there: .*; fetch NLVR2's images as CIRR's README says"):
        load_benchmark("cirr", tmp_path)


@pytest.mark.parametrize(
    ("queries", "complaint"),
    [
        ([query(1, GROUPS[0], target_hard=None)], r"entry 0: there is no 'target_hard', as in the test split, whose labels are hidden"),
        ([query(1, GROUPS[0]), query(1, GROUPS[1])], "a 'pairid' comes twice"),
        ([query(1, [0, 1, 2, 3])], "the group must hold the reference, the target and four more, not dev-0-0-img0, dev-1"),
        ([query(1, GROUPS[0], target_hard=NAMES[7])], "the group must hold the reference, the target and four more"),
        (
            [query(1, GROUPS[0], reference="dev-9-0-img0", img_set={"members": ["dev-9-0-img0", *NAMES[1:6]]})],
            "dev-9-0-img0 is not in the split",
        ),
        ([query(1, GROUPS[0], caption=None)], "entry 0: 'caption' must be a text, not None"),
        ([query(1, GROUPS[0], img_set={"members": [1]})], r"entry 0: 'members' must hold texts alone, not \[1\]"),
        ([], r"cap.rc2.val.json does not hold a list of entries"),
    ],
)
def test_what_is_wrong_with_the_captions_is_said(tmp_path, queries, complaint):
    with pytest.raises(DataError, match=complaint):
        load_benchmark("cirr", cirr(tmp_path, queries))


def test_missing_files(tmp_path):
    with pytest.raises(
        DataError, match=r"split.rc2.val.json does not exist; clone the branch cirr_dataset of github.com/Cuberick-Orion/CIRR"
    ):
        load_benchmark("cirr", tmp_path)
    cirr(tmp_path)
    write_json(tmp_path / "image_splits/split.rc2.val.json", {NAMES[0]: 7})
    with pytest.raises(DataError, match="the values must be paths of images"):
        load_benchmark("cirr", tmp_path)


# --- the hub ----------------------------------------------------------------------------------------------------------------


def hub(cache: Path, group: object) -> None:
    cell = {"bytes": encoded(0), "path": None}
    rows = [
        {
            "candidate": cell,
            "candidate_id": NAMES[0],
            "target": cell,
            "target_id": NAMES[1],
            "caption": "red",
            "group": group,
            "split": "val",
        }
    ]
    write_parquet(hub_copy(cache / "hub", "royokong/cirr_val") / "data/val-00000-of-00001.parquet", rows)
    images = [{"id": name, "img": {"bytes": encoded(n), "path": f"{name}.png"}, "split": "val"} for n, name in enumerate(NAMES)]
    write_parquet(hub_copy(cache / "hub", "royokong/cirr_imgs", "f" * 40) / "data/val-00000-of-00001.parquet", images)


def test_the_hubs_tables(own_cache):
    hub(own_cache, NAMES[:6])
    found = load_benchmark("cirr", prompts=False)
    whole, subset = found.sets
    assert found.revision == f"{COMMIT}+{'f' * 40}" and set(whole.corpus) == set(NAMES)
    assert whole.excluded == {"0": {NAMES[0]}} and whole.qrels == {"0": {NAMES[1]: 1}}
    assert set(subset.candidates["0"]) == set(NAMES[1:6])
    assert whole.queries["0"] == Item("red", whole.corpus[NAMES[0]].image) and hit(subset, 1) == 1.0
    assert load_benchmark("cirr", revision=found.revision).revision == found.revision
    with pytest.raises(InputError, match=r"from royokong/cirr_val and royokong/cirr_imgs: give 2 revisions joined by '\+'"):
        load_benchmark("cirr", revision="main")


def test_a_table_without_groups_has_no_subset(own_cache):
    hub(own_cache, "7")
    found = load_benchmark("cirr")
    assert [one.name for one in found.sets] == ["CIRR"] and "the copy names no groups, so Recall_subset is left out" in found.protocol


# --- the test split ---------------------------------------------------------------------------------------------------------


def test_the_test_split_has_queries_without_judgements(tmp_path):
    cirr(tmp_path, [query(12, GROUPS[0], target_hard=None, target_soft=None)], "test1")
    found = load_benchmark("cirr", tmp_path, "test")
    whole, subset = found.sets
    assert whole.qrels == subset.qrels == {"12": {}} and whole.excluded == {"12": {NAMES[0]}}
    assert set(subset.candidates["12"]) == set(NAMES[1:6]) and "test split, 1 queries over 8 images" in found.protocol
    assert load_benchmark("cirr", tmp_path, "test").sets[0].queries["12"].text.startswith("Modify this image with make it red.. ")


def test_a_submission(tmp_path):
    ranked = [f"test1-{number}" for number in range(60)]
    files = write_cirr_submission(tmp_path / "out", {"CIRR": {"12": ranked}, "CIRR subset": {"12": ranked[:5]}})
    assert [file.name for file in files] == ["cirr_recall.json", "cirr_recall_subset.json"]
    recall, subset = (json.loads(file.read_text()) for file in files)
    assert recall == {"version": "rc2", "metric": "recall", "12": ranked[:50]}
    assert subset == {"version": "rc2", "metric": "recall_subset", "12": ranked[:3]}


def test_the_test_split_is_not_fetched():
    with pytest.raises(DataError, match="the test split of 'cirr' is read from a local copy"):
        load_benchmark("cirr", variant="test")


@pytest.mark.parametrize(
    ("ranked", "complaint"),
    [
        ({"CIRR": {"12": ["a"] * 60}}, "CIRR needs 50 different images for each query, and '12' has fewer"),
        ({"CIRR subset": {"12": ["a", "b"]}}, "CIRR subset needs 3 different images"),
        ({"hit@1": {}}, "CIRR has no set 'hit@1'; use CIRR or CIRR subset"),
    ],
)
def test_a_wrong_submission_is_refused(tmp_path, ranked, complaint):
    with pytest.raises(InputError, match=complaint):
        write_cirr_submission(tmp_path / "out", ranked)
    assert not (tmp_path / "out").exists()


def test_an_image_that_the_hubs_gallery_lacks(own_cache):
    hub(own_cache, NAMES[:6])
    (gallery,) = (own_cache / "hub").glob("*cirr_imgs/snapshots/*/data/*.parquet")
    write_parquet(gallery, [{"id": NAMES[0], "img": {"bytes": encoded(0), "path": None}}])
    with pytest.raises(DataError, match=r"row 1: the image dev-1-0-img0 is not in royokong/cirr_imgs; take both at matching revisions"):
        load_benchmark("cirr")
