"""`slq doctor`: try a model before anything is built on it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from slq import console
from slq.cli.command import command
from slq.config import DoctorConfig, ModelConfig, PreprocessingConfig

if TYPE_CHECKING:
    from slq.encoders.latent import LatentEncoder


@command("doctor")
def app(config: DoctorConfig, model: ModelConfig, preprocessing: PreprocessingConfig) -> int:
    """Try a model, or an adapter over it, before you build on it: are its results what they should be, and what does it cost?

    On eight built-in items it compares: the two-pass forward with the reference path (values and gradients); cached prefixes with fresh
    ones; a batch of one with a batch of eight; orders and mixtures in a batch; implementations of attention; an adapter before and after
    saving; the model's answers and its weights before and after; float32 with bfloat16. For the last it loads the model a second time,
    after letting the first one go. Beside that: memory, items a second, tokens an image, and whether the model can judge hits, by which
    question. Ends with code 1 if a check failed, saying what that means and what to do.

        slq doctor

        slq doctor -m my-adapter --dtype bfloat16

        slq doctor -m OpenGVLab/InternVL3-1B-hf -o report.json

        slq doctor -m my-adapter --check "saved adapter" --check weights
    """
    from slq.doctor import ALL_CHECKS, SEED, run_checks, with_fresh_queries
    from slq.encoders.opening import is_adapter, open_encoder, open_model
    from slq.io.files import write_json
    from slq.io.outputs import check_output_file
    from slq.io.provenance import provenance

    if config.output:
        check_output_file(config.output, [model.model, model.base_model], overwrite=config.overwrite)

    def load(other_dtype: str | None) -> LatentEncoder:
        chosen = replace(model, dtype=other_dtype or model.dtype)
        if is_adapter(model.model):
            return open_encoder(chosen, preprocessing)  # type: ignore[return-value]
        return with_fresh_queries(open_model(chosen, preprocessing))

    report = run_checks(load, config.batch_size, lambda what: console.note(f"{what} ..."), config.checks or ALL_CHECKS)
    result = {
        "checks": [asdict(row) for row in report.rows],
        "figures": report.figures,
        "base_model": report.model,
        "adapter": model.model if is_adapter(model.model) else None,
        "fingerprint": report.fingerprint,
        "provenance": provenance(SEED),
    }
    if config.output:
        write_json(config.output, result)
        console.note(f"Report written to {config.output}.")
    console.show(result, lambda: _show(report))
    return 1 if report.failed else 0


def _show(report: Any) -> None:
    """The table of checks, the figures, and for each check that failed what to do."""
    rows = []
    for row in report.rows:
        what = row.what or (row.note if row.result == "skipped" else "nothing, see below")
        rows.append([row.check, what, _number(row.value), _number(row.tolerance), row.result])
    console.table(["check", "measured", "value", "at most", "result"], rows)
    console.table(["figure", "value"], list(map(list, _readable(report).items())))
    for name, notes in {row.check: row.note for row in report.failed}.items():
        console.error(f"{name}: {notes}")
    if not report.failed:
        console.result("All is well.")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}" if value else "0"


def _readable(report: Any) -> dict[str, str]:
    """Figures with the words and units a reader wants; what could not be had, because a check has failed, is left out."""
    figures = report.figures
    batch = f"a second, in batches of {figures['batch_size']}"
    shown = {
        "parameters": f"{figures['parameters'] / 1e6:,.1f} million, {figures['dtype']} on {figures['device']}",
        "attention": figures["attn_implementation"],
        "seconds to load": figures["load_seconds"],
    }
    if (peak := figures.get("peak_memory_bytes")) is not None:
        shown["peak memory"] = f"{peak / 2**30:.2f} GiB, before the other dtype"
    if (tokens := figures.get("tokens_per_image")) is not None:
        shown["tokens an image"] = ", ".join(f"{count} ({shape})" for shape, count in tokens.items())
    for kind in ("texts", "images"):
        if (speed := figures.get(f"{kind}_per_second")) is not None:
            shown[f"{kind} {batch}"] = f"{speed:.3g}"
    if (judge := figures.get("judge")) is not None:
        shown["judging hits"] = judge["told"]
    if (closest := figures.get("closest_items")) is not None:
        blind = closest["value"] <= closest["tolerance"]
        shown["the two closest items differ by"] = _number(closest["value"]) + (
            ": that is within the tolerance, so a mix-up of these two passes for rounding; try --dtype float32" if blind else ""
        )
    return {name: str(value) for name, value in shown.items()}
