"""Batches prefetched by processes of their own: images are opened and shaped while the model computes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from slq.errors import InputError
from slq.models.kv import PreparedBatch
from slq.models.processor import ItemProcessor
from slq.types import Item


def default_num_workers(device: torch.device) -> int:
    """How many processes prepare items: 0 where the model itself uses every core, beside an accelerator up to four.

    Args:
        device: of the model.
    """
    return 0 if device.type == "cpu" else min(4, max(1, (os.cpu_count() or 2) - 1))


def prefetch_batches(
    processor: ItemProcessor, batches: Sequence[Sequence[Item]], generation_prompt: bool = True, workers: int = 0
) -> Iterator[PreparedBatch | InputError]:
    """Prepare batches, in their order, ahead of the model.

    Args:
        processor: how items become tensors.
        batches: a sequence, which may be lazy.
        generation_prompt: as for `ItemProcessor.prepare`.
        workers: processes that work two batches ahead each; 0 prepares each batch when it is asked for.

    Yields:
        Each batch prepared, or the error that its first wrong item raised.
    """
    # torch's loader: it feeds the workers, keeps the order, shares the tensors' memory and notices a worker that dies.
    loader = DataLoader(
        _Prepare(processor, batches, generation_prompt),
        batch_size=None,  # each entry is a batch already
        collate_fn=_as_it_is,
        num_workers=min(workers, len(batches)),
        worker_init_fn=_in_a_process_of_its_own,
        generator=torch.Generator(),  # else it draws from the global random numbers
    )
    with _tokenizers_expect_a_fork():
        prepared = iter(loader)
    yield from prepared


class _Prepare(Dataset):
    def __init__(self, processor: ItemProcessor, batches: Sequence[Sequence[Item]], generation_prompt: bool):
        self.processor, self.batches, self.generation_prompt = processor, batches, generation_prompt

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> PreparedBatch | InputError:
        try:
            return self.processor.prepare(self.batches[index], self.generation_prompt)
        except InputError as error:
            return error


def _in_a_process_of_its_own(_worker: int) -> None:
    info: Any = get_worker_info()
    info.dataset.processor.__setstate__({})  # with a lock of its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the main one decides what it ends


def _as_it_is(value: Any) -> Any:
    return value


@contextmanager
def _tokenizers_expect_a_fork() -> Iterator[None]:
    """Workers start in here: the tokenizers library warns of forks, and turns off its threads in them, unless it was told before."""
    name, before = "TOKENIZERS_PARALLELISM", os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ.setdefault(name, "false")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
