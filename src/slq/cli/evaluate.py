"""`slq eval`: score retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq import console
from slq.cli.command import command, command_line
from slq.config import EvalConfig, ModelConfig, PreprocessingConfig
from slq.errors import ConfigError, OutputExistsError

if TYPE_CHECKING:
    from slq.benchmarks.base import Submit
    from slq.data import RetrievalSet
    from slq.encoders.base import Encoder
    from slq.evaluation import Evaluation

_NOT_SHOWN = ("map@", "ndcg@5")  # with --output and --json: a table holds only so many columns


@dataclass(frozen=True)
class _Scored:
    """What is scored: the sets, what a results file says of the benchmark they are, its averages, and what else it asks for."""

    sets: Sequence[RetrievalSet]
    benchmark: Mapping[str, Any] | None = None
    averages: Mapping[str, Sequence[str]] = field(default_factory=dict)
    max_length: int | None = None
    submit: Submit | None = None
    submission_depth: int = 0


@command("eval")
def app(config: EvalConfig, model: ModelConfig, preprocessing: PreprocessingConfig) -> None:
    """Score retrieval: hit@k (any positive in the first k), recall@k (fraction of the positives found), MRR, nDCG@10; ties never help.

    A base model is scored by what its own states give, see --baseline. In a BEIR folder's queries.jsonl a `category` is scored apart
    too, and `excluded` lists corpus ids to leave out of that query's ranking. In brackets stand 95 %
    intervals, by cluster: the captions of one image count as one observation where they are found or missed together. Images with
    captions are also asked for in a mixed gallery, of all images and captions at once.

        slq eval data/test/captions.jsonl -m my-adapter -o scores.json --per-query

        slq eval data/test/captions.jsonl -m miniature --baseline last_token_one_word

        slq eval --benchmark coco -m my-adapter -o coco.json --cache-dir cache

        slq eval cirr/ --benchmark cirr --variant test -m my-adapter --submission to-upload
    """
    from slq.encoders.opening import is_adapter, open_encoder, tell_of_miniature
    from slq.evaluation import average_scores, dataset_parts, dataset_sha256, evaluate, mixed_sets, result_record
    from slq.io.files import write_json

    _check_outputs(config, [config.data, model.model, model.base_model])
    with console.waiting("reading the data; what is rendered, unpacked or fetched is cached for the next time"):
        scored = _read(config)
    _check_submission(config, scored)
    with console.waiting("loading the model"):
        encoder = open_encoder(model, preprocessing, baseline=config.baseline, multi_vector_size=config.multi_vector_size)
    tell_of_miniature(encoder.model)
    _warn_of_text_length(scored, encoder)
    if config.submission is not None:
        return _submit(config, scored, encoder)
    sets = [*scored.sets, *mixed_sets(scored.sets)]
    with console.progress_bar("encoding", sum(len(one.queries) + len(one.corpus) for one in sets)) as advance:
        options = (config.batch_size, advance, config.cache_dir, config.truncate_dim)
        evaluations = evaluate(encoder, sets, *options, workers=config.num_workers)
    skipped = tuple(dict.fromkeys(failure for one in evaluations for failure in one.failures))  # a pair's stand in both directions
    console.list_failures(skipped)
    for one, scored_set in zip(evaluations, scored.sets, strict=False):
        console.check_skipped(one.failures, scored_set.num_rows, config.max_skipped)
    result = result_record(
        evaluations,
        encoder,
        adapter=model.model if is_adapter(model.model) else None,
        data=None if config.data is None else str(config.data),
        data_sha256=dataset_sha256(scored.sets),
        data_parts=dataset_parts(scored.sets),
        command=command_line(),
        benchmark=scored.benchmark,
        averages=scored.averages,
        per_query=config.per_query,
        truncate_dim=config.truncate_dim,
    )
    if config.output:
        write_json(config.output, result)
        console.note(f"Scores written to {config.output}.")

    def text() -> None:
        _show(evaluations, average_scores(evaluations, scored.averages), scored.benchmark)
        if skipped:
            console.result(f"{len(skipped)} item(s) skipped: as candidates they are never found, as queries they find nothing.")

    console.show({**result, "skipped": len(skipped)}, text)


def _read(config: EvalConfig) -> _Scored:
    """A benchmark's sets, or those of the user's own data."""
    from slq.data import RetrievalSet, read_retrieval_data
    from slq.evaluation import bidirectional_sets

    if config.benchmark is None:
        if config.data is None:
            raise ConfigError("There is nothing to score: name your own DATA, or a public benchmark with --benchmark.")
        read = read_retrieval_data(config.data, config.split, exclude_self=config.exclude_self, **config.reading)
        console.check_skipped(read.failures, read.num_rows, config.max_skipped)
        return _Scored([read] if isinstance(read, RetrievalSet) else bidirectional_sets(read))
    from slq.benchmarks import benchmarks, load_benchmark

    loaded = load_benchmark(config.benchmark, config.data, config.variant, config.prompts, config.data_revision)
    benchmark = {
        "name": config.benchmark,
        "variant": config.variant or benchmarks.get(config.benchmark).info.variants[0],
        "protocol": loaded.protocol,
        "revision": loaded.revision,
        "prompts": dict(loaded.prompts),
    }
    source = benchmarks.get(config.benchmark)
    depth = getattr(source, "submission_depth", 0)  # a plugin's benchmark need have no more than info and load
    return _Scored(loaded.sets, benchmark, loaded.averages, source.info.max_length, getattr(source, "submit", None), depth)


def _check_outputs(config: EvalConfig, reads: Sequence[str | Path | None]) -> None:
    """Refuse outputs that would replace something, before the work."""
    from slq.io.outputs import check_output_file, check_reads

    if config.output:
        check_output_file(config.output, reads, overwrite=config.overwrite)
    if config.submission is not None:
        check_reads(config.submission, reads)
        if config.submission.is_dir() and any(config.submission.iterdir()) and not config.overwrite:
            raise OutputExistsError(f"{config.submission} holds something: choose another folder, or pass --overwrite to write into it.")


def _check_submission(config: EvalConfig, scored: _Scored) -> None:
    """Raise ConfigError where there is nothing to submit, or nothing to score."""
    hidden = not any(gain > 0 for one in scored.sets for judged in one.qrels.values() for gain in judged.values())
    if config.submission is not None and not (hidden and scored.submit):
        raise ConfigError("There is nothing to submit: --submission is for a split whose judgements are hidden, as cirr's --variant test.")
    if config.submission is None and hidden and scored.submit:
        raise ConfigError("The judgements of this split are hidden: name a folder for its evaluation server's files with --submission.")


def _submit(config: EvalConfig, scored: _Scored, encoder: Encoder) -> None:
    """Rank what has no judgements, and write the files of the evaluation server."""
    from slq.evaluation import first_positions

    assert config.submission and scored.submit
    total = sum(len(one.queries) + len(one.corpus) for one in scored.sets)
    with console.progress_bar("encoding", total) as advance:
        options = (scored.submission_depth, config.batch_size, advance, config.cache_dir, config.num_workers)
        ranked = first_positions(encoder, scored.sets, *options)
    for one in scored.sets:
        console.list_failures(one.failures)
    files = scored.submit(config.submission, ranked)
    console.show(
        {"files": [str(file) for file in files], "benchmark": scored.benchmark}, lambda: console.result("\n".join(map(str, files)))
    )


def _warn_of_text_length(scored: _Scored, encoder: Encoder) -> None:
    """Warn where the model reads less of a text than published figures did."""
    wanted, most = scored.max_length, encoder.model.preprocessing.max_text_tokens
    if wanted and most < wanted:
        console.warn(
            f"Published figures read {wanted} tokens of a text, this model reads {most}: train, or score a base model, with --max-length."
        )


def _show(evaluations: Sequence[Evaluation], averages: Mapping[str, Any], benchmark: Mapping[str, Any] | None) -> None:
    """The scores of each set, then of mixed galleries, averages and categories where there are any."""
    if benchmark:
        console.result(f"{benchmark['name']}: {benchmark['protocol']} Data {benchmark['revision']}.")
    from slq.evaluation.mixed import MIXED

    alone = [one for one in evaluations if not one.name.startswith(MIXED)]
    mixed = [replace(one, name=one.name.removeprefix(MIXED)) for one in evaluations if one.name.startswith(MIXED)]
    names = list(dict.fromkeys(name for one in alone for name in one.metrics if not name.startswith(_NOT_SHOWN)))
    shown = [(title, each) for one in alone for title, each in ((one.name, one), ("  equal images folded", one.folded)) if each]
    console.table(["set", *names], [[title, *[_with_interval(each, name) for name in names]] for title, each in shown])
    for one in alone:
        for note in one.notes:
            console.result(f"{one.name}: {note}.")
        if one.equal_images:
            console.result(
                f"{one.name}: {one.equal_images} candidates or queries show the very image of another, which nothing can tell apart; "
                "folded, each image counts once, and what answers one of them answers all."
            )
    if mixed:
        console.result("\nIn a gallery of all images and texts together:")
        names = [*[f"hit@{k}" for k in mixed[0].depths], "mrr"]
        console.table(["set", *names], [[one.name, *[_with_interval(one, name) for name in names]] for one in mixed])
    for gap in [one.modality_gap for one in alone if one.modality_gap is not None][:1]:
        console.result(f"Modality gap: {gap:.2f}, the distance of the mean image from the mean text; 0 is none, 2 the most.")
    if averages:
        left_out = ("sets", "ci95", *_NOT_SHOWN)
        names = list(dict.fromkeys(name for found in averages.values() for name in found if not name.startswith(left_out)))
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
