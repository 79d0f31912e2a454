"""What a plugin that is missing, left out or broken ends in: a sentence that names it, and everything else still works."""

from __future__ import annotations

import json
import re
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from command_line import invoke, refused

from slq.adapters.card import model_card
from slq.adapters.files import Adapter
from slq.adapters.latents import LatentQueries
from slq.benchmarks import benchmarks, load_benchmark
from slq.config import NamedOptions, TrainConfig
from slq.encoders import LatentEncoder
from slq.errors import AdapterError, InputError, PluginError
from slq.index.store import StoreMetadata, open_store, stores
from slq.losses import LossBatch, compose_loss, create_loss, losses
from slq.models.families import families, family_of
from slq.pooling import create_pooling, pool, poolings
from slq.training.methods import methods
from slq.training.start import create_trainable, learning_rate, plugins_of

NUMBERS = count()
REGISTRIES = {each.group: each for each in (benchmarks, families, losses, methods, poolings, stores)}
SOURCE = """
from dataclasses import dataclass, field, replace
from slq.benchmarks import Benchmark, benchmarks
from slq.losses import InfoNCE
from slq.models.families import Family
from slq.pooling import MeanPooling
from slq.testing import MemoryStore
from slq.training.methods import LatentMethod

@dataclass(frozen=True)
class Fails:
    def __call__(self, given):
        raise ValueError("no\\nlicence")
    def vector_shape(self, dim):
        return (dim,)

@dataclass(frozen=True)
class Pair(InfoNCE):
    def __call__(self, batch):
        return super().__call__(batch).expand(2)

@dataclass(frozen=True)
class Detached(InfoNCE):
    def __call__(self, batch):
        return super().__call__(batch).detach()

class Wide(MeanPooling):
    def __call__(self, states_BND):
        return states_BND.flatten(1)

class Halves(MeanPooling):
    def __call__(self, states_BND):
        return super().__call__(states_BND).half()

class Lists(MeanPooling):
    def __call__(self, states_BND):
        return [1.0]

@dataclass(frozen=True)
class NeedsSize(MeanPooling):
    def __post_init__(self):
        raise KeyError("size")

@dataclass(frozen=True)
class Bare(InfoNCE):
    size: int = field(kw_only=True)

class Plain(InfoNCE.__mro__[-1]):
    def __call__(self, batch): ...

class FailingMethod(LatentMethod):
    def create(self, model, config):
        raise OSError("disk on fire")
    def learning_rate(self, model, config):
        return 1 / 0

class OtherMethod(LatentMethod):
    def create(self, model, config):
        return "nothing"
    def learning_rate(self, model, config):
        return -1.0

class FailingFamily(Family):
    def image_options(self, preprocessing, processor):
        raise ValueError("size")

def fails(*asked):
    raise ValueError("no licence")

class RaisingInfo:
    @property
    def info(self):
        raise RuntimeError("no data")
    def load(self, *asked): ...

right, raising_info = benchmarks.get("beir"), RaisingInfo()
good_pooling, failing_method, other_method = MeanPooling(), FailingMethod(), OtherMethod()
info = lambda **changes: replace(right, info=replace(right.info, **changes))
failing_benchmark, other_benchmark = replace(info(name="added"), load=fails), replace(info(name="added"), load=lambda *asked: 7)
without_name, without_info, with_odd_variants = info(name="other"), replace(right, info=None), info(name="added", variants="test")
family = Family()
number = 3
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution `added 2.5` on the search path that adds one name `added` to a group: an object of a module with faults."""

    def put(group: str, value: str, source: str = SOURCE) -> None:
        module, folder = f"added_{next(NUMBERS)}", tmp_path / str(next(NUMBERS))
        info = folder / "added-2.5.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nadded = {module}:{value}\n")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("SLQ_LOAD_PLUGINS", "added")

    return put


