"""`slq eval`: score retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slq import console
from slq.cli.command import command, command_line
from slq.config import EvalConfig, ModelConfig, PreprocessingConfig
from slq.errors import ConfigError

if TYPE_CHECKING:
    from slq.data import RetrievalSet
    from slq.evaluation import Evaluation


@dataclass(frozen=True)
class _Scored:
    """What is scored: the sets, what a results file says of the benchmark they are, and which of them are averaged."""

    sets: Sequence[RetrievalSet]
    benchmark: Mapping[str, Any] | None = None
    averages: Mapping[str, Sequence[str]] = field(default_factory=dict)


@command("eval")
def app(config: EvalConfig, model: ModelConfig, preprocessing: PreprocessingConfig) -> None:
    """Score retrieval: hit@k (any positive in the first k), recall@k (fraction of the positives found), MRR, nDCG@10; ties never help.

    A base model is scored by what its own states give, see --baseline. In a BEIR folder's queries.jsonl a `category` is scored apart
    too, and `excluded` lists corpus ids to leave out of that query's ranking. In brackets stand 95 %
    intervals, by cluster bootstrap: the captions of one image are resampled together.

        slq eval data/test/captions.jsonl -m my-adapter -o scores.json --per-query

        slq eval data/test/captions.jsonl -m miniature --baseline last_token_one_word

        slq eval --benchmark coco -m my-adapter -o coco.json --cache-dir cache
    """
    from slq.encoders.opening import is_adapter, open_encoder, tell_of_miniature
    from slq.evaluation import average_scores, dataset_sha256, evaluate, result_record
    from slq.io.files import write_json
    from slq.io.outputs import check_output_file

    if config.output:
        check_output_file(config.output, [config.data, model.model, model.base_model], overwrite=config.overwrite)
    with console.waiting("reading the data; what is rendered, unpacked or fetched is cached for the next time"):
        scored = _read(config)
    with console.waiting("loading the model"):
        encoder = open_encoder(model, preprocessing, baseline=config.baseline, multi_vector_size=config.multi_vector_size)
    tell_of_miniature(encoder.model)
    total = sum(len(one.queries) + len(one.corpus) for one in scored.sets)
    with console.progress_bar("encoding", total) as advance:
        evaluations = evaluate(encoder, scored.sets, config.batch_size, advance, config.cache_dir, config.truncate_dim)
    for one in evaluations:
        console.list_failures(one.failures)
    result = result_record(
        evaluations,
        encoder,
        adapter=model.model if is_adapter(model.model) else None,
        data=None if config.data is None else str(config.data),
        data_sha256=dataset_sha256(scored.sets),
        command=command_line(),
        benchmark=scored.benchmark,
        averages=scored.averages,
        per_query=config.per_query,
        truncate_dim=config.truncate_dim,
    )
    if config.output:
        write_json(config.output, result)
        console.note(f"Scores written to {config.output}.")
    console.show(result, lambda: _show(evaluations, average_scores(evaluations, scored.averages), scored.benchmark))


def _read(config: EvalConfig) -> _Scored:
    """A benchmark's sets, or those of the user's own data."""
    from slq.data import read_beir, read_pairs
    from slq.evaluation import bidirectional_sets

    if config.benchmark is None:
        if config.data is None:
            raise ConfigError("There is nothing to score: name your own DATA, or a public benchmark with --benchmark.")
        if (config.data / "corpus.jsonl").is_file():
            return _Scored([read_beir(config.data, config.split)])
        return _Scored(bidirectional_sets(read_pairs(config.data, splits=("test",))))
    from slq.benchmarks import benchmarks, load_benchmark

    loaded = load_benchmark(config.benchmark, config.data, config.variant, config.prompts, config.data_revision)
    benchmark = {
        "name": config.benchmark,
        "variant": config.variant or benchmarks.get(config.benchmark).info.variants[0],
        "protocol": loaded.protocol,
        "revision": loaded.revision,
        "prompts": dict(loaded.prompts),
    }
    return _Scored(loaded.sets, benchmark, loaded.averages)


def _show(evaluations: Sequence[Evaluation], averages: Mapping[str, Any], benchmark: Mapping[str, Any] | None) -> None:
    """The scores of each set, then of averages and categories where there are any."""
    if benchmark:
        console.result(f"{benchmark['name']}: {benchmark['protocol']} Data {benchmark['revision']}.")
    names = list(dict.fromkeys(name for one in evaluations for name in one.metrics))
    console.table(["set", *names], [[one.name, *[_with_interval(one, name) for name in names]] for one in evaluations])
    if averages:
        names = list(dict.fromkeys(name for found in averages.values() for name in found if name not in ("sets", "ci95")))
        rows = [[group, *[_metric(found, name) for name in names], str(len(found["sets"]))] for group, found in averages.items()]
        console.table(["mean of sets", *names, "sets"], rows)
    if any(one.by_category for one in evaluations):
        names = list(dict.fromkeys(name for one in evaluations for name in [*[f"hit@{k}" for k in one.depths], "mrr", "queries"]))
        found = [row for one in evaluations for row in [(one.name, one.metrics), *_categories(one)]]
        console.table(["category", *names], [[name, *[_metric(metrics, each) for each in names]] for name, metrics in found])


def _categories(one: Evaluation) -> list[tuple[str, Mapping[str, Any]]]:
    return [(f"  {category}", metrics) for category, metrics in one.by_category.items()]


def _with_interval(one: Evaluation, name: str) -> str:
    """A metric with its interval, where it has one."""
    if name in one.ci95 and name in one.metrics:
        return console.percent(one.metrics[name], one.ci95[name])
    return _metric(one.metrics, name)


def _metric(metrics: Mapping[str, Any], name: str) -> str:
    return console.metric(metrics[name]) if name in metrics else ""
