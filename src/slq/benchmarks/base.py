"""What a benchmark is, and what loading one gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slq.data.retrieval import RetrievalSet


@dataclass(frozen=True)
class BenchmarkData:
    """The sets of a benchmark, and what must stand beside a score of it.

    groups: name of a group -> names of the sets that are averaged in it. revision: commit on the hub, or `sha256:...` over the
    annotation files that were read. prompts: role -> the wording put around its items; empty without prompts. protocol: one sentence.
    """

    sets: tuple[RetrievalSet, ...]
    groups: Mapping[str, tuple[str, ...]]
    revision: str
    prompts: Mapping[str, str]
    protocol: str


class Load(Protocol):
    """How a benchmark is loaded: from a local copy, or from the hub where `data` is None."""

    def __call__(self, data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData: ...


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark. headline: the metrics that papers print. variants: names of its protocols, the default first."""

    name: str
    title: str
    shows: str
    protocol: str
    source: str
    licence: str
    size: str
    headline: tuple[str, ...]
    variants: tuple[str, ...]
    load: Load
