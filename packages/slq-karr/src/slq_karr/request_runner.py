"""Asking a model many questions: each answer is paid for once, kept in the request log, and read; what cannot be had is a Failure."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from slq.errors import Failure, InputError
from slq_karr.answers import Malformed, is_refusal, parse_object
from slq_karr.limits import Budget, Limits, RateLimiter
from slq_karr.models import Model, NoReply, Reply
from slq_karr.request_log import ANSWERED, MALFORMED, REFUSED, UNANSWERED, Line, RequestLog

Value = TypeVar("Value")
Progress = Callable[[str, int, int, float], None]
"""Told of every answer: the stage, how many of it are there, of how many, and what the set has cost so far."""

TRIES = 3  # for an answer that can be used
TRIES_TO_REACH = 6  # for any answer
IN_A_ROW = 5  # requests given up without an answer between them: the endpoint is down
LONGEST_WAIT = 600.0  # seconds
IMAGE_TOKENS = 2000  # at most, to set money aside before the endpoint has counted


@dataclass(frozen=True)
class Request:
    """One question. image: a file, and `sha256` of its bytes. stage, item: for people."""

    stage: str
    item: str
    text: str
    image: Path | None = None
    sha256: str = ""


class _Stopped(Exception):
    """Another thread met what ends the asking, or the user did."""


class RequestRunner:
    """Asks with the request log in hand: a request that was answered once is never sent again.

    Args:
        model: what is asked.
        log: of the set.
        limits: speed and costs.
        backoff: seconds before the first new try after a failure; it doubles with each further one.
        on_progress: told of every answer.
    """

    def __init__(self, model: Model, log: RequestLog, limits: Limits, backoff: float = 1.0, on_progress: Progress = lambda *_: None):
        self.model, self.log, self.limits, self.backoff, self.on_progress = model, log, limits, backoff, on_progress
        self.rate_limiter = RateLimiter(limits.requests_per_minute)
        self.budget = Budget(limits, log.spent)
        self._settings = json.dumps([model.name, dict(model.settings)], sort_keys=True, default=str)
        self._locks: dict[str, threading.Lock] = {}
        self._fault: BaseException | None = None

    def key(self, request: Request) -> str:
        """Equal keys, equal questions: the model with its settings, the text and the image's bytes."""
        asked = json.dumps([self._settings, request.text, request.sha256])
        return hashlib.sha256(asked.encode("utf-8", "backslashreplace")).hexdigest()[:32]

    def ask_all(self, requests: Sequence[Request], read: Callable[[Mapping[str, Any]], Value]) -> list[Value | Failure]:
        """Put many requests, several at once.

        Args:
            requests: the questions.
            read: takes the value out of an answer's JSON object, or raises Malformed.

        Returns:
            The values in the order of the requests; a Failure for each that cannot be had.

        Raises:
            InputError: if asking must end: the costs reach their cap, the endpoint is down, or it will never answer. What is under way is
                waited for and logged.
        """
        found: dict[int, Value | Failure] = {}
        with ThreadPoolExecutor(self.limits.concurrency) as threads:
            futures = {threads.submit(self._ask_or_stop, request, read): place for place, request in enumerate(requests)}
            try:
                for future in as_completed(futures):
                    found[futures[future]] = future.result()
                    self.on_progress(requests[0].stage, len(found), len(requests), self.budget.spent)
            except BaseException as error:
                self.rate_limiter.stop()
                threads.shutdown(wait=True, cancel_futures=True)
                raise (self._fault or error) if isinstance(error, _Stopped) else error from None
        return [found[place] for place in range(len(requests))]

    def _ask_or_stop(self, request: Request, read: Callable[[Mapping[str, Any]], Value]) -> Value | Failure:
        """What goes wrong for all is told to all at once: no other thread begins another request."""
        try:
            return self.ask(request, read)
        except _Stopped:
            raise
        except BaseException as error:
            self._fault = self._fault or error
            self.rate_limiter.stop()
            raise

    def ask(self, request: Request, read: Callable[[Mapping[str, Any]], Value]) -> Value | Failure:
        """One answer, from the request log or the model; unusable ones are asked for again, TRIES times in all.

        Args:
            request: the question.
            read: takes the value out of the answer's JSON object, or raises Malformed.

        Returns:
            The value, or why there is none.
        """
        key = self.key(request)
        with self._locks.setdefault(key, threading.Lock()):
            if why := self.log.given_up(key):
                return Failure(request.item, why)
            tried, why = self.log.answers(key), ""
            for line in tried:
                value, why = _judged(line, read)
                if not why:
                    return value
            for attempt in range(len(tried) + 1, TRIES + 1):
                sent = self._send(request, key, attempt, why)
                if isinstance(sent, Failure):
                    return sent
                value, why = _judged(sent, read)
                self.log.add(sent)
                if not why:
                    return value
            return Failure(request.item, f"no usable answer in {TRIES} tries; the last: {why}")

    def _send(self, request: Request, key: str, attempt: int, complaint: str) -> Line | Failure:
        """The request log's line of an answer, not yet judged; every try that brought none has its own line by then."""
        text = request.text
        if complaint:
            text += f"\n\nYour last answer could not be used: {complaint}. Answer with the JSON object alone."
        start: Line = {"key": key, "stage": request.stage, "item": request.item, "attempt": attempt}
        asked = {"model": self.model.name, "text": text, "image": request.image.name if request.image else None}
        for turn in range(TRIES_TO_REACH):
            if not self.rate_limiter.wait():
                raise _Stopped
            most = self.limits.cost(len(text) / 2 + (IMAGE_TOKENS if request.image else 0), self.model.max_tokens)
            clock = time.perf_counter()
            try:
                with self.budget.reserve(most):
                    reply = self.model.answer(text, request.image)
                    answered = start | {"request": asked} | self._paid(reply, text, request) | _now(clock)
                return answered
            except NoReply as error:
                why = error.status
                self.log.add(start | {"status": why, "request": asked, "why": why, "cost": 0.0} | _now(clock))
                if not error.again:
                    break
                if turn < TRIES_TO_REACH - 1:
                    self._wait(error, turn)
        why = f"no answer: {why}"
        self.log.add(start | {"status": UNANSWERED, "why": why, "cost": 0.0} | _now(clock))
        if self.log.in_a_row >= IN_A_ROW:
            raise InputError(f"The last {IN_A_ROW} requests got {why}. What was answered is kept; see to the endpoint and run again.")
        return Failure(request.item, why)

    def _paid(self, reply: Reply, text: str, request: Request) -> Line:
        """What an answer says and costs; tokens that the endpoint does not count are estimated, as the line tells."""
        estimated = reply.tokens_in is None or reply.tokens_out is None
        tokens_in = reply.tokens_in if reply.tokens_in is not None else len(text) // 4 + (IMAGE_TOKENS if request.image else 0)
        tokens_out = reply.tokens_out if reply.tokens_out is not None else len(reply.text) // 4 + 1
        cost = self.limits.cost(tokens_in, tokens_out)
        self.budget.charge(cost)
        line: Line = {"answer": reply.text, "tokens_in": tokens_in, "tokens_out": tokens_out, "cost": cost}
        if estimated:
            line["estimated"] = True
        if reply.refusal:
            line["refusal"] = reply.refusal
        if reply.cut:
            line["cut"] = True
        return line

    def _wait(self, error: NoReply, turn: int) -> None:
        """As long as the endpoint asks, which holds for all; this request also waits a growing while of its own."""
        if error.wait is not None and error.wait > LONGEST_WAIT:
            raise InputError(f"The endpoint asks to wait {error.wait:.0f} s ({error.status}). What was answered is kept; run again then.")
        if error.wait is not None:
            self.rate_limiter.hold(error.wait)
        self.rate_limiter.sleep(min(60.0, self.backoff * 2**turn) * random.uniform(0.75, 1.25))  # apart, so that not all come back at once


def _judged(line: Line, read: Callable[[Mapping[str, Any]], Value]) -> tuple[Any, str]:
    """The value of an answer, or why it has none; the line gets its status."""
    status, value, why = ANSWERED, None, ""
    if line.get("refusal") or is_refusal(line["answer"]):
        status, why = REFUSED, f"refused: {line.get('refusal') or line['answer'][:200]}"
    else:
        try:
            value = read(parse_object(line["answer"]))
        except Malformed as error:
            status, why = MALFORMED, "cut off for want of tokens" if line.get("cut") else str(error)
    line |= {"status": status, "why": why}
    return value, why


def _now(clock: float) -> Line:
    return {"seconds": round(time.perf_counter() - clock, 3), "time": datetime.now(UTC).isoformat(timespec="seconds")}
