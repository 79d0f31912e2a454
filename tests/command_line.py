"""The command line, run in this process: what a command prints, and the code it ends with."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from slq.cli import main

ONE_LINE = re.compile(r"Error: [^\n]+\n")
QUICK = ("--num-latents", "4", "--batch-size", "8", "--device", "cpu")  # a training of little work


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run(*arguments: object) -> Said:
    """Run `slq` with these arguments, as a shell that found it in a folder of programs would."""
    stdout, stderr = StringIO(), StringIO()
    with patch.object(sys, "argv", ["/somewhere/bin/slq", *map(str, arguments)]), redirect_stdout(stdout), redirect_stderr(stderr):
        code = main()
    return Said(code, stdout.getvalue(), stderr.getvalue())


def invoke(*arguments: object, code: int = 0) -> Said:
    """Run a command that must end with this code."""
    said = run(*arguments)
    assert said.code == code, said.output
    return said


def refused(*arguments: object) -> str:
    """Run a command that must be refused with one sentence; returns the sentence. The code is 2 for a wrong option, else 1."""
    said = run(*arguments)
    sentence = "".join(line for line in said.stderr.splitlines(keepends=True) if not line.startswith("Note: "))
    assert said.code in (1, 2) and ONE_LINE.fullmatch(sentence), said.output
    return sentence


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
