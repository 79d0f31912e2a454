"""Fetching data sets from the hub, each at a commit that can be named beside a score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slq.errors import InputError
from slq.io.hub import snapshot


def fetch(hub_ids: Sequence[str], revision: str | None, only: Sequence[str | None] = ()) -> tuple[tuple[Path, ...], str]:
    """The folders of data sets on the hub, and their commits joined by `+`, which given as `revision` fetches the same again.

    Args:
        hub_ids: of the data sets.
        revision: a commit of each, joined by `+`; None for the newest.
        only: for each data set a pattern of the files that are needed, None for all.

    Raises:
        DataError: if one is not on this machine and cannot be fetched.
        InputError: if `revision` does not name one for each.
    """
    revisions = revision.split("+") if revision else [None] * len(hub_ids)
    if len(revisions) != len(hub_ids):
        raise InputError(f"the data comes from {' and '.join(hub_ids)}: give {len(hub_ids)} revisions joined by '+', not {revision!r}")
    patterns = only or [None] * len(hub_ids)
    folders = tuple(
        snapshot(hub_id, commit, None if pattern is None else [pattern])
        for hub_id, commit, pattern in zip(hub_ids, revisions, patterns, strict=True)
    )
    return folders, "+".join(folder.name for folder in folders)
