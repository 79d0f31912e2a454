"""Reviewing a set, without a browser: the file of decisions under crashes and company, who may see what, and what the server refuses."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from slq_karr.candidates import read_candidates
from slq_karr.review.decisions import Decision, ReviewLog, read_decisions
from slq_karr.review.server import ReviewServer
from slq_karr.review.session import Review

from slq.errors import DataError, ImageError, InputError, OutputError

CATEGORIES = ("logic_maths", "functional", "tool_utility")


def make_set(folder: Path, count: int = 6) -> Path:
    """A set of `count` candidates (q0001, ...) with images, every other one failing a check."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(1, count + 1):
        image = f"images/{number:04}.png"
        Image.new("RGB", (64, 48), (40 * number % 256, 90, 120)).save(folder / image)
        verdicts = {
            "leak": {"passed": True, "why": ""},
            "answerable": {"passed": bool(number % 2), "why": "", "answer": "cat"},
        }
        query = f"the animal with (2+7) lives, number {number}"
        line = {"id": f"q{number:04}", "image": image, "caption": f"a cat, {number}", "target": "cat", "query": query}
        lines.append({**line, "category": CATEGORIES[number % 3], "verdicts": verdicts, "positives": [], "accepted": bool(number % 2)})
    (folder / "candidates.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def decision(candidate: str, reviewer: str = "ada", choice: str = "accept", query: str = "a query") -> Decision:
    return Decision(candidate, reviewer, choice, query, time="2026-11-25T08:00:00+00:00")


@pytest.fixture
def karr_set(tmp_path):
    return make_set(tmp_path / "set")


@pytest.fixture
def server(karr_set):
    with ReviewServer(Review(karr_set)) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def request(server, method, path, body=None, **headers):
    """Status, headers and body of an answer; a text body is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    given = {"Host": f"127.0.0.1:{server.server_port}", **({"Content-Type": "application/json"} if method == "POST" else {})}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body if isinstance(body, str | None) else json.dumps(body), given)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data


def decide(server, candidate, choice, reviewer="ada", **more):
    status, _, data = request(server, "POST", "/decide", {"reviewer": reviewer, "candidate": candidate, "decision": choice, **more})
    return status, json.loads(data)


def view(server, candidate, reviewer="ada"):
    state = json.loads(request(server, "GET", f"/state?reviewer={reviewer}")[2])
    return next(each for each in state["candidates"] if each["id"] == candidate)


# ---- the file of decisions


def test_a_decision_is_one_line_in_the_shared_format(karr_set):
    Review(karr_set).decide("ada", "q0002", "edit", "  the pet of\nBastet ", "tidier")
    [line] = [json.loads(line) for line in (karr_set / "reviews.jsonl").read_text(encoding="utf-8").splitlines()]
    assert list(line) == ["candidate", "reviewer", "decision", "query", "note", "time"]
    assert line | {"time": ""} == {
        **{"candidate": "q0002", "reviewer": "ada", "decision": "edit", "query": "the pet of Bastet", "note": "tidier", "time": ""}
    }


def test_a_decision_is_on_the_disk_before_anybody_is_told(karr_set, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    Review(karr_set).decide("ada", "q0001", "accept")
    assert (karr_set / "reviews.jsonl").stat().st_size in synced


def test_the_latest_line_of_a_reviewer_counts(tmp_path):
    log = ReviewLog(tmp_path / "reviews.jsonl")
    for each in (decision("q1"), decision("q1", "grace", "reject"), decision("q1", choice="reject")):
        log.append(each)
    again = ReviewLog(tmp_path / "reviews.jsonl").histories
    assert again.latest("ada")["q1"].decision == again.latest("grace")["q1"].decision == "reject"
    assert again.first("ada")["q1"].decision == "accept"


@pytest.mark.parametrize(
    ("torn", "left"),
    [
        ('{"candidate": "q2", "reviewer": "ad', ["q1"]),
        ('{"candidate": "q2", "reviewer": "ada", "decision": "accept", "query": "a"}', ["q1", "q2"]),
        ("\x00\x00\x00", ["q1"]),
    ],
)
def test_a_torn_last_line_is_dropped_and_the_next_one_is_whole(tmp_path, torn, left):
    path = tmp_path / "reviews.jsonl"
    ReviewLog(path).append(decision("q1"))
    with path.open("a", encoding="utf-8") as file:
        file.write(torn)
    assert [each.candidate for each in read_decisions(path)[0]] == left
    ReviewLog(path).append(decision("q3"))
    decisions, failures = read_decisions(path)
    assert [each.candidate for each in decisions] == [*left, "q3"] and not failures


def test_a_line_torn_by_another_process_while_the_server_runs(tmp_path):
    path = tmp_path / "reviews.jsonl"
    log = ReviewLog(path)
    log.append(decision("q1"))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"candidate": "q2", "rev')
    log.refresh()
    log.append(decision("q3"))
    assert sorted(log.histories.latest("ada")) == ["q1", "q3"] and not log.failures


def test_a_damaged_line_costs_only_itself(tmp_path):
    path = tmp_path / "reviews.jsonl"
    path.write_text('{"candidate": 1}\nnot json\n', encoding="utf-8")
    log = ReviewLog(path)
    log.append(decision("q1"))
    assert [failure.item for failure in log.failures] == ["reviews.jsonl line 1", "reviews.jsonl line 2"]
    assert list(log.histories.latest("ada")) == ["q1"]
    assert [len(each) for each in read_decisions(path)] == [1, 2]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "reviews.jsonl"
    log = ReviewLog(path)
    log.append(decision("q1"))
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"not saved.*No space left"):
        log.append(decision("q2"))
    assert path.read_bytes() == before and list(log.histories.latest("ada")) == ["q1"]


def append_many(path: Path, reviewer: str, count: int) -> None:
    log = ReviewLog(path)
    for number in range(count):
        log.append(decision(f"q{number}", reviewer, query="x" * 3000))


def test_two_processes_on_one_file_lose_no_line(tmp_path):
    path = tmp_path / "reviews.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=append_many, args=(path, name, 40)) for name in ("ada", "grace")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    decisions, failures = read_decisions(path)
    assert not failures and len(decisions) == 80
    assert {(each.reviewer, each.candidate) for each in decisions} == {(name, f"q{n}") for name in ("ada", "grace") for n in range(40)}


def test_two_reviewers_at_once_on_one_server_lose_no_line(server, karr_set):
    jobs = [(f"q{1 + number % 6:04}", ("ada", "grace")[number % 2]) for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda job: decide(server, job[0], "accept", job[1])[0], jobs))
    assert statuses == [200] * 60
    decisions, failures = read_decisions(karr_set / "reviews.jsonl")
    assert sorted((each.candidate, each.reviewer) for each in decisions) == sorted(jobs) and not failures


# ---- undoing


def test_undo_goes_back_step_by_step_and_survives_a_restart(karr_set):
    review = Review(karr_set)
    review.decide("ada", "q0001", "accept")
    review.decide("ada", "q0002", "reject", note="dull")
    review.decide("ada", "q0001", "reject")
    review.decide("grace", "q0001", "reject")
    assert review.undo("ada")["candidate"]["own"]["decision"] == "accept"
    review = Review(karr_set)
    for candidate in ("q0002", "q0001"):
        undone = review.undo("ada")["candidate"]
        assert undone["id"] == candidate and undone["own"] is None
    with pytest.raises(InputError, match="nothing to undo"):
        review.undo("ada")
    latest = {each.candidate: each for each in read_decisions(karr_set / "reviews.jsonl")[0] if each.reviewer == "ada"}
    assert {key: each.decision for key, each in latest.items()} == {"q0001": "undecided", "q0002": "undecided"}
    assert review.state("grace")["progress"] == {"grace": 1}


# ---- who sees what


def test_others_decisions_are_hidden_until_ones_own(server):
    decide(server, "q0001", "reject", "grace", note="too easy")
    assert view(server, "q0001")["others"] == []
    status, answer = decide(server, "q0001", "accept")
    assert status == 200
    [other] = answer["candidate"]["others"]
    assert (other["reviewer"], other["decision"], other["note"]) == ("grace", "reject", "too easy")
    request(server, "POST", "/undo", {"reviewer": "ada"})
    assert view(server, "q0001")["others"] == []


def test_decisions_of_another_process_appear(server, karr_set):
    other = Review(karr_set)
    decide(server, "q0001", "accept")
    other.decide("grace", "q0001", "accept")
    assert [each["reviewer"] for each in view(server, "q0001")["others"]] == ["grace"]


def test_agreement_counts_first_decisions_on_what_both_decided(server):
    for candidate, one, other in (("q0001", "accept", "accept"), ("q0002", "reject", "reject"), ("q0003", "accept", "reject")):
        decide(server, candidate, one)
        decide(server, candidate, other, "grace")
    decide(server, "q0003", "reject")  # after having seen grace's: it does not raise the agreement
    decide(server, "q0004", "accept")
    state = json.loads(request(server, "GET", "/state?reviewer=ada")[2])
    [row] = state["agreement"]
    assert row["reviewers"] == ["ada", "grace"] and row["items"] == 3
    assert row["observed"] == pytest.approx(2 / 3) and row["kappa"] == pytest.approx(0.4)
    assert state["progress"] == {"ada": 4, "grace": 3}


# ---- what is refused


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"candidate": "q9999"}, "no candidate 'q9999'"),
        ({"decision": "maybe"}, "Unknown decision 'maybe'"),
        ({"decision": "undecided"}, "Unknown decision"),
        ({"decision": "edit", "query": "  "}, "needs a new query"),
        ({"decision": "edit", "query": "the animal with (2+7) lives, number 1"}, "needs a new query"),
        ({"reviewer": " "}, "needs a name"),
        ({"reviewer": "a\u0000b"}, "needs a name"),
        ({"note": "x" * 2001}, "at most 2000"),
        ({"note": 3}, "object of texts"),
        ({"extra": "x"}, "object of texts"),
        ('{"reviewer": "\\ud800"}', "not JSON"),
        ("[" * 50_000, "not JSON"),
        ("x" * 70_000, "at most 65536 bytes"),
    ],
)
def test_a_wrong_decision_is_refused_with_a_reason(server, karr_set, body, why):
    sound = {"reviewer": "ada", "candidate": "q0001", "decision": "accept"}
    status, _, data = request(server, "POST", "/decide", body if isinstance(body, str) else {**sound, **body})
    assert status == 400 and why in json.loads(data)["error"]
    assert not (karr_set / "reviews.jsonl").exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Content_Type": "text/plain"},
    ],
)
def test_other_pages_cannot_decide(server, karr_set, headers):
    body = {"reviewer": "ada", "candidate": "q0001", "decision": "accept"}
    assert request(server, "POST", "/decide", body, **headers)[0] == 403
    assert not (karr_set / "reviews.jsonl").exists()
    own = {"Origin": f"http://127.0.0.1:{server.server_port}", "Sec_Fetch_Site": "same-origin"}
    assert request(server, "POST", "/decide", body, **own)[0] == 200


def test_a_foreign_host_gets_nothing(server):
    assert request(server, "GET", "/state?reviewer=ada", Host="evil.example")[0] == 403
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/../candidates.jsonl", "/images/../candidates.jsonl", "/images/%2e%2e%2fcandidates.jsonl", "/nothing"])
def test_an_address_is_never_a_path(server, path):
    status, _, data = request(server, "GET", path)
    assert status in (400, 404) and b"caption" not in data


def test_images_outside_of_the_set_are_left_out(karr_set):
    lines = (karr_set / "candidates.jsonl").read_text(encoding="utf-8").splitlines()
    for image in ("../secret.png", "/etc/passwd", "images/../../secret.png", "..\\secret.png", "C:/secret.png"):
        lines.append(json.dumps({**json.loads(lines[0]), "id": image, "image": image}))
    (karr_set / "candidates.jsonl").write_text("\n".join(lines), encoding="utf-8")
    candidates, failures = read_candidates(karr_set)
    assert len(candidates) == 6 and len(failures) == 5 and all("outside of the set" in failure.reason for failure in failures)


def test_only_images_are_served(server, karr_set):
    status, headers, data = request(server, "GET", "/images/q0001")
    assert status == 200 and headers["Content-Type"] == "image/png" and data == (karr_set / "images/0001.png").read_bytes()
    (karr_set / "secret.txt").write_text("secret", encoding="utf-8")
    (karr_set / "images/0001.png").unlink()
    (karr_set / "images/0001.png").symlink_to(karr_set / "secret.txt")
    (karr_set / "images/0002.png").unlink()
    for candidate in ("q0001", "q0002"):
        assert request(server, "GET", f"/images/{candidate}")[0] == 404
    with pytest.raises(ImageError, match="not an image that a browser shows"):
        Review(karr_set).image("q0001")


def test_the_page_needs_nothing_from_elsewhere(server):
    for path, kind in (("/", "text/html"), ("/review.css", "text/css"), ("/review.js", "text/javascript")):
        status, headers, data = request(server, "GET", path)
        assert status == 200 and headers["Content-Type"].startswith(kind)
        assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
        assert b"http://" not in data and b"https://" not in data and b"innerHTML" not in data


# ---- candidates, leaks, the command


def test_candidates_are_read_again_when_the_builder_replaces_them(server, karr_set):
    assert view(server, "q0001")["query"].endswith("number 1")
    text = (karr_set / "candidates.jsonl").read_text(encoding="utf-8").replace("number 1", "numbered anew")
    (karr_set / "candidates.jsonl").write_text(text, encoding="utf-8")
    assert view(server, "q0001")["query"].endswith("numbered anew")


@pytest.mark.parametrize("content", [None, "", "not json\n", '{"id": "q1"}\n'])
def test_a_set_without_candidates_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "candidates.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"candidates\.jsonl"):
        Review(tmp_path)


def test_a_new_wording_is_checked_for_leaks(server):
    answer = json.loads(request(server, "GET", "/leaks?candidate=q0001&query=a+tabby")[2])
    assert [leak["word"] for leak in answer["leaks"]] == (["tabby"] if answer["checked"] else [])
    assert answer["checked"] or "pip install" in answer["why"]


def test_a_taken_port_is_a_users_mistake(server, karr_set):
    with pytest.raises(InputError, match=rf"Port {server.server_port} .*--port 0"):
        ReviewServer(Review(karr_set), server.server_port)


def test_the_command(karr_set, monkeypatch, capsys):
    from slq_karr.cli.app import app

    from slq.cli.app import execute

    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    def interrupted(self: ReviewServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ReviewServer, "serve_forever", interrupted)
    assert execute(lambda: app, ["review", str(karr_set), "--reviewer", " Ada  L. ", "--port", "0"]) == 0
    said = capsys.readouterr()
    assert "6 candidates: http://127.0.0.1:" in said.out and "reviews.jsonl" in said.err
    assert opened[0].endswith("/?reviewer=Ada%20L.")
    assert execute(lambda: app, ["review", str(karr_set), "--reviewer", "ada", "--port", "0", "--no-browser"]) == 0 and len(opened) == 1
