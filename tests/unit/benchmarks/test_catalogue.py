"""The catalogue, and `slq benchmarks`, which shows it."""

from __future__ import annotations

import pytest
from command_line import invoke, refused

from slq.benchmarks import BENCHMARKS
from slq.benchmarks.catalogue import local_layout


def said(*arguments: str) -> str:
    return invoke("benchmarks", *arguments).output


def test_every_benchmark_tells_what_it_is():
    assert list(BENCHMARKS) == ["coco", "flickr30k", "i2i", "cirr", "fashioniq", "mmeb", "karr", "miniature", "beir"]
    for name, one in BENCHMARKS.items():
        assert one.name == name and one.variants and callable(one.load)
        assert all((one.title, one.shows, one.protocol, one.source, one.licence, one.size, one.headline))
        assert local_layout(name).strip().startswith("DIR/")


def test_the_list():
    shown = " ".join(said().replace("│", " ").split())
    for name, one in BENCHMARKS.items():
        assert name in shown and one.licence in shown and one.size in shown


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_the_details(name):
    shown = said(name)
    one = BENCHMARKS[name]
    assert (
        one.protocol in shown and f"{one.variants[0]} (default)" in shown and shown.rstrip().endswith(local_layout(name).splitlines()[-1])
    )


def test_an_unknown_benchmark():
    assert "there is no benchmark 'imagenet'; choose one of coco" in refused("benchmarks", "imagenet")
