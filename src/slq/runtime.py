"""Device, dtype, seed, provenance and careful writing: chosen in one place, at run time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from slq.errors import DiskFullError, ModelError, OutputError, OutputExistsError

MANIFEST = ".slq.json"  # names, or patterns, of the files that a run writes into its folder; --overwrite removes no others
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str | None = None) -> torch.device:
    """The named device, or the first accelerator, or the CPU."""
    if device is not None:
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ModelError(f"Unknown device {device!r}: use cpu, cuda, cuda:1 or mps.") from error
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    """The named dtype, or float32 on the CPU and bfloat16 elsewhere.

    Raises ModelError for an unknown name.
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def total_memory(device: torch.device) -> int:
    """Bytes of memory that the device has, used or free; of the host's where the device shares it or will not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return host_memory("SC_PHYS_PAGES")


def host_memory(pages: str) -> int:
    """Bytes of the host's memory by sysconf's name: SC_PHYS_PAGES (all), SC_AVPHYS_PAGES (free); 8 GB where the system cannot tell."""
    try:
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 8 << 30


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def provenance(seed: int | None = None) -> dict[str, Any]:
    """Where and when a result was made: versions, hardware, seed, UTC time."""
    import sentence_transformers
    import transformers

    accelerator = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "hardware": accelerator or f"{os.cpu_count()} CPU cores ({platform.machine()})",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence_transformers": sentence_transformers.__version__,
    }


def parameter_hash(module: torch.nn.Module) -> str:
    """sha256 over every parameter and buffer, name and bits: equal hashes mean bit-identical weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating system's write error into one sentence about `path`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # safetensors says "os error 28" in an error of its own, torch a RuntimeError that only a look at the disk explains.
        if isinstance(error, RuntimeError) and not _is_full(path):
            raise
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error) or isinstance(error, RuntimeError):
            raise DiskFullError(f"No room left on the disk while writing {path}: free some space and run again.") from error
        raise OutputError(f"Cannot write {path}: {getattr(error, 'strerror', None) or error}.") from error


def _is_full(path: Path) -> bool:
    """Whether the disk that holds `path` has less than a page left."""
    return shutil.disk_usage(next(folder for folder in path.resolve().parents if folder.exists())).free < 2**14


def _holds_something(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def check_free(path: Path, overwrite: bool = False, keep: Path | None = None) -> None:
    """Refuse an output folder that holds something, before the work and not after it.

    Raises OutputExistsError unless `overwrite` is given and every file that is there stands in a manifest of this package, and OutputError
    if the folder holds `keep`, which the run is to read.
    """
    if keep is not None and keep.resolve().is_relative_to(path.resolve()):
        raise OutputError(f"{path} holds {keep}, which is read: choose another output folder.")
    if not _holds_something(path):
        return
    if not overwrite:
        raise OutputExistsError(f"{path} exists already: choose another folder, or pass --overwrite to replace it.")
    if not path.is_dir() or path.is_symlink() or not (path / MANIFEST).is_file():
        raise OutputExistsError(f"{path} holds something that slq did not make: choose another folder, or remove it yourself.")
    if foreign := _foreign(path):
        raise OutputExistsError(
            f"{path} holds {len(foreign)} file(s) that slq did not write, such as {foreign[0]}: move them away, or choose another folder."
        )


def new_folder(path: Path, overwrite: bool = False, own: Sequence[str] = ()) -> Path:
    """An empty output folder with a manifest; `overwrite` removes what an earlier run listed as its own, if nothing else is there.

    own: the files that this run will write, as paths inside the folder or patterns of such. Raises OutputExistsError as `check_free` does.
    """
    check_free(path, overwrite)
    with writing(path):
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        (path / MANIFEST).write_text(json.dumps({"format": 1, "files": list(own)}, indent=2) + "\n", encoding="utf-8")
    return path


def _foreign(path: Path) -> list[Path]:
    """Files below a folder that no manifest, its own or that of a folder inside, lists."""
    own: dict[Path, list[str]] = {}
    for manifest in path.rglob(MANIFEST):
        try:
            own[manifest.parent] = [MANIFEST, *json.loads(manifest.read_text(encoding="utf-8"))["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            return [manifest]
    foreign = []
    for file in sorted(each for each in path.rglob("*") if each.is_symlink() or not each.is_dir()):
        lists = [(folder, names) for folder, names in own.items() if file.is_relative_to(folder)]
        if not any(fnmatchcase(file.relative_to(folder).as_posix(), name) for folder, names in lists for name in names):
            foreign.append(file)
    return foreign


def replace_file(path: Path, write: Any) -> None:
    """Write a file so that readers see the old content or the new, never a part: `write(partial_path)`, then rename."""
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        try:
            write(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
