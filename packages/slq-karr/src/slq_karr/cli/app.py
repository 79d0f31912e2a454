"""`slq karr build | review | export`: a set of knowledge-aware retrieval queries from captioned images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq import console
from slq.cli.command import command, group
from slq.config import PreprocessingConfig
from slq.errors import Failure, InputError
from slq_karr.cli.review import review
from slq_karr.config import AskedModelConfig, BuildConfig, ExportConfig

if TYPE_CHECKING:
    from slq_karr.build import Built
    from slq_karr.models import Model

PROMPT_TOKENS = 4096  # a model cuts texts that are longer; a prompt is not to be cut


@command("karr build")
def build(config: BuildConfig, model: AskedModelConfig) -> None:
    """Write and check queries with a model's help; about 5 requests a query, and as many more as other images are judged.

    Each query must not leak its target, not be findable by surface words, not repeat another, be answerable without the image, and be
    true of it. All requests and answers are kept in SET/requests.jsonl: stop whenever you like, run the same command again, and nothing is
    paid twice. What was skipped stands with its reason in SET/skipped.jsonl.

        slq karr build -i coco/dataset_coco.json -o my-set --count 500 --endpoint https://api.example.com/v1 -m M --max-cost 5

        slq karr build -i photos/ -o my-set -m Qwen/Qwen3-VL-8B-Instruct

    Next: `slq karr review my-set --reviewer ada` if people are to look at it, and `slq karr export my-set -o my-benchmark`.
    docs/karr.md tells how it works, what it costs and what it cannot do.
    """
    from slq.encoders.opening import open_model
    from slq_karr.build import build as run
    from slq_karr.categories import CATEGORIES, parse_mix
    from slq_karr.limits import Limits
    from slq_karr.models import Endpoint, LocalModel, parse_fields
    from slq_karr.prompts import load_prompts
    from slq_karr.settings import Options

    assert config.images is not None and config.output is not None and model.model is not None
    shares = parse_mix(config.mix) if config.mix else CATEGORIES
    options = Options(config.count, tuple(shares.items()), config.tries, config.max_positives, config.captions_only, config.seed)
    limits = Limits(config.concurrency, config.requests_per_minute, config.price_in, config.price_out, config.max_cost)
    texts = load_prompts(config.prompts)
    with ExitStack() as open_until_built:
        asked: Model
        if config.endpoint is not None:
            body = parse_fields(config.fields) if config.fields else {}
            key = _key(config.api_key_env)
            server = Endpoint(config.endpoint, model.model, key, config.max_tokens, config.max_side, config.timeout, body)
            asked = open_until_built.enter_context(closing(server))
        else:
            asked = LocalModel(open_model(model, PreprocessingConfig(max_length=PROMPT_TOKENS)), config.max_tokens)
        on_progress = open_until_built.enter_context(_progress())
        more: dict[str, Any] = {"endpoint": config.endpoint or "", "allow_outside": config.allow_outside}
        built = run(config.images, config.output, asked, texts, options, limits, on_progress=on_progress, **more)
    document = {
        "output": str(config.output),
        "accepted": len(built.accepted),
        "candidates": len(built.candidates),
        "missing": dict(built.missing),
        "cost": built.spent,
    }
    console.show(document, lambda: _show(built, config.output or Path(), dict(options.mix)))


@command("karr export")
def export(config: ExportConfig) -> None:
    """Write the accepted queries as a benchmark: KARR and BEIR layout in one folder, with where each query came from and a data card.

    Where people reviewed a query, the majority of them decides in place of the checks, and an edited wording is used.

        slq karr export my-set -o my-benchmark

        slq eval my-benchmark --benchmark karr -m my-adapter

        slq eval my-benchmark/whole-gallery -m my-adapter

    The first scores among the images that have a query, the second among all images of the set.
    """
    from slq_karr.categories import label
    from slq_karr.export import export as run

    assert config.folder is not None and config.output is not None
    exported = run(config.folder, config.output, config.reviewed_only, config.overwrite)
    for warning in exported.warnings:
        console.warn(warning)

    def text() -> None:
        console.table(["category", "queries"], [[label(name), count] for name, count in exported.categories.items()])
        console.result(
            f"{exported.queries} queries over {exported.images} images written to {config.output}; its README.md is the data card."
        )
        console.note(f"Next: slq eval {config.output} --benchmark karr")

    console.show({"output": str(config.output), "queries": exported.queries, "images": exported.images}, text)


SUMMARY = 'Build sets like KARR-Bench: queries that never name their target ("the animal with (2+7) lives").'
app = group("karr", SUMMARY, build, review, export)


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
    with console.progress_bar("building") as bar:

        def on_progress(stage: str, done: int, total: int, spent: float) -> None:
            bar.update(completed=done, total=total, description=stage.replace("_", " "), note=f"cost {spent:.4f}")

        yield on_progress


def _show(built: Built, out: Path, mix: dict[str, float]) -> None:
    from collections import Counter

    from slq_karr.categories import label

    accepted = Counter(each.category for each in built.accepted)
    console.table(
        ["category", "accepted", "lacking"],
        [[label(name), accepted[name], built.missing.get(name, 0)] for name, share in mix.items() if share],
    )
    failed = Counter(each.failed for each in built.candidates if each.failed)
    if failed:
        console.table(["check", "queries it rejected"], [[check.replace("_", " "), number] for check, number in failed.most_common()])
    shown = built.skipped[:10]
    console.list_failures(
        [*shown, *([Failure("and", f"{len(built.skipped) - 10} more, in {out}/skipped.jsonl")] if built.skipped[10:] else [])]
    )
    console.result(f"{len(built.accepted)} of {len(built.candidates)} queries accepted in {out}; the set has cost {built.spent:.4f}.")
    if built.missing:
        console.note(
            "The images gave no more for the categories that lack: see what was skipped, add images, raise --tries, or change --mix."
        )
    if built.accepted:
        console.note(f"Next: slq karr export {out} -o {out}-benchmark")
