"""What is printed where: results on stdout, all else on stderr, plain text where no terminal is."""

from __future__ import annotations

import json

import pytest

from slq import console
from slq.errors import Failure


def test_a_table_in_a_pipe_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["name", "hit@1"], [["a [b]", "12.0%"], ["two\nlines", "3.0%"]])
    shown = capsys.readouterr()
    assert shown.out == "name       hit@1\na [b]      12.0%\ntwo lines  3.0%\n"
    assert shown.err == ""


def test_a_table_of_many_columns_is_turned(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(list("abcdefg"), [list("1234567")])
    assert capsys.readouterr().out.splitlines() == [f"{letter}  {number}" for letter, number in zip("abcdefg", "1234567", strict=True)]


def test_notes_failures_and_progress_go_to_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    console.note("a note")
    console.warn("careful")
    console.list_failures([Failure("cat.png", "is broken")])
    with console.progress_bar("encoding", 3) as advance, console.waiting("reading"):
        advance(2)
        advance.update(completed=3, note="loss 1.0")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["a note", "Warning: careful", "1 item(s) skipped:", "  cat.png: is broken"]

    monkeypatch.setattr(console.settings, "quiet", True)
    console.note("a note")
    console.detail("a detail")
    console.warn("careful")
    assert capsys.readouterr().err == "Warning: careful\n"


def test_no_failures_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console.list_failures([])
    assert capsys.readouterr() == ("", "")


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    console.result_json({"id": "ä", "score": 0.5})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"id": "ä", "score": 0.5}
    assert shown.count("\n") == 1


class Terminal:
    """A stream that calls itself a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_only_on_a_terminal_without_no_color(monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    console.error("it failed")
    assert "Error: it failed" in terminal.text
    assert ("\x1b[" in terminal.text) == coloured


def test_metrics() -> None:
    assert console.percent(0.123) == "12.3%"
    assert [console.metric(0.5), console.metric(12)] == ["50.0%", "12"]
