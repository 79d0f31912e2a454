"""Embeddings cached in a folder: a stopped evaluation continues where it was, and never with what is corrupt or of something else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from slq.cache.records import RecordStore
from slq.data import RetrievalSet
from slq.encoders import LastTokenEncoder
from slq.evaluation import Evaluation, evaluate, vectors
from slq.models import FrozenModel, PreparedBatch
from slq.types import Item

IMAGES = "a red cat", "two blue dogs", "a boat", "three green trees", "a house at night", "a yellow car"


class Counting(LastTokenEncoder):
    """Counts the items it embeds, and may end its own process after some."""

    def __init__(self, model: FrozenModel, last: int | None = None, instruction: str = ""):
        super().__init__(model, instruction)
        self.count, self.last = 0, last

    def encode_prepared(self, prepared: PreparedBatch):
        if self.last is not None and self.count >= self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += len(prepared)
        return super().encode_prepared(prepared)


def texts() -> RetrievalSet:
    queries = {f"q{number}": Item(f"query {number}: {text}") for number, text in enumerate(IMAGES)}
    corpus = {f"c{number}": Item(f"{text}, number {number // 6}") for number, text in enumerate(IMAGES * 2)}
    return RetrievalSet("texts", queries, corpus, {f"q{number}": {f"c{number}": 1} for number in range(6)}, ())


@pytest.fixture(autouse=True)
def records_are_small(monkeypatch):
    monkeypatch.setattr(vectors, "ITEMS_PER_RECORD", 4)


def run(encoder: Counting, cache_dir: Path | None, sets: Sequence[RetrievalSet] | None = None) -> Evaluation:
    done: list[int] = []
    sets = [texts()] if sets is None else sets
    result = evaluate(encoder, sets, progress=done.append, cache_dir=cache_dir)[0]
    assert sum(done) == sum(len(one.queries) + len(one.corpus) for one in sets)
    return result


def records(cache_dir: Path) -> list[Path]:
    return sorted(cache_dir.glob("*/*/*.safetensors"))


@pytest.mark.process
def test_a_killed_run_goes_on_where_it_was(model, tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from slq.models import load_model\n"
        "from slq.evaluation import evaluate, vectors\n"
        "from test_cached_vectors import Counting, texts\n"
        "vectors.ITEMS_PER_RECORD = 4\n"
        "evaluate(Counting(load_model(device='cpu'), last=10), [texts()], cache_dir=Path(sys.argv[2]))\n"
    )
    arguments = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "cache")]
    killed = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = records(tmp_path / "cache")
    assert len(before) in (2, 3), "it ended itself after ten of eighteen, written four at a time"
    second, whole = Counting(model), Counting(model)
    resumed, unbroken = run(second, tmp_path / "cache"), run(whole, tmp_path / "other")
    assert (second.count, whole.count) == (18 - 4 * len(before), 18)
    assert resumed == unbroken and resumed.metrics == run(Counting(model), None).metrics
    assert [path.name for path in records(tmp_path / "cache")] == [path.name for path in records(tmp_path / "other")]


def test_a_second_run_embeds_nothing_and_a_larger_one_what_is_new(model, tmp_path):
    first, again, more = Counting(model), Counting(model), Counting(model)
    result = run(first, tmp_path)
    assert run(again, tmp_path) == result and (first.count, again.count) == (18, 0)
    one = texts()
    larger = RetrievalSet("more", one.queries, {**one.corpus, "new": Item("a new one"), "same": Item("a boat, number 0")}, one.qrels, ())
    run(more, tmp_path, [larger])
    assert more.count == 1, "an item with the same content is known already"


def test_what_others_embedded_is_not_taken(model, tmp_path):
    run(Counting(model), tmp_path)
    other = Counting(model, instruction="in one word")
    assert run(other, tmp_path).metrics == run(Counting(model, instruction="in one word"), None).metrics and other.count == 18


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_corrupt_record_is_embedded_again(damage, model, tmp_path):
    result = run(Counting(model), tmp_path)
    one = records(tmp_path)[1]
    whole = one.read_bytes()  # the vectors are at the end
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    one.write_bytes({"cut": whole[:-20], "flipped": flipped, "empty": b""}[damage])
    second = Counting(model)
    assert run(second, tmp_path) == result and 0 < second.count <= 4
    assert one.read_bytes()[-1000:] == whole[-1000:]


def test_a_record_of_another_width_is_not_taken(model, tmp_path):
    result = run(Counting(model), tmp_path)
    store = RecordStore(records(tmp_path)[0].parent.parent, vectors._CODEC)
    store.put("another", ([texts().queries["q0"].content_hash], np.ones((1, 2), dtype=np.float32)))
    again = Counting(model)
    assert run(again, tmp_path) == result and again.count == 0


def test_a_folder_that_cannot_be_written_ends_the_writing_and_not_the_run(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="takes nothing more"):
        result = run(Counting(model), tmp_path / "file")
    assert result.metrics == run(Counting(model), None).metrics


def test_failures_are_found_anew_and_not_kept(model, tmp_path):
    one = texts()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    items = {"lost": Item(image=tmp_path / "gone.png"), "broken": Item(image=broken), "broken too": Item(image=broken)}
    damaged = RetrievalSet("texts", one.queries, {**one.corpus, **items}, {**one.qrels, "q0": {"broken": 1}}, ())
    first, second = run(Counting(model), tmp_path / "cache", [damaged]), run(Counting(model), tmp_path / "cache", [damaged])
    plain = run(Counting(model), None, [damaged])
    assert first == second and first.metrics == plain.metrics
    assert [failure.item for failure in first.failures] == [failure.item for failure in plain.failures] == ["lost", "broken", "broken too"]
