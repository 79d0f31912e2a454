"""How fast requests may go out and how much they may cost, for all threads together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from slq.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Speed and costs of asking.

    Args:
        concurrency: requests under way at once.
        requests_per_minute: sent, at most; None for no limit.
        price_in: of a million tokens of requests, in any currency.
        price_out: of a million tokens of answers.
        max_cost: of the set, all runs together; None for no limit.

    Raises:
        InputError: if a value is out of range, or a cap comes without prices.
    """

    concurrency: int = 4
    requests_per_minute: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    max_cost: float | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise InputError(f"The concurrency must be at least 1, not {self.concurrency}.")
        if self.requests_per_minute is not None and self.requests_per_minute <= 0:
            raise InputError(f"The requests per minute must be above 0, not {self.requests_per_minute}.")
        if min(self.price_in, self.price_out) < 0:
            raise InputError("A price cannot be below 0.")
        if self.max_cost is not None and not self.price_in + self.price_out > 0:
            raise InputError("A cap on costs needs prices: give those of a million tokens, --price-in and --price-out.")

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """What so many tokens cost."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


class RateLimiter:
    """Lets requests out at even distances, none before a moment that the endpoint named, and none once stopped."""

    def __init__(self, requests_per_minute: float | None = None):
        self.gap = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def wait(self) -> bool:
        """Wait for one's turn; false once stopped."""
        while True:
            with self._lock:
                now = time.monotonic()
                left = self._next - now
                if left <= 0:
                    self._next = now + self.gap
                    return not self._stopped.is_set()
            if not self.sleep(left):
                return False

    def hold(self, seconds: float) -> None:
        """Let nothing out for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> bool:
        """Wait alone; false once stopped."""
        return not self._stopped.wait(seconds)

    def stop(self) -> None:
        """Let nothing out any more; who waits is told at once."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()


class Budget:
    """Keeps the costs below the cap: a request goes out only if what is under way, and it, could not exceed it."""

    def __init__(self, limits: Limits, spent: float):
        self.limits, self.spent = limits, spent
        self._under_way = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def reserve(self, most: float) -> Iterator[None]:
        """Reserve money for one request while it is under way.

        Args:
            most: what it can cost.

        Raises:
            InputError: if there is not enough left.
        """
        cap = self.limits.max_cost
        with self._lock:
            if cap is not None and self.spent + self._under_way + most > cap:
                raise InputError(
                    f"The next request could exceed the cap: {self.spent:.4f} of {cap:g} is spent, {self._under_way:.4f} under way. "
                    "What was answered is kept; run again with a higher --max-cost to go on."
                )
            self._under_way += most
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= most

    def charge(self, cost: float) -> None:
        """Add what an answer cost."""
        with self._lock:
            self.spent += cost
