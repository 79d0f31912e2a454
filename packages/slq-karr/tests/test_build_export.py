"""Exporting a set: whose word decides, both layouts as the readers take them, and the way from command line to scores."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import types
from pathlib import Path

import pytest
from endpoint import ScriptedEndpoint
from picture_book import PictureBook, find_leaks
from PIL import Image
from slq_karr.candidates import CHECKS, QueryCandidate, write_candidates
from slq_karr.categories import CATEGORIES
from slq_karr.cli.app import app as karr
from slq_karr.export import export
from slq_karr.gallery import Source, gather

from slq.benchmarks import load_benchmark
from slq.cli.app import execute, main
from slq.data import read_beir
from slq.errors import DataError, OutputExistsError
from slq.miniature.export import write_sample_data

SETTINGS = {
    "images": "photos",
    "model": "book",
    "prompts": {"rewrite": "abc"},
    "mix": CATEGORIES,
    "captions_only": False,
    "max_positives": 5,
}


def candidate(number: int, query: str, target: str, positives: tuple[int, ...] = (), failed: str = "") -> QueryCandidate:
    image = f"images/{number:04d}.png"
    verdicts = {check: {"passed": check != failed, "why": ""} for check in CHECKS}
    shown = [image, *(f"images/{other:04d}.png" for other in positives)]
    return QueryCandidate(f"q{number:04d}", image, f"a {target}", target, (), "functional", query, verdicts, shown)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A set of five images: two queries accepted, one rejected by a check, two images without a query."""
    source = tmp_path / "photos"
    source.mkdir()
    for number in range(5):
        Image.new("RGB", (8, 8), (50 * number, 0, 0)).save(source / f"{number}.png")
    out = tmp_path / "set"
    gather(Source(tuple((source / f"{n}.png", f"{n}.png", (f"image {n}",)) for n in range(5)), ()), out)
    (out / "settings.json").write_text(json.dumps(SETTINGS))
    candidates = [
        candidate(1, "it purrs", "cat", (2, 4)),
        candidate(2, "it barks", "dog"),
        candidate(3, "it moos", "cow", failed="surface"),
    ]
    write_candidates(out, candidates, [])
    return out


def review(folder: Path, *decisions: tuple[str, str, str, str]) -> None:
    rows = [
        {"candidate": c, "reviewer": r, "decision": d, "query": q, "note": "", "time": "2026-11-25T08:00:00+00:00"}
        for c, r, d, q in decisions
    ]
    with (folder / "reviews.jsonl").open("a") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def exported_queries(folder: Path, out: Path, **options) -> dict[str, str]:
    export(folder, out, find_leaks=find_leaks, **options)
    return {row["_id"]: row["text"] for row in map(json.loads, (out / "karr.jsonl").read_text().splitlines())}


def test_both_layouts_are_read(made, tmp_path):
    out = tmp_path / "out"
    found = export(made, out, find_leaks=find_leaks)
    assert (found.queries, found.images, found.categories, found.warnings) == (2, 2, {"functional": 2}, ())
    to_image, to_text = load_benchmark("karr", out).sets
    assert {id_: item.text for id_, item in to_image.queries.items()} == {"q0001": "it purrs", "q0002": "it barks"}
    assert list(to_image.corpus) == ["images/0001.png", "images/0002.png"] and to_image.failures == ()
    assert to_image.qrels == {"q0001": {"images/0001.png": 1, "images/0002.png": 1}, "q0002": {"images/0002.png": 1}}
    assert to_text.qrels["images/0002.png"] == {"q0001": 1, "q0002": 1}
    small, whole = read_beir(out), read_beir(out / "whole-gallery")
    assert small.qrels == to_image.qrels and list(small.corpus) == list(to_image.corpus) and small.categories == to_image.categories
    assert len(whole.corpus) == 5 and whole.failures == ()
    assert list(whole.qrels["q0001"]) == ["images/0001.png", "images/0002.png", "images/0004.png"]


