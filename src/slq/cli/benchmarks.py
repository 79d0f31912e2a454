"""`slq benchmarks`: which benchmarks there are, and what each needs."""

from __future__ import annotations

from slq import console
from slq.cli.command import command
from slq.config import BenchmarksConfig
from slq.errors import PluginError


@command("benchmarks")
def app(config: BenchmarksConfig) -> None:
    """List the benchmarks that can be scored; with a NAME, say how it is scored and what a local copy looks like.

    slq benchmarks

    slq benchmarks cirr
    """
    from slq.benchmarks import benchmarks

    if config.name is not None:
        _tell(config.name)
        return
    infos = []
    for name in benchmarks.names():
        try:
            infos.append(benchmarks.get(name).info)
        except PluginError as error:  # it hides none of the others
            console.warn(str(error))
    document = [{"name": each.name, "title": each.title, "protocol": each.protocol, "licence": each.licence} for each in infos]
    # One column for the sentences: six beside each other are too narrow to read.
    rows = [
        [
            each.name,
            f"{each.title}: {each.shows}.\nProtocol: {each.protocol}\nData: {each.source}.\nLicence: {each.licence}.\nSize: {each.size}.\n",
        ]
        for each in infos
    ]
    console.show(document, lambda: console.table(["name", "what it is, its protocol, data, licence and size"], rows))


def _tell(name: str) -> None:
    """Everything about one benchmark."""
    from slq.benchmarks import benchmarks

    benchmark = benchmarks.get(name).info
    default, *others = benchmark.variants
    told = {
        "name": benchmark.name,
        "what it is": f"{benchmark.title}: {benchmark.shows}",
        "protocol": benchmark.protocol,
        "variants": ", ".join([f"{default} (default)", *others]),
        "prompts": "the papers', unless --no-prompts" if benchmark.prompts else "none by default",
        "headline": ", ".join(benchmark.headline),
        "data": benchmark.source,
        "licence": benchmark.licence,
        "size": benchmark.size,
    }
    layout = benchmark.layout

    def text() -> None:
        console.pairs_of(told)
        console.result(f"\nA local copy in a folder DIR:\n\n{layout}")

    console.show({**told, "variants": list(benchmark.variants), "headline": list(benchmark.headline), "layout": layout}, text)