@pytest.mark.parametrize(
    ("group", "value", "fault"),
    [
        ("slq.poolings", "good_pooling", "is an object of MeanPooling, and slq.poolings asks for a class: name the class itself"),
        ("slq.poolings", "Plain", "lacks vector_shape"),
        ("slq.losses", "fails", "is an object of function, and slq.losses asks for a class"),
        ("slq.losses", "Plain", "must be a dataclass, whose fields are its options: put @dataclass"),
        ("slq.losses", "Bare", "must have a default for every field, and has none for size"),
        ("slq.methods", "FailingMethod", "is a class, and slq.methods asks for an object: make one"),
        ("slq.families", "FailingFamily", "is a class, and slq.families asks for an object"),
        ("slq.families", "number", "lacks pad_to_square"),
        ("slq.benchmarks", "Benchmark", "is a class, and slq.benchmarks asks for an object"),
        ("slq.benchmarks", "number", "lacks info, load"),
        ("slq.benchmarks", "without_info", "must have a BenchmarkInfo as its info, not NoneType"),
        ("slq.benchmarks", "without_name", "must have the name that it is registered under as info.name, 'added', not 'other'"),
        ("slq.benchmarks", "raising_info", "cannot be used: it raised RuntimeError: no data"),
        ("slq.benchmarks", "with_odd_variants", "must have a tuple of texts as info.variants, with one at least, not 'test'"),
        ("slq.stores", "number", "lacks __call__"),
        ("slq.stores", "gone", "cannot be imported: AttributeError"),
    ],
)
def test_what_cannot_be_used_is_refused_where_it_is_looked_up(install, group, value, fault):
    install(group, value)
    with pytest.raises(PluginError, match=rf"^Plugin 'added' of {group}, from added 2\.5 \(added_\d+:{value}\), {re.escape(fault)}"):
        REGISTRIES[group].get("added")
    (listed,) = [each for each in REGISTRIES[group].plugins() if each.name == "added"]
    assert fault in (listed.error or "")


def batch() -> LossBatch:
    units = torch.eye(2).requires_grad_()
    return LossBatch(units[:, None], units[:, None], units, units, torch.eye(2, dtype=torch.bool), torch.tensor(0.02))


def trained(config: TrainConfig) -> torch.Tensor:
    return compose_loss(config)(batch())


def pooled() -> torch.Tensor:
    return pool(create_pooling("added"), torch.eye(2)[None])


def opened() -> object:
    return open_store("added:folder", StoreMetadata("a", "f", 2))


@pytest.mark.parametrize(
    ("group", "value", "call", "said", "cause"),
    [
        ("slq.losses", "Fails", lambda: trained(TrainConfig(loss=("added",))), "raised ValueError: no. ", ValueError),
        ("slq.losses", "Fails", lambda: trained(TrainConfig(loss=("added",), matryoshka_dims=(1,))), "raised ValueError: no. ", ValueError),
        (
            "slq.losses",
            "Pair",
            lambda: trained(TrainConfig(loss=("added",))),
            "must give a scalar tensor, and gave .* shape \\(2,\\)",
            None,
        ),
        ("slq.losses", "Detached", lambda: trained(TrainConfig(loss=("added",))), "must give a loss with gradient", None),
        ("slq.losses", "NeedsSize", lambda: create_loss(NamedOptions("added")), "raised KeyError: 'size'", KeyError),
        ("slq.poolings", "Fails", pooled, "raised ValueError: no. ", ValueError),
        ("slq.poolings", "Wide", pooled, "must give float32 embeddings .*\\(1, 2\\), not \\(1, 4\\), torch.float32", None),
        ("slq.poolings", "Halves", pooled, "must give float32 embeddings .*\\(1, 2\\), not \\(1, 2\\), torch.float16", None),
        ("slq.poolings", "Lists", pooled, "must give float32 embeddings .*\\(1, 2\\), not list", None),
        ("slq.poolings", "NeedsSize", lambda: create_pooling("added"), "raised KeyError: 'size'", KeyError),
        ("slq.methods", "failing_method", lambda: create_trainable(None, TrainConfig(method="added")), "OSError: disk on fire", OSError),
        ("slq.methods", "failing_method", lambda: learning_rate(None, TrainConfig(method="added")), "ZeroDivision", ZeroDivisionError),
        (
            "slq.methods",
            "other_method",
            lambda: create_trainable(None, TrainConfig(method="added")),
            "must create a .*Trainable, not str",
            None,
        ),
        ("slq.methods", "other_method", lambda: learning_rate(None, TrainConfig(method="added")), "learning rate above 0, not -1.0", None),
        ("slq.benchmarks", "failing_benchmark", lambda: load_benchmark("added"), "raised ValueError: no licence", ValueError),
        ("slq.benchmarks", "other_benchmark", lambda: load_benchmark("added"), "must load BenchmarkData, not int", None),
        ("slq.stores", "fails", opened, "raised ValueError: no licence", ValueError),
    ],
)
def test_an_error_of_a_plugins_own_code_names_the_plugin(install, group, value, call, said, cause):
    install(group, value)
    with pytest.raises(PluginError, match=rf"^Plugin 'added' of {group}, from added 2\.5 \(added_\d+:{value}\), .*{said}") as caught:
        call()
    assert cause is None or type(caught.value.__cause__) is cause


