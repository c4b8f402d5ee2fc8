"""A model hub on this machine: the addresses of the real one, serving the repositories of a folder."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlparse

REVISION = "a" * 40


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Serve `root`/owner/name/... as hub repositories; the address to give as HF_ENDPOINT."""

    class Handler(_Handler):
        repositories = root

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    repositories: Path

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        match unquote(urlparse(self.path).path).strip("/").split("/"):
            case ["api", "models", owner, name, *rest]:
                self._describe(self.repositories / owner / name, "tree" in rest)
            case [owner, name, "resolve", _, *path]:
                self._send_file(self.repositories.joinpath(owner, name, *path))
            case _:
                self._refuse()

    def _describe(self, repository: Path, as_tree: bool) -> None:
        files = [file for file in repository.rglob("*") if file.is_file()]
        if not files:
            return self._refuse()
        names = [file.relative_to(repository).as_posix() for file in files]
        tree = [
            {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0" * 40}
            for name, file in zip(names, files, strict=True)
        ]
        about = {
            "id": f"{repository.parent.name}/{repository.name}",
            "sha": REVISION,
            "siblings": [{"rfilename": name} for name in names],
            "tags": [],
        }
        self._send(json.dumps(tree if as_tree else about).encode(), {"Content-Type": "application/json"})

    def _send_file(self, file: Path) -> None:
        if not file.is_file():
            return self._refuse()
        content = file.read_bytes()
        tag = hashlib.sha256(content).hexdigest()
        self._send(content, {"ETag": f'"{tag}"', "X-Repo-Commit": REVISION})

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _refuse(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
