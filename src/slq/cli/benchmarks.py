"""`slq benchmarks`: which benchmarks there are, and what each needs."""

from __future__ import annotations

from typing import Annotated

import typer

from slq.cli.shared import table


def benchmarks(
    name: Annotated[str | None, typer.Argument(help="A benchmark to tell everything about. Default: the list of all.")] = None,
) -> None:
    """List the benchmarks that can be scored; with a NAME, say how it is scored and what a local copy looks like.

    slq benchmarks

    slq benchmarks cirr
    """
    from slq.benchmarks import BENCHMARKS

    if name is None:
        # One column for the sentences: six beside each other are too narrow to read.
        rows = [
            [
                each.name,
                f"{each.title}: {each.shows}.\nProtocol: {each.protocol}\nData: {each.source}.\nLicence: {each.licence}.\n"
                f"Size: {each.size}.\n",
            ]
            for each in BENCHMARKS.values()
        ]
        table(["name", "what it is, its protocol, data, licence and size"], rows)
        return
    _tell(name)


def _tell(name: str) -> None:
    from slq.benchmarks.catalogue import find, local_layout

    benchmark = find(name)
    default, *others = benchmark.variants
    told = {
        "name": benchmark.name,
        "what it is": f"{benchmark.title}: {benchmark.shows}",
        "protocol": benchmark.protocol,
        "variants": ", ".join([f"{default} (default)", *others]),
        "headline": ", ".join(benchmark.headline),
        "data": benchmark.source,
        "licence": benchmark.licence,
        "size": benchmark.size,
    }
    for key, value in told.items():
        typer.echo(f"{key + ':':<12}{value}")
    typer.echo(f"\nA local copy in a folder DIR:\n\n{local_layout(name)}")
