"""A local server that speaks OpenAI's chat completions as a test wants it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROGRAM = """@protected
def train(w, g, m, lr, *, b1=0.9):
    m = interp(g, m, b1)
    return {scale} * lr * sign(m), m
"""


def fenced(*texts: str) -> str:
    return "Some ideas:\n\n" + "\n".join(f"```python\n{text}```\nwhich may help." for text in texts)


def completion(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@dataclass
class ChatServer:
    """Answers the n-th request, from 1, with what `answer` says: a body, or a status and a body."""

    answer: Callable[[int], bytes | tuple[int, bytes]]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    endpoint: str = ""
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def chat_server(answer: Callable[[int], bytes | tuple[int, bytes]]) -> Iterator[ChatServer]:
    said = ChatServer(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            said.requests.append(json.loads(self.rfile.read(length)))
            said.headers.append(dict(self.headers))
            said.paths.append(self.path)
            found = said.answer(len(said.requests))
            status, body = found if isinstance(found, tuple) else (200, found)
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # the client has given up

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    said.endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield said
    finally:
        said.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
