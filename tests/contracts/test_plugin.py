"""The example plugin, installed: found by name in every registry, holds every contract, and trains."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import QUICK, invoke
from forked import Forked

from slq.benchmarks.base import benchmarks
from slq.config import TrainConfig
from slq.encoders import load_encoder
from slq.errors import StoreCorruptError
from slq.index.store import Row, StoreMetadata, open_store, stores
from slq.losses import losses
from slq.miniature.export import write_sample_data
from slq.models.families import families
from slq.pooling import poolings
from slq.registry import Registry
from slq.testing import check_benchmark, check_loss, check_method, check_pooling, check_store
from slq.training import train
from slq.training.methods import methods

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture
def plugin(tmp_path_factory, monkeypatch):
    """The example as if it were installed: its modules, and beside them what pip would have written of its pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    folder = tmp_path_factory.mktemp("site")
    written = folder / f"slq_example-{project['version']}.dist-info"
    written.mkdir()
    (written / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (written / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.setattr(sys, "path", [str(EXAMPLE / "src"), str(folder), *sys.path])
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", project["name"])
    importlib.invalidate_caches()
    return project


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_sample_data(folder / "train", "train", 12)
    return folder


def test_every_entry_point_is_found_and_imported(plugin):
    registries = {registry.group: registry for registry in (benchmarks, families, poolings, losses, methods, stores)}
    for group, points in plugin["entry-points"].items():
        registry = registries.get(group, Registry(group))
        found = {each.name: each for each in registry.plugins()}
        assert set(points) == set(found) & set(points) and all(found[name].error is None for name in points), group
        assert all(found[name].distribution == "slq-example" for name in points)


def test_without_the_plugin_its_names_are_unknown(plugin, monkeypatch):
    assert "hinge" in losses and "max" in poolings
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "")
    assert "hinge" not in losses and "max" not in poolings


def test_contracts_hold(plugin, model):
    check_method(methods.get("latents_from_vocabulary"), model)
    check_loss(losses.get("hinge"))
    check_pooling(poolings.get("max"))
    check_store(stores.get("session"), durable=False)
    assert check_benchmark(benchmarks.get("opposites"), data=None).sets[0].name == "opposites"


@pytest.mark.process
@pytest.mark.slow
def test_the_durable_store_holds_its_whole_contract(plugin):
    check_store(stores.get("file"))


def test_a_durable_store_that_is_damaged_is_told(plugin, tmp_path):
    metadata = StoreMetadata("adapter", "fingerprint", 2)
    open_store(f"file:{tmp_path / 'store'}", metadata).upsert([Row("a", np.array([1, 0], np.float32))])
    (tmp_path / "store" / "rows.json").write_text("else\n[]")
    with pytest.raises(StoreCorruptError, match=r"rows\.json is damaged: encode its items again\."):
        open_store(f"file:{tmp_path / 'store'}")


def test_hinge_is_its_closed_form(plugin):
    hinge = losses.get("hinge")
    units = torch.eye(2)
    batch = importlib.import_module("slq.losses").LossBatch(units[:, None], units[:, None], units, units, units.bool(), torch.tensor(0.02))
    assert hinge()(batch) == 0 and hinge(margin=1.5)(batch) == 0.5


def in_a_process(*arguments: object, output: Path) -> tuple[int, str]:
    """Run `slq` in a process that has the plugin before the commands, as an installed one: flags are made when a command is imported."""
    script = "import sys; assert 'slq.cli' not in sys.modules; import slq.cli; sys.exit(slq.cli.main())"
    forked = Forked(script, *arguments, output=output)
    return forked.end(), forked.said()


@pytest.mark.process
@pytest.mark.slow
def test_plugin_trains_and_is_scored_from_the_command_line(plugin, world, tmp_path):
    options = ["--loss", "info_nce", "--loss", "hinge:margin=0.3", "--pooling", "max", "--max-steps", 1, *QUICK]
    said = tmp_path / "said.txt"
    code, told = in_a_process("train", world / "train" / "captions.jsonl", "--output", tmp_path / "adapter", *options, output=said)
    assert code == 0, told
    saved = json.loads((tmp_path / "adapter" / "slq_adapter.json").read_text())
    assert saved["pooling"] == "max" and saved["training"]["loss"] == [{"name": "info_nce"}, {"name": "hinge", "margin": 0.3}]
    refused_options = ["--loss", "hinge:marign=0.3", "--max-steps", 1, *QUICK]
    code, told = in_a_process("train", world / "train" / "captions.jsonl", "--output", tmp_path / "other", *refused_options, output=said)
    assert code == 2 and "Did you mean 'margin'" in told
    assert not (tmp_path / "other").exists()
    chosen = ["--benchmark", "opposites", "--model", tmp_path / "adapter", "--device", "cpu"]
    code, told = in_a_process("eval", *chosen, "--output", tmp_path / "scores.json", output=said)
    assert code == 0, told
    assert json.loads((tmp_path / "scores.json").read_text())["scores"]["opposites"]["queries"] == 2


def test_command_of_the_plugin_is_one_of_slq(plugin):
    assert invoke("example").stdout == "The example plugin is installed.\n"
    assert "slq-example" in invoke("plugins").stdout


@pytest.mark.slow
def test_plugin_trains_and_its_adapter_is_loaded_again(plugin, model, pairs, items, tmp_path):
    config = TrainConfig(
        method="latents_from_vocabulary",
        loss=("hinge:margin=0.3",),
        pooling="max",
        num_latents=3,
        batch_size=8,
        max_steps=2,
        learning_rate=0.01,
    )
    encoder = train(pairs[:16], model, tmp_path / "run", config, show_progress=False)
    saved = json.loads((tmp_path / "run" / "slq_adapter.json").read_text())
    assert saved["pooling"] == "max" and saved["training"]["loss"] == [{"name": "hinge", "margin": 0.3}]
    again = load_encoder(tmp_path / "run", model)
    assert again.fingerprint == encoder.fingerprint and type(again.pooling) is poolings.get("max")
    start = model.embedding.weight.float().mean(dim=0)
    assert 0 < (encoder.queries.latents - start).abs().max() < 0.1, "two steps from the mean of the vocabulary"


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path, monkeypatch):
    written = tmp_path / "broken-1.0.dist-info"
    written.mkdir()
    (written / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (written / "entry_points.txt").write_text("[slq.poolings]\nflat = json:dumps\n[slq.commands]\ntrain = json:dumps\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "broken")
    listed = {row["name"]: row["error"] for row in json.loads(invoke("plugins", "--json", code=1).stdout)}
    assert "lacks vector_shape" in listed["flat"] and "is taken by slq and by broken" in listed["train"]
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "another")
    said = invoke("plugins")
    assert said.stdout == "No plugins are let in.\n" and "SLQ_LOAD_PLUGINS='another' leaves out broken 1.0" in said.stderr
