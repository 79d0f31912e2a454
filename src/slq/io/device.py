"""Which device and dtype to compute with, and how much memory there is: chosen in one place, at run time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from slq.errors import ModelError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
_UNKNOWN_MEMORY = 8 << 30  # bytes, where the system cannot tell


def choose_device(device: str | None = None) -> torch.device:
    """The named device, or the first accelerator, or the CPU.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `mps`; None to choose.

    Returns:
        The device.

    Raises:
        ModelError: for a name that torch does not know.
    """
    import torch

    if device is not None:
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ModelError(f"Unknown device {device!r}: use cpu, cuda, cuda:1 or mps.") from error
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    """The named dtype, or float32 on the CPU and bfloat16 elsewhere.

    Args:
        dtype: one of `DTYPES`; None to choose.
        device: where the model runs.

    Returns:
        The dtype.

    Raises:
        ModelError: for an unknown name.
    """
    import torch

    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    return getattr(torch, dtype)


def memory_of(device: torch.device) -> int:
    """Bytes of memory that a device has, used or free; the host's where the device shares it or cannot tell.

    Args:
        device: the device.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    return _host_memory("SC_PHYS_PAGES")


def free_memory() -> int:
    """Bytes of the host's memory that are free now; 8 GB where the system cannot tell."""
    return _host_memory("SC_AVPHYS_PAGES")


def _host_memory(pages: str) -> int:
    try:
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return _UNKNOWN_MEMORY
