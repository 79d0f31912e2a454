"""Fetching data sets from the hub, each at a commit that can be named beside a score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slq.errors import DataError, InputError


def fetch(hub_ids: Sequence[str], revision: str | None, only: Sequence[str | None] = ()) -> tuple[tuple[Path, ...], str]:
    """The folders of data sets on the hub, and their commits joined by `+`, which given as `revision` fetches the same again.

    only: for each data set a pattern of the files that are needed (None: all).

    Raises DataError if one is not on this machine and cannot be fetched, InputError if `revision` does not name one for each.
    """
    revisions = revision.split("+") if revision else [None] * len(hub_ids)
    if len(revisions) != len(hub_ids):
        raise InputError(f"the data comes from {' and '.join(hub_ids)}: give {len(hub_ids)} revisions joined by '+', not {revision!r}")
    patterns = only or [None] * len(hub_ids)
    folders = tuple(_snapshot(*each) for each in zip(hub_ids, revisions, patterns, strict=True))
    return folders, "+".join(folder.name for folder in folders)


def _snapshot(hub_id: str, revision: str | None, pattern: str | None) -> Path:
    from huggingface_hub import is_offline_mode, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RevisionNotFoundError

    where = f"the data set {hub_id!r}" + (f" at {revision!r}" if revision else "")
    try:
        return Path(snapshot_download(hub_id, repo_type="dataset", revision=revision, allow_patterns=pattern))
    except RevisionNotFoundError:
        raise DataError(f"{where} does not exist on the hub; give a commit, tag or branch that it has") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        why = "HF_HUB_OFFLINE is set" if is_offline_mode() else "the hub cannot be reached"
        raise DataError(f"{where} is not on this machine, and {why}; connect and try again, or give the folder of a local copy") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"{where} cannot be fetched ({reason}); try again, or give the folder of a local copy") from None
