"""`slq karr build | review | export`: a set of knowledge-aware retrieval queries from captioned images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slq.cli import loading
from slq.cli.shared import list_failures, table
from slq.errors import Failure, InputError
from slq_karr.cli.review import review

if TYPE_CHECKING:
    from slq_karr.build import Built
    from slq_karr.models import Model

PROMPT_TOKENS = 4096  # a model cuts texts that are longer; a prompt is not to be cut

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Build sets like KARR-Bench: queries that never name what they are after ("the animal with (2+7) lives").

    slq karr build --images photos/captions.jsonl --out my-set --endpoint http://localhost:8000/v1 --model Qwen/Qwen3-VL-8B-Instruct

    slq karr review my-set --reviewer ada

    slq karr export my-set --out my-benchmark

    slq eval --benchmark karr --data my-benchmark --adapter my-adapter""",
)


@app.command()
@loading.loads_a_model("device", "dtype", "device_map", "quantization")
def build(
    images: Annotated[Path, typer.Option("--images", "-i", help="Captions file, folder with captions, or bare folder of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the set. The same command again goes on with it.")],
    endpoint: Annotated[str | None, typer.Option(help="OpenAI-compatible address, such as http://localhost:8000/v1.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model's name at the endpoint; without an endpoint, a model on this machine.")
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the endpoint's key.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Accepted queries wanted. Default: one for each image.")] = None,
    mix: Annotated[str | None, typer.Option(help="Shares, as in `logic_maths=1,functional=2`. Default: KARR-Bench's.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Folder of prompts of your own; those it lacks are slq's.")] = None,
    captions_only: Annotated[bool, typer.Option("--captions-only", help="Send no images: cheaper, for models without eyes.")] = False,
    tries: Annotated[int, typer.Option(min=1, help="Queries written for one image, at most, until one is accepted.")] = 3,
    max_positives: Annotated[int, typer.Option(min=0, help="Other images judged for each query, at most.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 4,
    requests_per_minute: Annotated[float | None, typer.Option(help="Requests sent a minute, at most. Default: no limit.")] = None,
    price_in: Annotated[float, typer.Option(help="Price of a million tokens in, in any currency.")] = 0.0,
    price_out: Annotated[float, typer.Option(help="Price of a million tokens out.")] = 0.0,
    max_cost: Annotated[float | None, typer.Option(help="Stop before the set has cost more than this, all runs together.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most. A model that thinks needs more.")] = 500,
    max_side: Annotated[int, typer.Option(min=1, help="Images are scaled down to this many pixels a side before they are sent.")] = 1024,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for an answer.")] = 120.0,
    fields: Annotated[str | None, typer.Option(help="JSON put into every request; null removes a field.")] = None,
    seed: Annotated[int, typer.Option(help="Order in which images are taken.")] = 0,
    *,
    wanted: loading.Loading,
) -> None:
    """Write and check queries with a model's help; about 5 requests a query, and as many more as other images are judged.

    Each query must not leak its target, not be findable by surface words, not repeat another, be answerable without the image, and be
    true of it. All requests and answers are kept in SET/requests.jsonl: stop whenever you like, run the same command again, and nothing is
    paid twice. What was left out stands with its reason in SET/skipped.jsonl.

        slq karr build --images coco/dataset_coco.json --out my-set --count 500 --endpoint https://api.example.com/v1 --model M
        --api-key-env MY_KEY --price-in 0.4 --price-out 1.6 --max-cost 5

        slq karr build --images photos/ --out my-set --model Qwen/Qwen3-VL-8B-Instruct

    Next: `slq karr review my-set --reviewer ada` if people are to look at it, and `slq karr export my-set --out my-benchmark`.
    docs/karr.md tells how it works, what it costs and what it cannot do.
    """
    from slq_karr.build import build as run
    from slq_karr.categories import CATEGORIES, parse_mix
    from slq_karr.limits import Limits
    from slq_karr.models import Endpoint, LocalModel, parse_fields
    from slq_karr.prompts import load_prompts
    from slq_karr.settings import Options

    if model is None:
        raise InputError("Say which model is asked with --model: its name at the --endpoint, or a model on this machine.")
    shares = parse_mix(mix) if mix else CATEGORIES
    options = Options(count, tuple(shares.items()), tries, max_positives, captions_only, seed)
    limits = Limits(concurrency, requests_per_minute, price_in, price_out, max_cost)
    texts = load_prompts(prompts)
    with ExitStack() as open_until_built:
        asked: Model
        if endpoint is not None:
            body = parse_fields(fields) if fields else {}
            asked = open_until_built.enter_context(
                closing(Endpoint(endpoint, model, _key(api_key_env), max_tokens, max_side, timeout, body))
            )
        else:
            asked = LocalModel(replace(wanted, max_text_tokens=PROMPT_TOKENS).model(model), max_tokens)
        on_progress = open_until_built.enter_context(_progress())
        built = run(images, out, asked, texts, options, limits, on_progress=on_progress, endpoint=endpoint or "")
    _show(built, out, dict(options.mix))


app.command()(review)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="SET", help="The set, as `slq karr build --out` made it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the benchmark.")],
    reviewed_only: Annotated[bool, typer.Option("--reviewed-only", help="Leave out what nobody has reviewed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """Write the accepted queries as a benchmark: KARR and BEIR layout in one folder, with where each query came from and a data card.

    Where people reviewed a query, the majority of them decides in place of the checks, and an edited wording is used.

        slq karr export my-set --out my-benchmark

        slq eval --benchmark karr --data my-benchmark --adapter my-adapter

        slq eval --data my-benchmark/whole-gallery --adapter my-adapter

    The first scores among the images that have a query, the second among all images of the set.
    """
    from slq_karr.categories import label
    from slq_karr.export import export as run

    exported = run(folder, out, reviewed_only, overwrite)
    table(["category", "queries"], [[label(name), count] for name, count in exported.categories.items()])
    for warning in exported.warnings:
        typer.secho(f"Look at this: {warning}", fg="yellow", err=True)
    typer.echo(f"{exported.queries} queries over {exported.images} images written to {out}; its README.md is the data card.")
    typer.echo(f"Next: slq eval --benchmark karr --data {out}")


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise InputError(f"The environment variable {variable} holds no key: set it, or leave out --api-key-env.")
    return value


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int, float], None]]:
    """A progress bar for the stage under way, and what the set has cost so far."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    cost = TextColumn("cost {task.fields[cost]:.4f}")
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), cost, TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=None, cost=0.0)

        def on_progress(stage: str, done: int, total: int, spent: float) -> None:
            bar.update(task, description=stage.replace("_", " "), completed=done, total=total, cost=spent)

        yield on_progress


def _show(built: Built, out: Path, mix: dict[str, float]) -> None:
    from collections import Counter

    from slq_karr.categories import label

    accepted = Counter(each.category for each in built.accepted)
    table(
        ["category", "accepted", "lacking"],
        [[label(name), accepted[name], built.missing.get(name, 0)] for name, share in mix.items() if share],
    )
    failed = Counter(each.failed for each in built.candidates if each.failed)
    if failed:
        table(["check", "queries it rejected"], [[check.replace("_", " "), number] for check, number in failed.most_common()])
    shown = built.skipped[:10]
    list_failures([*shown, *([Failure("and", f"{len(built.skipped) - 10} more, in {out}/skipped.jsonl")] if built.skipped[10:] else [])])
    typer.echo(f"{len(built.accepted)} of {len(built.candidates)} queries accepted in {out}; the set has cost {built.spent:.4f}.")
    if built.missing:
        typer.echo(
            "The images gave no more for the categories that lack: see what was left out, add images, raise --tries, or change --mix."
        )
    if built.accepted:
        typer.echo(f"Next: slq karr export {out} --out {out}-benchmark")
