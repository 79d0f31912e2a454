"""The seam of public benchmarks: what one is, how one is found by name, and what loading one gives.

A benchmark of another distribution is a `Benchmark` that its `pyproject.toml` names under the entry-point group `slq.benchmarks`; those of
slq stand in the same registry, and are imported when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from slq.data.retrieval import RetrievalSet
from slq.errors import DataError, InputError, PluginError
from slq.registry import ADVICE, Registry


@dataclass(frozen=True)
class BenchmarkInfo:
    """What stands beside a benchmark's scores, and what its data looks like.

    Attributes:
        name: as it is called on the command line; the name of its entry point.
        title: as papers call it.
        shows: what a score of it tells, as it goes on from the title.
        protocol: how it is scored, in a few words.
        source: where its data comes from.
        licence: of its data.
        size: numbers of queries and images.
        headline: the metrics that papers print, of `hit@k`, `recall@k` (of the sets' depths), `mrr` and `ndcg@10`.
        variants: names of its protocols, the default first.
        layout: a local copy in a folder DIR, a line a file: four blanks, the path from `DIR/` on, and behind more blanks what it is.
        local_copy: whether a folder that the user names must be there already. Where none is named, `load` is given None: it fetches the
            data, or raises an InputError that says which folder it needs.
        prompts: whether the papers put prompts around the items, which is then the default.
        max_length: tokens of a text that the papers read; None where all texts are short.
    """

    name: str
    title: str
    shows: str
    protocol: str
    source: str
    licence: str
    size: str
    headline: tuple[str, ...]
    variants: tuple[str, ...]
    layout: str
    local_copy: bool = True
    prompts: bool = False
    max_length: int | None = None


@dataclass(frozen=True)
class BenchmarkData:
    """The sets of a benchmark, and what must stand beside a score of it.

    Attributes:
        sets: what is scored.
        averages: name -> names of the sets that it is the mean of.
        revision: commit on the hub, or `sha256:...` over the annotation files that were read.
        prompts: role -> the text that was put around its items, in which `{text}` stands for an item's own text; roles are `query` and
            `corpus`, or `text` and `image`. For the record: `load` has put it around them, see `benchmarks.images.prompted`. Empty without
            prompts.
        protocol: one sentence, with what this copy holds and this variant is.
    """

    sets: tuple[RetrievalSet, ...]
    averages: Mapping[str, tuple[str, ...]]
    revision: str
    prompts: Mapping[str, str]
    protocol: str


class Load(Protocol):
    """How a benchmark is loaded."""

    def __call__(self, data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
        """Load the data.

        Args:
            data: folder of a local copy; None to fetch it.
            variant: one of the benchmark's.
            prompts: put the papers' prompts around the items.
            revision: commit on the hub; None for the newest.

        Returns:
            The sets, and what must stand beside their scores.

        Raises:
            DataError: if the data cannot be had or is not as it should be.
        """
        ...


class Submit(Protocol):
    """How rankings of a split whose judgements are hidden are written for the benchmark's own evaluation server."""

    def __call__(self, folder: Path, ranked: Mapping[str, Mapping[str, Sequence[str]]]) -> list[Path]:
        """Write the files.

        Args:
            folder: made if it is not there.
            ranked: set -> query id -> corpus ids, best first.

        Returns:
            The files.
        """
        ...


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark: what it is, how it is loaded, and how a hidden split is submitted, if it has one.

    Attributes:
        info: what it is.
        load: gives its data.
        submit: writes the files that its evaluation server takes; None where no judgements are hidden.
        submission_depth: how many first positions of each query such a file needs.
    """

    info: BenchmarkInfo
    load: Load
    submit: Submit | None = None
    submission_depth: int = 0


class _Loadable(Protocol):
    info: BenchmarkInfo

    def load(self, data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData: ...


def fault_of_benchmark(name: str, benchmark: Any) -> str:
    """What is wrong with what a benchmark says of itself, in words that go on from it; empty if nothing.

    Args:
        name: under which it is registered.
        benchmark: what is registered.
    """
    info = benchmark.info
    if not isinstance(info, BenchmarkInfo):
        return f"must have a BenchmarkInfo as its info, not {type(info).__name__}"
    for each in fields(info):
        value = getattr(info, each.name)
        if each.name in ("headline", "variants"):
            if not (isinstance(value, tuple) and value and all(isinstance(one, str) and one for one in value)):
                return f"must have a tuple of texts as info.{each.name}, with one at least, not {value!r:.100}"
        elif each.name not in ("local_copy", "prompts", "max_length") and not (isinstance(value, str) and value.strip()):
            return f"must have a text as info.{each.name}, not {value!r:.100}"
    if info.name != name:
        return f"must have the name that it is registered under as info.name, {name!r}, not {info.name!r:.100}"
    return ""


_HERE = "slq.benchmarks"
benchmarks: Registry[Benchmark] = Registry(
    _HERE,
    _Loadable,
    of="object",
    check=fault_of_benchmark,
    builtins={
        "beir": f"{_HERE}.beir:BEIR",
        "cirr": f"{_HERE}.cirr:CIRR",
        "coco": f"{_HERE}.coco:COCO",
        "fashioniq": f"{_HERE}.fashioniq:FASHIONIQ",
        "flickr30k": f"{_HERE}.coco:FLICKR30K",
        "i2i": f"{_HERE}.i2i:I2I",
        "karr": f"{_HERE}.karr:KARR",
        "miniature": f"{_HERE}.sample:MINIATURE",
        "mmeb": f"{_HERE}.mmeb:MMEB",
    },
)


def load_benchmark(
    name: str, data: Path | None = None, variant: str | None = None, prompts: bool | None = None, revision: str | None = None
) -> BenchmarkData:
    """Load the sets of a benchmark, with what must stand beside their scores.

    Args:
        name: one of `benchmarks.names()`.
        data: folder of a local copy (`slq benchmarks NAME` shows its layout); None to fetch it from the hub.
        variant: one of the benchmark's; None for the first.
        prompts: put the papers' prompts around the items; False, an item is embedded as it is; None, as published figures were measured:
            SLQ's with prompts for CIRR and FashionIQ, and without elsewhere.
        revision: commit of the data on the hub; None for the newest.

    Returns:
        Sets, averages, revision, prompts and protocol.

    Raises:
        InputError: for a name, variant or revision that does not exist.
        DataError: if the data cannot be had or is not as it should be.
        MissingExtraError: if reading it needs a package that is not installed.
        PluginError: if the benchmark of another distribution cannot be used.
    """
    benchmark = benchmarks.get(name)
    info = benchmark.info
    variant = info.variants[0] if variant is None else variant
    if variant not in info.variants:
        raise InputError(f"{name!r} has no variant {variant!r}; choose one of {', '.join(info.variants)}")
    if data is not None:
        data = Path(data)
        if revision is not None:
            raise InputError(f"a local copy has no revisions, only the hub has; leave out the revision {revision!r} or {data}")
        if not data.is_dir() and (info.local_copy or data.exists()):
            what = "is a file" if data.exists() else "does not exist"
            raise DataError(f"{data} {what}; give the folder of a local copy, as `slq benchmarks {name}` shows it")
    with benchmarks.naming_plugin(benchmark):
        found = benchmark.load(data, variant, info.prompts if prompts is None else prompts, revision)
    if not isinstance(found, BenchmarkData):
        who = benchmarks.origin(benchmark) or f"Benchmark {name!r}"
        raise PluginError(f"{who} must load BenchmarkData, not {type(found).__name__}. {ADVICE}")
    return found
