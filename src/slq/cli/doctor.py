"""`slq doctor`: try a model before anything is built on it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slq.cli import loading
from slq.cli.shared import table

if TYPE_CHECKING:
    from slq.doctor import Examination
    from slq.encoders.latent import LatentEncoder


@loading.loads_a_model()
def doctor(
    model: Annotated[
        str | None,
        typer.Option("--model", "-b", help=f"Default: the one the adapter was learned on, else `miniature`. {loading.MODEL_HELP}"),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", "-a", help="Adapter folder or hub repository. Without it, untrained latent queries.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write checks and figures here.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Items in the batches that are timed.")] = 8,
    *,
    wanted: loading.Loading,
) -> None:
    """Try a model, or an adapter over it, before you build on it: does it give the numbers it should, and what does it cost?

    On eight built-in items it compares: the fast path with its slow twin (values and gradients); kept prefixes with fresh ones; a batch of
    one with a batch of eight; orders and mixtures in a batch; implementations of attention; an adapter before and after saving; the model's
    answers and its weights before and after; float32 with bfloat16. For the last it loads the model a second time, after letting the
    first one go. Beside that: memory, items a second, tokens an image.

    Ends with code 0 if all is well, and with 1 if a check failed, saying what that means and what to do.

        slq doctor

        slq doctor --model OpenGVLab/InternVL3-1B-hf --json report.json

        slq doctor --adapter my-adapter --dtype bfloat16
    """
    from slq.doctor import examine, with_fresh_queries
    from slq.models import MINIATURE

    def load(other_dtype: str | None) -> LatentEncoder:
        chosen = replace(wanted, dtype=other_dtype or wanted.dtype)
        return chosen.latent_encoder(adapter, model) if adapter else with_fresh_queries(chosen.model(model or MINIATURE))

    examination = examine(load, batch_size, lambda what: typer.echo(f"{what} ..."))
    _show(examination)
    if json_file:
        _write(examination, adapter, json_file)
    if examination.failed:
        raise typer.Exit(1)


def _show(examination: Examination) -> None:
    """The table of checks, the figures, and for each check that failed what to do."""
    rows = []
    for row in examination.rows:
        what = row.what or (row.note if row.result == "skipped" else "nothing, see below")
        rows.append([row.check, what, _number(row.value), _number(row.tolerance), row.result])
    table(["check", "measured", "value", "at most", "result"], rows)
    table(["figure", "value"], list(map(list, _readable(examination).items())))
    for name, notes in {row.check: row.note for row in examination.failed}.items():
        typer.secho(f"{name}: {notes}", fg="red", err=True)
    if not examination.failed:
        typer.echo("All is well.")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}" if value else "0"


def _readable(examination: Examination) -> dict[str, str]:
    """Figures with the words and units a reader wants; what could not be had, because a check has failed, is left out."""
    figures = examination.figures
    batch = f"a second, in batches of {figures['batch_size']}"
    shown = {
        "parameters": f"{figures['parameters'] / 1e6:,.1f} million, {figures['dtype']} on {figures['device']}",
        "attention": figures["attn_implementation"],
        "seconds to load": figures["load_seconds"],
    }
    if (peak := figures["peak_memory_bytes"]) is not None:
        shown["peak memory"] = f"{peak / 2**30:.2f} GiB, before the other dtype"
    if (tokens := figures["tokens_per_image"]) is not None:
        shown["tokens an image"] = ", ".join(f"{count} ({shape})" for shape, count in tokens.items())
    for kind in ("texts", "images"):
        if (speed := figures[f"{kind}_per_second"]) is not None:
            shown[f"{kind} {batch}"] = f"{speed:.3g}"
    if (closest := figures["closest_items"]) is not None:
        blind = closest["value"] <= closest["tolerance"]
        shown["the two closest items differ by"] = _number(closest["value"]) + (
            ": that is within the tolerance, so a mix-up of these two passes for rounding; try --dtype float32" if blind else ""
        )
    return {name: str(value) for name, value in shown.items()}


def _write(examination: Examination, adapter: str | None, file: Path) -> None:
    from slq.doctor import SEED
    from slq.io.files import write_json
    from slq.io.provenance import provenance

    result = {
        "checks": [asdict(row) for row in examination.rows],
        "figures": examination.figures,
        "backbone": examination.model,
        "adapter": adapter,
        "fingerprint": examination.fingerprint,
        "provenance": provenance(SEED),
    }
    write_json(file, result)
    typer.echo(f"Report written to {file}.")
