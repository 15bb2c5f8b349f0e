"""A stand-in for the Hugging Face Hub on this machine: repositories of files in memory."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from urllib.parse import unquote, urlsplit

HEADERS = {"X-Error-Code": None}


class Hub:
    """Repositories by name: {"OWNER/NAME": {revision: {file: content}}}."""

    def __init__(self):
        self.repositories = {}
        self.private = {}
        self.asked = []
        self.url = ""

    def commit(self, repository, revision):
        """The name of what a branch, or a commit itself, holds."""
        files = self.files(repository, revision)
        return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()

    def files(self, repository, revision):
        branches = self.repositories[repository]
        if revision in branches:
            return branches[revision]
        return next(x for name, x in branches.items() if self.commit(repository, name) == revision)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path))
        name = re.match(r"/(?:api/models/)?([^/]+/[^/]+)", path)[1]
        if name not in hub.repositories:
            return self.refuse("RepoNotFound", "Repository not found")
        found = re.search(r"/(revision|tree|resolve)/([^/]+)(?:/(.*))?$", path)
        kind, revision, file = found.groups() if found else ("revision", "main", None)
        try:
            files = hub.files(name, revision)
        except StopIteration:
            return self.refuse("RevisionNotFound", "Invalid rev id")
        if kind == "revision":
            siblings = [{"rfilename": x} for x in files]
            return self.answer(
                {"id": name, "sha": hub.commit(name, revision), "siblings": siblings}
            )
        if kind == "tree":
            tree = [
                {"type": "file", "path": x, "size": len(y), "oid": hashlib.sha1(y).hexdigest()}
                for x, y in files.items()
            ]
            return self.answer(tree)
        if file not in files:
            return self.refuse("EntryNotFound", "Entry not found")
        etag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
        commit = hub.commit(name, revision)
        return self.send(200, files[file], {"ETag": etag, "X-Repo-Commit": commit})

    do_HEAD = do_GET

    def do_POST(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.asked.append((self.command, path))
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            hub.repositories.setdefault(name, {"main": {}})
            hub.private[name] = asked.get("private", asked.get("visibility") == "private")
            return self.answer({"url": f"{hub.url}/{name}", "id": name})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        found = re.match(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/(.+)", path)
        name, kind, revision = found.groups()
        branches = hub.repositories[name]
        if kind == "branch":
            branches.setdefault(revision, dict(branches["main"]))
            return self.answer({})
        if kind == "preupload":
            asked = json.loads(body)["files"]
            files = [
                {"path": x["path"], "uploadMode": "regular", "shouldIgnore": False} for x in asked
            ]
            return self.answer({"files": files})
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                branches[revision][value["path"]] = base64.b64decode(value["content"])
        oid = hub.commit(name, revision)
        return self.answer({"commitUrl": f"{hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def refuse(self, code, text):
        self.send(404, json.dumps({"error": text}).encode(), {"X-Error-Code": code})

    def answer(self, value):
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status, body, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def running_hub(monkeypatch, folder):
    """A `Hub` that huggingface_hub takes for the real one, with an empty cache in a folder."""
    from huggingface_hub import constants

    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub, server.daemon_threads = hub, True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_stand_in")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
