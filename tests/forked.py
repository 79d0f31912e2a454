"""Scripts in processes of their own, which are forked from one that has imported torch, transformers and slq.

Such a process runs, fails, is killed and ends like a new Python; only the seconds of its imports are spent once for all. What tests how a
Python or a command begins starts one instead (`subprocess`).
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["slq.training"])
atexit.register(multiprocessing.forkserver._forkserver._stop)  # waits for it, so that its time counts as this process's


class Forked:
    """A script that runs in a process of its own."""

    def __init__(self, script: str, *arguments: object, output: Path, environment: Mapping[str, str] | None = None):
        """Start it.

        Args:
            script: Python, run as `__main__`.
            *arguments: for `sys.argv`.
            output: a new file for what it writes to stdout and stderr.
            environment: variables beside those of this process.
        """
        given = {**os.environ, **(environment or {})}
        self.output = output
        self.process = CONTEXT.Process(target=_run, args=(script, [str(each) for each in arguments], str(output), given))
        self.process.start()

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        self.process.kill()

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGINT)

    def end(self, seconds: float = 300) -> int:
        """Wait for its end; the exit code, negative for the signal that killed it."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            raise TimeoutError(f"It runs for {seconds} seconds: {self.said()[-2000:]}")
        return code

    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""


def run_alone(script: str, *arguments: object, output: Path, environment: Mapping[str, str]) -> None:
    """Run a script to its end, which must be a good one."""
    forked = Forked(script, *arguments, output=output, environment=environment)
    assert forked.end() == 0, forked.said()[-3000:]


def run_together(count: int, script: str, *arguments: object, output: Path, environment: Mapping[str, str]) -> None:
    """Run a script in processes that find one another, as `torch.distributed.run` starts them; all must end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**environment, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    processes = [Forked(script, *arguments, output=output.with_name(f"{output.name}-{rank['RANK']}"), environment=rank) for rank in ranks]
    codes = [process.end() for process in processes]
    assert codes == [0] * count, "\n".join(process.said()[-2000:] for process in processes)


def _run(script: str, arguments: list[str], output: str, environment: dict[str, str]) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
