"""The demo itself, on less sample data: it ends, it leaves a page, and it replaces only its own folder."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from slq.demo import run as demo
from slq.errors import OutputExistsError

demo_module = sys.modules["slq.demo.run"]  # `slq.demo.run` the name is the function


@pytest.mark.slow
def test_the_demo_runs_twice_and_writes_its_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_module, "RECIPE", replace(demo_module.RECIPE, epochs=1, batch_size=16, validation_size=4))
    out = tmp_path / "demo"
    for training, test in ((16, 20), (60, 80)):  # the second in place of the first
        monkeypatch.setattr(demo_module, "TRAINING_IMAGES", training)
        monkeypatch.setattr(demo_module, "TEST_IMAGES", test)
        demo(out)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("Knowledge queries") >= 1 and page.count("<img") >= 5 * 2 * 13
    assert all(
        (out / name).exists() for name in ("adapter/adapter.safetensors", "index/embeddings.json", "sample-data/test/captions.jsonl")
    )
    printed = capsys.readouterr().out
    assert "bit-identical" in printed and printed.count("$ slq search") == 6
    assert printed.rstrip().endswith(demo_module.NEXT_COMMAND)
    (out / "sample-data" / "cat.jpg").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds sample-data/cat\.jpg, which slq did not write there"):
        demo(out)
    assert (out / "sample-data" / "cat.jpg").read_text() == "mine" and page == (out / "index.html").read_text(encoding="utf-8")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"has no \.slq\.json"):
        demo(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
