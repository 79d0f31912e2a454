"""`slq retention`: what a model still answers after it was adapted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slq import console
from slq.cli.command import command, command_line
from slq.config import ModelConfig, PreprocessingConfig, RetentionConfig

if TYPE_CHECKING:
    from slq.retention import Report, TaskScore


@command("retention")
def app(config: RetentionConfig, model: ModelConfig, preprocessing: PreprocessingConfig) -> int:
    """Ask a model the same questions before and after it was adapted: what does it still know?

    For an adapter of latent queries nothing may change, and that is verified: the weights' SHA-256 before everything and after the adapter
    has encoded a batch and all was asked again, and every greedy answer, text for text. Ends with code 1 if anything differs. A model
    fine-tuned by LoRA or in full has changed; how much is measured, with 95 % intervals and a paired test.

        slq retention -m my-adapter -o retention.json --per-question

        slq retention -m my-lora --task mmmu_val --task realworldqa --cache-dir answers

        slq retention -m my-lora --task questions.jsonl
    """
    from slq.encoders.opening import open_base_and_encoder
    from slq.io.files import write_json
    from slq.io.outputs import check_output_file
    from slq.retention import load_tasks, result_record, retention

    if config.output:
        check_output_file(config.output, [model.model, model.base_model, *config.task_dir], overwrite=config.overwrite)
    with console.waiting("rendering or loading the questions"):
        tasks = load_tasks(config.task, config.num_questions, config.seed, config.limit, config.task_dir)
    for task in tasks:
        console.list_failures(getattr(task, "failures", ()), f"question(s) of {task.name} skipped:")
    with console.waiting("loading the model"):
        before, encoder = open_base_and_encoder(model, preprocessing)
    after = None if encoder is None else encoder.model
    with console.progress_bar("asking", sum(map(len, tasks)) * (1 if after is None else 2)) as advance:
        report = retention(
            before, after, tasks, encoder=encoder, cache_dir=config.cache_dir, batch_size=config.batch_size, progress=advance
        )
    console.list_failures(report.before.failures, "question(s) could not be put and count as wrong:")
    result = result_record(
        report,
        tasks,
        adapter=None if encoder is None else model.model,
        encoder=encoder,
        settings={"batch_size": config.batch_size, "questions": config.num_questions, "limit": config.limit},
        command=command_line(),
        device=str(before.device),
        seed=config.seed,
        per_question=config.per_question,
    )
    if config.output:
        write_json(config.output, result)
        console.note(f"Written to {config.output}.")
    proves = after is before  # latent queries change nothing, which is to be shown
    console.show(result, lambda: _show(report, proves))
    if proves:
        _warn_of_changes(report)
    return 1 if proves and not (report.same_weights and not report.changed) else 0


def _show(report: Report, proves: bool) -> None:
    """The table of tasks, and for latent queries that nothing has changed."""
    rows = []
    for one in report.tasks:
        if one.after is None or one.change is None:
            rows.append([one.name, one.questions, _score(one.before)])
            continue
        low, high = (100 * bound for bound in one.change.ci95)
        points = f"{100 * one.change.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
        changed = f"{one.change.answers} ({one.change.lost} lost, {one.change.gained} gained)"
        rows.append([one.name, _score(one.before), _score(one.after), points, f"{one.change.p:.4f}", changed])
    header = ["task", "questions", "right"] if report.after is None else ["task", "before", "after", "points", "p", "answers changed"]
    console.table(header, rows)
    if proves and report.same_weights:
        console.result(f"Weights: bit-identical after encoding {report.encoded} items, sha256 {report.weights_at_the_end[:16]}...")
    if proves and not report.changed:
        console.result(f"Answers: all {sum(one.questions for one in report.tasks)} the same, text for text.")


def _score(score: TaskScore) -> str:
    return console.percent(score.right, score.ci95)


def _warn_of_changes(report: Report) -> None:
    """Say on stderr what is not identical after latent queries were used, and what to do."""
    if not report.same_weights:
        console.error("Weights: NOT the same as before encoding. Something trains or writes them: load the model again.")
    if report.changed:
        advice = "This device does not repeat its results, or encoding leaves something behind: try `slq doctor`, and --device cpu."
        console.error(f"Answers: {report.changed} of {sum(one.questions for one in report.tasks)} are NOT the same. {advice}")
