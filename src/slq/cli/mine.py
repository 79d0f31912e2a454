"""`slq mine`: pairs with hard negatives, for `slq train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slq.cli import loading
from slq.cli.shared import ADAPTER, BATCH, list_failures, progress_bar


@loading.loads_a_model(*loading.OF_WEIGHTS)
def mine(
    pairs: Annotated[Path, typer.Option("--pairs", "-p", help="Pairs, as `slq train --pairs` reads them.")],
    adapter: ADAPTER,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSONL file for the pairs with their negatives.")],
    count: Annotated[int, typer.Option(help="Negatives a pair, at most.")] = 3,
    skip: Annotated[int, typer.Option(help="How many of the highest-ranked candidates to pass over.")] = 0,
    margin: Annotated[
        float, typer.Option(help="Pass over candidates less than this below the weakest positive: they may well be matches.")
    ] = 0.05,
    batch_size: BATCH = 32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")] = False,
    *,
    wanted: loading.Loading,
) -> None:
    """Add hard negatives to pairs: what the adapter ranks high for a query although it is another pair's.

    A candidate with the content of one of the query's positives, in whichever pair, is never taken.

        slq mine --pairs shop.csv --adapter shop-adapter --out mined.jsonl

        slq train --pairs mined.jsonl --out better-adapter
    """
    from slq.data import read_pairs, write_pairs
    from slq.errors import InputError, OutputExistsError
    from slq.io.files import write_atomic
    from slq.training.mining import items_of
    from slq.training.mining import mine as run

    if out.suffix != ".jsonl":
        raise InputError(f"Pairs are written as JSON lines: name --out {out.with_suffix('.jsonl')}, not {out}.")
    if out.exists() and not (overwrite and out.is_file()):
        raise OutputExistsError(f"{out} exists already: choose another file, or pass --overwrite to replace it.")
    file = read_pairs(pairs)
    encoder = wanted.encoder(adapter)
    with progress_bar("embedding", items_of(file.pairs)) as advance:
        mined = run(encoder, file.pairs, count, skip, margin, batch_size, advance)
    list_failures([*file.failures, *mined.failures])
    write_atomic(out, lambda path: write_pairs(path, mined.pairs))
    found = sum(len(pair.negatives) for pair in mined.pairs)
    typer.echo(f"{len(mined.pairs)} pairs with {found} negatives written to {out}; {mined.short} got fewer than {count}.")
    typer.echo(f"Next: slq train --pairs {out} --out better-adapter")
