"""What is said when the hub does not give what is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from huggingface_hub.errors import RevisionNotFoundError
from PIL import ImageFont

from slq.benchmarks import rendered
from slq.benchmarks.hub import fetch
from slq.errors import DataError, MissingExtraError


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
    with pytest.raises(DataError, match=complaint):
        fetch(["a/b"], "v9")


def test_the_font_names_its_extra(monkeypatch):
    monkeypatch.setattr(rendered, "find_spec", lambda name: None)
    rendered._font_file.cache_clear()
    with pytest.raises(MissingExtraError, match=r'needs the font DejaVuSans.ttf of matplotlib; run: pip install "slq\[plots\]"'):
        rendered._font_file()
    monkeypatch.undo()
    assert isinstance(ImageFont.truetype(str(rendered._font_file()), 10), ImageFont.FreeTypeFont)
