"""A server for one set, one machine, a few reviewers: the standard library's, so that nothing of it needs keeping up.

It listens on 127.0.0.1 alone. Other pages open in the same browser cannot use it: a request must name this very host (against rebinding of
names), a change must come from our own page and as JSON, and no address of a request is ever taken for a path.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from slq.errors import ImageError, InputError, OutputError, SlqError
from slq_karr.review.session import Review

HOST, LONGEST_BODY, PATIENCE = "127.0.0.1", 64 * 1024, 30  # address; bytes; seconds that a connection may be silent
PAGE = {"/": ("index.html", "text/html"), "/review.css": ("review.css", "text/css"), "/review.js": ("review.js", "text/javascript")}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class ReviewServer(ThreadingHTTPServer):
    """Serves a review on 127.0.0.1.

    Args:
        review: the set that is reviewed.
        port: 0 takes any free one.

    Raises:
        InputError: if the port is taken.
    """

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0):
        self.review = review
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"Port {port} of this machine cannot be used ({error}): choose another, or --port 0 for any.") from error
        self.hosts = {f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"}

    def address(self, reviewer: str) -> str:
        """Where the page of a reviewer is."""
        return f"http://{HOST}:{self.server_port}/?reviewer={quote(reviewer, safe='')}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""
        with suppress(ConnectionError, TimeoutError):
            raise
        super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version, server_version, sys_version = "HTTP/1.1", "slq", ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal stays readable; what matters is in reviews.jsonl."""

    def _answer(self, method: Callable[[], None]) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            return self._refuse(HTTPStatus.FORBIDDEN, "This server answers only as 127.0.0.1 or localhost.")
        try:
            method()
        except ImageError as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error))
        except InputError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except OutputError as error:
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
        except SlqError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def _get(self) -> None:
        url = urlsplit(self.path)
        asked = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if url.path in PAGE:
            name, kind = PAGE[url.path]
            self._send(files(__package__).joinpath("page", name).read_bytes(), f"{kind}; charset=utf-8")
        elif url.path == "/state":
            self._send_json(self.server.review.state(asked.get("reviewer", "")))
        elif url.path == "/leaks":
            self._send_json(self.server.review.leaks(asked.get("candidate", ""), asked.get("query", "")))
        elif url.path.startswith("/images/"):
            self._send(*self.server.review.image(unquote(url.path.removeprefix("/images/"))))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _post(self) -> None:
        path = urlsplit(self.path).path
        if not self._is_our_page():
            self._refuse(HTTPStatus.FORBIDDEN, "Changes are taken from the review page only.")
        elif path == "/decide":
            self._send_json(self.server.review.decide(**self._body("reviewer", "candidate", "decision", "query", "note")))
        elif path == "/undo":
            self._send_json(self.server.review.undo(**self._body("reviewer")))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _is_our_page(self) -> bool:
        """Browsers say where a request comes from, and ask before they send JSON elsewhere, which we never allow."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "same-origin")
        own = origin is None or origin in {f"http://{host}" for host in self.server.hosts}
        return own and site == "same-origin" and self.headers.get_content_type() == "application/json"

    def _body(self, *fields: str) -> dict[str, str]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LONGEST_BODY:
            self.close_connection = True
            raise InputError(f"A request has a body of at most {LONGEST_BODY} bytes, its length given.")
        try:
            body = json.loads(self.rfile.read(int(length)))
            json.dumps(body, ensure_ascii=False).encode()  # half a surrogate pair could not be written
        except (ValueError, RecursionError) as error:
            raise InputError(f"The request is not JSON: {error}.") from error
        if not isinstance(body, dict) or not all(isinstance(value, str) for value in body.values()) or not set(body) <= set(fields):
            raise InputError(f"A request is an object of texts: {', '.join(fields)}.")
        return {field: body.get(field, "") for field in fields}

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        if self.command == "POST":
            self.close_connection = True  # the body may not have been read
        self._send_json({"error": why}, status)

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value, ensure_ascii=False).encode(), "application/json; charset=utf-8", status)

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
