"""The review page in a real Chromium, by keyboard, against a server in a process of its own that dies in the middle."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_review import make_set

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
try:
    from playwright.sync_api import Browser, Page, expect, sync_playwright
except ImportError:
    pytest.skip("the page is driven by playwright: pip install playwright", allow_module_level=True)
if CHROMIUM is None:
    pytest.skip("the page is driven in Chromium: apt-get install chromium", allow_module_level=True)

SERVE = "import sys; from slq.cli.app import execute; from slq_karr.cli.app import app; sys.exit(execute(lambda: app, sys.argv[1:]))"


class Served:
    """`slq karr review` in a process, which can be killed and started again at its address."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, 0
        self.start()

    def start(self) -> None:
        options = ["--reviewer", "ada", "--port", str(self.port), "--no-browser"]
        command = [sys.executable, "-u", "-c", SERVE, "review", str(self.folder), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline().split("127.0.0.1:")[1].split("/")[0])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()

    def decisions(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "reviews.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    running = Served(make_set(tmp_path / "set"))
    yield running
    running.kill()


def open_page(browser: Browser, served: Served, reviewer: str = "ada") -> Page:
    page = browser.new_context().new_page()
    page.faults = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.faults.append(str(error)))  # type: ignore[attr-defined]
    page.goto(f"http://127.0.0.1:{served.port}/?reviewer={reviewer}")
    expect(page.locator("#work")).to_be_visible()
    return page


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def at(page: Page, number: int, count: int = 6) -> None:
    expect(page.locator("#place")).to_have_text(f"{number} of {count}")


def decided(page: Page, count: int) -> None:
    expect(page.locator("#count")).to_have_text(f"{count} of 6 decided")


def test_accept_edit_reject_undo_reload(browser, served):
    page = open_page(browser, served)
    assert page.evaluate("document.querySelector('#image').decode().then(() => document.querySelector('#image').naturalWidth)") == 64
    press(page, "a")
    at(page, 2)
    press(page, "e")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type(" but better")
    press(page, "Enter")
    at(page, 3)
    press(page, "n")
    page.keyboard.type("a dull one")  # letters in a note are no commands
    press(page, "Enter", "r")
    at(page, 4)
    decided(page, 3)
    press(page, "u")
    at(page, 3)
    decided(page, 2)
    expect(page.locator("#own")).to_be_hidden()
    expect(page.locator("#note")).to_have_value("a dull one")
    press(page, "r", "ArrowLeft", "ArrowLeft")
    at(page, 2)
    page.reload()
    at(page, 2)
    decided(page, 3)
    expect(page.locator("#own")).to_have_text("edited")
    expect(page.locator("#decided")).to_have_text("Your wording: the animal with (2+7) lives, number 2 but better")
    lines = [(each["candidate"], each["decision"], each["note"]) for each in served.decisions()]
    assert lines == [
        *[("q0001", "accept", ""), ("q0002", "edit", ""), ("q0003", "reject", "a dull one"), ("q0003", "undecided", "")],
        ("q0003", "reject", "a dull one"),
    ]
    assert page.faults == []


def test_a_killed_server_loses_nothing(browser, served):
    page = open_page(browser, served)
    press(page, "a")
    at(page, 2)
    served.kill()
    press(page, "r")
    expect(page.locator("#problem")).to_contain_text("does not answer")
    at(page, 2)  # it does not go on over a decision that is not saved
    with (served.folder / "reviews.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"candidate": "q0002", "revie')  # what a crash may leave
    served.start()
    press(page, "r")
    at(page, 3)
    expect(page.locator("#problem")).to_be_hidden()
    page.reload()
    decided(page, 2)
    assert [(each["candidate"], each["decision"]) for each in served.decisions()] == [("q0001", "accept"), ("q0002", "reject")]


def test_a_second_reviewer_is_blind_then_disagrees(browser, served):
    ada, grace = open_page(browser, served), open_page(browser, served, "grace")
    press(ada, "a")
    at(ada, 2)
    press(ada, "a")
    at(ada, 3)
    press(grace, "a")
    at(grace, 2)
    expect(grace.locator("#others")).to_have_text("The others' decisions appear once you have made yours.")
    press(grace, "r")
    at(grace, 3)
    press(grace, "ArrowLeft")
    expect(grace.locator("#others")).to_have_text("ada accepted")
    grace.locator("#filter").select_option("disagreeing")
    at(grace, 1, 1)
    expect(grace.locator("#query")).to_have_text("the animal with (2+7) lives, number 2")
    grace.locator("#filter").select_option("undecided")
    at(grace, 1, 4)
    grace.locator("#filter").select_option("category:logic_maths")
    at(grace, 1, 2)
    grace.get_by_role("button", name="Agreement").click()
    expect(grace.locator("#rows tr")).to_have_text("ada, grace250 %0.00 (Cohen)")
    press(grace, "Escape", "?")
    expect(grace.locator("#help")).to_be_visible()
    press(grace, "a")  # no decision behind a dialog
    assert len(served.decisions()) == 4
    assert ada.faults == grace.faults == []


def test_drafts_and_the_reviewers_name(browser, served):
    page = open_page(browser, served)
    press(page, "e")
    page.locator("#text").fill("a tabby")
    press(page, "Escape")
    expect(page.locator("#editor")).to_be_hidden()
    press(page, "n")
    page.keyboard.type("look again")
    press(page, "Escape", "ArrowRight", "ArrowLeft")
    expect(page.locator("#note")).to_have_value("look again")
    page.reload()
    expect(page.locator("#note")).to_have_value("look again")
    page.goto(f"http://127.0.0.1:{served.port}/")
    expect(page.locator("#name")).to_be_visible()
    page.locator("#reviewer").fill("mary")
    press(page, "Enter")
    expect(page.locator("#who")).to_have_text("mary")
    expect(page.locator("#note")).to_have_value("")
    assert page.faults == [] and not (served.folder / "reviews.jsonl").exists()


def test_the_new_wording_is_checked_while_one_types(browser, served):
    page = open_page(browser, served)
    press(page, "e")
    page.locator("#text").fill("a cat with nine lives")
    hint = page.locator("#hint")
    deadline = time.monotonic() + 10
    while not hint.inner_text() and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert "“cat” (the name cat)" in hint.inner_text() or "pip install" in hint.inner_text()
