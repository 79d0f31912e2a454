"""Who is asked: a model behind an OpenAI-compatible endpoint, or a frozen model on this machine. Both answer one question at a time."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx2

from slq.data.images import open_image
from slq.errors import InputError
from slq.types import Item

if TYPE_CHECKING:
    from slq.models import FrozenModel

STOPS_ALL = (401, 403, 404)  # the key, the address or the model's name is wrong: nothing will be answered
AGAIN = (408, 409, 425, 429)  # and everything from 500 on


@dataclass(frozen=True)
class Reply:
    """An answer. refusal: what the endpoint said in its place, if it did. cut: whether it ended for want of tokens.

    tokens_in, tokens_out: as the endpoint counts them; None where it does not.
    """

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    refusal: str = ""
    cut: bool = False


class NoReply(Exception):
    """Nothing came back that would be paid for. again: whether asking again may help; wait: seconds that the endpoint asks to wait."""

    def __init__(self, status: str, again: bool = True, wait: float | None = None):
        super().__init__(status)
        self.status, self.again, self.wait = status, again, wait


class Model(Protocol):
    """What is asked. Its name and settings decide what it answers; both stand in the set's settings."""

    @property
    def name(self) -> str:
        """Of the model."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else shapes its answers."""
        ...

    @property
    def max_tokens(self) -> int:
        """Of an answer, at most."""
        ...

    def answer(self, text: str, image: Path | None) -> Reply:
        """One answer.

        Args:
            text: the question.
            image: a file that it is about, if any.

        Raises:
            NoReply: if nothing came back.
            InputError: if nothing ever will.
        """
        ...


@dataclass
class Endpoint:
    """A model behind `<url>/chat/completions`; threads may share it.

    max_tokens: bound on an answer. max_side: images are scaled down to so many pixels a side before they are sent. timeout: seconds.
    fields: put into the body of every request; None removes a field, e.g. {"max_tokens": None, "max_completion_tokens": 2000}.
    """

    url: str
    name: str
    key: str | None = field(default=None, repr=False)
    max_tokens: int = 500
    max_side: int = 1024
    timeout: float = 120.0
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"The endpoint {self.url!r} is not an address: give one such as http://localhost:8000/v1.")
        address = self.url.rstrip("/")
        self._address = address if address.endswith("/chat/completions") else f"{address}/chat/completions"
        bounds = [self.fields.get(name) for name in ("max_tokens", "max_completion_tokens")]
        self.max_tokens = max([bound for bound in bounds if isinstance(bound, int)], default=self.max_tokens)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self._client = httpx2.Client(timeout=self.timeout, headers=headers)

    @property
    def settings(self) -> dict[str, Any]:
        """What shapes its answers: part of the key of every request."""
        return {"max_tokens": self.max_tokens, "max_side": self.max_side, "fields": dict(self.fields)}

    def answer(self, text: str, image: Path | None) -> Reply:
        """One answer; see `Model`."""
        try:
            response = self._client.post(self._address, json=self._body(text, image))
        except httpx2.TimeoutException:
            raise NoReply(f"time-out after {self.timeout:g} s") from None
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise NoReply(f"unreachable ({error or type(error).__name__})") from None
        if response.status_code != 200:
            raise self._refused(response)
        try:
            return _reply(response.json())
        except (ValueError, LookupError, TypeError, AttributeError):
            raise NoReply(f"an answer that is not a chat completion: {response.text[:200]!r}") from None

    def close(self) -> None:
        """Give its connections back."""
        self._client.close()

    def _body(self, text: str, image: Path | None) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if image is not None:
            content.insert(0, {"type": "image_url", "image_url": {"url": _as_url(image, self.max_side)}})
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": content if image is not None else text}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        return {name: value for name, value in {**body, **self.fields}.items() if value is not None}

    def _refused(self, response: httpx2.Response) -> Exception:
        code, said = response.status_code, " ".join(response.text.split())[:300]
        if code in STOPS_ALL:
            return InputError(f"The endpoint {self.url} answers {code}: {said} Check its address, the key and the model {self.name!r}.")
        again = code in AGAIN or code >= 500
        return NoReply(f"http {code}" + ("" if again else f": {said}"), again, _retry_after(response.headers.get("retry-after")))


class LocalModel:
    """A frozen model that answers greedily, one question after the other, whatever the number of threads."""

    def __init__(self, model: FrozenModel, max_tokens: int = 500):
        self.model, self.max_tokens = model, max_tokens
        self.name = model.identity.name
        self.settings: Mapping[str, Any] = {"max_tokens": max_tokens, "backbone": model.identity.to_dict()}
        self._lock = threading.Lock()

    def answer(self, text: str, image: Path | None) -> Reply:
        """One answer; see `Model`."""
        with self._lock:
            message = self.model.message(Item(text, image))
            (answer,) = self.model.generate([[message]], self.max_tokens)
        count = len(self.model.processor.tokenizer(answer)["input_ids"])
        return Reply(answer, None, count, cut=count >= self.max_tokens)


def _reply(body: Mapping[str, Any]) -> Reply:
    choice = body["choices"][0]
    message, usage = choice["message"], body.get("usage") or {}
    refusal = message.get("refusal") or ("content filter" if choice.get("finish_reason") == "content_filter" else "")
    return Reply(
        text=str(message.get("content") or ""),
        tokens_in=usage.get("prompt_tokens"),
        tokens_out=usage.get("completion_tokens"),
        refusal=str(refusal),
        cut=choice.get("finish_reason") == "length",
    )


def _as_url(image: Path, max_side: int) -> str:
    """The image as every vision model takes it: JPEG, inside the request."""
    opened = open_image(image)
    opened.thumbnail((max_side, max_side))
    stream = io.BytesIO()
    opened.save(stream, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None for anything else."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def parse_fields(text: str) -> dict[str, Any]:
    """Fields of a request's body from JSON; raises InputError for anything but an object."""
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise InputError(f'The fields of a request are a JSON object such as {{"temperature": 0.5}}, not {text!r}.')
    return fields
