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
# Every choice of instructions, and both numbers of threads; this run itself has the processor's own, and one thread.
RUNS = [("default", 2), *([("avx2", 1)] if OWN == "avx512" else [])]


@pytest.mark.process
@pytest.mark.skipif(OWN not in ("avx2", "avx512"), reason="torch chooses among instructions on x86 processors with AVX2")
@pytest.mark.parametrize(("instructions", "threads"), RUNS)
def test_comparisons_hold_with_other_instructions_and_threads(instructions, threads):
    files = sorted(str(path) for path in TESTS.rglob("test_*.py") if "mark.numeric" in path.read_text() and path != Path(__file__))
    environment = os.environ | {"ATEN_CPU_CAPABILITY": instructions, "SLQ_TEST_THREADS": str(threads)}
    environment |= {"OMP_WAIT_POLICY": "passive"}  # else a thread keeps its core busy while it waits for the other, which waits for a core
    other_places = "not (kept_equals_fresh and (disk or device or room or some))"  # of the same states, whose numbers are computed alike
    command = [sys.executable, "-m", "pytest", "-m", "numeric", "-k", other_places, "-p", "no:cacheprovider", "--tb=short", *files]
    result = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True)
    said = re.search(r"torch: (\w+) instructions, (\d+) thread", result.stdout)
    assert said and (said[1].lower(), int(said[2])) == (instructions, threads), result.stdout[:2000]
    assert result.returncode == 0 and int(re.search(r"(\d+) passed", result.stdout)[1]) > 20, result.stdout[-6000:]
