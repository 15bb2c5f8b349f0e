"""The application: what comes in is bounded before it is looked at, and one thread has the model.

Starlette and uvicorn, which FastAPI is made of: an endpoint whose body is an image has nothing
that FastAPI's own dependency, pydantic, could check.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .._version import __version__
from ..inference import SOLOPredictor
from ..inference.failures import describe, raise_if_hopeless
from ..inference.prediction import Prediction
from ..io.image import ImageError, ImageTooLargeError, decode_image
from .answers import Options, make_answer
from .upload import Upload

__all__ = ["Limits", "make_app"]

_PAGE = Path(__file__).with_name("page.html")
_CLOSED_REQUEST = 499
"""Status, for logs alone, of a request whose client has gone."""


@dataclass(frozen=True)
class Limits:
    """What a server takes at most.

    Attributes:
        waiting: Requests at once, the one that is predicted among them; more are told to come
            again.
        bytes: Of an upload.
        pixels: Of an image.
        seconds: That an upload may take.

    Example:
        >>> Limits(waiting=8).pixels
        16000000
    """

    waiting: int = 32
    bytes: int = 20 * 2**20
    pixels: int = 16_000_000
    seconds: float = 30.0


def make_app(
    predictor: SOLOPredictor,
    limits: Limits | None = None,
    *,
    threshold: float = 0.3,
    hosts: Sequence[str] = ("localhost", "127.0.0.1", "[::1]"),
) -> Starlette:
    """Return the ASGI application of a model.

    Args:
        predictor: With no threshold of its own; a thread of the application alone calls it.
        limits: Of what comes in.
        threshold: Least score of instances where a request says nothing.
        hosts: Names under which clients may address the server, so that no web page of another
            host can reach it by a name that it points here; ("*",) for all.

    Example:
        >>> from solo_d2 import SOLOPredictor
        >>> from solo_d2.testing import tiny_config
        >>> app = make_app(SOLOPredictor(tiny_config()), Limits(waiting=8))
        >>> [route.path for route in app.routes]
        ['/', '/health', '/model', '/predict']
    """
    service = _Service(predictor, limits or Limits(), threshold)
    return Starlette(
        routes=[
            Route("/", service.page),
            Route("/health", service.health),
            Route("/model", service.model),
            Route("/predict", service.predict, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={HTTPException: _explain},
    )


class _Service:
    """The endpoints; all of them run in one event loop."""

    def __init__(self, predictor: SOLOPredictor, limits: Limits, threshold: float) -> None:
        self._predictor, self._limits, self._threshold = predictor, limits, threshold
        self._thread = ThreadPoolExecutor(1, "model")
        # Decoded images and masks at once: while one is predicted, another is read or written.
        self._decoded = asyncio.Semaphore(2)
        self._waiting = self._done = 0
        self._seconds = 1.0  # of a prediction, about
        self._broken = ""

    async def page(self, _request: Request) -> Response:
        policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        policy += "img-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        text = await to_thread.run_sync(_PAGE.read_text, "utf-8")
        return Response(text, media_type="text/html", headers=headers)

    async def health(self, _request: Request) -> Response:
        content = {
            "status": self._broken or "ok",
            "waiting": self._waiting,
            "limit": self._limits.waiting,
            "done": self._done,
        }
        return JSONResponse(content, 503 if self._broken else 200)

    async def model(self, _request: Request) -> Response:
        cfg, get = self._predictor.cfg, self._predictor.metadata.get
        ids = get("thing_dataset_id_to_contiguous_id")
        content = {
            "solo_d2": __version__,
            "architecture": cfg.MODEL.META_ARCHITECTURE,
            "classes": list(get("thing_classes") or []),
            "category_ids": list(ids) if ids else None,
            "device": str(self._predictor.device),
            "short_side": cfg.INPUT.MIN_SIZE_TEST,
            "long_side": cfg.INPUT.MAX_SIZE_TEST,
            "threshold": self._threshold,
            "max_bytes": self._limits.bytes,
            "max_pixels": self._limits.pixels,
        }
        return JSONResponse(content)

    async def predict(self, request: Request) -> Response:
        """Read, decode, predict and answer; see docs/serving.md."""
        upload = Upload(request, self._limits.bytes)
        try:
            options = Options.from_query(request.query_params, self._threshold)
            with self._place():
                return await self._answer(upload, options, request.is_disconnected)
        except ValueError as error:
            failure = HTTPException(400, str(error))
        except HTTPException as error:
            failure = error
        except ClientDisconnect:
            return Response(status_code=_CLOSED_REQUEST)
        # Whoever is still sending would not see an answer.
        await upload.discard(self._limits.bytes, min(5.0, self._limits.seconds))
        raise failure

    async def _answer(
        self, upload: Upload, options: Options, is_gone: Callable[[], Awaitable[bool]]
    ) -> Response:
        data = await self._in_time(upload)
        async with self._decoded:
            if await is_gone():
                return Response(status_code=_CLOSED_REQUEST)
            image = await to_thread.run_sync(self._decode, data)
            loop = asyncio.get_running_loop()
            try:
                prediction = await loop.run_in_executor(self._thread, self._run, image)
                answer = await to_thread.run_sync(make_answer, prediction, options)
            except Exception as error:  # of the model, about this image
                raise HTTPException(500, describe(error)) from error
        if answer is None:
            return Response(status_code=204)
        return Response(answer.body, media_type=answer.media_type)

    async def _in_time(self, upload: Upload) -> bytes:
        try:
            with anyio.fail_after(self._limits.seconds):
                return await upload.read()
        except TimeoutError:
            raise HTTPException(
                408, f"the upload took longer than {self._limits.seconds:g} s"
            ) from None

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Hold one of the places for requests."""
        if self._broken:
            raise HTTPException(503, self._broken)
        if self._waiting >= self._limits.waiting:
            wait = max(1, math.ceil(self._waiting * self._seconds))
            raise HTTPException(
                503, f"{self._waiting} requests are waiting; try again", {"Retry-After": str(wait)}
            )
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _decode(self, data: bytes) -> np.ndarray:
        try:
            return decode_image(
                data, max_pixels=self._limits.pixels, max_value=self._predictor.max_value
            )
        except ImageTooLargeError as error:
            raise HTTPException(413, str(error)) from error
        except ImageError as error:
            raise HTTPException(400, str(error)) from error

    def _run(self, image: np.ndarray) -> Prediction:
        """Predict; in the model's thread."""
        start = time.monotonic()
        try:
            prediction = self._predictor(image)
        except Exception as error:
            try:
                raise_if_hopeless(error)
            except Exception as lost:
                self._broken = f"the device is lost: {describe(lost)}. Start the server again"
            raise
        self._seconds += 0.1 * (time.monotonic() - start - self._seconds)
        self._done += 1
        return prediction


async def _explain(_request: Request, error: Any) -> Response:
    """Answer with the reason in one line."""
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