def test_an_error_of_slqs_own_parts_passes_as_it_is():
    with pytest.raises(RuntimeError), losses.naming_plugin(losses.get("info_nce")):
        raise RuntimeError("of slq")


GET = [
    ("slq.losses", lambda: losses.get("added")),
    ("slq.losses", lambda: TrainConfig(loss=("added",))),
    ("slq.poolings", lambda: poolings.get("added")),
    ("slq.poolings", lambda: TrainConfig(pooling="added")),
    ("slq.methods", lambda: methods.get("added")),
    ("slq.methods", lambda: TrainConfig(method="added")),
    ("slq.benchmarks", lambda: load_benchmark("added")),
    ("slq.stores", opened),
]


@pytest.mark.parametrize(("group", "get"), GET)
def test_a_name_that_is_left_out_says_by_what(install, monkeypatch, group, get):
    install(group, "number")
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "")
    advice = r"'added'.* added 2\.5 adds it, but SLQ_LOAD_PLUGINS='' leaves that out: name it there, or unset the variable\."
    with pytest.raises(InputError, match=advice):
        get()


@pytest.mark.parametrize(("group", "get"), GET)
def test_a_name_that_is_not_installed_says_what_to_install(group, get):
    with pytest.raises(InputError, match=rf"one of \w+.*nstall the distribution that adds it to {group}\."):
        get()


def test_a_command_that_is_missing_or_left_out(install, monkeypatch):
    assert "Unknown command 'trian'. Did you mean 'train'? Else install the distribution that adds it to slq.commands." in refused("trian")
    install("slq.commands", "number")
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "another")
    assert "added 2.5 adds it, but SLQ_LOAD_PLUGINS='another' leaves that out" in refused("added")


@pytest.mark.parametrize(("flag", "group"), [("--pooling", "slq.poolings"), ("--method", "slq.methods"), ("--loss", "slq.losses")])
def test_an_option_that_names_a_plugin_says_where_it_would_come_from(install, monkeypatch, flag, group):
    line = ("train", "pairs.jsonl", "-o", "out", flag, "added")
    said = refused(*line)
    assert re.search(rf"{flag} must be one of \w+, .*, not 'added'\. Install the distribution that adds it to {group}\.", said)
    install(group, "number")
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "")
    assert "not 'added'. added 2.5 adds it, but SLQ_LOAD_PLUGINS='' leaves that out" in refused(
        "train", "pairs.jsonl", "-o", "out", flag, "added"
    )


