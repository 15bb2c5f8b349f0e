"""A headless Chromium, driven through two pipes in its DevTools protocol: no other package."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium():
    """Return the path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class _Server(SimpleHTTPRequestHandler):
    more = ()

    def end_headers(self):
        for header in self.more:
            self.send_header(*header)
        super().end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(folder, headers=()):
    """Serve the files of a folder; yields the URL."""
    handler = type("Server", (_Server,), {"more": headers})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Page:
    """A page of a browser that runs for as long as the block `with Page(folder)`.

    Args:
        folder: for the browser's profile and downloads.
        size: (width, height) of the window.
        arguments: of the browser.
    """

    def __init__(self, folder, size=(1280, 900), arguments=()):
        self.downloads = folder / "downloads"
        self._number, self._events = 0, []
        self._session = None
        out, self._write = os.pipe()
        self._read, answers = os.pipe()
        command = [
            *(find_chromium(), "--headless=new", "--no-sandbox", "--disable-gpu"),
            *("--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"),
            *("--no-first-run", f"--window-size={size[0]},{size[1]}", "--hide-scrollbars"),
            *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
            *(*arguments, "about:blank"),
        ]
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (out, answers)]
        for end in (out, answers):
            os.close(end)

        def connect():  # the browser reads commands from 3 and answers on 4
            for number, end in enumerate(ends, 3):
                os.dup2(end, number)

        self._process = subprocess.Popen(
            command, preexec_fn=connect, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in ends:
            os.close(end)
        self._stream = os.fdopen(self._read, "rb", buffering=0)
        self._buffer = b""
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(x["targetId"] for x in targets if x["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.send("Page.enable")
        self.send("Runtime.enable")
        self.send("Log.enable")
        self.send(
            "Page.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads)
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, EOFError):
            self._session = None
            self.send("Browser.close")
        self._process.wait(20)
        os.close(self._write)
        self._stream.close()

    def send(self, method, **parameters):
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self._events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            data = self._stream.read(1 << 20)
            if not data:
                raise EOFError("the browser has ended")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def run(self, expression):
        """Return the value of an expression on the page, a promise's when it is there."""
        result = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True,
            userGesture=True,
        )  # fmt: skip
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def wait_for(self, expression, seconds=90):
        """Wait until an expression on the page is true; returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(expression)):
            if time.monotonic() > end:
                text = self.run("document.body.innerText")
                raise TimeoutError(f"{expression} is not true after {seconds} s: {text}")
            time.sleep(0.05)
        return value

    def choose(self, file):
        """Choose a file, as a click on the button does."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def downloaded(self, name, seconds=30):
        """Wait for a download; returns its path."""
        path, end = self.downloads / name, time.monotonic() + seconds
        while not path.is_file():
            if time.monotonic() > end:
                raise TimeoutError(f"{name}: not among {list(self.downloads.glob('*'))}")
            time.sleep(0.05)
        return path

    def complaints(self):
        """Return what the browser has logged as errors."""
        self.run("0")
        logged = [x["params"]["entry"] for x in self._events if x["method"] == "Log.entryAdded"]
        thrown = [x for x in self._events if x["method"] == "Runtime.exceptionThrown"]
        return [x["text"] for x in logged if x["level"] == "error"] + thrown

    def screenshot(self, path):
        """Write a PNG of the window."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))
