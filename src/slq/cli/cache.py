"""`slq cache info | clear`: the folder that `slq train --cache-dir` caches prefixes in."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from slq import console
from slq.cli.command import command, group
from slq.config import CacheClearConfig, CacheInfoConfig
from slq.errors import InputError


@command("cache info")
def info(config: CacheInfoConfig) -> None:
    """Say how much a cache folder holds.

    slq cache info cache --verify
    """
    from slq.cache import LEVELS, DiskTier

    disk = DiskTier(_cache_folder(config.folder))
    corrupt = None
    if config.verify:
        with console.progress_bar("reading", len(disk)) as advance:
            corrupt = disk.records.verify(advance)
    kinds = [key.rsplit("-", 1)[-1] for key in disk.records.keys()]  # noqa: SIM118 (no mapping)
    counts = {kind: kinds.count(kind) for kind in LEVELS if kind != "none"}

    def text() -> None:
        if corrupt is not None:
            console.result(f"{corrupt} corrupt entries removed.")
        console.table(["cached", "entries"], [*counts.items(), ("in all", f"{len(disk)}, {disk.num_bytes / 2**20:.1f} MB")])

    console.show({"folder": str(config.folder), "entries": counts, "bytes": disk.num_bytes, "corrupt": corrupt}, text)


@command("cache clear")
def clear(config: CacheClearConfig) -> None:
    """Remove all cached entries from a cache folder, and nothing else; a run that uses it meanwhile only computes again.

    slq cache clear cache
    """
    from slq.cache import DiskTier

    disk = DiskTier(_cache_folder(config.folder))
    count, size = len(disk), disk.num_bytes
    disk.records.clear()
    console.show(
        {"folder": str(config.folder), "entries": count, "bytes": size},
        lambda: console.result(f"{count} entries removed from {config.folder} ({size / 2**20:.1f} MB)."),
    )


app: App = group("cache", "Cached prefixes: look into a folder of `slq train --cache-dir`, or empty it.", info, clear)


def _cache_folder(folder: Path | None) -> Path:
    """The folder, if slq caches prefixes there.

    Raises:
        InputError: otherwise, before anything in it is touched.
    """
    if folder is None or not (folder / "CACHEDIR.TAG").is_file():
        raise InputError(f"{folder} is not a folder that slq caches prefixes in: name the one given to slq train --cache-dir.")
    return folder