def test_each_query_says_where_it_came_from(made, tmp_path):
    review(made, ("q0001", "ada", "edit", "it rumbles when stroked"))
    export(made, tmp_path / "out", find_leaks=find_leaks)
    row = json.loads((tmp_path / "out/karr.jsonl").read_text().splitlines()[0])
    assert row["source"] == "0.png" and row["written_by"] == "book" and len(row["sha256"]) == 64
    assert (row["target"], row["caption"], row["before_editing"]) == ("cat", "a cat", "it purrs")
    assert row["reviews"] == {"reviewers": 1, "approved": 1} and row["checks"] == dict.fromkeys(CHECKS, True)
    card = (tmp_path / "out/README.md").read_text()
    assert "2 queries, none of which names what it is after, over 2 images; 5 with those that have no query." in card
    assert "| functional | 2 | 100.0 % | 17.4 % |" in card and "| logic and maths | 0 | 0.0 % | 11.4 % |" in card
    assert "3 queries were written. The checks rejected: surface 1." in card
    assert "People reviewed 1 of the 2 selected queries, 1.0 reviewers each, and edited 1." in card


@pytest.mark.parametrize(
    ("decisions", "queries"),
    [
        ([], {"q0001": "it purrs", "q0002": "it barks"}),
        ([("q0001", "ada", "reject", "")], {"q0002": "it barks"}),
        ([("q0001", "ada", "reject", ""), ("q0001", "bob", "accept", "it purrs")], {"q0002": "it barks"}),
        (
            [("q0001", name, "accept", "it purrs") for name in ("ada", "bob")] + [("q0001", "eve", "reject", "")],
            {"q0001": "it purrs", "q0002": "it barks"},
        ),
        ([("q0001", "ada", "edit", "it meows")], {"q0001": "it meows", "q0002": "it barks"}),
        ([("q0001", "ada", "edit", "it meows"), ("q0001", "bob", "edit", "it naps")], {"q0001": "it naps", "q0002": "it barks"}),
        ([("q0001", "ada", "edit", "it meows"), ("q0001", "bob", "accept", "it purrs")], {"q0001": "it meows", "q0002": "it barks"}),
        ([("q0001", "ada", "reject", ""), ("q0001", "ada", "accept", "it purrs")], {"q0001": "it purrs", "q0002": "it barks"}),
        ([("q0003", "ada", "accept", "it moos")], {"q0001": "it purrs", "q0002": "it barks", "q0003": "it moos"}),
    ],
    ids=["none", "rejected", "tie", "majority", "edit", "latest edit", "edit beside accept", "latest of a reviewer", "over a check"],
)
def test_reviewers_decide(made, tmp_path, decisions, queries):
    review(made, *decisions)
    assert exported_queries(made, tmp_path / "out") == queries


def test_reviewed_only(made, tmp_path):
    review(made, ("q0002", "ada", "accept", "it barks"))
    assert exported_queries(made, tmp_path / "out", reviewed_only=True) == {"q0002": "it barks"}


def test_an_edit_that_leaks_is_pointed_out(made, tmp_path):
    review(made, ("q0001", "ada", "edit", "a cat that purrs"))
    (warning,) = export(made, tmp_path / "out", find_leaks=find_leaks).warnings
    assert warning.startswith("q0001 was edited to 'a cat that purrs', which names its target 'cat'")


def test_broken_reviews_are_pointed_out_and_undone_ones_do_not_count(made, tmp_path):
    review(made, ("q0001", "ada", "maybe", ""), ("q0002", "ada", "reject", ""))
    with (made / "reviews.jsonl").open("a") as stream:
        stream.write(json.dumps({"candidate": "q0002", "reviewer": "ada", "decision": "undecided", "query": "", "undo": True}) + "\n{torn")
    found = export(made, tmp_path / "out", find_leaks=find_leaks)
    assert found.queries == 2
    assert found.warnings == ("reviews.jsonl line 1: unknown decision 'maybe'; this review does not count",)


def test_reviews_of_another_set_are_refused(made, tmp_path):
    review(made, ("q0009", "ada", "accept", ""))
    with pytest.raises(DataError, match="reviews 'q0009', which the set does not hold"):
        export(made, tmp_path / "out", find_leaks=find_leaks)
    assert not (tmp_path / "out").exists()


