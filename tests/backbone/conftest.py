"""What a run measured, printed at its end where pytest is run with `-rP` or `--capture=no`."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def measured(request) -> Callable[[str, float], float]:
    def record(name: str, value: float) -> float:
        print(f"{request.node.name}: {name} {value:.1e}")
        return value

    return record
