"""Which texts are accepted."""

from __future__ import annotations

import pytest

from slq.data import check_text
from slq.errors import TextError


@pytest.mark.parametrize(
    "text",
    ["a dog", "  padded\n", "قطة على السجادة", "一只狗在草地上", "👩‍👩‍👧‍👦 🏳️‍🌈", "e\u0301", "\u200bzero width", "word " * 20_000],
    ids=["plain", "padded", "Arabic", "Chinese", "emoji", "combining", "zero width", "100k characters"],
)
def test_any_script_and_length_comes_back_unchanged(text):
    assert check_text(text) is text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the text is empty"),
        (" \t\n\u3000", "only white space"),
        ("half \ud83d a smiley", "surrogate pair at character 6"),
        (None, "not NoneType"),
        (42, "not int"),
        (b"bytes", "not bytes"),
        (float("nan"), "not float"),
    ],
)
def test_unusable_texts_are_refused(text, complaint):
    with pytest.raises(TextError, match=complaint):
        check_text(text)
