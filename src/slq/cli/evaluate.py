"""`slq eval`: score retrieval."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slq.cli import loading
from slq.cli.shared import BATCH, list_failures, progress_bar, shares, table, waiting
from slq.errors import InputError

if TYPE_CHECKING:
    from slq.data import RetrievalSet
    from slq.encoders.base import Encoder
    from slq.evaluation import Evaluation


@dataclass(frozen=True)
class _Asked:
    """What is scored: the sets, what a results file says of the benchmark they are, and which of them are averaged."""

    sets: Sequence[RetrievalSet]
    benchmark: Mapping[str, Any] | None = None
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


READOUT = "last_token"


@loading.loads_a_model()
def evaluate(
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Pairs (scored both ways), or a folder in BEIR layout. With --benchmark: a local copy of it."),
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="A public benchmark by name, such as coco or cirr.")] = None,
    variant: Annotated[str | None, typer.Option(help="Which protocol of the benchmark. Default: its first.")] = None,
    prompts: Annotated[bool, typer.Option("--prompts", help="Put the papers' wording around the benchmark's items.")] = False,
    data_revision: Annotated[str | None, typer.Option(help="Commit of a benchmark's data on the hub. Default: its newest.")] = None,
    adapter: Annotated[str | None, typer.Option("--adapter", "-a", help="Adapter folder or hub repository.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-b", help="With --adapter: in place of the one it was learned on. Without: whose last token is read."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a BEIR folder (qrels/SPLIT.tsv), without --benchmark.")] = "test",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the scores here, with all that they depend on.")] = None,
    per_query: Annotated[
        bool, typer.Option("--per-query", help="Also write the rank of each query's answers, which `slq compare` tests differences with.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep embeddings in this folder: a run that was stopped, or the next one, embeds only what is missing."),
    ] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="Score by so many leading numbers of each embedding, at length 1 again. Default: all.")
    ] = None,
    late_interaction: Annotated[
        int | None,
        typer.Option(min=1, help="Compare so many latents one by one, not their mean; for adapters trained with --group of that size."),
    ] = None,
    readout: Annotated[
        str,
        typer.Option(
            help="Without --adapter, what is read of the model: last_token, mean_tokens or zero_token (the paper's pilot); the first "
            "and last of these also with `_one_word` (E5-V's prompt)."
        ),
    ] = READOUT,
    batch_size: BATCH = 32,
    *,
    wanted: loading.Loading,
) -> None:
    """Score retrieval: hit@k (any answer in the top k), recall@k (share of answers found), MRR, nDCG@10; ties never help.

    Without --adapter a zero-shot readout, --readout, is scored: what the frozen model gives by itself. In a BEIR folder's queries.jsonl
    a `category` is also scored apart, and `excluded` lists corpus ids to leave out of that query's ranking.

    In brackets stand 95 % intervals, by cluster bootstrap: the captions of one image are resampled together.

        slq eval --data world/test/captions.jsonl --adapter my-adapter --json scores.json
        slq eval --benchmark coco --adapter my-adapter --json coco.json --per-query --keep kept/
    """
    from slq.encoders import BASELINES, MultiVectorEncoder
    from slq.evaluation import average_scores, dataset_sha256, result_record
    from slq.evaluation import evaluate as run
    from slq.io.files import write_json
    from slq.models import MINIATURE

    if adapter is None and late_interaction is not None:
        raise InputError("--late-interaction compares the latents of an adapter: name one with --adapter.")
    if adapter is not None and readout != READOUT:
        raise InputError("--readout is of a model without an adapter: leave out one of the two.")
    if readout not in BASELINES:
        raise InputError(f"Unknown readout {readout!r}: choose one of {', '.join(BASELINES)}.")
    if per_query and not json_file:
        raise InputError("--per-query writes ranks into a file: name it with --json.")
    with waiting("reading the data; what is drawn, unpacked or fetched is kept for the next time"):
        asked = _read(data, benchmark, variant, prompts, data_revision, split)
    encoder: Encoder
    if adapter is None:
        encoder = BASELINES[readout](wanted.model(model or MINIATURE))
    elif late_interaction is None:
        encoder = wanted.encoder(adapter, model)
    else:
        encoder = MultiVectorEncoder(wanted.latent_encoder(adapter, model), late_interaction)
    total = sum(len(one.queries) + len(one.corpus) for one in asked.sets)
    with progress_bar("embedding", total) as advance:
        evaluations = run(encoder, asked.sets, batch_size, advance, keep, dims)
    if asked.benchmark:
        typer.echo(f"{asked.benchmark['name']}: {asked.benchmark['protocol']} Data {asked.benchmark['revision']}.")
    _show(evaluations, average_scores(evaluations, asked.groups))
    if json_file:
        result = result_record(
            evaluations,
            encoder,
            adapter=adapter,
            data=None if data is None else str(data),
            data_sha256=dataset_sha256(asked.sets),
            command=shlex.join(["slq", *sys.argv[1:]]),
            benchmark=asked.benchmark,
            averages=asked.groups,
            per_query=per_query,
            truncate_dim=dims,
        )
        write_json(json_file, result)
        typer.echo(f"Scores written to {json_file}.")


def _read(data: Path | None, benchmark: str | None, variant: str | None, prompts: bool, data_revision: str | None, split: str) -> _Asked:
    """A benchmark's sets, or those of the user's own data."""
    from slq.data import read_beir, read_pairs
    from slq.evaluation import bidirectional_sets

    if benchmark is not None:
        from slq.benchmarks import BENCHMARKS, load_benchmark

        loaded = load_benchmark(benchmark, data, variant, prompts, data_revision)
        about = {
            "name": benchmark,
            "variant": variant or BENCHMARKS[benchmark].variants[0],
            "protocol": loaded.protocol,
            "revision": loaded.revision,
            "prompts": dict(loaded.prompts),
        }
        return _Asked(loaded.sets, about, loaded.groups)
    if data is None:
        raise InputError("There is nothing to score: name your own data with --data, or a public benchmark with --benchmark.")
    for flag, given in (("--variant", variant), ("--prompts", prompts), ("--data-revision", data_revision)):
        if given:
            raise InputError(f"{flag} belongs to a benchmark: name one with --benchmark.")
    return _Asked([read_beir(data, split)] if (data / "corpus.jsonl").is_file() else bidirectional_sets(read_pairs(data, splits=("test",))))


def _show(evaluations: Sequence[Evaluation], groups: Mapping[str, Any]) -> None:
    """The scores of each set, then of groups and categories where there are any."""
    for one in evaluations:
        list_failures(one.failures)
    names = list(dict.fromkeys(name for one in evaluations for name in one.metrics))
    table(["protocol", *names], [[one.name, *[_cell(one, name) for name in names]] for one in evaluations])
    if groups:
        names = list(dict.fromkeys(name for found in groups.values() for name in found if name not in ("sets", "ci95")))
        rows = [[group, *[_share(found, name) for name in names], str(len(found["sets"]))] for group, found in groups.items()]
        table(["mean of sets", *names, "sets"], rows)
    if any(one.by_category for one in evaluations):
        names = list(dict.fromkeys(name for one in evaluations for name in [*[f"hit@{k}" for k in one.depths], "mrr", "queries"]))
        named = [
            (name, metrics)
            for one in evaluations
            for name, metrics in [(one.name, one.metrics), *[(f"  {category}", found) for category, found in one.by_category.items()]]
        ]
        table(["category", *names], [[name, *[_share(metrics, each) for each in names]] for name, metrics in named])


def _cell(one: Evaluation, name: str) -> str:
    """A metric with its interval, where it has one."""
    shown = _share(one.metrics, name)
    if name not in one.ci95:
        return shown
    low, high = one.ci95[name]
    return f"{shown} [{100 * low:.1f}, {100 * high:.1f}]"


def _share(metrics: Mapping[str, Any], name: str) -> str:
    return shares([metrics[name]])[0] if name in metrics else ""
