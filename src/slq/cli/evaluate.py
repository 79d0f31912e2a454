"""`slq eval`: score retrieval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slq.cli import loading
from slq.cli.shared import BATCH, DEVICE, list_failures, progress_bar, shares, table

if TYPE_CHECKING:
    from slq.embedder import Embedder


def evaluate(
    data: Annotated[Path, typer.Option("--data", "-d", help="Pairs (scored both ways), or a folder in BEIR layout.")],
    adapter: Annotated[str | None, typer.Option("--adapter", "-a", help="Adapter folder or hub repository.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option("--backbone", "-b", help="With --adapter: in place of the one it was learned on. Without: whose last token is read."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a BEIR folder (qrels/SPLIT.tsv).")] = "test",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the scores here.")] = None,
    batch_size: BATCH = 32,
    revision: loading.REVISION = None,
    dtype: loading.DTYPE = None,
    device: DEVICE = None,
    attn_implementation: loading.ATTN_IMPLEMENTATION = None,
    device_map: loading.DEVICE_MAP = None,
    quantization: loading.QUANTIZATION = None,
    trust_remote_code: loading.TRUST_REMOTE_CODE = False,
    preprocessing: loading.PREPROCESSING = None,
    max_pixels: loading.MAX_PIXELS = None,
    max_text_tokens: loading.MAX_TEXT_TOKENS = None,
    instruction: loading.INSTRUCTION = None,
) -> None:
    """Score retrieval: hit@k (any answer in the top k), recall@k (share of answers found), MRR, nDCG@10; ties never help.

    Without --adapter the zero-shot last-token readout is scored: what the frozen model gives by itself. In a BEIR folder's queries.jsonl
    a `category` is also scored apart, and `masked` lists corpus ids to leave out of that query's ranking.

        slq eval --data world/test/captions.jsonl --adapter my-adapter --json scores.json
    """
    from slq.backbone import MINIATURE
    from slq.data import read_beir, read_pairs
    from slq.evaluate import as_json, both_ways
    from slq.evaluate import evaluate as run
    from slq.methods import LastTokenReadout
    from slq.runtime import provenance, replace_file

    wanted = loading.Loading(
        revision=revision,
        dtype=dtype,
        device=device,
        attn_implementation=attn_implementation,
        device_map=device_map,
        quantization=quantization,
        trust_remote_code=trust_remote_code,
        preprocessing=preprocessing,
        max_pixels=max_pixels,
        max_text_tokens=max_text_tokens,
        instruction=instruction,
    )
    sets = [read_beir(data, split)] if (data / "corpus.jsonl").is_file() else both_ways(read_pairs(data))
    embedder: Embedder = wanted.retriever(adapter, backbone) if adapter else LastTokenReadout(wanted.backbone(backbone or MINIATURE))
    total = len({id(item) for one in sets for item in (*one.queries.values(), *one.corpus.values())})
    with progress_bar("embedding", total) as advance:
        evaluations = run(embedder, sets, batch_size, advance)
    for one in evaluations:
        list_failures(one.failures)
    table(["protocol", *evaluations[0].metrics], [[one.name, *shares(one.metrics.values())] for one in evaluations])
    if any(one.by_category for one in evaluations):
        names = ["hit@1", "hit@5", "hit@10", "mrr", "queries"]
        named = [
            (name, metrics)
            for one in evaluations
            for name, metrics in [(one.name, one.metrics), *[(f"  {category}", found) for category, found in one.by_category.items()]]
        ]
        table(["category", *names], [[name, *shares(metrics[each] for each in names)] for name, metrics in named])
    if json_file:
        result = {
            "adapter": adapter,
            "backbone": embedder.backbone.identity.to_dict(),
            "fingerprint": embedder.fingerprint,
            "data": str(data),
            "scores": as_json(evaluations),
            "provenance": provenance(),
        }
        replace_file(json_file, lambda path: path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8"))
        typer.echo(f"Scores written to {json_file}.")
