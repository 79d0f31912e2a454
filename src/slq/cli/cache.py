"""`slq cache stat | clear`: the folder that `slq train --cache-dir` keeps prefixes in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slq.cli.shared import progress_bar, table
from slq.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Look into a folder that `slq train --cache-dir` keeps prefixes in, or empty it.")
FOLDER = Annotated[Path, typer.Argument(help="The folder given as --cache-dir.")]


@app.command()
def stat(
    folder: FOLDER,
    verify: Annotated[bool, typer.Option("--verify", help="Read every entry; those that are corrupt are removed.")] = False,
) -> None:
    """Say how much a cache folder holds.

    slq cache stat kept/ --verify
    """
    from slq.cache import DiskTier

    disk = DiskTier(_cache(folder))
    if verify:
        with progress_bar("reading", len(disk)) as advance:
            corrupt = disk.records.verify(advance)
        typer.echo(f"{corrupt} damaged entries removed.")
    kinds = [key.rsplit("-", 1)[-1] for key in disk.records.keys()]  # noqa: SIM118 (no mapping)
    rows = [[kind, kinds.count(kind)] for kind in ("states", "features")]
    table(["kept", "entries"], [*rows, ["in all", f"{len(disk)}, {disk.num_bytes / 2**20:.1f} MB"]])


@app.command()
def clear(folder: FOLDER) -> None:
    """Remove everything that a cache folder keeps; a run that uses it meanwhile only computes again.

    slq cache clear kept/
    """
    from slq.cache import DiskTier

    disk = DiskTier(_cache(folder))
    count, size = len(disk), disk.num_bytes
    disk.records.clear()
    typer.echo(f"{count} entries removed from {folder} ({size / 2**20:.1f} MB).")


def _cache(folder: Path) -> Path:
    """The folder, if slq keeps prefixes there; raises InputError otherwise, before anything in it is touched."""
    if not (folder / "CACHEDIR.TAG").is_file():
        raise InputError(f"{folder} is not a folder that slq keeps prefixes in: name the one given to slq train --cache-dir.")
    return folder
