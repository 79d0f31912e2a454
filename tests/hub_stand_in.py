"""A small server that speaks as much of the Hugging Face hub's HTTP interface as fetching and uploading need."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_REVISION = re.compile(r"/api/(?P<type>models|datasets)/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/?]+)")
_TREE = re.compile(r"/api/(?P<type>models|datasets)/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/?]+)")
_FILE = re.compile(r"/(?:(?P<type>datasets)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_WRITE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>preupload|commit|branch)/(?P<revision>[^/?]+)")


class HubStandIn:
    """Repositories in memory, served on a free port of this machine.

    Attributes:
        repos: files by (`models` or `datasets`, `owner/name`, revision).
        requests: method and path of every request.
        locked: whether writing is refused, as for a token without rights.
    """

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str, str], dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.locked = False
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> HubStandIn:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self, kind: str, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and the files of a branch or a commit."""
        for (some_kind, some_repo, branch), files in self.repos.items():
            if (some_kind, some_repo) == (kind, repo) and revision in (branch, commit_of(files)):
                return commit_of(files), files
        return None


def commit_of(files: dict[str, bytes]) -> str:
    """40 hexadecimal digits over all files."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if match := _REVISION.match(self.path) or _TREE.match(self.path):
            if found := self._find(match["type"], match["repo"], match["revision"]):
                commit, files = found
                listed = [{"rfilename": name} for name in files]
                tree = [{"type": "file", "path": name, "size": len(content), "oid": _oid(content)} for name, content in files.items()]
                self._json(tree if "/tree/" in self.path else {"id": match["repo"], "sha": commit, "siblings": listed})
        elif match := _FILE.match(self.path):
            found = self._find(match["type"] or "models", match["repo"], match["revision"])
            if found and match["file"] in found[1]:
                content = found[1][match["file"]]
                self._send(content, {"X-Repo-Commit": found[0], "ETag": f'"{_oid(content)}"'})
            elif found:
                self._error(404, "EntryNotFound")
        else:
            self._error(404, "RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.locked:
            self._error(403, "Forbidden")
        elif self.path.startswith("/api/repos/create"):
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if self.hub.files("models", name, "main"):
                self._json({"url": f"{self.hub.url}/{name}"}, 409)
            else:
                self.hub.repos["models", name, "main"] = {}
                self._json({"url": f"{self.hub.url}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := _WRITE.match(self.path):
            self._write(match["what"], match["repo"], match["revision"], body)
        else:
            self._error(404, "RepoNotFound")

    def _write(self, what: str, repo: str, revision: str, body: bytes) -> None:
        if what == "branch":
            self.hub.repos["models", repo, revision] = dict(self.hub.repos["models", repo, "main"])
            self._json({})
        elif what == "preupload":
            files = json.loads(body)["files"]
            self._json({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]})
        else:
            files = self.hub.repos["models", repo, revision]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = commit_of(files)
            self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit, "pullRequestUrl": None})

    def _find(self, kind: str, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        found = self.hub.files(kind, repo, revision)
        if found is None:
            known = any((some_kind, some_repo) == (kind, repo) for some_kind, some_repo, _ in self.hub.repos)
            self._error(404, "RevisionNotFound" if known else "RepoNotFound")
        return found

    def _error(self, status: int, code: str) -> None:
        self._send(json.dumps({"error": code}).encode(), {"X-Error-Code": code, "X-Error-Message": code}, status)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