def test_a_family_that_is_left_out_is_told(install, monkeypatch):
    install("slq.families", "family")
    assert family_of("added").verified
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "")
    with pytest.warns(UserWarning, match=r"slq\.families has no row for 'added', .*: added 2\.5 adds it, but SLQ_LOAD_PLUGINS=''"):
        assert not family_of("added").verified


@pytest.mark.parametrize("value", ["number", "gone", "without_info", "raising_info", "without_name", "with_odd_variants"])
def test_a_broken_benchmark_hides_no_other(install, value):
    install("slq.benchmarks", value)
    said = invoke("benchmarks", "--json")
    assert {"beir", "cirr", "mmeb"} <= {each["name"] for each in json.loads(said.stdout)}
    assert said.stderr.startswith("Warning: Plugin 'added' of slq.benchmarks, from added 2.5 (")
    assert "Plugin 'added' of slq.benchmarks" in refused("benchmarks", "added")


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "import a_library_that_is_not_there", "app = 3", "def app(: ..."])
def test_a_broken_command_ends_only_its_own_line(install, source):
    install("slq.commands", "app", source)
    assert "added" in invoke("--help").stdout
    assert "Plugin 'added' of slq.commands, from added 2.5 (" in refused("added", "--help")
    (listed,) = json.loads(invoke("plugins", "--json", code=1).stdout)
    assert listed["name"] == "added" and "Plugin 'added' of slq.commands" in listed["error"]


def test_a_distribution_without_metadata_is_called_unknown(install, tmp_path):
    install("slq.losses", "Pair")
    for file in tmp_path.rglob("METADATA"):
        file.unlink()
    assert "added" not in losses and isinstance(losses.plugins(), tuple)
    assert invoke("--help").code == 0


@pytest.fixture
def saved(install, model, tmp_path) -> Path:
    """An adapter whose pooling a distribution has added, as a run saves it."""
    install("slq.poolings", "MeanPooling")
    config = TrainConfig(pooling="added")
    assert plugins_of(config) == [{"group": "slq.poolings", "name": "added", "distribution": "added", "version": "2.5"}]
    encoder = LatentEncoder(model, LatentQueries(2, model.dim, pooling="added"), training={"plugins": plugins_of(config)})
    encoder.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_says_which_distribution_added_its_pooling(saved, model, monkeypatch):
    assert LatentEncoder.from_pretrained(saved, model).queries.pooling == "added"
    monkeypatch.setenv("SLQ_LOAD_PLUGINS", "")
    left_out = r"Unknown name 'added' in slq\.poolings: choose one of last, mean, multi_vector\. added 2\.5 adds it, but SLQ_LOAD_PLUGINS"
    with pytest.raises(AdapterError, match=rf"^The adapter in \S+adapter: {left_out}"):
        LatentEncoder.from_pretrained(saved, model)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "added" not in "".join(map(str, Path(path).glob("added*")))])
    with pytest.raises(AdapterError, match=r"^The adapter in \S+adapter: .* It came from added 2\.5: install that distribution\."):
        LatentEncoder.from_pretrained(saved, model)
    assert "added" in invoke("model", "info", saved).stdout, "what an adapter is can be read without its plugins"
    assert "Its pooling, `added`, comes from added 2.5: install that distribution beside slq." in model_card(Adapter.load(saved))


@pytest.mark.parametrize("recorded", [None, {}, [None], [{"group": "slq.poolings"}], "added"])
def test_a_record_of_plugins_that_is_odd_is_passed_over(recorded):
    assert Adapter(LatentQueries(1, 2), {}, {"plugins": recorded}).added_by("slq.poolings", "added") == ""


def test_embeddings_are_not_written_to_the_address_of_a_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.csv").write_text("text\na cow\n")
    for arguments in (("embed", "items.csv", "-o", "exact:index"), ("search", "a cow", "-c", "exact:index")):
        assert "exact:index is the address of a store, and a folder is asked for: leave out exact:, such as index." in refused(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["items.csv"]
