"""Benchmarks are found by name, ours like an outsider's, and each says what it is."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command_line import invoke, refused

from slq.benchmarks import benchmarks, load_benchmark
from slq.errors import DataError, InputError, PluginError

NAMES = ("beir", "cirr", "coco", "fashioniq", "flickr30k", "i2i", "karr", "miniature", "mmeb")
OUTSIDER = '''"""A benchmark of two texts."""
from slq.benchmarks import Benchmark, BenchmarkData, BenchmarkInfo
from slq.data import RetrievalSet
from slq.types import Item

def load(data, variant, prompts, revision):
    one = RetrievalSet("farm", {"q": Item("a cow")}, {"a": Item("milk"), "b": Item("eggs")}, {"q": {"a": 1}}, ())
    return BenchmarkData((one,), {}, "sha256:none", {}, "One query over two texts.")

FARM = Benchmark(BenchmarkInfo("farm", "Farm", "nothing", "hit@1", "here", "CC0", "2", ("hit@1",), ("test",), "    DIR/", False), load)
NOTHING = "no benchmark"
'''


def test_every_benchmark_tells_what_it_is():
    assert benchmarks.names() == NAMES
    for name in NAMES:
        info = benchmarks.get(name).info
        assert info.name == name and info.variants and callable(benchmarks.get(name).load)
        assert all((info.title, info.shows, info.protocol, info.source, info.licence, info.size, info.headline))
        assert all(line.startswith("    DIR/") for line in info.layout.splitlines()) and info.layout


def test_names_are_listed_without_importing_a_benchmark():
    script = "import sys; from slq.benchmarks import benchmarks; benchmarks.names(); print([n for n in sys.modules if n.endswith('.mmeb')])"
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert listed.stdout.strip() == "[]", listed.stderr


def test_an_unknown_benchmark():
    with pytest.raises(InputError, match=r"'imagenet' in slq.benchmarks: choose one of beir, cirr"):
        load_benchmark("imagenet")


def test_an_unknown_variant_and_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="'cirr' has no variant 'train'; choose one of val, test"):
        load_benchmark("cirr", tmp_path, "train")
    with pytest.raises(DataError, match=r"gone does not exist; give the folder of a local copy, as `slq benchmarks cirr` shows it"):
        load_benchmark("cirr", tmp_path / "gone")


def test_an_outsiders_benchmark_is_loaded_by_name(tmp_path, monkeypatch):
    (tmp_path / "farm_benchmark.py").write_text(OUTSIDER)
    described = tmp_path / "farm_benchmark-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: farm-benchmark\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[slq.benchmarks]\nfarm = farm_benchmark:FARM\nbroken = farm_benchmark:NOTHING\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "farm-benchmark")
    assert benchmarks.names() == tuple(sorted((*NAMES, "farm", "broken"))) and benchmarks.get("farm").info.title == "Farm"
    assert load_benchmark("farm").sets[0].queries.keys() == {"q"}
    with pytest.raises(PluginError, match=r"'broken' of slq.benchmarks, from farm-benchmark 1.0 \(.*\), lacks info, load"):
        load_benchmark("broken")
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "")
    assert benchmarks.names() == NAMES


def test_the_list_and_the_details():
    listed = " ".join(invoke("benchmarks").output.replace("│", " ").split())
    for name in NAMES:
        info = benchmarks.get(name).info
        assert name in listed and info.licence in listed and info.size in listed
    details = invoke("benchmarks", "cirr").output
    info = benchmarks.get("cirr").info
    assert info.protocol in details and "val (default)" in details and details.rstrip().endswith(info.layout.splitlines()[-1])
    assert "choose one of beir, cirr" in refused("benchmarks", "imagenet")