def test_nothing_to_keep(made, tmp_path):
    review(made, *[(f"q000{n}", "ada", "reject", "") for n in (1, 2)])
    with pytest.raises(DataError, match="of 3 candidates none was accepted"):
        export(made, tmp_path / "out", find_leaks=find_leaks)
    with pytest.raises(DataError, match=r"holds no candidates.jsonl"):
        export(tmp_path, tmp_path / "out", find_leaks=find_leaks)


def test_only_an_earlier_export_is_replaced(made, tmp_path):
    out = tmp_path / "out"
    export(made, out, find_leaks=find_leaks)
    with pytest.raises(OutputExistsError, match="exists already"):
        export(made, out, find_leaks=find_leaks)
    review(made, ("q0001", "ada", "reject", ""))
    assert export(made, out, overwrite=True, find_leaks=find_leaks).queries == 1
    (out / "images" / "cat.jpg").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds images/cat\.jpg, which slq did not write there"):
        export(made, out, overwrite=True, find_leaks=find_leaks)
    assert (out / "images" / "cat.jpg").read_text() == "mine"
    with pytest.raises(OutputExistsError, match=r"has no \.slq\.json"):
        export(made, tmp_path / "photos", overwrite=True, find_leaks=find_leaks)


def slq(*arguments: object) -> tuple[int, str]:
    """Run a command; the exit code, and what it printed on both streams."""
    given, said = [str(each) for each in arguments], io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = execute(lambda: karr, given[1:]) if given[0] == "karr" else main(given)
    return code, said.getvalue()


@pytest.fixture
def stand_in(monkeypatch) -> None:
    """The command line looks for leaks with the stand-in, whatever dictionaries are installed."""
    module = types.ModuleType("slq_karr.leaks")
    module.find_leaks = find_leaks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "slq_karr.leaks", module)


@pytest.mark.usefixtures("stand_in")
def test_from_the_command_line_to_scores(tmp_path, monkeypatch):
    monkeypatch.setenv("KARR_KEY", "secret")
    write_sample_data(tmp_path / "world", "test", 16)
    made, out = tmp_path / "set", tmp_path / "out"
    with ScriptedEndpoint(PictureBook(tmp_path / "world")) as server:
        asked = (
            "--endpoint",
            server.url,
            "--model",
            "book",
            "--api-key-env",
            "KARR_KEY",
            "--price-in",
            1,
            "--price-out",
            2,
            "--max-cost",
            9,
        )
        code, built = slq(
            "karr", "build", "--images", tmp_path / "world", "--output", made, "--count", 6, "--mix", "functional=1,logic_maths=1", *asked
        )
        assert set(server.keys) == {"Bearer secret"}
    assert code == 0 and "queries accepted in" in built and "the set has cost 0.0" in built
    code, written = slq("karr", "export", made, "--output", out)
    assert code == 0 and "6 queries over 6 images written" in written
    code, scored = slq("eval", out, "--benchmark", "karr", "--output", tmp_path / "scores.json", "--device", "cpu")
    assert code == 0 and "logic_maths" in scored and "6 queries over 6 images" in scored
    result = json.loads((tmp_path / "scores.json").read_text())
    assert result["benchmark"]["name"] == "karr" and "NaN" not in (tmp_path / "scores.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--model is missing"),
        (["--endpoint", "x/v1", "--model", "m"], "'x/v1' is not an address"),
        (["--endpoint", "http://x/v1", "--model", "m", "--api-key-env", "NO_SUCH"], "NO_SUCH holds no key"),
        (["--endpoint", "http://x/v1", "--model", "m", "--max-cost", "1"], "--price-in and --price-out"),
        (["--endpoint", "http://x/v1", "--model", "m", "--mix", "wit=1"], "The mix 'wit=1' is wrong"),
        (["--endpoint", "http://x/v1", "--model", "m", "--fields", "[1]"], "a JSON object"),
        (["--endpoint", "http://x/v1", "--model", "m", "--prompts", "nowhere"], "no folder of prompts nowhere"),
    ],
)
def test_wrong_options_are_told(tmp_path, arguments, complaint):
    code, said = slq("karr", "build", "--images", tmp_path, "--output", tmp_path / "set", *arguments)
    assert code in (1, 2) and complaint in said
    assert not (tmp_path / "set").exists()
