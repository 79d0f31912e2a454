"""A build against a server of its own, and what it left on the disk."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from endpoint import Script, ScriptedEndpoint
from picture_book import find_leaks
from slq_karr.build import Built, build
from slq_karr.models import Endpoint
from slq_karr.prompts import load_prompts
from slq_karr.settings import Options

COUNT = 12  # queries of the set that most tests build


def run(script: Script, images: Path, out: Path, *, asked: list[str] | None = None, timeout: float = 20.0, **more) -> Built:
    """One build with a server of its own; `asked` gets the prompts that it saw."""
    given = {"options": Options(COUNT), "find_leaks": find_leaks, "backoff": 0.01, **more}
    with ScriptedEndpoint(script) as server, closing(Endpoint(server.url, "book", key="secret", timeout=timeout)) as model:
        try:
            return build(images, out, model, load_prompts(), **given)
        finally:
            if asked is not None:
                asked += server.prompts
            assert set(server.keys) <= {"Bearer secret"}


def requests_of(out: Path) -> list[dict]:
    """The lines of requests, without those that say that a run begins."""
    return [line for line in lines(out / "requests.jsonl") if line["status"] != "begun"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
