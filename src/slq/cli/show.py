"""`slq world` and `slq demo`: something to try everything on, without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slq.cli.shared import OVERWRITE, progress_bar


def world(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for images/, captions.jsonl and the BEIR sets beside them; with --contact-sheet a file."),
    ],
    split: Annotated[str, typer.Option(help="train (two captions an image), validation or test. No content is in two splits.")] = "test",
    count: Annotated[int | None, typer.Option(help="Images. Default: 3000 for train, else 500.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other scenes of the same split.")] = 0,
    held_out_style: Annotated[bool, typer.Option("--held-out-style", help="Draw in the one style no training ever sees.")] = False,
    contact_sheet: Annotated[bool, typer.Option("--contact-sheet", help="Write one image with every concept instead.")] = False,
    overwrite: OVERWRITE = False,
) -> None:
    """Write the picture-book world as ordinary files, to train, evaluate and search on without any download.

    Beside captions.jsonl stand three BEIR sets over the same images: knowledge/ (facts that never name what is shown), composed/ (a
    image and a change: "but blue") and rendered/ (names rendered as images).

        slq world --split test --out world/test

        slq eval --data world/test/knowledge --adapter my-adapter
    """
    from slq.miniature import export

    if contact_sheet:
        from slq.io.files import map_os_errors

        with map_os_errors(out):
            export.contact_sheet().save(out)
        typer.echo(f"Contact sheet written to {out}.")
        return
    with progress_bar("drawing", count or export.DEFAULT_COUNTS.get(split, 0)) as advance:
        written = export.write_sample_data(out, split, count, seed, held_out_style, overwrite, advance)
    typer.echo(f"{written} images in {out}, beside them captions.jsonl, knowledge/, composed/ and rendered/.")


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for everything the demo makes; what an earlier demo left is replaced.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the adaptation.")] = 0,
) -> None:
    """Adapt the built-in miniature, show what that changed, search a folder of images, and write a page of results.

    Needs no download and no other file.

        slq demo --out demo
    """
    from slq.demo import run

    run(out, seed)
