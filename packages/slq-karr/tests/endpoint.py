"""A real HTTP server that speaks chat completions from a script, counts what it was asked, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the server sends. hold: wait for this event first. counts: whether it says how many tokens it used."""

    text: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    refusal: str | None = None
    finish: str = "stop"
    counts: bool = True
    raw: str | None = None
    hold: threading.Event | None = None


Script = Callable[[Body], Answer]


def prompt_of(body: Body) -> str:
    """The text of a request."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")


def image_of(body: Body) -> str | None:
    """The data URL of a request's image."""
    content = body["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"] if isinstance(content, list) else []
    return urls[0] if urls else None


class ScriptedEndpoint:
    """Serves a script on a free port of this machine; use with `with`. asked: every body, in the order of arrival."""

    def __init__(self, script: Script):
        self.script = script
        self.asked: list[Body] = []
        self.keys: list[str | None] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def prompts(self) -> list[str]:
        with self._lock:
            return [prompt_of(body) for body in self.asked]

    def __enter__(self) -> ScriptedEndpoint:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # header and body are written apart: 40 ms for each answer otherwise

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with endpoint._lock:
                    endpoint.asked.append(body)
                    endpoint.keys.append(self.headers.get("Authorization"))
                answer = endpoint.script(body) if self.path == "/v1/chat/completions" else Answer(status=404, raw="no such path")
                if answer.hold is not None:
                    answer.hold.wait(30)
                self._send(answer, body)

            def _send(self, answer: Answer, body: Body) -> None:
                content = (answer.raw if answer.raw is not None else json.dumps(_completion(answer, body))).encode()
                try:
                    self.send_response(answer.status)
                    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **answer.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:  # whoever asked has gone
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _completion(answer: Answer, body: Body) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, **({"refusal": answer.refusal} if answer.refusal else {})}
    usage = {"prompt_tokens": len(prompt_of(body)) // 4, "completion_tokens": len(answer.text) // 4 + 1}
    return {"choices": [{"message": message, "finish_reason": answer.finish}], **({"usage": usage} if answer.counts else {})}
