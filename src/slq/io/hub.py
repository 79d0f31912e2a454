"""Models, adapters and data sets from the Hugging Face hub, and adapters to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from slq.errors import DataError, OutputError, SlqError

RepoType = Literal["model", "dataset"]


def snapshot(
    repo: str,
    revision: str | None = None,
    patterns: Sequence[str] | None = None,
    *,
    repo_type: RepoType = "dataset",
    error: type[SlqError] = DataError,
) -> Path:
    """Fetch a repository, or find it among what was fetched before.

    Args:
        repo: `owner/name`.
        revision: a commit, tag or branch; None for the newest.
        patterns: of the names of the files that are needed (`*.parquet`); None for all.
        repo_type: what it holds.
        error: the class of error to raise.

    Returns:
        The folder of its files, named after the commit.

    Raises:
        SlqError: of the class `error`, if it is not on this machine and cannot be fetched.
    """
    from huggingface_hub import is_offline_mode, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    kind = "data set" if repo_type == "dataset" else "repository"
    where = f"the {kind} {repo!r}" + (f" at {revision!r}" if revision else "")
    instead = "or give the folder of a local copy"
    allowed = None if patterns is None else list(patterns)
    try:
        return Path(snapshot_download(repo, repo_type=repo_type, revision=revision, allow_patterns=allowed))
    except HFValidationError:
        raise error(f"{repo!r} is neither a folder nor a name of the hub (owner/name); correct it") from None
    except RevisionNotFoundError:
        raise error(f"{where} does not exist on the hub; give a commit, tag or branch that it has") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        why = "HF_HUB_OFFLINE is set" if is_offline_mode() else "the hub cannot be reached"
        raise error(f"{where} is not on this machine, and {why}; connect and try again, {instead}") from None
    except RepositoryNotFoundError:
        raise error(f"{where} does not exist on the hub, or is private; correct its name, log in with `hf auth login`, {instead}") from None
    except Exception as fault:  # the client passes on whatever its HTTP library and the disk raise
        raise error(f"{where} cannot be fetched ({_first_line(fault)}); try again, {instead}") from fault


def upload(folder: Path, repo: str, revision: str | None = None, *, message: str = "Upload with slq", private: bool = False) -> str:
    """Put the files of a folder into a model repository, which is made if it is not there.

    Args:
        folder: what to upload, all of it.
        repo: `owner/name`.
        revision: a branch, made if it is not there; None for `main`.
        message: of the commit.
        private: whether a new repository is hidden from others.

    Returns:
        The address of the commit.

    Raises:
        OutputError: if the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        return api.upload_folder(repo_id=repo, folder_path=folder, revision=revision, commit_message=message).commit_url
    except Exception as fault:  # as above
        reason = _first_line(fault)
        raise OutputError(
            f"Cannot upload to {repo!r} ({reason}): log in with `hf auth login`, and check the name and your rights."
        ) from fault


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
