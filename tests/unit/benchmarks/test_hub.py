"""What is said when the hub does not give what is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from huggingface_hub.errors import RevisionNotFoundError
from PIL import ImageFont

from slq.benchmarks import drawn
from slq.benchmarks.hub import fetch
from slq.errors import DataFileError, MissingExtraError


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (
            RevisionNotFoundError("404", response=SimpleNamespace(headers={}, request=None)),
            "the data set 'a/b' at 'v9' does not exist on the hub; give a commit, tag or branch that it has",
        ),
        (OSError("disk full\nmore"), r"the data set 'a/b' at 'v9' cannot be fetched \(disk full\); try again, or give the folder"),
    ],
)
def test_the_hub_refuses(monkeypatch, error, complaint):
    def refuse(*arguments: object, **options: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(DataFileError, match=complaint):
        fetch(["a/b"], "v9")


def test_the_font_names_its_extra(monkeypatch):
    monkeypatch.setattr(drawn, "find_spec", lambda name: None)
    drawn._font_file.cache_clear()
    with pytest.raises(MissingExtraError, match=r'needs the font DejaVuSans.ttf of matplotlib; run: pip install "slq\[plots\]"'):
        drawn._font_file()
    monkeypatch.undo()
    assert isinstance(ImageFont.truetype(str(drawn._font_file()), 10), ImageFont.FreeTypeFont)
