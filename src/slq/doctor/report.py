"""All checks of a model, from loading it to the last row of the report.

Shapes: B items, D hidden size.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from slq.cache import default_budget
from slq.doctor.checks import CHECKS, WEIGHTS, Skipped
from slq.doctor.subject import IMAGE_SHAPES, SEED, Context, Measured, at_once, built_in_items, one_minus_cosine
from slq.encoders.latent import LatentEncoder
from slq.io.device import choose_dtype
from slq.judge.choosing import choose_question
from slq.judge.scoring import QUESTIONS
from slq.miniature.export import split_scenes
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import render
from slq.models import attention
from slq.types import Item

OTHER_DTYPE = "other dtype"
ALL_CHECKS = (*(check.name for check in CHECKS), WEIGHTS.name, OTHER_DTYPE)
DTYPE_TOLERANCE = 1e-3  # of 1 - cosine
DTYPE_ADVICE = (
    "In these two dtypes the model gives embeddings that differ by more than rounding. Use one dtype for all that is compared, training "
    "included; where one of them is float16, take bfloat16, which does not overflow."
)
JUDGED_SCENES = 32
UNKNOWN_ADVICE = "If that does not say what to do, report it with the name of the model."


@dataclass(frozen=True)
class Row:
    """What came of one measurement.

    Attributes:
        check: the check's name.
        result: ok, failed or skipped.
        what: what was measured.
        value: how much.
        tolerance: how much it may be.
        note: why it was skipped, or what a failure means and what to do.
    """

    check: str
    result: str
    what: str = ""
    value: float | None = None
    tolerance: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What came of all checks.

    Attributes:
        rows: of every check, in order.
        figures: what the model is and what it costs, which has no right or wrong.
        model: its identity.
        fingerprint: the encoder's.
    """

    rows: tuple[Row, ...]
    figures: dict[str, Any]
    model: dict[str, Any]
    fingerprint: str

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that are not as they should be."""
        return tuple(row for row in self.rows if row.result == "failed")


def run_checks(
    load: Callable[[str | None], LatentEncoder],
    batch_size: int = 8,
    progress: Callable[[str], None] = lambda what: None,
    names: Collection[str] = ALL_CHECKS,
) -> Report:
    """Load an encoder and run checks on it; a check that raises has failed, and the others still run.

    Args:
        load: gives the encoder in the dtype of that name, or for None as it is to be checked. What it raises the first time is passed on.
        batch_size: items in a batch that is timed.
        progress: called with what begins.
        names: of the checks to run; figures are taken beside all of them alone.

    Returns:
        The report.
    """
    progress("loading")
    started = time.perf_counter()
    encoder = load(None)
    figures = {"load_seconds": round(time.perf_counter() - started, 2), "batch_size": batch_size}
    report, embeddings = _as_loaded(encoder, figures, progress, names)
    if OTHER_DTYPE not in names:
        return report
    # The other dtype comes last, once the first model is gone, and is loaded again: converted where it stands, float32 would come back from
    # bfloat16 with other bits, and the rotary frequencies, float32 in every dtype, would be rounded with the rest. So it costs a second
    # loading, but no second copy in memory.
    del encoder
    gc.collect()
    progress(OTHER_DTYPE)
    rows = _rows(OTHER_DTYPE, DTYPE_ADVICE, lambda: _other_dtype(load, embeddings, report.figures))
    return replace(report, rows=report.rows + tuple(rows))


def _as_loaded(
    encoder: LatentEncoder, figures: dict[str, Any], progress: Callable[[str], None], names: Collection[str]
) -> tuple[Report, Callable[[], Tensor]]:
    """All that needs the loaded model alone; and the embeddings, for what does not."""
    progress("the model as it is")
    context = Context(encoder)
    rows: list[Row] = []
    figures = figures | _what_it_is(context)
    for check in (*CHECKS, WEIGHTS):  # the weights last: whether anything before them has changed one
        if check is WEIGHTS and set(names) >= set(ALL_CHECKS):
            progress("figures")
            figures = figures | _what_it_costs(context, figures["batch_size"])
        if check.name in names:
            progress(check.name)
            rows += _rows(check.name, check.advice, partial(check.run, context))
    report = Report(tuple(rows), figures, encoder.model.identity.to_dict(), encoder.fingerprint)
    return report, at_once(lambda: context.embeddings)


def _rows(name: str, advice: str, measure: Callable[[], list[Measured]]) -> list[Row]:
    """A check's rows: one for each number, or one that says why there is none."""
    try:
        measured = measure()
    except Skipped as reason:
        return [Row(name, "skipped", note=f"{reason}.")]
    except Exception as error:  # of an unknown model anything can come
        said = ": ".join([type(error).__name__, *str(error).strip().split("\n")[:1]]).rstrip(": .")
        return [Row(name, "failed", note=f"It cannot be run: {said}. {UNKNOWN_ADVICE}")]
    return [
        Row(name, "ok", each.what, each.value, each.tolerance)
        if each.value <= each.tolerance
        else Row(name, "failed", each.what, each.value, each.tolerance, advice)
        for each in measured
    ]


