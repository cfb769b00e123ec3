"""A stand-in for Confluent's Schema Registry: the two questions that simlink asks it, on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["SchemaRegistry"]


class SchemaRegistry:
    """Context manager.

    Attributes:
        url: where it answers.
        schemas: id → (schema type, schema); ids begin at 1, equal schemas share one.
        asked: every request, as ``METHOD PATH``.
        secret: the Authorization header that is asked for, or None.
        refuses: the status of every answer, where it is set.
    """

    def __init__(self) -> None:
        self.schemas: dict[int, tuple[str, str]] = {}
        self.subjects: dict[str, list[int]] = {}
        self.asked: list[str] = []
        self.secret: str | None = None
        self.refuses: int | None = None
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = int(self.path.partition("?")[0].rpartition("/")[2])
                found = registry.schemas.get(number)
                if found is None:
                    self._answer(404, {"error_code": 40403, "message": "Schema not found"})
                else:
                    self._answer(200, {"schemaType": found[0], "schema": found[1]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                new = (body["schemaType"], body["schema"])
                number = next((n for n, known in registry.schemas.items() if known == new), len(registry.schemas) + 1)
                registry.schemas[number] = new
                registry.subjects.setdefault(self.path.split("/")[2], []).append(number)
                self._answer(200, {"id": number})

            def _answer(self, status: int, body: Any) -> None:
                registry.asked.append(f"{self.command} {self.path}")
                if registry.secret is not None and self.headers.get("Authorization") != registry.secret:
                    status, body = 401, {"message": "Unauthorized"}
                if registry.refuses is not None:
                    status, body = registry.refuses, {"message": "no"}
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="registry", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()
