"""Ctrl-C: its exit code, and a training that goes on where it was stopped."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from pathlib import Path

import pytest
from command_line import QUICK, invoke, run
from forked import Forked


def test_ctrl_c_ends_with_code_130(tmp_path, monkeypatch):
    """Ctrl-C comes as a KeyboardInterrupt from whatever runs; here it comes with the first image drawn."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("slq.miniature.export.render", interrupted)
    said = run("sample-data", tmp_path / "sample", "--count", 3)
    assert said.code == 130 and "Stopped." in said.stderr


# The handler is set by hand: a test run started in the background passes an ignored SIGINT on to its children.
WITH_CTRL_C = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); import slq.cli; sys.exit(slq.cli.main())"


@pytest.mark.process
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_loses_nothing(tiny_world, tmp_path):
    training_run = ["train", tiny_world / "train" / "captions.jsonl", *QUICK, "--epochs", 6]
    stopped, log = tmp_path / "stopped", tmp_path / "stopped" / "log.jsonl"
    typed = [*map(str, training_run), "--output", str(stopped)]
    training, deadline = Forked(WITH_CTRL_C, *typed, output=tmp_path / "said.txt"), time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") >= 2):
        assert training.running and time.monotonic() < deadline, "the training never came to its second step"
        time.sleep(0.01)
    training.interrupt()
    assert training.end(seconds=120) == 130, training.said()
    said = training.said()
    assert "Traceback" not in said
    to_resume = shlex.join(["slq", *typed, "--resume"])
    told = re.search(r"Stopped\. (\S+checkpoint-\d{7}) is saved; to go on from there: (.*)", said)
    assert told and told[2] == to_resume and Path(told[1]).is_dir(), "no checkpoint was due: Ctrl-C itself saves one"
    assert not (stopped / "adapter.safetensors").exists(), "the run ended before it was stopped"
    whole = [path for path in stopped.glob("checkpoint-*") if path.suffix != ".partial"]
    assert whole and all(
        {"model.safetensors", "optimizer.bin", "scheduler.bin"} <= {file.name for file in path.iterdir()} for path in whole
    )

    invoke(*shlex.split(to_resume)[1:])
    invoke(*training_run, "--output", tmp_path / "unbroken")
    assert (stopped / "adapter.safetensors").read_bytes() == (tmp_path / "unbroken" / "adapter.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 19))