def _other_dtype(load: Callable[[str | None], LatentEncoder], embeddings: Callable[[], Tensor], figures: dict[str, Any]) -> list[Measured]:
    """Embeddings in the loaded dtype against those in the other one of float32 and bfloat16."""
    if figures["is_quantized"]:
        raise Skipped("quantized weights have no other dtype")
    loaded_BD, other = embeddings(), "bfloat16" if figures["dtype"] == "float32" else "float32"
    needed, free = figures["parameters"] * choose_dtype(other, loaded_BD.device).itemsize, _free_memory(loaded_BD.device)
    if needed > free:
        raise Skipped(f"in {other} the model needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free")
    try:
        with torch.no_grad():
            encoder = load(other)
            prepared = encoder.model.prepare(built_in_items(), encoder.generation_prompt)  # one batch, as the context's
            found_BD = encoder.encode_prepared(prepared)
    except torch.OutOfMemoryError as error:
        raise Skipped(f"there is not enough memory for it in {other}") from error
    return [Measured(f"1 - smallest cosine: {figures['dtype']} against {other}", one_minus_cosine(found_BD, loaded_BD), DTYPE_TOLERANCE)]


def _free_memory(device: torch.device) -> int:
    """Bytes that are free where the model is to be."""
    if device.type != "cuda":
        return 4 * default_budget()
    torch.cuda.empty_cache()
    return sum(torch.cuda.mem_get_info(each)[0] for each in range(torch.cuda.device_count()))


# --- figures ----------------------------------------------------------------------------------------------------------------


def _what_it_is(context: Context) -> dict[str, Any]:
    model = context.model.model
    return {
        "parameters": model.num_parameters(),
        "device": ", ".join(sorted({str(each.device) for each in model.parameters()})),
        "dtype": context.model.identity.dtype,
        "is_quantized": context.is_quantized,
        "attn_implementation": attention.implementation(model),
    }


def _what_it_costs(context: Context, batch_size: int) -> dict[str, Any]:
    """None for what cannot be had because a check has failed."""
    return {
        "tokens_per_image": _or_none(lambda: _tokens_per_image(context)),
        "closest_items": _or_none(lambda: asdict(context.closest())),
        "texts_per_second": _or_none(lambda: _per_second(context, context.texts, batch_size)),
        "images_per_second": _or_none(lambda: _per_second(context, context.images, batch_size)),
        "judge": _or_none(lambda: _judge(context)),
        "peak_memory_bytes": _peak_memory(context.model.device),
    }


def _or_none(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception:
        return None


def _tokens_per_image(context: Context) -> dict[str, int]:
    """How many tokens an image of each shape adds to an item."""

    def length(item: Item) -> int:
        return int(context.model.prepare([item]).inputs["attention_mask"].sum())

    images = [context.items[place].image for place in context.images]
    lengths = [length(Item("a cat", image)) - length(Item("a cat")) for image in images]
    return {f"{width}x{height}": tokens for (width, height), tokens in zip(IMAGE_SHAPES, lengths, strict=True)}


@torch.no_grad()
def _per_second(context: Context, places: Sequence[int], batch_size: int) -> float:
    """Items embedded in a second, in one batch, after one to warm up."""
    items = [context.items[places[number % len(places)]] for number in range(batch_size)]
    context.encoder.encode_batch(items).cpu()
    started = time.perf_counter()
    context.encoder.encode_batch(items).cpu()  # to the CPU, for an accelerator returns before it is done
    return round(batch_size / (time.perf_counter() - started), 4)


def _judge(context: Context) -> dict[str, Any]:
    """The question that the model judges hits by, on drawings with captions that no training of the miniature saw; no check fails by it."""
    rng = random.Random(SEED)
    scenes = [one.scene for one in split_scenes("validation", JUDGED_SCENES, SEED)]
    matches = [(Item(image=render(scene)), caption(scene, rng)) for scene in scenes]
    quick = [question for question in QUESTIONS if question.item_first]  # of the others each would read every image again
    choice = choose_question(context.model, matches, quick, seed=SEED)
    return {
        "question": choice.question.wording,
        "auc": round(choice.auc, 4),
        "ci95": [round(bound, 4) for bound in choice.bounds],
        "works": choice.works,
        "told": str(choice),
    }


def _peak_memory(device: torch.device) -> int | None:
    """The most bytes that the process, or on CUDA its tensors, have held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes there, KiB elsewhere
