"""A host of files on this machine, of which every test says how it answers."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    """Hands every request to `server.answer`, and remembers it."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        with contextlib.suppress(ConnectionError):  # whoever asked has gone
            self.server.answer(self)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def running_host(answer):
    """A server with `url`, `asked` (paths and headers), `answer` (settable) and `closing`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.answer, server.closing = [], answer, threading.Event()
    server.daemon_threads = True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def send(body, status=200, **headers):
    """An answer with these headers; None leaves one out."""

    def answer(handler):
        handler.send_response(status)
        given = {"Content-Length": str(len(body))}
        given |= {key.replace("_", "-"): value for key, value in headers.items()}
        for key, value in given.items():
            if value is not None:
                handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def raw(*parts, pause=0.0):
    """Bytes as they are, some time apart, until the client goes or the host closes."""

    def answer(handler):
        for part in parts:
            handler.wfile.write(part)
            if handler.server.closing.wait(pause):
                return

    return answer


def silent(after=b""):
    """Some bytes, and then nothing."""
    return raw(after, b"", pause=5.0)
