"""`slq retention`: what a model still knows after it was adapted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slq.cli import loading
from slq.cli.shared import progress_bar, table, waiting
from slq.errors import InputError

if TYPE_CHECKING:
    from slq.encoders.base import Encoder
    from slq.models import FrozenModel
    from slq.retention import Report, Score, Side


@loading.loads_a_model()
def retention(
    adapter: Annotated[
        str | None, typer.Option("--adapter", "-a", help="What `slq train` learned. Without it, the model alone is asked.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-b", help=f"Default: the one the adapter was learned on, else `miniature`. {loading.MODEL_HELP}"),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            "-t",
            help="Separated by commas: knowledge, spatial, reading (the miniature's suites); mmmu_val, realworldqa, ocrbench, or any task "
            "of lm-evaluation-harness that is answered in words.",
        ),
    ] = "knowledge,spatial,reading",
    task_folder: Annotated[
        list[Path] | None, typer.Option(help="A folder of further tasks in the harness's YAML format (repeat it).")
    ] = None,
    questions: Annotated[int, typer.Option(help="How many questions a suite of the miniature draws.")] = 300,
    seed: Annotated[int, typer.Option(help="Which questions the suites draw.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Ask only the first so many of each task, or of each of its parts.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep answers in this folder: a run that was stopped goes on where it was.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the scores here, with all that they depend on.")] = None,
    per_question: Annotated[bool, typer.Option("--per-question", help="Also write every question with both answers.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions asked at once; lower it if memory is short.")] = 32,
    *,
    wanted: loading.Loading,
) -> None:
    """Ask a model the same questions before and after it was adapted: what does it still know?

    For an adapter of latent queries nothing may change, and that is proven: the weights' SHA-256 before everything and after the adapter
    has embedded a batch and all was asked again, and every greedy answer, text for text. Ends with code 1 if anything differs. A model
    tuned by LoRA or in full has changed; how much is measured, with 95 % intervals and a paired test.

        slq retention --adapter my-adapter --json retention.json --per-question

        slq retention --adapter my-lora --tasks mmmu_val,realworldqa,ocrbench --keep answers/
    """
    from slq.io.files import write_json
    from slq.retention import load_tasks, result_record
    from slq.retention import retention as run

    if per_question and not json_file:
        raise InputError("--per-question writes answers into a file: name it with --json.")
    with waiting("drawing or loading the questions"):
        found = load_tasks([name.strip() for name in tasks.split(",") if name.strip()], questions, seed, limit, task_folder or ())
    before, encoder = _before_and_learned(wanted, adapter, model)
    after = None if encoder is None else encoder.model
    with progress_bar("asking", sum(map(len, found)) * (1 if after is None else 2)) as advance:
        report = run(before, after, found, encoder=encoder, keep=keep, batch_size=batch_size, progress=advance)
    _show(report)
    if json_file:
        result = result_record(
            report,
            found,
            adapter=adapter,
            encoder=encoder,
            settings={"batch_size": batch_size, "questions": questions, "limit": limit},
            command=shlex.join(["slq", *sys.argv[1:]]),
            device=str(before.device),
            seed=seed,
            per_question=per_question,
        )
        write_json(json_file, result)
        typer.echo(f"Written to {json_file}.")
    if after is before and not _prove(report):
        raise typer.Exit(1)


def _before_and_learned(wanted: loading.Loading, adapter: str | None, name: str | None) -> tuple[FrozenModel, Encoder | None]:
    """The model as it is, and what was learned on it; for latent queries over the very same object."""
    from slq.adapters.files import load_learned_on
    from slq.encoders import load_encoder
    from slq.encoders.finetuned import FineTunedModel, FineTuneRecord
    from slq.models import MINIATURE

    if adapter is None:
        return wanted.model(name or MINIATURE), None
    if not FineTunedModel.is_in(Path(adapter)):
        encoder = wanted.latent_encoder(adapter, name)
        return encoder.model, encoder
    before = load_learned_on(FineTuneRecord.read(Path(adapter)).base_model, {"name": name, **wanted.beside_its_own_preprocessing()})
    return before, load_encoder(adapter, before)


def _show(report: Report) -> None:
    """The table of tasks, and questions that could not be put."""
    _list_failures(report.before)
    rows = []
    for one in report.tasks:
        if one.after is None or one.change is None:
            rows.append([one.name, one.questions, _share(one.before)])
            continue
        low, high = (100 * end for end in one.change.ends)
        points = f"{100 * one.change.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
        changed = f"{one.change.answers} ({one.change.lost} lost, {one.change.gained} gained)"
        rows.append([one.name, _share(one.before), _share(one.after), points, f"{one.change.p:.4f}", changed])
    table(["task", "questions", "right"] if report.after is None else ["task", "before", "after", "points", "p", "answers changed"], rows)


def _share(score: Score) -> str:
    low, high = score.ends
    return f"{score.right:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _list_failures(side: Side) -> None:
    """Say which questions could not be put, every one of them, on the error stream."""
    if side.failures:
        typer.secho(f"{len(side.failures)} question(s) could not be put and count as wrong:", fg="yellow", err=True)
        for failure in side.failures:
            typer.secho(f"  {failure}", err=True)


def _prove(report: Report) -> bool:
    """Say whether weights and answers are the same after latent queries were used."""
    asked = sum(one.questions for one in report.tasks)
    if report.same_weights:
        typer.echo(f"Weights: the same to the bit after embedding {report.embedded} items, sha256 {report.weights_at_the_end[:16]}...")
    else:
        typer.secho("Weights: NOT the same as before embedding. Something trains or writes them: load the model anew.", fg="red", err=True)
    if not report.changed:
        typer.echo(f"Answers: all {asked} the same, text for text.")
    else:
        advice = "This device does not repeat its numbers, or embedding leaves something behind: try `slq doctor`, and --device cpu."
        typer.secho(f"Answers: {report.changed} of {asked} are NOT the same. {advice}", fg="red", err=True)
    return report.same_weights and not report.changed
