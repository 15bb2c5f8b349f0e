"""The body of a request: an image alone, or a form with one, of bounded size."""

from __future__ import annotations

import anyio
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message

__all__ = ["Upload"]

_MOST_FIELDS = 8


class Upload:
    """Reads what a client sends, and no more than a limit.

    Args:
        request: Whose body nobody has read yet.
        limit: Of the body in bytes.
    """

    def __init__(self, request: Request, limit: int) -> None:
        self._receive, self._limit = request.receive, limit
        self._request = Request(request.scope, self._bounded)
        self._count = 0
        self._ended = False

    async def read(self) -> bytes:
        """Return the content of the image file.

        Raises:
            HTTPException: 413 for too many bytes, which may be known before any is read; 400 for
                no image, several, or a damaged form.
            ClientDisconnect: The client has gone.
        """
        stated = self._request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > self._limit:
            raise self._too_large()
        kind = self._request.headers.get("content-type", "").lower()
        if kind.startswith("multipart/form-data"):
            data = await self._file_of_form()
        else:
            data = await self._request.body()
        if not data:
            raise HTTPException(400, "the request has no image: send a file as its body")
        return data

    async def discard(self, most: int, seconds: float) -> None:
        """Read on and forget, until the client has sent everything or there is too much of it."""
        self._limit = self._count + most
        with anyio.move_on_after(seconds):
            while not self._ended and self._count < self._limit:
                await self._next()

    async def _file_of_form(self) -> bytes:
        parser = MultiPartParser(
            self._request.headers,
            self._request.stream(),
            max_files=1,
            max_fields=_MOST_FIELDS,
        )
        # What is larger goes to the disk. The older name is Starlette's before 0.46.
        parser.spool_max_size = parser.max_file_size = self._limit + 1  # type: ignore[attr-defined]
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise HTTPException(400, error.message) from error
        try:
            for value in form.values():
                if isinstance(value, UploadFile):
                    return await value.read()
        finally:
            await form.close()
        raise HTTPException(400, "the form has no file")

    async def _bounded(self) -> Message:
        message = await self._next()
        if self._count > self._limit:
            raise self._too_large()
        return message

    async def _next(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the upload is larger than {self._limit} bytes")
