"""The comparisons of numbers hold with other vector instructions and numbers of threads than this processor chooses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[1]
OWN = torch.backends.cpu.get_cpu_capability().lower().replace("default", "no")  # as torch names it: avx2, avx512, or none
RUNS = [(name, threads) for name in ("default", "avx2") for threads in (1, 2) if name != OWN] + [(OWN, 2)]  # (OWN, 1) is this run


@pytest.mark.process
@pytest.mark.skipif(OWN not in ("avx2", "avx512"), reason="torch chooses among instructions on x86 processors with AVX2")
@pytest.mark.parametrize(("instructions", "threads"), [run for run in RUNS if not (run[0] == "avx2" and OWN == "no")])
def test_comparisons_hold_with_other_instructions_and_threads(instructions, threads):
    files = sorted(str(path) for path in TESTS.rglob("test_*.py") if "mark.numeric" in path.read_text() and path != Path(__file__))
    environment = os.environ | {"ATEN_CPU_CAPABILITY": instructions, "SLQ_TEST_THREADS": str(threads)}
    command = [sys.executable, "-m", "pytest", "-m", "numeric", "-p", "no:cacheprovider", "--tb=short", *files]
    result = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True)
    said = re.search(r"torch: (\w+) instructions, (\d+) thread", result.stdout)
    assert said and (said[1].lower(), int(said[2])) == (instructions, threads), result.stdout[:2000]
    assert result.returncode == 0 and int(re.search(r"(\d+) passed", result.stdout)[1]) > 40, result.stdout[-6000:]
