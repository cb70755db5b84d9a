"""What `mlflow models serve` lacks: a limit on the size of requests, and refusals that begin with the reason.

That server reads a request into memory whatever its size, and turns JSON into Python objects of many times that before
a model sees any of it. It answers a bad one with all of its data before the reason, or a traceback. So the model, when
it is loaded by that server, puts this guard before the application that the server makes next.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# In the environment of the processes that `mlflow models serve` and its containers start, and of no other.
SERVED = "__pyfunc_model_path__"
TOO_LARGE, BAD = 413, 400
BYTES_A_LIST = 16  # of a point such as [51.25,-10.5]; empty lists would take 80 times their text's size
_ECHO = re.compile(
    r"^Failed to predict data '.*'\. \nError: (Failed to enforce schema of data '.*' with schema )?", re.S
)


class Guard:
    """An ASGI application before another.

    Args:
        app: The other.
        limit: Bytes of a request. Larger ones are refused by what they declare, else when they reach it.
    """

    def __init__(self, app: Application, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on once it has come in whole."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._limit:
            await self._refuse(send)
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > self._limit:
                await self._refuse(send)
                return
            more = message.get("more_body", False)
        if sum(body.count(mark) for mark in (b"[", b"{", b'"')) > self._limit // BYTES_A_LIST:
            await self._refuse(send)
            return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        try:
            await self._app(scope, replay, _ReasonFirst(send))
        except RecursionError:  # from the JSON decoder
            await _answer(send, BAD, "BAD_REQUEST", "the request's JSON is nested too deeply")

    async def _refuse(self, send: Send) -> None:
        most = f"{self._limit} bytes and {self._limit // BYTES_A_LIST} lists"
        reason = f"a request may have {most}: ask for fewer points at a time"
        await _answer(send, TOO_LARGE, "REQUEST_LIMIT_EXCEEDED", reason)


class _ReasonFirst:
    """Pass an answer on; of a refusal, the reason without the request's data and without a traceback."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._refused: bytearray | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == BAD:
            self._refused = bytearray()
        elif self._refused is None:
            await self._send(message)
        else:
            self._refused += message.get("body", b"")
            if not message.get("more_body", False):
                told = json.loads(self._refused)
                await _answer(self._send, BAD, told["error_code"], _ECHO.sub("", told["message"]))


async def _answer(send: Send, status: int, code: str, reason: str) -> None:
    headers = [(b"content-type", b"application/json")]
    if status == TOO_LARGE:
        headers.append((b"connection", b"close"))  # the rest of what is being sent is not read either
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error_code": code, "message": reason}).encode()})


def guard_next_server(limit: int) -> None:
    """Guard the next FastAPI application of a process that `mlflow models serve` started; elsewhere do nothing."""
    if SERVED not in os.environ:
        return
    import fastapi
    from starlette.middleware import Middleware

    module, plain = vars(fastapi), fastapi.FastAPI

    def guarded(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - FastAPI's own
        module["FastAPI"] = plain
        return plain(*arguments, middleware=[Middleware(Guard, limit=limit)], **keywords)

    module["FastAPI"] = guarded
